"""The conversations kept: open one, name it anew, write it to a file, delete it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, Static

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import (
    ConversationDeleted,
    ConversationRead,
    ConversationsListed,
    DeleteConversation,
    ListConversations,
    RenameConversation,
)
from workbench.text import one_line
from workbench.ui.link import SessionLink
from workbench.ui.screens.chat_export import export_conversations
from workbench.ui.screens.confirm import Confirm
from workbench.ui.screens.dialog import Dialog
from workbench.ui.strip_text import short_name
from workbench.ui.widgets.bars import left, right
from workbench.ui.widgets.row_list import Row, RowList

KEYS = (("enter", "opens"), ("r", "renames"), ("e", "exports"), ("x", "deletes"), ("escape", "leaves"))
MOST = 500


class ConversationsScreen(Dialog[str]):
    """Dismisses with the id of the conversation to open.

    Args:
        current: id of the one on screen.
        deleted: called with the id of each conversation that was deleted.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "rename", "Rename", show=False),
        Binding("x,delete", "delete", "Delete", show=False),
        Binding("e", "export", "Export", show=False),
        Binding("E", "export_all", "Export all", show=False),
    ]

    def __init__(self, link: SessionLink, current: str, deleted: Callable[[str], None]) -> None:
        super().__init__("conversations")
        self.link = link
        self._current = current
        self._deleted = deleted
        self._renaming = ""

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("Conversations", classes="box-title")
            yield Input(placeholder="New title", id="conversation-title")
            yield RowList(id="conversation-list")
            yield Static(id="conversation-foot", classes="box-foot")

    def on_mount(self) -> None:
        self.query_one(Input).cursor_blink = False
        self._end_renaming()
        self._foot("Reading …")
        self.list_conversations()

    def _foot(self, told: str = "") -> None:
        keys = Content("   ").join(Content.assemble((key, "bold $accent"), f" {word}") for key, word in KEYS)
        self.query_one("#conversation-foot", Static).update(Content.assemble(told, "\n", keys) if told else keys)

    def _fail(self, error: WorkbenchError) -> None:
        lost = error.kind == "session-lost"
        self._foot("No session: escape, then ctrl+r starts it." if lost else f"✖ {error.message} {error.remedy}")

    @work(group="list", exclusive=True, exit_on_error=False)
    async def list_conversations(self) -> None:
        """Show what is kept, newest first."""
        try:
            listed = await self.link.ask(ListConversations(MOST), ConversationsListed)
        except JobCancelled:
            return
        except WorkbenchError as error:
            self._fail(error)
            return
        rows = [Row(str(item.get("id")), _line(item, str(item.get("id")) == self._current), item)
                for item in listed.conversations]  # fmt: skip
        self.query_one(RowList).set_rows(rows)
        self._foot("" if rows else "No conversation was kept yet.")

    @on(RowList.Chosen)
    def open(self, message: RowList.Chosen) -> None:
        self.dismiss(message.row.key)

    # --- Renaming ------------------------------------------------------------------------------------------

    def action_rename(self) -> None:
        row = self.query_one(RowList).row
        if row is not None:
            self._renaming = row.key
            field = self.query_one(Input)
            field.display = True
            field.value = str(row.data.get("title") or "")
            field.focus()

    def _end_renaming(self) -> None:
        self._renaming = ""
        self.query_one(Input).display = False
        self.query_one(RowList).focus()

    def action_close(self) -> None:
        if self._renaming:
            self._end_renaming()
        else:
            super().action_close()

    @on(Input.Submitted)
    @work(group="change", exit_on_error=False)
    async def rename(self, message: Input.Submitted) -> None:
        """Give the conversation the typed title."""
        wanted, title = self._renaming, message.value.strip()
        self._end_renaming()
        if not (wanted and title):
            return
        try:
            await self.link.ask(RenameConversation(wanted, title), ConversationRead)
        except JobCancelled:
            return
        except WorkbenchError as error:
            self._fail(error)
        else:
            self.list_conversations()

    # --- Exporting -----------------------------------------------------------------------------------------

    @work(group="export", exclusive=True, exit_on_error=False)
    async def action_export(self) -> None:
        """Write the conversation under the cursor to a file."""
        row = self.query_one(RowList).row
        if row is not None:
            self._foot(await export_conversations(self, [row.key], str(row.data.get("title") or "")))

    @work(group="export", exclusive=True, exit_on_error=False)
    async def action_export_all(self) -> None:
        """Write every conversation to one file."""
        self._foot(await export_conversations(self, [], "conversations"))

    # --- Deleting ------------------------------------------------------------------------------------------

    @work(group="change", exit_on_error=False)
    async def action_delete(self) -> None:
        """Delete the conversation under the cursor, after a question."""
        row = self.query_one(RowList).row
        if row is None:
            return
        question = Confirm(f"Delete “{_title(row.data)}” for good?", (("x", "delete it"),))
        if await self.app.push_screen_wait(question) != "x":
            return
        try:
            await self.link.ask(DeleteConversation(row.key), ConversationDeleted)
        except JobCancelled:
            return
        except WorkbenchError as error:
            self._fail(error)
        else:
            self._deleted(row.key)
            self.list_conversations()


def _title(item: dict[str, Any]) -> str:
    return one_line(str(item.get("title") or "untitled"), 60)


def _line(item: dict[str, Any], current: bool) -> Callable[[int], Content]:
    seconds = item.get("updated") or item.get("created")
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(float(seconds))) if seconds else ""
    count = int(item.get("message_count") or 0)
    messages = f"{count:,} message" + ("" if count == 1 else "s")

    def line(width: int) -> Content:
        tail = Content.assemble(right(messages, 14, "$muted"), "  ", left(when, 16, "$muted"))
        if width >= 72:
            tail = Content.assemble(left(short_name(str(item.get("model") or "")), 22, "$muted"), " ", tail)
        title = Content.assemble(("▸ " if current else "  ", "$accent"), _title(item))
        return Content.assemble(
            title.truncate(max(8, width - tail.cell_length - 1), ellipsis=True, pad=True), " ", tail
        )

    return line
