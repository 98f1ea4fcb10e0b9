"""What a terminal would do with bytes, after ECMA-48: text, control characters, and sequences."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

_SEQUENCE = re.compile(
    r"\x1b\[(?P<csi>[0-?]*[ -/]*[@-~])"
    r"|\x1b\](?P<osc>[^\x07\x1b\x9c]*)(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[PX^_](?P<string>[^\x1b\x9c]*)(?:\x1b\\|\x9c)"
    r"|\x1b(?P<esc>[ -/]*[0-~])"
    r"|\x1b(?P<broken>)"
    r"|(?P<control>[\x00-\x1f\x7f-\x9f])"
)
_HIDDEN = re.compile("[\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]")
MAX_COMBINING = 8
"""More marks than that on one character are painted over the lines above and below it."""

COMMAND = re.compile(r"csi:(?:[0-9;]*m|K)|control:[\r\n\t]")
"""What a command may tell a terminal: colours, and to begin or erase a line."""

APP = re.compile(
    r"csi:(?:[0-9;:]*m|[0-9;]*H|[0-9]*[ABCDGJK]|\?(?:25|1000|1002|1003|1004|1006|1015|1016|1049|2004|2026|2048|7)[hl]"
    r"|\?(?:2026|2048)\$p|[<>]\d*u|0? q)"
    r"|osc:(?:52;c;[A-Za-z0-9+/]+=*|22;[a-z-]+)"
    r"|control:[\r\n]"
)
"""What the app may: its screen, its modes, its cursor and colours, and to copy what a key asked it to."""


@dataclass(frozen=True)
class Command:
    """Something that is no text.

    Attributes:
        kind: ``csi``, ``osc``, ``string`` (DCS, SOS, PM, APC), ``esc``, ``broken``, ``control``, ``hidden`` or
            ``pile``.
        content: its parameters and final character, or the character itself.
        before: the text that stands before it.
    """

    kind: str
    content: str
    before: str


def commands(data: bytes) -> Iterator[Command]:
    """All that is no plain text in the output."""
    text = data.decode("utf-8", "replace")
    end = 0
    for match in _SEQUENCE.finditer(text):
        yield from _unreadable(text[end : match.start()])
        kind = str(match.lastgroup)
        yield Command(kind, match[kind], text[max(0, match.start() - 40) : match.start()])
        end = match.end()
    yield from _unreadable(text[end:])


def _unreadable(text: str) -> Iterator[Command]:
    for match in _HIDDEN.finditer(text):
        yield Command("hidden", match.group(), text[max(0, match.start() - 40) : match.start()])
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) or unicodedata.category(character) == "Me" else 0
        if marks == MAX_COMBINING + 1:
            yield Command("pile", character, text[:40])


def forbidden(data: bytes, allowed: re.Pattern[str], mark: str) -> list[Command]:
    """Commands in the output that are none of the writer's own, or that carry the mark of the corpus."""
    found = []
    for command in commands(data):
        own = allowed.fullmatch(f"{command.kind}:{command.content}")
        if not own or (command.kind != "control" and mark in command.content):
            found.append(command)
    return found
