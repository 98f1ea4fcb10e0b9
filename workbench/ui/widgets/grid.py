"""A table of cells with a cursor, each cell shaded by its value: heat maps, similarities, the logit lens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.strip import Strip
from textual.visual import Visual
from textual.widget import Widget

from workbench.ui.widgets.bars import left
from workbench.ui.widgets.heat import Heat, heat_of, level, shade_of

HERE = "bold $on-accent on $accent"
LABEL_WIDTH = 12
LEAST_CELL = 2
NOTE_WIDTH, MOST_WIDTH = 6, 8


@dataclass(frozen=True)
class Cells:
    """What a grid shows.

    Attributes:
        rows: labels of the rows; their number is that of the rows.
        columns: labels of the columns.
        value: shade of a cell, 0 to 1, by row and column.
        text: what stands in a cell; None for cells of shade alone, which may be drawn two rows a line.
        cell_width: columns of the terminal for a cell with text.
        note: a few characters for cells without text where they are wide enough.
    """

    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    value: Callable[[int, int], float] = field(default=lambda row, column: 0.0)
    text: Callable[[int, int], str] | None = None
    cell_width: int = LEAST_CELL
    note: Callable[[int, int], str] | None = None


class Grid(Widget, can_focus=True):
    """Cells with labels. Arrow keys move over them; what is shown scrolls with the cursor.

    Cells without text get two rows a line in half blocks when they do not fit otherwise.
    """

    DEFAULT_CSS = "Grid { height: 1fr; }"
    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1, 0)", "Row above", show=False),
        Binding("down,j", "move(1, 0)", "Row below", show=False),
        Binding("left,h", "move(0, -1)", "Column before", show=False),
        Binding("right,l", "move(0, 1)", "Next column", show=False),
        Binding("home", "move(0, -100000)", "First column", show=False),
        Binding("end", "move(0, 100000)", "Last column", show=False),
        Binding("g", "move(-100000, 0)", "First row", show=False),
        Binding("G", "move(100000, 0)", "Last row", show=False),
        Binding("enter", "choose", "Choose", show=False),
    ]

    @dataclass
    class Highlighted(Message):
        """The cursor stands on another cell, or the cells were replaced."""

        grid: Grid
        row: int
        column: int

    @dataclass
    class Chosen(Message):
        """Enter, or a click on the cell under the cursor."""

        grid: Grid
        row: int
        column: int

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.cells = Cells()
        self.row = 0
        self.column = 0
        self._first_row = 0
        self._first_column = 0

    def set_cells(self, cells: Cells, row: int | None = None, column: int | None = None) -> None:
        """Replace all cells; the cursor stays where it is unless it is told."""
        self.cells = cells
        self.row = max(0, min(len(cells.rows) - 1, self.row if row is None else row))
        self.column = max(0, min(len(cells.columns) - 1, self.column if column is None else column))
        self._keep_visible()
        self.refresh()
        if cells.rows and cells.columns:
            self.post_message(self.Highlighted(self, self.row, self.column))

    # --- Where things are ----------------------------------------------------------------------------------

    @property
    def _label_width(self) -> int:
        longest = max((Content(label).cell_length for label in self.cells.rows), default=0)
        return min(LABEL_WIDTH, longest)

    @property
    def _room(self) -> int:
        return max(1, self.size.width - self._label_width - 1)

    @property
    def halved(self) -> bool:
        """Whether two rows share a line."""
        fits = len(self.cells.rows) <= self.size.height - 1 and len(self.cells.columns) * LEAST_CELL <= self._room
        return self.cells.text is None and not fits and bool(heat_of(self.app).colors)

    @property
    def _cell_width(self) -> int:
        if self.cells.text is not None:
            return self.cells.cell_width
        if len(self.cells.columns) * LEAST_CELL > self._room or self.halved:
            return 1
        return min(MOST_WIDTH, max(LEAST_CELL, self._room // max(1, len(self.cells.columns))))

    @property
    def _rows_a_line(self) -> int:
        return 2 if self.halved else 1

    @property
    def _shown_rows(self) -> int:
        return max(1, self.size.height - 1) * self._rows_a_line

    @property
    def _shown_columns(self) -> int:
        return max(1, self._room // self._cell_width)

    def _keep_visible(self) -> None:
        step = self._rows_a_line
        last_row = max(0, len(self.cells.rows) - self._shown_rows)
        self._first_row = min(self._first_row, -(-last_row // step) * step)
        if self.row < self._first_row:
            self._first_row = self.row // step * step
        elif self.row >= self._first_row + self._shown_rows:
            self._first_row = -(-(self.row - self._shown_rows + 1) // step) * step
        self._first_column = min(self._first_column, max(0, len(self.cells.columns) - self._shown_columns))
        if self.column < self._first_column:
            self._first_column = self.column
        elif self.column >= self._first_column + self._shown_columns:
            self._first_column = self.column - self._shown_columns + 1

    def on_resize(self) -> None:
        self._keep_visible()
        self.refresh()

    def action_move(self, rows: int, columns: int) -> None:
        row = max(0, min(len(self.cells.rows) - 1, self.row + rows))
        column = max(0, min(len(self.cells.columns) - 1, self.column + columns))
        if (row, column) != (self.row, self.column):
            self.row, self.column = row, column
            self._keep_visible()
            self.refresh()
            self.post_message(self.Highlighted(self, row, column))

    def action_choose(self) -> None:
        if self.cells.rows and self.cells.columns:
            self.post_message(self.Chosen(self, self.row, self.column))

    def on_click(self, event: events.Click) -> None:
        column = (event.x - self._label_width - 1) // self._cell_width + self._first_column
        row = (event.y - 1) * self._rows_a_line + self._first_row
        if 0 <= row < len(self.cells.rows) and 0 <= column < len(self.cells.columns):
            if (row, column) == (self.row, self.column):
                self.action_choose()
            else:
                self.action_move(row - self.row, column - self.column)

    def as_text(self) -> str:
        """All cells as a table with tabs: the texts, or the values where there are none."""
        cells = self.cells
        lines = ["\t".join(["", *cells.columns])]
        for row, label in enumerate(cells.rows):
            texts = [
                cells.text(row, column) if cells.text is not None else f"{cells.value(row, column):.4f}"
                for column in range(len(cells.columns))
            ]
            lines.append("\t".join([label, *texts]))
        return "\n".join(lines)

    # --- Painting ------------------------------------------------------------------------------------------

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width, style = self.size.width, self.visual_style
        row = self._first_row + (y - 1) * self._rows_a_line
        if not self.cells.rows or row >= len(self.cells.rows):
            return Strip.blank(width, style.rich_style)
        content = self._header() if y == 0 else self._line(row)
        strips = Visual.to_strips(self, content.truncate(width), width, 1, style, pad=True)
        return strips[0] if strips else Strip.blank(width, style.rich_style)

    def _columns(self) -> range:
        return range(self._first_column, min(len(self.cells.columns), self._first_column + self._shown_columns))

    def _header(self) -> Content:
        start = " " * (self._label_width + 1)
        width = self._cell_width
        if width < 3:
            place = self.column - self._first_column
            label = Content.styled(f"▾{self.cells.columns[self.column]}", "bold $accent")
            before = max(0, min(place * width, self._room - label.cell_length))
            return Content.assemble(start, " " * before, label)
        labels = [
            left(self.cells.columns[i], width - 1, "bold $accent" if i == self.column else "$muted")
            for i in self._columns()
        ]
        return Content.assemble(start, *(part for label in labels for part in (label, " ")))

    def _line(self, row: int) -> Content:
        heat = heat_of(self.app)
        here = row <= self.row < row + self._rows_a_line
        label = self.cells.rows[self.row if here else row]
        parts = [left(label, self._label_width, "bold $accent" if here else "$muted"), Content(" ")]
        for column in self._columns():
            parts.append(self._halves(heat, row, column) if self.halved else self._cell(heat, row, column))
        return Content.assemble(*parts)

    def _cell(self, heat: Heat, row: int, column: int) -> Content:
        here = (row, column) == (self.row, self.column)
        value, width = self.cells.value(row, column), self._cell_width
        if self.cells.text is None:
            if self.cells.note is not None and width >= NOTE_WIDTH:
                shade = " " if heat.colors else shade_of(value)
                note = f" {self.cells.note(row, column):^{width - 2}}{shade}"
                return Content.styled(note, HERE if here else heat.style(value))
            return left("◆" if width < 3 else " ◆", width, "bold $warn") if here else heat.cell(value, width)
        text = self.cells.text(row, column)
        mark = HERE if here else heat.style(value)
        return Content.styled(left(text, width - 2).plain + level(value) + " ", mark)

    def _halves(self, heat: Heat, row: int, column: int) -> Content:
        values = [self.cells.value(r, column) if r < len(self.cells.rows) else None for r in (row, row + 1)]
        colors = [heat.color(value) if value is not None else "$background" for value in values]
        if column == self.column and row <= self.row <= row + 1:
            colors[self.row - row] = "$warn"
        return Content.styled("▀", f"{colors[0]} on {colors[1]}")
