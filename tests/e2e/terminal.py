"""A real terminal (tmux) with the real program in it, as an SSH user would have."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
import uuid
from collections.abc import Callable


class Terminal:
    """One tmux server with one pane.

    Args:
        command: what runs in the pane.
        width, height: size in cells.
    """

    def __init__(self, *command: str, width: int = 80, height: int = 24) -> None:
        self._socket = f"wb-{uuid.uuid4().hex[:8]}"
        environment = {key: value for key, value in os.environ.items() if key not in ("TMUX", "TMUX_PANE")}
        environment["TERM"] = "xterm-256color"
        # The pane outlives the program, so that its last words can be read.
        line = f'{shlex.join(command)}; echo "left with $?"; exec sleep 1000'
        subprocess.run(
            [
                *("tmux", "-L", self._socket, "-f", "/dev/null", "new-session", "-d"),
                *("-x", str(width), "-y", str(height), line),
            ],
            check=True,
            env=environment,
        )

    def _tmux(self, *arguments: str) -> str:
        done = subprocess.run(["tmux", "-L", self._socket, *arguments], check=True, capture_output=True, text=True)
        return done.stdout

    def keys(self, *names: str) -> None:
        """Press keys by tmux's names, such as ``Enter``, ``C-o``, ``F5``."""
        for name in names:
            self._tmux("send-keys", name)
            time.sleep(0.15)

    def type(self, text: str) -> None:
        """Type text as it is."""
        self._tmux("send-keys", "-l", text)

    def send_bytes(self, data: bytes) -> None:
        """Send raw bytes, as a terminal would."""
        self._tmux("send-keys", "-H", *(f"{byte:02x}" for byte in data))

    def screen(self) -> str:
        """What the terminal shows now."""
        return self._tmux("capture-pane", "-p")

    def wait_for(self, *texts: str, seconds: float = 30.0) -> str:
        """Wait until all `texts` are on the screen, in one line or wrapped; returns it."""
        shown = lambda screen: all(text in screen or text in unwrapped(screen) for text in texts)  # noqa: E731
        return self.wait_until(shown, seconds, f"never showed {texts}")

    def wait_until(self, condition: Callable[[str], bool], seconds: float, complaint: str) -> str:
        """Wait until the screen meets a condition; returns it."""
        deadline = time.monotonic() + seconds
        while not condition(screen := self.screen()):
            assert time.monotonic() < deadline, f"{complaint}:\n{screen}"
            time.sleep(0.1)
        return screen

    def kill(self) -> None:
        """The terminal is closed under the program, as when a connection drops (SIGHUP)."""
        subprocess.run(["tmux", "-L", self._socket, "kill-server"], check=False, capture_output=True)


def unwrapped(screen: str) -> str:
    """The words of a screen without its frame, so that a wrapped sentence is found whole."""
    return " ".join(word for word in screen.split() if word not in ("│", "▏", "▕", "┃", "▌"))
