"""Child processes and their end. Stdlib only."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import Any

END_SECONDS = 1.0


def end_group(child: subprocess.Popen[Any]) -> None:
    """Kill a child that was started with ``start_new_session``, and all that it started; its pipes are closed.

    A process stuck in the kernel does not die: it is left after `END_SECONDS` rather than waited for.
    """
    with contextlib.suppress(OSError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(END_SECONDS)
    if child.poll() is None:
        return
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
