"""The text of an answer as its tokens come. Stdlib only."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from typing import Optional

from workbench.errors import WorkbenchError
from workbench.tokens.byte_level import readable, spelling_to_bytes
from workbench.tokens.tokenizer import TextTokenizer

REPLACEMENT = "\ufffd"
_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")


class AnswerText:
    """The answer's text as it grows: whole characters only, ended by the first stop string."""

    def __init__(self, tokenizer: TextTokenizer, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._decoder = tokenizer.stream_decoder(skip_special_tokens=True)
        self._stop = tuple(stop)
        self._held = ""
        self._unfinished: list[int] = []
        """Tokens since the last text, which may be parts of a character."""
        self._shown: list[str] = []
        self._finished = False
        self.stopped = False

    @property
    def text(self) -> str:
        """Everything shown so far."""
        return "".join(self._shown)

    def push(self, token_id: int) -> str:
        """Add a token; returns what can be shown now: text that may begin a stop string waits."""
        piece = ""
        if in_vocabulary(self._tokenizer, token_id):
            piece = self._decoder.push(token_id)
            self._unfinished.append(token_id)
            if piece:
                self._unfinished.clear()
        if not self._stop:
            self._shown.append(piece)
            return piece
        self._held += piece
        found = [position for position in map(self._held.find, self._stop) if position >= 0]
        if found:
            self.stopped = self._finished = True
            return self._show(min(found))
        return self._show(len(self._held) - self._possible_start())

    def finish(self) -> str:
        """No more tokens come: the rest of the text, without a character of which only a part has come."""
        if self._finished:
            return ""
        self._finished = True
        rest = self._decoder.flush()
        self._held += rest.rstrip(REPLACEMENT) if self._ends_in_part() else rest
        return self._show(len(self._held))

    def _show(self, count: int) -> str:
        piece, self._held = self._held[:count], self._held[count:]
        self._shown.append(piece)
        return piece

    def _ends_in_part(self) -> bool:
        """Whether the last tokens are the beginning of a character; a model may also write U+FFFD itself."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token_id in self._unfinished:
            content = token_bytes(self._tokenizer, token_id)
            if content is None:
                return True
            decoder.decode(content)
        return bool(decoder.getstate()[0])

    def _possible_start(self) -> int:
        """Length of the longest end of the held text that is the beginning of a stop string."""
        longest = min(len(self._held), max(map(len, self._stop)) - 1)
        for count in range(longest, 0, -1):
            end = self._held[-count:]
            if any(item.startswith(end) for item in self._stop):
                return count
        return 0


def in_vocabulary(tokenizer: TextTokenizer, token_id: int) -> bool:
    """Embeddings are often padded to more rows than the tokenizer has tokens; a model may choose such a row."""
    try:
        tokenizer.id_token(token_id)
    except WorkbenchError:
        return False
    return True


def token_text(tokenizer: TextTokenizer, token_id: int) -> str:
    """The text of one token by itself, byte by byte as ``<0xE2>`` where it is no whole characters.

    Empty where the tokenizer has no such token.
    """
    if not in_vocabulary(tokenizer, token_id):
        return ""
    text = tokenizer.decode([token_id])
    content = token_bytes(tokenizer, token_id) if REPLACEMENT in text else None
    return text if content is None else readable(content)


def token_bytes(tokenizer: TextTokenizer, token_id: int) -> Optional[bytes]:
    """The bytes of a token that is no whole characters; None where its spelling does not tell them."""
    spelling = tokenizer.id_token(token_id)
    named = _BYTE.findall(spelling)
    if named and not _BYTE.sub("", spelling):
        return bytes(int(item, 16) for item in named)
    return spelling_to_bytes(spelling)
