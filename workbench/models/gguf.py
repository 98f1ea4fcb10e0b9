"""Reads GGUF headers: metadata, vocabulary, tensor list. Stdlib only.

Layout from the GGUF specification of ggml, versions 2 and 3: magic, version, tensor count, key count, the
key-value pairs, the tensor records, padding up to the alignment, tensor data. Everything in a file is
untrusted: each length is held against the bytes that are left before anything is read or allocated.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

from workbench.errors import WorkbenchError
from workbench.text import one_line

MAGIC = b"GGUF"
MAX_KEYS = 65_536
MAX_TENSORS = 1_000_000
MAX_ARRAY_ELEMENTS = 16_000_000
MAX_STRING_BYTES = 64 * 2**20
MAX_NESTING = 4
MAX_DIMENSIONS = 8

# Value types of the specification that are plain numbers: struct code by type number.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

# ggml types: name, elements per block, bytes per block (the type table of ggml.c).
_TENSOR_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}

TOKEN_CONTROL = 3
TOKEN_USER_DEFINED = 4


@dataclass(frozen=True)
class GgufTensor:
    """One tensor record.

    Attributes:
        shape: in PyTorch's order (rows first), the reverse of the file's.
        type: ggml type name, ``Q4_1``, or ``type-99`` for one this reader does not know.
        type_number: the number in the file.
        offset_bytes: position in the file.
        size_bytes: stored size; None for an unknown type.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    type_number: int
    offset_bytes: int
    size_bytes: Optional[int]

    @property
    def elements(self) -> int:
        count = 1
        for length in self.shape:
            count *= length
        return count


@dataclass(frozen=True)
class GgufHeader:
    """Everything in front of the tensor data. `metadata` keeps the file's keys; arrays are tuples."""

    path: str
    version: int
    file_bytes: int
    metadata: dict[str, Any]
    tensors: tuple[GgufTensor, ...]

    @property
    def architecture(self) -> str:
        value = self.metadata.get("general.architecture")
        return value if isinstance(value, str) else ""

    @property
    def elements(self) -> int:
        """Number of stored parameters, as the file lists them."""
        return sum(tensor.elements for tensor in self.tensors)

    def text(self, key: str) -> Optional[str]:
        """The string under `key`, or None if it is absent or of another type."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def integer(self, key: str) -> Optional[int]:
        """The integer under `key`, or None if it is absent or of another type."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None


@dataclass(frozen=True)
class GgufVocabulary:
    """The tokenizer section of a GGUF header.

    Attributes:
        model: ``gpt2`` (byte-level BPE), ``llama`` (SentencePiece), ``bert``, ``t5`` …
        pre: name of the pre-tokenizer, empty if the file names none.
        types: per token 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
        chat_templates: template text by name; the unnamed one is ``default``.
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...]
    merges: tuple[str, ...]
    bos_token_id: Optional[int]
    eos_token_id: Optional[int]
    unknown_token_id: Optional[int]
    padding_token_id: Optional[int]
    add_bos_token: Optional[bool]
    add_eos_token: Optional[bool]
    add_space_prefix: Optional[bool]
    chat_templates: dict[str, str]


def read_gguf(path: Union[str, Path]) -> GgufHeader:
    """Read the header of the GGUF file at `path`.

    Raises:
        WorkbenchError: ``unreadable`` if the file cannot be opened, ``corrupt-file`` if it is not GGUF or its
            header does not fit the file, ``unsupported`` for version 1 and big-endian files.
    """
    try:
        with open(path, "rb") as file:
            file_bytes = file.seek(0, 2)
            if file_bytes < 24:
                raise _corrupt(path, f"it has only {file_bytes} bytes")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                return _Reader(str(path), view, file_bytes).header()
    except OSError as error:
        raise WorkbenchError(
            "unreadable", f"Cannot read {one_line(str(path))}: {error.strerror}.", "Check the path."
        ) from None


def read_vocabulary(header: GgufHeader) -> GgufVocabulary:
    """The tokenizer section of `header`.

    Raises:
        WorkbenchError: ``no-tokenizer`` if the file has no token list, ``corrupt-file`` if types, scores or ids do not
            match it.
    """
    data = header.metadata
    prefix = "tokenizer.ggml."
    tokens = _array(header, prefix + "tokens", str)
    if not tokens:
        raise WorkbenchError(
            "no-tokenizer",
            f"{one_line(header.path)} carries no vocabulary.",
            "Use a GGUF file made by a current converter.",
        )
    types = _array(header, prefix + "token_type", int) or (1,) * len(tokens)
    scores = _array(header, prefix + "scores", float)
    if len(types) != len(tokens) or (scores and len(scores) != len(tokens)):
        raise _corrupt(header.path, f"it has {len(tokens)} tokens but {len(types)} types, {len(scores)} scores")

    def token_id(key: str) -> Optional[int]:
        value = header.integer(prefix + key)
        # Some converters write 2**32 - 1 or -1 for "none".
        return value if value is not None and 0 <= value < len(tokens) else None

    def flag(key: str) -> Optional[bool]:
        value = data.get(prefix + key)
        return value if isinstance(value, bool) else None

    return GgufVocabulary(
        model=header.text(prefix + "model") or "",
        pre=header.text(prefix + "pre") or "",
        tokens=tokens,
        types=types,
        scores=scores,
        merges=_array(header, prefix + "merges", str),
        bos_token_id=token_id("bos_token_id"),
        eos_token_id=token_id("eos_token_id"),
        unknown_token_id=token_id("unknown_token_id"),
        padding_token_id=token_id("padding_token_id"),
        add_bos_token=flag("add_bos_token"),
        add_eos_token=flag("add_eos_token"),
        add_space_prefix=flag("add_space_prefix"),
        chat_templates=_chat_templates(data),
    )


def read_floats(header: GgufHeader, tensor: GgufTensor) -> tuple[float, ...]:
    """The values of a small F32 tensor, such as rotary factors.

    Raises:
        WorkbenchError: ``corrupt-file`` if it is no F32 tensor or has more than a million values.
    """
    if tensor.type != "F32" or tensor.elements > 1_000_000:
        raise _corrupt(header.path, f"the tensor {tensor.name} is not a small F32 tensor")
    with open(header.path, "rb") as file:
        file.seek(tensor.offset_bytes)
        return struct.unpack(f"<{tensor.elements}f", file.read(4 * tensor.elements))


def _chat_templates(data: dict[str, Any]) -> dict[str, str]:
    prefix = "tokenizer.chat_template"
    found = {}
    for key, value in data.items():
        if isinstance(value, str) and (key == prefix or key.startswith(prefix + ".")):
            found[key[len(prefix) + 1 :] or "default"] = value
    return found


def _array(header: GgufHeader, key: str, kind: type) -> tuple[Any, ...]:
    value = header.metadata.get(key, ())
    if not isinstance(value, tuple) or (value and not isinstance(value[0], kind)):
        raise _corrupt(header.path, f"{key} is not a list of {kind.__name__} values")
    return value


def _corrupt(path: Union[str, Path], why: str) -> WorkbenchError:
    return WorkbenchError(
        "corrupt-file",
        f"{one_line(str(path))} is not a usable GGUF file: {one_line(why, 160)}.",
        "Download or copy it again.",
    )


class _Reader:
    def __init__(self, path: str, view: mmap.mmap, size: int) -> None:
        self.path = path
        self.view = view
        self.size = size
        self.position = 0
        self.elements_left = MAX_ARRAY_ELEMENTS

    def header(self) -> GgufHeader:
        if self.view[:4] != MAGIC:
            raise _corrupt(self.path, "it does not begin with GGUF")
        self.position = 4
        version = self.number("I")
        if version == 1 or version > 0xFFFF:
            form = "version 1" if version == 1 else "big-endian"
            raise WorkbenchError(
                "unsupported",
                f"{one_line(self.path)} is a GGUF file in {form} form, which is not supported.",
                "Convert it again with a current llama.cpp.",
            )
        if version not in (2, 3):
            raise _corrupt(self.path, f"it says version {version}, and 2 and 3 are known")
        tensor_count, key_count = self.number("Q"), self.number("Q")
        if key_count > MAX_KEYS or tensor_count > MAX_TENSORS:
            raise _corrupt(self.path, f"it claims {key_count} keys and {tensor_count} tensors")
        metadata = self.pairs(key_count)
        records = [self.record() for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 2**20:
            raise _corrupt(self.path, f"it claims an alignment of {alignment}")
        start = -(-self.position // alignment) * alignment
        tensors = tuple(self.tensor(start, *record) for record in records)
        if len({tensor.name for tensor in tensors}) != len(tensors):
            raise _corrupt(self.path, "a tensor name occurs twice")
        return GgufHeader(self.path, version, self.size, metadata, tensors)

    def pairs(self, count: int) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        for _ in range(count):
            key = self.string()
            if key in metadata:
                raise _corrupt(self.path, f"the key {key} occurs twice")
            metadata[key] = self.value(self.number("I"), 0)
        return metadata

    def number(self, code: str) -> Any:
        width = struct.calcsize("<" + code)
        if width > self.size - self.position:
            raise self.truncated()
        (value,) = struct.unpack_from("<" + code, self.view, self.position)
        self.position += width
        return value

    def string(self) -> str:
        length = self.number("Q")
        if length > MAX_STRING_BYTES:
            raise _corrupt(self.path, f"a text at byte {self.position} claims {length} bytes")
        end = self.position + length
        if end > self.size:
            raise self.truncated()
        text = self.view[self.position : end].decode("utf-8", "replace")
        self.position = end
        return text

    def value(self, kind: int, depth: int) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY and depth < MAX_NESTING:
            return self.array(self.number("I"), self.number("Q"), depth + 1)
        raise _corrupt(self.path, f"a value at byte {self.position} has the unknown type {kind}")

    def array(self, kind: int, count: int, depth: int) -> tuple[Any, ...]:
        self.elements_left -= count
        if self.elements_left < 0:
            raise _corrupt(self.path, f"a list at byte {self.position} claims {count} entries")
        if kind == _STRING:
            return self.strings(count)
        if kind not in _SCALARS:
            return tuple(self.value(kind, depth) for _ in range(count))
        layout = struct.Struct(f"<{count}{_SCALARS[kind]}")
        if layout.size > self.size - self.position:
            raise self.truncated()
        values = layout.unpack_from(self.view, self.position)
        self.position += layout.size
        return values

    def strings(self, count: int) -> tuple[str, ...]:
        # A vocabulary and its merges: one tight loop instead of a call per entry.
        view, size, position = self.view, self.size, self.position
        length_at = struct.Struct("<Q").unpack_from
        found = []
        for _ in range(count):
            start = position + 8
            if start > size:
                raise self.truncated()
            position = start + length_at(view, position)[0]
            if position > size or position - start > MAX_STRING_BYTES:
                raise self.truncated()
            found.append(view[start:position].decode("utf-8", "replace"))
        self.position = position
        return tuple(found)

    def record(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.string()
        dimensions = self.number("I")
        if dimensions > MAX_DIMENSIONS:
            raise _corrupt(self.path, f"the tensor {name} claims {dimensions} dimensions")
        shape = tuple(self.number("Q") for _ in range(dimensions))
        return name, shape[::-1], self.number("I"), self.number("Q")

    def tensor(self, start: int, name: str, shape: tuple[int, ...], kind: int, offset: int) -> GgufTensor:
        type_name, block_elements, block_bytes = _TENSOR_TYPES.get(kind, (f"type-{kind}", 0, 0))
        stored = GgufTensor(name, shape, type_name, kind, start + offset, None)
        if not block_elements:
            return stored
        if (shape[-1] if shape else 1) % block_elements:
            raise _corrupt(self.path, f"rows of the tensor {name} are not whole {type_name} blocks")
        size = stored.elements // block_elements * block_bytes
        if stored.offset_bytes + size > self.size:
            raise _corrupt(self.path, f"it ends at byte {self.size}, before the tensor {name} does")
        return GgufTensor(name, shape, type_name, kind, stored.offset_bytes, size)

    def truncated(self) -> WorkbenchError:
        return _corrupt(self.path, f"a value at byte {self.position} reaches past its end at {self.size}")
