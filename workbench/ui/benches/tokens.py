"""Tokens: what a text costs under the chosen model, as one types."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static, TextArea

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import CountTokens, TokensCounted
from workbench.ui.actions import bindings_of
from workbench.ui.bench import Bench, ErrorLine
from workbench.ui.link import SessionLink
from workbench.ui.session_state import SessionState
from workbench.ui.widgets.bars import left, right

QUIET_SECONDS = 0.08
"""Counting starts when no key came for this long."""
TWO_COLUMNS = 60
"""Cells that two columns of figures need."""
PIECES_SHOWN = 3000
PIECES_TEXT_LIMIT = 20_000
"""Beyond this many characters only the counts are asked for: nobody reads that many cells."""


class TokensBench(Bench):
    """The text left, its figures and pieces right."""

    NAME = "tokens"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("tokens")]

    def __init__(self, link: SessionLink) -> None:
        super().__init__(link)
        self._special = False
        self._counted: dict[str, Any] = {}

    def compose(self) -> ComposeResult:
        with Container(id="tokens-body"):
            with Vertical(id="tokens-left"):
                yield Static("TEXT", classes="title")
                yield TextArea(id="tokens-text", placeholder="Type or paste a text: it is counted as you type.")
            with Vertical(id="tokens-right"):
                yield ErrorLine()
                yield Static(id="tokens-figures")
                with VerticalScroll(id="tokens-pieces-view", can_focus=False):
                    yield Static(id="tokens-pieces")

    def first_focus(self) -> Widget:
        return self.query_one(TextArea)

    def bench_shown(self) -> None:
        if not self._counted:
            self._show_empty()

    def session_changed(self, old: SessionState, new: SessionState) -> None:
        if (new.chosen, new.attachments) != (old.chosen, old.attachments):
            self.count()

    @on(TextArea.Changed)
    def count_soon(self) -> None:
        self.count()

    @work(group="count", exclusive=True, exit_on_error=False)
    async def count(self) -> None:
        """Count what stands in the text area; a later call replaces this one."""
        text, model = self.query_one(TextArea).text, self.session.chosen
        if not text or not model:
            self._counted = {}
            self.show_error(None)
            self._show_empty()
            return
        self.query_one("#tokens-figures").add_class("-stale")
        await asyncio.sleep(QUIET_SECONDS)
        request = CountTokens(
            texts=[{"name": "text", "text": text}],
            models=[model],
            special=self._special,
            pieces=len(text) <= PIECES_TEXT_LIMIT,
        )
        try:
            reply = await self.link.ask(request, TokensCounted)
        except JobCancelled:
            return
        except WorkbenchError as error:
            self._counted = {}
            self._show_empty()
            self.show_error(error)
            return
        self.show_error(None)
        self.show_counts(reply.result)

    def show_counts(self, result: dict[str, Any]) -> None:
        """Show the reply to a count of one text under one model."""
        self._counted = result
        count = (result.get("results") or [{}])[0]
        if count.get("error"):
            self.show_error(WorkbenchError("count-failed", str(count["error"])))
            return
        self.query_one("#tokens-figures").remove_class("-stale")
        self._draw_figures()
        self.query_one("#tokens-pieces", Static).update(_pieces(count.get("pieces") or []))

    def _draw_figures(self) -> None:
        if self._counted:
            width = self.query_one("#tokens-pieces-view").scrollable_content_region.width
            self.query_one("#tokens-figures", Static).update(figures(self._counted, self._special, width))

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw_figures)

    def _show_empty(self) -> None:
        if not self.session.chosen:
            words = Content.assemble(
                "Shows how many tokens a text takes, and where it is cut.\n\n",
                ("ctrl+o", "bold $accent"),
                " chooses the model whose tokenizer counts.",
            )
        else:
            words = Content.assemble(
                "Counts under ",
                (self.session.chosen, "bold"),
                " as you type.\n\n",
                ("escape", "bold $accent"),
                " leaves the text, ",
                ("i", "bold $accent"),
                " goes back to it.",
            )
        self.query_one("#tokens-figures", Static).update(words)
        self.query_one("#tokens-pieces", Static).update("")

    def action_edit(self) -> None:
        self.query_one(TextArea).focus()

    def action_clear(self) -> None:
        self.query_one(TextArea).text = ""
        self.action_edit()

    def action_toggle_special(self) -> None:
        self._special = not self._special
        self.count()

    def action_copy(self) -> None:
        if self._counted:
            self.post_message(self.CopyRequested(figures(self._counted, self._special, 0).plain, "the figures"))


def figures(result: dict[str, Any], special: bool, width: int) -> Content:
    """The counts of one text under one model, in two columns where they fit."""
    text = (result.get("texts") or [{}])[0]
    count = (result.get("results") or [{}])[0]
    ours = [
        ("tokens", f"{count.get('tokens', 0):,}"),
        ("bytes per token", f"{count.get('bytes_per_token', 0.0):.2f}"),
        ("tokens per word", f"{count.get('tokens_per_word', 0.0):.2f}"),
    ]
    sizes = [
        ("characters", f"{text.get('characters', 0):,}"),
        ("words", f"{text.get('words', 0):,}"),
        ("bytes, UTF-8", f"{text.get('bytes', 0):,}"),
    ]
    added = "with special tokens" if special else "without special tokens"
    lines = [
        Content.styled(str(count.get("model", "")), "bold"),
        Content.styled(f"vocabulary of {count.get('vocab_size', 0):,} · {added}", "$muted"),
    ]
    if width >= TWO_COLUMNS:
        lines += [
            Content("     ").join((_figure(*one), _figure(*other))) for one, other in zip(ours, sizes, strict=True)
        ]
    else:
        lines += [_figure(*figure) for figure in (*ours, *sizes)]
    return Content("\n").join(lines)


def _figure(name: str, number: str) -> Content:
    return Content.assemble(left(name, 16, "$muted"), right(number, 10, "bold $accent" if name == "tokens" else ""))


def visible(text: str) -> str:
    """White space made visible, in one cell each; a newline keeps its line break."""
    return text.replace(" ", "·").replace("\t", "→").replace("\n", "↵\n")


def _pieces(pieces: list[dict[str, Any]]) -> Content:
    """Pieces on two alternating backgrounds, special ones marked."""
    cells: list[tuple[str, str]] = []
    for i, piece in enumerate(pieces[:PIECES_SHOWN]):
        style = "bold $on-accent on $accent" if piece.get("special") else "" if i % 2 else "$on-panel on $panel"
        cells.append((visible(str(piece.get("text", ""))), style))
    more = len(pieces) - PIECES_SHOWN
    if more > 0:
        cells.append((f"\n… {more:,} more", "$muted"))
    return Content.assemble(*cells)


BENCH = TokensBench
