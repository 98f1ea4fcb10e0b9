"""The bytes of the KV cache that transformers' dynamic cache really holds. Stdlib only.

Rules as in transformers 5.23 ``cache_utils.py``: a sliding layer keeps the storage of the whole prompt until
the first decoding step, as what it keeps is a view of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from workbench.architecture import config as reading
from workbench.architecture.skeleton import DTYPE_BYTES, CacheLayer, Skeleton
from workbench.vram.plan import Plan

_SLIDING_KINDS = ("sliding_attention", "chunked_attention")
_WINDOW_TENSOR_BYTES = 8


@dataclass(frozen=True)
class KvCacheBytes:
    """The cache of a plan, all layers and sequences together."""

    after_prefill: int
    at_end: int
    """When the last token has been generated; its own key and value are never computed."""
    per_token: int
    """Growth for each further token of all sequences, below every sliding window."""
    uncovered_kinds: tuple[str, ...]
    """Layer kinds whose state is not counted, such as ``linear_attention``."""

    @property
    def peak(self) -> int:
        """The larger of the two moments."""
        return max(self.after_prefill, self.at_end)


def kv_cache_bytes(skeleton: Skeleton, plan: Plan) -> KvCacheBytes:
    """What the cache of `skeleton` takes under `plan`."""
    layers = cache_layers(skeleton)
    dtype = plan.dtype if plan.kv_dtype == "auto" else plan.kv_dtype
    widths = key_value_widths(skeleton, len(layers))
    uncovered = sorted({layer.kind for layer in layers if not _is_covered(layer)})
    token_bytes = [
        plan.batch * width * DTYPE_BYTES[dtype] if _is_covered(layer) and layer.kind != "dummy" else 0
        for layer, width in zip(layers, widths)
    ]
    crossing = 0
    prompt, steps = plan.sequence_length, max(plan.new_tokens - 1, 0)
    if skeleton.config.get("is_encoder_decoder"):
        # The prompt is read by the encoder; each decoder layer keeps keys and values of all of it, once.
        crossing, prompt = sum(token_bytes) * plan.sequence_length, 1
    return KvCacheBytes(
        after_prefill=crossing + _held(layers, token_bytes, prompt, 0),
        at_end=crossing + _held(layers, token_bytes, prompt, steps),
        per_token=sum(token_bytes),
        uncovered_kinds=tuple(uncovered),
    )


def cache_layers(skeleton: Skeleton) -> tuple[CacheLayer, ...]:
    """The layers that keep a cache; none for an encoder."""
    if not _generates(skeleton):
        return ()
    if skeleton.config.get("is_encoder_decoder"):
        # Encoder and decoder may differ in depth, and the config's own count is the encoder's.
        return (CacheLayer("full_attention"),) * (reading.num_hidden_layers(skeleton.config) or 0)
    if skeleton.cache_layers:
        return skeleton.cache_layers
    config = reading.text_config(skeleton.config)
    window = reading.sliding_window(config)
    return tuple(
        CacheLayer(kind, window if kind in _SLIDING_KINDS else None) for kind in reading.layer_types(config) or ()
    )


def key_value_widths(skeleton: Skeleton, layers: int) -> list[int]:
    """Elements that each layer keeps for one token of one sequence, key and value together."""
    config = reading.text_config(skeleton.config)
    if reading.is_mla(config):
        rank = reading.first_int(config, ("kv_lora_rank",)) or 0
        return [rank + (reading.first_int(config, ("qk_rope_head_dim",)) or 0)] * layers
    stated = 2 * (reading.num_key_value_heads(config) or 0) * (reading.head_dim(config) or 0)
    projected = _projection_widths(skeleton, config)
    return [projected.get(layer, stated) for layer in range(layers)]


def _held(layers: tuple[CacheLayer, ...], token_bytes: list[int], prompt: int, steps: int) -> int:
    total = 0
    for layer, size in zip(layers, token_bytes):
        tokens = prompt + steps
        if size and layer.kind in _SLIDING_KINDS:
            total += _WINDOW_TENSOR_BYTES
            if steps:
                tokens = min(tokens, layer.window or tokens)
        total += size * tokens
    return total


def _projection_widths(skeleton: Skeleton, config: dict[str, Any]) -> dict[int, int]:
    """Layer number to key plus value width, where the model has separate projections for them.

    Layers may differ in it (Gemma 4), which no single number of the config says.
    """
    shapes = {entry.name: entry.shape for entry in skeleton.parameters}
    widths: dict[int, int] = {}
    for name, shape in shapes.items():
        if not name.endswith("self_attn.k_proj.weight") or _is_outside_decoder(name):
            continue
        number = _layer_number(name)
        value_shape = shapes.get(name.replace("k_proj", "v_proj"), shape)
        if number is not None:
            widths[number] = shape[0] + value_shape[0]
    return widths


def _is_outside_decoder(name: str) -> bool:
    return any(part in name for part in ("vision", "audio", "encoder.layers", "encoder.block"))


def _layer_number(name: str) -> Optional[int]:
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def _is_covered(layer: CacheLayer) -> bool:
    return layer.kind in ("full_attention", "dummy", *_SLIDING_KINDS)


def _generates(skeleton: Skeleton) -> bool:
    return skeleton.architecture.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))
