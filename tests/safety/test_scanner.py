from __future__ import annotations

import pytest

from tests.safety.corpus import CONTROLS, ESCAPES, MARK, MARKUP, STRINGS, UNREADABLE
from tests.safety.scanner import APP, COMMAND, forbidden
from workbench.text import sanitize


@pytest.mark.parametrize("name", [*ESCAPES, *CONTROLS, *UNREADABLE])
def test_each_string_is_found_raw_and_not_when_it_was_made_safe(name: str) -> None:
    raw = STRINGS[name].encode()
    assert forbidden(b"before " + raw + b" behind", APP, MARK) or name == "overwriting return"
    assert forbidden(raw, COMMAND, MARK) or name == "overwriting return"
    assert not forbidden(sanitize(STRINGS[name]).encode(), COMMAND, MARK)
    assert "\r" not in sanitize(STRINGS[name])


def test_what_is_ours_is_allowed() -> None:
    ours = b"\x1b[?1049h\x1b[?25l\x1b[38;2;1;2;3mtext\x1b[0m\x1b[12;40H\x1b[?2026$p\r\n"
    assert not forbidden(ours, APP, MARK)
    assert not forbidden(b"\x1b[1mbold\x1b[0m\r\n\r\x1b[K" + "".join(MARKUP.values()).encode(), COMMAND, MARK)
    assert forbidden(b"\x1b[12;40H", COMMAND, MARK)
