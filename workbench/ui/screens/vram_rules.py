"""Well-known teaching tables beside the right numbers, and why they differ."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.session.protocol import ListRulesOfThumb, RulesOfThumbListed
from workbench.ui.benches.vram_budget import parts_of
from workbench.ui.link import SessionLink
from workbench.ui.screens.closer_look import ASKING
from workbench.ui.screens.vram_screen import VramScreen
from workbench.ui.widgets.bars import left, right
from workbench.ui.widgets.memory_bar import label_of, mark_of, memory_bar
from workbench.ui.widgets.row_list import Row, RowList

NUMBER_WIDTH = 10
CLOSE = 0.1
"""A rule less than this share away from the right number is called close."""


class RulesScreen(VramScreen):
    """One row for each rule; the one under the cursor explained."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "copy_rules", "Copy all rules", show=False)]
    KEYS = (("↑ ↓", "another rule"), ("y", "copy"), ("?", "keys"))

    def __init__(self, link: SessionLink) -> None:
        super().__init__(link, "vram-rules", "Rules of thumb beside the right numbers")
        self._why: list[str] = []

    def parts(self) -> Iterable[Widget]:
        yield Static(id="rules-head")
        yield RowList(id="rules-rows")
        yield VerticalScroll(Static(id="rules-told"), id="rules-scroll", can_focus=False)

    def on_mount(self) -> None:
        self.query_one(RowList).focus()
        self.read()

    @work(group=ASKING, exclusive=True, exit_on_error=False)
    async def read(self) -> None:
        """Ask for the table; its models are built one after the other."""
        reply = await self.ask(ListRulesOfThumb(), RulesOfThumbListed, "building the models of the tables")
        if reply is None:
            return
        self.say("GB = 10^9 bytes, as the rules state them. The right numbers are the estimate's.")
        self._why = reply.why
        heads = (right("taught", NUMBER_WIDTH), right("right", NUMBER_WIDTH), right("ratio", 8))
        self.query_one("#rules-head", Static).update(Content.assemble(*heads, "  GB").stylize("$muted"))
        self.query_one(RowList).set_rows(
            Row(f"rule:{number}", _line(row), row) for number, row in enumerate(reply.rows)
        )

    def on_resize(self) -> None:
        row = self.query_one(RowList).row
        if row is not None:
            self._explain(row.data)

    @on(RowList.Highlighted)
    def explain(self, message: RowList.Highlighted) -> None:
        self._explain(message.row.data)

    def _explain(self, row: dict[str, Any]) -> None:
        width = max(30, self.query_one("#rules-scroll").size.width - 4)
        parts = parts_of(row["estimate"])
        told = [
            Content.assemble(("taught  ", "$muted"), str(row["thumb"])),
            Content.assemble(("why     ", "$muted"), str(row["why"])),
            Content(""),
            memory_bar(parts, int(row["thumb_bytes"]), width),
            Content.styled("┃ stands where the rule ends", "$muted"),
        ]
        for name, size in parts.items():
            told.append(
                Content.assemble(mark_of(name), " ", left(label_of(name), 15), right(f"{size / 1e9:,.1f} GB", 12))
            )
        told += [Content(""), Content.styled("WHY SUCH TABLES MISLEAD", "bold $muted")]
        told += [Content.assemble("· ", str(reason)) for reason in self._why]
        self.query_one("#rules-told", Static).update(Content("\n").join(told))

    def action_copy_rules(self) -> None:
        lines = []
        for row in self.query_one(RowList).rows:
            data = row.data
            lines.append(f"{data['title']}: taught {data['thumb_bytes'] / 1e9:,.1f} GB ({data['thumb']}), "
                         f"right {data['right_bytes'] / 1e9:,.1f} GB. {data['why']}")  # fmt: skip
        self.copy("\n".join([*lines, "", *self._why]), "the rules and the right numbers")


def _line(row: dict[str, Any]) -> Content:
    ratio = float(row["ratio"])
    word, style = (
        ("close", "$good") if abs(ratio - 1) < CLOSE else ("too low", "$bad") if ratio > 1 else ("too high", "$warn")
    )
    return Content.assemble(
        right(f"{row['thumb_bytes'] / 1e9:,.1f}", NUMBER_WIDTH, "$muted"),
        right(f"{row['right_bytes'] / 1e9:,.1f}", NUMBER_WIDTH, "bold"),
        right(f"×{ratio:.2f}", 8),
        "  ",
        left(word, 9, style),
        " ",
        str(row["title"]),
    )
