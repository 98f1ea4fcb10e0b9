"""What the token counts of many rows amount to: percentiles, truncation, padding, packing. Stdlib only.

Everything is computed from how many rows have how many tokens, which is exact and small however long the data set.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
LONGEST_KEPT = 10
_BINS = 30
# Packing is simulated with at most this many rows.
_PACKED_ROWS = 20_000


@dataclass(frozen=True)
class HistogramBin:
    """Rows that have from `low` to `high` tokens, both inclusive."""

    low: int
    high: int
    rows: int


@dataclass(frozen=True)
class LengthFigures:
    """What becomes of the data set when every row is trained at one sequence length."""

    length: int
    truncated_rows: int
    truncated_share: float
    """Of the rows."""
    lost_tokens: int
    """Tokens beyond `length`, cut away."""
    lost_share: float
    """Of all tokens."""
    padding_share: float
    """Of all positions when each row is padded to `length`: computed and thrown away."""
    batch_padding_share: float
    """The same when rows are only padded to the longest of their batch."""
    packed_sequences: int
    """Sequences of `length` into which all rows go whole, rows cut at `length` (best fit)."""
    packing_efficiency: float
    """Share of positions of the packed sequences that hold a token."""
    concatenated_sequences: int
    """Sequences when all rows are strung together and cut every `length` tokens."""
    tokens_per_epoch: int
    """Tokens that one pass trains on: all tokens less the lost ones."""


@dataclass(frozen=True)
class LongRow:
    """One of the longest rows."""

    row: int
    """Counted from 1 within its file; the line in files of lines."""
    file: str
    tokens: int
    preview: str


@dataclass(frozen=True)
class CountStatistics:
    """The counts of all rows under one tokenizer. Percentiles are nearest-rank: a count that some row has."""

    rows: int
    total: int
    mean: float
    p50: int
    p90: int
    p95: int
    p99: int
    max: int
    histogram: list[HistogramBin]
    lengths: list[LengthFigures]
    longest: list[LongRow]


class CountCollector:
    """Takes the counts of rows as they come; memory grows with the number of different counts only."""

    def __init__(self, batch_size: int = 8) -> None:
        self._rows_by_tokens: Counter[int] = Counter()
        self._longest: list[tuple[int, int, LongRow]] = []
        self._kept = 0
        self._batch_size = batch_size
        self._batch: list[int] = []
        self._padded: dict[int, int] = {}

    @property
    def rows(self) -> int:
        """Rows counted so far."""
        return sum(self._rows_by_tokens.values())

    def add(self, tokens: int) -> bool:
        """Count a row; returns whether it is among the longest so far, so that `keep` should be called."""
        self._rows_by_tokens[tokens] += 1
        self._batch.append(tokens)
        if len(self._batch) == self._batch_size:
            self._close_batch()
        return len(self._longest) < LONGEST_KEPT or tokens > self._longest[0][0]

    def keep(self, row: LongRow) -> None:
        """Remember a row as one of the longest."""
        push = heapq.heappush if len(self._longest) < LONGEST_KEPT else heapq.heapreplace
        # Of equal rows the earlier one stays; the number also keeps the heap from comparing rows.
        self._kept += 1
        push(self._longest, (row.tokens, -self._kept, row))

    def statistics(self, lengths: Sequence[int] = LENGTHS) -> CountStatistics:
        """What has been counted so far.

        Args:
            lengths: sequence lengths in tokens to look at.
        """
        counts = self._rows_by_tokens
        rows, total = sum(counts.values()), sum(tokens * count for tokens, count in counts.items())
        p50, p90, p95, p99 = (percentile(counts, share) for share in (0.50, 0.90, 0.95, 0.99))
        return CountStatistics(
            rows=rows,
            total=total,
            mean=total / rows if rows else 0.0,
            p50=p50,
            p90=p90,
            p95=p95,
            p99=p99,
            max=max(counts, default=0),
            histogram=histogram(counts),
            lengths=[self._at_length(length) for length in sorted(set(lengths))] if rows else [],
            longest=[row for _, _, row in sorted(self._longest, key=lambda item: item[:2], reverse=True)],
        )

    def _close_batch(self) -> None:
        # Positions of a batch padded to its longest row, by that longest row: `_at_length` caps it.
        longest = max(self._batch)
        self._padded[longest] = self._padded.get(longest, 0) + len(self._batch)
        self._batch = []

    def _at_length(self, length: int) -> LengthFigures:
        counts = self._rows_by_tokens
        rows, total = sum(counts.values()), sum(tokens * count for tokens, count in counts.items())
        truncated = sum(count for tokens, count in counts.items() if tokens > length)
        kept = sum(min(tokens, length) * count for tokens, count in counts.items())
        padded = sum(min(longest, length) * count for longest, count in self._padded.items())
        padded += min(max(self._batch, default=0), length) * len(self._batch)
        packed = packed_sequences(counts, length)
        return LengthFigures(
            length=length,
            truncated_rows=truncated,
            truncated_share=truncated / rows,
            lost_tokens=total - kept,
            lost_share=(total - kept) / total if total else 0.0,
            padding_share=1 - kept / (rows * length),
            batch_padding_share=1 - kept / padded if padded else 0.0,
            packed_sequences=packed,
            packing_efficiency=kept / (packed * length) if packed else 0.0,
            concatenated_sequences=math.ceil(total / length),
            tokens_per_epoch=kept,
        )


def percentile(rows_by_tokens: Mapping[int, int], share: float) -> int:
    """The smallest count that at least `share` of the rows do not exceed (nearest rank); 0 without rows."""
    # The share is scaled to whole numbers: 0.95 * 20 must be 19, not a little more.
    wanted = -(-round(share * 10_000) * sum(rows_by_tokens.values()) // 10_000)
    reached = 0
    for tokens in sorted(rows_by_tokens):
        reached += rows_by_tokens[tokens]
        if reached >= max(wanted, 1):
            return tokens
    return 0


def histogram(rows_by_tokens: Mapping[int, int], bins: int = _BINS) -> list[HistogramBin]:
    """About `bins` bins of one round width over the counts, the last taking what lies far beyond the p99.

    A few giant rows would otherwise leave all others in the first bin.
    """
    if not rows_by_tokens:
        return []
    largest = max(rows_by_tokens)
    reach = min(largest, max(2 * percentile(rows_by_tokens, 0.99), 1))
    width = _round_width((reach + 1) / bins)
    starts = list(range(0, reach + 1, width))
    rows = [0] * len(starts)
    for tokens, count in rows_by_tokens.items():
        rows[min(tokens // width, len(starts) - 1)] += count
    ends = [start + width - 1 for start in starts]
    ends[-1] = max(ends[-1], largest)
    return [HistogramBin(low, high, count) for low, high, count in zip(starts, ends, rows)]


def _round_width(wanted: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 50 … that is at least `wanted`."""
    power = 10 ** max(math.floor(math.log10(max(wanted, 1))), 0)
    return next(int(step * power) for step in (1, 2, 5, 10) if step * power >= wanted)


def packed_sequences(rows_by_tokens: Mapping[int, int], length: int) -> int:
    """Sequences of `length` that hold all rows whole, longest rows first, each where it leaves least room.

    Best-fit decreasing, as in "Fewer Truncations Improve Language Modeling" (Ding et al., 2024); rows longer than
    `length` count as cut to it. Where there are very many rows the figure is scaled up from an even sample.
    """
    cut: Counter[int] = Counter()
    for tokens, count in rows_by_tokens.items():
        cut[min(tokens, length)] += count
    full = cut.pop(length, 0)
    cut.pop(0, None)
    rest = sum(cut.values())
    if not rest:
        return full
    scale = max(rest / _PACKED_ROWS, 1.0)
    opened = _best_fit(_sampled(cut, scale), length)
    return full + math.ceil(opened * scale)


def _sampled(rows_by_tokens: Mapping[int, int], scale: float) -> Iterable[int]:
    """Every `scale`-th row, longest first."""
    passed = 0
    for tokens in sorted(rows_by_tokens, reverse=True):
        before = math.floor(passed / scale)
        passed += rows_by_tokens[tokens]
        yield from [tokens] * (math.floor(passed / scale) - before)


def _best_fit(rows: Iterable[int], length: int) -> int:
    bins_by_room: dict[int, int] = {}
    rooms: list[int] = []
    opened = 0
    for tokens in rows:
        at = bisect_left(rooms, tokens)
        room = rooms[at] if at < len(rooms) else None
        if room is None:
            opened += 1
        else:
            bins_by_room[room] -= 1
            if not bins_by_room[room]:
                del bins_by_room[room], rooms[at]
        left = (length if room is None else room) - tokens
        if left:
            if not bins_by_room.get(left):
                bins_by_room[left] = 0
                rooms.insert(bisect_left(rooms, left), left)
            bins_by_room[left] += 1
    return opened


def context_lengths(contexts: Iterable[Optional[int]]) -> list[int]:
    """The usual lengths, and the models' own where they are known."""
    return sorted({*LENGTHS, *(context for context in contexts if context and context > 0)})
