"""Prompt lookup: guess the next tokens by finding the last few earlier in the text. Stdlib only.

A text that is copied or edited repeats long runs of what came before. Each right guess saves a forward pass, a
wrong one costs a little, so guessing pauses where it does not pay.

Method: https://github.com/apoorvumang/prompt-lookup-decoding
"""

from __future__ import annotations

from collections.abc import Sequence

SHORTEST_MATCH, LONGEST_MATCH = 2, 3
PATIENCE = 3
"""Wrong guesses in a row after which guessing pauses."""
PAUSE_TOKENS = 24


class PromptLookup:
    """Guesses for one answer.

    Args:
        size: tokens guessed at once; 0 guesses nothing.

    Attributes:
        right: tokens guessed rightly so far.
    """

    def __init__(self, size: int) -> None:
        self.right = 0
        self._size = size
        self._ids: list[int] = []
        self._followed: dict[tuple[int, ...], int] = {}
        """Where the text last went on after a run of tokens."""
        self._misses = 0
        self._resume_at = 0

    def extend(self, ids: Sequence[int]) -> None:
        """More of the text is known."""
        if not self._size:
            return
        for token_id in ids:
            position = len(self._ids)
            for length in range(SHORTEST_MATCH, min(LONGEST_MATCH, position) + 1):
                self._followed[tuple(self._ids[position - length :])] = position
            self._ids.append(token_id)

    def guess(self) -> list[int]:
        """The tokens that may come next; empty where the text gives no hint or guessing does not pay."""
        if not self._size or len(self._ids) < self._resume_at:
            return []
        for length in range(LONGEST_MATCH, SHORTEST_MATCH - 1, -1):
            at = self._followed.get(tuple(self._ids[-length:]))
            if at is not None:
                return self._ids[at : at + self._size]
        return []

    def told(self, right: int) -> None:
        """How many tokens of the last guess were right."""
        self.right += right
        self._misses = 0 if right else self._misses + 1
        if self._misses >= PATIENCE:
            self._misses = 0
            self._resume_at = len(self._ids) + PAUSE_TOKENS
