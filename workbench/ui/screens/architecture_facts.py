"""The facts of an architecture, each with what it means."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.ui.link import SessionLink
from workbench.ui.screens.closer_look import CloserLook
from workbench.ui.strip_text import short_name
from workbench.ui.widgets.bars import left
from workbench.ui.widgets.row_list import Row, RowList


class FactsScreen(CloserLook):
    """All facts as a list; the one under the cursor with its longer text.

    Args:
        facts: `workbench.architecture` facts as dictionaries.
        key: the one to begin with.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,n", "step(1)", "Next fact", show=False),
        Binding("left,p", "step(-1)", "Previous fact", show=False),
        Binding("y", "copy", "Copy the fact", show=False),
        Binding("Y", "copy_all", "Copy all facts as Markdown", show=False),
    ]
    KEYS = (("↑ ↓", "next, previous"), ("tab", "scroll the text"), ("y", "copy"), ("Y", "copy all"))

    def __init__(self, link: SessionLink, model: str, facts: list[dict[str, Any]], key: str) -> None:
        super().__init__(link, "architecture-facts", f"Facts of {short_name(model)}")
        self._facts = facts
        self._key = key

    def parts(self) -> Iterable[Widget]:
        yield Container(
            RowList(id="facts-list"), VerticalScroll(Static(id="facts-text"), id="facts-scroll"), id="facts-body"
        )

    def on_mount(self) -> None:
        self.query_one(".said").display = False
        listing = self.query_one(RowList)
        listing.set_rows((_row(fact) for fact in self._facts), cursor_key=self._key or None)
        listing.focus()

    @on(RowList.Highlighted)
    def explain(self, message: RowList.Highlighted) -> None:
        number = self._facts.index(message.row.data) + 1
        self.query_one("#facts-text", Static).update(explanation(message.row.data, number, len(self._facts)))
        self.query_one("#facts-scroll", VerticalScroll).scroll_home(animate=False)

    def action_step(self, step: int) -> None:
        self.query_one(RowList).action_cursor(step)

    @on(RowList.Chosen)
    def read_on(self) -> None:
        self.query_one("#facts-scroll").focus()

    def action_copy(self) -> None:
        row = self.query_one(RowList).row
        if row is not None:
            self.copy(explanation(row.data, 0, 0).plain, "the fact")

    def action_copy_all(self) -> None:
        lines = [f"- **{fact['label']}** {_short(fact)}: {fact['line']}" for fact in self._facts]
        self.copy("\n".join(lines), "all facts")


def _row(fact: dict[str, Any]) -> Row:
    def line(width: int) -> Content:
        room = max(12, min(18, width // 2))
        return Content.assemble(left(str(fact["label"]), room, "$muted"), " ", (_short(fact), "bold"))

    return Row(str(fact["key"]), line, fact)


def _short(fact: dict[str, Any]) -> str:
    """A fact in a few words."""
    return str(fact["chip"]) or (str(fact["value"]) if isinstance(fact["value"], (str, int, float)) else "")


def _parts(value: Any) -> str:
    """The figures of a fact that has several: ``T4 830 · RTX 3090 2,600``."""
    if not isinstance(value, dict):
        return ""
    told = []
    for name, part in value.items():
        shown = f"{part:,}" if isinstance(part, int) and not isinstance(part, bool) else part
        if isinstance(part, (str, int, float)) and not isinstance(part, bool):
            told.append(f"{str(name).replace('_', ' ')} {shown}")
    return " · ".join(told)


def explanation(fact: dict[str, Any], number: int, of: int) -> Content:
    """A fact with its line, its longer text and where it is read."""
    count = (f"  {number} of {of}", "$muted") if of else ""
    parts = [
        Content.assemble((str(fact["label"]), "$muted"), count),
        Content.styled(_short(fact), "bold $accent"),
        Content(""),
        Content.styled(str(fact["line"]), "bold"),
    ]
    figures = _parts(fact["value"])
    if figures:
        parts.append(Content.styled(figures, "$muted"))
    parts += [Content(""), Content(str(fact["text"]))]
    sources = fact.get("sources") or ()
    if sources:
        parts += [Content(""), Content.styled("Sources", "$muted")]
        parts += [Content.styled(f"  {source}", "$muted") for source in sources]
    return Content("\n").join(parts)
