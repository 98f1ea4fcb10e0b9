"""The one exception that crosses layers, and the one that says "stopped on request". Stdlib only."""

from __future__ import annotations


class WorkbenchError(Exception):
    """A failure a user can act on.

    It travels over the session socket as data and ends as one line: what failed, on what, what to do.

    Attributes:
        kind: stable kebab-case identifier, such as ``unknown-model`` or ``out-of-memory``.
        message: one sentence naming what failed and the input it failed on.
        remedy: one sentence or a command saying what to do; may be empty.
        details: anything longer (traceback, library message); shown one key away.
    """

    def __init__(self, kind: str, message: str, remedy: str = "", details: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.remedy = remedy
        self.details = details

    def __str__(self) -> str:
        message = self.message if self.message.endswith((".", "!", "?", "…", ":")) else f"{self.message}."
        return f"{message} {self.remedy}".strip()


class JobCancelled(Exception):
    """Raised inside a job at the next check after the user asked it to stop."""
