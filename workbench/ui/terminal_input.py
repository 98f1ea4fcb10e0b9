"""What arrives from the terminal: pastes whole and harmless, bytes that are no UTF-8 shown, an end that is noticed.

Textual 8.2's parser takes an escape character inside a bracketed paste for the start of a key sequence, so that a
pasted log could press keys; and its reader ends the app at the first byte that is not UTF-8. Its widgets raise when
they are laid out with no column of their own, and it asks ``COLUMNS``, which stays as it is when the terminal does not.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import select
from collections.abc import Generator, Iterator
from typing import Any, TextIO

from textual import events
from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver
from textual.geometry import Size
from textual.message import Message

from workbench.ui.environment import FEW_BYTES_VARIABLE
from workbench.ui.few_bytes import Remembered

PASTE_START, PASTE_END = "\x1b[200~", "\x1b[201~"
READ_BYTES = 4096
_TYPED_CHARACTERS = 2
"""Alt with a bracket, which is how a paste begins as well."""
SMALLEST_COLUMNS, SMALLEST_ROWS = 20, 5
"""What is laid out in a terminal that is smaller still; it shows as much of it as it holds."""
MAX_PASTE_CHARACTERS = 64 * 2**20

# C0 without tab and newline, DEL and C1 as symbols: a paste is shown, never obeyed.
_SYMBOLS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
_SYMBOLS[0x7F] = 0x2421
_SYMBOLS.update(dict.fromkeys(range(0x80, 0xA0), 0xFFFD))


CONTROL_OF_SYMBOL = {symbol: chr(code) for code, symbol in _SYMBOLS.items() if symbol != 0xFFFD}
"""Back from the symbols that stand for one control character each, for `str.translate`."""


class Paste(events.Paste):
    """A paste that can be shown, and as it was.

    Args:
        text: with line ends as newlines and control characters as visible symbols.
        raw: with line ends as newlines, as long as `text`.
    """

    def __init__(self, text: str, raw: str) -> None:
        super().__init__(text)
        self.raw = raw


def harmless(pasted: str) -> str:
    """Pasted text with line ends as newlines and control characters as visible symbols."""
    return _with_newlines(pasted).translate(_SYMBOLS)


def _with_newlines(pasted: str) -> str:
    return pasted.replace("\r\n", "\n").replace("\r", "\n")


class TerminalReader:
    """Turns the terminal's characters into events: pastes by itself, everything else through Textual's parser."""

    def __init__(self, debug: bool = False) -> None:
        self._debug = debug
        self._parser = XTermParser(debug)
        self._held = ""
        """The end of the last input that may be the beginning of a paste."""
        self._escapes = ""
        """Escapes at the end of what the parser has, which waits for what follows them."""
        self._pasted: list[str] | None = None
        self._pasted_size = 0

    def feed(self, text: str, more: bool = False) -> Iterator[Message]:
        """Events of some input; `more` says that the rest of it is known to follow at once."""
        text, self._held = self._held + text, ""
        if self._escapes and text:
            # The rest of a paste's beginning may follow: a parser that had the escape alone would press its keys.
            text, self._escapes = self._escapes + text, ""
            self._parser = XTermParser(self._debug)
        while text:
            if self._pasted is not None:
                text = yield from self._take_paste(text)
                continue
            before, marker, text = text.partition(PASTE_START)
            if marker:
                self._pasted, self._pasted_size = [], 0
            else:
                before, self._held = _split_beginning(before, PASTE_START, 1 if more else 2)
            if before:
                if not marker and not self._held:
                    self._escapes = before[len(before.rstrip("\x1b")) :]
                yield from self._parser.feed(before)

    def tick(self) -> Iterator[Message]:
        """Events that are due because nothing followed, such as a lone escape key."""
        # Nobody types more than that of a paste's beginning: the rest of it is only late.
        if self._pasted is None and 0 < len(self._held) <= _TYPED_CHARACTERS:
            held, self._held = self._held, ""
            yield from self._parser.feed(held)
        for message in self._parser.tick():
            self._escapes = ""
            yield message

    def _take_paste(self, text: str) -> Generator[Message, None, str]:
        """Add to the paste that is under way; returns what stands behind its end."""
        assert self._pasted is not None
        content, marker, rest = text.partition(PASTE_END)
        if not marker:
            content, self._held = _split_beginning(content, PASTE_END, 1)
        if self._pasted_size < MAX_PASTE_CHARACTERS:
            self._pasted.append(content)
            self._pasted_size += len(content)
        if marker:
            pasted, self._pasted = "".join(self._pasted), None
            pasted = pasted[:MAX_PASTE_CHARACTERS]
            yield Paste(harmless(pasted), _with_newlines(pasted))
        return rest


def _split_beginning(text: str, marker: str, shortest: int) -> tuple[str, str]:
    """`text` without and with the beginning of `marker`, of at least `shortest` characters, that it may end with."""
    for size in range(min(len(marker) - 1, len(text)), shortest - 1, -1):
        if text.endswith(marker[:size]):
            return text[:-size], text[-size:]
    return text, ""


def laid_out(columns: int, rows: int) -> tuple[int, int]:
    """The size to lay out for a terminal's size; 0 where it does not know its own."""
    return max(columns or 80, SMALLEST_COLUMNS), max(rows or 24, SMALLEST_ROWS)


class TerminalOutput:
    """The terminal as a file that drops what is written once the terminal is gone.

    Textual's writer thread would end at the first error, and whatever writes next wait for it without end.

    Args:
        file: the terminal.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        """Write, or drop it."""
        with contextlib.suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        """Flush, or drop what is left."""
        with contextlib.suppress(OSError):
            self._file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class TerminalDriver(LinuxDriver):
    """Textual's driver with a reader of our own, and a size that benches can be laid out in."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._file: Any = TerminalOutput(self._file)
        self._remembered = Remembered() if os.environ.get(FEW_BYTES_VARIABLE) == "1" else None

    def write(self, data: str) -> None:
        """Write to the terminal, without what it shows already where bytes are dear."""
        super().write(data if self._remembered is None else self._remembered.changes(data))

    def forget_screen(self) -> None:
        """Something else may have written on the terminal: the next frame is written whole."""
        if self._remembered is not None:
            self._remembered.forget()

    def _sigcont_application(self, *given: Any) -> None:
        """Take the terminal again after a stop.

        A kernel that hangs a terminal up sends SIGCONT as well: then there is none to take, and a second reader beside
        the first would keep the app from ending. So would one after a stop from outside, which ended no reader.
        """
        if os.isatty(self.fileno):
            if self._auto_restart and not self._must_signal_resume:
                self.suspend_application_mode()
            super()._sigcont_application(*given)

    def _get_terminal_size(self) -> tuple[int, int]:
        try:
            columns, rows = os.get_terminal_size(self.fileno)
        except OSError:
            columns, rows = super()._get_terminal_size()
        return laid_out(columns, rows)

    def process_message(self, message: Message) -> None:
        """Hand a message on; a size that the terminal itself reports is treated as one that was asked for."""
        if isinstance(message, events.Resize):
            size = Size(*laid_out(*message.size))
            message = events.Resize(size, size, None, message.pixel_size)
        super().process_message(message)

    def run_input_thread(self) -> None:
        """Read the terminal until the app ends."""
        reader = TerminalReader(self._debug)
        decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        while not self.exit_event.is_set():
            ready, _, _ = select.select([self.fileno], [], [], 0.1)
            if ready:
                data = os.read(self.fileno, READ_BYTES)
                if not data:
                    # The terminal is gone; SIGHUP ends the app, and until then this must not spin.
                    self.exit_event.wait(0.1)
                for event in reader.feed(decode(data), more=len(data) == READ_BYTES):
                    self.process_message(event)
            else:
                for event in reader.tick():
                    self.process_message(event)
