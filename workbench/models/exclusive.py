"""One process at a time makes a thing in the cache; the others wait and can be cancelled. Stdlib only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from workbench.job import Job

POLL_SECONDS = 0.1


@contextlib.contextmanager
def exclusive(lock_path: Path, job: Job, waiting_for: str) -> Iterator[None]:
    """Hold the lock file at `lock_path`; the kernel frees it when the holder dies.

    Raises:
        JobCancelled: if the job is stopped while it waits.
    """
    lock_path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                job.progress("waiting", 0, None, "", f"another session {waiting_for}")
                job.check()
                time.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)
