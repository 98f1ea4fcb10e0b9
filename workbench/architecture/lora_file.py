"""The size of an adapter file before it exists. Stdlib only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.architecture.skeleton import DTYPE_BYTES

_FORMAT_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "float64": "F64"}


@dataclass(frozen=True)
class AdapterTensor:
    """One tensor of an adapter file."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def numel(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count


def file_bytes(tensors: Sequence[AdapterTensor]) -> int:
    """Bytes of the safetensors file that holds `tensors`: header length, header padded to 8 bytes, data.

    The order is that of the safetensors library: wider dtypes first, then by name.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in sorted(tensors, key=lambda item: (-DTYPE_BYTES[item.dtype], item.name)):
        end = offset + tensor.numel * DTYPE_BYTES[tensor.dtype]
        header[tensor.name] = {
            "dtype": _FORMAT_NAMES.get(tensor.dtype, tensor.dtype),
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    return 8 + -(-len(text) // 8) * 8 + offset
