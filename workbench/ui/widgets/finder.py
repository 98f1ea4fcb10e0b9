"""Finding a row in any list: a line at its foot that takes the cursor to what is typed."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Input

from workbench.ui.widgets.row_list import RowList

AS_WIDE_AS_ANY = 240
"""Rows are read at this width, so that what a narrow screen cuts off is found too."""


class Finder(Input):
    """Arrow keys go to the next or the last row found; enter and escape give the keys back to the list.

    Args:
        listing: whose rows are searched; they all stay in view.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "back to the list", show=False)]

    def __init__(self, listing: RowList) -> None:
        super().__init__(placeholder="Find a row: ↑ ↓ go to the next, enter or escape back to the list")
        self._listing = listing
        self.cursor_blink = False

    def on_mount(self) -> None:
        self.focus()

    def watch_value(self) -> None:
        if self.is_mounted:
            self._go(0)

    def on_key(self, event: events.Key) -> None:
        if event.key in ("up", "down"):
            event.stop()
            event.prevent_default()
            self._go(1 if event.key == "down" else -1)

    def _go(self, step: int) -> None:
        """To the nearest row that holds every word, from the cursor's on, or from beside it on."""
        rows, words = self._listing.rows, self.value.lower().split()
        count = len(rows)
        for distance in range(count if words else 0):
            index = (self._listing.cursor + (step or 1) * (distance + abs(step))) % count
            text = rows[index].content(AS_WIDE_AS_ANY).plain.lower()
            if rows[index].selectable and all(word in text for word in words):
                self._listing.cursor = index
                self.remove_class("-nothing")
                return
        self.set_class(bool(words), "-nothing")

    async def action_submit(self) -> None:
        self.action_leave()

    def action_leave(self) -> None:
        self._listing.focus()
        self.remove()


def find_in(listing: RowList) -> None:
    """Open the line below a list, or go back to it."""
    for open_already in listing.screen.query(Finder):
        open_already.focus()
        return
    place = listing.parent
    if isinstance(place, Widget):
        place.mount(Finder(listing), after=listing)
