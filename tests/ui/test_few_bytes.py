from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

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
