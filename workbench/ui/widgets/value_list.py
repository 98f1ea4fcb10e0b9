"""Values of a config in place: each steps with the arrow keys or is typed, and says what it was."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from textual.content import Content
from textual.message import Message

from workbench.ui.widgets.bars import left
from workbench.ui.widgets.row_list import Row, heading
from workbench.ui.widgets.typed_list import TypedList

LABEL_WIDTH = 17
NOTHING = ("none", "null", "")


class ValueList(TypedList):
    """One value a row, in groups. Fields are dictionaries of `workbench.architecture.design.Field`."""

    @dataclass
    class Edited(Message):
        """A value was stepped or typed."""

        values: ValueList
        key: str
        value: Any

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.wrong: set[str] = set()
        """Keys that something speaks against."""

    def set_fields(self, fields: Sequence[dict[str, Any]], wrong: set[str]) -> None:
        """Show these values; the cursor and what is being typed stay."""
        self.wrong = wrong
        self.set_rows(self._grouped(fields))

    def _grouped(self, fields: Sequence[dict[str, Any]]) -> Iterator[Row]:
        group = ""
        for field in fields:
            if field["group"] != group:
                group = str(field["group"])
                yield heading(group.upper())
            yield Row(str(field["key"]), self._line_of(field), field)

    def _line_of(self, field: dict[str, Any]) -> Callable[[int], Content]:
        key = str(field["key"])

        def line(width: int) -> Content:
            here = self.row is not None and self.row.key == key
            typing = here and self._typing is not None
            changed = field["value"] != field["original"]
            mark = ("✖ ", "bold $bad") if key in self.wrong else ("● ", "bold $accent") if changed else ("  ", "")
            value = f"{self._typing}▏" if typing else shown(field["value"])
            arrows = ("◂ ", " ▸") if here and not typing else ("  ", "  ")
            was = f"  was {shown(field['original'])}" if changed and not typing else ""
            refusal = (f"  ✖ {self._refusal}", "$bad") if here and self._refusal else ""
            label = left(str(field["label"]), LABEL_WIDTH, "" if here else "$muted")
            style = "bold $bad" if key in self.wrong else "bold"
            return Content.assemble(
                mark, label, (arrows[0], "$accent"), (value, style), (arrows[1], "$accent"), (was, "$muted"), refusal
            )

        return line

    @property
    def field(self) -> dict[str, Any] | None:
        """The field under the cursor."""
        return self.row.data if self.row else None

    def can_type(self) -> bool:
        return self.field is not None

    def take(self, typed: str) -> None:
        field = self.field
        if field is None:
            return
        try:
            self._edit(field, parsed(typed, str(field["kind"])))
        except ValueError as error:
            self._refusal = str(error)

    def step(self, direction: int) -> None:
        if self.field is not None:
            self._edit(self.field, stepped(self.field, direction))

    def _edit(self, field: dict[str, Any], value: Any) -> None:
        self._refusal = ""
        if value != field["value"] or type(value) is not type(field["value"]):
            self.post_message(self.Edited(self, str(field["key"]), value))
        self.refresh_line(self.cursor)


def shown(value: Any) -> str:
    """A value as it reads best."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def parsed(typed: str, kind: str) -> Any:
    """A typed value of a kind of field.

    Raises:
        ValueError: with a few words that say what it takes.
    """
    if typed.lower() in NOTHING:
        return None
    if kind == "boolean":
        words = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}
        if typed.lower() not in words:
            raise ValueError("on or off")
        return words[typed.lower()]
    if kind in ("integer", "number"):
        plain = typed.replace(",", "").replace("_", "")
        if kind == "integer":
            with contextlib.suppress(ValueError):
                return int(plain)  # a float would round it from sixteen digits on
        try:
            number = float(plain)
        except ValueError:
            raise ValueError("a number") from None
        if not math.isfinite(number):
            raise ValueError("a finite number")
        return int(number) if kind == "integer" and number.is_integer() else number
    if kind == "list":
        try:
            listed = json.loads(typed)
        except ValueError:
            raise ValueError('a list like [1, 2] or ["a"]') from None
        return listed
    return typed


def stepped(field: dict[str, Any], direction: int) -> Any:
    """The next value in a direction: by the field's step, tenfold without one, through its choices."""
    value, kind = field["value"], field["kind"]
    if kind == "boolean":
        return not value
    choices = field.get("choices") or ()
    if choices and value not in choices and kind == "integer" and isinstance(value, (int, float)):
        beyond = [choice for choice in choices if (choice - value) * direction > 0]
        return (beyond[0] if direction > 0 else beyond[-1]) if beyond else value
    if choices:
        index = list(choices).index(value) + direction if value in choices else 0
        return choices[max(0, min(len(choices) - 1, index)) if kind == "integer" else index % len(choices)]
    if kind not in ("integer", "number") or isinstance(value, (list, dict, str)):
        return value
    if value is None:
        value = field["original"] if field["original"] is not None else field["least"] or 0
        direction = 0
    step = field["step"]
    moved = value + direction * step if step else value * 10.0**direction
    least, most = field["least"], field["most"]
    moved = max(moved, least) if least is not None else moved
    moved = min(moved, most) if most is not None else moved
    return int(moved) if kind == "integer" else float(f"{moved:.6g}")
