"""A prompt's way through the loaded model: time, figures, contributions, lens, routing. Needs torch: worker only.

Two passes: one with nothing but time stamps, one that looks at values. What one pass costs the other does not show.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

from workbench.architecture import outliers
from workbench.architecture.anatomy import Layer, Part, find_layers, text_config
from workbench.architecture.figures import Ledger, Measured, figures_of, measure
from workbench.architecture.lens import LensReader, find_steps, lens_positions
from workbench.architecture.passes import Hooks, check_prompt, explained, first_tensor, run_forward
from workbench.architecture.routing import RoutingWatch
from workbench.architecture.stream import StreamWatch
from workbench.architecture.timing import Clock, ModuleTime, TimedPass, time_modules
from workbench.architecture.traced import (
    LayerTrace,
    LogitLens,
    ModelTrace,
    ModuleTrace,
    PartTrace,
    RoutingTrace,
    TracedToken,
)
from workbench.errors import WorkbenchError
from workbench.job import SILENT, Job
from workbench.models.load import LoadedModel

MAX_LENS = 50
# Each of a thousand separate experts has modules of its own; what they do together stands in the routing.
_EXPERT_COPY = re.compile(r"\.experts\.\d+(\.|$)")
_MOST_MODULES = 20_000
_EXPERT_KEYS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_PER_TOKEN_KEYS = ("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "top_k_experts")
# A prompt that takes this long is timed once.
_REPEAT_SECONDS = 0.8
_PASSES = 3
_MULTIPLIER_KEYS = ("residual_multiplier",)


@dataclass(frozen=True)
class TraceOptions:
    """What a trace looks at.

    Attributes:
        lens: tokens per cell of the logit lens; 0 leaves it out.
        lens_positions: how many of the last positions are read; 0 for all.
    """

    lens: int = 5
    lens_positions: int = 64

    def validate(self) -> None:
        """Raise WorkbenchError ``bad-option`` for values out of range."""
        if not 0 <= self.lens <= MAX_LENS:
            raise WorkbenchError(
                "bad-option", f"A lens of {self.lens} tokens is not possible.", f"Give 0 to {MAX_LENS}."
            )
        if self.lens_positions < 0:
            raise WorkbenchError("bad-option", f"{self.lens_positions} positions are not possible.", "Give 0 for all.")


def trace_model(
    loaded: LoadedModel,
    ids: Sequence[int],
    text_of: Callable[[int], str],
    options: TraceOptions = TraceOptions(),
    job: Job = SILENT,
    prompt: str = "",
) -> ModelTrace:
    """Run a prompt through the model and look at every layer.

    The model is left as it was: no hook, no setting, no cache. Cancelling takes effect within one module.

    Args:
        loaded: the model.
        ids: the prompt as the model sees it, special tokens included.
        text_of: the text of a token.
        options: see `TraceOptions`.
        job: progress in layers.
        prompt: the text of `ids`, to be kept with the trace.

    Raises:
        WorkbenchError: ``bad-option``, ``no-model``, ``bad-prompt``, ``prompt-too-long``, ``unsupported``,
            ``out-of-memory`` or ``trace-failed``.
    """
    options.validate()
    check_prompt(loaded, ids)
    return explained(loaded, len(ids), "a trace", lambda: _Trace(loaded, list(ids), text_of, options, job).run(prompt))


class _Trace:
    """The state of one trace."""

    def __init__(
        self, loaded: LoadedModel, ids: list[int], text_of: Callable[[int], str], options: TraceOptions, job: Job
    ) -> None:
        self._loaded = loaded
        self._model = loaded.model
        self._ids = ids
        self._text_of = text_of
        self._options = options
        self._job = job
        self._layers = find_layers(self._model)
        self._modules = list(_watched(self._model, self._layers))
        config = text_config(self._model)
        width = _hidden_size(self._model)
        self._ledger = Ledger()
        self._inputs = outliers.ChannelWatch(width)
        self._channels = outliers.ChannelWatch(width)
        multiplier = _first_number(config, _MULTIPLIER_KEYS)
        self._stream = StreamWatch(
            self._ledger, self._inputs, self._channels, 1.0 if multiplier is None else multiplier
        )
        experts, per_token = _first_number(config, _EXPERT_KEYS), _first_number(config, _PER_TOKEN_KEYS)
        self._routing = RoutingWatch(int(experts or 0), int(per_token or 0))
        self._outputs: dict[str, Measured] = {}
        self._reader: Optional[LensReader] = None
        self._reading = False
        self._why: dict[str, str] = {}
        self._notes: list[str] = []

    def run(self, prompt: str) -> ModelTrace:
        started = time.perf_counter()
        clock = Clock(self._loaded.facts.device)
        keep = self._kept_positions()
        passed = self._timed(clock, keep)
        self._prepare_lens(passed, keep)
        passed.stream = None
        self._look(keep)
        self._ledger.fetch()
        return self._result(prompt, clock, passed, started)

    def _kept_positions(self) -> int:
        if self._loaded.facts.is_encoder_decoder:
            return 1
        if not self._options.lens:
            return 1
        rows = len(self._layers) + 1
        vocabulary = _vocabulary(self._model)
        return lens_positions(
            len(self._ids), self._options.lens_positions, vocabulary, rows, min(self._options.lens, vocabulary)
        )

    def _timed(self, clock: Clock, keep: int) -> TimedPass:
        """The quickest of a few passes: the first pays for what later ones find ready, and machines are shared."""
        best: Optional[TimedPass] = None
        started, count = time.perf_counter(), 0
        while best is None or (count < _PASSES and time.perf_counter() - started < _REPEAT_SECONDS):
            passed = time_modules(self._loaded, self._ids, self._layers, self._modules, keep, clock, self._job)
            count += 1
            if best is None or passed.times[""].seconds < best.times[""].seconds:
                best = passed
        if count > 1:
            self._notes.append(f"Time is that of the quickest of {count} passes.")
        return best

    def _prepare_lens(self, passed: TimedPass, keep: int) -> None:
        import torch

        if not self._options.lens:
            return
        with torch.inference_mode():
            steps, reason = find_steps(self._model, passed)
            if steps is None:
                self._why["lens"] = reason
                return
            final_ids = passed.logits.argmax(-1)
        count = 1 if self._loaded.facts.is_encoder_decoder else len(self._ids)
        positions = range(count - keep, count)
        decoder = [layer for layer in self._layers if layer.stack == "decoder"]
        top = min(self._options.lens, steps.width)
        self._reader = LensReader(steps, decoder, positions, final_ids, top, self._job)
        if keep < min(count, self._options.lens_positions or count):
            self._notes.append(f"The lens reads the last {keep:,} positions; more would not fit.")
        if count != len(self._ids):
            self._notes.append("The lens reads the decoder at its start token.")

    def _look(self, keep: int) -> None:
        """The pass that looks at values."""
        layer_of = _layer_finder(self._layers)
        first_decoder = next(layer.index for layer in self._layers if layer.stack == "decoder")

        def note(name: str, output: Any) -> None:
            if self._reading:
                return
            values = first_tensor(output)
            if values is not None and name:
                self._outputs[name] = measure(values, self._ledger)
            layer = layer_of(name)
            if layer is not None:
                self._routing.take(layer, name, output)

        def begin(layer: Layer) -> None:
            self._job.check()
            self._job.progress("figures", layer.index, len(self._layers), "layers", layer.name)

        def read(layer: Layer, entering: Any, leaving: Any) -> None:
            if self._reader is None or layer.stack != "decoder":
                return
            self._reading = True
            try:
                if layer.index == first_decoder and entering is not None:
                    self._reader.read(-1, entering)
                self._reader.read(layer.index, leaving)
            finally:
                self._reading = False

        with Hooks() as hooks:
            for layer in self._layers:
                hooks.before(layer.module, lambda _args, _kwargs, layer=layer: begin(layer))  # type: ignore[misc]
                self._stream.watch(hooks, layer, read)
            for name, module in self._modules:
                hooks.before(module, lambda _args, _kwargs: self._job.check())
                hooks.after(module, lambda output, name=name: note(name, output))  # type: ignore[misc]
            run_forward(self._loaded, self._ids, keep)
        self._job.progress("figures", len(self._layers), len(self._layers), "layers")

    def _result(self, prompt: str, clock: Clock, passed: TimedPass, started: float) -> ModelTrace:
        times = passed.times
        whole = times.get("", ModuleTime())
        counts = self._inputs.counts()
        ran = [layer for layer in self._layers if layer.index in self._stream.notes]
        layers = tuple(self._layer(layer, times, whole.seconds, counts.get(layer.index, 0)) for layer in ran)
        share = _time_shares(layers, times, passed.tail, whole.seconds)
        routing = self._routing.result()
        self._explain_missing(layers, routing)
        found = None if self._inputs.empty else outliers.summarize(self._inputs, self._channels)
        if found is None:
            self._why["outliers"] = "No tensor of the hidden size enters a mixer or an MLP of this family."
        if len(self._layers) > len(layers):
            self._notes.append(f"{len(self._layers) - len(layers)} layers did not run.")
        if len(self._ids) > 1:
            self._notes.append("Norms of the stream and of contributions leave out the first position.")
        return ModelTrace(
            prompt=prompt,
            tokens=tuple(TracedToken(token, self._text_of(token)) for token in self._ids),
            device=self._loaded.facts.device,
            clock=clock.name,
            forward_seconds=whole.seconds,
            trace_seconds=time.perf_counter() - started,
            layers=layers,
            modules=tuple(self._module_traces(times)),
            mixer_time_share=share.mixer,
            mlp_time_share=share.mlp,
            head_time_share=share.head,
            other_time_share=share.other,
            lens=self._lens(),
            routing=routing,
            outliers=found,
            why=self._why,
            notes=tuple(self._notes),
        )

    def _lens(self) -> Optional[LogitLens]:
        if self._reader is None:
            return None
        head, embedding = self._model.get_output_embeddings(), self._model.get_input_embeddings()
        return self._reader.result(self._text_of, head.weight is embedding.weight)

    def _layer(self, layer: Layer, times: dict[str, ModuleTime], whole: float, outlier_channels: int) -> LayerTrace:
        spent = times.get(layer.name, ModuleTime()).seconds
        added = self._stream.contributions(layer.index)
        parts = [self._part(part, times, spent, added.get(index)) for index, part in enumerate(layer.parts)]
        roles = [part.role for part in layer.parts]
        mixer = roles.index("mixer") if "mixer" in roles else None
        mlp = roles.index("mlp") if "mlp" in roles else None
        first_norm, norm = self._stream.norms(layer.index)
        output = figures_of(self._stream.notes[layer.index].output, self._ledger)
        assert output is not None
        return LayerTrace(
            index=layer.index,
            name=layer.name,
            class_name=type(layer.module).__name__,
            stack=layer.stack,
            seconds=spent,
            time_share=spent / whole if whole else 0.0,
            output=output,
            residual_norm=norm,
            first_norm=first_norm,
            outlier_channels=outlier_channels,
            mixer=None if mixer is None else parts[mixer],
            mlp=None if mlp is None else parts[mlp],
            other_seconds=max(0.0, spent - sum(part.seconds for part in parts)),
            # A decoder without an encoder has cross-attention that never runs.
            others=tuple(part for index, part in enumerate(parts) if index not in (mixer, mlp) and part.seconds),
        )

    def _part(
        self, part: Part, times: dict[str, ModuleTime], layer_seconds: float, added: Optional[tuple[float, float]]
    ) -> PartTrace:
        seconds = sum(times.get(name, ModuleTime()).seconds for name in part.names)
        norm, share = added or (None, None)
        return PartTrace(
            name=part.name,
            class_name=part.class_name,
            kind="cross-attention" if part.role == "cross" else part.kind,
            seconds=seconds,
            time_share=seconds / layer_seconds if layer_seconds else 0.0,
            contribution_norm=norm,
            contribution_share=share,
        )

    def _module_traces(self, times: dict[str, ModuleTime]) -> Iterator[ModuleTrace]:
        layer_of = _layer_finder(self._layers)
        part_of = _part_finder(self._model, self._layers)
        for name, module in self._modules:
            if not name:
                continue
            spent = times.get(name, ModuleTime())
            yield ModuleTrace(
                name=name,
                class_name=type(module).__name__,
                layer=layer_of(name),
                part=part_of(name, module),
                depth=name.count("."),
                calls=spent.calls,
                seconds=spent.seconds,
                own_seconds=max(0.0, spent.own_seconds),
                output=figures_of(self._outputs.get(name), self._ledger),
            )

    def _explain_missing(self, layers: Sequence[LayerTrace], routing: Sequence[RoutingTrace]) -> None:
        name = type(self._model).__name__
        if not self._options.lens:
            self._why["lens"] = "It was not asked for."
        if not routing:
            kinds = {part.kind for layer in self._layers for part in layer.parts}
            self._why["routing"] = (
                f"The routers of {name} are of a form that is not read."
                if "experts" in kinds
                else f"{name} has no mixture of experts."
            )
        for role in ("mixer", "mlp"):
            lacking = [layer.index for layer in layers if getattr(layer, role) is None]
            if lacking:
                what = "token mixer" if role == "mixer" else "MLP"
                which = "The layers" if len(lacking) == len(layers) else f"{len(lacking)} of {len(layers)} layers"
                self._why[role] = f"{which} of {name} have no {what} of their own."
        silent = [layer.index for layer in layers if _has_silent_part(layer)]
        if silent:
            which = "the layers of" if len(silent) == len(layers) else f"{len(silent)} of {len(layers)} layers of"
            self._why["contribution"] = f"In {which} {name} the stream is not the sum of what the parts give."


@dataclass(frozen=True)
class _TimeShares:
    """Shares of the forward pass."""

    mixer: float
    mlp: float
    head: float

    @property
    def other(self) -> float:
        """What is left."""
        return max(0.0, 1.0 - self.mixer - self.mlp - self.head)


def _time_shares(
    layers: Sequence[LayerTrace], times: dict[str, ModuleTime], tail: Sequence[str], whole: float
) -> _TimeShares:
    mixer = mlp = 0.0
    for layer in layers:
        for part in (layer.mixer, layer.mlp, *layer.others):
            if part is None:
                continue
            if part.kind in ("mlp", "experts"):
                mlp += part.seconds
            else:
                mixer += part.seconds
    head = sum(times[name].seconds for name in tail if name in times)
    return _TimeShares(mixer / whole, mlp / whole, head / whole) if whole else _TimeShares(0.0, 0.0, 0.0)


def _has_silent_part(layer: LayerTrace) -> bool:
    return any(part is not None and part.contribution_norm is None for part in (layer.mixer, layer.mlp, *layer.others))


def _watched(model: Any, layers: Sequence[Layer]) -> Iterator[tuple[str, Any]]:
    """The modules to look at: all but those of separate experts; of a huge model the layers and their parts."""
    found = [(name, module) for name, module in model.named_modules() if not _EXPERT_COPY.search(name)]
    if len(found) > _MOST_MODULES:
        kept = {layer.name for layer in layers} | {
            name for layer in layers for part in layer.parts for name in part.names
        }
        found = [(name, module) for name, module in found if name in kept or name.count(".") < 2]
    yield from found


def _layer_finder(layers: Sequence[Layer]) -> Callable[[str], Optional[int]]:
    """The index of the layer that a module name belongs to."""
    index_of = {layer.name: layer.index for layer in layers}

    def find(name: str) -> Optional[int]:
        while name:
            if name in index_of:
                return index_of[name]
            name = name.rpartition(".")[0]
        return None

    return find


def _part_finder(model: Any, layers: Sequence[Layer]) -> Callable[[str, Any], str]:
    """The part of the model that a module is or belongs to."""
    layer_names = {layer.name for layer in layers}
    roles = {name: part.role for layer in layers for part in layer.parts for name in part.names}
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()

    def find(name: str, module: Any) -> str:
        if name in layer_names:
            return "layer"
        if module is head:
            return "head"
        if module is embedding:
            return "embedding"
        class_name = type(module).__name__.lower()
        if "router" in class_name or name.rpartition(".")[2] == "router":
            return "router"
        if "norm" in class_name:
            return "norm"
        while name:
            if name in roles:
                return {"cross": "mixer"}.get(roles[name], roles[name])
            name = name.rpartition(".")[0]
        return "other"

    return find


def _hidden_size(model: Any) -> int:
    config = text_config(model)
    size = _first_number(config, ("hidden_size", "n_embd", "d_model"))
    return int(size) if size else int(model.get_input_embeddings().weight.shape[-1])


def _vocabulary(model: Any) -> int:
    return int(model.get_input_embeddings().weight.shape[0])


def _first_number(config: Any, keys: Sequence[str]) -> Optional[float]:
    for key in keys:
        value = getattr(config, key, None)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
    return None
