"""Looking around in a vocabulary: by id, text, regular expression, script, length, and what can never come out.

Stdlib only; regular expressions need the package regex, which can be stopped (tiktoken brings it along).
"""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Optional

from workbench.errors import WorkbenchError
from workbench.job import SILENT, Job
from workbench.packages import need
from workbench.text import one_line
from workbench.tokens.byte_level import is_byte_level, readable, spelling_to_bytes
from workbench.tokens.byte_pairs import BytePairTokenizer
from workbench.tokens.huggingface import HuggingFaceTokenizer
from workbench.tokens.sentencepiece import SentencePieceTokenizer
from workbench.tokens.tokenizer import TextTokenizer

REGEX_SECONDS = 2.0
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_CHECKED_AT_ONCE = 2000
# A token without a leading space may need something before it that it does not join.
_BEFORE = ("", "\n", "\u4e00", "\u0416", "a", "0")


@dataclass(frozen=True)
class Token:
    """One entry of a vocabulary."""

    id: int
    spelling: str
    """As the file has it: ``Ġthe``, ``▁the``, ``##ing``, ``<0x0A>``."""
    text: str
    """What it stands for in a text; bytes that are no whole characters as ``<0xE2>``."""
    bytes: int
    """How many bytes of text it stands for."""
    special: bool
    """A marker or another added token."""
    whole: bool
    """Whether its bytes are whole characters."""
    rank: float
    """Its place among all ids, 0.0 to 1.0. Most vocabularies are in the order of training, common tokens first."""


@dataclass(frozen=True)
class Unreachable:
    """A token that its own text does not give."""

    token: Token
    reason: str
    comes_out_as: list[str]
    """Spellings of the tokens that the text gives instead."""


class Vocabulary:
    """All tokens of a tokenizer. Making one reads every token: some 0.2 s for 100,000 tokens."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        entries = sorted(_entries(tokenizer))
        last = max((entry[0] for entry in entries), default=0) or 1
        self.tokens: list[Token] = [_token(*entry, last) for entry in entries]
        self._by_id = {token.id: token for token in self.tokens}

    def __len__(self) -> int:
        return len(self.tokens)

    def by_id(self, token_id: int) -> Token:
        """The token of this id.

        Raises:
            WorkbenchError: ``unknown-token``.
        """
        if token_id not in self._by_id:
            raise WorkbenchError(
                "unknown-token",
                f"{self._tokenizer.name} has no token {token_id}.",
                f"Ids run from 0 to {max(self._by_id, default=0)}.",
            )
        return self._by_id[token_id]

    def exact(self, text: str) -> list[Token]:
        """Tokens that stand for exactly this text, or are spelled so."""
        return [token for token in self.tokens if text in (token.text, token.spelling)]

    def containing(self, text: str, limit: int = 200, ignore_case: bool = False) -> list[Token]:
        """The first `limit` tokens, by id, whose text contains `text`."""
        if ignore_case:
            wanted = text.casefold()
            return self._first((token for token in self.tokens if wanted in token.text.casefold()), limit)
        return self._first((token for token in self.tokens if text in token.text), limit)

    def matching(self, pattern: str, limit: int = 200, seconds: float = REGEX_SECONDS) -> list[Token]:
        """The first `limit` tokens, by id, in whose text a regular expression is found.

        Args:
            pattern: of the package regex, ``\\p{L}`` and the like included.
            seconds: after which the search is given up.

        Raises:
            WorkbenchError: ``bad-pattern``, ``pattern-timeout`` or ``missing-package``.
        """
        regex = need("regex", "Searching by regular expression")
        try:
            search = regex.compile(pattern).search
        except (regex.error, RecursionError, OverflowError) as error:
            raise WorkbenchError(
                "bad-pattern", f"{one_line(pattern, 80)!r} is no regular expression: {error}.", "Mend it."
            ) from None
        try:
            return list(self._searched(search, limit, seconds))
        except TimeoutError:
            raise WorkbenchError(
                "pattern-timeout",
                f"The search for {one_line(pattern, 80)!r} took more than {seconds:g} seconds.",
                "Use a simpler pattern.",
            ) from None

    def _searched(self, search: Callable[..., Any], limit: int, seconds: float) -> Iterator[Token]:
        deadline = time.monotonic() + seconds
        found = 0
        for token in self.tokens:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if search(token.text, timeout=left):
                found += 1
                yield token
                if found >= limit:
                    return

    def longest(self, limit: int = 100) -> list[Token]:
        """The tokens that stand for most characters, without added ones."""
        ordinary = (token for token in self.tokens if not token.special and token.whole)
        return sorted(ordinary, key=lambda token: (-len(token.text), token.id))[:limit]

    def scripts(self) -> dict[str, int]:
        """How many tokens each script has, most first; what has no letter is under ``OTHER``."""
        counts: dict[str, int] = {}
        for token in self.tokens:
            name = "SPECIAL" if token.special else script_of(token.text) if token.whole else "BYTES"
            counts[name] = counts.get(name, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    def of_script(self, script: str, limit: int = 1000) -> list[Token]:
        """Tokens whose letters are of a script, such as ``CYRILLIC`` or ``CJK``; names as in `scripts`."""
        wanted = script.upper()
        kept = (token for token in self.tokens if token.whole and not token.special)
        return self._first((token for token in kept if script_of(token.text) == wanted), limit)

    def special(self) -> list[Token]:
        """Markers and other added tokens."""
        return [token for token in self.tokens if token.special]

    def byte_tokens(self) -> list[Token]:
        """Tokens that stand for one byte, or for bytes that are no whole characters."""
        return [token for token in self.tokens if not token.special and (not token.whole or token.bytes == 1)]

    def unreachable(self, job: Job = SILENT) -> list[Unreachable]:
        """Tokens that never come out of ``encode(decode([id]))``: dead weight, often never trained.

        Tokens that are no whole characters, byte tokens for what has no other and continuations of WordPiece
        (``##ing``) have no text of their own and are left out.
        """
        found: list[Unreachable] = []
        for index, token in enumerate(self.tokens):
            if index % _CHECKED_AT_ONCE == 0:
                job.check()
                job.progress("vocabulary", index, len(self.tokens), "tokens")
            if not token.whole or not token.text or _BYTE_TOKEN.fullmatch(token.spelling):
                continue
            if token.spelling == f"##{token.text}":
                continue
            came = self._came_out(token)
            if came is not None:
                reason = _reason(token)
                found.append(Unreachable(token, reason, [self._tokenizer.id_token(token_id) for token_id in came]))
        return found

    def _came_out(self, token: Token) -> Optional[list[int]]:
        """What the token's text gives instead of it, or None if the token is among it."""
        first: Optional[list[int]] = None
        for before in _BEFORE:
            ids = self._tokenizer.encode(before + token.text)
            if token.id in ids:
                return None
            first = ids if first is None else first
        return first

    @staticmethod
    def _first(tokens: Iterable[Token], limit: int) -> list[Token]:
        return list(islice(tokens, limit))


def _reason(token: Token) -> str:
    if token.special:
        return "a marker that typed text does not give"
    if unicodedata.normalize("NFC", token.text) != token.text:
        return "its text is not in normal form, so it is changed before splitting"
    return "its text is split otherwise"


def _entries(tokenizer: TextTokenizer) -> Iterator[tuple[int, str, Optional[bytes], bool]]:
    """Id, spelling, bytes where they are known and whether it is an added token."""
    if isinstance(tokenizer, HuggingFaceTokenizer):
        added = {int(token_id) for token_id in tokenizer.backend.get_added_tokens_decoder()}
        content = tokenizer.content()
        read = (
            spelling_to_bytes if is_byte_level(content) else _word_piece if _is_word_piece(content) else _marked_spaces
        )
        for spelling, token_id in tokenizer.backend.get_vocab(with_added_tokens=True).items():
            is_added = token_id in added
            yield token_id, spelling, spelling.encode("utf-8") if is_added else read(spelling), is_added
    elif isinstance(tokenizer, SentencePieceTokenizer):
        special = tokenizer.special_tokens()
        for token_id in range(tokenizer.vocab_size):
            spelling = tokenizer.id_token(token_id)
            marker = spelling in special
            yield token_id, spelling, spelling.encode("utf-8") if marker else _marked_spaces(spelling), marker
    elif isinstance(tokenizer, BytePairTokenizer):
        special = tokenizer.special_tokens()
        for content_bytes, rank in tokenizer.encoding._mergeable_ranks.items():
            token_id = rank + tokenizer.shift
            yield token_id, tokenizer.id_token(token_id), content_bytes, False
        for spelling, token_id in special.items():
            yield token_id, spelling, spelling.encode("utf-8"), True


def _is_word_piece(content: dict[str, Any]) -> bool:
    return bool(content["model"].get("type") == "WordPiece")


def _word_piece(spelling: str) -> bytes:
    return (spelling[2:] if spelling.startswith("##") and len(spelling) > 2 else spelling).encode("utf-8")


def _marked_spaces(spelling: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(spelling)
    return bytes([int(byte.group(1), 16)]) if byte else spelling.replace("▁", " ").encode("utf-8", "surrogatepass")


def _token(token_id: int, spelling: str, content: Optional[bytes], special: bool, last: int) -> Token:
    known = spelling.encode("utf-8", "surrogatepass") if content is None else content
    text = readable(known)
    whole = text.encode("utf-8", "surrogatepass") == known
    return Token(token_id, spelling, text, len(known), special, whole, token_id / last)


def script_of(text: str) -> str:
    """The script of the first letter, as Unicode names it: ``LATIN``, ``CJK``, ``ARABIC``; ``OTHER`` without one."""
    return next((_script(character) for character in text if character.isalpha()), "OTHER")


@lru_cache(maxsize=65_536)
def _script(character: str) -> str:
    # The first word of a letter's name is its script; the standard library has no other table of them.
    name = unicodedata.name(character, "OTHER").split(" ")[0]
    return name.split("-")[0]
