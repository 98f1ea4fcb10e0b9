"""What a text costs under one tokenizer. Stdlib only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from workbench.tokens.cuts import cut_rule
from workbench.tokens.losses import loss_of
from workbench.tokens.pieces import Piece, require_encodable
from workbench.tokens.tokenizer import TextTokenizer

PART_CHARACTERS = 65_536


@dataclass(frozen=True)
class TextFigures:
    """Size of a text before any tokenizer sees it."""

    name: str
    bytes: int
    """In UTF-8."""
    characters: int
    """Unicode code points."""
    words: int
    """Stretches between white space."""


@dataclass(frozen=True)
class TokenCount:
    """What one text costs under one tokenizer. The ratios are 0.0 for a text of no tokens or no words."""

    model: str
    text: str
    """Name of the text."""
    tokens: int
    bytes_per_token: float
    tokens_per_word: float
    characters_per_token: float
    vocab_size: int
    ids: Optional[list[int]] = None
    pieces: Optional[list[Piece]] = None
    unknown_tokens: int = 0
    """Of the tokens, those that stand for text which the vocabulary lacks."""
    lost_characters: int = 0
    """Characters without white space that are under such tokens, or that gave no token."""


def text_figures(text: str, name: str = "") -> TextFigures:
    """Measure `text`.

    Raises:
        WorkbenchError: ``bad-text`` for a lone surrogate.
    """
    require_encodable(text)
    return TextFigures(name, len(text.encode("utf-8")), len(text), len(text.split()))


def count_text(
    text: str,
    tokenizer: TextTokenizer,
    *,
    special: bool = False,
    plain: bool = False,
    pieces: bool = False,
    ids: bool = False,
    name: str = "",
) -> TokenCount:
    """Count `text` under `tokenizer`.

    Args:
        special: add what the tokenizer puts around a text (BOS, EOS, CLS).
        plain: take special tokens typed in the text as plain text.
        pieces: give the tokens with the stretches they cover.
        ids: give the token ids.
        name: what the text is called in the result.

    Raises:
        WorkbenchError: ``bad-text`` for a lone surrogate.
    """
    figures = text_figures(text, name)
    if pieces:
        found: Optional[list[Piece]] = tokenizer.encode_pieces(text, special, not plain)
        token_ids = [piece.id for piece in found or []]
    else:
        found = None
        token_ids = _ids_in_parts(text, tokenizer, not plain) if not special else []
        token_ids = token_ids or tokenizer.encode(text, special, not plain)
    tokens = len(token_ids)
    loss = loss_of(text, tokenizer, token_ids, not plain)
    return TokenCount(
        model=tokenizer.name,
        text=name,
        tokens=tokens,
        bytes_per_token=figures.bytes / tokens if tokens else 0.0,
        tokens_per_word=tokens / figures.words if figures.words else 0.0,
        characters_per_token=figures.characters / tokens if tokens else 0.0,
        vocab_size=tokenizer.vocab_size,
        ids=token_ids if ids else None,
        pieces=found,
        unknown_tokens=loss.unknown_tokens,
        lost_characters=loss.characters,
    )


def _ids_in_parts(text: str, tokenizer: TextTokenizer, parse_special: bool) -> list[int]:
    """The ids of a long text, cut where that changes none; empty for a short one, or where it cannot be cut.

    The tokens of a whole book at once keep the interpreter busy for seconds, in which no other thread counts.
    """
    rule = cut_rule(tokenizer) if len(text) > PART_CHARACTERS else None
    ids: list[int] = []
    if rule is not None:
        for index, part in enumerate(rule.parts(text, PART_CHARACTERS)):
            ids += tokenizer.encode(rule.as_encoded(part, index == 0), False, parse_special)
    return ids
