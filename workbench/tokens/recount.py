"""Counting a text again after an edit, at the price of the edit. Stdlib only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Optional

from workbench.tokens.count import TextFigures, TokenCount, text_figures
from workbench.tokens.cuts import CutRule, cut_rule
from workbench.tokens.losses import Loss, loss_of
from workbench.tokens.pieces import Piece, require_encodable
from workbench.tokens.tokenizer import TextTokenizer

PART_CHARACTERS = 1024


@dataclass(frozen=True)
class _Part:
    text: str
    tokens: int
    loss: Loss


class TextCounter:
    """Counts one text that changes under one tokenizer.

    The text is kept in parts, cut only where the tokens of the parts are those of the whole (`workbench.tokens.cuts`);
    after an edit the parts it touched are encoded again. Tokenizers without such places count the whole text.

    Args:
        tokenizer: any; its content is read once.
        special: count what the tokenizer puts around a text (BOS, EOS, CLS).
        plain: take special tokens typed in the text as plain text.
    """

    def __init__(self, tokenizer: TextTokenizer, *, special: bool = False, plain: bool = False) -> None:
        self.tokenizer = tokenizer
        self._plain = plain
        self._around = len(tokenizer.encode("", True)) - len(tokenizer.encode("")) if special else 0
        self._rule: Optional[CutRule] = cut_rule(tokenizer)
        self._parts: list[_Part] = []

    @property
    def is_incremental(self) -> bool:
        """Whether an edit costs less than counting the whole text."""
        return self._rule is not None

    def update(self, text: str, figures: Optional[TextFigures] = None) -> TokenCount:
        """Count `text`, encoding only what changed since the last call.

        Args:
            text: the whole text as it is now.
            figures: of this text, where the caller has them (they cost more than a small edit).

        Raises:
            WorkbenchError: ``bad-text`` for a lone surrogate.
        """
        sizes = figures or text_figures(text)
        require_encodable(text)
        self._parts = self._recounted(text)
        tokens = sum(part.tokens for part in self._parts) + self._around
        return TokenCount(
            model=self.tokenizer.name,
            text=sizes.name,
            tokens=tokens,
            bytes_per_token=sizes.bytes / tokens if tokens else 0.0,
            tokens_per_word=tokens / sizes.words if sizes.words else 0.0,
            characters_per_token=sizes.characters / tokens if tokens else 0.0,
            vocab_size=self.tokenizer.vocab_size,
            unknown_tokens=sum(part.loss.unknown_tokens for part in self._parts),
            lost_characters=sum(part.loss.characters for part in self._parts),
        )

    def pieces(self, start: int, end: int) -> list[Piece]:
        """The tokens of the parts of the last text that overlap the characters from `start` to `end`.

        Offsets are those of the whole text. The first and the last piece may lie outside of the stretch.
        """
        found: list[Piece] = []
        position = 0
        for index, part in enumerate(self._parts):
            if position < end and start < position + len(part.text):
                found += self._pieces_of(part.text, index == 0, position)
            position += len(part.text)
        return found

    def _pieces_of(self, text: str, first: bool, position: int) -> Iterator[Piece]:
        encoded = self._rule.as_encoded(text, first) if self._rule else text
        shift = len(text) - len(encoded)
        for piece in self.tokenizer.encode_pieces(encoded, False, not self._plain):
            # The space that the tokenizer put back is the one before the stretch that it was given.
            start = piece.start if piece.start == 0 and shift else piece.start + shift
            stop = max(piece.end + shift, start)
            yield replace(piece, start=start + position, end=stop + position, text=text[start:stop] or piece.text)

    def _recounted(self, text: str) -> list[_Part]:
        rule = self._rule
        if rule is None:
            unchanged = len(self._parts) == 1 and self._parts[0].text == text
            return self._parts if unchanged else [self._part(text, True)]
        before, position = self._unchanged_before(text, rule)
        after, end = self._unchanged_after(text, rule, len(before), position)
        middle: list[_Part] = []
        for stretch in rule.parts(text[position:end], PART_CHARACTERS):
            middle.append(self._part(stretch, position == 0 and not middle))
        return [*before, *middle, *after]

    def _unchanged_before(self, text: str, rule: CutRule) -> tuple[list[_Part], int]:
        kept: list[_Part] = []
        position = 0
        for part in self._parts:
            if not text.startswith(part.text, position):
                break
            kept.append(part)
            position += len(part.text)
        while kept and position < len(text) and not rule.allows(text, position):
            position -= len(kept.pop().text)
        return kept, position

    def _unchanged_after(self, text: str, rule: CutRule, used: int, position: int) -> tuple[list[_Part], int]:
        kept: list[_Part] = []
        end = len(text)
        # The part that began the text was encoded as such and has no place after another.
        for part in reversed(self._parts[max(used, 1) :]):
            start = end - len(part.text)
            if start < position or not text.startswith(part.text, start):
                break
            kept.append(part)
            end = start
        # Nor has another part a place at the start: 0 is no cut for `allows`.
        while kept and not rule.allows(text, end):
            end += len(kept.pop().text)
        return kept[::-1], end

    def _part(self, text: str, first: bool) -> _Part:
        encoded = self._rule.as_encoded(text, first) if self._rule else text
        ids = self.tokenizer.encode(encoded, False, not self._plain)
        return _Part(text, len(ids), loss_of(encoded, self.tokenizer, ids, not self._plain))
