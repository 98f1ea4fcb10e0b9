"""A list of one-line rows with a cursor. Only visible rows are rendered, so ten thousand cost what ten do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.style import Style

from workbench.ui.widgets.cursor_view import CursorView
from workbench.ui.widgets.one_line import changed_cells


@dataclass(frozen=True)
class Row:
    """One row: its identity, what to show at a width, and what it stands for."""

    key: str
    line: Content | Callable[[int], Content]
    data: Any = None
    selectable: bool = True

    def content(self, width: int) -> Content:
        """The row at this width, unwrapped."""
        return self.line if isinstance(self.line, Content) else self.line(width)


def heading(text: str) -> Row:
    """A row that names the section below it."""
    return Row(f"heading:{text}", Content.styled(text, "bold $muted"), selectable=False)


def gap(key: str) -> Row:
    """An empty row between sections."""
    return Row(f"gap:{key}", Content(""), selectable=False)


class RowList(CursorView):
    """Rows with a cursor that keeps its row, by key, when the rows are replaced."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"row-list--cursor", "row-list--cursor-blurred"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "cursor(-1)", "Up", show=False, id="list-up"),
        Binding("down,j", "cursor(1)", "Down", show=False, id="list-down"),
    ]

    @dataclass
    class Highlighted(Message):
        """The cursor stands on another row, or its row was replaced."""

        list: RowList
        row: Row

        @property
        def control(self) -> RowList:
            return self.list

    @dataclass
    class Chosen(Message):
        """Enter, or a click on the row under the cursor."""

        list: RowList
        row: Row

        @property
        def control(self) -> RowList:
            return self.list

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._rows: list[Row] = []

    @property
    def rows(self) -> list[Row]:
        """The rows as set last."""
        return self._rows

    @property
    def row(self) -> Row | None:
        """The row under the cursor, if it can be chosen."""
        if 0 <= self.cursor < len(self._rows) and self._rows[self.cursor].selectable:
            return self._rows[self.cursor]
        return None

    def set_rows(self, rows: Iterable[Row], cursor_key: str | None = None) -> None:
        """Replace all rows; the cursor goes to `cursor_key`, else stays on its row, else near where it was."""
        wanted = cursor_key or (self._rows[self.cursor].key if 0 <= self.cursor < len(self._rows) else None)
        self._rows = list(rows)
        self.virtual_size = Size(0, len(self._rows))
        index = next((i for i, row in enumerate(self._rows) if row.key == wanted and row.selectable), None)
        if index is None:
            index = self._nearest(min(self.cursor, max(0, len(self._rows) - 1)))
        self.set_reactive(RowList.cursor, index)
        self.refresh()
        self.call_after_refresh(self.keep_visible)
        self.announce()

    def replace_row(self, row: Row) -> None:
        """Show a row anew under its key, painting no more cells than changed: for rows that live."""
        width = self.scrollable_content_region.width
        for index, old in enumerate(self._rows):
            if old.key == row.key:
                self._rows[index] = row
                before, after = (item.content(width).truncate(width, ellipsis=True) for item in (old, row))
                if not before.is_same(after):
                    start, end = changed_cells(before, after, width)
                    self.refresh(Region(start, index - self.scroll_offset.y, max(1, end - start), 1))
                return

    def move_to(self, key: str) -> None:
        """Put the cursor on the row with this key, if it is there."""
        for i, row in enumerate(self._rows):
            if row.key == key and row.selectable:
                self.cursor = i
                return

    def _nearest(self, index: int) -> int:
        for distance in range(len(self._rows)):
            for candidate in (index + distance, index - distance):
                if 0 <= candidate < len(self._rows) and self._rows[candidate].selectable:
                    return candidate
        return 0

    def announce(self) -> None:
        if self.row is not None:
            self.post_message(self.Highlighted(self, self.row))

    def repaint_item(self, index: int) -> None:
        self.refresh_line(index)

    def cursor_lines(self) -> tuple[int, int] | None:
        first = self.cursor
        # The heading above the first row comes into view with it.
        while first > 0 and not self._rows[first - 1].selectable and self.cursor - first < 2:
            first -= 1
        return first, self.cursor

    def item_at(self, line: int, column: int) -> int | None:
        return line if 0 <= line < len(self._rows) and self._rows[line].selectable else None

    def action_cursor(self, step: int) -> None:
        index = self.cursor + step
        while 0 <= index < len(self._rows) and not self._rows[index].selectable:
            index += step
        if 0 <= index < len(self._rows):
            self.cursor = index
        elif step < 0:
            self.scroll_to(y=0, animate=False)

    def action_page(self, step: int) -> None:
        index = self.cursor + step * max(1, self.size.height - 1)
        self.cursor = self._nearest(max(0, min(len(self._rows) - 1, index)))

    def steer(self, event: events.Key) -> None:
        """Move by the arrow and page keys of a search field that keeps the focus."""
        if event.key not in ("up", "down", "pageup", "pagedown") or self.has_focus:
            return
        event.stop()
        event.prevent_default()
        step = -1 if event.key.endswith("up") else 1
        (self.action_page if event.key.startswith("page") else self.action_cursor)(step)

    def action_edge(self, step: int) -> None:
        self.cursor = self._nearest(0 if step < 0 else len(self._rows) - 1)

    def action_choose(self) -> None:
        if self.row is not None:
            self.post_message(self.Chosen(self, self.row))

    def line_at(self, line: int) -> tuple[Content, Style] | None:
        if line >= len(self._rows):
            return None
        row = self._rows[line]
        style = self.visual_style
        if line == self.cursor and row.selectable:
            name = "row-list--cursor" if self.has_focus else "row-list--cursor-blurred"
            style = self.get_visual_style(name)
        width = self.scrollable_content_region.width
        return row.content(width).truncate(width, ellipsis=True), style
