"""The real app on a pseudo-terminal that is its controlling one."""

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
        """Whether this was written, in one piece."""
        return text.encode() in self.output

    def press(self, keys: str) -> None:
        """Send keys as a terminal does."""
        os.write(self.master, keys.encode("utf-8", "replace"))

    def paste(self, text: str) -> None:
        """Send a bracketed paste."""
        self.press(f"\x1b[200~{text}\x1b[201~")

    async def quiet(self, seconds: float = 0.4) -> None:
        """Wait until that long nothing was written."""
        seen = -1
        while seen != len(self.output):
            seen = len(self.output)
            await asyncio.sleep(seconds)

    def stop_reading(self) -> None:
        """As a connection that hangs: what the app writes stays in the kernel's buffer."""
        self._ended.set()
        self._reader.join()

    def hang_up(self) -> None:
        """The terminal is closed: the kernel sends SIGHUP to the process."""
        self.stop_reading()
        os.close(self.master)

    def end(self) -> None:
        """Kill it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
