"""The terminal goes away under the app: nothing crashes, nobody is left, the session stays."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import threading

import pytest

from tests.faults.box import Box, until
from tests.faults.table import fault
from workbench.session.lock import lock_holder


class App:
    """The real app on a pseudo-terminal that is its controlling one."""

    def __init__(self, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(80, 24)
        environment = {**os.environ, "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workbench", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.output = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while True:
                if select.select([self.master], [], [], 0.1)[0]:
                    self.output += os.read(self.master, 65536)
        except (OSError, ValueError):
            return

    def resize(self, width: int, height: int) -> None:
        """As a terminal does: the size, and the signal to the foreground process."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def shows(self, text: str) -> bool:
        return text.encode() in self.output

    def hang_up(self) -> None:
        """The terminal is closed: the kernel sends SIGHUP to the process."""
        master, self.master = self.master, -1
        self._reader.join(0.3)
        os.close(master)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.mark.e2e
@fault(
    "terminal closed under the app",
    "the pseudo-terminal's master closed (SIGHUP)",
    "the app is gone, no process of it left; the session goes on and the next one attaches",
)
async def test_closed(box: Box) -> None:
    app = App("--session", box.name, "--bench", "doctor")
    try:
        await until(lambda: app.shows("Doctor") and lock_holder(box.files.worker_lock) is not None)
        before = await box.must_work()
        app.hang_up()
        await until(lambda: app.process.poll() is not None, "the app stays without its terminal")
        assert b"Traceback" not in app.output
    finally:
        app.end()
    assert (await box.must_work()).pid == before.pid
