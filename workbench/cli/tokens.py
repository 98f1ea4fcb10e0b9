"""``workbench tokens``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, BinaryIO

import click

from workbench.cli.common import BAD_INPUT, Common, ask, common_options, decode_utf8, model_name, with_session
from workbench.cli.dataset import failure_line, measure
from workbench.cli.output import console, print_json, print_text, table
from workbench.cli.shell import complete_model
from workbench.errors import WorkbenchError
from workbench.session.client import SessionClient
from workbench.session.protocol import AutoTokenizerCompared, CompareAutoTokenizer, CountTokens, TokensCounted

MAX_TEXT_BYTES = 16 * 2**20
"""A request holds 32 MiB of JSON, in which a character outside ASCII takes up to three times its UTF-8 bytes."""


@click.command("tokens")
@click.argument("text", required=False)
@click.option("--file", "files", multiple=True, metavar="PATH", help="Count a file; repeatable.")
@click.option(
    "--model",
    "models",
    multiple=True,
    required=True,
    callback=model_name,
    shell_complete=complete_model,
    metavar="MODEL",
    help="Whose tokenizer; repeatable.",
)
@click.option("--ids", is_flag=True, help="The token ids.")
@click.option("--pieces", is_flag=True, help="Each token with the text it covers.")
@click.option("--special", is_flag=True, help="Add the special tokens the tokenizer puts around a text.")
@click.option("--plain", is_flag=True, help="Take special tokens typed in the text as plain text.")
@click.option("--dataset", default="", metavar="FILE|DIR", help="Measure a data set: JSONL, JSON, CSV, Parquet, text.")
@click.option("--field", default="", metavar="NAME", help="Which field of a row to count; found if not given.")
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
    dataset: str,
    field: str,
    chat: bool,
) -> int:
    """Count TEXT (- for standard input), files or a whole data set under every MODEL named."""
    if dataset:
        if text is not None or files:
            raise click.UsageError("--dataset is measured by itself: leave TEXT and --file away, or count them apart.")
        return measure(common, dataset, models, field, special)
    texts = _texts(text, files)
    request = CountTokens(texts, list(models), special, plain, chat, ids, pieces)

    async def count(session: SessionClient) -> dict[str, Any]:
        result = (await ask(session, request, TokensCounted)).result
        if not common.as_json:
            # The figures do not wait for transformers.
            _print(result, ids, pieces)
            sys.stdout.flush()
        counted = dict.fromkeys(entry["model"] for entry in result["results"] if "error" not in entry)
        told = [await _autotokenizer(session, model, only_known=common.as_json) for model in counted]
        differing = {model: found for model, found in zip(counted, told, strict=True) if found}
        return {**result, "autotokenizer": differing} if differing else result

    result = with_session(common, count)
    if common.as_json:
        print_json("tokens", result)
    for model, found in result.get("autotokenizer", {}).items():
        if not common.as_json:
            print_text(f"note: {model}: {found['line']}")
    failures = [entry for entry in result["results"] if "error" in entry]
    for entry in failures:
        print(failure_line(entry["model"], entry["error"]), file=sys.stderr)
    return BAD_INPUT if failures else 0


async def _autotokenizer(session: SessionClient, model: str, only_known: bool) -> dict[str, Any] | None:
    """Where the installed AutoTokenizer gives other ids than the model's tokenizer file; None where it does not."""
    try:
        found = await ask(session, CompareAutoTokenizer(model, only_known), AutoTokenizerCompared)
    except WorkbenchError:
        return None
    return {"line": found.line, **found.result} if found.differs else None


def _texts(text: str | None, files: tuple[str, ...]) -> list[dict[str, str]]:
    texts = [{"name": path, "text": _read(path)} for path in files if path != "-"]
    if text == "-" or "-" in files or (text is None and not files):
        if text is None and not files and sys.stdin.isatty():
            raise WorkbenchError("no-text", "There is no text to count.", "Give TEXT, --file PATH or pipe it in.")
        texts.append({"name": "standard input", "text": _read_stream(sys.stdin.buffer, "standard input")})
    if text is not None and text != "-":
        texts.append({"name": "text", "text": text})
    return texts


def _read(path: str) -> str:
    try:
        with Path(path).expanduser().open("rb") as file:
            return _read_stream(file, path)
    except OSError as error:
        raise WorkbenchError("unreadable-file", f"Cannot read {path}: {error.strerror}.", "Give a text file.") from None


def _read_stream(stream: BinaryIO, name: str) -> str:
    data = stream.read(MAX_TEXT_BYTES + 1)
    if len(data) > MAX_TEXT_BYTES:
        limit = f"{MAX_TEXT_BYTES // 2**20} MiB"
        raise WorkbenchError(
            "too-large", f"{name} is larger than {limit}.", "Count it as a data set: --dataset FILE streams it by rows."
        )
    return decode_utf8(data, name)


def _print_notes(result: dict[str, Any]) -> None:
    characters = {entry["name"]: entry["characters"] for entry in result["texts"]}
    for entry in result["results"]:
        if entry.get("lost_characters"):
            print_text(
                f"* {entry['model']} loses {entry['lost_characters']:,} of {characters[entry['text']]:,} characters of "
                f"{entry['text']} ({entry['unknown_tokens']:,} unknown tokens): its count is not of the whole text"
            )
    for note in dict.fromkeys(entry["note"] for entry in result["results"] if entry.get("note")):
        print_text(f"note: {note}")


def _print(result: dict[str, Any], ids: bool, pieces: bool) -> None:
    sizes = {entry["name"]: entry for entry in result["texts"]}
    numbers = ("tokens", "bytes/token", "tokens/word", "vocabulary")
    grid = table("text", "model", *numbers, right=numbers)
    for entry in result["results"]:
        if "error" in entry:
            continue
        grid.add_row(
            entry["text"],
            entry["model"],
            f"{entry['tokens']:,}{' *' if entry['lost_characters'] else ''}",
            f"{entry['bytes_per_token']:.2f}",
            f"{entry['tokens_per_word']:.2f}",
            f"{entry['vocab_size']:,}",
        )
    console().print(grid)
    for entry in sizes.values():
        print_text(
            f"{entry['name']}: {entry['bytes']:,} bytes, {entry['characters']:,} characters, {entry['words']:,} words"
        )
    _print_notes(result)
    for entry in result["results"]:
        if "rendered_bytes" in entry:
            print_text(
                f"{entry['model']}: {entry['rendered_bytes']:,} bytes in its chat template, which the ratios are of"
            )
        if ids and "ids" in entry:
            print_text(f"{entry['model']}: {' '.join(map(str, entry['ids']))}")
        if pieces and "pieces" in entry:
            for piece in entry["pieces"]:
                mark = " special" if piece["special"] else ""
                print_text(f"{piece['id']:>8}  {piece['start']:>6}-{piece['end']:<6} {piece['text']!r}{mark}")
