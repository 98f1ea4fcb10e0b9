"""The terminal goes away or changes under the app: nothing crashes, nobody is left, the session stays."""

from __future__ import annotations

import asyncio
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

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(80, 24)
        environment = {**os.environ, "TERM": "xterm-256color", **environment}
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
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while not self._ended.is_set():
                if select.select([self.master], [], [], 0.1)[0]:
                    self.output += os.read(self.master, 65536)
        except OSError:
            return

    def resize(self, width: int, height: int) -> None:
        """As a terminal does: the size, and the signal to the foreground process."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def shows(self, text: str) -> bool:
        return text.encode() in self.output

    async def quiet(self) -> None:
        """Wait until a while has passed without output."""
        seen = -1
        while seen != len(self.output):
            seen = len(self.output)
            await asyncio.sleep(0.4)

    def stop_reading(self) -> None:
        """As a connection that hangs: what the app writes stays in the kernel's buffer."""
        self._ended.set()
        self._reader.join()

    def hang_up(self) -> None:
        """The terminal is closed: the kernel sends SIGHUP to the process."""
        self.stop_reading()
        os.close(self.master)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.mark.e2e
@fault(
    "terminal resized to 1×1 and back, many times, on every bench",
    "bursts of window sizes with SIGWINCH on a pseudo-terminal, as it starts and later",
    "no crash; drawn whole at the size that it settles at",
)
async def test_resized(box: Box) -> None:
    app = App("--session", box.name, "--bench", "doctor", COLUMNS="132", LINES="50")
    try:
        await until(lambda: app.shows("Doctor"))
        for key in "12345":
            for size in 5 * ((1, 1), (200, 60), (19, 4), (2, 60), (200, 1), (80, 24)):
                app.resize(*size)
                await asyncio.sleep(0.002)
            os.write(app.master, f"\x1b{key}".encode())
        await app.quiet()
        app.output = b""
        for _ in range(3):
            # Within one frame, so that the size is never another one when the app looks.
            app.resize(1, 1)
            app.resize(80, 24)
        await until(lambda: all(app.shows(name) for name in ("Doctor", "Chat", "\x1b[24;1H")), "it is not drawn again")
        assert app.process.poll() is None
    finally:
        app.end()


@pytest.mark.e2e
@fault(
    "terminal closed under the app",
    "the pseudo-terminal's master closed (SIGHUP) as it paints, much of it unread",
    "the app is gone, no process of it left; the session goes on and the next one attaches",
)
async def test_closed(box: Box) -> None:
    app = App("--session", box.name, "--bench", "doctor")
    try:
        await until(lambda: app.shows("Doctor") and lock_holder(box.files.worker_lock) is not None)
        before = await box.must_work()
        app.stop_reading()
        for number in range(30):
            app.resize(80 + number % 2, 24)
            await asyncio.sleep(0.05)
        app.hang_up()
        await until(lambda: app.process.poll() is not None, "the app stays without its terminal")
        assert b"Traceback" not in app.output
    finally:
        app.end()
    assert (await box.must_work()).pid == before.pid
