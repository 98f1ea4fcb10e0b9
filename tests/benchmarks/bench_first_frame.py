"""Time to the first frame of the workbench beside a bare Textual app, in one run on a pseudo-terminal.

    python -m tests.benchmarks.bench_first_frame [--rounds 7]

Both are started in turns as fresh processes on a 120 by 36 pseudo-terminal. A frame counts as there when its first
real text has arrived. CPU seconds are those of the process and its threads, measured when the text arrives; on a busy
machine they are steadier than the wall clock. The session is not part of it: it is opened after the first frame.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import select
import signal
import statistics
import struct
import sys
import tempfile
import termios
import time
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.table import Row, tell

AIM = 1.25
TIMEOUT_SECONDS = 60.0

BARE = """
from textual.app import App
from textual.widgets import Footer, Header, Static
class Bare(App):
    def compose(self):
        yield Header()
        yield Static("bare-text")
        yield Footer()
Bare().run()
"""

WORKBENCH = """
import sys
sys.argv = ["workbench", "--session", "first-frame", "--bench", "{bench}"]
from workbench.cli import main
main()
"""


@dataclass(frozen=True)
class Start:
    """One start, to its first text."""

    cpu_seconds: float
    wall_seconds: float


def cpu_seconds_of(pid: int) -> float:
    """User and system time of a live process (proc(5), fields 14 and 15 of stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start(code: str, awaited: bytes, home: str) -> Start:
    """Run `code` on a pseudo-terminal until it has written `awaited`."""
    began = time.monotonic()
    pid, terminal = pty.fork()
    if pid == 0:
        environment = {
            **os.environ,
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "XDG_RUNTIME_DIR": home,
            "XDG_CONFIG_HOME": home,
            "XDG_STATE_HOME": home,
        }
        # Installed packages have their bytecode; ours is written in the first round, which is not counted.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        os.execve(sys.executable, [sys.executable, "-c", code], environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 36, 120, 0, 0))
    seen = b""
    try:
        while awaited not in seen:
            if time.monotonic() - began > TIMEOUT_SECONDS:
                raise SystemExit(f"no {awaited!r} within {TIMEOUT_SECONDS:.0f} s; got {seen[-400:]!r}")
            if select.select([terminal], [], [], 0.5)[0]:
                seen += os.read(terminal, 65536)
        return Start(cpu_seconds_of(pid), time.monotonic() - began)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--bench", default="doctor")
    options = parser.parse_args()
    bare: list[Start] = []
    ours: list[Start] = []
    with tempfile.TemporaryDirectory(prefix="wb-", dir="/tmp") as home:
        for number in range(options.rounds + 1):
            one = start(BARE, b"bare-text", home)
            other = start(WORKBENCH.format(bench=options.bench), b"Architecture", home)
            if number:  # the first round fills the file cache
                bare.append(one)
                ours.append(other)
        stop_session(home)
    print(f"{'first frame, median of ' + str(options.rounds):32} {'bare':>8} {'workbench':>10} {'ratio':>7}   aim")
    for name, attribute in (("CPU seconds", "cpu_seconds"), ("wall seconds", "wall_seconds")):
        one_median = statistics.median(getattr(item, attribute) for item in bare)
        other_median = statistics.median(getattr(item, attribute) for item in ours)
        print(f"{name:32} {one_median:8.3f} {other_median:10.3f} {other_median / one_median:7.2f}   {AIM}")
        tell(Row(f"first frame against a bare Textual app, {name}", other_median, one_median, "s", AIM))


def stop_session(home: str) -> None:
    """End the worker that a start may have got as far as to begin."""
    import asyncio

    os.environ["XDG_RUNTIME_DIR"] = home
    from workbench.session.launch import stop_session as stop

    asyncio.run(stop("first-frame", force=True))


if __name__ == "__main__":
    main()
