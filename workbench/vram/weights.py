"""The bytes of a loaded model: parameters, buffers and quantization state, exact. Stdlib only.

Rules as transformers and bitsandbytes have them (transformers 5.23 ``quantizers/base.py``,
``integrations/bitsandbytes.py``, ``core_model_loading.py``; bitsandbytes 0.50 ``functional.py``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Union

from workbench.architecture.skeleton import DTYPE_BYTES, BufferEntry, ParameterEntry, Skeleton
from workbench.vram.plan import Plan

BLOCK_SIZE = 64
"""Weights that share one absmax in NF4 and FP4."""
NESTED_BLOCK_SIZE = 256
"""Absmax values that share one of their own under double quantization."""
CODE_BYTES = 16 * 4
NESTED_CODE_BYTES = 256 * 4
OFFSET_BYTES = 4


@dataclass(frozen=True)
class WeightBytes:
    """Where the bytes of the weights are."""

    unquantized: int
    """Parameters left in their dtype: embeddings, head, norms, biases, fused experts."""
    quantized: int
    """Packed or int8 weights."""
    quant_state: int
    """Absmax, code tables, nested statistics, row scales."""
    buffers: int
    quantized_parameters: int
    """Parameters in quantized modules."""
    total_parameters: int
    unquantized_experts: int
    """Bytes of routed experts that the quantization leaves as they are; 0 without quantization."""
    prepared: int
    """The part of `unquantized` that is there only because peft's k-bit preparation made it float32."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.unquantized + self.quantized + self.quant_state + self.buffers


def weight_bytes(skeleton: Skeleton, plan: Plan, inside: Callable[[str], bool] = lambda name: True) -> WeightBytes:
    """What `skeleton` takes when loaded as `plan` says, and prepared for k-bit training if it does.

    Args:
        skeleton: the whole model, which decides on what is quantized.
        plan: how it is loaded.
        inside: picks the parameters and buffers to count by their names; all of them when not given.
    """
    converted = quantized_modules(skeleton) if plan.quant != "none" else frozenset()
    fp32 = fp32_patterns(skeleton, plan.dtype)
    unquantized = quantized = state = quantized_parameters = experts = total = prepared = 0
    for entry in skeleton.unique_parameters:
        if not inside(entry.name):
            continue
        total += entry.numel
        if entry.module in converted and entry.name.endswith(".weight"):
            packed, extra = quantized_bytes(entry.numel, entry.shape, _is_conv1d(skeleton, entry), plan)
            quantized += packed
            state += extra
            quantized_parameters += entry.numel
            continue
        loaded = entry.numel * DTYPE_BYTES[loaded_dtype(entry, plan.dtype, fp32)]
        size = entry.numel * DTYPE_BYTES[resting_dtype(entry, plan, fp32)]
        prepared += size - loaded
        unquantized += size
        if plan.quant != "none" and ".experts." in entry.name:
            experts += size
    held = [buffer for buffer in skeleton.buffers if inside(buffer.name)]
    buffers = sum(buffer.numel * DTYPE_BYTES[loaded_dtype(buffer, plan.dtype, fp32)] for buffer in held)
    return WeightBytes(unquantized, quantized, state, buffers, quantized_parameters, total, experts, prepared)


def quantized_modules(skeleton: Skeleton) -> frozenset[str]:
    """Names of the modules that transformers lets bitsandbytes convert.

    Exactly torch's Linear, and Conv1D, but for tied weights, the module of the last parameter, the output
    embeddings and what the model class keeps in float32. Experts fused into one tensor are no such module.
    """
    last = skeleton.unique_parameters[-1].name if skeleton.parameters else ""
    skipped = {name[: -len(".weight")] if name.endswith(".weight") else name for name in (*skeleton.tied_names, last)}
    skipped |= {skeleton.output_embeddings or last, *skeleton.keep_in_fp32}
    should_convert = _Skip(skipped)
    return frozenset(module.name for module in skeleton.modules if module.linear_kind and should_convert(module.name))


def quantized_bytes(numel: int, shape: tuple[int, ...], is_conv1d: bool, plan: Plan) -> tuple[int, int]:
    """Bytes of one quantized weight and of its quantization state."""
    if plan.quant == "int8":
        # One float32 scale for each output row; a Conv1D stores its weight the other way round.
        rows = shape[1] if is_conv1d else shape[0]
        return numel, 4 * rows
    blocks = -(-numel // BLOCK_SIZE)
    packed = (numel + 1) // 2
    if not plan.double_quant:
        return packed, 4 * blocks + CODE_BYTES
    nested = 4 * -(-blocks // NESTED_BLOCK_SIZE) + NESTED_CODE_BYTES + OFFSET_BYTES
    return packed, blocks + CODE_BYTES + nested


def loaded_dtype(entry: Union[ParameterEntry, BufferEntry], dtype: str, patterns: Iterable[str]) -> str:
    """The dtype of a tensor after loading in `dtype`."""
    if not entry.follows_load_dtype:
        return entry.dtype
    checkpointed = isinstance(entry, ParameterEntry) or entry.persistent
    if checkpointed and any(re.search(pattern, entry.name) for pattern in patterns):
        return "float32"
    return dtype


def resting_dtype(entry: ParameterEntry, plan: Plan, patterns: Iterable[str]) -> str:
    """The dtype of an unquantized parameter while the job runs.

    peft's ``prepare_model_for_kbit_training`` turns all 16-bit ones to float32, embeddings and head included.
    """
    dtype = loaded_dtype(entry, plan.dtype, patterns)
    return "float32" if plan.prepares_kbit and dtype in ("float16", "bfloat16") else dtype


def fp32_patterns(skeleton: Skeleton, dtype: str) -> list[str]:
    """Patterns of the names that stay in float32 when loading in `dtype`."""
    names: list[str] = []
    if dtype == "float16":
        names += skeleton.keep_in_fp32
    if dtype in ("float16", "bfloat16"):
        names += skeleton.keep_in_fp32_strict
    return [name.replace("*", ".*") for name in names]


def _is_conv1d(skeleton: Skeleton, entry: ParameterEntry) -> bool:
    return any(module.name == entry.module and module.linear_kind == "conv1d" for module in skeleton.modules)


class _Skip:
    """Whether a module is converted, given the names to skip (``should_convert_module`` of transformers)."""

    def __init__(self, names: Iterable[str]) -> None:
        kept = [name for name in names if name]
        self._suffixes = tuple(kept)
        self._patterns = [re.compile(rf"(?:{name})(?:(?<=\.)|(?=\.|$))") for name in kept]

    def __call__(self, module: str) -> bool:
        return not (module.endswith(self._suffixes) or any(pattern.match(module) for pattern in self._patterns))
