"""Rows with a value each: stepped with the arrow keys, typed after enter. What is taken, a subclass decides."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType

from workbench.ui.widgets.row_list import RowList


class TypedList(RowList):
    """Holds what is being typed into the row under the cursor, and why the last of it was not taken."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,space", "step(1)", "Larger, or the next choice", show=False),
        Binding("left", "step(-1)", "Smaller, or the choice before", show=False),
        Binding("enter", "commit", "Type a value, take it", show=False),
        Binding("escape", "revert", "Leave what was typed", show=False),
        Binding("backspace", "backspace", "Delete a character", show=False),
    ]
    LONGEST_TYPED: ClassVar[int] = 200

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._typing: str | None = None
        self._refusal = ""

    def can_type(self) -> bool:
        """Whether a value can be typed into the row under the cursor."""
        raise NotImplementedError

    def take(self, typed: str) -> None:
        """Take a value as it was typed, without spaces around it; sets the refusal where it is none."""
        raise NotImplementedError

    def step(self, direction: int) -> None:
        """Go to the next value in a direction."""
        raise NotImplementedError

    def submit(self) -> None:
        """Enter, on a row that nothing can be typed into."""

    @property
    def typing(self) -> bool:
        """Whether a value is being typed."""
        return self._typing is not None

    def watch_cursor(self, old: int, new: int) -> None:
        self._typing, self._refusal = None, ""
        super().watch_cursor(old, new)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("revert", "backspace"):
            return self.typing
        return True

    def on_key(self, event: events.Key) -> None:
        # Here rather than by the bindings, which come after a key that is typed quickly; digits switch benches there.
        if event.key == "enter" and (self.typing or self.can_type()):
            self.action_commit()
        elif self._typing is None:
            return
        elif event.key == "backspace":
            self.action_backspace()
        elif event.character and event.character.isprintable():
            self._typing = (self._typing + event.character)[: self.LONGEST_TYPED]
            self.refresh_line(self.cursor)
        else:
            return
        event.stop()
        event.prevent_default()

    def action_backspace(self) -> None:
        self._typing = (self._typing or "")[:-1]
        self.refresh_line(self.cursor)

    def action_revert(self) -> None:
        self._typing = None
        self.refresh_line(self.cursor)

    def action_commit(self) -> None:
        if self._typing is not None:
            typed, self._typing = self._typing.strip(), None
            if typed:
                self.take(typed)
        elif self.can_type():
            self._typing, self._refusal = "", ""
        else:
            self.submit()
        self.refresh_line(self.cursor)

    def action_step(self, direction: int) -> None:
        if self.typing:
            self.action_commit()
        else:
            self.step(direction)
