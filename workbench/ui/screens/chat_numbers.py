"""What an answer took, on the whole screen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from textual import events, work
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.session.protocol import ModelStatus
from workbench.ui.benches.chat_numbers import estimate_of, numbers_lines
from workbench.ui.link import SessionLink
from workbench.ui.screens.closer_look import CloserLook


class NumbersScreen(CloserLook):
    """The figures of one answer beside VRAM's estimate.

    Args:
        message: the answer as the session has it.
        model: the loaded model.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "copy", "Copy the figures", show=False),
        Binding("m", "memory", "What the model holds now, in VRAM", show=False),
    ]
    KEYS = (("m", "memory in VRAM"), ("y", "copy"))

    def __init__(self, link: SessionLink, message: dict[str, Any], model: ModelStatus | None) -> None:
        super().__init__(link, "chat-numbers", "Numbers of the answer")
        self._message = message
        self._model = model
        self._estimate: dict[str, Any] = {}
        self.to_vram = False
        """Whether the screen was left for VRAM."""

    def parts(self) -> Iterable[Widget]:
        yield VerticalScroll(Static(id="numbers-text"), id="numbers-scroll")

    def on_mount(self) -> None:
        self.query_one(".said").display = False
        self.query_one(VerticalScroll).focus()
        self.read_estimate()

    @work(group="estimate", exclusive=True, exit_on_error=False)
    async def read_estimate(self) -> None:
        """Put VRAM's estimate beside what was measured."""
        self._estimate = await estimate_of(self.link, self._message, self._model)
        self._show()

    def on_resize(self, event: events.Resize) -> None:
        self._show()

    def _lines(self) -> Content:
        width = max(20, self.size.width - 6)
        return Content("\n").join(numbers_lines(self._message, self._model, self._estimate, min(width, 100)))

    def _show(self) -> None:
        self.query_one("#numbers-text", Static).update(self._lines())

    def action_memory(self) -> None:
        if self._model is None:
            self.app.bell()
            return
        self.to_vram = True
        self.dismiss(None)

    def action_copy(self) -> None:
        self.copy(self._lines().plain, "the figures")
