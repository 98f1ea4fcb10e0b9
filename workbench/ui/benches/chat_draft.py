"""The message being written, kept in a file of the user's alone: a lost terminal takes nothing with it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.paths import ensure_private_dir, state_dir, write_atomic

MOST_BYTES = 2**20


def _path() -> Path:
    return state_dir() / "chat-draft.txt"


def read_draft() -> str:
    """What was being written when the app ended; empty if nothing was, or if it cannot be read."""
    try:
        with _path().open("rb") as file:
            return file.read(MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


def write_draft(text: str) -> None:
    """Keep a message being written; an empty one is forgotten. A disk that is full or read-only keeps none."""
    path = _path()
    with contextlib.suppress(OSError, WorkbenchError):
        if text:
            ensure_private_dir(path.parent)
            write_atomic(path, text.encode("utf-8", "replace"))
        else:
            path.unlink(missing_ok=True)
