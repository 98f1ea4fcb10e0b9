"""Where a text may be cut so that the tokens of the parts are the tokens of the whole. Stdlib only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional
from weakref import WeakKeyDictionary

from workbench.tokens.byte_pairs import BytePairTokenizer
from workbench.tokens.huggingface import HuggingFaceTokenizer
from workbench.tokens.split import alternatives, cuts_before_spaces, steps_of, words_end_before_spaces
from workbench.tokens.tokenizer import TextTokenizer

_CUT = re.compile(r"(?<=\S)(?= )")
_INNER_SPACE = re.compile(r"\S ")


@dataclass(frozen=True)
class CutRule:
    """A text may be cut between a character that is no white space and a space.

    Attributes:
        takes_space: whether the second part is encoded without its first space, because the tokenizer puts one
            before every text.
        not_beside: markers; with `takes_space` there is no cut after one, nor before the space that precedes one.
    """

    takes_space: bool = False
    not_beside: tuple[str, ...] = ()

    def next_cut(self, text: str, position: int) -> Optional[int]:
        """The first place at or after `position` where `text` may be cut, or None."""
        for found in _CUT.finditer(text, max(position, 1)):
            if self.allows(text, found.start()):
                return found.start()
        return None

    def allows(self, text: str, position: int) -> bool:
        """Whether `text` may be cut at `position`."""
        if not 0 < position < len(text) or text[position] != " " or text[position - 1].isspace():
            return False
        if not self.takes_space:
            return True
        # The tokenizer puts nothing before an empty stretch, and a stretch ends at a marker.
        beside = text.endswith(self.not_beside, 0, position) or text.startswith(self.not_beside, position + 1)
        return position + 1 < len(text) and not beside

    def parts(self, text: str, size: int) -> Iterator[str]:
        """`text` in stretches of about `size` characters, each as it stands in the text."""
        start = 0
        while start < len(text):
            cut = self.next_cut(text, start + size)
            end = len(text) if cut is None else cut
            yield text[start:end]
            start = end

    def as_encoded(self, part: str, first: bool) -> str:
        """What to give to the tokenizer for a stretch of the text."""
        return part[1:] if self.takes_space and not first else part


_known: WeakKeyDictionary[TextTokenizer, Optional[CutRule]] = WeakKeyDictionary()


def cut_rule(tokenizer: TextTokenizer) -> Optional[CutRule]:
    """The rule for `tokenizer`, or None where no place is known to be safe. Found once per tokenizer."""
    if tokenizer not in _known:
        _known[tokenizer] = _found(tokenizer)
    return _known[tokenizer]


def _found(tokenizer: TextTokenizer) -> Optional[CutRule]:
    if isinstance(tokenizer, BytePairTokenizer):
        return _of_encoding(tokenizer)
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return _of_file(tokenizer.content())
    return None


def _of_encoding(tokenizer: BytePairTokenizer) -> Optional[CutRule]:
    pattern = str(tokenizer.encoding._pat_str)
    if not cuts_before_spaces(pattern) or r"\s+" not in alternatives(pattern):
        return None
    return None if any(_INNER_SPACE.search(token) for token in tokenizer.special_tokens()) else CutRule()


def _of_file(content: dict[str, Any]) -> Optional[CutRule]:
    added = content.get("added_tokens") or []
    for token in added:
        if token.get("rstrip") or token.get("single_word") or _INNER_SPACE.search(token["content"]):
            return None
    if content["model"].get("dropout"):
        return None
    if words_end_before_spaces(content):
        return CutRule()
    return _of_marked_spaces(content, tuple(token["content"] for token in added))


def _of_marked_spaces(content: dict[str, Any], added: tuple[str, ...]) -> Optional[CutRule]:
    """The rule of a BPE without a split, where spaces become ``▁`` (Llama 2, Gemma).

    No token has a ``▁`` after something else, so no merge ever joins the two sides of such a place.
    """
    model = content["model"]
    if model.get("type") != "BPE" or model.get("ignore_merges") or any("▁" in token for token in added):
        return None
    if any(step.get("pattern") != {"String": " "} for step in steps_of(content.get("pre_tokenizer"), "pretokenizers")):
        return None
    steps = steps_of(content.get("normalizer"), "normalizers")
    prepends = bool(steps) and steps[0] == {"type": "Prepend", "prepend": "▁"}
    if steps[1 if prepends else 0 :] != [{"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]:
        return None
    if any("▁" in spelling.lstrip("▁") for spelling in model["vocab"]):
        return None
    return CutRule(takes_space=True, not_beside=added) if prepends else CutRule()
