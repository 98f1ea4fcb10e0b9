"""Attention weights of one layer of the loaded model, head by head. Needs torch: worker only."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Callable, Optional

from workbench.architecture.anatomy import Layer, Part, find_layers, text_config
from workbench.architecture.passes import Hooks, check_prompt, decoder_start, explained, run_forward
from workbench.architecture.traced import WEIGHT_SCALE, AttentionMaps, HeadFigures, HeadWeights, TracedToken
from workbench.errors import WorkbenchError
from workbench.job import SILENT, Job
from workbench.models.load import LoadedModel

MAX_ATTENTION_TOKENS = 2048
"""Eager attention holds heads × n² numbers of a layer: at 2,048 tokens and 32 heads 512 MiB in float32."""

MAX_REPLY_BYTES = 24 * 2**20
"""What the maps of one reply may take as base64; a message of the session holds 32 MiB."""


class _Enough(Exception):
    """Ends the forward pass once the layer has been seen."""


def read_attention(
    loaded: LoadedModel,
    ids: Sequence[int],
    layer: int,
    text_of: Callable[[int], str],
    heads: Sequence[int] = (),
    job: Job = SILENT,
) -> AttentionMaps:
    """Attention weights of a layer on a prompt.

    The whole model computes in eager mode meanwhile: a single eager layer would get the mask of another kernel, which
    may be none. The layers after the one asked for are not run.

    Args:
        loaded: the model.
        ids: the prompt as the model sees it.
        layer: index as in `find_layers`.
        text_of: the text of a token.
        heads: whose maps are wanted; empty for all that fit into `MAX_REPLY_BYTES`.
        job: progress in layers.

    Raises:
        WorkbenchError: ``bad-layer``, ``bad-head``, ``no-attention``, ``no-model``, ``bad-prompt``,
            ``prompt-too-long``, ``unsupported``, ``out-of-memory`` or ``trace-failed``.
    """
    check_prompt(loaded, ids, MAX_ATTENTION_TOKENS)
    layers = find_layers(loaded.model)
    part = _attention_of(loaded.model, layers, layer)

    def work() -> AttentionMaps:
        weights = _capture(loaded, list(ids), layers, layer, part, job)
        return _maps(loaded, list(ids), layers[layer], part, weights, text_of, heads)

    return explained(loaded, len(ids), "attention", work)


def _attention_of(model: Any, layers: Sequence[Layer], index: int) -> Part:
    name = type(model).__name__
    if not 0 <= index < len(layers):
        raise WorkbenchError("bad-layer", f"{name} has no layer {index}.", f"Its layers are 0 to {len(layers) - 1}.")
    part = next((part for part in layers[index].parts if part.role == "mixer" and part.kind == "attention"), None)
    if part is None:
        having = [layer.index for layer in layers if any(part.kind == "attention" for part in layer.parts)]
        mixer = layers[index].part("mixer")
        what = f"mixes tokens by {mixer.kind}" if mixer is not None else "has no token mixer"
        raise WorkbenchError(
            "no-attention",
            f"Layer {index} of {name} {what}: there are no attention weights.",
            f"Layers with attention: {_ranges(having)}." if having else "No layer of this model has any.",
        )
    return part


def _ranges(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:12]))
    return f"{shown}, …" if len(numbers) > 12 else shown


def _capture(loaded: LoadedModel, ids: list[int], layers: Sequence[Layer], index: int, part: Part, job: Job) -> Any:
    """Weights of shape ``[heads, queries, keys]``, in their own dtype on the model's device."""
    seen: list[Any] = []

    def begin(layer: Layer) -> None:
        job.check()
        job.progress("attention", layer.index, index + 1, "layers")

    def take(output: Any) -> None:
        weights = _weights_in(output)
        if weights is not None:
            seen.append(weights.detach().clone())
        raise _Enough

    # Families that chose their kernel when they were built, or hand weights out on request only, want to be asked.
    for asked in ({}, {"output_attentions": True}):
        with Hooks() as hooks, eager(loaded.model):
            for layer in layers[: index + 1]:
                hooks.before(layer.module, lambda _args, _kwargs, layer=layer: begin(layer))  # type: ignore[misc]
            for module in layers[index].module.modules():
                hooks.before(module, lambda _args, _kwargs: job.check())
            hooks.after(part.modules[0], take)
            with contextlib.suppress(_Enough):
                run_forward(loaded, ids, 1, **asked)
        if seen:
            job.progress("attention", index + 1, index + 1, "layers")
            return seen[0]
    raise WorkbenchError(
        "no-attention",
        f"{part.class_name} of {type(loaded.model).__name__} does not give its attention weights away.",
        "Its time, figures and contribution are in the trace.",
    )


@contextlib.contextmanager
def eager(model: Any) -> Iterator[None]:
    """Let every part of a model compute attention step by step, and put back what was set before."""
    configs = {id(config): config for config in _configs(model)}
    before = [(config, getattr(config, "_attn_implementation", None)) for config in configs.values()]
    key = "_attn_implementation_internal"
    try:
        for config, _ in before:
            # On the internal attribute: the setter of transformers 5 passes the value on to configs that share it.
            setattr(config, key if hasattr(config, key) else "_attn_implementation", "eager")
        yield
    finally:
        for config, implementation in before:
            setattr(config, key if hasattr(config, key) else "_attn_implementation", implementation)


def _configs(model: Any) -> Iterator[Any]:
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "_attn_implementation"):
            yield config


def _weights_in(output: Any) -> Any:
    """The tensor of shape ``[1, heads, queries, keys]`` in what an attention module returned."""
    import torch

    for item in output if isinstance(output, (tuple, list)) else ():
        if isinstance(item, torch.Tensor) and item.dim() == 4 and item.shape[0] == 1 and item.is_floating_point():
            sums = item[0].float().sum(-1)
            # Position biases have the same shape; weights are positive and sum to at most one (less with sinks).
            if bool((item >= 0).all()) and bool((sums <= 1.01).all()) and bool((sums > 0).any()):
                return item[0]
    return None


def _maps(
    loaded: LoadedModel,
    ids: list[int],
    layer: Layer,
    part: Part,
    weights: Any,
    text_of: Callable[[int], str],
    heads: Sequence[int],
) -> AttentionMaps:
    count, queries, keys = (int(size) for size in weights.shape)
    for head in heads:
        if not 0 <= head < count:
            raise WorkbenchError(
                "bad-head", f"Layer {layer.index} has no head {head}.", f"Its heads are 0 to {count - 1}."
            )
    fitting = max(1, MAX_REPLY_BYTES // (queries * keys * 8 // 3 + 1))
    wanted = list(dict.fromkeys(heads)) or list(range(count))
    shown = wanted[:fitting]
    note = "" if len(shown) == len(wanted) else f"{len(shown)} of {len(wanted)} heads fit into one reply."
    if loaded.facts.is_encoder_decoder and layer.stack == "decoder":
        ids = [decoder_start(loaded.model)]
    attention, config = part.modules[0], text_config(loaded.model)
    return AttentionMaps(
        layer=layer.index,
        name=part.name,
        tokens=tuple(TracedToken(token, text_of(token)) for token in ids),
        queries=queries,
        keys=keys,
        num_attention_heads=count,
        num_key_value_heads=_whole(config, "num_key_value_heads", "num_kv_heads"),
        sliding_window=_window(attention, config, layer.index),
        figures=_head_figures(weights),
        heads=tuple(HeadWeights(head, _packed(weights[head])) for head in shown),
        note=note,
    )


def _whole(config: Any, *keys: str) -> Optional[int]:
    for key in keys:
        value = getattr(config, key, None)
        if isinstance(value, int):
            return value
    return None


def _window(attention: Any, config: Any, layer: int) -> Optional[int]:
    window = getattr(attention, "sliding_window", None)
    if window is None and not hasattr(attention, "sliding_window"):
        kinds = getattr(config, "layer_types", None)
        slides = kinds is None or (layer < len(kinds) and "sliding" in kinds[layer])
        window = getattr(config, "sliding_window", None) if slides else None
    return window if isinstance(window, int) and window > 0 else None


def _packed(weights: Any) -> str:
    import torch

    numbers = (weights.float().clamp(0, 1) * WEIGHT_SCALE).round().to(torch.int32).cpu().numpy().astype("<u2")
    return base64.b64encode(numbers.tobytes()).decode("ascii")


def _head_figures(weights: Any) -> tuple[HeadFigures, ...]:
    """One head after the other: all of a long prompt's at once would be gigabytes."""
    import torch

    queries, keys = (int(size) for size in weights.shape[1:])
    own = torch.arange(queries, device=weights.device) + keys - queries
    # Queries of a causal layer see the keys up to their own.
    causal = queries == keys and bool((weights.triu(1) == 0).all())
    seen = own + 1 if causal else torch.full_like(own, keys)
    rows = own >= (1 if causal and queries > 1 else 0)
    distance = (own[:, None] - torch.arange(keys, device=weights.device)[None]).abs().float()
    table = []
    for head in weights:
        values = head.float()
        entropy = torch.special.entr(values).sum(-1) / seen.clamp_min(2).float().log()
        previous = values.gather(1, (own[:, None] - 1).clamp_min(0))[:, 0]
        itself = values.gather(1, own[:, None].clamp_max(keys - 1))[:, 0]
        figures = (entropy, values[:, 0], previous, itself, (values * distance).sum(-1))
        table.append(torch.stack([figure[rows].mean() for figure in figures]))
    return tuple(HeadFigures(head, *row) for head, row in enumerate(torch.stack(table).cpu().tolist()))
