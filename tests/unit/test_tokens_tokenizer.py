"""Ids, pieces and streamed text equal those of each format's own library."""

from __future__ import annotations

import base64
import io
import json
import random
from dataclasses import asdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.errors import WorkbenchError
from workbench.tokens.count import count_text, text_figures
from workbench.tokens.tokenizer import load_tokenizer

tokenizers = pytest.importorskip("tokenizers")
sentencepiece = pytest.importorskip("sentencepiece")

CORPUS = [
    "The quick brown fox jumps over the lazy dog. It costs 1234.56 € in 2026!",
    "def main(x: int) -> None:\n    return [y for y in range(10)]\n\n\tprint('tab')",
    "Grüße aus München, naïve café, Ελληνικά, Русский текст, 日本語の文章, 한국어, العربية",
    'white   space \n\n\n and more    of it, JSON {"a": [1, 2.5, null]}',
] * 20

TEXTS = [
    "",
    " ",
    "Hello world",
    "  leading and trailing  ",
    "line\nbreak\r\n\ttab",
    "🙂 👩‍👩‍👧 e\u0301 ﷽ ﬁ \u1112\u1161\u11ab",
    "日本語 العربية हिन्दी",
    "1234567890 3.14",
    "NUL \x00 and \x1b[31m escape",
    "typed <|im_end|> and <think> and </s> and <s>",
    "a" * 3000,
    "Ġ and ▁ as themselves",
]


def byte_level_json() -> str:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=700,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<|endoftext|>", "<|im_end|>"],
            show_progress=False,
        ),
    )
    made.add_tokens([AddedToken("<think>", special=False), AddedToken("      ", special=False)])
    return made.to_str()


def byte_fallback_json() -> str:
    from tokenizers import Tokenizer, decoders, models, normalizers, processors

    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocab.update({f"<0x{value:02X}>": 3 + value for value in range(256)})
    for character in "▁abcdefghijklmnopqrstuvwxyz":
        vocab[character] = len(vocab)
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("▁", "w")]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    made = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens(["<s>", "</s>"])
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return made.to_str()


def word_piece_json() -> str:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.train_from_iterator(
        CORPUS,
        trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False),
    )
    made.enable_truncation(8)
    made.enable_padding(length=8, pad_token="[UNK]")
    return made.to_str()


MAKERS = {"byte-level": byte_level_json, "byte-fallback": byte_fallback_json, "word-piece": word_piece_json}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizers")
    for name, make in MAKERS.items():
        (folder / name).mkdir()
        (folder / name / "tokenizer.json").write_text(make(), encoding="utf-8")
    for kind in ("bpe", "unigram"):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS),
            model_writer=model,
            model_type=kind,
            vocab_size=420,
            byte_fallback=True,
            character_coverage=0.99,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        (folder / kind).mkdir()
        (folder / kind / "tokenizer.model").write_bytes(model.getvalue())
    return folder


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("special", [False, True])
def test_ids_equal_the_library_without_truncation_and_padding(files, name, special):
    reference = tokenizers.Tokenizer.from_file(str(files / name / "tokenizer.json"))
    reference.no_truncation()
    reference.no_padding()
    loaded = load_tokenizer(str(files / name))
    for text in TEXTS:
        expected = reference.encode(text, add_special_tokens=special)
        assert loaded.encode(text, special) == expected.ids
        assert [piece.id for piece in loaded.encode_pieces(text, special)] == expected.ids


def test_a_count_is_not_cut_at_the_truncation_the_file_carries(files):
    loaded = load_tokenizer(str(files / "word-piece"))
    assert count_text("one two three four five six seven eight nine ten", loaded).tokens > 8
    assert count_text("one", loaded).tokens < 8


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_sentencepiece_ids_and_pieces_equal_the_library(files, kind):
    path = files / kind / "tokenizer.model"
    reference = sentencepiece.SentencePieceProcessor(model_file=str(path))
    loaded = load_tokenizer(str(path))
    assert loaded.format == "sentencepiece"
    for text in TEXTS:
        ids = reference.encode(text)
        assert loaded.encode(text) == ids
        assert loaded.encode(text, add_special_tokens=True) == [reference.bos_id(), *ids]
        pieces = loaded.encode_pieces(text)
        assert [piece.id for piece in pieces] == ids
        assert all(piece.text == text[piece.start : piece.end] for piece in pieces if piece.end > piece.start)
        assert loaded.decode(ids) == reference.decode(ids)


@pytest.mark.parametrize("name", ["byte-level", "byte-fallback", "word-piece"])
def test_pieces_show_the_original_text(files, name):
    loaded = load_tokenizer(str(files / name))
    for text in TEXTS:
        for piece in loaded.encode_pieces(text):
            if piece.end > piece.start:
                assert piece.text == text[piece.start : piece.end]


@pytest.mark.parametrize("name", ["byte-level", "unigram"])
def test_the_tokens_of_one_character_all_cover_it(files, name):
    emoji = load_tokenizer(str(files / name)).encode_pieces("🙂🙃")
    whole = [piece for piece in emoji if piece.end > piece.start]
    assert len(whole) > 4
    assert {(piece.start, piece.end, piece.text) for piece in whole} == {(0, 1, "🙂"), (1, 2, "🙃")}


def test_markers_typed_in_text_are_parsed_or_taken_as_text(files):
    loaded = load_tokenizer(str(files / "byte-level"))
    text = "a<|im_end|>b<think>c      d"
    marker, think, spaces = (loaded.token_id(token) for token in ("<|im_end|>", "<think>", "      "))
    parsed = loaded.encode(text)
    assert {marker, think, spaces} <= set(parsed)
    plain = loaded.encode(text, parse_special=False)
    assert marker not in plain
    assert think not in plain
    assert spaces in plain
    assert loaded.decode(plain) == text
    assert loaded.encode(text) == parsed, "counting as plain text must not change the tokenizer"
    assert [piece.special for piece in loaded.encode_pieces("a<|im_end|>")] == [False, True]
    assert count_text(text, loaded, plain=True).tokens == len(plain) > count_text(text, loaded).tokens
    assert loaded.special_tokens() == {"<|endoftext|>": 0, "<|im_end|>": 1}


@pytest.mark.parametrize("name", ["byte-level", "byte-fallback", "bpe", "unigram"])
def test_streamed_text_equals_decoding_at_once(files, name):
    loaded = load_tokenizer(str(files / name))
    for text in [*TEXTS, "中文字符 🙂🙂 hello wörld"]:
        ids = loaded.encode(text)
        stream = loaded.stream_decoder()
        chunks = [stream.push(token_id) for token_id in ids]
        assert "".join(chunks) + stream.flush() == loaded.decode(ids)
        assert not any(chunk.endswith("\ufffd") for chunk in chunks)


def test_streaming_arbitrary_ids_loses_and_invents_no_text(files):
    loaded = load_tokenizer(str(files / "byte-level"))
    source = random.Random(7)
    for _ in range(40):
        ids = [source.randrange(loaded.vocab_size) for _ in range(60)]
        stream = loaded.stream_decoder()
        streamed = "".join(stream.push(token_id) for token_id in ids) + stream.flush()
        whole = loaded.decode(ids)
        assert streamed.replace("\ufffd", "") == whole.replace("\ufffd", "")


def test_streaming_gives_text_as_soon_as_it_is_whole(files):
    loaded = load_tokenizer(str(files / "byte-level"))
    stream = loaded.stream_decoder()
    chunks = [stream.push(token_id) for token_id in loaded.encode("🙂x")]
    assert chunks[:-2] == [""] * (len(chunks) - 2)
    assert chunks[-2:] == ["🙂", "x"]


def test_endless_invalid_bytes_are_not_held_for_ever(files):
    loaded = load_tokenizer(str(files / "byte-level"))
    lead = loaded.encode("🙂")[0]
    stream = loaded.stream_decoder()
    assert any(stream.push(lead) for _ in range(100))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60))
@pytest.mark.parametrize("name", ["byte-level", "byte-fallback"])
def test_any_text_survives_encoding_and_streaming(files, name, text):
    loaded = load_tokenizer(str(files / name))
    ids = loaded.encode(text, parse_special=False)
    stream = loaded.stream_decoder()
    assert "".join(stream.push(token_id) for token_id in ids) + stream.flush() == loaded.decode(ids)


@pytest.mark.parametrize("name", ["byte-level", "bpe"])
def test_a_lone_surrogate_is_refused_with_its_place(files, name):
    loaded = load_tokenizer(str(files / name))
    for call in (loaded.encode, loaded.encode_pieces, lambda text: count_text(text, loaded)):
        with pytest.raises(WorkbenchError, match="character 3") as caught:
            call("abc\ud800d")
        assert caught.value.kind == "bad-text"


def test_tokens_are_found_by_spelling_and_id(files):
    loaded = load_tokenizer(str(files / "byte-level"))
    assert loaded.id_token(0) == "<|endoftext|>"
    assert loaded.token_id("no such token") is None
    assert load_tokenizer(str(files / "bpe")).token_id("no such token") is None
    for name in ("byte-level", "bpe"):
        tokenizer = load_tokenizer(str(files / name))
        for token_id in (-1, tokenizer.vocab_size):
            with pytest.raises(WorkbenchError) as caught:
                tokenizer.id_token(token_id)
            assert caught.value.kind == "unknown-token"


def test_counts_and_ratios(files):
    loaded = load_tokenizer(str(files / "byte-level"))
    assert asdict(text_figures("zwei Wörter", "t")) == {"name": "t", "bytes": 12, "characters": 11, "words": 2}
    counted = count_text("zwei Wörter", loaded, ids=True, pieces=True, name="t")
    assert counted.tokens == len(counted.ids) == len(counted.pieces)
    assert counted.bytes_per_token == 12 / counted.tokens
    assert counted.tokens_per_word == counted.tokens / 2
    assert (counted.model, counted.text, counted.vocab_size) == ("byte-level", "t", loaded.vocab_size)
    json.dumps(asdict(counted))
    empty = count_text("", loaded)
    assert (empty.tokens, empty.bytes_per_token, empty.tokens_per_word) == (0, 0.0, 0.0)
    assert empty.ids is None


@pytest.mark.parametrize(
    ("content", "name", "kind"),
    [
        (b"", "tokenizer.json", "bad-tokenizer"),
        (b"{", "tokenizer.json", "bad-tokenizer"),
        (b'{"version": "1.0"}', "tokenizer.json", "bad-tokenizer"),
        (b'{"model": {"type": "BPE", "vocab": {"a": "b"}, "merges": []}}', "x.json", "bad-tokenizer"),
        (b"\x0a\x0e\x0a\x05<unk>\x15", "tokenizer.model", "bad-tokenizer"),
        (b"\x0a\xff\xff\xff\xff\x0f", "tokenizer.model", "bad-tokenizer"),
        (b"\x00\x01\x02\x03", "tokenizer.model", "bad-tokenizer"),
        (b"\x89PNG\r\n", "picture.png", "bad-tokenizer"),
    ],
)
def test_a_broken_file_gives_one_clear_line(tmp_path, content, name, kind):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WorkbenchError) as caught:
        load_tokenizer(str(path))
    assert caught.value.kind == kind
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("kind", ["byte-level", "bpe"])
def test_a_truncated_file_gives_one_clear_line(files, tmp_path, kind):
    source = next((files / kind).iterdir())
    path = tmp_path / source.name
    path.write_bytes(source.read_bytes()[:3000])
    with pytest.raises(WorkbenchError, match="broken") as caught:
        load_tokenizer(str(path))
    assert caught.value.kind == "bad-tokenizer"


def test_missing_and_huge_files_are_refused(tmp_path):
    with pytest.raises(WorkbenchError, match="no tokenizer file"):
        load_tokenizer(str(tmp_path))
    with pytest.raises(WorkbenchError, match="There is no tokenizer at"):
        load_tokenizer(str(tmp_path / "missing"))
    huge = tmp_path / "huge.json"
    with huge.open("wb") as file:
        file.write(b"{")
        file.truncate(2**30)
    with pytest.raises(WorkbenchError, match="1,073,741,824 bytes"):
        load_tokenizer(str(huge))


def test_a_file_that_fails_only_in_use_gives_one_clear_line(tmp_path):
    content = json.loads(word_piece_json())
    del content["model"]["vocab"]["[UNK]"]
    content["added_tokens"] = []
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    loaded = load_tokenizer(str(path))
    with pytest.raises(WorkbenchError, match="UNK") as caught:
        loaded.encode("☃")
    assert caught.value.kind == "bad-tokenizer"


def replaced(pattern, content):
    return {"type": "Replace", "pattern": pattern, "content": content}


def precompiled(content):
    """A charsmap that makes `content` of the letter a: root, node and leaf of its trie as in Darts-clone."""
    units = [0] * 1024
    units[0] = 256 << 10
    units[256 ^ ord("a")] = ord("a") | 1 << 8 | 512 << 10
    units[256 ^ ord("a") ^ 512] = 1 << 31
    trie = b"".join(unit.to_bytes(4, "little") for unit in units)
    charsmap = len(trie).to_bytes(4, "little") + trie + content.encode() + b"\0"
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap).decode()}


@pytest.mark.parametrize(
    ("step", "steps", "refused"),
    [
        (replaced({"String": "a"}, "a" * 1000), 4, True),
        (replaced({"Regex": "a*"}, "b" * 500), 1, True),
        (replaced({"String": " "}, "▁"), 3, False),
        (precompiled("a" * 1_000_000), 1, True),
        (precompiled("a" * 20), 2, True),
        (precompiled("a"), 3, False),
    ],
    ids=range(6),
)
def test_a_normalizer_that_makes_terabytes_is_refused(tmp_path, step, steps, refused):
    file = tmp_path / "tokenizer.json"
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"a": 0, "▁": 1}, merges=[]))
    said = json.loads(tokenizer.to_str())
    said["normalizer"] = {"type": "Sequence", "normalizers": [step] * steps}
    file.write_text(json.dumps(said), encoding="utf-8")
    if refused:
        with pytest.raises(WorkbenchError, match="times as long") as caught:
            load_tokenizer(file)
        assert caught.value.kind == "bad-tokenizer"
    else:
        assert load_tokenizer(file).encode("aa") == [0, 0]


@pytest.mark.parametrize(("times", "refused"), [(1000, True), (2, False)])
def test_a_sentencepiece_model_that_makes_terabytes_is_refused(tmp_path, times, refused):
    rules, file = tmp_path / "rules.tsv", tmp_path / "tokenizer.model"
    rules.write_text("61\t" + " ".join(["62"] * times) + "\n", encoding="utf-8")
    with file.open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["b bb c " * 20]),
            model_writer=model,
            vocab_size=9,
            hard_vocab_limit=False,
            normalization_rule_tsv=str(rules),
            minloglevel=2,
        )
    if refused:
        with pytest.raises(WorkbenchError, match="1,000 times as long") as caught:
            load_tokenizer(file)
        assert caught.value.kind == "bad-tokenizer"
    else:
        loaded = load_tokenizer(file)
        assert loaded.encode("a") == loaded.encode("b" * times)


@pytest.mark.parametrize(
    "damage", [b"", b"\x01", b"\xff\xff\xff\x7fabcd", b"\0\0\0\0a", b"\x04\0\0\0\xff\xff\xff\xffa"]
)
def test_a_damaged_charsmap_gives_one_clear_line(tmp_path, damage):
    file = tmp_path / "tokenizer.json"
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"a": 0}, merges=[]))
    said = json.loads(tokenizer.to_str())
    said["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(damage).decode()}
    file.write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(WorkbenchError) as caught:
        load_tokenizer(file).encode("aa")
    assert caught.value.kind == "bad-tokenizer"
    assert "\n" not in caught.value.message
