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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import workbench
from workbench.doctor.stuck import Watch, evidence_of
from workbench.job import Job
from workbench.processes import end_group

_STDERR_HEAD, _STDERR_TAIL = 8000, 8000
_POLL_SECONDS = 0.1
_WAIT_SECONDS = 1.0


class Stuck(Exception):
    """A child did not come on.

    Attributes:
        idle_seconds: for how long it has done nothing; None where that cannot be told.
    """

    def __init__(self, seconds: float, idle_seconds: Optional[float], idle_limit: float) -> None:
        idle = idle_seconds is not None and idle_seconds >= idle_limit
        how = f"hangs: it has done nothing for {idle_seconds:.0f} s" if idle else f"did not finish within {seconds:g} s"
        super().__init__(how)
        self.idle_seconds = idle_seconds


@dataclass(frozen=True)
class Limits:
    """How long one event of a child may take."""

    total_seconds: float
    idle_seconds: float
    """While it does nothing at all: no processor time, nothing read."""


@dataclass(frozen=True)
class Waiting:
    """Still no event from the child."""

    seconds: float
    idle_seconds: Optional[float]

    def __str__(self) -> str:
        idle = f", idle for {self.idle_seconds:.0f} s" if (self.idle_seconds or 0) >= 3 else ""
        return f"{self.seconds:.0f} s{idle}"


class Child:
    """``python -m MODULE ARGUMENTS`` under this very interpreter.

    Args:
        module: what to run.
        arguments: its command line.
        environ: the whole environment; that of this process if None.
    """

    def __init__(self, module: str, arguments: list[str], environ: Optional[Mapping[str, str]] = None) -> None:
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
            env=dict(os.environ if environ is None else environ),
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

    def events(self, job: Job, limits: Limits) -> Iterator[Union[dict[str, Any], Waiting]]:
        """The child's events, and a `Waiting` for each second without one; the limits count from the last event.

        Raises:
            Stuck: when nothing came within the limits.
            JobCancelled: if the caller asked to stop.
        """
        watch = Watch(self._process.pid)
        started = told = time.monotonic()
        while True:
            job.check()
            try:
                line = self._lines.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                now = time.monotonic()
                if now - told >= _WAIT_SECONDS or now - started >= limits.total_seconds:
                    told, idle = now, watch.idle_seconds()
                    if now - started >= limits.total_seconds or (idle or 0.0) >= limits.idle_seconds:
                        raise Stuck(limits.total_seconds, idle, limits.idle_seconds) from None
                    yield Waiting(now - started, idle)
                continue
            if line is None:
                return
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    yield event
                    started = told = time.monotonic()
                    watch.restart()

    def why_stuck(self, offset: int, location: Optional[str]) -> dict[str, str]:
        """What tells why it does not come on; see `workbench.doctor.stuck.evidence_of`."""
        return evidence_of(self._process.pid, lambda: self.stderr_since(offset), location)

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
        end_group(self._process)
        self._stderr.close()
