"""Keys that Textual's parser takes for something else; corrected in its tables, in this one place."""

from __future__ import annotations

import contextlib


def let_alt_digits_through() -> None:
    """Make escape-digit mean alt+digit, as every terminal but one sends it.

    Textual 8.2 reads ``ESC 3`` as the pound sign, which a Mac keyboard types by option+3; there the terminal sends the
    character itself, so nothing is lost by not doing it twice.
    """
    with contextlib.suppress(ImportError, AttributeError):
        from textual._ansi_sequences import ANSI_SEQUENCES_KEYS

        for digit in "0123456789":
            if isinstance(ANSI_SEQUENCES_KEYS.get(f"\x1b{digit}"), str):
                del ANSI_SEQUENCES_KEYS[f"\x1b{digit}"]  # type: ignore[attr-defined]
