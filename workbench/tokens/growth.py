"""How much longer the rules of a tokenizer's file can make a text, before anything is given to them. Stdlib only."""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

from workbench.tokens.tokenizer import bad_tokenizer

_MOST = 256.0
"""Published tokenizers stay below 10: a normalizer that prepends one character, a regular expression or two."""


def refuse_growth(growth: float, file: Path) -> None:
    """Four replacements of one character by a thousand make 3 TB of 3 characters, in native code that nothing stops.

    Raises:
        WorkbenchError: ``bad-tokenizer``.
    """
    if growth > _MOST:
        raise bad_tokenizer(file, f"its replacements can make a text {growth:,.0f} times as long")


def step_growth(step: dict[str, Any]) -> float:
    """How many characters a normalizer or decoder of a ``tokenizer.json`` can make of one, by its own texts."""
    steps = step.get("normalizers") or step.get("decoders")
    if steps:
        return math.prod(step_growth(inner) for inner in steps)
    if step.get("type") == "Precompiled":
        return longest_replacement(base64.b64decode(step["precompiled_charsmap"]))
    added = len(step.get("content") or step.get("prepend") or "")
    if step.get("type") == "Prepend":
        return 1.0 + added
    if step.get("type") != "Replace":
        return 1.0
    literal = step["pattern"].get("String")
    # A regular expression may match the empty text between any two characters.
    return max(1.0, added / len(literal)) if literal else 1.0 + added


def longest_replacement(charsmap: bytes) -> float:
    """Bytes of the longest text that a character is replaced with; the longest of Unicode's own has 33.

    As SentencePiece writes it (normalizer.cc, ``EncodePrecompiledCharsMap``): the size of a trie in four bytes, the
    trie, and the texts that its values point into, each ended by a zero byte.
    """
    trie_bytes = int.from_bytes(charsmap[:4], "little")
    return max(1.0, *map(float, map(len, charsmap[4 + trie_bytes :].split(b"\0"))))
