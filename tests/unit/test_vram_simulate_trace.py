"""The allocator's rules, traces and their expansion, without torch."""

from __future__ import annotations

import itertools
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.vram.simulate.allocator import CLOSE_ENOUGH_BYTES, CachingAllocator, OutOfRoom, least_room, replay
from workbench.vram.simulate.layers import GROUPS, choose_layers, expand
from workbench.vram.simulate.trace import NO_LAYER, Trace, live_after, phase_peaks, timeline

MIB = 2**20


def test_requests_are_rounded_and_come_from_segments() -> None:
    allocator = CachingAllocator()
    allocator.allocate(1)
    assert (allocator.allocated_bytes, allocator.reserved_bytes) == (512, 2 * MIB)
    allocator.allocate(MIB)
    assert (allocator.allocated_bytes, allocator.reserved_bytes) == (512 + MIB, 2 * MIB)
    allocator.allocate(MIB + 1)
    assert allocator.reserved_bytes == 22 * MIB
    allocator.allocate(19 * MIB + 1)
    assert allocator.reserved_bytes == 42 * MIB


def test_a_large_block_is_not_split_for_a_rest_of_one_mib() -> None:
    allocator = CachingAllocator()
    allocator.release(allocator.allocate(12 * MIB))
    allocator.allocate(11 * MIB)
    assert allocator.allocated_bytes == 12 * MIB
    allocator = CachingAllocator()
    allocator.release(allocator.allocate(12 * MIB))
    allocator.allocate(11 * MIB - 512)
    assert allocator.allocated_bytes == 11 * MIB - 512


def test_freed_neighbours_join_and_whole_segments_can_go() -> None:
    allocator = CachingAllocator()
    blocks = [allocator.allocate(8 * MIB) for _ in range(2)]
    assert allocator.reserved_bytes == 20 * MIB
    for block in blocks:
        allocator.release(block)
    allocator.allocate(15 * MIB)
    assert allocator.reserved_bytes == 20 * MIB
    allocator.allocate(30 * MIB)
    allocator.empty_cache()
    assert allocator.reserved_bytes == 50 * MIB


def test_a_replay_empties_the_cache_where_told() -> None:
    sizes = [40 * MIB, 50 * MIB]
    assert replay([0, ~0, 1], sizes).max_reserved_bytes == 90 * MIB
    assert replay([0, ~0, 1], sizes, emptied=[2]).max_reserved_bytes == 50 * MIB


def test_a_small_device_is_given_back_to_and_asked_again() -> None:
    sizes = [400 * MIB, 500 * MIB]
    unlimited = replay([0, ~0, 1], sizes)
    assert unlimited.max_reserved_bytes == 900 * MIB
    assert replay([0, ~0, 1], sizes, limit_bytes=500 * MIB).max_reserved_bytes == 500 * MIB
    assert 500 * MIB <= least_room([0, ~0, 1], sizes, [], unlimited) <= 532 * MIB
    # A part of the first segment is still in use: it cannot go back.
    sizes = [400 * MIB, 30 * MIB, 500 * MIB]
    events = [0, ~0, 1, 2]
    with pytest.raises(OutOfRoom):
        replay(events, sizes, limit_bytes=899 * MIB)
    assert 900 * MIB - CLOSE_ENOUGH_BYTES <= least_room(events, sizes, [], replay(events, sizes)) <= 900 * MIB


@given(st.lists(st.tuples(st.integers(1, 40 * MIB), st.booleans()), max_size=80))
def test_blocks_never_overlap_and_bytes_add_up(requests: list[tuple[int, bool]]) -> None:
    allocator = CachingAllocator()
    held: list[Any] = []
    for size, keep in requests:
        block = allocator.allocate(size)
        assert block.size >= size
        if keep or not held:
            held.append(block)
        else:
            allocator.release(held.pop(0))
            held.append(block)
    spans = sorted((block.address, block.address + block.size) for block in held)
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))
    assert allocator.allocated_bytes == sum(block.size for block in held) <= allocator.reserved_bytes
    for block in held:
        allocator.release(block)
    allocator.empty_cache()
    assert (allocator.allocated_bytes, allocator.reserved_bytes) == (0, 0)


def test_what_repeats_is_left_out() -> None:
    assert choose_layers("aaaaaaaa").kept == (0, 1, 6, 7)
    assert choose_layers("aaaaaaaa").copies == 4
    assert choose_layers("aaaa").copies == 0
    dense_first = choose_layers("bbaaaaaaa")
    assert dense_first.kept == (0, 1, 2, 3, 7, 8)
    assert dense_first.groups == (0, 0, 0, 1, 2, 3)
    alternating = choose_layers("ab" * 6 + "a")
    assert alternating.kept == (0, 1, 2, 3, 8, 9, 10, 11, 12)
    assert alternating.groups == (0, 0, 1, 1, 2, 2, 3, 3, 3)
    assert choose_layers("abcdefgh").copies == 0
    assert max(choose_layers("a" * 100).groups) == GROUPS - 1


def step(layers: int, odd_layer: Optional[int] = None) -> Trace:
    """A forward pass in which each layer keeps one tensor and lets go of its input, and a backward pass."""
    trace = Trace()
    trace.mark("forward", 1)
    stream = trace.allocate(10, "embedding", "add", NO_LAYER, NO_LAYER)
    kept = []
    for layer in range(layers):
        kept.append(trace.allocate(100 if layer != odd_layer else 77, "layer.*", "mm", layer, layer))
        following = trace.allocate(10, "layer.*", "add", layer, layer)
        trace.free(stream, layer)
        stream = following
    trace.mark("backward", 1)
    gradient = trace.allocate(10, "loss", "mm", NO_LAYER, NO_LAYER)
    for layer in reversed(range(layers)):
        following = trace.allocate(10, "layer.*", "mm", layer, layer)
        trace.free(gradient, layer)
        trace.free(kept[layer], layer)
        gradient = following
    trace.free(stream, NO_LAYER)
    return trace


def test_a_trace_of_four_layers_becomes_that_of_nine() -> None:
    expanded = expand(step(4), 5)
    whole = step(9)
    assert expanded is not None
    assert expanded.sizes == whole.sizes
    assert expanded.events == whole.events
    assert [mark.start for mark in expanded.marks] == [mark.start for mark in whole.marks]
    assert phase_peaks(expanded) == phase_peaks(whole)


def test_layers_that_differ_are_not_taken_for_each_other() -> None:
    assert expand(step(4, odd_layer=2), 5) is None
    unchanged = step(4, odd_layer=2)
    assert expand(unchanged, 0) is unchanged


def test_the_timeline_keeps_the_peak() -> None:
    trace = step(50)
    points = timeline(trace, 12)
    assert len(points) <= 12
    most = max(phase_peaks(trace), key=lambda peak: peak.live_bytes)
    assert max(live for _event, live in points) == most.live_bytes
    assert sum(trace.sizes[number] for number in live_after(trace, most.event)) == most.live_bytes
