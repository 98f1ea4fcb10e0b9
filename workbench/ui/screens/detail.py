"""What a side panel holds, on the whole screen."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from workbench.ui.screens.dialog import Dialog


class DetailScreen(Dialog[None]):
    """Scrolls by keys; y copies, escape goes back.

    Args:
        content: what to show; `show` replaces it while the screen is open.
        copied: text for the clipboard, and what it is.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy", "Copy", show=False),
        Binding("j", "scroll(1)", "Down", show=False),
        Binding("k", "scroll(-1)", "Up", show=False),
        Binding("enter,q", "close", "Close", show=False),
    ]

    def __init__(self, content: Content, copied: tuple[str, str]) -> None:
        super().__init__("detail")
        self._content = content
        self._copied = copied

    def compose(self) -> ComposeResult:
        with Vertical(classes="box whole"):
            with VerticalScroll():
                yield Static(self._content, id="detail-text")
            yield Static(
                Content.assemble(
                    ("↑ ↓", "bold $accent"),
                    " scroll   ",
                    ("y", "bold $accent"),
                    f" copies {self._copied[1]}   ",
                    ("escape", "bold $accent"),
                    " goes back",
                ),
                classes="box-foot",
            )

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()

    def show(self, content: Content) -> None:
        """Replace what is shown; it keeps its place."""
        if self.is_mounted and not content.is_same(self._content):
            self._content = content
            self.query_one("#detail-text", Static).update(content)

    def action_scroll(self, lines: int) -> None:
        self.query_one(VerticalScroll).scroll_relative(y=lines, animate=False)

    def action_copy(self) -> None:
        text, what = self._copied
        self.app.copy_to_clipboard(text)
        self.notify(f"Sent to the terminal's clipboard: {what}.", markup=False)
