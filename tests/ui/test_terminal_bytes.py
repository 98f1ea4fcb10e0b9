"""What really reaches the terminal: the app in a process of its own on a pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOSTILE_COMMANDS = (
    b"\x1b]52;c;ZXZpbA==", b"\x1b]0;pwned", b"\x1b]8;;http", b"\x9b31m", b"\x1bP+q", b"\x00", b"\x0e", b"\x7f",
    "\u202e".encode(), "\u2066".encode(), "\u200b".encode(), "\x9b".encode(), "\x90".encode(),
)  # fmt: skip


class Terminal:
    """A pseudo-terminal with a program on it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.written = b""

    def read(self, seconds: float) -> bytes:
        """All that comes within `seconds`."""
        came = b""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self.descriptor], [], [], left)[0]:
                try:
                    came += os.read(self.descriptor, 65536)
                except OSError:
                    break
        self.written += came
        return came

    def read_until(self, text: bytes) -> None:
        """Read until `text` has come."""
        for _ in range(200):
            if text in self.written:
                return
            self.read(0.1)
        raise AssertionError(f"{text!r} did not come; last: {self.written[-500:]!r}")

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())


@contextmanager
def program(module: str) -> Iterator[Terminal]:
    pid, descriptor = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "TEXTUAL_ANIMATIONS": "none"}
        os.execve(sys.executable, [sys.executable, "-m", module], environment)
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 36, 120, 0, 0))
    try:
        yield Terminal(descriptor)
    finally:
        os.close(descriptor)
        for _ in range(50):
            if os.waitpid(pid, os.WNOHANG)[0]:
                break
            time.sleep(0.1)
        else:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_no_hostile_string_reaches_the_terminal_as_a_command_and_idle_it_writes_next_to_nothing() -> None:
    with program("tests.stubs.hostile_app") as terminal:
        terminal.read_until(b"FINDINGS")
        terminal.read(1.5)
        assert len(terminal.read(2.0)) < 200
        for keys in (
            "\x1b[B",
            "\x1bOR",
            "\x1bOS",
            "\x1b[15~",
            "hello\r",
            "\x0f",
            "\x1b",
            "\x1b[20~",
            "\x1b",
            "\x10",
            "\x1b",
        ):
            terminal.type(keys)
            terminal.read(0.4)
        assert b"nope" in terminal.written
        for command in HOSTILE_COMMANDS:
            assert command not in terminal.written, command
        # What the program itself sends is there, so the check above looked at the right bytes.
        assert re.search(rb"\x1b\[\?1049h", terminal.written)
