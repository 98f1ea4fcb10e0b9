"""The requests of the tokens bench, answered by a real worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Opener
from workbench.errors import WorkbenchError
from workbench.session import protocol


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
