from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual import events
from textual.message import Message

from workbench.ui.terminal_input import PASTE_END, PASTE_START, READ_BYTES, TerminalReader, harmless

HOSTILE = "bye \x1b[31m \x11 \x03 \x1bq \r\nline\rnext \x9b31m \x00 \x1b]52;c;eA==\x07 end"


def events_of(*chunks: str, more: bool = False) -> list[Message]:
    reader = TerminalReader()
    found = list(itertools.chain.from_iterable(reader.feed(chunk, more) for chunk in chunks))
    return [*found, *reader.tick()]


def keys(found: list[Message]) -> list[str]:
    return [event.key for event in found if isinstance(event, events.Key)]


def test_a_paste_is_one_event_and_presses_no_key() -> None:
    found = events_of(f"a{PASTE_START}{HOSTILE}{PASTE_END}b")
    assert keys(found) == ["a", "b"]
    (paste,) = [event for event in found if isinstance(event, events.Paste)]
    assert paste.text == harmless(HOSTILE)
    assert all(character in "\n\t" or character.isprintable() for character in paste.text)
    assert "line\nnext" in paste.text
    assert "␛[31m" in paste.text


@given(
    st.lists(st.integers(1, 200), max_size=6),
    st.text(max_size=80).filter(lambda text: "\x1b[201~" not in text),
    st.booleans(),
)
def test_a_paste_may_arrive_in_any_pieces(cuts: list[int], text: str, more: bool) -> None:
    whole = f"{PASTE_START}{text}{PASTE_END}"
    edges = sorted({0, len(whole), *(cut % len(whole) for cut in cuts)})
    chunks = [whole[start:end] for start, end in itertools.pairwise(edges)]
    found = events_of(*chunks, more=more)
    assert keys(found) == []
    assert [event.text for event in found if isinstance(event, events.Paste)] == [harmless(text)]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("\x1b[A", ["up"]), ("q", ["q"]), ("\x0f", ["ctrl+o"]), ("\x1bOP", ["f1"]), ("ä", ["ä"])],
)
def test_keys_go_through_as_before(typed: str, expected: list[str]) -> None:
    found = keys(events_of(typed))
    assert found == expected or found == ["latin_small_letter_a_with_diaeresis"]


def test_a_paste_whose_escape_comes_alone_presses_no_key() -> None:
    reader = TerminalReader()
    found = [*reader.feed("\x1b"), *reader.feed("[20"), *reader.tick(), *reader.feed(f"0~\x11{PASTE_END}x")]
    assert keys(found) == ["x"]
    assert [event.text for event in found if isinstance(event, events.Paste)] == ["␑"]


def test_the_last_character_of_a_full_read_may_begin_a_paste() -> None:
    first = "x" * (READ_BYTES - 1) + "\x1b"
    found = [*(reader := TerminalReader()).feed(first, more=True), *reader.feed(f"[200~\x11{PASTE_END}")]
    assert set(keys(found)) == {"x"}
    assert [event.text for event in found if isinstance(event, events.Paste)] == ["␑"]
