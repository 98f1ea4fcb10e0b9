"""What a model's embedding tables tell about tokens and words: plain data. Stdlib only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class TableFacts:
    """The embedding table that was read.

    Attributes:
        table: ``input`` (embedding) or ``output`` (LM head).
        name: dotted name of the module.
        rows: tokens it holds, padding rows included.
        width: length of a vector.
        dtype: of the stored weights.
        tied: whether input and output are one table.
        note: what a reader should know, such as "dequantized from nf4"; may be empty.
    """

    table: str
    name: str
    rows: int
    width: int
    dtype: str
    tied: bool
    note: str = ""


@dataclass(frozen=True)
class WordVector:
    """A text as one vector.

    Attributes:
        text: as it was given.
        ids: its tokens; the vector is the mean of theirs.
        tokens: their texts.
        norm: L2 norm of the vector.
    """

    text: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    norm: float


@dataclass(frozen=True)
class Neighbour:
    """A token and how near it is."""

    id: int
    text: str
    score: float
    """Cosine, or dot product if that was asked for."""
    norm: float


@dataclass(frozen=True)
class Neighbours:
    """The tokens nearest to a text, itself left out, nearest first."""

    facts: TableFacts
    query: WordVector
    measure: str
    """``cosine`` or ``dot``."""
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True)
class Similarities:
    """Chosen texts against each other."""

    facts: TableFacts
    words: tuple[WordVector, ...]
    cosine: tuple[tuple[float, ...], ...]
    """``[row][column]`` in the order of `words`."""
    background: float
    """Mean cosine of random pairs of tokens of this table; tokens that were hardly trained lie close together and raise
    it."""


@dataclass(frozen=True)
class TokenNorm:
    """A token's vector in figures."""

    id: int
    text: str
    norm: float
    deviations: float
    """Standard deviations from the mean norm."""


@dataclass(frozen=True)
class NormSummary:
    """The norms of all vectors of a table.

    Attributes:
        mean: of all rows, as `std`, `least`, `median`, `largest`.
        histogram: rows in equal steps from `least` to `largest`.
        smallest: tokens of the smallest norms, smallest first: often never trained.
        greatest: tokens of the largest norms, largest first.
        zeros: rows of nothing but zeros.
        beyond: rows after the tokenizer's last token, which pad the table.
    """

    facts: TableFacts
    mean: float
    std: float
    least: float
    median: float
    largest: float
    histogram: tuple[int, ...]
    smallest: tuple[TokenNorm, ...]
    greatest: tuple[TokenNorm, ...]
    zeros: int
    beyond: int


@dataclass(frozen=True)
class MapPoint:
    """A word on the map."""

    word: WordVector
    x: float
    y: float
    nearest: Optional[int]
    """Index of the word nearest to it by cosine in all dimensions; None for a single word."""
    nearest_on_map: Optional[int]
    """Index of the word nearest to it on the map."""


@dataclass(frozen=True)
class WordMap:
    """Words in two dimensions: the principal components of their unit-length vectors.

    Attributes:
        points: in the order in which the words were given.
        explained: shares of the variance along x and y.
        hidden: the share that the map does not show.
        misplaced: how many points have another nearest word on the map than in all dimensions.
    """

    facts: TableFacts
    points: tuple[MapPoint, ...]
    explained: tuple[float, float]
    hidden: float
    misplaced: int
