"""A model of torch's CUDA caching allocator: what it reserves for a sequence of requests. Stdlib only.

Rules as in torch 2.13 ``c10/cuda/CUDACachingAllocator.cpp`` with its default settings: requests are rounded to
512 bytes; those up to 1 MiB come from segments of 2 MiB, those below 10 MiB from segments of 20 MiB, larger ones
from segments in multiples of 2 MiB; the smallest free block that holds a request is taken (of equal ones that at
the lowest address) and split when enough remains; a freed block joins its free neighbours. Where the device has no
room for another segment, those that are wholly free go back first (``release_cached_blocks``).
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Optional

MIN_BLOCK_BYTES = 512
SMALL_BYTES = 2**20
SMALL_SEGMENT_BYTES = 2 * 2**20
MIN_LARGE_BYTES = 10 * 2**20
LARGE_SEGMENT_BYTES = 20 * 2**20
ROUND_LARGE_BYTES = 2 * 2**20


CLOSE_ENOUGH_BYTES = 32 * 2**20
"""How closely the least room is looked for."""


class OutOfRoom(Exception):
    """The device cannot hold another segment."""


class _Block:
    __slots__ = ("address", "following", "free", "is_small", "previous", "size")

    def __init__(self, address: int, size: int, is_small: bool) -> None:
        self.address = address
        self.size = size
        self.is_small = is_small
        self.free = False
        self.previous: Optional[_Block] = None
        self.following: Optional[_Block] = None


@dataclass
class CachingAllocator:
    """The state of one device's allocator on one stream."""

    allocated_bytes: int = 0
    """Sum of the blocks in use, as ``torch.cuda.memory_allocated`` counts."""
    reserved_bytes: int = 0
    max_allocated_bytes: int = 0
    max_reserved_bytes: int = 0
    limit_bytes: Optional[int] = None
    """What the device can hold; None for a device without end."""
    _free: dict[bool, list[tuple[int, int, _Block]]] = field(default_factory=lambda: {True: [], False: []})
    _next_address: int = 0

    def allocate(self, size: int) -> _Block:
        """Take a block for `size` bytes.

        Raises:
            OutOfRoom: it does not fit, even after all cached segments went back.
        """
        rounded = max(MIN_BLOCK_BYTES, -(-size // MIN_BLOCK_BYTES) * MIN_BLOCK_BYTES)
        is_small = rounded <= SMALL_BYTES
        block = self._take(rounded, is_small) or self._new_segment(rounded, is_small)
        remaining = block.size - rounded
        if remaining >= MIN_BLOCK_BYTES if is_small else remaining > SMALL_BYTES:
            self._split(block, rounded)
        block.free = False
        self.allocated_bytes += block.size
        self.max_allocated_bytes = max(self.max_allocated_bytes, self.allocated_bytes)
        return block

    def release(self, block: _Block) -> None:
        """Give a block back to the cache."""
        self.allocated_bytes -= block.size
        block.free = True
        for neighbour in (block.previous, block.following):
            if neighbour is not None and neighbour.free:
                self._remove(neighbour)
                self._join(block, neighbour)
        self._insert(block)

    def empty_cache(self) -> None:
        """Return every segment that is wholly free, as ``torch.cuda.empty_cache`` does."""
        for is_small in (True, False):
            kept = []
            for entry in self._free[is_small]:
                block = entry[2]
                if block.previous is None and block.following is None:
                    self.reserved_bytes -= block.size
                else:
                    kept.append(entry)
            self._free[is_small] = kept

    def _take(self, size: int, is_small: bool) -> Optional[_Block]:
        blocks = self._free[is_small]
        index = bisect.bisect_left(blocks, (size,))
        return blocks.pop(index)[2] if index < len(blocks) else None

    def _new_segment(self, size: int, is_small: bool) -> _Block:
        if is_small:
            segment = SMALL_SEGMENT_BYTES
        elif size < MIN_LARGE_BYTES:
            segment = LARGE_SEGMENT_BYTES
        else:
            segment = -(-size // ROUND_LARGE_BYTES) * ROUND_LARGE_BYTES
        if self._is_beyond_limit(segment):
            self.empty_cache()
            if self._is_beyond_limit(segment):
                raise OutOfRoom
        self.reserved_bytes += segment
        self.max_reserved_bytes = max(self.max_reserved_bytes, self.reserved_bytes)
        # The driver hands out addresses downwards, which decides between free blocks of equal size: with that order
        # the peaks measured on a T4 come out to the segment.
        self._next_address -= segment
        return _Block(self._next_address, segment, is_small)

    def _is_beyond_limit(self, segment: int) -> bool:
        return self.limit_bytes is not None and self.reserved_bytes + segment > self.limit_bytes

    def _split(self, block: _Block, size: int) -> None:
        rest = _Block(block.address + size, block.size - size, block.is_small)
        rest.free = True
        rest.previous, rest.following = block, block.following
        if block.following is not None:
            block.following.previous = rest
        block.following = rest
        block.size = size
        self._insert(rest)

    def _join(self, block: _Block, neighbour: _Block) -> None:
        if neighbour is block.previous:
            block.address = neighbour.address
            block.previous = neighbour.previous
            if block.previous is not None:
                block.previous.following = block
        else:
            block.following = neighbour.following
            if block.following is not None:
                block.following.previous = block
        block.size += neighbour.size

    def _insert(self, block: _Block) -> None:
        bisect.insort(self._free[block.is_small], (block.size, block.address, block))

    def _remove(self, block: _Block) -> None:
        blocks = self._free[block.is_small]
        del blocks[bisect.bisect_left(blocks, (block.size, block.address))]


@dataclass(frozen=True)
class Replayed:
    """What a sequence of requests makes of the allocator."""

    max_allocated_bytes: int
    max_reserved_bytes: int
    allocated_peaks: tuple[int, ...]
    """The most allocated in each stretch between two of the boundaries asked for."""
    reserved_at: tuple[int, ...]
    """Bytes reserved at the end of each stretch."""


def replay(
    events: Sequence[int],
    sizes: Sequence[int],
    boundaries: Sequence[int] = (),
    emptied: Sequence[int] = (),
    limit_bytes: Optional[int] = None,
) -> Replayed:
    """Run events as in `workbench.vram.simulate.trace.Trace` through the allocator.

    Args:
        events: storage numbers, complemented where freed.
        sizes: bytes requested for each storage.
        boundaries: indices of events at which a new stretch begins, ascending.
        emptied: indices of events before which the cache is emptied.
        limit_bytes: what the device can hold; None for one without end.

    Raises:
        OutOfRoom: the device cannot hold it.
    """
    allocator = CachingAllocator(limit_bytes=limit_bytes)
    blocks: dict[int, _Block] = {}
    starts = iter([*boundaries, len(events)])
    next_start = next(starts)
    peaks, reserved = [], []
    peak = 0
    empties = set(emptied)
    for index, number in enumerate(events):
        if index in empties:
            allocator.empty_cache()
        while index == next_start:
            peaks.append(peak)
            reserved.append(allocator.reserved_bytes)
            peak = allocator.allocated_bytes
            next_start = next(starts)
        if number >= 0:
            if sizes[number]:
                blocks[number] = allocator.allocate(sizes[number])
                peak = max(peak, allocator.allocated_bytes)
        else:
            block = blocks.pop(~number, None)
            if block is not None:
                allocator.release(block)
    peaks.append(peak)
    reserved.append(allocator.reserved_bytes)
    return Replayed(allocator.max_allocated_bytes, allocator.max_reserved_bytes, tuple(peaks), tuple(reserved))


def least_room(events: Sequence[int], sizes: Sequence[int], emptied: Sequence[int], unlimited: Replayed) -> int:
    """The smallest device, in bytes, on which the events run: there the allocator gives back and asks again.

    Looked for by halving between the most allocated and the most reserved, to `CLOSE_ENOUGH_BYTES`.

    Args:
        events: as for `replay`.
        sizes: as for `replay`.
        emptied: as for `replay`.
        unlimited: what the same events make of a device without end.
    """
    low, high = unlimited.max_allocated_bytes, unlimited.max_reserved_bytes
    while high - low > CLOSE_ENOUGH_BYTES:
        middle = (low + high) // 2
        try:
            replay(events, sizes, emptied=emptied, limit_bytes=middle)
        except OutOfRoom:
            low = middle
        else:
            high = middle
    return high
