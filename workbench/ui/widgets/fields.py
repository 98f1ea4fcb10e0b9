"""A form by keyboard: each field steps with the arrow keys, and a number can be typed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Union

from textual.content import Content
from textual.message import Message

from workbench.ui.widgets.bars import left
from workbench.ui.widgets.row_list import Row
from workbench.ui.widgets.typed_list import TypedList

Value = Union[str, int, bool, float]
LARGEST = 10**9
_TYPED_NUMBER = re.compile(r"(\d{1,60}(?:\.\d{1,20})?)(?:e\+?(\d\d?))?\s*([kmgb]?)", re.ASCII | re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "b": 3}


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
        fractions: whether a number need not be whole.
        kilo: what a typed ``k`` stands for; ``M`` is its square, ``G`` and ``B`` its cube.
        help: one line said while the cursor stands on it.
    """

    id: str
    label: str
    choices: tuple[Value, ...]
    help: str = ""
    words: tuple[str, ...] = ()
    typed: bool = False
    least: float = 1
    most: float = LARGEST
    fractions: bool = False
    kilo: int = 1000
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
        larger = [choice for choice in self.choices if float(choice) > float(value)]
        smaller = [choice for choice in self.choices if float(choice) < float(value)]
        if direction > 0:
            return larger[0] if larger else self.choices[-1]
        return smaller[-1] if smaller else self.choices[0]

    def read(self, typed: str) -> Union[int, float]:
        """The number that was typed: ``2048``, ``2,048``, ``128k``, ``1.5M``, ``1e6``.

        Raises:
            ValueError: saying in words why it is none that this field takes.
        """
        found = _TYPED_NUMBER.fullmatch(typed.replace(",", "").replace("_", ""))
        if found is None:
            raise ValueError(f"{typed} is no number: type one such as {'0.5' if self.fractions else '4096 or 4k'}.")
        digits, exponent, unit = found.groups()
        number = Decimal(digits) * 10 ** int(exponent or 0) * self.kilo ** _POWERS[unit.lower()]
        if not self.fractions and number != int(number):
            raise ValueError(f"{typed} is no whole number.")
        if not self.least <= number <= self.most:
            raise ValueError(f"{typed} is out of range: {self.least:,} to {self.most:,}.")
        return int(number) if number == int(number) else float(number)


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

    def take(self, typed: str) -> None:
        field = self.field
        if field is None:
            return
        if field.takes_text:
            self._assign(field, typed)
            return
        try:
            number = field.read(typed)
        except ValueError as error:
            self._refuse(field, str(error))
        else:
            self._assign(field, number)

    def submit(self) -> None:
        self.post_message(self.Submitted(self))

    def step(self, direction: int) -> None:
        if self.field and self._means_something(self.field):
            self._assign(self.field, self.field.step(self.values[self.field.id], direction))

    def _refuse(self, field: Field, reason: str) -> None:
        self._refusal = reason

    def _assign(self, field: Field, value: Value) -> None:
        self._refusal = ""
        if value != self.values[field.id]:
            self.values[field.id] = value
            self.post_message(self.Changed(self, field.id, value))
            self.refresh()
        self.refresh_line(self.cursor)


def _only(field: Field) -> str:
    return "only with " + " and ".join(str(value) for value in field.only_with[1])
