"""What is being written, kept in files of the user's alone: a lost terminal takes nothing with it."""

from __future__ import annotations

from pathlib import Path

from textual.message import Message
from textual.timer import Timer
from textual.widget import Widget

from workbench.errors import WorkbenchError
from workbench.paths import ensure_private_dir, state_dir, write_atomic

MOST_BYTES = 2**20
CHAT, TOKENS, PLAN = "chat-draft.txt", "tokens-draft.txt", "plan-draft.json"
"""The message, the text being counted, the plan."""
QUIET_SECONDS = 1.0
"""No key for so long, and a draft is written."""


def _path(name: str) -> Path:
    return state_dir() / name


def read_draft(name: str) -> str:
    """What stood there when the app ended; empty if nothing did, or if it cannot be read."""
    try:
        with _path(name).open("rb") as file:
            return file.read(MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


class DraftLost(Message):
    """A draft could not be kept."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


def write_draft(name: str, text: str) -> str:
    """Keep a draft; an empty one is forgotten, nor is a giant kept. Returns why it could not be, else nothing."""
    path, data = _path(name), text.encode("utf-8", "replace")
    try:
        if data and len(data) <= MOST_BYTES:
            ensure_private_dir(path.parent)
            write_atomic(path, data)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        return f"{path.parent}: {error.strerror or error}."
    except WorkbenchError as error:
        return error.message
    return ""


class DraftKeeper:
    """Writes a draft once nothing was typed for a moment, and when its part of the screen goes.

    Args:
        owner: whose draft it is.
        name: `CHAT`, `TOKENS` or `PLAN`.
    """

    def __init__(self, owner: Widget, name: str) -> None:
        self._owner, self._name = owner, name
        self._text: str | None = None
        """As it stands now; None while nothing was changed since it was written."""
        self._timer: Timer | None = None

    def changed(self, text: str) -> None:
        """Note the draft as it stands."""
        self._text = text
        if self._timer is not None:
            self._timer.stop()
        self._timer = self._owner.set_timer(QUIET_SECONDS, self._write_soon)

    def _write_soon(self) -> None:
        # In a thread: a slow disk must not be felt while typing.
        self._owner.run_worker(self.keep, thread=True, group="draft", exclusive=True, exit_on_error=False)

    def keep(self, latest: str | None = None) -> None:
        """Write it now, if there is anything new: `latest`, or what was noted last."""
        text, self._text = self._text if latest is None else latest, None
        if text is not None:
            reason = write_draft(self._name, text)
            if reason and text:
                self._owner.post_message(DraftLost(reason))
