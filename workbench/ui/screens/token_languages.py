"""Which tokenizer is fair to which language."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from textual import work
from textual.content import Content
from textual.widget import Widget

from workbench.session.protocol import CompareLanguages, LanguagesCompared
from workbench.ui.benches.tokens_league import short_model
from workbench.ui.link import SessionLink
from workbench.ui.screens.closer_look import ASKING, CloserLook
from workbench.ui.widgets.bars import left, right
from workbench.ui.widgets.row_list import Row, RowList, gap

HEAT = ((1.25, "$good", "·"), (2.0, "", "░"), (3.5, "$warn", "▒"), (float("inf"), "$bad", "▓"))
"""Up to which premium, its colour, and its texture, so that heat shows without colour."""
COLUMN, LEAST_COLUMN, NAME = 14, 11, 16


class LanguagesScreen(CloserLook):
    """The premium over English of each language, and over Python of each programming language, as a heat table."""

    KEYS = (("↑ ↓", "scroll"),)

    def __init__(self, link: SessionLink, models: list[str]) -> None:
        super().__init__(link, "token-languages", "The same content in other languages: tokens as a multiple")
        self._models = models

    def parts(self) -> Iterable[Widget]:
        yield RowList(id="languages-list")

    def on_mount(self) -> None:
        self.query_one(RowList).focus()
        self.compare()

    @work(group=ASKING, exclusive=True, exit_on_error=False)
    async def compare(self) -> None:
        """Ask for the table."""
        reply = await self.ask(CompareLanguages(self._models), LanguagesCompared, "Counting the samples")
        if reply is None:
            return
        legend = [
            (f"{mark} {'more' if limit == float('inf') else f'to {limit:g}×'}  ", style) for limit, style, mark in HEAT
        ]
        failed = [(f" ✖ {error}", "$bad") for error in reply.errors]
        self.say(Content.assemble("Over English; code over Python.  ", *legend, *failed))
        self.query_one(RowList).set_rows(heat_rows(reply.table))


def heat_rows(table: dict[str, Any]) -> Iterator[Row]:
    """One row for each sample, one column for each tokenizer that has room."""
    rows = table["rows"]

    def names(room: int) -> list[Content]:
        return [right(short_model(str(row["model"]), room - 1), room, "bold") for row in rows]

    yield Row("head", _line("", "", names), selectable=False)
    yield Row("left out", lambda width: Content.styled(_left_out(len(rows), width), "$warn"), selectable=False)
    kind = table["samples"][0]["kind"] if table["samples"] else ""
    for index, sample in enumerate(table["samples"]):
        if sample["kind"] != kind:
            kind = sample["kind"]
            yield gap(kind)
        cells = [row["cells"][index] for row in rows]
        yield Row(sample["name"], _line(sample["title"], "", partial(_cells, cells, kind)))
    yield gap("mean")
    means = ["loses text" if row["mean_premium"] is None else f"{row['mean_premium']:.2f}×" for row in rows]
    yield Row("mean", _line("mean", "bold", lambda room: [right(mean, room, "bold $accent") for mean in means]))
    worst = [row["worst"] + ("" if row["worst_premium"] is None else f" {row['worst_premium']:.1f}×") for row in rows]
    yield Row("worst", _line("dearest", "$muted", lambda room: [right(text, room) for text in worst]))


def _layout(count: int, width: int) -> tuple[int, int]:
    """Width of a column, and how many there is room for."""
    room = max(LEAST_COLUMN, min(COLUMN, (width - NAME) // max(1, count)))
    return room, max(1, min(count, (width - NAME) // room))


def _left_out(count: int, width: int) -> str:
    rest = count - _layout(count, width)[1]
    return f"No room for {rest} more: a wider terminal shows them." if rest else ""


def _line(name: str, style: str, columns: Callable[[int], list[Content]]) -> Callable[[int], Content]:
    def line(width: int) -> Content:
        cells = columns(COLUMN)
        room, shown = _layout(len(cells), width)
        return Content.assemble(left(name, NAME, style), *columns(room)[:shown])

    return line


def _cells(cells: list[dict[str, Any]], kind: str, room: int) -> list[Content]:
    return [_cell(cell, kind, room) for cell in cells]


def _cell(cell: dict[str, Any], kind: str, room: int) -> Content:
    lost = cell.get("lost_share", 0.0)
    if lost:
        return right("lost <1%" if lost < 0.01 else f"lost {lost:.0%}", room, "$bad")
    if cell["premium"] is None and kind != "data":
        return right("–", room, "$muted")  # what it would be a multiple of is lost in part
    if cell["premium"] is None:
        unit = " B/tok" if room >= COLUMN else " B/t"
        return right(f"{cell['bytes_per_token']:.2f}{unit}", room, "$muted")
    style, mark = next((style, mark) for limit, style, mark in HEAT if cell["premium"] <= limit)
    return right(f"{mark * 3} {cell['premium']:.2f}×", room, style)
