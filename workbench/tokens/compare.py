"""Tokenizers beside each other: where two split a text differently, and who needs fewest tokens. Stdlib only."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from workbench.tokens.count import TokenCount
from workbench.tokens.pieces import Piece
from workbench.tokens.tokenizer import TextTokenizer


@dataclass(frozen=True)
class Stretch:
    """A stretch of the text that begins and ends at boundaries of both tokenizers, the shortest such."""

    start: int
    end: int
    """Character offsets in the text."""
    first: list[Piece]
    second: list[Piece]
    same: bool
    """Whether both have the same tokens here: one, or the bytes of one character in as many."""


@dataclass(frozen=True)
class SplitComparison:
    """Two splits of one text."""

    first: str
    second: str
    """Names of the tokenizers."""
    first_tokens: int
    second_tokens: int
    common_boundaries: int
    only_first: list[int]
    """Character offsets at which only the first has a boundary."""
    only_second: list[int]
    same_share: float
    """Share of the characters in stretches that are the same; 1.0 for an empty text."""
    stretches: list[Stretch]


@dataclass(frozen=True)
class RankedCount:
    """One count among several of the same text."""

    model: str
    tokens: int
    over_best: int
    """Tokens more than the best needs."""
    over_best_share: float
    """The same as a share of the best; 0.0 for the best."""
    context_length: Optional[int]
    context_share: Optional[float]
    """Share of the model's context window that the text fills; above 1.0 it does not fit."""
    cost: Optional[float]
    """At the model's price, in its currency."""


def compare_splits(text: str, first: TextTokenizer, second: TextTokenizer) -> SplitComparison:
    """Split `text` with both and line the pieces up.

    Raises:
        WorkbenchError: ``bad-text`` for a lone surrogate.
    """
    return compare_pieces(text, first.encode_pieces(text), second.encode_pieces(text), first.name, second.name)


def compare_pieces(
    text: str, first: Sequence[Piece], second: Sequence[Piece], first_name: str = "", second_name: str = ""
) -> SplitComparison:
    """The same for pieces that are there already."""
    one, two = _boundaries(first, len(text)), _boundaries(second, len(text))
    common = sorted(one & two)
    firsts, seconds = _by_stretch(first, common), _by_stretch(second, common)
    checked = [
        Stretch(start, end, firsts[index], seconds[index], _spans(firsts[index]) == _spans(seconds[index]))
        for index, (start, end) in enumerate(zip(common, common[1:]))
    ]
    same = sum(item.end - item.start for item in checked if item.same)
    return SplitComparison(
        first=first_name,
        second=second_name,
        first_tokens=len(first),
        second_tokens=len(second),
        common_boundaries=len(common),
        only_first=sorted(one - two),
        only_second=sorted(two - one),
        same_share=same / len(text) if text else 1.0,
        stretches=checked,
    )


def rank_counts(
    counts: Sequence[TokenCount],
    contexts: Optional[Sequence[Optional[int]]] = None,
    prices: Optional[Sequence[Optional[float]]] = None,
) -> list[RankedCount]:
    """Counts of one text against the best of them, in the order given.

    Args:
        counts: of the same text.
        contexts: context length of each model, None where unknown.
        prices: price of a million tokens under each model.
    """
    best = min((count.tokens for count in counts), default=0)
    windows = contexts if contexts is not None else [None] * len(counts)
    costs = prices if prices is not None else [None] * len(counts)
    return [
        RankedCount(
            model=count.model,
            tokens=count.tokens,
            over_best=count.tokens - best,
            over_best_share=(count.tokens - best) / best if best else 0.0,
            context_length=window,
            context_share=count.tokens / window if window else None,
            cost=count.tokens * price / 1e6 if price is not None else None,
        )
        for count, window, price in zip(counts, windows, costs)
    ]


def _boundaries(pieces: Sequence[Piece], length: int) -> set[int]:
    """Places between pieces. Where several pieces share a character there is none within them."""
    found = {0, length}
    reach = 0
    for piece in pieces:
        if piece.start >= reach:
            found.add(piece.start)
        reach = max(reach, piece.end)
        found.add(reach)
    # A piece that begins before an earlier one ended (bytes of one character) undoes that end.
    for piece in pieces:
        if piece.end - piece.start > 1:
            found -= {place for place in range(piece.start + 1, piece.end) if place in found}
    return found


def _by_stretch(pieces: Sequence[Piece], common: Sequence[int]) -> list[list[Piece]]:
    """The pieces of each stretch between common boundaries; pieces that cover nothing go to where they stand."""
    found: list[list[Piece]] = [[] for _ in common[1:]]
    for piece in pieces:
        if found:
            found[min(bisect_right(common, piece.start) - 1, len(found) - 1)].append(piece)
    return found


def _spans(pieces: Sequence[Piece]) -> list[tuple[int, int]]:
    return [(piece.start, piece.end) for piece in pieces]
