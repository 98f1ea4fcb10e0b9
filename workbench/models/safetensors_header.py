"""Reads the headers of safetensors files and their shard index without loading a tensor. Stdlib only.

Format: eight bytes little-endian header length, that many bytes of JSON, then the data; the tensors
must cover the data without gap or overlap (the rule of the safetensors library). Files are untrusted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

from workbench.errors import WorkbenchError
from workbench.text import one_line

# The limit of the safetensors library itself.
MAX_HEADER_BYTES = 100_000_000
MAX_INDEX_BYTES = 100_000_000
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

# Bits per element of each dtype name in the format.
DTYPE_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E8M0": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a checkpoint.

    Attributes:
        dtype: the format's name, such as ``BF16``.
        file: name of the file it lies in.
        offset_bytes: where its data begins in that file.
        size_bytes: length of its data.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    offset_bytes: int
    size_bytes: int

    @property
    def elements(self) -> int:
        count = 1
        for length in self.shape:
            count *= length
        return count


def read_header(path: Union[str, Path]) -> tuple[StoredTensor, ...]:
    """The tensors that the safetensors file at `path` holds, in the order of the file.

    Raises:
        WorkbenchError: ``unreadable`` if it cannot be opened, ``corrupt-file`` if header and file do not agree.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            file_bytes = file.seek(0, 2)
            file.seek(0)
            header_bytes = int.from_bytes(file.read(8), "little")
            if file_bytes < 8 or header_bytes > min(file_bytes - 8, MAX_HEADER_BYTES):
                raise _corrupt(path, f"a header of {header_bytes} bytes is claimed in a file of {file_bytes}")
            raw = file.read(header_bytes)
    except OSError as error:
        raise WorkbenchError(
            "unreadable", f"Cannot read {one_line(str(path))}: {error.strerror}.", "Check the path."
        ) from None
    header = _json_object(path, raw, "its header")
    start = 8 + header_bytes
    tensors = [_tensor(path, start, name, entry) for name, entry in header.items() if name != "__metadata__"]
    tensors.sort(key=lambda tensor: (tensor.offset_bytes, tensor.size_bytes))
    position = start
    for tensor in tensors:
        if tensor.offset_bytes != position:
            raise _corrupt(path, f"the tensor {tensor.name} does not begin where the one before it ends")
        position += tensor.size_bytes
    if position != file_bytes:
        raise _corrupt(path, f"its tensors end at byte {position}, the file at {file_bytes}")
    return tuple(tensors)


def read_index(path: Union[str, Path]) -> dict[str, str]:
    """The map from tensor name to file name of a shard index (``*.index.json``).

    Raises:
        WorkbenchError: ``unreadable``; ``corrupt-file`` if it is no such index or a file name leaves the directory.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise _corrupt(path, "it is larger than any shard index")
        raw = path.read_bytes()
    except OSError as error:
        raise WorkbenchError(
            "unreadable", f"Cannot read {one_line(str(path))}: {error.strerror}.", "Check the path."
        ) from None
    weight_map = _json_object(path, raw, "it").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise _corrupt(path, "it has no weight_map")
    for file_name in weight_map.values():
        if not isinstance(file_name, str) or not _is_plain_name(file_name):
            raise _corrupt(path, f"it points to {file_name!r}, which is not a file beside it")
    return weight_map


def read_checkpoint(directory: Union[str, Path]) -> tuple[StoredTensor, ...]:
    """All tensors of the safetensors checkpoint in `directory`, sharded or not; empty if there is none.

    Raises:
        WorkbenchError: as `read_header` and `read_index`; ``missing-file`` if a shard is absent;
            ``corrupt-file`` if a shard lacks a tensor that the index promises.
    """
    directory = Path(directory)
    # transformers looks for the single file first.
    if (directory / SINGLE_FILE).is_file():
        return read_header(directory / SINGLE_FILE)
    if (directory / INDEX_FILE).is_file():
        weight_map = read_index(directory / INDEX_FILE)
        tensors: list[StoredTensor] = []
        for file_name in sorted(set(weight_map.values())):
            if not (directory / file_name).is_file():
                raise WorkbenchError(
                    "missing-file",
                    f"{one_line(str(directory))} lacks the shard {one_line(file_name)} that its index names.",
                    "Download the model again.",
                )
            tensors.extend(read_header(directory / file_name))
        held = {tensor.name: tensor.file for tensor in tensors}
        for name, file_name in weight_map.items():
            if held.get(name) != file_name:
                raise _corrupt(directory / file_name, f"the tensor {name} that the index promises is missing")
        return tuple(tensors)
    return ()


def _is_plain_name(name: str) -> bool:
    return bool(name) and name not in (".", "..") and not any(mark in name for mark in "/\\\0")


def _tensor(path: Path, start: int, name: str, entry: Any) -> StoredTensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, begin, end]
    except (KeyError, TypeError, ValueError):
        raise _corrupt(path, f"the entry of the tensor {name} is not complete") from None
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _corrupt(path, f"the tensor {name} has the unknown dtype {dtype}")
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise _corrupt(path, f"the tensor {name} has a shape or offset that is no size")
    tensor = StoredTensor(name, dtype, tuple(shape), path.name, start + begin, end - begin)
    if tensor.size_bytes * 8 != tensor.elements * DTYPE_BITS[dtype]:
        raise _corrupt(path, f"the tensor {name} has {tensor.size_bytes} bytes, which its shape does not take")
    return tensor


def _json_object(path: Path, raw: bytes, subject: str) -> dict[str, Any]:
    try:
        value = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        raise _corrupt(path, f"{subject} is not JSON") from None
    if not isinstance(value, dict):
        raise _corrupt(path, f"{subject} is not a JSON object")
    return value


def _corrupt(path: Path, why: str) -> WorkbenchError:
    kind = "shard index" if path.suffix == ".json" else "safetensors file"
    return WorkbenchError(
        "corrupt-file",
        f"{one_line(str(path))} is not a usable {kind}: {one_line(why, 160)}.",
        "Download or copy it again.",
    )
