"""The requests of the tokens bench, answered by a real worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Opener
from workbench.errors import WorkbenchError
from workbench.session import protocol

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def byte_model(tmp_path: Path) -> str:
    """A byte-level BPE of a few merges with a BOS, trained by the tokenizers library."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the cat sat on the mat, the hat and the rat"] * 20, trainer)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    folder = tmp_path / "bytes"
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return str(folder)


async def recount(client: object, text: str, model: str, **options: object) -> protocol.TokensRecounted:
    request = protocol.RecountTokens(text, [model], selected=model, end=len(text), **options)  # type: ignore[arg-type]
    return await client.ask(request, protocol.TokensRecounted)  # type: ignore[attr-defined,no-any-return]


async def test_recounts_equal_counts_after_every_edit(session_opener: Opener, byte_model: str) -> None:
    client = await session_opener()
    text = "the cat sat on the mat. " * 200
    for edit in (text, text + "the", "a" + text, text[:900] + " éclair " + text[900:], text[:40], "the"):
        reply = await recount(client, edit, byte_model)
        counted = await client.ask(
            protocol.CountTokens([{"name": "t", "text": edit}], [byte_model], pieces=True), protocol.TokensCounted
        )
        expected = counted.result["results"][0]
        assert reply.results[0]["tokens"] == expected["tokens"]
        assert [piece["id"] for piece in reply.pieces] == [piece["id"] for piece in expected["pieces"]]
        assert reply.figures["characters"] == len(edit)


async def test_pieces_tell_bytes_and_added_tokens(session_opener: Opener, byte_model: str) -> None:
    client = await session_opener()
    pieces = (await recount(client, "the ☃", byte_model, special=True)).pieces
    assert pieces[0]["special"]
    assert pieces[0]["start"] == pieces[0]["end"] == 0
    snow = pieces[-3:]
    assert [piece["text"] for piece in snow] == ["<0xE2>", "<0x98>", "<0x83>"]
    assert [piece["bytes"] for piece in snow] == [1, 1, 1]
    assert not any(piece["whole"] for piece in snow)
    assert all(piece["whole"] for piece in pieces[:-3])


async def test_a_tokenizer_that_cannot_be_read_does_not_hide_the_others(
    session_opener: Opener, byte_model: str, tmp_path: Path
) -> None:
    broken = tmp_path / "tokenizer.json"
    broken.write_text(json.dumps({"model": 3}))
    client = await session_opener()
    request = protocol.RecountTokens("the cat", [str(broken), byte_model])
    first, second = (await client.ask(request, protocol.TokensRecounted)).results
    assert "tokens" not in first
    assert first["error"]
    assert second["tokens"] > 0


async def test_half_a_character_is_refused_in_one_line(session_opener: Opener, byte_model: str) -> None:
    client = await session_opener()
    with pytest.raises(WorkbenchError, match="surrogate"):
        await recount(client, "a\ud800", byte_model)


async def test_a_word_is_explained_merge_by_merge(session_opener: Opener, byte_model: str) -> None:
    client = await session_opener()
    reply = await client.ask(protocol.ExplainSplit(" the", byte_model), protocol.SplitExplained)
    (word,) = reply.explanation["words"]
    assert reply.explanation["kind"] == "BPE"
    assert word["agrees"]
    assert word["start"] == [" ", "t", "h", "e"]
    assert word["merges"][-1]["tokens"] == word["tokens"]
    reply = await client.ask(protocol.ExplainSplit("ö", byte_model), protocol.SplitExplained)
    assert reply.explanation["words"][0]["start"] == ["<0xC3>", "<0xB6>"]
    assert reply.explanation["words"][0]["word"] == "ö"


async def test_the_vocabulary_is_searched(session_opener: Opener, byte_model: str) -> None:
    client = await session_opener()

    async def search(kind: str, query: str = "") -> protocol.VocabularySearched:
        return await client.ask(protocol.SearchVocabulary(byte_model, kind, query), protocol.VocabularySearched)

    found = await search("text", " the")
    assert found.tokens[0]["text"] == " the"
    assert (await search("text", str(found.tokens[0]["id"]))).tokens[0] == found.tokens[0]
    assert {token["text"].strip()[0] for token in (await search("regex", "^ ?c")).tokens} == {"c"}
    assert [token["text"] for token in (await search("special")).tokens] == ["<s>"]
    longest = [len(token["text"]) for token in (await search("longest")).tokens]
    assert longest == sorted(longest, reverse=True)
    assert (await search("script")).scripts["LATIN"] > 20
    assert [token["text"] for token in (await search("unreachable")).tokens] == []
    with pytest.raises(WorkbenchError, match="no regular expression"):
        await search("regex", "(")


async def test_languages_are_compared_and_what_fails_is_said(session_opener: Opener, byte_model: str) -> None:
    client = await session_opener()
    reply = await client.ask(protocol.CompareLanguages([byte_model, "/nowhere"]), protocol.LanguagesCompared)
    (row,) = reply.table["rows"]
    assert row["model"] == byte_model
    english = next(cell for cell in row["cells"] if cell["sample"] == "en")
    assert english["premium"] == 1.0
    assert row["worst_premium"] > 2
    assert "/nowhere" in reply.errors[0]


async def test_two_splits_are_marked_where_they_differ(session_opener: Opener, byte_model: str, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    other = tokenizers.Tokenizer.from_file(f"{byte_model}/tokenizer.json")
    content = json.loads(other.to_str())
    content["model"]["merges"] = content["model"]["merges"][:3]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    client = await session_opener()
    reply = await client.ask(
        protocol.CompareSplits("q the hat", byte_model, str(tmp_path / "tokenizer.json")), protocol.SplitsCompared
    )
    assert reply.comparison["first_tokens"] == len(reply.first) < len(reply.second)
    assert reply.first[0]["same"]
    assert not reply.first[-1]["same"]
    assert not reply.second[-1]["same"]
    assert reply.comparison["only_second"]
    long = await client.ask(protocol.CompareSplits("a " * 15_000, byte_model, byte_model), protocol.SplitsCompared)
    assert long.comparison["characters"] == 20_000


async def test_a_conversation_is_rendered_and_examined(session_opener: Opener, byte_model: str) -> None:
    pytest.importorskip("jinja2")
    template = (
        "<s>{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    (Path(byte_model) / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    client = await session_opener()
    messages = [{"role": "user", "content": "the <s> cat"}]
    reply = await client.ask(protocol.CheckPrompt(byte_model, messages), protocol.PromptChecked)
    assert reply.rendered == "<s>user: the <s> cat\nassistant: "
    assert reply.pieces[0]["special"]
    assert {finding["id"] for finding in reply.report["findings"]} == {"special-in-text"}
    assert reply.report["template_tokens"] > 0
    closed = await client.ask(protocol.CheckPrompt(byte_model, messages, False), protocol.PromptChecked)
    assert "missing-generation-prompt" in {finding["id"] for finding in closed.report["findings"]}


async def test_a_stopped_data_set_keeps_what_was_counted(
    session_opener: Opener, byte_model: str, tmp_path: Path
) -> None:
    data = tmp_path / "rows.jsonl"
    row = json.dumps({"text": "the cat sat on the mat " * 80}) + "\n"
    data.write_text(row * 12_000)
    client = await session_opener()
    call = client.start(protocol.MeasureDataset(str(data), [byte_model]))
    async for event in call.events():
        if isinstance(event, protocol.JobProgressed) and event.phase == "count":
            call.cancel()
            break
    reply = await call.reply()
    assert isinstance(reply, protocol.DatasetMeasured)
    (model,) = reply.result["models"]
    assert reply.result["partial"]
    assert 0 < reply.result["rows"] < 12_000
    assert reply.result["bytes_done"] < reply.result["bytes_total"]
    assert model["rows"] == reply.result["rows"]
    assert model["total"] == model["rows"] * model["max"] > 0
    assert model["lengths"][0]["length"] == 512


async def test_conversations_are_counted_through_the_models_template(
    session_opener: Opener, byte_model: str, tmp_path: Path
) -> None:
    pytest.importorskip("jinja2")
    template = (
        "{% if messages[0].content == 'no' %}{{ raise_exception('never') }}{% endif %}"
        "{% for m in messages %}<s>{{ m.role }} {{ m.content }}{% endfor %}"
    )
    (Path(byte_model) / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    contents = [f"the {number}" for number in range(150)] + ["no"]
    rows = [{"messages": [{"role": "user", "content": content}]} for content in contents]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    client = await session_opener()
    reply = await client.ask(
        protocol.MeasureDataset(str(tmp_path / "chats.jsonl"), [byte_model]), protocol.DatasetMeasured
    )
    (model,) = reply.result["models"]
    texts = [{"name": "", "text": f"<s>user {content}"} for content in contents[:-1]]
    counted = await client.ask(protocol.CountTokens(texts, [byte_model]), protocol.TokensCounted)
    assert model["total"] == sum(result["tokens"] for result in counted.result["results"])
    assert (model["rows"], model["refused_rows"]) == (150, 1)
    assert "never" in model["error"]


async def test_a_broken_tokenizer_does_not_keep_a_data_set_from_the_others(
    session_opener: Opener, byte_model: str, tmp_path: Path
) -> None:
    (tmp_path / "broken.json").write_text(json.dumps({"model": 3}))
    broken, data = str(tmp_path / "broken.json"), tmp_path / "rows.txt"
    data.write_text("the cat\nthe hat\n")
    client = await session_opener()
    reply = await client.ask(
        protocol.MeasureDataset(str(data), [broken, byte_model, "/nowhere"]), protocol.DatasetMeasured
    )
    first, second, third = reply.result["models"]
    assert [first["model"], second["model"], third["model"]] == [broken, byte_model, "/nowhere"]
    assert (first["rows"], second["rows"], second["error"]) == (0, 2, "")
    assert "broken.json" in first["error"]
    assert "/nowhere" in third["error"]
    with pytest.raises(WorkbenchError, match=r"broken\.json"):
        await client.ask(protocol.MeasureDataset(str(data), [broken]), protocol.DatasetMeasured)


@pytest.mark.model
async def test_autotokenizer_is_asked_once_in_a_child(session_opener: Opener, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    source = REPOSITORY / "sample_models" / "tiny-llama"
    (tmp_path / "declared").mkdir()
    model = str(tmp_path / "declared")
    (tmp_path / "declared" / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    # Another class than the file's: its own pipeline replaces the one that the file has.
    (tmp_path / "declared" / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    client = await session_opener()
    unknown = await client.ask(protocol.CompareAutoTokenizer(model, True), protocol.AutoTokenizerCompared)
    assert unknown.line == ""
    found = await client.ask(protocol.CompareAutoTokenizer(model), protocol.AutoTokenizerCompared)
    assert found.differs
    assert "gives other ids than the file" in found.line
    known = await client.ask(protocol.CompareAutoTokenizer(model, True), protocol.AutoTokenizerCompared)
    assert known == found
    assert client.welcome is not None
    assert "libtorch" not in Path(f"/proc/{client.welcome.status.pid}/maps").read_text()


async def test_prices_are_those_of_the_table_with_the_users_own(session_opener: Opener, private_home: Path) -> None:
    own = private_home / "config" / "workbench" / "prices.toml"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text('[gpu."H200"]\nlow = 1.0\nhigh = 1.25\ndate = "2026-11"\nsource = "our contract"\n')
    client = await session_opener()
    reply = await client.ask(protocol.ListPrices(), protocol.PricesListed)
    prices = {gpu["name"]: gpu for gpu in reply.gpus}
    assert prices["H200"] == {"name": "H200", "low": 1.0, "high": 1.25, "date": "2026-11", "source": "our contract"}
    assert len(prices) > 3
    assert reply.own_table == str(own)
