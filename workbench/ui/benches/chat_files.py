"""Text files that go with a message: found by their path, read, and fenced."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import WorkbenchError

MAX_FILE_BYTES = 2 * 2**20
_FENCES = re.compile("^ {0,3}(`{3,})", re.MULTILINE)


@dataclass(frozen=True)
class Attachment:
    """A file to send with the next message."""

    name: str
    text: str
    size_bytes: int
    tokens: int | None = None
    """None where nobody could count them."""


def read_attachment(typed: str) -> Attachment:
    """Read a text file.

    Raises:
        WorkbenchError: ``bad-file`` for what is no text file, is too large or cannot be read.
    """
    path = Path(typed).expanduser()
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise WorkbenchError("bad-file", f"{typed} is {kind}.", "Name a text file.")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise WorkbenchError("bad-file", f"{typed} cannot be read: {error.strerror}.", "Check the path.") from None
    if not data:
        raise WorkbenchError("bad-file", f"{typed} is empty.", "Name another.")
    if len(data) > MAX_FILE_BYTES:
        raise WorkbenchError("bad-file", f"{typed} is larger than 2 MiB.", "Send a part of it.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise WorkbenchError("bad-file", f"{typed} is no text in UTF-8.", "Only text files can be sent.")
    return Attachment(path.name, text, len(data))


def with_files(text: str, files: tuple[Attachment, ...]) -> str:
    """The message with its files below, each under its name in a fence that nothing in it closes."""
    return "\n\n".join([text, *(fenced(file) for file in files)])


def fenced(file: Attachment) -> str:
    """A file's text in a code fence, with its name above."""
    longest = max((len(match) for match in _FENCES.findall(file.text)), default=2)
    fence = "`" * max(3, longest + 1)
    language = re.sub(r"[^\w+-]", "", Path(file.name).suffix)
    return f"{file.name}:\n{fence}{language}\n{file.text.rstrip()}\n{fence}"


def completions(typed: str, most: int = 100) -> tuple[str, list[str]]:
    """What the shell's tab key would make of a path, and the names that it may go on with."""
    head, _, beginning = typed.rpartition("/")
    folder = Path(f"{head}/" if head or typed.startswith("/") else ".").expanduser()
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                entry.name + ("/" if entry.is_dir() else "")
                for entry in entries
                if entry.name.startswith(beginning) and (beginning or not entry.name.startswith("."))
            )
    except OSError:
        return typed, []
    if not names:
        return typed, []
    first, last = names[0], names[-1]
    alike = next((i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    common = first[: min(alike, len(last))]
    return typed[: len(typed) - len(beginning)] + common, names[:most]
