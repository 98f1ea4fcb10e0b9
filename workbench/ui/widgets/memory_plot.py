"""Memory over something as a plot of blocks: stacked categories, or one quantity that changes its phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from textual.content import Content

from workbench.text import gib
from workbench.ui.widgets.bars import right
from workbench.ui.widgets.memory_bar import CATEGORIES, look_of, painted

AXIS_WIDTH = 8
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_PHASE_STYLES = ("$series-1", "$series-2", "$series-3", "$series-4", "$series-5", "$series-6")
LIMIT = "┄"


@dataclass(frozen=True)
class Scale:
    """The vertical axis: bytes from 0 to `top` over `height` lines, in GiB or MiB."""

    top: int
    height: int

    @property
    def unit(self) -> str:
        return "GiB" if self.top >= 2**30 else "MiB"

    def number(self, size: float) -> str:
        """Bytes in the axis' unit."""
        scaled = size / 2**30 if self.unit == "GiB" else size / 2**20
        return f"{scaled:,.0f}" if scaled >= 100 else f"{scaled:.1f}"

    def row_of(self, size: float) -> int:
        """The line, from the top, that holds a size."""
        return max(0, min(self.height - 1, self.height - 1 - int(size / max(1, self.top) * self.height)))

    def axis(self, row: int, capacity: int = 0) -> Content:
        """The label and the line at the left of a row."""
        if capacity and row == self.row_of(capacity) and capacity <= self.top:
            return Content.assemble(right(self.number(capacity), AXIS_WIDTH - 2, "bold $bad"), (" ┝", "$bad"))
        wanted = {0: self.top, self.height // 2: self.top * (self.height - self.height // 2) / self.height}
        label = self.number(wanted[row]) if row in wanted else ""
        return Content.assemble(right(label, AXIS_WIDTH - 2, "$muted"), (" ┤" if label else " │", "$faint"))

    def floor(self, width: int) -> Content:
        """The line below the plot."""
        return Content.assemble(right("0", AXIS_WIDTH - 2, "$muted"), (" ┼" + "─" * width, "$faint"))


def stacked_plot(points: Sequence[Mapping[str, int]], capacity: int, width: int, height: int) -> list[Content]:
    """Categories piled up over the points, evenly spread, with the capacity as a dashed line.

    Args:
        points: bytes by category.
        capacity: of the GPU; 0 for none. Drawn where the plot reaches it.
        width: of the whole, with the axis.
        height: in lines, with the line at the foot.
    """
    room, lines = max(4, width - AXIS_WIDTH), max(3, height - 1)
    totals = [sum(point.get(name, 0) for name in CATEGORIES) for point in points]
    top = max(*totals, 1) if totals else 1
    if capacity and capacity < 4 * top:
        top = max(top, round(capacity * 1.05))
    scale = Scale(top, lines)
    columns = [_column(points[round(i * (len(points) - 1) / max(1, room - 1))], scale) for i in range(room)]
    limit = scale.row_of(capacity) if capacity and capacity <= top else -1
    drawn = []
    for row in range(lines):
        cells = [column[row] for column in columns]
        if row == limit:
            cells = [_limited(*cell) for cell in cells]
        drawn.append(Content.assemble(scale.axis(row, capacity), painted(cells)))
    return [*drawn, scale.floor(room)]


def _limited(texture: str, style: str) -> tuple[str, str]:
    """A cell on the line of the capacity, which is seen before and behind what is drawn."""
    return (LIMIT, "bold $bad") if texture == " " else (LIMIT, f"bold $background on {style}")


def _column(point: Mapping[str, int], scale: Scale) -> list[tuple[str, str]]:
    """The cells of one column from the top: each is the category at its middle."""
    ends: list[tuple[float, str]] = []
    reached = 0
    for name in CATEGORIES:
        reached += point.get(name, 0)
        ends.append((reached / scale.top * scale.height, name))
    cells = []
    for row in range(scale.height):
        middle = scale.height - row - 0.5
        name = next((name for end, name in ends if middle <= end), "")
        cells.append(look_of(name) if name else (" ", ""))
    return cells


def timeline_plot(
    values: Sequence[int], phases: Sequence[str], capacity: int, width: int, height: int
) -> list[Content]:
    """Live memory as an area, in eighths of a line, with the phases named below; each starts at a line of its own.

    Args:
        values: bytes, in order.
        phases: the phase of each value.
        capacity: of the GPU; 0 for none.
        width: of the whole, with the axis.
        height: in lines, with the two at the foot.
    """
    room, lines = max(8, width - AXIS_WIDTH), max(3, height - 2)
    if not values:
        return []
    edges = [i * len(values) // room for i in range(room + 1)]
    spans = [(edges[i], max(edges[i] + 1, edges[i + 1])) for i in range(room)]
    spans = [(min(start, len(values) - 1), min(end, len(values))) for start, end in spans]
    peaks = [max(values[start : max(start + 1, end)]) for start, end in spans]
    named = [phases[start] for start, _ in spans]
    order = {name: number for number, name in enumerate(dict.fromkeys(phases))}
    top = max(*values, 1)
    if capacity and top < capacity < 1.3 * top:
        top = round(capacity * 1.02)
    scale = Scale(top, lines)
    limit = scale.row_of(capacity) if capacity and capacity <= top else -1
    drawn = []
    for row in range(lines):
        cells = []
        for peak, name in zip(peaks, named, strict=True):
            eighths = round(peak / top * lines * 8) - (lines - 1 - row) * 8
            block = _EIGHTHS[max(0, min(8, eighths))]
            style = _PHASE_STYLES[order[name] % len(_PHASE_STYLES)]
            cells.append(_limited(block, style) if row == limit else (block, style))
        drawn.append(Content.assemble(scale.axis(row, capacity if limit >= 0 else 0), painted(cells)))
    return [*drawn, scale.floor(room), Content.assemble(" " * AXIS_WIDTH, phase_line(named, order))]


def phase_line(named: Sequence[str], order: Mapping[str, int]) -> Content:
    """The phases' names where they begin; one without room for its name keeps its line only."""
    parts: list[tuple[str, str]] = []
    start = 0
    for i in range(1, len(named) + 1):
        if i == len(named) or named[i] != named[start]:
            style = _PHASE_STYLES[order[named[start]] % len(_PHASE_STYLES)]
            space = i - start
            name = named[start]
            text = f"│{name}" if len(name) < space else "│" + name[: space - 2] + "…" if space > 4 else "│"
            parts.append((text[:space].ljust(space), style))
            start = i
    return Content.assemble(*parts)


def x_labels(values: Sequence[int], width: int) -> Content:
    """Powers of two and the ends under their columns, as `stacked_plot` spreads them, as far as there is room."""
    room = max(4, width - AXIS_WIDTH)
    line = [" "] * room
    taken = [False] * (room + 1)
    ends = {0, len(values) - 1}
    wanted = [(i, value) for i, value in enumerate(values) if i in ends or value.bit_count() == 1]
    for i, value in sorted(wanted, key=lambda item: item[0] not in ends):
        text = f"{value:,}"
        at = round(i * (room - 1) / max(1, len(values) - 1))
        start = min(at, room - len(text))
        if not any(taken[max(0, start - 2) : start + len(text) + 2]):
            line[start : start + len(text)] = list(text)
            taken[start : start + len(text)] = [True] * len(text)
    return Content.assemble(" " * AXIS_WIDTH, ("".join(line), "$muted"))


def told(size: float) -> str:
    """Bytes with their unit, as plots and their lines say them."""
    return f"{gib(size)} GiB" if size >= 1000 * 2**20 else f"{size / 2**20:,.1f} MiB"
