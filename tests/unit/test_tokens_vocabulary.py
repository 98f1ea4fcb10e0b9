"""Vocabularies are looked through, and two splits are lined up."""

from __future__ import annotations

import io
import json
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.unit.test_tokens_byte_pairs import rank_file, tekken  # noqa: F401
from tests.unit.test_tokens_tokenizer import CORPUS, TEXTS, byte_level_json
from workbench.errors import WorkbenchError
from workbench.tokens.compare import compare_splits, rank_counts
from workbench.tokens.count import count_text
from workbench.tokens.tokenizer import load_tokenizer
from workbench.tokens.vocabulary import Vocabulary, script_of

pytest.importorskip("tokenizers")
SAMPLES = Path(__file__).parents[2] / "sample_models"
NAMES = ["tiny-gpt2", "tiny-llama", "tiny-mixtral", "tiny-gemma3", "tiny-t5", "tiny-bert"]


@pytest.fixture(scope="module")
def loaded():
    return {name: load_tokenizer(str(SAMPLES / name)) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_every_token_is_there_with_its_text(loaded, name):
    tokenizer = loaded[name]
    vocabulary = Vocabulary(tokenizer)
    assert len(vocabulary) == tokenizer.vocab_size
    assert [token.id for token in vocabulary.tokens] == sorted({token.id for token in vocabulary.tokens})
    for token in vocabulary.tokens:
        assert tokenizer.id_token(token.id) == token.spelling
        assert vocabulary.by_id(token.id) is token
    special = {token.spelling for token in vocabulary.special()}
    assert set(tokenizer.special_tokens()) <= special
    assert sum(vocabulary.scripts().values()) == len(vocabulary)
    json.dumps(asdict(vocabulary.tokens[0]))
    with pytest.raises(WorkbenchError):
        vocabulary.by_id(10**9)


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama", "tiny-mixtral", "tiny-gemma3"])
def test_texts_of_tokens_add_up_to_the_text(loaded, name):
    vocabulary = Vocabulary(loaded[name])
    for text in ("Hello world", "naïve 12\n\tx"):
        parts = [vocabulary.by_id(token_id) for token_id in loaded[name].encode(text)]
        spelled = "".join(part.text for part in parts if part.whole)
        assert sum(part.bytes for part in parts) - len(text.encode()) in (0, 1)
        assert spelled.strip().startswith("Hello"[: len(spelled)]) or spelled.strip().startswith("na")


def test_search_by_text_pattern_length_and_script(loaded):
    vocabulary = Vocabulary(loaded["tiny-gpt2"])
    the = vocabulary.exact(" the")
    assert [token.spelling for token in the] == ["Ġthe"]
    assert vocabulary.exact("Ġthe") == the
    assert the[0] in vocabulary.containing("the", limit=1000)
    assert the[0] in vocabulary.containing("THE", limit=1000, ignore_case=True)
    assert vocabulary.containing("THE") == []
    assert len(vocabulary.containing("", limit=7)) == 7
    matched = vocabulary.matching(r"^ \p{L}+$", limit=1000)
    assert the[0] in matched
    assert all(token.text[0] == " " and token.text[1:].isalpha() for token in matched)
    lengths = [len(token.text) for token in vocabulary.longest(20)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] == max(len(token.text) for token in vocabulary.tokens if not token.special and token.whole)
    assert all(script_of(token.text) == "LATIN" for token in vocabulary.of_script("latin"))
    assert len(vocabulary.byte_tokens()) >= 256
    assert (script_of(" Жук"), script_of("漢"), script_of("12"), script_of("ア")) == (
        "CYRILLIC",
        "CJK",
        "OTHER",
        "KATAKANA",
    )


def test_a_hostile_or_broken_pattern_ends_in_time(loaded):
    pytest.importorskip("regex")
    vocabulary = Vocabulary(loaded["tiny-gpt2"])
    with pytest.raises(WorkbenchError) as caught:
        vocabulary.matching("(")
    assert caught.value.kind == "bad-pattern"
    vocabulary.tokens[5] = vocabulary.tokens[5].__class__(**{**asdict(vocabulary.tokens[5]), "text": "a" * 40 + "b"})
    start = time.monotonic()
    with pytest.raises(WorkbenchError) as caught:
        vocabulary.matching(r"(a|a)*$|(?:a?){60}c(a+a+)+x", seconds=0.3)
    assert caught.value.kind == "pattern-timeout"
    assert time.monotonic() - start < 30


def test_unreachable_tokens_are_found_and_no_others(tmp_path):
    content = json.loads(byte_level_json())
    vocab = content["model"]["vocab"]
    top = max(vocab.values()) + 10
    vocab["Ġcould"] = top  # no merge makes it
    vocab["fox,the"] = top + 1  # the split would cut it
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    tokenizer = load_tokenizer(str(path))
    found = {item.token.spelling: item for item in Vocabulary(tokenizer).unreachable()}
    assert {"Ġcould", "fox,the"} <= set(found)
    assert "".join(found["fox,the"].comes_out_as) == "fox,the"
    reached = {token_id for text in [*CORPUS, *TEXTS] for token_id in tokenizer.encode(text)}
    assert not reached & {item.token.id for item in found.values()}


def test_word_piece_continuations_are_reachable(loaded):
    tokenizer = loaded["tiny-bert"]
    unreachable = {item.token.id for item in Vocabulary(tokenizer).unreachable()}
    reached = {token_id for text in CORPUS for token_id in tokenizer.encode(text)}
    assert not reached & unreachable
    assert len(unreachable) < tokenizer.vocab_size / 2


def test_sentencepiece_and_tiktoken_vocabularies(tmp_path, tekken, rank_file):  # noqa: F811
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        vocab_size=420,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    for tokenizer in (load_tokenizer(str(tmp_path / "tokenizer.model")), tekken, rank_file):
        vocabulary = Vocabulary(tokenizer)
        assert len(vocabulary) == tokenizer.vocab_size
        assert vocabulary.special()
        reached = {token_id for text in CORPUS[:4] for token_id in tokenizer.encode(text)}
        assert not reached & {item.token.id for item in vocabulary.unreachable()}


def test_two_splits_are_lined_up(loaded):
    for text in [*TEXTS, *CORPUS[:4]]:
        for one, two in (("tiny-gpt2", "tiny-llama"), ("tiny-gpt2", "tiny-mixtral"), ("tiny-bert", "tiny-t5")):
            found = compare_splits(text, loaded[one], loaded[two])
            assert "".join(text[item.start : item.end] for item in found.stretches) == text
            assert found.first_tokens == sum(len(item.first) for item in found.stretches)
            assert found.second_tokens == sum(len(item.second) for item in found.stretches)
            assert not set(found.only_first) & set(found.only_second)
            for item in found.stretches:
                if item.same:
                    assert [piece.text for piece in item.first] == [piece.text for piece in item.second]
            json.dumps(asdict(found))
    itself = compare_splits(CORPUS[0], loaded["tiny-gpt2"], loaded["tiny-gpt2"])
    assert (itself.only_first, itself.only_second, itself.same_share) == ([], [], 1.0)


def test_differing_boundaries_are_character_offsets(loaded):
    text = "in 1234 cases"
    found = compare_splits(text, loaded["tiny-gpt2"], loaded["tiny-llama"])
    for one, two, only in (
        ("tiny-gpt2", "tiny-llama", found.only_first),
        ("tiny-llama", "tiny-gpt2", found.only_second),
    ):
        ours = {piece.start for piece in loaded[one].encode_pieces(text)}
        theirs = {piece.start for piece in loaded[two].encode_pieces(text)}
        assert set(only) == ours - theirs


def test_counts_are_ranked_against_the_best(loaded):
    counts = [count_text(CORPUS[0], loaded[name]) for name in ("tiny-gpt2", "tiny-bert")]
    ranked = rank_counts(counts, [100, None], [2.0, None])
    best = min(count.tokens for count in counts)
    assert [item.over_best for item in ranked] == [count.tokens - best for count in counts]
    assert ranked[0].context_share == counts[0].tokens / 100
    assert ranked[0].cost == pytest.approx(counts[0].tokens * 2e-6)
    assert (ranked[1].context_share, ranked[1].cost) == (None, None)
    assert rank_counts([]) == []
