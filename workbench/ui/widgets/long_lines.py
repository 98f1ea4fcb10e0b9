"""A text area's lines of many thousand characters, which Textual wraps and divides whole for each key and each row."""

from __future__ import annotations

import contextlib
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import cast

from rich.containers import Lines
from rich.text import Text
from textual._wrap import compute_wrap_offsets
from textual.document._document import Location
from textual.document._wrapped_document import WrappedDocument

LONG_CHARACTERS = 2_000
_CHUNK = re.compile(r"\S+\s*|\s+")
_STRETCH_CHARACTERS = 1_000


def rewrapped(line: str, old: list[int], start: int, end: int, shift: int, width: int) -> list[int]:
    """Where a line without tabs is broken after an edit, at the price of the edit.

    A break depends on nothing before the last break, so those well before the edit stay, and so do all after the first
    new one that is at a place where there was one.

    Args:
        line: as it is now.
        old: where it was broken before the edit.
        start: of the edit.
        end: of what the edit put in; from here on the line is as it was.
        shift: by how much the edit moved what follows.
        width: in cells.
    """
    kept = bisect_left(old, start)
    while kept and not _is_whole(line, old[kept - 1], start):
        kept -= 1
    begin = old[kept - 1] if kept else 0
    before, places = old[:kept], {offset + shift: index for index, offset in enumerate(old)}
    size = _STRETCH_CHARACTERS + max(0, end - start)
    while begin + size < len(line):
        stretch = line[begin : begin + size]
        breaks = [begin + offset for offset in compute_wrap_offsets(stretch, width, 4)]
        # The last words of the stretch may go on behind it.
        known = breaks[: bisect_left(breaks, begin + len(stretch.rstrip().rpartition(" ")[0]))]
        for number, place in enumerate(known):
            if place >= end and place in places:
                return [*before, *known[:number], *(offset + shift for offset in old[places[place] :])]
        size *= 4
    return [*before, *(begin + offset for offset in compute_wrap_offsets(line[begin:], width, 4))]


def _is_whole(line: str, place: int, start: int) -> bool:
    """Whether the word at a break, with the white space behind it, ends before the edit."""
    word = _CHUNK.match(line, place)
    return word is not None and word.end() < start


class LongLineDocument(WrappedDocument):
    """A wrapped document in which an edit costs as much in a long line as in a short one."""

    _one_edit = False

    @contextlib.contextmanager
    def one_edit(self) -> Iterator[None]:
        """What is wrapped within is a single edit; the ranges of several undone at once do not tell where they were."""
        self._one_edit = True
        try:
            yield
        finally:
            self._one_edit = False

    def wrap_range(self, start: Location, old_end: Location, new_end: Location) -> None:
        row = start[0]
        if (
            self._one_edit
            and start[0] == old_end[0] == new_end[0]
            and self._width
            and self._tab_width_cache[row] == [0]
        ):
            line = self.document.get_line(row)
            if len(line) >= LONG_CHARACTERS and "\t" not in line:
                old = self._wrap_offsets[row]
                first = min(start[1], old_end[1])
                shift = new_end[1] - max(start[1], old_end[1])
                found = rewrapped(line, old, first, max(first, new_end[1]), shift, self._width)
                if len(found) == len(old):
                    self._wrap_offsets[row] = found
                    return
        super().wrap_range(start, old_end, new_end)

    def get_sections(self, line_index: int) -> list[str]:
        line = self.document.get_line(line_index)
        places = [0, *self._wrap_offsets[line_index], len(line)]
        return [line[start:end] for start, end in pairwise(places)]


class LongLine(Text):
    """A line of which a single section is drawn."""

    def divide(self, offsets: Iterable[int]) -> Lines:
        return cast(Lines, _Sections(self, [0, *offsets, len(self.plain)]))


class _Sections:
    """The sections of a line without tabs: the first that is asked for, which is drawn, and nothing for the others.

    The text area only counts the tabs of the others.
    """

    def __init__(self, line: LongLine, places: list[int]) -> None:
        self._line = line
        self._places = places
        self._drawn = -1

    def __getitem__(self, index: int) -> Text:
        if self._drawn >= 0:
            return _NO_TABS
        self._drawn = index
        start, end = self._places[index], self._places[index + 1]
        section = Text(self._line.plain[start:end], style=self._line.style, end="", tab_size=self._line.tab_size)
        for span in self._line.spans:
            if span.start < end and span.end > start:
                section.stylize(span.style, max(0, span.start - start), min(end, span.end) - start)
        return section


_NO_TABS = Text()
