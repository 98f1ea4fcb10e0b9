"""The logit lens: what a model would say after each layer. Needs torch: worker only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Callable, Optional

from workbench.architecture.anatomy import Layer, text_config
from workbench.architecture.timing import TimedPass
from workbench.architecture.traced import LogitLens
from workbench.job import Job

# Logits computed at a time; a processor takes a good part of a second for more, in which it could not be stopped.
_CHUNK_CPU = 2**22
_CHUNK_ACCELERATOR = 2**24
# The logits that the lens is held against stay in memory during the trace: 64 Mi of them.
_MOST_LOGITS = 2**26
_MOST_CELLS = 400_000
_TOLERANCE = 0.02
"""Share of the logits' norm by which the lens of the last layer may differ: half-precision kernels round by shape."""

Scale = Callable[[Any], Any]


class LensReader:
    """Reads the residual stream through the model's own last modules.

    Args:
        steps: what `find_steps` found.
        layers: the layers of the decoder.
        positions: those of the prompt that are read.
        final_ids: what the whole model puts first at each.
        top: tokens per cell.
        job: checked between chunks of positions.
    """

    def __init__(
        self, steps: LensSteps, layers: Sequence[Layer], positions: Sequence[int], final_ids: Any, top: int, job: Job
    ) -> None:
        self._steps = steps
        self._layers = layers
        self._positions = tuple(positions)
        self._final_ids = final_ids
        self._top = top
        self._job = job
        self._rows: dict[int, tuple[Any, Any, Any, Any]] = {}

    def read(self, layer: int, stream: Any) -> None:
        """Read the stream that leaves a layer (-1: the embedding), its first dimension the tokens."""
        import torch

        stream = stream[-len(self._positions) :]
        most = _CHUNK_CPU if stream.device.type == "cpu" else _CHUNK_ACCELERATOR
        size = max(1, most // self._steps.width)
        parts = []
        for chunk, final in zip(stream.split(size), self._final_ids.split(size)):
            self._job.check()
            logits = self._steps.logits(chunk).float()
            # exp of the logarithms would take twenty times as long on a CPU as a second softmax.
            chances = torch.softmax(logits, dim=-1)
            top = chances.topk(self._top, dim=-1)
            entropy = -(chances * torch.log_softmax(logits, dim=-1).clamp_min(-1e4)).sum(-1) / math.log(2)
            rank = (logits > logits.gather(-1, final[:, None])).sum(-1)
            # Logits that are not finite have no distribution; JSON knows no NaN.
            parts.append((top.indices, top.values.nan_to_num(0.0), entropy.nan_to_num(0.0), rank))
        self._rows[layer] = tuple(torch.cat(items) for items in zip(*parts))

    def result(self, text_of: Callable[[int], str], tied: bool) -> LogitLens:
        """Everything read, with the tokens' texts."""
        order = sorted(self._rows)
        names = {layer.index: layer.name for layer in self._layers}
        ids, chances, entropy, ranks = (
            [self._rows[layer][part].cpu().tolist() for layer in order] for part in range(4)
        )
        seen = sorted({token for row in ids for cell in row for token in cell})
        return LogitLens(
            layers=tuple(order),
            names=tuple(names.get(layer, "embedding") for layer in order),
            positions=self._positions,
            ids=tuple(tuple(tuple(cell) for cell in row) for row in ids),
            probabilities=tuple(tuple(tuple(round(p, 6) for p in cell) for cell in row) for row in chances),
            entropy=tuple(tuple(round(bits, 4) for bits in row) for row in entropy),
            final_rank=tuple(tuple(row) for row in ranks),
            texts={str(token): text_of(token) for token in seen},
            tied=tied,
            steps=self._steps.names,
        )


class LensSteps:
    """The modules from the residual stream to the logits, and the scaling after them."""

    def __init__(self, modules: Sequence[tuple[str, Any]], width: int) -> None:
        self._modules = modules
        self.width = width
        self.scales: list[tuple[str, Scale]] = []

    @property
    def names(self) -> tuple[str, ...]:
        """In the order in which they act."""
        return (*(name for name, _ in self._modules), *(name for name, _ in self.scales))

    def logits(self, stream: Any) -> Any:
        """Logits of streams of shape ``[positions, hidden]``."""
        values = stream[None]
        for _name, module in self._modules:
            weight = getattr(module, "weight", None)
            # Mamba keeps its stream in float32 and casts before the head.
            if module is self._modules[-1][1] and weight is not None and weight.is_floating_point():
                values = values.to(weight.dtype)
            values = module(values)
        values = values[0]
        for _name, scale in self.scales:
            values = scale(values)
        return values


def lens_positions(tokens: int, wanted: int, vocabulary: int, rows: int, top: int) -> int:
    """How many of the last positions can be read at once."""
    most = max(1, min(_MOST_LOGITS // max(1, vocabulary), _MOST_CELLS // max(1, rows * top)))
    return min(tokens, wanted or tokens, most)


def find_steps(model: Any, passed: TimedPass) -> tuple[Optional[LensSteps], str]:
    """What lies between the last layer and the logits, held against the logits that the model gave.

    Returns:
        The steps; or None and the reason in one line.
    """
    head = model.get_output_embeddings()
    modules = dict(model.named_modules())
    path = [(name, modules[name]) for name in passed.tail]
    # BERT's head stands inside a module that transforms and norms before it.
    heads = [index for index, (_name, module) in enumerate(path) if any(item is head for item in module.modules())]
    if passed.logits is None or head is None or not heads:
        return None, f"{type(model).__name__} has no head that runs after its last layer."
    steps = LensSteps(path[: heads[0] + 1], int(passed.logits.shape[-1]))
    try:
        raw = steps.logits(passed.stream).float()
    except Exception as error:
        return None, f"The modules after the last layer do not run one by one: {type(error).__name__}."
    actual = passed.logits.float()
    if raw.shape != actual.shape:
        return None, "The head gives another shape than the model."
    for scales in _scalings(text_config(model), raw, actual):
        steps.scales = scales
        scaled = raw
        for _name, scale in scales:
            scaled = scale(scaled)
        if bool((scaled - actual).norm() <= _TOLERANCE * actual.norm()):
            return steps, ""
    return None, f"{type(model).__name__} does more between its last layer and its logits than norm, head and scaling."


def _scalings(config: Any, raw: Any, actual: Any) -> list[list[tuple[str, Scale]]]:
    """Ways from the head's output to logits, the one that the config names first."""
    import torch

    named: list[tuple[str, Scale]] = []
    multiply = getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None)
    divide = getattr(config, "logits_scaling", None)
    cap = getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None)
    if multiply and multiply != 1:
        named.append((f"times {multiply:g}", lambda values: values * multiply))
    if divide and divide != 1:
        named.append((f"divided by {divide:g}", lambda values: values / divide))
    if cap:
        named.append((f"soft cap {cap:g}", lambda values: torch.tanh(values / cap) * cap))
    # T5 with a tied head scales what goes into it, which shows as one factor of all logits.
    factor = float((raw * actual).sum() / raw.square().sum().clamp_min(1e-30))
    return [named, [], [(f"times {factor:.4g}", lambda values: values * factor)]]
