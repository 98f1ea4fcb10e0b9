"""The message being written, and those written before."""

from __future__ import annotations

from typing import ClassVar

from textual import events, on
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import TextArea

from workbench.ui.drafts import CHAT, DraftKeeper, read_draft

PAGE_KEYS = {"pageup": -1, "pagedown": 1}
NEWLINE_KEYS = ("ctrl+j", "shift+enter", "alt+enter")
MOST_KEPT = 200


class Prompt(TextArea):
    """A message of several lines: enter sends, ctrl+j starts a new line, up and down bring back earlier ones."""

    class Sent(Message):
        """Enter on a message that is not blank."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Paged(Message):
        """A page up (-1) or down (1) in the conversation above."""

        def __init__(self, direction: int) -> None:
            super().__init__()
            self.direction = direction

    class Left(Message):
        """Escape, while no answer is being written."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "send", tooltip="Send the message."),
        Binding("ctrl+j", "newline", "new line", tooltip="Start a new line; shift+enter where the terminal sends it."),
        Binding("escape", "leave", "messages", tooltip="Into the conversation, where keys act on a message."),
    ]

    def __init__(self, *, id: str, placeholder: str) -> None:
        super().__init__(id=id, placeholder=placeholder)
        self.busy = False
        """Whether escape means something else: an answer is being written."""
        self._history: list[str] = []
        self._written: dict[int, str] = {}
        """What was made of messages that were brought back, and what was being written before, under their places."""
        self._place = 0
        self._draft = DraftKeeper(self, CHAT)

    def on_mount(self) -> None:
        self.text = read_draft(CHAT)
        self.move_cursor(self.document.end)

    @on(TextArea.Changed)
    def keep_draft(self) -> None:
        """What is being written outlives the app, however it ends."""
        self._draft.changed(self.text)

    def on_unmount(self) -> None:
        self._draft.keep(self.text)

    def remember(self, text: str) -> None:
        """Put a message at the end of those that up brings back."""
        if text in self._history:
            self._history.remove(text)
        self._history = [*self._history, text][-MOST_KEPT:]
        self._written, self._place = {}, len(self._history)

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            # TextArea itself would put a line break there before any binding is asked.
            event.stop()
            event.prevent_default()
            self.action_send()
        elif event.key in NEWLINE_KEYS:
            event.stop()
            event.prevent_default()
            self.action_newline()
        elif event.key in PAGE_KEYS:
            event.stop()
            event.prevent_default()
            self.post_message(self.Paged(PAGE_KEYS[event.key]))
        elif event.key in ("up", "down") and self._recalled(-1 if event.key == "up" else 1):
            event.stop()
            event.prevent_default()
        else:
            await super()._on_key(event)

    def _recalled(self, step: int) -> bool:
        """Bring back the message before or after, from the first or last line of what is written."""
        line = self.wrapped_document.location_to_offset(self.cursor_location).y
        if line != (0 if step < 0 else self.wrapped_document.height - 1):
            return False
        place = self._place + step
        if not 0 <= place <= len(self._history):
            return False
        self._written[self._place] = self.text
        self._place = place
        self.text = self._written.get(place, self._history[place] if place < len(self._history) else "")
        self.move_cursor((0, 0) if step < 0 else self.document.end)
        return True

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return not (action == "leave" and self.busy)

    def action_send(self) -> None:
        if self.text.strip():
            self.post_message(self.Sent(self.text))

    def action_newline(self) -> None:
        self.insert("\n")

    def action_leave(self) -> None:
        self.post_message(self.Left())
