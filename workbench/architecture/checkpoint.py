"""Where a checkpoint and the model that its config describes disagree, by tensor name. Stdlib only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from workbench.architecture.skeleton import Skeleton

# safetensors' names of dtypes beside torch's.
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
# Before transformers 5 each expert was stored as its own tensor; they are put together while loading.
_SEPARATE_EXPERT = re.compile(r"\.experts\.\d+\.")


class HeaderTensor(Protocol):
    """What a checkpoint's header says of one tensor."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class TensorDifference:
    """A tensor that config and checkpoint give differently."""

    name: str
    in_model: str
    in_checkpoint: str


@dataclass(frozen=True)
class CheckpointComparison:
    """What a checkpoint has beside or against its config's model."""

    missing: tuple[str, ...]
    """In the model, not in the checkpoint; tied names and separately stored experts are not missing."""
    extra: tuple[str, ...]
    """In the checkpoint, not in the model: a stored tied head, multi-token prediction layers, scales."""
    shapes: tuple[TensorDifference, ...]
    dtypes: tuple[TensorDifference, ...]
    """Only informs: loading converts."""
    checkpoint_elements: int
    model_elements: int

    @property
    def agrees(self) -> bool:
        """Whether names and shapes agree."""
        return not (self.missing or self.extra or self.shapes)


def compare_checkpoint(
    skeleton: Skeleton, tensors: Sequence[HeaderTensor], odd: Sequence[str] = ()
) -> CheckpointComparison:
    """Compare a skeleton with the tensors that a checkpoint's headers list.

    Args:
        odd: names of stored tensors for which the architecture has no name at all.
    """
    expected = {entry.name: (entry.shape, entry.dtype) for entry in skeleton.unique_parameters}
    optional = {entry.name: (entry.shape, entry.dtype) for entry in skeleton.parameters if entry.tied_to}
    optional.update({buffer.name: (buffer.shape, buffer.dtype) for buffer in skeleton.buffers})
    known = {**expected, **optional}
    names = set(known)
    stored = {_renamed(tensor.name, names, skeleton): tensor for tensor in tensors}
    separate_experts = any(_SEPARATE_EXPERT.search(name) for name in stored)
    tied_sources = {entry.tied_to: entry.name for entry in skeleton.parameters if entry.tied_to}
    missing = [
        name
        for name in expected
        if name not in stored
        and tied_sources.get(name) not in stored
        and not (separate_experts and ".experts." in name)
    ]
    extra = [name for name in stored if name not in known and not (separate_experts and _SEPARATE_EXPERT.search(name))]
    shapes, dtypes = [], []
    for name, tensor in stored.items():
        if name not in known:
            continue
        shape, dtype = known[name]
        stored_dtype = DTYPES.get(tensor.dtype, tensor.dtype)
        if tuple(tensor.shape) != shape:
            shapes.append(TensorDifference(name, str(list(shape)), str(list(tensor.shape))))
        if stored_dtype != dtype:
            dtypes.append(TensorDifference(name, dtype, stored_dtype))
    return CheckpointComparison(
        missing=tuple(missing),
        extra=(*extra, *odd),
        shapes=tuple(shapes),
        dtypes=tuple(dtypes),
        checkpoint_elements=sum(_elements(tensor.shape) for tensor in tensors),
        model_elements=sum(entry.numel for entry in skeleton.unique_parameters),
    )


def _renamed(name: str, known: set[str], skeleton: Skeleton) -> str:
    """The model's name of a stored tensor, as loading finds it: renamed, or under the base model's prefix."""
    if name in known:
        return name
    renamed = name
    for old, new in skeleton.renamings:
        renamed = re.sub(old, new, renamed)
    if renamed in known or _SEPARATE_EXPERT.search(renamed):
        return renamed
    # A base model's checkpoint lacks the prefix under which the head's class holds the base model.
    prefixed = f"{next(iter(skeleton.parameters)).name.split('.')[0]}.{renamed}" if skeleton.parameters else renamed
    return prefixed if prefixed in known else name


def _elements(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
