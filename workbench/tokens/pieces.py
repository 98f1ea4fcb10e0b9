"""One token of a text as it stands in that text. Stdlib only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.errors import WorkbenchError


@dataclass(frozen=True)
class Piece:
    """A token and the stretch of the original text it covers.

    Several tokens may cover the same character (the bytes of one emoji), and a token that the tokenizer added
    by itself covers nothing: its ``start`` equals its ``end`` and its text is the token's own name.
    """

    id: int
    text: str
    """Taken from the original text by offset, never from decoding."""
    start: int
    """Character offset in the text, inclusive."""
    end: int
    """Character offset in the text, exclusive."""
    special: bool
    """Whether the tokenizer treats this token as a marker rather than as text."""


def require_encodable(text: str) -> None:
    """Refuse text that has no UTF-8 form, as every tokenizer library fails on it in its own way.

    Raises:
        WorkbenchError: ``bad-text`` with the character offset of the first lone surrogate.
    """
    try:
        # Several times faster than a search, and nothing else has no UTF-8 form.
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise WorkbenchError(
            "bad-text",
            f"The text has half of a surrogate pair (U+{ord(text[error.start]):04X}) at character {error.start}, "
            "which no encoding can hold.",
            "Remove that character, or read the file with its right encoding.",
        ) from None


def character_offsets(text: str) -> Sequence[int]:
    """Character offset by UTF-8 byte offset: the character that the byte is part of, or the text's end."""
    if text.isascii():
        return range(len(text) + 1)
    offsets = []
    for index, character in enumerate(text):
        offsets += [index] * len(character.encode("utf-8"))
    return [*offsets, len(text)]
