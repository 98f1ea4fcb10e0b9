"""What the split of a ``tokenizer.json`` does to a text before the model sees it. Stdlib only.

Two questions are answered from the file alone: which one regular expression equals the whole split (for a faster
engine), and whether a text may be cut before a space without changing any token (for recounting and long texts).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""The split inside of ``ByteLevel(use_regex=true)`` (tokenizers, pre_tokenizers/byte_level.rs)."""

# Each digit alone, then GPT-2's split on the stretches between digits. A stretch ends where a digit comes, so
# white space before a digit stands at an end: the lookahead must take a digit for one.
_DIGITS_THEN_GPT2 = r"\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"

_UPPER = (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}]")
_LOWER = (r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}]")
_HEADS = ("", " ?", r"[^\r\n\p{L}\p{N}]?", r"[^\s\p{L}\p{N}]?", r"[^\r\n\p{L}\p{P}\p{S}]?")
_CONTRACTIONS = (
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    "(?i:[sdmt]|ll|ve|re)",
    "'(?:[sdmt]|ll|ve|re)",
    "'(?i:[sdmt]|ll|ve|re)",
)


def _cut_free() -> frozenset[str]:
    """Alternatives of split patterns that can be cut between a character that is no white space and a space.

    None of them matches such a pair inside of one piece, and none looks past the end of a match that ends in
    something else than white space.
    """
    words = {head + word for head in _HEADS for word in (r"\p{L}+", r"[\p{L}\p{M}]+", r"[\p{L}\p{M}]*[\p{L}]+")}
    endings = ("", *(f"{contraction}?" for contraction in _CONTRACTIONS))
    cased = {
        f"{head}{upper}{first}{lower}{second}{ending}"
        for head in _HEADS
        for upper in _UPPER
        for lower in _LOWER
        for first, second in (("*", "+"), ("+", "*"))
        for ending in endings
    }
    numbers = {r"\p{N}", r"\p{N}+", r" ?\p{N}+", r" ?\p{N}", r"\p{N}{1,3}", r" ?\p{N}{1,3}", r"\d", r"\d+", "[0-9]"}
    other = {
        head + sign + tail
        for head in _HEADS
        for sign in (r"[^\s\p{L}\p{N}]+", r"[^\s\p{L}\p{N}\p{M}]+", r"[\p{P}\p{S}]+", r"[^\s\p{L}\p{M}\p{N}]+")
        for tail in ("", r"[\r\n]*", r"[\r\n/]*")
    }
    space = {r"\s*[\r\n]+", r"\s*[\r\n]", r"\s+(?!\S)", r"\s+", r"\s", r"\s+$", r"[\r\n]+", r"\s+(?![^\s\p{N}])"}
    return frozenset(words | cased | numbers | other | space | {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) | set(
        _CONTRACTIONS
    )


_CUT_FREE = _cut_free()
_PIECE_SPLITTERS = frozenset({"Digits", "Punctuation", "Whitespace", "WhitespaceSplit", "BertPreTokenizer"})
_UNICODE_FORMS = frozenset({"NFC", "NFD", "NFKC", "NFKD"})


def steps_of(part: Optional[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """The parts of a pre-tokenizer or normalizer in order, sequences unfolded.

    Args:
        part: as in the file; None for no step at all.
        key: ``pretokenizers`` or ``normalizers``.
    """
    if part is None:
        return []
    if part.get("type") != "Sequence":
        return [part]
    return [step for inner in part.get(key, []) for step in steps_of(inner, key)]


def byte_level_pattern(pre_tokenizer: Optional[dict[str, Any]]) -> Optional[str]:
    """The one regular expression whose successive matches are the words of a byte-level split, or None.

    Text between matches makes words of its own, as ``Isolated`` has it.
    """
    steps = steps_of(pre_tokenizer, "pretokenizers")
    if not steps or steps[-1].get("type") != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return None
    patterns = [_isolated_pattern(step) for step in steps[:-1]]
    if steps[-1].get("use_regex", True):
        patterns.append(GPT2)
    if patterns == [r"\p{N}", GPT2]:
        return _DIGITS_THEN_GPT2
    return patterns[0] if len(patterns) == 1 else None


def _isolated_pattern(step: dict[str, Any]) -> Optional[str]:
    if step.get("type") == "Digits" and step.get("individual_digits"):
        return r"\p{N}"
    if step.get("type") != "Split" or step.get("behavior") != "Isolated" or step.get("invert"):
        return None
    pattern = step.get("pattern", {}).get("Regex")
    return pattern if isinstance(pattern, str) else None


def alternatives(pattern: str) -> list[str]:
    """The alternatives of a regular expression at its top level."""
    found, depth, in_class, start = [], 0, False, 0
    position = 0
    while position < len(pattern):
        character = pattern[position]
        if character == "\\":
            position += 1
        elif in_class:
            in_class = character != "]"
        elif character == "[":
            in_class = True
        elif character in "()":
            depth += 1 if character == "(" else -1
        elif character == "|" and depth == 0:
            found.append(pattern[start:position])
            start = position + 1
        position += 1
    return [*found, pattern[start:]]


def cuts_before_spaces(pattern: str) -> bool:
    """Whether a text may be cut between a character that is no white space and a space, under this split pattern."""
    whole = pattern.replace("++", "+").replace("?+", "?").replace("*+", "*")
    return all(alternative in _CUT_FREE for alternative in alternatives(whole))


def words_end_before_spaces(content: dict[str, Any]) -> bool:
    """Whether every word of this ``tokenizer.json`` ends before a space that follows something else.

    True only where each step of the split and of the normalizer is known to be of that kind, so that the two
    halves of a text cut there give the tokens of the whole.
    """
    return _split_allows(steps_of(content.get("pre_tokenizer"), "pretokenizers")) and all(
        step.get("type") in _UNICODE_FORMS or step.get("type") == "BertNormalizer"
        for step in steps_of(content.get("normalizer"), "normalizers")
    )


def _split_allows(steps: Sequence[dict[str, Any]]) -> bool:
    # Each step cuts what the one before has left, so all of them must leave the cut alone and one must make it.
    makes_it = False
    for step in steps:
        kind = step.get("type")
        if kind == "Split":
            pattern = step.get("pattern", {}).get("Regex")
            if not isinstance(pattern, str) or step.get("behavior") not in ("Isolated", "Removed"):
                return False
            if not cuts_before_spaces(pattern):
                return False
            makes_it = makes_it or r"\s+" in alternatives(pattern)
        elif kind == "ByteLevel":
            makes_it = makes_it or bool(step.get("use_regex", True))
        elif kind == "Metaspace":
            # The second half starts with a space, so nothing is put before it under any prepend_scheme.
            if not step.get("split", True):
                return False
            makes_it = True
        elif kind == "Punctuation" and step.get("behavior", "Isolated") not in ("Isolated", "Removed", "Contiguous"):
            return False
        elif kind in _PIECE_SPLITTERS:
            makes_it = makes_it or kind in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer")
        else:
            return False
    return makes_it
