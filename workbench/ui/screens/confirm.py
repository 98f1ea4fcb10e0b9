"""A question with named answers, each a key."""

from __future__ import annotations

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from workbench.ui.screens.dialog import Dialog


class Confirm(Dialog[str]):
    """Dismisses with the key of the answer, or None on escape.

    Args:
        question: one sentence.
        answers: key and what it does.
    """

    def __init__(self, question: str, answers: tuple[tuple[str, str], ...]) -> None:
        super().__init__("confirm")
        self._question = question
        self._answers = answers

    def compose(self) -> ComposeResult:
        with Vertical(classes="box small"):
            yield Static(Content.styled(f"{self._question}\n", "bold"))
            lines = [Content.assemble((f"{key:>7}", "bold $accent"), f"  {does}") for key, does in self._answers]
            lines.append(Content.assemble(("escape", "bold $accent"), "   leave it as it is"))
            yield Static(Content("\n").join(lines))

    def on_key(self, event: events.Key) -> None:
        if event.key in (key for key, _ in self._answers):
            event.stop()
            self.dismiss(event.key)
