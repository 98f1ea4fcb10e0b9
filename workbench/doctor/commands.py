"""Running the system's own diagnostic commands side by side, none of which may hang us. Stdlib only."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

MAX_OUTPUT_BYTES = 4 * 2**20


@dataclass(frozen=True)
class Output:
    """What a command printed; `code` is None when it was not found or did not end in time."""

    code: Optional[int]
    text: str
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        """Whether it ended with success."""
        return self.code == 0


class Command:
    """A command started at once and collected later, so that several run side by side."""

    def __init__(self, *arguments: str, environ: Optional[Mapping[str, str]] = None) -> None:
        # A file, not a pipe: nobody has to read while it runs, and it can never block on us.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  (closed in finish)
        self._process: Optional[subprocess.Popen[bytes]] = None
        environment = {**(os.environ if environ is None else environ), "LC_ALL": "C"}
        with contextlib.suppress(OSError, ValueError):
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process is not None and self._process.poll() is None

    def finish(self, deadline: float) -> Output:
        """What it printed, waiting until `deadline` on the monotonic clock at most."""
        try:
            if self._process is None:
                return Output(None, "")
            code, timed_out = _wait(self._process, deadline)
            self._output.seek(0)
            text = self._output.read(MAX_OUTPUT_BYTES).decode("utf-8", "replace")
            return Output(code, text, timed_out)
        finally:
            self._output.close()


def _wait(process: subprocess.Popen[Any], deadline: float) -> tuple[Optional[int], bool]:
    try:
        return process.wait(max(0.0, deadline - time.monotonic())), False
    except subprocess.TimeoutExpired:
        process.kill()
        # A process stuck in the kernel does not die; leave it rather than wait with it.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
        return None, True
