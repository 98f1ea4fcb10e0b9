"""All there is to know of the last error."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from workbench.errors import WorkbenchError
from workbench.ui.screens.dialog import Dialog


class ErrorDetails(Dialog[None]):
    """Message, remedy and details; y copies all of it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "copy", "Copy", show=False)]

    def __init__(self, error: WorkbenchError) -> None:
        super().__init__("error-details")
        self._error = error

    def compose(self) -> ComposeResult:
        error = self._error
        with Vertical(classes="box"):
            yield Static(Content.assemble((error.kind, "bold $bad")), classes="box-title")
            with VerticalScroll():
                yield Static(
                    Content.assemble(
                        (error.message, "bold"),
                        "\n",
                        error.remedy,
                        "\n\n",
                        (error.details or "There is nothing more to say about it.", "" if error.details else "$muted"),
                    )
                )
            foot = Content.assemble(("y", "bold $accent"), " copies   ", ("escape", "bold $accent"), " leaves")
            yield Static(foot, classes="box-foot")

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).focus()

    def action_copy(self) -> None:
        error = self._error
        self.app.copy_to_clipboard("\n".join((error.kind, error.message, error.remedy, "", error.details)))
        self.notify("Sent to the terminal's clipboard.", markup=False)
