"""``workbench tokens``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from workbench.cli.common import Common, ask, common_options, with_session
from workbench.cli.output import console, print_json, print_text, table
from workbench.errors import WorkbenchError
from workbench.session.client import SessionClient
from workbench.session.protocol import CountTokens, TokensCounted


@click.command("tokens")
@click.argument("text", required=False)
@click.option("--file", "files", multiple=True, metavar="PATH", help="Count a file; repeatable.")
@click.option("--model", "models", multiple=True, required=True, metavar="MODEL", help="Whose tokenizer; repeatable.")
@click.option("--ids", is_flag=True, help="The token ids.")
@click.option("--pieces", is_flag=True, help="Each token with the text it covers.")
@click.option("--special", is_flag=True, help="Add the special tokens the tokenizer puts around a text.")
@click.option("--plain", is_flag=True, help="Take special tokens typed in the text as plain text.")
@click.option("--chat", is_flag=True, help="Wrap the text as a user message in the model's chat template.")
@common_options
def command(
    common: Common,
    text: str | None,
    files: tuple[str, ...],
    models: tuple[str, ...],
    ids: bool,
    pieces: bool,
    special: bool,
    plain: bool,
    chat: bool,
) -> int:
    """Count TEXT (- for standard input) or files under every MODEL named."""
    texts = _texts(text, files)
    request = CountTokens(texts, list(models), special, plain, chat, ids, pieces)

    async def count(session: SessionClient) -> dict[str, Any]:
        return (await ask(session, request, TokensCounted)).result

    result = with_session(common, count)
    if common.as_json:
        print_json("tokens", result)
    else:
        _print(result, ids, pieces)
    return 0


def _texts(text: str | None, files: tuple[str, ...]) -> list[dict[str, str]]:
    texts = [{"name": path, "text": _read(path)} for path in files]
    if text == "-" or (text is None and not files):
        if text is None and sys.stdin.isatty():
            raise WorkbenchError("no-text", "There is no text to count.", "Give TEXT, --file PATH or pipe it in.")
        texts.append({"name": "standard input", "text": _decode(sys.stdin.buffer.read(), "standard input")})
    elif text is not None:
        texts.append({"name": "text", "text": text})
    return texts


def _read(path: str) -> str:
    try:
        return _decode(Path(path).expanduser().read_bytes(), path)
    except OSError as error:
        raise WorkbenchError("unreadable-file", f"Cannot read {path}: {error.strerror}.", "Give a text file.") from None


def _decode(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise WorkbenchError(
            "bad-encoding", f"{name} is not UTF-8 at byte {error.start:,}.", "Convert it first: iconv -t utf-8."
        ) from None


def _print(result: dict[str, Any], ids: bool, pieces: bool) -> None:
    sizes = {entry["name"]: entry for entry in result["texts"]}
    numbers = ("tokens", "bytes/token", "tokens/word", "vocabulary")
    grid = table("text", "model", *numbers, right=numbers)
    for entry in result["results"]:
        if "error" in entry:
            grid.add_row("", entry["model"], entry["error"], "", "", "")
            continue
        grid.add_row(
            entry["text"],
            entry["model"],
            f"{entry['tokens']:,}",
            f"{entry['bytes_per_token']:.2f}",
            f"{entry['tokens_per_word']:.2f}",
            f"{entry['vocab_size']:,}",
        )
    console().print(grid)
    for entry in sizes.values():
        print_text(
            f"{entry['name']}: {entry['bytes']:,} bytes, {entry['characters']:,} characters, {entry['words']:,} words"
        )
    for entry in result["results"]:
        if ids and "ids" in entry:
            print_text(f"{entry['model']}: {' '.join(map(str, entry['ids']))}")
        if pieces and "pieces" in entry:
            for piece in entry["pieces"]:
                mark = " special" if piece["special"] else ""
                print_text(f"{piece['id']:>8}  {piece['start']:>6}-{piece['end']:<6} {piece['text']!r}{mark}")
