"""Bytes a second that reach the terminal, on a pseudo-terminal of 80x24: streaming, idle, and switching benches.

    python -m tests.benchmarks.bench_terminal_bytes [--seconds N]

The app of the workbench, on a scripted session that writes 50 tokens/s of Markdown in the pieces and with the status
that a real one sends, beside a plain Textual app that streams the same text into a Markdown widget. Locally, as over
SSH, and with --slow-link. "idle" is with gauges that change every second.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import fcntl
import itertools
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from typing import Any

from tests.benchmarks.table import Row, tell

TOKENS_PER_SECOND = 50
EVENTS_PER_SECOND = 15
STATUS_PER_SECOND = 6
PARAGRAPH = (
    "## A heading\n\nSome *prose* with `code` in it, long enough to be wrapped by a terminal of eighty columns, and a "
    "list:\n\n* first\n* second\n\n```python\ndef answer(question: str) -> int:\n    return 42  # as ever\n```\n\n"
)
CHARACTERS_A_TOKEN = 4
AIMS = {"ssh": 14_000, "slow link": 6_000, "idle": 200}
LINKS: dict[str, dict[str, str]] = {
    "local": {},
    "ssh": {"SSH_CONNECTION": "192.0.2.1 1 192.0.2.2 22"},
    "slow link": {"WORKBENCH_BENCH_SLOW": "1"},
}


def pieces() -> list[str]:
    """The text of each event, for an hour."""
    size = TOKENS_PER_SECOND * CHARACTERS_A_TOKEN
    text = PARAGRAPH * 50
    edges = [number * size // EVENTS_PER_SECOND for number in range(len(text) * EVENTS_PER_SECOND // size)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


def run_workbench(idle: bool) -> None:
    """The app on a scripted session that answers as fast as a real one."""
    from workbench.ui.environment import prepare_environment

    prepare_environment(bool(os.environ.get("WORKBENCH_BENCH_SLOW")))
    from tests.stubs import scripted_data as data
    from tests.stubs.scripted_session import ScriptedSession
    from workbench.session import protocol
    from workbench.session.protocol import LaneStatus
    from workbench.settings import Settings
    from workbench.ui.app import WorkbenchApp
    from workbench.ui.gauges import Gauges, GpuGauge
    from workbench.ui.terminal_input import TerminalDriver

    class Streaming(ScriptedSession):
        async def _answer(self, end: Any, request_id: int, request: Any) -> None:
            if not isinstance(request, protocol.Generate):
                await super()._answer(end, request_id, request)
                return
            end.write(protocol.encode(request_id, protocol.AnswerStarted("1", 38)))
            for number, piece in enumerate(pieces()):
                done = number * TOKENS_PER_SECOND // EVENTS_PER_SECOND
                end.write(protocol.encode(request_id, protocol.TokensGenerated(piece, done, "1")))
                if number % (EVENTS_PER_SECOND // STATUS_PER_SECOND) == 0:
                    lanes = (LaneStatus("model", "generate", "decode", done, 4096, "tokens"),)
                    self.set_status(lanes=lanes, tokens_per_second=50 + number % 7 / 10)
                await asyncio.sleep(1 / EVENTS_PER_SECOND)

    session = Streaming(dataclasses.replace(data.STATUS, model=data.MODEL))
    tick = iter(range(10**9))

    def gauges() -> Gauges:
        used = int((5.7 + next(tick) % 9 / 100) * 2**30)
        return Gauges(gpus=(GpuGauge("NVIDIA L4", used, int(22.5 * 2**30), 30 + next(tick) % 9),))

    app = WorkbenchApp(
        Settings(),
        session.open,
        bench="doctor" if idle else "chat",
        model=data.MODEL.name,
        make_gauges=lambda: gauges,
        remember=False,
    )
    app.driver_class = TerminalDriver
    app.run()


def run_plain() -> None:
    """What Textual's documentation shows for a streaming answer."""
    from textual.app import App, ComposeResult
    from textual.containers import VerticalScroll
    from textual.widgets import Markdown

    class Plain(App[None]):
        def compose(self) -> ComposeResult:
            with VerticalScroll():
                yield Markdown()

        async def on_key(self) -> None:
            self.run_worker(self.stream())

        async def stream(self) -> None:
            self.query_one(VerticalScroll).anchor()
            stream = Markdown.get_stream(self.query_one(Markdown))
            for piece in pieces():
                await stream.write(piece)
                await asyncio.sleep(1 / EVENTS_PER_SECOND)

    Plain().run()


class Measured:
    """A program on a pseudo-terminal."""

    def __init__(self, child: str, link: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **LINKS[link]}
        command = [sys.executable, "-m", "tests.benchmarks.bench_terminal_bytes", "--child", child]
        self._process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)

    def read(self, seconds: float) -> int:
        """Bytes written in that time."""
        count, until = 0, time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self._master], [], [], left)[0]:
                count += len(os.read(self._master, 65536))
        return count

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)


def streaming(child: str, link: str, seconds: float) -> float:
    """Bytes a second of a growing answer, once it fills the screen."""
    measured = Measured(child, link)
    try:
        measured.read(4)
        measured.type("hello\r" if child == "workbench" else "x")
        measured.read(6)
        return measured.read(seconds) / seconds
    finally:
        measured.end()


def idle(seconds: float) -> float:
    """Bytes a second with nothing but gauges that change."""
    measured = Measured("idle", "ssh")
    try:
        measured.read(5)
        return measured.read(seconds) / seconds
    finally:
        measured.end()


def switching() -> float:
    """Bytes of one switch of benches, once each has been seen."""
    measured = Measured("idle", "ssh")
    keys = ("\x1bOP", "\x1bOQ", "\x1bOR", "\x1bOS", "\x1b[15~")
    try:
        measured.read(4)
        for key in keys:
            measured.type(key)
            measured.read(2)
        total = 0
        for key in keys:
            measured.type(key)
            total += measured.read(1)
        return total / len(keys)
    finally:
        measured.end()


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--child", choices=["workbench", "idle", "plain"])
    given = parser.parse_args()
    if given.child:
        run_plain() if given.child == "plain" else run_workbench(given.child == "idle")
        return
    print(f"{'':24}{'bytes/s':>10}{'aim':>10}")
    plain = streaming("plain", "local", given.seconds)
    row("plain, local", plain, None)
    for link in LINKS:
        found, aim = streaming("workbench", link, given.seconds), AIMS.get(link)
        row(f"workbench, {link}", found, aim)
        what = f"bytes to the terminal while streaming, {link}, against a plain Textual app"
        tell(Row(what, found, plain, "B/s", aim / plain if aim else None))
    found, aim = idle(given.seconds), AIMS["idle"]
    row("workbench, idle", found, aim)
    tell(Row("bytes to the terminal when idle with gauges, against the aim", found, aim, "B/s", 1.0))
    row("one switch, bytes", switching(), None)


def row(name: str, found: float, aim: int | None) -> None:
    print(f"{name:24}{found:>10,.0f}{f'{aim:,}' if aim else '':>10}", flush=True)


if __name__ == "__main__":
    main()
