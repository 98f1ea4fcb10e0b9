"""A place to paste a report of another machine."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static, TextArea

from workbench.ui.screens.dialog import Dialog


class PasteScreen(Dialog[str]):
    """Dismisses with the pasted text."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+s,f2", "take", "Examine", show=False, priority=True)]

    def __init__(self) -> None:
        super().__init__("paste")

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("Report of another machine", classes="box-title")
            yield TextArea(
                placeholder="Paste what collect_env, python -m bitsandbytes, nvidia-smi, pip list or the like printed, "
                "several of them in any order, with or without the text around them; or the path of a file with it."
            )
            foot = Content.assemble(
                ("ctrl+s", "bold $accent"), " examines it   ", ("escape", "bold $accent"), " leaves"
            )
            yield Static(foot, classes="box-foot")

    def on_mount(self) -> None:
        self.query_one(TextArea).cursor_blink = False
        self.query_one(TextArea).focus()

    def action_take(self) -> None:
        text = self.query_one(TextArea).text
        if text.strip():
            self.dismiss(text)
        else:
            self.notify("There is nothing here yet: paste a report first.", severity="warning", markup=False)
