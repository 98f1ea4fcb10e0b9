"""Why a stretch of text was split as it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from textual import work
from textual.content import Content
from textual.widget import Widget

from workbench.session.protocol import ExplainSplit, SplitExplained
from workbench.ui.link import SessionLink
from workbench.ui.screens.closer_look import ASKING, CloserLook
from workbench.ui.widgets.bars import left, right, series_style
from workbench.ui.widgets.pieces import PLATE, visible
from workbench.ui.widgets.row_list import Row, RowList, gap


class ExplainScreen(CloserLook):
    """Merges step by step, best segmentations or greedy steps, word by word.

    Args:
        text: what is explained.
        model: whose tokenizer.
        part: whether `text` is a part of a longer stretch without white space.
    """

    KEYS = (("↑ ↓", "scroll"),)

    def __init__(self, link: SessionLink, text: str, model: str, part: bool = False) -> None:
        super().__init__(link, "token-explain", f"Why {model} splits it so")
        self._text = text
        self._model = model
        self._part = part

    def parts(self) -> Iterable[Widget]:
        yield RowList(id="explain-list")

    def on_mount(self) -> None:
        self.query_one(RowList).focus()
        self.explain()

    @work(group=ASKING, exclusive=True, exit_on_error=False)
    async def explain(self) -> None:
        """Ask for the steps."""
        reply = await self.ask(ExplainSplit(self._text, self._model), SplitExplained)
        if reply is not None:
            kind = reply.explanation["kind"]
            part = f" Only these {len(self._text):,} characters of a longer stretch." if self._part else ""
            self.say(Content.assemble((f"{kind}: {HOW.get(kind, '')}", "$muted"), part))
            self.query_one(RowList).set_rows(explanation_rows(reply.explanation))


HOW = {
    "BPE": "starts from single bytes or characters; the pair of the lowest rank is joined, again and again.",
    "Unigram": "of all ways to split a word the one with the highest sum of log probabilities wins.",
    "WordPiece": "takes the longest token that the rest of the word begins with, from left to right.",
}


def explanation_rows(explanation: dict[str, Any]) -> Iterator[Row]:
    """One row for each step of each word."""
    for number, word in enumerate(explanation["words"]):
        agreed = ("✔ as the library", "$good") if word["agrees"] else ("✖ the library gives the tokens shown", "$bad")
        title = Content.assemble((visible(word["word"]).replace("\n", ""), "bold"), "  ", agreed)
        yield Row(f"{number}", title)
        if word["start"]:
            yield Row(f"{number}:start", Content.assemble(left("  starts as", 18, "$muted"), cells(word["start"])))
        for step, merge in enumerate(word["merges"]):
            rank = left(f"  rank {merge['rank']:,}", 18, "$muted")
            pair = (f"   {merge['left']} + {merge['right']}", "$muted")
            yield Row(f"{number}:{step}", Content.assemble(rank, cells(merge["tokens"]), pair))
        for step, way in enumerate(word["segmentations"]):
            score = left(f"  {way['score']:.3f}", 18, "bold $accent" if not step else "$muted")
            yield Row(f"{number}:{step}", Content.assemble(score, cells(way["tokens"])))
        for step, greedy in enumerate(word["steps"]):
            tried = f"   {greedy['tried']:,} longer tried" + (f", rest {greedy['rest']}" if greedy["rest"] else "")
            head = right(f"{step + 1}", 6, "$muted")
            yield Row(f"{number}:{step}", Content.assemble(head, "  ", cells([greedy["token"]]), (tried, "$muted")))
        ids = " ".join(map(str, word["ids"]))
        yield Row(
            f"{number}:end", Content.assemble(left("  tokens", 18), cells(word["tokens"]), (f"   {ids}", "$muted"))
        )
        if word["note"]:
            yield Row(f"{number}:note", Content.styled(f"  {word['note']}", "$muted"))
        yield gap(str(number))


def cells(tokens: Iterable[str]) -> Content:
    """Tokens side by side on alternating grounds."""
    shown = [visible(str(token)).replace("\n", "") for token in tokens]
    return Content.assemble(*((token, PLATE if i % 2 else series_style(i // 2)) for i, token in enumerate(shown)))
