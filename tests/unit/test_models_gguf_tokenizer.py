"""Tokenizers made from GGUF vocabularies, held against the libraries that define them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from workbench import paths
from workbench.models.gguf import GgufHeader, GgufTensor
from workbench.models.gguf_tokenizer import _PATTERNS, convert_tokenizer

SAMPLES = paths.data_dir("sample_models")
TEXTS = [
    "The harbour wakes before the town does.",
    "In 2024 there were 12345 ships",
    "  two spaces,\ttab\n\nand   runs    of     them ",
    "don't WON'T it's I'll",
    "def f(x):\n    return x ** 2 - 1e-05\n",
    "ünïcödé Größe déjà vu",
    "港は朝の四時に目を覚ます。 灯塔整夜亮着。",
    "Маяк горит всю ночь",
    "emoji 🎉👩‍🚀 end",
    "a\u2581b typed marker",
    "x½ ² ٣٤",
    " ",
    "",
]


def header_of(metadata: dict[str, Any]) -> GgufHeader:
    embeddings = GgufTensor("token_embd.weight", (len(metadata["tokenizer.ggml.tokens"]), 4), "F32", 0, 0, 0)
    return GgufHeader("x.gguf", 3, 0, {"general.architecture": "llama", **metadata}, (embeddings,))


def load(header: GgufHeader) -> Any:
    tokenizers = pytest.importorskip("tokenizers")
    return tokenizers.Tokenizer.from_str(json.dumps(convert_tokenizer(header).tokenizer))


def byte_level_header(name: str, pre: str, **extra: Any) -> GgufHeader:
    source = json.loads((SAMPLES / name / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = source["model"]["vocab"]
    control = {token["content"] for token in source["added_tokens"]}
    tokens = tuple(sorted(vocab, key=vocab.__getitem__))
    return header_of(
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": pre,
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": tuple(3 if token in control else 1 for token in tokens),
            "tokenizer.ggml.merges": tuple(" ".join(merge) for merge in source["model"]["merges"]),
            "tokenizer.ggml.bos_token_id": 0,
            **extra,
        }
    )


@pytest.mark.parametrize(("name", "pre"), [("tiny-llama", "smollm"), ("tiny-gpt2", "gpt-2")])
def test_byte_level_ids_are_those_of_the_original_file(name: str, pre: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    original = tokenizers.Tokenizer.from_file(str(SAMPLES / name / "tokenizer.json"))
    converted = load(byte_level_header(name, pre))
    for text in [*TEXTS, "<|im_start|>user\nhi<|im_end|>", "<|endoftext|>"]:
        ids = converted.encode(text).ids
        assert ids == original.encode(text).ids, text
        assert converted.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("pre", sorted(_PATTERNS))
def test_every_pattern_is_accepted_and_loses_no_text(pre: str) -> None:
    converted = load(byte_level_header("tiny-gpt2", pre, **{"tokenizer.ggml.add_bos_token": False}))
    for text in TEXTS:
        assert converted.decode(converted.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("smollm", ["1", "2", "3", "4", "5"]),
        ("qwen2", ["1", "2", "3", "4", "5"]),
        ("llama-bpe", ["123", "45"]),
        ("gpt-2", ["12345"]),
        ("tekken", ["1", "2", "3", "4", "5"]),
        ("gpt-4o", ["123", "45"]),
    ],
)
def test_digits_are_split_as_each_family_does(pre: str, pieces: list[str]) -> None:
    converted = load(byte_level_header("tiny-gpt2", pre))
    assert [piece for piece, _ in converted.pre_tokenizer.pre_tokenize_str("12345")] == pieces


def test_beginning_of_sequence_follows_the_file_and_then_the_family() -> None:
    first = load(byte_level_header("tiny-gpt2", "llama-bpe")).encode("a").ids[0]
    assert first == 0
    assert load(byte_level_header("tiny-gpt2", "smollm")).encode("a").ids[0] != 0
    asked = byte_level_header("tiny-gpt2", "smollm", **{"tokenizer.ggml.add_bos_token": True})
    assert load(asked).encode("a").ids[0] == 0
    refused = byte_level_header("tiny-gpt2", "llama-bpe", **{"tokenizer.ggml.add_bos_token": False})
    assert load(refused).encode("a").ids[0] != 0


@pytest.mark.parametrize("pre", ["", "brand-new"])
def test_pre_tokenizer_that_is_not_known_is_said(pre: str) -> None:
    assert "may differ" in convert_tokenizer(byte_level_header("tiny-gpt2", pre)).note
    assert convert_tokenizer(byte_level_header("tiny-gpt2", "smollm")).note == ""


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_ids_are_those_of_sentencepiece(prefix: bool, tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    user_defined = [] if prefix else ["▁▁", "▁▁▁", "\n\n"]
    sentencepiece.SentencePieceTrainer.train(
        input=str(SAMPLES / "corpus.txt"),
        model_prefix=str(tmp_path / "m"),
        model_type="bpe",
        vocab_size=700,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=prefix,
        user_defined_symbols=user_defined,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "m.model"))
    size = processor.get_piece_size()

    def kind(index: int) -> int:
        if processor.is_unknown(index):
            return 2
        if processor.is_control(index):
            return 3
        if processor.is_byte(index):
            return 6
        return 4 if processor.id_to_piece(index) in user_defined else 1

    # Converters write user-defined tokens with plain spaces.
    tokens = [processor.id_to_piece(index) for index in range(size)]
    kinds = [kind(index) for index in range(size)]
    stored = [token.replace("▁", " ") if kind == 4 else token for token, kind in zip(tokens, kinds, strict=True)]
    header = header_of(
        {
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": tuple(stored),
            "tokenizer.ggml.token_type": tuple(kinds),
            "tokenizer.ggml.scores": tuple(processor.get_score(index) for index in range(size)),
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.unknown_token_id": 0,
            "tokenizer.ggml.add_space_prefix": prefix,
        }
    )
    converted = load(header)
    corpus = (SAMPLES / "corpus.txt").read_text(encoding="utf-8")
    for text in [*TEXTS, corpus]:
        assert converted.encode(text).ids == [1, *processor.encode(text)], text
        assert converted.encode(text, add_special_tokens=False).ids == processor.encode(text)
    assert converted.decode(converted.encode("emoji 🎉 end").ids) == "emoji 🎉 end"


def test_templates_and_special_tokens_are_in_the_config() -> None:
    header = byte_level_header(
        "tiny-llama",
        "smollm",
        **{
            "tokenizer.ggml.eos_token_id": 2,
            "llama.context_length": 512,
            "tokenizer.chat_template": "{{ a }}",
            "tokenizer.chat_template.tool_use": "{{ b }}",
        },
    )
    config = convert_tokenizer(header).tokenizer_config
    assert (config["bos_token"], config["eos_token"], config["model_max_length"]) == (
        "<|endoftext|>",
        "<|im_end|>",
        512,
    )
    assert {item["name"]: item["template"] for item in config["chat_template"]} == {
        "default": "{{ a }}",
        "tool_use": "{{ b }}",
    }
