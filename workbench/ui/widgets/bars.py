"""Bars and columns as styled text. A bar never stands without its number; that is the caller's part."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from textual.content import Content

FULL, EMPTY = "━", "─"
_STACK = "█▓▒░▚▞"
"""One texture for each part, so that parts stay apart without colour."""


def bar(fraction: float, width: int, style: str = "$accent") -> Content:
    """A bar of `width` cells; a fraction above 0 shows at least one filled cell."""
    fraction = min(1.0, max(0.0, fraction))
    filled = round(fraction * width)
    if fraction > 0:
        filled = max(1, filled)
    return Content.assemble((FULL * filled, style), (EMPTY * (width - filled), "$faint"))


_LEVELS = "▁▂▃▄▅▆▇█"


def sparkline(percents: Sequence[int], width: int, style: str = "$accent") -> Content:
    """Readings in percent, the newest at the right; where there are more than cells, each cell is a mean."""
    count = len(percents)
    if count > width:
        edges = [round(i * count / width) for i in range(width + 1)]
        percents = [round(sum(percents[start:end]) / (end - start)) for start, end in pairwise(edges)]
    marks = "".join(_LEVELS[min(7, max(0, percent * 8 // 100))] for percent in percents)
    return Content.styled(" " * (width - len(marks)) + marks, style)


def stacked_bar(parts: Sequence[int], capacity: int, width: int) -> Content:
    """Parts of a whole side by side in series colours and textures, up to `capacity` or to their sum if larger."""
    whole = max(capacity, sum(parts), 1)
    cells: list[Content | tuple[str, str]] = []
    used = position = 0
    for i, part in enumerate(parts):
        position += part
        end = round(position / whole * width)
        if part and end == used and used < width:
            end += 1
        cells.append((_STACK[i % len(_STACK)] * (end - used), series_style(i)))
        used = max(used, end)
    limit = round(capacity / whole * width)
    rest = "·" * (width - used)
    if used < limit:
        cells.append((rest, "$faint"))
    return Content.assemble(*cells)


def legend_mark(index: int) -> Content:
    """The texture and colour of one part, to stand beside its name."""
    return Content.styled(_STACK[index % len(_STACK)] * 2, series_style(index))


def series_style(index: int) -> str:
    """The colour of one part of a whole."""
    return f"$series-{index % 6 + 1}"


def left(text: str, width: int, style: str = "") -> Content:
    """`text` as a left-aligned column, cut with an ellipsis."""
    return Content.styled(text, style).truncate(width, ellipsis=True, pad=True) if width > 0 else Content("")


def right(text: str, width: int, style: str = "") -> Content:
    """`text` as a right-aligned column; too long a number is never cut."""
    content = Content.styled(text, style)
    return content.pad_left(max(0, width - content.cell_length))
