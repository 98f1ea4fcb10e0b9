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
LONGEST_TYPED = 60


@dataclass(frozen=True)
class Field:
    """One value of a form.

    Attributes:
        id: the name it has in the request that the form makes.
        choices: what it steps through; a number field steps through these and takes any typed number besides.
        words: how choices read, where that differs from their value.
        typed: whether a value can be typed, after enter: a number, or any text where the choices are texts.
        least: the smallest number that is taken when typed.
        most: the largest one.
        help: one line said while the cursor stands on it.
    """

    id: str
    label: str
    choices: tuple[Value, ...]
    help: str = ""
    words: tuple[str, ...] = ()
    typed: bool = False
    least: int = 1
    most: int = LARGEST
    only_with: tuple[str, tuple[Value, ...]] = ("", ())
    """Another field and the values of it with which this one means anything; empty for one that always does."""

    @property
    def takes_text(self) -> bool:
        """Whether what is typed is a text rather than a number."""
        return self.typed and isinstance(self.choices[0], str)

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
        if self.takes_text:
            return self.choices[0 if direction > 0 else -1]
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
        """What was typed so far; None while nothing is being typed."""
        self._refusal = ""
        """Why what was typed last was not taken."""

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
            if not self._means_something(field):
                value = Content.styled(f"  – {_only(field)}", "$muted")
            refusal = (f"✖ {self._refusal}", "$bad") if here and self._refusal else ""
            return Content.assemble(" ", left(field.label, self.LABEL_WIDTH, "" if here else "$muted"), value, refusal)

        return line

    def _means_something(self, field: Field) -> bool:
        other, values = field.only_with
        return not other or self.values[other] in values

    @property
    def field(self) -> Field | None:
        """The field under the cursor."""
        return self.row.data if self.row else None

    def watch_cursor(self, old: int, new: int) -> None:
        self._typing, self._refusal = None, ""
        super().watch_cursor(old, new)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("revert", "backspace"):
            return self._typing is not None
        return True

    def on_key(self, event: events.Key) -> None:
        character = event.character or ""
        text = self.field is not None and self.field.takes_text
        if self._typing is not None and (character.isprintable() if text else character.isdecimal()) and character:
            # Before the bindings see it: while a value is typed, digits do not switch benches.
            event.stop()
            event.prevent_default()
            self._typing = (self._typing + character)[:LONGEST_TYPED]
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
                self._typing, self._refusal = "", ""
                self.refresh_line(self.cursor)
            else:
                self.post_message(self.Submitted(self))
            return
        typed, self._typing = self._typing, None
        if field and typed.strip():
            self._take(field, typed.strip())
        self.refresh_line(self.cursor)

    def _take(self, field: Field, typed: str) -> None:
        if field.takes_text:
            self._assign(field, typed)
        elif typed.isascii() and field.least <= int(typed) <= field.most:
            self._assign(field, int(typed))
        else:
            self._refusal = f"only {field.least:,} to {field.most:,}"

    def action_step(self, direction: int) -> None:
        if self._typing is not None:
            self.action_commit()
        elif self.field and self._means_something(self.field):
            self._assign(self.field, self.field.step(self.values[self.field.id], direction))

    def _assign(self, field: Field, value: Value) -> None:
        self._refusal = ""
        if value != self.values[field.id]:
            self.values[field.id] = value
            self.post_message(self.Changed(self, field.id, value))
            self.refresh()
        self.refresh_line(self.cursor)


def _only(field: Field) -> str:
    return "only with " + " and ".join(str(value) for value in field.only_with[1])
