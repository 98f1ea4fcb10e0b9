"""A child process that answers requests in lines of JSON, and is killed rather than asked to stop. Stdlib only.

A request is one line; the answers are any number of ``{"progress": […]}`` and then one ``{"result": {…}}`` or
``{"error": [kind, message, remedy, details]}``.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Optional

import workbench
from workbench.errors import WorkbenchError
from workbench.job import Job
from workbench.processes import end_group

_POLL_SECONDS = 0.1
_MAX_ANSWER_BYTES = 32 * 2**20


class Told(Job):
    """The child's side: progress as lines on standard output; the parent kills instead of asking to stop."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def progress(self, phase: str, done: int, total: Optional[int] = None, unit: str = "", detail: str = "") -> None:
        write(self._stream, {"progress": [phase, done, total, unit, detail]})


def write(stream: Any, message: dict[str, Any]) -> None:
    """One message as one line."""
    stream.write(json.dumps(message) + "\n")
    stream.flush()


def answers_stream() -> Any:
    """The child's standard output, kept for answers; what libraries print goes to standard error from now on."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return output


class ChildProcess:
    """The child, started when it is needed and kept until it ends or is closed.

    Args:
        module: run as ``__main__`` under this interpreter.
        name: what it makes; a death is the error ``<name>-died``.
        remedy: what a user can do when it died.
        environment: set beside the parent's own.
    """

    def __init__(self, module: str, name: str, remedy: str, environment: dict[str, str]) -> None:
        self._module = module
        self._name = name
        self._remedy = remedy
        self._environment = environment
        self._lock = threading.Lock()
        self._child: Optional[subprocess.Popen[bytes]] = None
        self._errors: Any = None
        atexit.register(self.close)

    @property
    def is_running(self) -> bool:
        """Whether there is a child."""
        return self._child is not None and self._child.poll() is None

    def ask(self, request: dict[str, Any], job: Job, once: bool = False) -> dict[str, Any]:
        """Have one request answered; requests wait for each other.

        Args:
            request: sent.
            job: told the child's progress; cancelling kills it.
            once: end the child afterwards, however it went.

        Raises:
            WorkbenchError: as the child answers; ``<name>-died``.
            JobCancelled: if the caller asked to stop.
        """
        while not self._lock.acquire(timeout=_POLL_SECONDS):
            job.check()
        try:
            return self._ask(request, job)
        except BaseException as error:
            if not isinstance(error, WorkbenchError) or error.kind == f"{self._name}-died":
                self.close()
            raise
        finally:
            if once:
                self.close()
            self._lock.release()

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            end_group(child)

    def _ask(self, request: dict[str, Any], job: Job) -> dict[str, Any]:
        line = json.dumps(request).encode("utf-8") + b"\n"
        child = self._running()
        try:
            _send(child, line)
        except OSError:
            # It went to sleep for good between two requests.
            self.close()
            child = self._running()
            _send(child, line)
        for message in self._messages(child, job):
            if "progress" in message:
                job.progress(*message["progress"])
            elif "error" in message:
                raise WorkbenchError(*message["error"])
            else:
                result: dict[str, Any] = message["result"]
                return result
        raise self._died(child)

    def _messages(self, child: subprocess.Popen[bytes], job: Job) -> Any:
        assert child.stdout is not None
        pending = b""
        while True:
            job.check()
            if not select.select([child.stdout], [], [], _POLL_SECONDS)[0]:
                continue
            data = os.read(child.stdout.fileno(), 2**16)
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            if len(pending) > _MAX_ANSWER_BYTES:
                return
            for line in lines:
                yield json.loads(line)

    def _died(self, child: subprocess.Popen[bytes]) -> WorkbenchError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(1.0)
        code = child.returncode
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        self._errors.seek(0)
        text = self._errors.read()[-6000:].decode("utf-8", "replace")
        message = f"The process of this {self._name} ended {how}."
        return WorkbenchError(f"{self._name}-died", message, self._remedy, text)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            self._errors.seek(0)
            self._errors.truncate()
            return self._child
        self.close()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the child)
        root = str(Path(workbench.__path__[0]).parent)
        # The package's own folder goes last on the path: importable, but it shadows nothing of the interpreter.
        boot = (
            f"import runpy, sys; sys.path[:] = [p for p in sys.path if p]; sys.path.append({root!r}); "
            f"runpy.run_module({self._module!r}, run_name='__main__')"
        )
        self._child = subprocess.Popen(
            [sys.executable, "-c", boot],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **self._environment},
            start_new_session=True,
        )
        return self._child


def _send(child: subprocess.Popen[bytes], line: bytes) -> None:
    assert child.stdin is not None
    child.stdin.write(line)
    child.stdin.flush()
