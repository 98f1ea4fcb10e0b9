"""The KV cache of transformers as the decode loop uses it. Needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional


def cache_bytes(cache: Any) -> int:
    """Bytes of the storages behind a transformers cache, each once; views keep their whole storage."""
    import torch

    found: dict[int, int] = {}
    for layer in getattr(cache, "layers", None) or ():
        for value in vars(layer).values():
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                found[storage._cdata] = storage.nbytes()
    for name in ("key_cache", "value_cache"):  # before transformers 4.56
        for value in getattr(cache, name, None) or ():
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                found[storage._cdata] = storage.nbytes()
    return sum(found.values())


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many leading items two sequences share."""
    count = min(len(left), len(right))
    if left[:count] == right[:count]:
        return count
    return next(index for index in range(count) if left[index] != right[index])


def cached_length(cache: Any) -> Optional[int]:
    """How many tokens a transformers cache holds; None if it cannot tell."""
    try:
        return int(cache.get_seq_length())
    except Exception:
        return None


def crop(cache: Any, keep: int, have: int) -> bool:
    """Shorten a cache of `have` tokens to `keep`; False where it cannot go back and must be dropped."""
    try:
        # A negative count is the one form that both old and new versions of transformers take.
        cache.crop(keep - have)
    except Exception:  # sliding windows and recurrent states cannot go back
        return False
    return cached_length(cache) == keep


def rewind(cache: Any, keep: int) -> bool:
    """Take back a pass that was left in the middle, where some layers hold its tokens and others do not.

    False where a layer cannot go back; the cache must be dropped then.
    """
    try:
        for layer in cache.layers:
            layer.crop(min(0, keep - int(layer.get_seq_length())))
        return all(int(layer.get_seq_length()) == keep for layer in cache.layers)
    except Exception:  # no cache yet, sliding windows, recurrent states
        return False
