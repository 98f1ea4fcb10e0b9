"""Two models side by side, from their configs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.session.protocol import CompareModels, ModelsCompared
from workbench.ui.link import SessionLink
from workbench.ui.screens.architecture_design_rows import compared_markdown, compared_rows, pair_words
from workbench.ui.screens.closer_look import ASKING, CloserLook
from workbench.ui.strip_text import short_name
from workbench.ui.widgets.row_list import RowList


class CompareModelsScreen(CloserLook):
    """What differs between two models; the rest on a key.

    Args:
        changes: config values of the second one that were edited.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "toggle_all", "All values, or only what differs", show=False),
        Binding("x", "swap", "Swap the two", show=False),
        Binding("y", "copy", "Copy what differs as Markdown", show=False),
    ]
    KEYS = (("a", "all values"), ("x", "swap"), ("y", "copy"), ("?", "keys"))

    def __init__(self, link: SessionLink, first: str, second: str, changes: dict[str, Any] | None = None) -> None:
        super().__init__(link, "architecture-compare", f"{short_name(first)} and {short_name(second)}")
        self._names = (first, second)
        self._changes: tuple[dict[str, Any], dict[str, Any]] = ({}, changes or {})
        self._result: dict[str, Any] = {}
        self._all = False

    def parts(self) -> Iterable[Widget]:
        yield RowList(id="compared-rows")
        yield Static(id="compared-detail")

    def on_mount(self) -> None:
        self.query_one(RowList).focus()
        self.compare()

    @work(group=ASKING, exclusive=True, exit_on_error=False)
    async def compare(self) -> None:
        """Ask for the two."""
        request = CompareModels(*self._names, first_changes=self._changes[0], second_changes=self._changes[1])
        reply = await self.ask(request, ModelsCompared, "building both on the meta device")
        if reply is not None:
            self._result = reply.result
            self._show()

    def _show(self) -> None:
        result = self._result
        designed = ["your design" if changes else "" for changes in self._changes]
        names = tuple(words or short_name(name) for name, words in zip(self._names, designed, strict=True))
        self.retitle(Content.assemble((names[0], "bold"), (" and ", "$muted"), (names[1], "bold")))
        if result.get("same"):
            self.say("They are the same in every count, fact, value and shape.")
        else:
            first, second = result.get("first_architecture"), result.get("second_architecture")
            self.say(f"{first} and {second}" if first != second else f"both {first}")
        self.query_one(RowList).set_rows(compared_rows(result, (names[0], names[1]), self._all))

    @on(RowList.Highlighted)
    def tell(self, message: RowList.Highlighted) -> None:
        self.query_one("#compared-detail", Static).update(pair_words(message.row.data))

    def action_toggle_all(self) -> None:
        self._all = not self._all
        if self._result:
            self._show()

    def action_swap(self) -> None:
        self._names = (self._names[1], self._names[0])
        self._changes = (self._changes[1], self._changes[0])
        self.compare()

    def action_copy(self) -> None:
        if self._result:
            self.copy(compared_markdown(self._result), "what differs")
