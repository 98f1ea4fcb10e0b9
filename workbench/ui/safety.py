"""The last gate before the terminal: no control character leaves the app inside a cell."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from workbench.text import UNSAFE, without_piles

# A tab or a newline inside a cell would move everything behind it.
_UNSAFE = re.compile(f"[\t\n]|{UNSAFE.pattern}")


def _stand_in(match: re.Match[str]) -> str:
    # A stand-in as wide as Textual believed the character to be keeps the rest of the row in its columns.
    return "\ufffd" * cell_len(match.group())


class ControlCharacterFilter(LineFilter):
    """Takes control and reordering characters out of every line that is painted.

    Text from the session is cleaned when it is decoded; this catches what came another way: typed, pasted, or
    read from a file by the app itself.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [_safe(segment) for segment in segments]


def _safe(segment: Segment) -> Segment:
    text = segment.text
    if segment.control or (text.isascii() and text.isprintable()):
        return segment
    return Segment(without_piles(_UNSAFE.sub(_stand_in, text)), segment.style)


# One for all: Textual remembers the filtered form of each line by the filter itself.
_FILTER = ControlCharacterFilter()


def with_control_filter(filters: Sequence[LineFilter]) -> Sequence[LineFilter]:
    """`filters` with the control character filter behind them."""
    return [*filters, _FILTER]
