"""The last gate before the terminal: no control character leaves the app inside a cell."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def _stand_in(match: re.Match[str]) -> str:
    # A stand-in as wide as Textual believed the character to be keeps the rest of the row in its columns.
    return "\ufffd" * cell_len(match.group())


class ControlCharacterFilter(LineFilter):
    """Takes control and reordering characters out of every line that is painted.

    Text from the session is cleaned when it is decoded; this catches what came another way: typed, pasted, or
    read from a file by the app itself.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        if not any(not segment.control and _UNSAFE.search(segment.text) for segment in segments):
            return segments
        return [
            segment if segment.control else Segment(_UNSAFE.sub(_stand_in, segment.text), segment.style)
            for segment in segments
        ]


def with_control_filter(filters: Sequence[LineFilter]) -> Sequence[LineFilter]:
    """`filters` with the control character filter behind them."""
    return [*filters, ControlCharacterFilter()]
