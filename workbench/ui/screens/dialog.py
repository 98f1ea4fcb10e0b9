"""A box over the main screen that escape closes."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from textual.await_complete import AwaitComplete
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Input

from workbench.ui.widgets.finder import find_in
from workbench.ui.widgets.row_list import RowList

T = TypeVar("T")
COPIED_WIDTH = 120


class Dialog(ModalScreen[T | None], Generic[T]):
    """Base of the house's modal screens."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close", show=False),
        Binding("slash", "find_row", "Find in the list", show=False),
        Binding("y", "copy_rows", "Copy the list", show=False),
    ]

    def __init__(self, id: str) -> None:
        super().__init__(id=id, classes="dialog")

    def dismiss(self, result: T | None = None) -> AwaitComplete:
        """Give the result and close, once: a key that came twice in one burst would close what lies beneath."""
        return super().dismiss(result) if self.is_current else AwaitComplete()

    def on_screen_suspend(self) -> None:
        """Let go of the painted lines: Textual 8.2 keeps those of 1,024 widgets whose screens are long gone."""
        # In the keys of StylesCache.get_inner_outer, a method cached by its instance; a refresh empties it.
        for widget in self.walk_children():
            widget.refresh()

    def action_close(self) -> None:
        self.dismiss(None)

    @property
    def list_shown(self) -> RowList | None:
        """The list that has the focus, else the first one shown."""
        if isinstance(self.focused, RowList):
            return self.focused
        return next((listing for listing in self.query(RowList) if listing.display), None)

    def action_find_row(self) -> None:
        """Go to a row by what it says; with a search of the screen's own, into that."""
        for field in self.query(Input):
            if field.display:
                field.focus()
                return
        if self.list_shown is not None:
            find_in(self.list_shown)

    def action_copy_rows(self) -> None:
        """Copy the rows of the list as they read."""
        if self.list_shown is not None and self.list_shown.rows:
            text = "\n".join(row.content(COPIED_WIDTH).plain.rstrip() for row in self.list_shown.rows)
            self.app.copy_to_clipboard(text)
            self.notify(f"Sent to the terminal's clipboard: {len(self.list_shown.rows):,} rows.", markup=False)
