"""The text of an answer as its tokens come. Stdlib only."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.errors import WorkbenchError
from workbench.tokens.tokenizer import TextTokenizer


class AnswerText:
    """The answer's text as it grows: whole characters only, ended by the first stop string."""

    def __init__(self, tokenizer: TextTokenizer, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._decoder = tokenizer.stream_decoder(skip_special_tokens=True)
        self._stop = tuple(stop)
        self._held = ""
        self._shown: list[str] = []
        self._finished = False
        self.stopped = False

    @property
    def text(self) -> str:
        """Everything shown so far."""
        return "".join(self._shown)

    def push(self, token_id: int) -> str:
        """Add a token; returns what can be shown now: text that may begin a stop string waits."""
        piece = self._decoder.push(token_id) if in_vocabulary(self._tokenizer, token_id) else ""
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
        """No more tokens come: the rest of the text."""
        if self._finished:
            return ""
        self._finished = True
        self._held += self._decoder.flush()
        return self._show(len(self._held))

    def _show(self, count: int) -> str:
        piece, self._held = self._held[:count], self._held[count:]
        self._shown.append(piece)
        return piece

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
    """The text of one token by itself; empty where the tokenizer has no such token."""
    return tokenizer.decode([token_id]) if in_vocabulary(tokenizer, token_id) else ""
