"""Words found in this conversation and in all others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, Static

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import ConversationsFound, SearchConversations
from workbench.text import one_line
from workbench.ui.link import SessionLink
from workbench.ui.screens.dialog import Dialog
from workbench.ui.widgets.bars import left
from workbench.ui.widgets.row_list import Row, RowList, gap, heading
from workbench.ui.widgets.transcript import Turn

SETTLE_SECONDS = 0.15
AROUND = 60
KEYS = (("enter", "goes there"), ("↑ ↓", "choose"), ("escape", "leaves"))


@dataclass(frozen=True)
class Place:
    """A message that holds the words."""

    conversation: str
    message: str
    words: str


class FindScreen(Dialog[Place]):
    """Finds while one types: the messages on screen first, then those of every conversation and branch.

    Args:
        conversation: id of the one on screen; empty for none.
        turns: its messages.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "move(1)", "Next", show=False, priority=True),
        Binding("up", "move(-1)", "Before", show=False, priority=True),
    ]

    def __init__(self, link: SessionLink, conversation: str, turns: Sequence[Turn]) -> None:
        super().__init__("chat-find")
        self._link = link
        self._conversation = conversation
        self._turns = [turn for turn in turns if turn.message.get("id")]

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("Find in conversations", classes="box-title")
            yield Input(placeholder="Words", id="find-words")
            yield RowList(id="find-list")
            yield Static(id="find-foot", classes="box-foot")

    def on_mount(self) -> None:
        self.query_one(Input).cursor_blink = False
        self.query_one(Input).focus()
        self._foot("")

    def _foot(self, told: str) -> None:
        keys = [Content.assemble((key, "bold $accent"), (f" {word}", "$muted")) for key, word in KEYS]
        self.query_one("#find-foot", Static).update(Content("   ").join([*([Content(told)] if told else []), *keys]))

    @on(Input.Changed)
    @work(group="find", exclusive=True, exit_on_error=False)
    async def find(self) -> None:
        """Look for what stands in the field; a later edit replaces this."""
        import asyncio

        words = self.query_one(Input).value.strip()
        if not words:
            self.query_one(RowList).set_rows([])
            self._foot("")
            return
        here = [turn for turn in self._turns if words.casefold() in turn.text.casefold()]
        self._show(words, here, [])
        await asyncio.sleep(SETTLE_SECONDS)
        try:
            reply = await self._link.ask(SearchConversations(words), ConversationsFound)
        except JobCancelled:
            return
        except WorkbenchError as error:
            self._foot(f"✖ {error.message}")
            return
        shown = {turn.message["id"] for turn in here}
        self._show(words, here, [item for item in reply.found if item.get("message") not in shown])

    def _show(self, words: str, here: list[Turn], elsewhere: list[dict[str, Any]]) -> None:
        self.query_one(RowList).set_rows(self._rows(words, here, elsewhere))
        count = len(here) + len(elsewhere)
        self._foot(f"{count:,} message" + ("" if count == 1 else "s"))

    def _rows(self, words: str, here: list[Turn], elsewhere: list[dict[str, Any]]) -> Iterator[Row]:
        if here:
            yield heading("THIS CONVERSATION")
        for turn in here:
            place = Place(self._conversation, str(turn.message["id"]), words)
            yield Row(place.message, _line(turn.role, _around(turn.text, words), words, ""), place)
        if elsewhere:
            if here:
                yield gap("all")
            yield heading("ALL CONVERSATIONS")
        for item in elsewhere:
            place = Place(str(item["conversation"]), str(item["message"]), words)
            title = one_line(str(item.get("title") or ""), 24)
            yield Row(place.message, _line(str(item["role"]), str(item["snippet"]), words, title), place)

    def action_move(self, step: int) -> None:
        self.query_one(RowList).action_cursor(step)

    @on(Input.Submitted)
    def go(self) -> None:
        row = self.query_one(RowList).row
        if row is not None:
            self.dismiss(row.data)

    @on(RowList.Chosen)
    def choose(self, message: RowList.Chosen) -> None:
        self.dismiss(message.row.data)


def _around(text: str, words: str) -> str:
    at = max(0, text.casefold().find(words.casefold()))
    start = max(0, at - AROUND // 3)
    return f"{'…' if start else ''}{one_line(text[start : at + len(words) + AROUND], 200)}"


def _line(role: str, snippet: str, words: str, title: str) -> Callable[[int], Content]:
    def line(width: int) -> Content:
        who = {"user": "you", "assistant": "model"}.get(role, role)
        said = Content(one_line(snippet))
        at = said.plain.casefold().find(words.casefold())
        if at >= 0:
            said = said.stylize("bold $accent", at, at + len(words))
        name = Content.assemble(left(title, 24, "$muted"), "  ") if title and width > 60 else ""
        return Content.assemble(left(who, 6, "$muted"), " ", name, said)

    return line
