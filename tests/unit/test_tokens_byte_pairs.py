"""Rank files and tekken.json: ids are those of a tiktoken encoding built by hand."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.errors import WorkbenchError
from workbench.tokens import byte_pairs
from workbench.tokens.tokenizer import load_tokenizer

tiktoken = pytest.importorskip("tiktoken")

PATTERN = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"
MERGES = [b"he", b"ll", b"hell", b"hello", b" w", b"or", b" wor", "é".encode(), "🙂".encode()[:2]]
RANKS = {**{bytes([value]): value for value in range(256)}, **{merge: 256 + i for i, merge in enumerate(MERGES)}}
TEXTS = ["", "hello world", "hé 🙂🙂", "  12\n", "<s>[INST] hello </s>", "a<|end|>b", "\x00\x1b[0m"]


def tekken_json(**changes):
    content = {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": len(RANKS),
            "default_vocab_size": 20 + len(RANKS) - 2,
            "default_num_special_tokens": 20,
            "version": "v3",
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
            for token, rank in RANKS.items()
        ],
    }
    content.update(changes)
    return json.dumps(content)


@pytest.fixture
def tekken(tmp_path):
    path = tmp_path / "tekken.json"
    path.write_text(tekken_json())
    return load_tokenizer(str(tmp_path))


@pytest.fixture
def rank_file(tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in RANKS.items()))
    special = {"<|end|>": len(RANKS), "<|begin|>": len(RANKS) + 1}
    known = byte_pairs.RankFile("made", PATTERN, special, "<|begin|>")
    monkeypatch.setitem(byte_pairs.KNOWN_RANK_FILES, hashlib.sha256(path.read_bytes()).hexdigest(), known)
    return load_tokenizer(str(path))


def test_tekken_cuts_the_vocabulary_and_shifts_ids(tekken):
    kept = {token: rank for token, rank in RANKS.items() if rank < len(RANKS) - 2}
    reference = tiktoken.Encoding("reference", pat_str=PATTERN, mergeable_ranks=kept, special_tokens={})
    for text in TEXTS:
        ids = [token_id + 20 for token_id in reference.encode_ordinary(text)]
        assert tekken.encode(text) == ids
        assert tekken.encode(text, add_special_tokens=True) == [1, *ids]
        assert tekken.decode(ids) == text
    assert tekken.format == "tekken"
    assert tekken.vocab_size == 20 + len(kept)
    assert tekken.special_tokens()["[INST]"] == 3
    assert tekken.id_token(1) == "<s>"
    assert tekken.decode([1, *tekken.encode("hello")], skip_special_tokens=True) == "hello"


def test_tekken_takes_stated_special_tokens_and_fills_up(tmp_path):
    path = tmp_path / "other.json"
    path.write_text(tekken_json(special_tokens=[{"rank": 0, "token_str": "<own>", "is_control": True}]))
    special = load_tokenizer(str(path)).special_tokens()
    assert len(special) == 20
    assert special["<own>"] == 0
    assert special["<SPECIAL_19>"] == 19


def test_a_known_rank_file_parses_or_spares_special_tokens(rank_file):
    reference = tiktoken.Encoding(
        "reference", pat_str=PATTERN, mergeable_ranks=RANKS, special_tokens=rank_file.special_tokens()
    )
    for text in TEXTS:
        assert rank_file.encode(text) == reference.encode(text, allowed_special="all")
        assert rank_file.encode(text, parse_special=False) == reference.encode_ordinary(text)
    assert rank_file.encode("hello", add_special_tokens=True)[0] == rank_file.special_tokens()["<|begin|>"]


def test_an_unknown_rank_file_is_not_guessed(tmp_path):
    path = tmp_path / "qwen.tiktoken"
    path.write_bytes(b"IQ== 0\nIg== 1\n")
    with pytest.raises(WorkbenchError, match="not known") as caught:
        load_tokenizer(str(path))
    assert caught.value.kind == "unknown-ranks"


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_cover_the_text(tekken, rank_file, text):
    for tokenizer in (tekken, rank_file):
        pieces = tokenizer.encode_pieces(text)
        assert [piece.id for piece in pieces] == tokenizer.encode(text)
        assert all(piece.text == text[piece.start : piece.end] != "" for piece in pieces)
        covered = {index for piece in pieces for index in range(piece.start, piece.end)}
        assert covered == set(range(len(text)))
        stream = tokenizer.stream_decoder()
        assert "".join(stream.push(piece.id) for piece in pieces) + stream.flush() == text


def test_tokens_are_found_by_spelling_and_id(tekken):
    assert tekken.id_token(tekken.token_id("hello")) == "hello"
    assert tekken.token_id("hello there") is None
    assert tekken.id_token(tekken.encode("🙂")[0]) == "<0xF0>"
    for token_id in (-1, tekken.vocab_size, 2**40):
        with pytest.raises(WorkbenchError) as caught:
            tekken.id_token(token_id)
        assert caught.value.kind == "unknown-token"


@pytest.mark.parametrize(
    "content",
    [
        tekken_json()[:2000],
        tekken_json(vocab=[]),
        tekken_json(vocab=[{"rank": 0, "token_bytes": "AA=="}] * 300),
        tekken_json(vocab={"a": 1}),
        tekken_json(config={"default_vocab_size": 10}),
        tekken_json(config={"default_vocab_size": 30, "default_num_special_tokens": 20, "pattern": "("}),
        tekken_json(special_tokens=[3]),
    ],
)
def test_a_broken_tekken_gives_one_line(tmp_path, content):
    path = tmp_path / "tekken.json"
    path.write_text(content)
    with pytest.raises(WorkbenchError) as caught:
        load_tokenizer(str(path))
    assert caught.value.kind == "bad-tokenizer"
    assert "\n" not in caught.value.message


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8) | st.just("(a+)+$"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
PLACES = [("config",), ("vocab",), ("special_tokens",), ("vocab", 0), ("vocab", 1, "rank"), ("vocab", 2, "token_bytes")]
PLACES += [("config", name) for name in ("pattern", "num_vocab_tokens", "default_vocab_size", "version")]
PLACES += [("config", "default_num_special_tokens")]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.sampled_from(PLACES), JSON_VALUES), max_size=3),
    bytes_changed=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=3),
)
def test_no_change_of_a_tekken_file_breaks_the_reader(tmp_path, changes, bytes_changed):
    content = json.loads(tekken_json())
    for (*path, last), value in changes:
        place = content
        for step in path:
            known = (isinstance(place, dict) and step in place) or (isinstance(place, list) and step == 0 and place)
            place = place[step] if known else None
        if isinstance(place, dict):
            place[last] = value
    raw = bytearray(json.dumps(content).encode())
    for position, byte in bytes_changed:
        raw[position % len(raw)] = byte
    (tmp_path / "tekken.json").write_bytes(bytes(raw))
    tracemalloc.start()
    try:
        with contextlib.suppress(WorkbenchError):
            load_tokenizer(str(tmp_path)).encode("hello world 12")
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 64 * 2**20
