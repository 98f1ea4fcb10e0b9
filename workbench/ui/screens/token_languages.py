"""Which tokenizer is fair to which language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from textual import work
from textual.content import Content
from textual.widget import Widget

from workbench.session.protocol import CompareLanguages, LanguagesCompared
from workbench.ui.link import SessionLink
from workbench.ui.screens.token_screen import TokenScreen
from workbench.ui.widgets.bars import left, right
from workbench.ui.widgets.row_list import Row, RowList, gap

HEAT = ((1.25, "$good", "·"), (2.0, "", "░"), (3.5, "$warn", "▒"), (float("inf"), "$bad", "▓"))
"""Up to which premium, its colour, and its texture, so that heat shows without colour."""
COLUMN, NAME = 14, 16


class LanguagesScreen(TokenScreen):
    """The premium over English of each language, and over Python of each programming language, as a heat table."""

    KEYS = (("↑ ↓", "scroll"),)

    def __init__(self, link: SessionLink, models: list[str]) -> None:
        super().__init__(link, "token-languages", "The same content in other languages: tokens as a multiple")
        self._models = models

    def parts(self) -> Iterable[Widget]:
        yield RowList(id="languages-list")

    def on_mount(self) -> None:
        self.query_one(RowList).focus()
        self.say(Content.styled("counting the samples …", "$muted"))
        self.compare()

    @work(group="languages", exclusive=True, exit_on_error=False)
    async def compare(self) -> None:
        """Ask for the table."""
        reply = await self.ask(CompareLanguages(self._models), LanguagesCompared)
        if reply is None:
            return
        legend = [
            (f"{mark} {'more' if limit == float('inf') else f'to {limit:g}×'}  ", style) for limit, style, mark in HEAT
        ]
        failed = [(f" ✖ {error}", "$bad") for error in reply.errors]
        self.say(Content.assemble("Languages over English, code over Python.   ", *legend, *failed))
        self.query_one(RowList).set_rows(heat_rows(reply.table))


def heat_rows(table: dict[str, Any]) -> Iterator[Row]:
    """One row for each sample, one column for each tokenizer."""
    rows = table["rows"]
    heads = [right(str(row["model"]).rpartition("/")[2][: COLUMN - 2], COLUMN, "bold") for row in rows]
    yield Row("head", Content.assemble(left("", NAME), *heads), selectable=False)
    kind = table["samples"][0]["kind"] if table["samples"] else ""
    for index, sample in enumerate(table["samples"]):
        if sample["kind"] != kind:
            kind = sample["kind"]
            yield gap(kind)
        cells = [_cell(row["cells"][index]) for row in rows]
        yield Row(sample["name"], Content.assemble(left(sample["title"], NAME), *cells))
    yield gap("mean")
    means = [right(f"{row['mean_premium']:.2f}×", COLUMN, "bold $accent") for row in rows]
    yield Row("mean", Content.assemble(left("mean", NAME, "bold"), *means))
    worst = [right(f"{row['worst']} {row['worst_premium']:.1f}×", COLUMN) for row in rows]
    yield Row("worst", Content.assemble(left("dearest", NAME, "$muted"), *worst))


def _cell(cell: dict[str, Any]) -> Content:
    if cell["premium"] is None:
        return right(f"{cell['bytes_per_token']:.2f} B/tok", COLUMN, "$muted")
    style, mark = next((style, mark) for limit, style, mark in HEAT if cell["premium"] <= limit)
    return right(f"{mark * 3} {cell['premium']:.2f}×", COLUMN, style)
