"""Facts of a few words side by side, one of them under a cursor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.widget import Widget

PLAIN, HERE = "$on-panel on $panel", "bold $on-accent on $accent"
REST = "more"
"""Key of the chip that stands for those without room."""


class Chips(Widget, can_focus=True):
    """Chips in at most `lines` lines; what has no room is counted in a last one. The arrow keys move, enter chooses."""

    DEFAULT_CSS = "Chips { height: auto; width: 1fr; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "move(-1)", "Previous", show=False),
        Binding("right,l", "move(1)", "Next", show=False),
        Binding("home", "move(-1000)", "First", show=False),
        Binding("end", "move(1000)", "Last", show=False),
        Binding("enter,space", "choose", "Explain", show=False),
    ]

    @dataclass
    class Chosen(Message):
        """Enter, or a click: this fact is to be explained."""

        chips: Chips
        key: str
        """`REST` for the chip that counts the others."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._chips: tuple[tuple[str, str], ...] = ()
        self.lines = 1
        self.cursor = 0

    def set_chips(self, chips: Sequence[tuple[str, str]], lines: int) -> None:
        """Show these (key, text) in at most so many lines."""
        if (tuple(chips), lines) != (self._chips, self.lines):
            self._chips, self.lines, self.cursor = tuple(chips), lines, 0
            self.display = bool(chips)
            self.refresh(layout=True)

    def rows(self, width: int) -> list[list[tuple[str, str]]]:
        """The chips line by line at this width."""
        for shown in range(len(self._chips), -1, -1):
            left_out = len(self._chips) - shown
            rest = [(REST, f"{left_out} more")] if left_out else []
            rows = _broken([*self._chips[:shown], *rest], width)
            if len(rows) <= self.lines or not shown:
                return rows
        return []

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self.rows(width))

    def render(self) -> Content:
        lines, index = [], 0
        for row in self.rows(self.size.width):
            parts = []
            for _, text in row:
                here = self.has_focus and index == self.cursor
                parts.append(Content.styled(f" {text} ", HERE if here else PLAIN))
                index += 1
            lines.append(Content(" ").join(parts))
        return Content("\n").join(lines)

    @property
    def _flat(self) -> list[tuple[str, str]]:
        return [chip for row in self.rows(self.size.width) for chip in row]

    def action_move(self, step: int) -> None:
        self.cursor = max(0, min(len(self._flat) - 1, self.cursor + step))
        self.refresh()

    def action_choose(self) -> None:
        chips = self._flat
        if self.cursor < len(chips):
            self.post_message(self.Chosen(self, chips[self.cursor][0]))

    def on_click(self, event: events.Click) -> None:
        rows = self.rows(self.size.width)
        if not 0 <= event.y < len(rows):
            return
        index, x = sum(len(row) for row in rows[: event.y]), 0
        for _, text in rows[event.y]:
            x += len(text) + 3
            if event.x < x:
                self.cursor = index
                self.action_choose()
                return
            index += 1


def _broken(chips: Sequence[tuple[str, str]], width: int) -> list[list[tuple[str, str]]]:
    rows: list[list[tuple[str, str]]] = []
    used = 0
    for key, text in chips:
        text = Content(text).truncate(max(1, width - 2), ellipsis=True).plain
        cells = Content(text).cell_length + 2
        if rows and used + 1 + cells <= width:
            rows[-1].append((key, text))
            used += 1 + cells
        else:
            rows.append([(key, text)])
            used = cells
    return rows
