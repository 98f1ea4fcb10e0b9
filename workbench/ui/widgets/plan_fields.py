"""Fields whose values somebody else decides: each step or typed value is tried, and refused with a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from textual.content import Content
from textual.message import Message

from workbench.ui.widgets.bars import left
from workbench.ui.widgets.fields import Field, Fields, Value
from workbench.ui.widgets.row_list import Row

Try = Callable[[str, Value], str]
"""Takes a field and a value; gives why it is refused, or an empty string when it was taken."""


class PlanFields(Fields):
    """Fields that come and go; `attempt` decides what is taken. Steps go past values that are refused."""

    LABEL_WIDTH = 13

    @dataclass
    class Told(Message):
        """Why a value was refused or stepped over; empty when there is nothing to say any more."""

        fields: PlanFields
        field: str
        reason: str

    def __init__(self, attempt: Try, *, id: str | None = None) -> None:
        super().__init__((), {}, id=id)
        self.attempt = attempt
        self.notes: Mapping[str, str] = {}
        self.wrong = ""

    def show_fields(
        self, fields: Sequence[Field], values: dict[str, Value], notes: Mapping[str, str], wrong: str = ""
    ) -> None:
        """Show these fields.

        Args:
            fields: in order.
            values: by field.
            notes: a few words beside a value.
            wrong: the field that something speaks against.
        """
        if self._refusal and values != self.values:
            # What was refused was beside values that are no more, as after undo.
            self._refusal = ""
            self.post_message(self.Told(self, "", ""))
        self.fields, self.values, self.notes, self.wrong = tuple(fields), dict(values), notes, wrong
        self.set_rows(Row(field.id, self._line_of(field), field) for field in self.fields)

    def _line_of(self, field: Field) -> Callable[[int], Content]:
        def line(width: int) -> Content:
            here = self.row is not None and self.row.key == field.id
            typing = here and self._typing is not None
            shown = f"{self._typing}▏" if typing else field.show(self.values[field.id])
            marks = ("◂ ", " ▸") if here and not typing else ("  ", "  ")
            wrong = self.wrong == field.id or (here and bool(self._refusal))
            note = self.notes.get(field.id, "")
            return Content.assemble(
                ("✖" if wrong else " ", "bold $bad"),
                left(field.label, self.LABEL_WIDTH, "" if here else "$muted"),
                (marks[0], "$accent"),
                (shown, "bold $bad" if wrong else "bold"),
                (marks[1], "$accent"),
                (note if not typing else "", "$muted"),
            )

        return line

    def watch_cursor(self, old: int, new: int) -> None:
        super().watch_cursor(old, new)
        self.post_message(self.Told(self, "", ""))

    def step(self, direction: int) -> None:
        field = self.field
        if field is None:
            return
        value, reason = self.values[field.id], ""
        tried = {value}
        while True:
            value = following(field, value, direction)
            if value in tried:
                break
            tried.add(value)
            refused = self.attempt(field.id, value)
            if not refused:
                self._tell(field, f"{field.show(value)} instead: {reason}" if reason else "", False)
                return
            reason = reason or refused
        self._tell(field, reason, bool(reason))

    def _refuse(self, field: Field, reason: str) -> None:
        self._tell(field, reason, True)

    def _assign(self, field: Field, value: Value) -> None:
        reason = self.attempt(field.id, value) if value != self.values[field.id] else ""
        self._tell(field, reason, bool(reason))

    def _tell(self, field: Field, reason: str, refused: bool) -> None:
        self._refusal = reason if refused else ""
        self.post_message(self.Told(self, field.id, reason))
        self.refresh_line(self.cursor)


def following(field: Field, value: Value, direction: int) -> Value:
    """The next value in a direction; numbers beyond the last choice double, as far as the field takes them."""
    if field.typed and not field.takes_text and direction > 0 and float(value) >= float(field.choices[-1]):
        number = value if isinstance(value, (int, float)) else float(value)
        return min(field.most, 2 * number)
    return field.step(value, direction)
