"""Fast counting gives the ids of the reference, or is not used."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.test_tokens_recount import FRAGMENTS, LLAMA3
from tests.unit.test_tokens_tokenizer import CORPUS, byte_fallback_json, byte_level_json, word_piece_json
from workbench.errors import WorkbenchError
from workbench.tokens import counting
from workbench.tokens.counting import TRICKY, BatchCounter, batch_counter
from workbench.tokens.split import GPT2, alternatives, byte_level_pattern, cuts_before_spaces
from workbench.tokens.tokenizer import load_tokenizer

pytest.importorskip("tokenizers")
pytest.importorskip("tiktoken")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LETTERS_ONLY = r"\p{L}+|  "
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
DIGITS = {"type": "Digits", "individual_digits": True}


def isolated(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


SPLITS = {
    "gpt-2": {**LEVEL, "use_regex": True},
    "llama-3": {"type": "Sequence", "pretokenizers": [isolated(LLAMA3), LEVEL]},
    "o200k": {"type": "Sequence", "pretokenizers": [isolated(O200K), LEVEL]},
    "digits": {"type": "Sequence", "pretokenizers": [DIGITS, {**LEVEL, "use_regex": True}]},
    "digits-split": {"type": "Sequence", "pretokenizers": [isolated(r"\p{N}"), isolated(GPT2), LEVEL]},
    "gaps": {"type": "Sequence", "pretokenizers": [isolated(LETTERS_ONLY), LEVEL]},
}


def made(folder: Path, split: str, **changes):
    content = json.loads(byte_level_json())
    content["pre_tokenizer"] = SPLITS[split]
    content.update({key: value for key, value in changes.items() if key != "model"})
    content["model"].update(changes.get("model", {}))
    path = folder / "made.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return load_tokenizer(str(path))


@pytest.fixture(scope="module")
def by_split(tmp_path_factory):
    folder = tmp_path_factory.mktemp("counting")
    return {
        name: made(folder, name, normalizer={"type": "NFC"} if name == "o200k" else None, added_tokens=[])
        if name == "o200k"
        else made(folder, name)
        for name in SPLITS
    }


@pytest.mark.parametrize("split", SPLITS)
def test_byte_level_files_get_the_fast_engine_with_the_same_ids(by_split, split):
    tokenizer = by_split[split]
    counter = batch_counter(tokenizer, optional=False)
    assert counter.name == "tiktoken"
    texts = [*TRICKY, *CORPUS[:4], "".join(FRAGMENTS)]
    assert counter.encode(texts) == [tokenizer.encode(text) for text in texts]
    assert counter.count(texts) == [len(tokenizer.encode(text)) for text in texts]


@pytest.mark.parametrize("split", SPLITS)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(text=st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=4)), max_size=30).map("".join))
def test_any_text_has_the_ids_of_the_reference(by_split, engines, split, text):
    assert engines(by_split[split]).encode([text]) == [by_split[split].encode(text)]


@pytest.fixture(scope="module")
def engines():
    kept = {}

    def engine(tokenizer):
        if id(tokenizer) not in kept:
            kept[id(tokenizer)] = batch_counter(tokenizer, optional=False)
            assert kept[id(tokenizer)].name == "tiktoken"
        return kept[id(tokenizer)]

    return engine


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ignore_merges", [False, True])
def test_merges_in_a_disorderly_file_are_followed_or_refused(tmp_path, seed, ignore_merges):
    """Vocabularies with unreachable tokens, several merges for one token, and merges out of order."""
    content = json.loads(byte_level_json())
    model = content["model"]
    rng = random.Random(seed)
    merges = [list(merge) if isinstance(merge, list) else merge.split(" ") for merge in model["merges"]]
    for _ in range(seed * 3):
        left, right = rng.sample(merges, 2)
        whole = "".join(left) + "".join(right)
        merges.insert(rng.randrange(len(merges)) if seed % 2 else len(merges), ["".join(left), "".join(right)])
        model["vocab"].setdefault(whole, max(max(model["vocab"].values()), 702) + 1)
    if ignore_merges:
        model["vocab"]["hellooo"] = max(model["vocab"].values()) + 1
    model["merges"], model["ignore_merges"] = merges, ignore_merges
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    try:
        tokenizer = load_tokenizer(str(path))
    except WorkbenchError:
        return
    counter = batch_counter(tokenizer, optional=False)
    words = [" ".join(rng.sample(" ".join(CORPUS[:4]).split(" "), 20)) for _ in range(50)]
    assert counter.count(words) == [len(tokenizer.encode(word)) for word in words]


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": {**LEVEL, "use_regex": True, "add_prefix_space": True}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [isolated(r"\p{N}{1,3}"), isolated(GPT2), LEVEL]}},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{**isolated(GPT2), "behavior": "Removed"}, LEVEL]}},
    ],
)
def test_other_files_stay_with_their_library(tmp_path, changes):
    assert batch_counter(made(tmp_path, "gpt-2", **changes), optional=False).name == "tokenizers"


def test_markers_that_tiktoken_reads_otherwise_stay_with_the_library(tmp_path):
    common = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    base = json.loads(byte_level_json())["added_tokens"]
    for added in (
        [{**common, "id": 900, "content": "<a"}, {**common, "id": 901, "content": "<a>"}],
        [{**common, "id": 900, "content": "<mask>", "lstrip": True}],
    ):
        tokenizer = made(tmp_path, "gpt-2", added_tokens=[*base, *added])
        counter = batch_counter(tokenizer, optional=False)
        texts = ["a <a> b", "x <mask> y"]
        assert counter.name == "tokenizers"
        assert counter.count(texts) == [len(tokenizer.encode(text)) for text in texts]


def test_texts_with_bytes_the_vocabulary_lacks_are_counted_by_the_library(tmp_path):
    content = json.loads(byte_level_json())
    from workbench.tokens.byte_level import CHARACTER_OF_BYTE

    missing = {CHARACTER_OF_BYTE[byte] for byte in (0x04, 0xF1, 0xE2, 0xC3)}
    model = content["model"]
    merges = [list(merge) if isinstance(merge, list) else merge.split(" ") for merge in model["merges"]]
    model["merges"] = [merge for merge in merges if not missing & set("".join(merge))]
    model["vocab"] = {token: index for token, index in model["vocab"].items() if not missing & set(token)}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    tokenizer = load_tokenizer(str(path))
    counter = batch_counter(tokenizer, optional=False)
    assert counter.name == "tiktoken"
    texts = ["th\x04e", "caf\u00e9 au lait", "a\U00050000b", "\u2014 th\u2014e", "plain", "\u0416"]
    assert counter.encode(texts) == [tokenizer.encode(text) for text in texts]


def test_an_engine_is_dropped_at_its_first_difference(by_split, monkeypatch):
    tokenizer = by_split["gpt-2"]
    counter = batch_counter(tokenizer, optional=False)
    right = type(counter)._ranks
    monkeypatch.setattr(type(counter), "_ranks", lambda self, text: right(self, text.replace("zebra", "x")))
    texts = ["one", "zebra crossing"]
    assert counter.count(texts) == [len(tokenizer.encode(text)) for text in texts]
    assert counter.name == "tokenizers"
    assert counter.dropped


def test_an_engine_that_fails_on_a_text_leaves_it_to_the_reference(by_split, monkeypatch):
    tokenizer = by_split["gpt-2"]
    counter = batch_counter(tokenizer, optional=False)
    counter._left_to_check = 0

    def panic(self, text):
        raise BaseException("gave up")

    monkeypatch.setattr(type(counter), "_ranks", panic)
    assert counter.count(["one two"]) == [len(tokenizer.encode("one two"))]


def test_a_run_that_cannot_be_cut_is_left_to_the_reference(by_split, monkeypatch):
    tokenizer = by_split["llama-3"]
    counter = batch_counter(tokenizer, optional=False)
    monkeypatch.setattr(type(counter), "_ranks", lambda self, text: pytest.fail("given to the fast engine"))
    text = " " * 1_100_000 + "x"
    assert counter.count([text]) == [len(tokenizer.encode(text))]
    assert not counter.dropped


def test_long_texts_are_cut_without_changing_the_count(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "LONG_CHARACTERS", 50)
    (tmp_path / "wordpiece.json").write_text(word_piece_json(), encoding="utf-8")
    (tmp_path / "fallback.json").write_text(byte_fallback_json(), encoding="utf-8")
    text = " ".join(CORPUS) + " </s> hello\n\n  hell </s>hello "
    for tokenizer in (
        made(tmp_path, "llama-3"),
        load_tokenizer(str(tmp_path / "wordpiece.json")),
        load_tokenizer(str(tmp_path / "fallback.json")),
    ):
        for counter in (BatchCounter(tokenizer), batch_counter(tokenizer)):
            assert counter.count([text, ""]) == [len(tokenizer.encode(text)), 0]


def test_special_tokens_around_and_lone_surrogates(by_split, tmp_path):
    (tmp_path / "fallback.json").write_text(byte_fallback_json(), encoding="utf-8")
    tokenizer = load_tokenizer(str(tmp_path / "fallback.json"))
    assert batch_counter(tokenizer, special=True).count(["", "hello"]) == [
        len(tokenizer.encode(text, True)) for text in ("", "hello")
    ]
    with pytest.raises(WorkbenchError) as caught:
        batch_counter(by_split["gpt-2"]).count(["ok", "a\ud800"])
    assert caught.value.kind == "bad-text"


def test_gigatoken_where_it_is_installed_gives_the_ids_of_the_reference(by_split):
    pytest.importorskip("gigatoken")
    pytest.importorskip("awkward")
    used = 0
    for tokenizer in by_split.values():
        counter = batch_counter(tokenizer)
        used += counter.name == "gigatoken"
        assert counter.encode(TRICKY) == [tokenizer.encode(text) for text in TRICKY]
        assert counter.count(TRICKY) == [len(tokenizer.encode(text)) for text in TRICKY]
    assert used


@pytest.mark.model
def test_the_smollm2_file_is_counted_fast(smollm2_dir):
    tokenizer = load_tokenizer(str(smollm2_dir))
    counter = batch_counter(tokenizer, optional=False)
    assert counter.name == "tiktoken"
    texts = [*TRICKY, "".join(FRAGMENTS), "\x04a\x13b", "x\U00050000y"]
    assert counter.encode(texts) == [tokenizer.encode(text) for text in texts]


def test_patterns_are_taken_apart_at_the_top_level():
    assert alternatives(r"a(b|c)|[|)]+|\||d") == ["a(b|c)", "[|)]+", r"\|", "d"]
    for pattern in (GPT2, LLAMA3, O200K):
        assert cuts_before_spaces(pattern)
    for pattern in (r"\p{L}+ \p{L}+|\s+", r".+", r"\S+(?= )|\s+", LETTERS_ONLY):
        assert not cuts_before_spaces(pattern)
    assert byte_level_pattern(None) is None
