"""Two tokenizers side by side on one text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.session.protocol import CompareSplits, SplitsCompared
from workbench.ui.benches.tokens_league import piece_line
from workbench.ui.link import SessionLink
from workbench.ui.screens.closer_look import ASKING, CloserLook
from workbench.ui.widgets.one_line import OneLine
from workbench.ui.widgets.pieces import PieceLine, PieceView


class CompareScreen(CloserLook):
    """Underlined tokens are those whose boundaries the other does not have; the cursors follow each other."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "difference(1)", "Next difference", show=False),
        Binding("b", "difference(-1)", "Difference before", show=False),
        Binding("o", "other", "Other tokenizer", show=False),
    ]
    KEYS = (("tab", "other side"), ("n b", "differences"), ("o", "another tokenizer"))

    def __init__(self, link: SessionLink, text: str, models: list[str], first: str) -> None:
        super().__init__(link, "token-compare", "Two tokenizers on one text")
        self._text = text
        self._first = first
        self._others = [model for model in models if model != first]
        self._second = 0

    def parts(self) -> Iterable[Widget]:
        yield Static(id="compare-first-name", classes="title")
        yield PieceView(id="compare-first")
        yield Static(id="compare-second-name", classes="title")
        yield PieceView(id="compare-second")
        yield PieceLine(id="compare-piece")

    def on_mount(self) -> None:
        self.query_one("#compare-first").focus()
        self.compare()

    def action_other(self) -> None:
        self._second += 1
        self.compare()

    @work(group=ASKING, exclusive=True, exit_on_error=False)
    async def compare(self) -> None:
        """Ask for both splits."""
        second = self._others[self._second % len(self._others)]
        reply = await self.ask(CompareSplits(self._text, self._first, second), SplitsCompared)
        if reply is None:
            return
        found = reply.comparison
        compared = found["characters"]
        part = f"the first {compared:,} of {len(self._text):,} characters" if compared < len(self._text) else "the text"
        self.say(
            f"{found['same_share']:.0%} of {part} is split alike · {len(found['only_first']):,} boundaries only "
            f"above, {len(found['only_second']):,} only below"
        )
        for side, name, tokens, pieces in (
            ("first", self._first, found["first_tokens"], reply.first),
            ("second", second, found["second_tokens"], reply.second),
        ):
            title = Content.assemble((name, "bold"), (f"  {tokens:,} tokens", "$muted"))
            self.query_one(f"#compare-{side}-name", Static).update(title)
            marked = [index for index, piece in enumerate(pieces) if not piece["same"]]
            self.query_one(f"#compare-{side}", PieceView).set_pieces(pieces, marked, at=0)

    @on(PieceView.Highlighted)
    def follow(self, message: PieceView.Highlighted) -> None:
        if message.view.has_focus and message.view.piece is not None:
            piece: dict[str, Any] = message.view.piece
            self.query_one("#compare-piece", OneLine).show(piece_line(piece, 0))
            for view in self.query(PieceView):
                if view is not message.view:
                    view.move_to(piece["start"])

    def action_difference(self, step: int) -> None:
        view = self.focused
        if not isinstance(view, PieceView):
            return
        index = view.cursor + step
        while 0 <= index < len(view.pieces):
            if not view.pieces[index]["same"]:
                view.cursor = index
                return
            index += step
