"""What of a text a tokenizer has no token for. Stdlib only.

Such a tokenizer gives the fewest tokens of all, so its counts must not be ranked with those of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.tokens.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Loss:
    """What becomes of the characters that a vocabulary lacks."""

    unknown_tokens: int = 0
    """Tokens such as ``[UNK]`` that stand for text without saying which."""
    characters: int = 0
    """Characters without white space that are under such tokens, or under none at all."""


def loss_of(text: str, tokenizer: TextTokenizer, ids: Sequence[int], parse_special: bool = True) -> Loss:
    """What is lost of `text`.

    Args:
        text: what was encoded.
        tokenizer: which encoded it.
        ids: what `tokenizer` made of it; the stretches are looked at only where they hold an unknown token.
        parse_special: as it was encoded.
    """
    unknown_id = tokenizer.unknown_id
    if not tokenizer.may_drop and (unknown_id is None or unknown_id not in ids):
        return Loss()
    marker = "" if unknown_id is None else tokenizer.id_token(unknown_id)
    pieces = tokenizer.encode_pieces(text, False, parse_special)
    unknown = [piece for piece in pieces if piece.id == unknown_id and text[piece.start : piece.end] != marker]
    lost = bytearray(len(text))
    if tokenizer.may_drop:
        lost[:] = b"\x01" * len(text)
        for piece in pieces:
            lost[piece.start : piece.end] = bytes(piece.end - piece.start)
    for piece in unknown:
        lost[piece.start : piece.end] = b"\x01" * (piece.end - piece.start)
    return Loss(len(unknown), sum(flag and not character.isspace() for flag, character in zip(lost, text)))
