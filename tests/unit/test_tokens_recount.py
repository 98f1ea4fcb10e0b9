"""A count after an edit equals the count of the whole text, whatever the tokenizer and the edit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.test_tokens_tokenizer import byte_fallback_json, byte_level_json, word_piece_json
from workbench.tokens import recount
from workbench.tokens.recount import TextCounter
from workbench.tokens.tokenizer import load_tokenizer

pytest.importorskip("tokenizers")
SAMPLES = Path(__file__).parents[2] / "sample_models"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
TOKENIZERS = ["tiny-gpt2", "tiny-llama", "tiny-mixtral", "tiny-gemma3", "tiny-t5", "tiny-bert"]
MADE = {"byte-level": byte_level_json, "byte-fallback": byte_fallback_json, "word-piece": word_piece_json}
FRAGMENTS = [
    *(" ", "  ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\x1c", "\x85", "\u2028"),
    *("word", " word", "don't", "'s", "12345", " 7", "a.", "...\n", "/", "</s>", "<s>", " <s> ", "<bos>", "<unk>"),
    *(
        "<|im_end|>",
        "<think>",
        "[CLS]",
        "      ",
        "▁",
        "▁ ",
        "Ġ",
        "é",
        "e\u0301",
        " \u0301",
        "日本語",
        "🙂",
        "\x00",
        "ſ",
    ),
]


def loaded(name: str, folder: Path):
    if name in TOKENIZERS:
        return load_tokenizer(str(SAMPLES / name))
    content = json.loads(MADE["byte-level"]()) if name == "llama-3" else json.loads(MADE[name]())
    if name == "llama-3":
        split = {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": False}
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, level]}
        content["normalizer"] = {"type": "NFC"}
    (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return load_tokenizer(str(folder / f"{name}.json"))


@pytest.fixture(scope="module")
def tokenizers_by_name(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recount")
    return {name: loaded(name, folder) for name in (*TOKENIZERS, *MADE, "llama-3")}


def texts():
    return st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=3)), max_size=30).map("".join)


@pytest.mark.parametrize("name", [*TOKENIZERS, *MADE, "llama-3"])
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_every_edit_gives_the_count_of_the_whole(tokenizers_by_name, monkeypatch, name, data):
    monkeypatch.setattr(recount, "PART_CHARACTERS", 1)
    tokenizer = tokenizers_by_name[name]
    counter = TextCounter(tokenizer)
    text = data.draw(texts())
    for _ in range(4):
        pieces = tokenizer.encode_pieces(text)
        assert counter.update(text).tokens == len(pieces)
        shown = counter.pieces(0, len(text))
        assert [piece.id for piece in shown] == [piece.id for piece in pieces]
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(len(text), start + 6)))
        inserted = data.draw(st.one_of(texts(), st.just(text), st.just(text[:start])))
        text = text[:start] + inserted + text[stop:]


def test_the_part_that_began_the_text_is_not_kept_behind_another(tokenizers_by_name):
    tokenizer = tokenizers_by_name["byte-fallback"]
    counter = TextCounter(tokenizer)
    for text in (" word", "word word", " word"):
        assert counter.update(text).tokens == len(tokenizer.encode(text))


INCREMENTAL = ["tiny-gpt2", "tiny-llama", "tiny-bert", "tiny-t5", "word-piece", "llama-3"]


@pytest.mark.parametrize("name", INCREMENTAL)
def test_a_keystroke_encodes_its_surroundings_only(tokenizers_by_name, monkeypatch, name):
    tokenizer = tokenizers_by_name[name]
    counter = TextCounter(tokenizer)
    text = "The quick brown fox jumps over 12 lazy dogs.\n" * 2000
    counter.update(text)
    encoded = []
    original = type(tokenizer).encode
    monkeypatch.setattr(
        type(tokenizer), "encode", lambda self, text, *rest: encoded.append(text) or original(self, text, *rest)
    )
    edited = text[:40_000] + "x" + text[40_000:]
    counted = counter.update(edited).tokens
    assert sum(map(len, encoded)) < 5000
    assert counted == len(original(tokenizer, edited))


def test_pieces_of_a_stretch_have_the_offsets_of_the_whole_text(tokenizers_by_name):
    text = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. " * 200
    for name in ("tiny-gpt2", "tiny-mixtral", "tiny-bert"):
        counter = TextCounter(tokenizers_by_name[name])
        counter.update(text)
        whole = {(piece.id, piece.start, piece.end) for piece in tokenizers_by_name[name].encode_pieces(text)}
        shown = counter.pieces(6000, 6100)
        assert shown[0].start <= 6000
        assert shown[-1].end >= 6100
        inner = [(piece.id, piece.start, piece.end) for piece in shown]
        assert len(whole & set(inner)) >= 0.99 * len(inner)


def test_special_tokens_around_are_counted_once(tokenizers_by_name):
    tokenizer = tokenizers_by_name["tiny-bert"]
    counter = TextCounter(tokenizer, special=True)
    for text in ("", "a b", "a b c"):
        assert counter.update(text).tokens == len(tokenizer.encode(text, True))
