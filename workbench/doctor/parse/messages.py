"""Known error messages in any text, in the order in which they stand there. Needs the tables."""

from __future__ import annotations

import bisect
import collections
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

from workbench.doctor.environment import mask_text
from workbench.doctor.facts import ErrorFact
from workbench.doctor.tables import faults, message_of, table

MAX_HITS_PER_MARK = 30
MAX_SHOWN = 400
MAX_REPEATS = 40
MAX_DULL = 3
"""Different characters in a long line that says nothing."""
MAX_BEFORE, MAX_BEHIND = 600, 1200
"""Characters of a long line around what marks a message."""


_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True)
class Message:
    """One known message."""

    id: str
    contains: tuple[str, ...]
    match: Optional[re.Pattern[str]]
    detail: Optional[re.Pattern[str]]
    after: Optional[re.Pattern[str]]
    anywhere: Optional[re.Pattern[str]] = None


@functools.lru_cache(maxsize=1)
def known_messages() -> tuple[Message, ...]:
    """The table of messages, compiled."""
    return tuple(
        Message(
            message_id,
            tuple(row["contains"]),
            _compiled(row.get("match")),
            _compiled(row.get("detail")),
            _compiled(row.get("after")),
            _compiled(row.get("anywhere")),
        )
        for message_id, row in (
            *((str(row["id"]), row) for row in table("messages")["message"]),
            *((message_of(row), row) for row in faults() if "contains" in row),
        )
    )


def _compiled(pattern: Optional[str]) -> Optional[re.Pattern[str]]:
    return re.compile(pattern, re.MULTILINE) if pattern else None


def find_messages(lines: Sequence[str]) -> list[ErrorFact]:
    """The first sight of each known message, earliest line first; line numbers count from 1."""
    lowered = _worth_searching(lines)
    starts = [0]
    for line in lowered:
        starts.append(starts[-1] + len(line) + 1)
    # Joined by a blank, so that a message wrapped by a mail program is still found.
    text = " ".join(lowered)
    words = frozenset(_WORD.findall(text))
    found = []
    for message in known_messages():
        first = _first(message, text, words, starts, lines)
        if first is not None:
            found.append(first)
    return sorted(found, key=lambda error: error.line)


# Source that a traceback shows: it names exceptions that were not raised.
_NAMES_EXCEPTIONS = re.compile(
    r"\s{0,40}(?:[-❱>]{1,8}\s{0,4})?(?:\[?\d{1,6}\]?\s{1,40})?"
    r"(?:(?:from [\w.]{1,80} )?import [\w., ()]{0,200}|except [\w., ()]{1,200}:|\w{1,60}(?:Error|Exception),)\s{0,8}"
)
# What a notebook shows around the line that ran has no arrow: an exception that is raised there was not raised.
_NOT_RUN = re.compile(r"\s{0,8}\[?\d{1,6}\]?\s{1,60}(?:│\s{1,60})?(?:#.{0,80})?raise [A-Z]")
_RAISES = ("Error", "Exception")
# A text that stands alone on a numbered line, without the arrow of the line that ran: what a program might have said.
_TEXT_NOT_RUN = re.compile(r"""\s{0,8}\d{1,6}\s{5,60}f?(?P<mark>["']).{8,400}(?P=mark)[\s,)\\]{0,8}""")


def _is_source(line: str) -> bool:
    if line[:9].strip()[:1].isdigit() and _TEXT_NOT_RUN.fullmatch(line):
        return True
    named = any(word in line for word in _RAISES)
    return named and bool(_NAMES_EXCEPTIONS.fullmatch(line) or _NOT_RUN.match(line))


def _worth_searching(lines: Sequence[str]) -> list[str]:
    """`lines` in small letters; emptied are those that can hold no message, since each mark is looked for in all.

    These are lines that came many times before, long ones of a character or three, and code that handles exceptions.
    """
    seen: collections.Counter[str] = collections.Counter()
    result = []
    for line in lines:
        seen[line] += 1
        empty = seen[line] > MAX_REPEATS or (len(line) > MAX_SHOWN and len(set(line)) <= MAX_DULL) or _is_source(line)
        result.append("" if empty else line.lower())
    return result


@functools.cache
def _inner_word(mark: str) -> str:
    """The longest word that stands whole within a mark, so that a text without that word cannot hold the mark."""
    inner = (word for word in _WORD.finditer(mark) if word.start() > 0 and word.end() < len(mark))
    return max((word[0] for word in inner), key=len, default="")


def _both_ends(line: str) -> str:
    """A line without the middle of one that is very long."""
    return line if len(line) <= 1200 else line[:600] + line[-600:]


def _first(
    message: Message, text: str, words: frozenset[str], starts: list[int], lines: Sequence[str]
) -> Optional[ErrorFact]:
    hits: dict[int, int] = {}
    for mark in message.contains:
        # To look a word up is quicker than to search a megabyte for each of some two thousand marks.
        word = _inner_word(mark)
        if word and word not in words:
            continue
        for index, column in _places(mark, text, starts):
            hits.setdefault(index, column)
    if hits and message.anywhere is not None and not message.anywhere.search(text):
        return None
    plain: Optional[ErrorFact] = None
    for index, column in sorted(hits.items()):
        window = _windows(lines, index, column)
        match = _search(message.match, window)
        if message.match is not None and match is None:
            continue
        before = _search(message.after, ("\n".join(map(_both_ends, lines[max(0, index - 6) : index + 1])),))
        if message.after is not None and before is None:
            continue
        detail = _search(message.detail, window)
        values = {name: value for item in (match, detail, before) if item for name, value in item.groupdict().items()}
        kept = {name: value.strip().rstrip(".,;:")[:200] for name, value in values.items() if value}
        found = ErrorFact(message.id, mask_text(" ".join(lines[index].split())[:MAX_SHOWN]), index + 1, kept)
        # A heading often repeats a message without its numbers, or without the traceback above it.
        if (detail or message.detail is None) and (_says_where(before) or message.after is None):
            return found
        plain = found if plain is None or len(kept) > len(plain.values) else plain
    return plain


def _says_where(before: Optional[re.Match[str]]) -> bool:
    return before is not None and any(before.groupdict().values())


def _places(mark: str, text: str, starts: list[int]) -> Iterator[tuple[int, int]]:
    """Line and column of each sight of `mark`."""
    position = -1
    for _ in range(MAX_HITS_PER_MARK):
        position = text.find(mark, position + 1)
        if position < 0:
            return
        index = bisect.bisect_right(starts, position) - 1
        yield index, position - starts[index]


def _windows(lines: Sequence[str], index: int, column: int) -> tuple[str, str, str]:
    line = lines[index][max(0, column - MAX_BEFORE) : column + MAX_BEHIND]
    # Below the source that a traceback shows, Python 3.11 and newer mark with ^^^^ what of it ran.
    start = index - 2 if index > 1 and not lines[index - 1].strip(" ^~") else index - 1
    above = [line[-MAX_BEFORE:] for line in lines[max(0, start) : index]]
    around = [*above, line, *(line[:MAX_BEFORE] for line in lines[index + 1 : index + 4])]
    return line, "\n".join(around), " ".join(line.strip() for line in around)


def _search(pattern: Optional[re.Pattern[str]], windows: tuple[str, ...]) -> Optional[re.Match[str]]:
    if pattern is None:
        return None
    return next(filter(None, map(pattern.search, windows)), None)
