"""A child process of this interpreter that prints JSON lines, watched for crashes and hangs. Stdlib only."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import workbench
from workbench.job import Job

STDERR_OFFSET = "stderr_offset"
_STDERR_HEAD, _STDERR_TAIL = 8000, 8000
_POLL_SECONDS = 0.1


def stderr_offset() -> int:
    """In the child: where standard error stands now, to be told in a step's first event.

    The parent cannot ask: by the time it reads the event, the step may have written and died.
    """
    try:
        return os.lseek(2, 0, os.SEEK_CUR)
    except OSError:
        return 0


class Child:
    """``python -m MODULE ARGUMENTS`` under this very interpreter, with the environment that it has."""

    def __init__(self, module: str, arguments: list[str], environ: Optional[dict[str, str]] = None) -> None:
        # The package's own folder goes last on the path: it must be importable, but shadow nothing. The entry
        # for the current directory goes: a folder named torch there is nothing that the user's programs see.
        root = str(Path(workbench.__path__[0]).parent)
        boot = (
            f"import runpy, sys; sys.path[:] = [p for p in sys.path if p]; sys.path.append({root!r}); "
            f"sys.argv = [{module!r}, *sys.argv[1:]]; runpy.run_module({module!r}, run_name='__main__')"
        )
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed in close)
        self._lines: queue.Queue[Optional[str]] = queue.Queue()
        self._process = subprocess.Popen(
            [sys.executable, "-c", boot, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, **(environ or {})},
            start_new_session=True,
        )
        threading.Thread(target=self._pump, daemon=True).start()

    def _pump(self) -> None:
        stream = self._process.stdout
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                for line in iter(lambda: stream.readline(2**20), b""):
                    self._lines.put(line.decode("utf-8", "replace"))
        self._lines.put(None)

    def events(self, job: Job, limit_seconds: float) -> Iterator[dict[str, Any]]:
        """The child's events; the limit counts from the last one.

        Raises:
            TimeoutError: when nothing came for `limit_seconds`.
            JobCancelled: if the caller asked to stop.
        """
        deadline = time.monotonic() + limit_seconds
        while True:
            job.check()
            try:
                line = self._lines.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if time.monotonic() > deadline:
                    raise TimeoutError from None
                continue
            if line is None:
                return
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    deadline = time.monotonic() + limit_seconds
                    yield event

    def ended(self) -> tuple[Optional[int], Optional[str]]:
        """Exit code and, if a signal ended it, the signal's name; to be asked after the last event."""
        try:
            code = self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            return None, None
        if code >= 0:
            return code, None
        try:
            return code, signal.Signals(-code).name
        except ValueError:
            return code, f"signal {-code}"

    def stderr_since(self, offset: int) -> str:
        """Standard error from `offset`: its start and its end, for the first error outranks the last."""
        size = os.fstat(self._stderr.fileno()).st_size - offset
        if size <= _STDERR_HEAD + _STDERR_TAIL:
            return os.pread(self._stderr.fileno(), max(0, size), offset).decode("utf-8", "replace").strip()
        head = os.pread(self._stderr.fileno(), _STDERR_HEAD, offset)
        tail = os.pread(self._stderr.fileno(), _STDERR_TAIL, offset + size - _STDERR_TAIL)
        left_out = f"\n[… {size - _STDERR_HEAD - _STDERR_TAIL} bytes left out …]\n"
        return head.decode("utf-8", "replace").strip() + left_out + tail.decode("utf-8", "replace").strip()

    def close(self) -> None:
        """End it and all that it started."""
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        # A process stuck in the kernel does not die; leave it rather than wait with it.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        if self._process.poll() is not None and self._process.stdout is not None:
            self._process.stdout.close()
        self._stderr.close()
