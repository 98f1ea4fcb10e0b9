"""A form by keyboard: each field steps with the arrow keys, and a number can be typed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Union

from textual.content import Content
from textual.message import Message

from workbench.ui.widgets.bars import left
from workbench.ui.widgets.row_list import Row
from workbench.ui.widgets.typed_list import TypedList

Value = Union[str, int, bool]
LARGEST = 10**9


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


class Fields(TypedList):
    """Fields, one a row."""

    LONGEST_TYPED = 60
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

    def can_type(self) -> bool:
        return self.field is not None and self.field.typed

    def takes(self, character: str) -> bool:
        return character.isdecimal() or (self.field is not None and self.field.takes_text)

    def take(self, typed: str) -> None:
        field = self.field
        if field is None:
            return
        if field.takes_text:
            self._assign(field, typed)
        elif typed.isascii() and field.least <= int(typed) <= field.most:
            self._assign(field, int(typed))
        else:
            self._refuse(field, typed)

    def submit(self) -> None:
        self.post_message(self.Submitted(self))

    def step(self, direction: int) -> None:
        if self.field and self._means_something(self.field):
            self._assign(self.field, self.field.step(self.values[self.field.id], direction))

    def _refuse(self, field: Field, typed: str) -> None:
        self._refusal = f"only {field.least:,} to {field.most:,}"

    def _assign(self, field: Field, value: Value) -> None:
        self._refusal = ""
        if value != self.values[field.id]:
            self.values[field.id] = value
            self.post_message(self.Changed(self, field.id, value))
            self.refresh()
        self.refresh_line(self.cursor)


def _only(field: Field) -> str:
    return "only with " + " and ".join(str(value) for value in field.only_with[1])
