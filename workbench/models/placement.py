"""On which GPUs a model is loaded where there are several. Stdlib only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SPARE_BYTES = 768 * 2**20
"""Kept free on each GPU of several, for the CUDA context, workspaces and activations that each of them needs."""


@dataclass(frozen=True)
class Placement:
    """Where a model goes.

    Attributes:
        index: the GPU it goes to, or the first of several.
        max_memory: bytes that layers may take on each GPU, by its index; empty where one GPU has them all.
    """

    index: int
    max_memory: tuple[tuple[int, int], ...] = ()


def place(needed_bytes: int, free_bytes: Sequence[int]) -> Placement:
    """The first GPU where the model fits it, else the emptiest, else all of them, each as far as it has room.

    Where even all are too small it is the emptiest, whose message then tells by how much.

    Args:
        needed_bytes: for weights, KV cache and what comes on top, on one GPU; 0 where it is not known.
        free_bytes: of each GPU, by its index; at least one.
    """
    emptiest = max(range(len(free_bytes)), key=lambda index: free_bytes[index])
    if needed_bytes <= free_bytes[0]:
        return Placement(0)
    if needed_bytes <= free_bytes[emptiest]:
        return Placement(emptiest)
    room = tuple((index, free - SPARE_BYTES) for index, free in enumerate(free_bytes) if free > SPARE_BYTES)
    if len(room) < 2 or needed_bytes > sum(count_bytes for _, count_bytes in room):
        return Placement(emptiest)
    return Placement(room[0][0], room)
