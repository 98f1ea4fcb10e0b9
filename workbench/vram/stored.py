"""What a checkpoint that is quantized already takes, by its own header: GPTQ, AWQ, FP8, MXFP4, GGUF. Stdlib only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from workbench.architecture.files import compare_files, read_tensors
from workbench.architecture.skeleton import Skeleton
from workbench.errors import WorkbenchError
from workbench.models.gguf import read_gguf
from workbench.models.safetensors_header import read_checkpoint
from workbench.text import one_line

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
    kept = method in _KEPT
    note = "tensors stay packed as in the file" if kept else "packed where a kernel for it is installed, else unpacked"
    return StoredWeights(method, sum(tensor.size_bytes for tensor in tensors), kept, note)


def disagreement(path: Optional[str], skeleton: Skeleton) -> str:
    """What is said of weights at `path` that are not those of the config's model; empty where they are, or unread."""
    if path is None or "quantization_config" in skeleton.config:
        return ""
    try:
        found = read_tensors(path, skeleton.config)
    except WorkbenchError:
        return ""
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
