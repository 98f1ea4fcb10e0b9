"""What a long-running function sees of its caller: a way to report and a way to be stopped. Stdlib only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Optional


class Job:
    """Progress sink and cancellation point handed to every function that may take longer than 0.3 s.

    The base class ignores progress and never cancels; the session's lanes pass one that sends events.
    """

    def progress(self, phase: str, done: int, total: Optional[int] = None, unit: str = "", detail: str = "") -> None:
        """Report real counts.

        Args:
            phase: what is happening, lower case, such as ``download`` or ``weights``.
            done: how many units are finished.
            total: how many there are, or None when unknown.
            unit: ``bytes``, ``tensors``, ``layers``, ``tokens``, ``files`` or ``rows``.
            detail: the item at hand, such as a file or tensor name.
        """

    def check(self) -> None:
        """Raise `JobCancelled` if the caller asked to stop; cheap enough to call once per token or tensor."""


SILENT = Job()
_RUNNING: ContextVar[Job] = ContextVar("job", default=SILENT)


@contextlib.contextmanager
def running(job: Job) -> Iterator[None]:
    """Make `job` the one that `running_job` gives on this thread."""
    before = _RUNNING.set(job)
    try:
        yield
    finally:
        _RUNNING.reset(before)


def running_job() -> Job:
    """The job of this thread, for what is called so deep and often that no job is handed down to it."""
    return _RUNNING.get()
