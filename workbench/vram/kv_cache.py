"""The bytes of the cache that transformers really holds: keys, values, recurrent state. Stdlib only.

Rules as in transformers 5.23 ``cache_utils.py``: in the dynamic cache a sliding layer keeps the storage of the whole
prompt until the first decoding step, as what it keeps is a view of it. A static cache is allocated whole. A quantized
one packs groups of 64 values with scale and zero point and keeps the latest tokens, up to 127, as they are; in fp8 it
has one scale for each tensor. State-space and linear-attention layers keep a state of constant size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workbench.architecture import config as reading
from workbench.architecture.kv_widths import ATTENDING_KINDS, SLIDING_KINDS, cache_layers, key_value_widths
from workbench.architecture.skeleton import DTYPE_BYTES, CacheLayer, Skeleton
from workbench.errors import WorkbenchError
from workbench.vram.plan import QUANTIZED_KV_DTYPES, Plan

_STATE_KINDS = ("linear_attention", "conv")
_POSITION_TENSOR_BYTES = 8
GROUP = 64
RESIDUAL_TOKENS = 128
_SCALE_BYTES = 4
_STATE_SIZE_KEYS = ("mamba_d_state", "ssm_state_size", "state_size")


@dataclass(frozen=True)
class KvCacheBytes:
    """The cache of a plan, all layers and sequences together."""

    after_prefill: int
    at_end: int
    """When the last token has been generated; its own key and value are never computed."""
    per_token: int
    """Growth for each further token of all sequences, below every sliding window."""
    recurrent: int
    """The part that does not depend on length: convolution and recurrent states."""
    step: int
    """More at the peak of a step: the new tensor of one layer beside the one it replaces."""
    uncovered_kinds: tuple[str, ...]
    """Layer kinds whose state is not counted, such as ``linear_attention``."""

    @property
    def peak(self) -> int:
        """The larger of the two moments."""
        return max(self.after_prefill, self.at_end)


def kv_cache_bytes(skeleton: Skeleton, plan: Plan) -> KvCacheBytes:
    """What the cache of `skeleton` takes under `plan`.

    Raises:
        WorkbenchError: ``bad-plan`` for a quantized cache of a model with layers that it cannot hold.
    """
    layers = cache_layers(skeleton)
    quantized = plan.kv_dtype in QUANTIZED_KV_DTYPES
    if quantized and any(layer.kind != "full_attention" for layer in layers):
        raise WorkbenchError(
            "bad-plan",
            f"A KV cache in {plan.kv_dtype} for {skeleton.architecture}, whose layers are not all full attention.",
            "transformers quantizes the cache of full attention only: choose kv_dtype auto.",
        )
    widths = [plan.batch * width for width in key_value_widths(skeleton)]
    crossing = 0
    prompt, steps = plan.sequence_length, max(plan.new_tokens - 1, 0)
    if skeleton.config.get("is_encoder_decoder"):
        # The prompt is read by the encoder; each decoder layer keeps keys and values of all of it, once.
        crossing, prompt = sum(_held(layers, widths, plan, prompt, 0)), 1
    states = _states(skeleton, layers, plan)
    after_prefill = _held(layers, widths, plan, prompt, 0)
    at_end = _held(layers, widths, plan, prompt, steps)
    step = _step(plan, max(widths, default=0) * (prompt + steps), max(at_end, default=0)) if steps else 0
    bits = 8 * _dtype_bytes(plan) if not quantized else {"fp8": 8, "int8": 8, "int4": 4, "int2": 2}[plan.kv_dtype]
    return KvCacheBytes(
        after_prefill=crossing + sum(after_prefill) + states,
        at_end=crossing + sum(at_end) + states,
        per_token=sum(widths) * bits // 8,
        recurrent=states,
        step=step,
        uncovered_kinds=tuple(sorted({layer.kind for layer in layers if not _is_covered(layer)})),
    )


def kv_cache_by_layer(skeleton: Skeleton, plan: Plan) -> tuple[int, ...]:
    """Keys and values of each layer of a decoder when they are largest, without states of constant size."""
    layers = cache_layers(skeleton)
    widths = [plan.batch * width for width in key_value_widths(skeleton)]
    moments = [_held(layers, widths, plan, plan.sequence_length, s) for s in (0, max(plan.new_tokens - 1, 0))]
    return tuple(max(moments, key=sum))


def _step(plan: Plan, elements: int, held: int) -> int:
    """What a step holds beside the cache of one layer, of so many elements and bytes.

    In fp8 the old keys and values, the keys in the model's dtype, and two float32 copies of the values; otherwise
    quantized, both unpacked and both joined with the new token; plain, the new keys beside the old.
    """
    size = DTYPE_BYTES[plan.dtype]
    if plan.kv_dtype == "fp8":
        return elements + elements // 2 * (size + 8)
    if plan.kv_dtype in QUANTIZED_KV_DTYPES:
        return 2 * elements * size
    return held // 2 if plan.cache == "dynamic" else 0


def _held(layers: tuple[CacheLayer, ...], widths: list[int], plan: Plan, prompt: int, steps: int) -> list[int]:
    """Bytes of each layer after a prompt and some decoding steps."""
    return [_held_by_layer(layer, width, plan, prompt, steps) for layer, width in zip(layers, widths)]


def _held_by_layer(layer: CacheLayer, width: int, plan: Plan, prompt: int, steps: int) -> int:
    if not width:
        return 0
    tokens = prompt + steps
    if plan.kv_dtype == "fp8":
        return width * tokens + 2 * _SCALE_BYTES
    if plan.kv_dtype in QUANTIZED_KV_DTYPES:
        loose = steps % RESIDUAL_TOKENS
        packed = width * (tokens - loose)
        groups = -(-packed // GROUP)
        return packed * int(plan.kv_dtype[3:]) // 8 + groups * _SCALE_BYTES + width * loose * DTYPE_BYTES[plan.dtype]
    size = width * _dtype_bytes(plan)
    if plan.cache == "static":
        longest = plan.sequence_length + max(plan.new_tokens - 1, 0)
        return size * min(longest, layer.window or longest) + _POSITION_TENSOR_BYTES
    if layer.kind in SLIDING_KINDS:
        return size * (min(tokens, layer.window or tokens) if steps else tokens) + _POSITION_TENSOR_BYTES
    return size * tokens


def _dtype_bytes(plan: Plan) -> int:
    return DTYPE_BYTES[plan.dtype if plan.kv_dtype == "auto" else plan.kv_dtype]


def _states(skeleton: Skeleton, layers: tuple[CacheLayer, ...], plan: Plan) -> int:
    """Convolution states in the load dtype and recurrent states in float32, of the layers that keep them.

    The convolution's own weight has the state's shape; the recurrent one follows from the decay parameter.
    """
    if not any(layer.kind in (*_STATE_KINDS, "hybrid") for layer in layers):
        return 0
    config = reading.text_config(skeleton.config)
    shapes = {entry.name: entry.shape for entry in skeleton.parameters}
    total = 0
    for name, shape in shapes.items():
        if len(shape) == 3 and name.endswith((".conv1d.weight", ".conv.weight")):
            total += plan.batch * shape[0] * shape[2] * DTYPE_BYTES[plan.dtype]
        if name.endswith(".A_log"):
            total += plan.batch * 4 * _recurrent_elements(config, name, shape, shapes)
    return total


def _recurrent_elements(
    config: dict[str, Any], name: str, shape: tuple[int, ...], shapes: dict[str, tuple[int, ...]]
) -> int:
    if len(shape) == 2:
        return shape[0] * shape[1]
    key_width = reading.first_int(config, ("linear_key_head_dim",))
    value_width = reading.first_int(config, ("linear_value_head_dim",))
    if key_width and value_width:
        return shape[0] * key_width * value_width
    inner = shapes.get(name.replace("A_log", "out_proj.weight"), (0, 0))[1]
    return inner * (reading.first_int(config, _STATE_SIZE_KEYS) or 0)


def _is_covered(layer: CacheLayer) -> bool:
    return layer.kind in ("dummy", *ATTENDING_KINDS, *_STATE_KINDS)
