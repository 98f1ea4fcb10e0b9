"""A form by keyboard: each field steps with the arrow keys, and a number can be typed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Union

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message

from workbench.ui.widgets.bars import left
from workbench.ui.widgets.row_list import Row, RowList

Value = Union[str, int, bool]
LARGEST = 10**9


@dataclass(frozen=True)
class Field:
    """One value of a form.

    Attributes:
        id: the name it has in the request that the form makes.
        choices: what it steps through; a number field steps through these and takes any typed number besides.
        words: how choices read, where that differs from their value.
        typed: whether a number can be typed, after enter.
        help: one line said while the cursor stands on it.
    """

    id: str
    label: str
    choices: tuple[Value, ...]
    help: str = ""
    words: tuple[str, ...] = ()
    typed: bool = False
    least: int = 1

    def show(self, value: Value) -> str:
        """The value in words."""
        if value in self.choices and self.words:
            return self.words[self.choices.index(value)]
        if isinstance(value, bool):
            return "on" if value else "off"
        return f"{value:,}" if isinstance(value, int) else str(value)

    def step(self, value: Value, direction: int) -> Value:
        """The next choice in a direction; a typed number goes to its nearest neighbour."""
        if value in self.choices:
            index = self.choices.index(value) + direction
            if not self.typed:
                index %= len(self.choices)
            return self.choices[max(0, min(len(self.choices) - 1, index))]
        larger = [choice for choice in self.choices if int(choice) > int(value)]
        smaller = [choice for choice in self.choices if int(choice) < int(value)]
        if direction > 0:
            return larger[0] if larger else self.choices[-1]
        return smaller[-1] if smaller else self.choices[0]


class Fields(RowList):
    """Fields, one a row."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,space", "step(1)", "Next", show=False),
        Binding("left", "step(-1)", "Previous", show=False),
        Binding("enter", "commit", "Take", show=False),
        Binding("escape", "revert", "Undo typing", show=False),
        Binding("backspace", "backspace", "Delete digit", show=False),
    ]
    LABEL_WIDTH = 15

    @dataclass
    class Changed(Message):
        """A field has a new value."""

        fields: Fields
        field: str
        value: Value

    @dataclass
    class Submitted(Message):
        """Enter, with nothing half typed."""

        fields: Fields

    def __init__(self, fields: Sequence[Field], values: dict[str, Value], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.fields = tuple(fields)
        self.values = dict(values)
        self._typing: str | None = None
        """Digits typed so far; None while nothing is being typed."""

    def on_mount(self) -> None:
        self.set_rows(Row(field.id, self._line_of(field), field) for field in self.fields)

    def set_value(self, field_id: str, value: Value) -> None:
        """Change a field from outside; nothing is announced."""
        self.values[field_id] = value
        self.refresh()

    def _line_of(self, field: Field) -> Callable[[int], Content]:
        def line(width: int) -> Content:
            here = self.row is not None and self.row.key == field.id
            typing = here and self._typing is not None
            shown = f"{self._typing}▏" if typing else field.show(self.values[field.id])
            marks = ("◂ ", " ▸") if here and not typing else ("  ", "  ")
            value = Content.assemble((marks[0], "$accent"), (shown, "bold"), (marks[1], "$accent"))
            return Content.assemble(" ", left(field.label, self.LABEL_WIDTH, "" if here else "$muted"), value)

        return line

    @property
    def field(self) -> Field | None:
        """The field under the cursor."""
        return self.row.data if self.row else None

    def watch_cursor(self, old: int, new: int) -> None:
        self._typing = None
        super().watch_cursor(old, new)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("revert", "backspace"):
            return self._typing is not None
        return True

    def on_key(self, event: events.Key) -> None:
        character = event.character or ""
        if self._typing is not None and character.isdecimal() and character.isascii():
            # Before the bindings see it: while a number is typed, digits do not switch benches.
            event.stop()
            event.prevent_default()
            self._typing = (self._typing + character)[:9]
            self.refresh_line(self.cursor)

    def action_backspace(self) -> None:
        self._typing = (self._typing or "")[:-1]
        self.refresh_line(self.cursor)

    def action_revert(self) -> None:
        self._typing = None
        self.refresh_line(self.cursor)

    def action_commit(self) -> None:
        field = self.field
        if self._typing is None:
            if field and field.typed:
                self._typing = ""
                self.refresh_line(self.cursor)
            else:
                self.post_message(self.Submitted(self))
            return
        typed, self._typing = self._typing, None
        if field and typed:
            self._assign(field, max(field.least, min(LARGEST, int(typed))))
        self.refresh_line(self.cursor)

    def action_step(self, direction: int) -> None:
        if self._typing is not None:
            self.action_commit()
        elif self.field:
            self._assign(self.field, self.field.step(self.values[self.field.id], direction))

    def _assign(self, field: Field, value: Value) -> None:
        if value != self.values[field.id]:
            self.values[field.id] = value
            self.post_message(self.Changed(self, field.id, value))
        self.refresh_line(self.cursor)
