"""What a checkpoint that is quantized already takes: by its own header, or by its known layout. Stdlib only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from workbench.architecture.files import compare_files, read_tensors
from workbench.architecture.skeleton import DTYPE_BYTES, ParameterEntry, Skeleton
from workbench.errors import WorkbenchError
from workbench.models.gguf import read_gguf
from workbench.models.safetensors_header import read_checkpoint
from workbench.text import one_line

# Published in no other form; what their config.json says under quantization_config. Blocks of 128 x 128 weights in
# fp8 with a float32 scale each; of 32 in mxfp4 with a scale of one byte (transformers 5.23
# ``integrations/finegrained_fp8.py``, ``integrations/mxfp4.py``).
_PUBLISHED_AS = {
    "deepseek-ai/DeepSeek-R1": "fp8",
    "moonshotai/Kimi-K2-Instruct": "fp8",
    "openai/gpt-oss-120b": "mxfp4",
}
# Stays packed on the GPU under transformers, tensor by tensor as in the file.
_KEPT = ("gptq", "awq", "fp8", "fbgemm_fp8", "compressed-tensors", "bitnet", "eetq", "hqq", "bitsandbytes")


@dataclass(frozen=True)
class StoredWeights:
    """The weights of a checkpoint as its file has them."""

    method: str
    """``gptq``, ``awq``, ``fp8``, ``mxfp4``, …; for a GGUF file its most frequent block type."""
    bytes: int
    """Of all tensors."""
    stays_packed: bool
    """Whether transformers keeps them so on the GPU, so that the plan's weights are these bytes."""
    note: str
    from_header: bool = True
    """Whether the file was read; else its published layout was counted."""


def stored_weights(path: Optional[str], config: Optional[dict[str, Any]]) -> Optional[StoredWeights]:
    """What the checkpoint at `path` takes, if it is quantized; None for any other, and where there is none.

    Args:
        path: a directory or a ``.gguf`` file on this box.
        config: the model's config, whose ``quantization_config`` names the method.

    Raises:
        WorkbenchError: as reading the headers does, for a damaged file.
    """
    if path is None:
        return None
    if path.lower().endswith(".gguf"):
        return _of_gguf(path)
    method = _method(config or {})
    if not method or not Path(path).is_dir():
        return None
    tensors = read_checkpoint(path)
    if not tensors:
        return None
    return StoredWeights(method, sum(tensor.size_bytes for tensor in tensors), method in _KEPT, _packing(method))


def published_weights(hub_id: Optional[str], skeleton: Skeleton) -> Optional[StoredWeights]:
    """What the checkpoint of `hub_id` takes where it is published quantized only; None for any other."""
    method = _PUBLISHED_AS.get(hub_id or "")
    if not method:
        return None
    size_of = _fp8_bytes if method == "fp8" else _mxfp4_bytes
    linear = {module.name for module in skeleton.modules if module.linear_kind} - {skeleton.output_embeddings}
    size = sum(size_of(entry, entry.module in linear) for entry in skeleton.unique_parameters)
    return StoredWeights(method, size, method in _KEPT, _packing(method), from_header=False)


def _fp8_bytes(entry: ParameterEntry, linear: bool) -> int:
    is_matrix = linear and entry.name.endswith(".weight")
    if not (is_matrix or _is_fused_experts(entry)):
        return entry.numel * DTYPE_BYTES[entry.dtype if not entry.follows_load_dtype else "bfloat16"]
    rows, columns = entry.shape[-2:]
    matrices = entry.numel // (rows * columns)
    return entry.numel + 4 * matrices * -(-rows // 128) * -(-columns // 128)


def _mxfp4_bytes(entry: ParameterEntry, _linear: bool) -> int:
    return entry.numel * 17 // 32 if _is_fused_experts(entry) else entry.numel * DTYPE_BYTES["bfloat16"]


def _is_fused_experts(entry: ParameterEntry) -> bool:
    return ".experts." in entry.name and len(entry.shape) == 3


def _packing(method: str) -> str:
    if method in _KEPT:
        return "tensors stay packed as in the file"
    return "packed where a kernel for it is installed, else unpacked, which is counted here"


def disagreement(path: Optional[str], skeleton: Skeleton) -> str:
    """What is said of weights at `path` that are not those of the config's model; empty where they are, or unread."""
    if path is None or "quantization_config" in skeleton.config:
        return ""
    try:
        found = read_tensors(path, skeleton.config)
    except WorkbenchError as error:
        return f"The checkpoint cannot be read: {error.message} What is counted here is the config's model."
    compared = compare_files(skeleton, found) if found is not None else None
    if compared is None or not (compared.shapes or compared.missing):
        return ""
    if compared.shapes:
        one = compared.shapes[0]
        what = f"{one_line(one.name, 80)} is {one.in_checkpoint}, not {one.in_model}"
    else:
        what = f"it lacks {one_line(compared.missing[0], 80)}"
    wrong = len(compared.shapes) + len(compared.missing)
    return (
        f"The checkpoint is not that of its config in {wrong:,} tensor{'s' if wrong > 1 else ''}: {what}. "
        "What is counted here is the config's model."
    )


def _of_gguf(path: str) -> Optional[StoredWeights]:
    tensors = read_gguf(path).tensors
    sizes = [tensor.size_bytes for tensor in tensors]
    if not sizes or any(size is None for size in sizes):
        return None
    types: Counter[str] = Counter()
    for tensor, size in zip(tensors, sizes):
        types[tensor.type] += size or 0
    return StoredWeights(
        types.most_common(1)[0][0],
        sum(size or 0 for size in sizes),
        False,
        "as llama.cpp holds it; transformers unpacks it to the plan's dtype",
    )


def _method(config: dict[str, Any]) -> str:
    found = config.get("quantization_config")
    if not isinstance(found, dict):
        return ""
    method = found.get("quant_method", "")
    return method.lower() if isinstance(method, str) else ""
