"""The terminal goes away or changes under the app: nothing crashes, nobody is left, the session stays."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.app_on_terminal import App
from tests.faults.box import Box, until
from tests.faults.table import fault, faults
from workbench.session.lock import lock_holder


@contextlib.contextmanager
def running(box: Box, bench: str = "tokens", **environment: str) -> Iterator[App]:
    """The app on the box's session."""
    app = App("--session", box.name, "--bench", bench, **environment)
    try:
        yield app
    finally:
        app.end()


@pytest.mark.e2e
@fault(
    "terminal resized to 1×1 and back, many times, on every bench",
    "bursts of window sizes with SIGWINCH on a pseudo-terminal, as it starts and later",
    "no crash; drawn whole at the size that it settles at",
)
async def test_resized(shared_box: Box) -> None:
    with running(shared_box, "doctor", COLUMNS="132", LINES="50") as app:
        await until(lambda: app.shows("Doctor"))
        for key in "12345":
            for size in 5 * ((1, 1), (200, 60), (19, 4), (2, 60), (200, 1), (80, 24)):
                app.resize(*size)
                await asyncio.sleep(0.002)
            app.press(f"\x1b{key}")
        await app.quiet()
        app.output = b""
        for _ in range(3):
            # Within one frame, so that the size is never another one when the app looks.
            app.resize(1, 1)
            app.resize(80, 24)
        await until(lambda: all(app.shows(name) for name in ("Doctor", "Chat", "\x1b[24;1H")), "it is not drawn again")
        assert app.process.poll() is None


@pytest.mark.e2e
@fault(
    "terminal closed under the app",
    "the pseudo-terminal's master closed (SIGHUP) as it paints, much of it unread",
    "the app is gone, no process of it left; the session goes on and the next one attaches",
)
async def test_closed(shared_box: Box) -> None:
    with running(shared_box) as app:
        await until(lambda: app.shows("Doctor") and lock_holder(shared_box.files.worker_lock) is not None)
        before = await shared_box.must_work()
        app.stop_reading()
        for number in range(30):
            app.resize(80 + number % 2, 24)
            await asyncio.sleep(0.05)
        app.hang_up()
        await until(lambda: app.process.poll() is not None, "the app stays without its terminal")
        assert b"Traceback" not in app.output
    assert (await shared_box.must_work()).pid == before.pid


@pytest.mark.e2e
@fault(
    "app stopped from outside and continued",
    "SIGSTOP and SIGCONT, twice",
    "it draws itself again, takes keys as before, and ends when told to",
)
async def test_stopped_and_continued(shared_box: Box) -> None:
    with running(shared_box) as app:
        await until(lambda: app.shows("Doctor") and lock_holder(shared_box.files.worker_lock) is not None)
        for _ in range(2):
            app.process.send_signal(signal.SIGSTOP)
            app.output = b""
            app.process.send_signal(signal.SIGCONT)
            await until(lambda: app.shows("Doctor"), "it is not drawn again")
        app.press("\x1bOR")
        await until(lambda: app.shows("designs one from scratch"), "the key does nothing")
        app.process.send_signal(signal.SIGTERM)
        await until(lambda: app.process.poll() is not None, "the app stays")


@pytest.mark.e2e
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@fault(
    "app told to end: kill, and other signals that would end it",
    "SIGTERM and SIGUSR1 as it paints",
    "the terminal is put back as it was; the session goes on and the next one attaches",
)
async def test_told_to_end(shared_box: Box, number: signal.Signals) -> None:
    with running(shared_box) as app:
        await until(lambda: app.shows("Doctor") and lock_holder(shared_box.files.worker_lock) is not None)
        app.process.send_signal(number)
        await until(lambda: app.process.poll() is not None, "the app stays")
        assert app.process.returncode == 128 + number
        await until(lambda: app.shows("\x1b[?1049l"), "the terminal stays in the app's screen")
        assert app.shows("\x1b[?1000l")
        assert not app.shows("Traceback")
    await shared_box.must_work()


@pytest.mark.e2e
@fault(
    "keys typed faster than the app follows",
    "the palette opened and closed in one burst, 20 times; bench keys behind the key that ends the app",
    "no crash; the app ends when told to",
)
async def test_typed_fast(shared_box: Box) -> None:
    with running(shared_box) as app:
        await until(lambda: app.shows("leave the text"))
        for _ in range(20):
            app.press("\x10\x1b")
            await asyncio.sleep(0.03)
        await app.quiet()
        assert app.process.poll() is None
        app.press("\x11" + "\x1bOQ\x1bOR\x1bOS\x1b[15~" * 3)
        await until(lambda: app.process.poll() is not None, "the app stays")
        assert app.process.returncode == 0


TERMINALS = {
    "xterm": {"TERM": "xterm", "COLORTERM": ""},
    "xterm-256color over SSH": {"TERM": "xterm-256color", "SSH_CONNECTION": "192.0.2.1 1 192.0.2.2 22"},
    "screen-256color": {"TERM": "screen-256color", "COLORTERM": ""},
    "linux": {"TERM": "linux", "COLORTERM": ""},
    "without colours": {"TERM": "xterm", "NO_COLOR": "1"},
    "of ASCII only (LANG=C)": {"TERM": "xterm", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


@pytest.mark.e2e
@pytest.mark.parametrize("name", TERMINALS)
@faults("a terminal {}", TERMINALS, "TERM, COLORTERM, LC_ALL on a pseudo-terminal", "drawn, keys work, no crash")
async def test_terminals(shared_box: Box, name: str) -> None:
    with running(shared_box, **TERMINALS[name]) as app:
        await until(lambda: app.shows("leave the text"), "the bench is not drawn")
        app.press("\x1b4")
        # Over SSH only changed cells are sent, which may cut any one of these in two.
        words = ("simulate", "takes on each GPU", "needs no download")
        await until(lambda: any(map(app.shows, words)), "a key does nothing")
        assert b"Traceback" not in app.output
        assert app.process.poll() is None


@pytest.mark.e2e
@fault("a terminal that can place nothing", "TERM=dumb", "refused in one line that names the commands")
async def test_dumb(private_home: Path) -> None:
    app = App("--bench", "doctor", TERM="dumb")
    try:
        await until(lambda: app.process.poll() is not None)
        assert app.process.returncode == 2
        await until(lambda: app.shows("workbench doctor"))
        assert app.output.count(b"\n") == 1
        assert b"\x1b" not in app.output
    finally:
        app.end()
