"""The tokens of an answer as it reads, each on the shade of its probability."""

from __future__ import annotations

import re
from math import exp
from typing import Any

from textual.content import Content

from workbench.ui.widgets.heat import Heat, heat_of
from workbench.ui.widgets.pieces import SPECIAL, PieceView

UNSURE, UNLIKELY = 0.5, 0.1
"""Below these a token is underlined, and bold besides: shades alone are lost in sixteen colours or none."""
BYTES = re.compile("(<0x[0-9A-F]{2}>)+")
"""A token that is no whole characters."""
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def probability(token: dict[str, Any]) -> float | None:
    """A token's probability in the model's own distribution; None where it is not known."""
    return None if token.get("logprob") is None else min(1.0, exp(token["logprob"]))


def token_words(token: dict[str, Any]) -> str:
    """The token's text; where the answer shows none, as of an end token, what the token is by itself."""
    if token["text"] or token.get("alone"):
        return str(token["text"] or token["alone"])
    return next((str(other["text"]) for other in token["alternatives"] if other["id"] == token["id"]), "")


class ProbabilityView(PieceView):
    """Sure tokens stand plain; the less likely one was, the more it stands out."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.numbers = False
        """Whether each token has its probability in percent behind it."""
        self._tokens: list[dict[str, Any]] = []

    @property
    def token(self) -> dict[str, Any] | None:
        """The token under the cursor, as `AnswerRead` has it."""
        return self._tokens[self.cursor] if 0 <= self.cursor < len(self._tokens) else None

    def set_tokens(self, tokens: list[dict[str, Any]]) -> None:
        """Show the tokens of an answer."""
        self._tokens = tokens
        self._show()

    def toggle_numbers(self) -> None:
        """Show the probabilities as numbers, or hide them."""
        self.numbers = not self.numbers
        self._show()

    def _show(self) -> None:
        pieces, place = [], 0
        for token in self._tokens:
            words = token_words(token)
            known = probability(token)
            mark = f"{round(100 * known)}".translate(SUPERSCRIPTS) if self.numbers and known is not None else ""
            # A line break stays the last sign of its token, so that the mark is not on the next line.
            text = f"{words[:-1]}{mark}\n" if mark and words.endswith("\n") else (words or "▯") + mark
            end = place + max(1, len(words))
            special = bool(words) and not token["text"] and not BYTES.fullmatch(words)
            pieces.append({"text": text, "start": place, "end": end, "special": special})
            place = end
        self.set_pieces(pieces)

    def _style(self, index: int) -> str:
        style = "reverse" if index == self.cursor else ""
        known = probability(self._tokens[index])
        if self.pieces[index]["special"]:
            return f"{style} {SPECIAL}".strip()
        return f"{style} {probability_style(known, heat_of(self.app))}".strip()


def probability_style(known: float | None, heat: Heat) -> str:
    """The look of a token of this probability."""
    if known is None:
        return "$muted"
    marks = "bold underline " if known < UNLIKELY else "underline " if known < UNSURE else ""
    return f"{marks}{heat.style(1 - known) if heat.colors else ''}".strip()


def legend(heat: Heat) -> Content:
    """How to read the shades."""
    parts: list[Content | str | tuple[str, str]] = [("probability  ", "$muted")]
    for known in (1.0, 0.8, 0.6, 0.4, 0.2, 0.05):
        parts += [(f" {100 * known:.0f} % ", probability_style(known, heat)), " "]
    return Content.assemble(*parts)
