"""What is explained is what the tokenizer does."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.unit.test_tokens_byte_pairs import rank_file, tekken  # noqa: F401
from tests.unit.test_tokens_tokenizer import CORPUS, TEXTS, byte_fallback_json
from workbench.errors import WorkbenchError
from workbench.tokens.explain import explain_split
from workbench.tokens.tokenizer import load_tokenizer

pytest.importorskip("tokenizers")
SAMPLES = Path(__file__).parents[2] / "sample_models"
SHORT = [text for text in TEXTS if len(text) <= 400] + [text[:80] for text in CORPUS[:4]]


def all_ids(explained):
    return [token_id for word in explained.words for token_id in word.ids]


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama", "tiny-mixtral", "tiny-gemma3", "tiny-t5", "tiny-bert"])
def test_steps_lead_to_the_tokens_of_the_file(name):
    tokenizer = load_tokenizer(str(SAMPLES / name))
    for text in SHORT:
        explained = explain_split(text, tokenizer)
        assert all_ids(explained) == tokenizer.encode(text), text
        assert all(word.agrees for word in explained.words), text
        json.dumps(asdict(explained), allow_nan=False)


def test_merges_are_shown_in_order_with_their_ranks(tmp_path):
    (tmp_path / "made.json").write_text(byte_fallback_json(), encoding="utf-8")
    tokenizer = load_tokenizer(str(tmp_path / "made.json"))
    word = explain_split("hello", tokenizer).words[0]
    assert word.start == list("▁hello")
    assert [(step.rank, step.left, step.right) for step in word.merges] == [
        (0, "h", "e"),
        (1, "l", "l"),
        (2, "he", "ll"),
        (3, "hell", "o"),
    ]
    assert word.merges[-1].tokens == word.tokens == ["▁", "hello"]


def test_word_piece_takes_the_longest_beginning():
    tokenizer = load_tokenizer(str(SAMPLES / "tiny-bert"))
    explained = explain_split("tokenization \u2603x", tokenizer)
    assert explained.kind == "WordPiece"
    first = explained.words[0]
    assert [step.token for step in first.steps] == first.tokens
    assert first.steps[-1].rest == ""
    assert first.steps[0].tried == len("tokenization") - len(first.steps[0].token)
    assert "unknown" in explained.words[-1].note


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("byte_fallback", [True, False])
def test_sentencepiece_models_are_explained(tmp_path, kind, byte_fallback):
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        model_type=kind,
        vocab_size=420,
        byte_fallback=byte_fallback,
        character_coverage=0.99,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "tokenizer.model").write_bytes(model.getvalue())
    tokenizer = load_tokenizer(str(tmp_path / "tokenizer.model"))
    for text in SHORT:
        explained = explain_split(text, tokenizer)
        assert all_ids(explained) == tokenizer.encode(text)
        assert all(word.agrees for word in explained.words), text
    assert explained.kind == {"bpe": "BPE", "unigram": "Unigram"}[kind]
    if kind == "unigram":
        word = explain_split("the quick fox", tokenizer, 4).words[0]
        library = tokenizer.processor.nbest_encode("the quick fox", nbest_size=4, out_type=str)
        assert [way.tokens for way in word.segmentations] == library
        scores = [way.score for way in word.segmentations]
        assert scores == sorted(scores, reverse=True)


def test_tiktoken_vocabularies_are_explained(tekken, rank_file):  # noqa: F811
    pytest.importorskip("regex")
    for tokenizer in (tekken, rank_file):
        for text in ("hello world", "hé 🙂🙂 12", "a<|end|>b", "  x\n"):
            explained = explain_split(text, tokenizer)
            assert all_ids(explained) == tokenizer.encode(text)
            assert all(word.agrees for word in explained.words)
    word = explain_split("hello", rank_file).words[0]
    assert [step.left + step.right for step in word.merges] == ["he", "ll", "hell", "hello"]


def test_a_long_text_is_not_explained():
    with pytest.raises(WorkbenchError) as caught:
        explain_split("a" * 401, load_tokenizer(str(SAMPLES / "tiny-gpt2")))
    assert caught.value.kind == "too-long"
