"""The GGUF reader: what it gives for good files, and that no file makes it crash or claim memory."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.errors import WorkbenchError
from workbench.models.gguf import read_floats, read_gguf, read_vocabulary

UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 4, 5, 6, 7, 8, 9, 10


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def pair(key: str, kind: int, body: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + body


def array(kind: int, items: list[bytes], count: int | None = None) -> bytes:
    return struct.pack("<IQ", kind, len(items) if count is None else count) + b"".join(items)


def tensor(name: str, shape: list[int], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def build(pairs: list[bytes], tensors: list[bytes], data: bytes = b"", version: int = 3) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + data


def vocabulary_pairs(tokens: list[str]) -> list[bytes]:
    return [
        pair("general.architecture", STRING, text("llama")),
        pair("tokenizer.ggml.model", STRING, text("gpt2")),
        pair("tokenizer.ggml.pre", STRING, text("smollm")),
        pair("tokenizer.ggml.tokens", ARRAY, array(STRING, [text(token) for token in tokens])),
        pair("tokenizer.ggml.token_type", ARRAY, array(INT32, [struct.pack("<i", 3)] * len(tokens))),
        pair("tokenizer.ggml.eos_token_id", UINT32, struct.pack("<I", 1)),
        pair("tokenizer.ggml.bos_token_id", UINT32, struct.pack("<I", 2**32 - 1)),
        pair("tokenizer.ggml.add_bos_token", BOOL, b"\1"),
        pair("tokenizer.chat_template", STRING, text("{{ a }}")),
        pair("tokenizer.chat_template.tool_use", STRING, text("{{ b }}")),
    ]


GOOD = build(
    [*vocabulary_pairs(["<a>", "é", "Ġx"]), pair("x.nested", ARRAY, array(ARRAY, [array(UINT32, [b"\1\0\0\0"])]))],
    [tensor("f", [3, 2], 0, 0), tensor("q", [32, 2], 3, 32)],
    struct.pack("<6f", 1, 2, 3, 4, 5, 6) + b"\0" * 8 + b"\0" * 40,
)


def write(folder: Path, data: bytes) -> Path:
    path = folder / "x.gguf"
    path.write_bytes(data)
    return path


def test_header_tensors_and_vocabulary(tmp_path: Path) -> None:
    header = read_gguf(write(tmp_path, GOOD))
    assert (header.version, header.architecture, header.elements) == (3, "llama", 70)
    assert header.metadata["x.nested"] == ((1,),)
    first, second = header.tensors
    assert (first.shape, first.type, first.size_bytes) == ((2, 3), "F32", 24)
    assert (second.shape, second.type, second.size_bytes) == ((2, 32), "Q4_1", 40)
    assert read_floats(header, first) == (1, 2, 3, 4, 5, 6)
    vocabulary = read_vocabulary(header)
    assert vocabulary.tokens == ("<a>", "é", "Ġx")
    assert (vocabulary.eos_token_id, vocabulary.bos_token_id, vocabulary.add_bos_token) == (1, None, True)
    assert vocabulary.chat_templates == {"default": "{{ a }}", "tool_use": "{{ b }}"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "only 0 bytes"),
        (b"GGUF", "only 4 bytes"),
        (b"PK\3\4" + bytes(40), "does not begin with GGUF"),
        (build([], [], version=1), "version 1"),
        (build([], [], version=3 << 24), "big-endian"),
        (build([], [], version=9), "version 9"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0) + bytes(64), "tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**40) + bytes(64), "keys"),
        (build([struct.pack("<Q", 2**62)], []), "claims"),
        (build([struct.pack("<Q", 2**20)], []), "past its end"),
        (build([pair("a", 77, b"")], []), "unknown type 77"),
        (build([pair("a", ARRAY, array(UINT64, [], 2**61))], []), "entries"),
        (build([pair("a", ARRAY, array(UINT64, [], 10**6))], []), "past its end"),
        (build([pair("a", ARRAY, array(STRING, [], 10**6))], []), "past its end"),
        (build([pair("a", ARRAY, struct.pack("<IQ", ARRAY, 1) * 50)], []), "unknown type 9"),
        (build([pair("a", BOOL, b"\1")] * 2, []), "twice"),
        (build([], [tensor("t", [4], 0, 0)] * 2, bytes(64)), "twice"),
        (build([], [tensor("t", [4], 0, 0)], bytes(8)), "before the tensor t does"),
        (build([], [tensor("t", [2**40, 2**40], 0, 0)]), "before the tensor t does"),
        (build([], [tensor("t", [31], 3, 0)], bytes(64)), "whole Q4_1 blocks"),
        (build([], [text("t") + struct.pack("<I", 4000)]), "4000 dimensions"),
        (build([pair("general.alignment", UINT32, struct.pack("<I", 0))], []), "alignment of 0"),
        (build([pair("general.alignment", STRING, text("x"))], []), "alignment of x"),
    ],
)
def test_bad_file_is_one_line(data: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match=says) as caught:
        read_gguf(write(tmp_path, data))
    assert caught.value.kind in ("corrupt-file", "unsupported")
    assert "x.gguf" in caught.value.message
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "pairs",
    [
        [pair("tokenizer.ggml.tokens", ARRAY, array(UINT32, [b"\1\0\0\0"]))],
        [pair("tokenizer.ggml.tokens", STRING, text("abc"))],
        [
            pair("tokenizer.ggml.tokens", ARRAY, array(STRING, [text("a"), text("b")])),
            pair("tokenizer.ggml.token_type", ARRAY, array(INT32, [struct.pack("<i", 3)])),
        ],
        [],
    ],
)
def test_vocabulary_that_does_not_fit_is_refused(pairs: list[bytes], tmp_path: Path) -> None:
    header = read_gguf(write(tmp_path, build(pairs, [])))
    with pytest.raises(WorkbenchError) as caught:
        read_vocabulary(header)
    assert caught.value.kind in ("corrupt-file", "no-tokenizer")


def test_missing_file_and_directory_are_unreadable(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(WorkbenchError) as caught:
            read_gguf(path)
        assert caught.value.kind == "unreadable"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_changed_byte_breaks_the_reader(data: Any, tmp_path: Path) -> None:
    mutated = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(GOOD) - 1))] = data.draw(st.sampled_from([0, 1, 8, 9, 0x7F, 0x80, 0xFF]))
    mutated = mutated[: data.draw(st.integers(0, len(GOOD)))] if data.draw(st.booleans()) else mutated
    path = write(tmp_path, bytes(mutated))
    tracemalloc.start()
    try:
        with contextlib.suppress(WorkbenchError):
            read_vocabulary(read_gguf(path))
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.model
def test_agrees_with_gguf_py_on_the_real_file(smollm2_dir: Path) -> None:
    import json

    import gguf

    path = json.loads((smollm2_dir / "workbench.json").read_text())["source"]
    header = read_gguf(path)
    reference = gguf.GGUFReader(path)
    theirs = {
        item.name: (tuple(int(x) for x in item.shape[::-1]), item.tensor_type.name, item.data_offset, item.n_bytes)
        for item in reference.tensors
    }
    assert {t.name: (t.shape, t.type, t.offset_bytes, t.size_bytes) for t in header.tensors} == theirs
    for key, value in header.metadata.items():
        if key not in ("tokenizer.ggml.merges", "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"):
            expected = reference.fields[key].contents()
            assert value == (tuple(expected) if isinstance(value, tuple) else expected), key
    vocabulary = read_vocabulary(header)
    assert (len(vocabulary.tokens), len(vocabulary.merges)) == (49152, 48900)
    assert vocabulary.tokens[:3] == ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    assert (vocabulary.model, vocabulary.pre) == ("gpt2", "smollm")


@pytest.mark.model
def test_block_sizes_are_those_of_gguf_py() -> None:
    import gguf

    from workbench.models import gguf as reader

    for kind, (elements, size) in gguf.GGML_QUANT_SIZES.items():
        if int(kind) in reader._TENSOR_TYPES:
            assert reader._TENSOR_TYPES[int(kind)] == (kind.name, elements, size)
