from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.drivers.headless_driver import HeadlessDriver

from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, wait_until
from workbench.session import protocol
from workbench.session.protocol import LaneStatus
from workbench.ui.app import WorkbenchApp
from workbench.ui.few_bytes import Remembered

WIDTH, HEIGHT = 12, 4


class Screen:
    """A terminal of a few cells: what it shows after what was written."""

    def __init__(self) -> None:
        self.cells: dict[tuple[int, int], tuple[str, str]] = {}
        self.row = self.column = 1
        self.style = ""

    def write(self, data: str) -> None:
        for match in re.finditer(r"\x1b\[(\d+);(\d+)H|\x1b\[([0-9;]*)m|\x1b\[[?0-9;]*[a-z]|([^\x1b])", data):
            row, column, style, character = match.groups()
            if row:
                self.row, self.column = int(row), int(column)
            elif style is not None:
                self.style = style.removeprefix("0;") if style != "0" else ""
            elif character and character not in "\r\n":
                self.cells[self.row, self.column] = (character, self.style)
                self.column += 1


@st.composite
def frames(draw: st.DrawFn) -> list[str]:
    """Lines painted whole, as Textual does, each from its first column to its last."""
    made = []
    for _ in range(draw(st.integers(1, 6))):
        lines = []
        for row in range(1, HEIGHT + 1):
            text = draw(st.text("ab ●", min_size=WIDTH, max_size=WIDTH))
            cut = draw(st.integers(0, WIDTH))
            styles = [draw(st.sampled_from(("31", "1;32", "38;2;1;2;3"))) for _ in range(2)]
            parts = zip(styles, (text[:cut], text[cut:]), strict=True)
            lines.append(f"\x1b[{row};1H" + "".join(f"\x1b[{style}m{part}\x1b[0m" for style, part in parts if part))
        made.append("\x1b[?2026h" + "\r\n".join(lines) + "\x1b[?2026l")
    return made


@given(frames())
def test_the_terminal_shows_the_same(made: list[str]) -> None:
    plain, spared, remembered = Screen(), Screen(), Remembered()
    for frame in made:
        plain.write(frame)
        spared.write(remembered.changes(frame))
        assert spared.cells == plain.cells


def test_what_stands_there_is_not_sent_again() -> None:
    remembered = Remembered()
    frame = "\x1b[1;1H\x1b[31m ● abc\x1b[0m \x1b[32mdef\x1b[0m"
    assert remembered.changes(frame)
    assert remembered.changes(frame) == ""
    assert remembered.changes(frame.replace("def", "dxf")) == "\x1b[1;9H\x1b[0;32mx\x1b[0m"
    remembered.forget()
    assert "abc" in remembered.changes(frame)


def test_wide_characters_and_what_is_of_no_sure_width() -> None:
    remembered = Remembered()
    assert "宽" in remembered.changes("\x1b[1;1H宽b")
    assert remembered.changes("\x1b[1;1H宽b") == ""
    assert remembered.changes("\x1b[1;1Haab") == "\x1b[1;1Haa"
    assert remembered.changes("\x1b[1;1H宽b") == "\x1b[1;1H宽"
    family = "\x1b[2;1H👩\u200d👩\u200d👧e\u0301"
    assert remembered.changes(family) == remembered.changes(family) != ""


def test_what_it_does_not_follow_makes_it_forget() -> None:
    remembered = Remembered()
    remembered.changes("\x1b[1;1Habc")
    assert remembered.changes("\x1b[2J\x1b[1;1Habc") == "\x1b[2J\x1b[1;1H\x1b[0mabc"
    assert remembered.changes("\x1b[?25l\x1b]22;default\x1b\\\x1b[1;1Habc") == "\x1b[?25l\x1b]22;default\x1b\\"


class Counting(HeadlessDriver):
    """A terminal that is painted on though nobody looks, and what of it would be sent over SSH."""

    is_headless = False

    def __init__(self, app: WorkbenchApp, **named: Any) -> None:
        super().__init__(app, **named)
        self.frame = ""
        self.painted_bytes = self.sent_bytes = 0
        self._remembered = Remembered()

    def write(self, data: str) -> None:
        self.frame += data
        self.painted_bytes += len(data.encode())
        self.sent_bytes += len(self._remembered.changes(data).encode())

    def begin(self) -> None:
        """Count from here."""
        self.painted_bytes = self.sent_bytes = 0


class HalfAnswered(ScriptedSession):
    """Begins an answer and leaves it to the test to go on."""

    def __init__(self, status: protocol.SessionStatus) -> None:
        super().__init__(status)
        self.begun: tuple[Any, int] | None = None
        self.words = 0

    async def _answer(self, end: Any, request_id: int, request: protocol.Request) -> None:
        if not isinstance(request, protocol.Generate):
            await super()._answer(end, request_id, request)
            return
        end.write(protocol.encode(request_id, protocol.AnswerStarted("1", 38)))
        self.begun = (end, request_id)
        await asyncio.Event().wait()

    def go_on(self) -> str:
        """Three more tokens, and with every third time the status; what stands at their end."""
        assert self.begun is not None
        end, request_id = self.begun
        self.words += 1
        word = f"word{self.words:03}"
        end.write(protocol.encode(request_id, protocol.TokensGenerated(f"and {word} ", 3 * self.words, "1")))
        if self.words % 3 == 0:
            lanes = (LaneStatus("model", "generate", "decode", 3 * self.words, 4096, "tokens"),)
            self.set_status(lanes=lanes, tokens_per_second=50 + self.words % 7 / 10)
        return word


async def test_a_streamed_answer_costs_its_own_bytes(
    loaded_session: ScriptedSession, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted frame by frame at 80x24, however long they take: a frame holds what three tokens change, no more."""
    session = HalfAnswered(loaded_session.status)
    app = make_app(session, bench="chat")

    def build(headless: bool, inline: bool, mouse: bool, size: tuple[int, int] | None) -> Counting:
        app._driver = Counting(app, mouse=mouse, size=size)
        return app._driver

    monkeypatch.setattr(app, "_build_driver", build)
    async with app.run_test(size=(80, 24)) as pilot:
        terminal = app._driver
        assert isinstance(terminal, Counting)
        await wait_until(pilot, lambda: app.focused is not None)
        await pilot.press(*"hello", "enter")
        await wait_until(pilot, lambda: session.begun)

        async def stream(frames: int, pieces: int) -> None:
            terminal.begin()
            for _ in range(frames):
                terminal.frame = ""
                for _ in range(pieces):
                    last = session.go_on()
                await wait_until(pilot, lambda last=last: last in terminal.frame)

        await stream(1, 1)
        await stream(36, 1)
        # Who paints the whole conversation for each of them needs 3,700 a frame.
        assert terminal.painted_bytes < 36 * 500
        assert terminal.sent_bytes < 36 * 160
        # --slow-link: fewer frames, each with more in it.
        await stream(9, 4)
        assert terminal.sent_bytes < 36 * 70
        terminal.begin()
        await pilot.pause(0.3)
        assert terminal.painted_bytes == 0
