"""What a child process does for the parent that watches it; imports next to nothing. Stdlib only."""

from __future__ import annotations

import faulthandler
import os
import signal

STDERR_OFFSET = "stderr_offset"
STACK_SIGNAL = getattr(signal, "SIGUSR2", None)
"""Makes a child write the Python stacks of its threads to standard error."""


def stderr_offset() -> int:
    """Where standard error stands now, to be told in a step's first event.

    The parent cannot ask: by the time it reads the event, the step may have written and died.
    """
    try:
        return os.lseek(2, 0, os.SEEK_CUR)
    except OSError:
        return 0


def answer_with_stacks() -> None:
    """Let the parent ask where we are."""
    if STACK_SIGNAL is not None:
        faulthandler.register(STACK_SIGNAL, all_threads=True)
