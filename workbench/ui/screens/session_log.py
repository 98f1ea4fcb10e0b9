"""The session log, as the worker writes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import LogRead, ReadLog
from workbench.ui.link import SessionLink
from workbench.ui.screens.dialog import Dialog
from workbench.ui.widgets.row_list import Row, RowList

REFRESH_SECONDS = 0.5
LINES = 1000


class SessionLog(Dialog[None]):
    """The last lines of the log; follows it while the cursor is on the last one.

    Args:
        live: lines broadcast since the app attached; grows while the screen is open.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "copy", "Copy", show=False)]

    def __init__(self, link: SessionLink, live: deque[str]) -> None:
        super().__init__("session-log")
        self._link = link
        self._live = live
        self._lines: list[str] = list(live)
        self._seen = ""

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("Session log", classes="box-title", id="log-title")
            yield RowList(id="log-lines")
            foot = Content.assemble(
                ("y", "bold $accent"),
                " copies it   ",
                ("g G", "bold $accent"),
                " first, last   ",
                ("escape", "bold $accent"),
                " leaves",
            )
            yield Static(foot, classes="box-foot")

    def on_mount(self) -> None:
        self.query_one(RowList).focus()
        self.show_lines(self._lines)
        self.read_log()
        self.set_interval(REFRESH_SECONDS, self.follow)

    @work(group="log", exclusive=True, exit_on_error=False)
    async def read_log(self) -> None:
        """Read what was written before this app attached."""
        try:
            read = await self._link.ask(ReadLog(LINES), LogRead)
        except (WorkbenchError, JobCancelled):
            return
        self.query_one("#log-title", Static).update(Content.assemble("Session log", (f"  {read.path}", "$muted")))
        self._lines = list(read.lines)
        self._live_count = len(self._live)
        self.show_lines(self._lines)

    _live_count = 0

    def follow(self) -> None:
        """Append what came since."""
        if len(self._live) != self._live_count:
            fresh = list(self._live)[self._live_count :]
            self._live_count = len(self._live)
            self._lines = [*self._lines, *fresh][-LINES:]
            self.show_lines(self._lines)

    def show_lines(self, lines: Sequence[str]) -> None:
        """Show the lines, staying at the end if the cursor is there."""
        listing = self.query_one(RowList)
        at_end = not listing.rows or listing.cursor >= len(listing.rows) - 1
        rows = [Row(str(i), Content(line)) for i, line in enumerate(lines)] or [
            Row("empty", Content.styled("Nothing was logged yet.", "$muted"))
        ]
        listing.set_rows(rows, cursor_key=rows[-1].key if at_end else None)

    def action_copy(self) -> None:
        self.app.copy_to_clipboard("\n".join(self._lines))
        self.notify("Sent to the terminal's clipboard.", markup=False)
