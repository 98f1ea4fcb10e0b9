"""Tokens: what a text costs under as many tokenizers as one likes, as one types."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.document._document import Document
from textual.widget import Widget
from textual.widgets import Static, TextArea
from textual.worker import Worker

from workbench.errors import JobCancelled, WorkbenchError
from workbench.paths import absolute_model
from workbench.session.protocol import (
    AutoTokenizerCompared,
    CompareAutoTokenizer,
    DatasetMeasured,
    MeasureDataset,
    RecountTokens,
    TokensRecounted,
)
from workbench.ui.actions import bindings_of
from workbench.ui.bench import Bench, ErrorLine
from workbench.ui.benches.tokens_dataset import DatasetView
from workbench.ui.benches.tokens_league import league_rows, league_text, loss_line, piece_line, prices_of, short_model
from workbench.ui.drafts import TOKENS, DraftKeeper, read_draft
from workbench.ui.link import SessionLink
from workbench.ui.screens.dataset_dialog import ChosenDataset, DatasetDialog
from workbench.ui.session_state import SessionState
from workbench.ui.widgets.edited_text import EditedText
from workbench.ui.widgets.one_line import OneLine
from workbench.ui.widgets.pieces import PieceLine, PieceView
from workbench.ui.widgets.row_list import RowList

if TYPE_CHECKING:
    from workbench.session.client import Call
    from workbench.ui.app import WorkbenchApp

PATIENCE_SECONDS = 0.25
"""A count that takes longer than this is stopped by the next key; a quicker one is shown, and the next follows it."""
WORD_CHARACTERS = 200
"""Of a longer stretch without white space only the part around the token is explained."""
LEAST_WINDOW = 600
"""Tokens of at least so many characters are asked for; the window follows the cursors."""


class TokensBench(Bench):
    """The text, the tokenizers against each other, and the tokens of the chosen one below."""

    NAME = "tokens"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("tokens")]

    def __init__(self, link: SessionLink) -> None:
        super().__init__(link)
        self._special = False
        self._draft = DraftKeeper(self, TOKENS)
        self._added: list[str] = []
        self._prices: dict[str, float] = {}
        self._counted: TokensRecounted | None = None
        self._pieces: list[dict[str, Any]] = []
        """Tokens of the window, as `workbench.session.protocol.TokensRecounted` has them."""
        self._counting: Worker[None] | None = None
        self._count_began = 0.0
        self._asked = ""
        """The text counted last, or being counted."""
        self._count_wanted = False
        self._late = False
        """Whether the count of the text takes long enough to say that the one shown is not of it."""
        self._window = 0
        """Character at which the shown tokens begin."""
        self._cursor_to: int | None = None
        self._token_to: int | None = None
        self._dataset = ChosenDataset("")
        self._measuring: Call | None = None
        self._reveal = ""
        """The tokenizer added last, whose row is to be seen."""
        self._auto_lines: dict[str, str] = {}
        """What the installed AutoTokenizer does otherwise, by model; empty where it gives the same ids."""
        self._auto_told: list[tuple[str, str]] = []

    def compose(self) -> ComposeResult:
        with Container(id="tokens-body"):
            with Vertical(id="tokens-left"):
                yield OneLine(id="tokens-figures", classes="title")
                yield EditedText(
                    self.count, id="tokens-text", placeholder="Type or paste a text: it is counted as you type."
                )
            with Vertical(id="tokens-right"):
                yield ErrorLine()
                yield RowList(id="tokens-league")
                yield Static(id="tokens-auto")
        with Vertical(id="tokens-below"):
            yield PieceLine(id="tokens-piece")
            yield PieceView(id="tokens-pieces")
            yield Static(id="tokens-empty")
        yield DatasetView()

    def on_mount(self) -> None:
        settings = cast("WorkbenchApp", self.app).settings.tokens
        self._added = list(dict.fromkeys(settings.models))
        self._prices = prices_of(settings.prices)
        self.query_one(DatasetView).display = False
        if draft := read_draft(TOKENS):
            self.query_one(TextArea).text = draft
        super().on_mount()

    def on_unmount(self) -> None:
        self._draft.keep()

    def first_focus(self) -> Widget:
        return self.query_one("#dataset-scroll") if self.has_class("-dataset") else self.query_one(TextArea)

    def bench_shown(self) -> None:
        self._show_counts()

    def session_changed(self, old: SessionState, new: SessionState) -> None:
        if (new.chosen, new.attachments) != (old.chosen, old.attachments):
            self.count()

    @property
    def text(self) -> str:
        """What is counted."""
        return self.query_one(EditedText).written

    @property
    def models(self) -> list[str]:
        """The tokenizers counted: the model of every bench first."""
        return list(dict.fromkeys(name for name in (self.session.chosen, *self._added) if name))

    @property
    def selected(self) -> str:
        """The tokenizer whose tokens are shown."""
        row = self.query_one(RowList).row
        models = self.models
        model = str(row.data["model"]) if row else ""
        return model if model in models else models[0] if models else ""

    @property
    def token_count(self) -> int | None:
        """Tokens of the text under the selected tokenizer; None while they are not counted."""
        if self._asked != self.text or self._counting is None or not self._counting.is_finished:
            return None
        return next((int(result["tokens"]) for result in self._results if result["model"] == self.selected), None)

    @property
    def window_characters(self) -> int:
        """Characters whose tokens are asked for: what their part of the screen can hold."""
        size = self.query_one(PieceView).size
        return max(LEAST_WINDOW, size.width * size.height)

    # --- Counting ------------------------------------------------------------------------------------------

    @on(TextArea.Changed)
    def count_others(self) -> None:
        """Count after the changes that are no edits, such as undo."""
        if self.text != self._asked:
            self.count()
        self._draft.changed(self.query_one(TextArea).text)

    @on(TextArea.SelectionChanged)
    def follow_text_cursor(self) -> None:
        if not self._counted or self._counted.figures["characters"] <= self.window_characters:
            return
        area = self.query_one(TextArea)
        row, column = area.selection.end
        # Line ends may take two characters; the window is wide enough not to mind.
        place = column + sum(len(area.document.get_line(line)) + 1 for line in range(row))
        if not self._window <= place <= self._window + self.window_characters:
            self._move_window(place)

    def _move_window(self, place: int, cursor_to: int | None = None) -> None:
        self._window = max(0, place - self.window_characters // 2)
        self._cursor_to = cursor_to
        self.count()

    def count(self) -> None:
        """Count what stands in the text area: at once, or as soon as the count under way is shown."""
        self._count_wanted = True
        under_way = self._counting is not None and not self._counting.is_finished
        if not under_way or time.monotonic() - self._count_began > PATIENCE_SECONDS:
            self._counting = self._count_latest()

    @work(group="count", exclusive=True, exit_on_error=False)
    async def _count_latest(self) -> None:
        while self._count_wanted:
            self._count_wanted = False
            self._count_began = time.monotonic()
            self._asked = self.text
            await self._count_text(self._asked, self.models)

    async def _count_text(self, text: str, models: list[str]) -> None:
        """Counts come first: they cost a tenth of what the tokens do, which follow when no key came in between."""
        if not text or not models:
            self._late, self._counted, self._pieces = False, None, []
            self.show_error(None)
            self._show_counts()
            return
        late = self.set_timer(PATIENCE_SECONDS, self._show_late)
        try:
            reply = await self.link.ask(RecountTokens(text, models, self._special), TokensRecounted)
        except JobCancelled:
            if self._late:
                self._late, self._counted, self._pieces = False, None, []
                self._show_counts()
            return
        except WorkbenchError as error:
            self._late, self._counted, self._pieces = False, None, []
            self._show_counts()
            self.show_error(error)
            return
        finally:
            late.stop()
        self._late = False
        failed = [result for result in reply.results if result.get("error")]
        if len(failed) == len(reply.results):
            self.show_error(WorkbenchError("count-failed", str(failed[0]["error"])))
        else:
            self.show_error(None)
        self._counted = reply
        self._show_counts()
        if not self._count_wanted:
            self._cut(text)
        if any(model not in self._auto_lines for model in models):
            self.compare_autotokenizers()

    def _show_late(self) -> None:
        """What stands there is of an earlier text: say what is known of this one before it is counted."""
        self._late = True
        self._show_counts()

    @work(group="pieces", exclusive=True, exit_on_error=False)
    async def _cut(self, text: str) -> None:
        """Show the tokens of the part of the text that the screen can hold."""
        self._window = min(self._window, max(0, len(text) - self.window_characters // 2))
        end = self._window + self.window_characters
        request = RecountTokens(text, [self.selected], self._special, self.selected, self._window, end)
        try:
            reply = await self.link.ask(request, TokensRecounted)
        except (JobCancelled, WorkbenchError):
            return  # what failed here failed in the count before, which has said so
        self._pieces = reply.pieces
        self._show_pieces()

    @work(group="auto", exit_on_error=False)
    async def compare_autotokenizers(self) -> None:
        """Ask, once for each tokenizer, whether the installed AutoTokenizer gives other ids."""
        for model in self.models:
            if model in self._auto_lines:
                continue
            self._auto_lines[model] = ""
            with contextlib.suppress(WorkbenchError, JobCancelled):
                reply = await self.link.ask(CompareAutoTokenizer(model), AutoTokenizerCompared)
                if reply.differs:
                    self._auto_lines[model] = reply.line
                    self._show_auto()

    def _show_auto(self) -> None:
        replaced = self.query_one(EditedText).replaced
        told = [("Text", f"{replaced:,} control characters counted as the symbols shown")] if replaced else []
        told += [(str(result["model"]), line) for result in self._results for line in self._lines_about(result)]
        told += [(model, line) for model in self.models if (line := self._auto_lines.get(model))]
        note = self.query_one("#tokens-auto", Static)
        note.display = bool(told) and self._counted is not None
        if told != self._auto_told:  # an update lays the whole screen out anew, and this is done at every key
            self._auto_told = told
            lines = [
                Content.assemble(("⚠ ", "$warn"), (short_model(model, 34), "bold"), f": {line}") for model, line in told
            ]
            note.update(Content("\n").join(lines))

    def _lines_about(self, result: dict[str, Any]) -> Iterator[str]:
        if result.get("lost_characters") and self._counted:
            yield loss_line(result, self._counted.figures["characters"])
        if result.get("note"):
            yield str(result["note"])

    def _show_counts(self) -> None:
        counted, text = self._counted, self.text if self._late else ""
        league, view = self.query_one(RowList), self.query_one(PieceView)
        league.display = counted is not None or self._late
        view.display = counted is not None
        view.set_class(self._late, "-late")
        self.query_one("#tokens-empty").display = counted is None
        self._show_auto()
        figures = counted.figures if counted else {}
        if self._late:
            figures = {"characters": len(text), "bytes": len(text.encode("utf-8", "replace"))}
        sizes = "".join(f"  {figures[name]:,} {name}" for name in ("characters", "words", "bytes") if name in figures)
        special = "  special tokens added" if self._special else ""
        self.query_one("#tokens-figures", OneLine).show(f"TEXT{sizes}{special}{'  counting …' if self._late else ''}")
        if self._late:
            self.query_one("#tokens-piece", OneLine).show("")
            league.set_rows(league_rows([{"model": model, "counting": True} for model in self.models], self._prices))
            return
        if counted is None:
            self.query_one("#tokens-piece", OneLine).show("")
            self.query_one("#tokens-empty", Static).update(self._empty_words())
            return
        rows = league_rows(counted.results, self._prices)
        added = f"model:{self._reveal}"
        if any(row.key == added for row in rows):
            self._reveal = ""
            league.set_rows(rows, cursor_key=added)
        else:
            league.set_rows(rows)

    def _show_pieces(self) -> None:
        cursor_to, self._cursor_to = self._cursor_to, None
        token_to, self._token_to = self._token_to, None
        view = self.query_one(PieceView)
        view.set_pieces(self._pieces, at=cursor_to, token_id=token_to)
        if cursor_to is not None:
            view.focus()

    def _empty_words(self) -> Content:
        if not self.models:
            return Content.assemble(
                "Shows how many tokens a text takes, and where it is cut.\n\n",
                ("ctrl+o", "bold $accent"),
                " chooses the model whose tokenizer counts, ",
                ("escape a", "bold $accent"),
                " adds further ones.",
            )
        return Content.assemble(
            "Counts under ",
            (", ".join(self.models), "bold"),
            " as you type, and shows the tokens here.\n\n",
            ("escape", "bold $accent"),
            " leaves the text; then ",
            ("i", "bold $accent"),
            " goes back to it, ",
            ("a", "bold $accent"),
            " adds a tokenizer, ",
            ("p", "bold $accent"),
            " walks the tokens.",
        )

    # --- The tokens ----------------------------------------------------------------------------------------

    @on(RowList.Highlighted, "#tokens-league")
    def show_pieces_of(self, message: RowList.Highlighted) -> None:
        if message.list.has_focus and self._counted is not None:
            self.count()

    @on(RowList.Chosen, "#tokens-league")
    def choose_row(self, message: RowList.Chosen) -> None:
        """Walk the tokens of a tokenizer; of one that cannot count, all of its error."""
        result: dict[str, Any] = message.row.data or {}
        if result.get("error"):
            model, error = str(result["model"]), str(result["error"])
            from workbench.ui.screens.error_details import ErrorDetails

            self.app.push_screen(ErrorDetails(WorkbenchError("tokenizer-failed", f"{model}: {error}")))
        else:
            self.action_walk()

    def action_walk(self) -> None:
        if self._counted is not None:
            self.query_one(PieceView).focus()

    @on(PieceView.Highlighted)
    def tell_piece(self) -> None:
        piece = self.query_one(PieceView).piece
        sizes = {result["model"]: result.get("vocab_size", 0) for result in self._results}
        line = piece_line(piece, sizes.get(self.selected, 0)) if piece else Content("")
        self.query_one("#tokens-piece", OneLine).show(line)

    @property
    def _results(self) -> list[dict[str, Any]]:
        return self._counted.results if self._counted else []

    @on(PieceView.EdgeReached)
    def show_next_window(self, message: PieceView.EdgeReached) -> None:
        pieces = message.view.pieces
        if not pieces:
            return
        place = pieces[-1]["end"] if message.direction > 0 else pieces[0]["start"]
        length = len(self.text)
        if 0 < place < length:
            self._move_window(place, place if message.direction > 0 else place - 1)

    # --- Looking closer ------------------------------------------------------------------------------------

    @on(PieceView.Chosen)
    def action_explain(self) -> None:
        """Why the word of the token under the cursor was split so."""
        piece = self.query_one(PieceView).piece
        word = word_around(self.text, piece["start"], piece["end"]) if piece else ""
        if word:
            from workbench.ui.screens.token_explain import ExplainScreen

            self.app.push_screen(ExplainScreen(self.link, word, self.selected, len(word) >= WORD_CHARACTERS))

    def action_vocabulary(self) -> None:
        if self._any_model():
            from workbench.ui.screens.token_vocabulary import VocabularyScreen

            self.app.push_screen(VocabularyScreen(self.link, self.selected))

    def action_languages(self) -> None:
        if self._any_model():
            from workbench.ui.screens.token_languages import LanguagesScreen

            self.app.push_screen(LanguagesScreen(self.link, self.models))

    def action_template(self) -> None:
        if self._any_model():
            from workbench.ui.screens.token_template import TemplateScreen

            self.app.push_screen(TemplateScreen(self.link, self.selected))

    def action_side_by_side(self) -> None:
        text = self.text
        if len(self.models) < 2 or not text:
            self.post_message(self.Said("Needs a text and two tokenizers: a adds one."))
            return
        from workbench.ui.screens.token_compare import CompareScreen

        self.app.push_screen(CompareScreen(self.link, text, self.models, self.selected))

    def action_tax(self) -> None:
        from workbench.ui.screens.token_tax import TaxScreen

        price = self._prices.get(self.selected, self._prices.get("*"))
        self.app.push_screen(TaxScreen(self.link, self.text, self._results, price))

    def _any_model(self) -> bool:
        if not self.models:
            self.post_message(self.Said("Choose a model first: ctrl+o."))
        return bool(self.models)

    # --- Actions -------------------------------------------------------------------------------------------

    def action_edit(self) -> None:
        self._show_dataset(False)
        self.query_one(TextArea).focus()

    def action_compare(self) -> None:
        self.query_one(RowList).focus()

    def take_text(self, sent: Bench.TextSent) -> None:
        """Count a text of another bench with the cursor on the token meant, under the tokenizer that made it.

        That one joins those counted, until the app ends, if it was not among them. Undo brings back what stood here.
        """
        self._show_dataset(False)
        if sent.model:
            if sent.model not in self.models:
                self._added = [*self._added, sent.model]
            self._reveal = sent.model
        area = self.query_one(TextArea)
        if area.text != sent.text:
            area.replace(sent.text, (0, 0), area.document.end)
        assert isinstance(area.document, Document)
        area.move_cursor(area.document.get_location_from_index(sent.place))
        self._token_to = sent.token_id
        self._move_window(sent.place, sent.place)

    def action_clear(self) -> None:
        self.query_one(TextArea).text = ""
        self.action_edit()

    def action_toggle_special(self) -> None:
        self._special = not self._special
        self.count()

    @work(group="picker", exclusive=True, exit_on_error=False)
    async def action_add(self) -> None:
        """Choose a further tokenizer."""
        from workbench.ui.screens.model_picker import ModelPicker

        directories = cast("WorkbenchApp", self.app).settings.models.directories
        picked = await self.app.push_screen_wait(
            ModelPicker(self.link, directories, self.session, title="Add a tokenizer")
        )
        if picked is None:
            return
        if picked.name in self.models:
            self.post_message(self.Said(f"{picked.name} is counted already."))
            return
        self._reveal = picked.name
        self._keep_added([*self._added, picked.name])

    def action_remove(self) -> None:
        """Take the tokenizer under the cursor out of the table."""
        model = self.selected
        if model in self._added:
            self._keep_added([name for name in self._added if name != model])
        elif model:
            self.post_message(self.Said(f"{model} is the model of every bench; ctrl+o chooses another."))

    def _keep_added(self, models: list[str]) -> None:
        self._added = models
        self.post_message(self.SettingChanged("tokens", "models", list(models)))
        self.count()
        self._show_counts()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        on_dataset = self.has_class("-dataset")
        if action == "last_dataset":
            # Also asked while the bench is put together, before its parts are there.
            return not on_dataset and any(view.result is not None for view in self.query(DatasetView))
        if (action == "send_length" and not on_dataset) or (action in ("walk", "compare", "edit") and on_dataset):
            return False
        return super().check_action(action, parameters)

    # --- Data sets -----------------------------------------------------------------------------------------

    def _show_dataset(self, shown: bool) -> None:
        self.set_class(shown, "-dataset")
        self.query_one(DatasetView).display = shown
        for part in ("#tokens-body", "#tokens-below"):
            self.query_one(part).display = not shown
        self.refresh_bindings()

    @work(group="picker", exclusive=True, exit_on_error=False)
    async def action_dataset(self) -> None:
        """Ask for a data set and measure it."""
        chosen = await self.app.push_screen_wait(DatasetDialog(self._dataset))
        if chosen is not None:
            self._dataset = chosen
            self._show_dataset(True)
            self.query_one("#dataset-scroll").focus()
            self.measure()

    def action_last_dataset(self) -> None:
        """Show the data set measured last as it was left."""
        self._show_dataset(True)
        self.query_one("#dataset-scroll").focus()

    @work(group="dataset", exclusive=True, exit_on_error=False)
    async def measure(self) -> None:
        """Measure the chosen data set; stopping it keeps what was counted."""
        view, models = self.query_one(DatasetView), self.models
        if not models:
            self._show_dataset(False)
            self.show_error(WorkbenchError("no-model", "No tokenizer is chosen.", "ctrl+o chooses a model."))
            return
        view.begin(self._dataset.path)
        client = self.link.client
        if client is None:
            view.finish(None)
            self.show_error(WorkbenchError("no-session", "There is no session yet.", "Press d again in a moment."))
            return
        request = MeasureDataset(absolute_model(self._dataset.path), models, self._dataset.field, self._special)
        self._measuring = call = client.start(request)
        measured: DatasetMeasured | None = None
        try:
            async for event in call.events():
                view.take_event(event)
            reply = await call.reply()
            measured = reply if isinstance(reply, DatasetMeasured) else None
        except asyncio.CancelledError:
            call.cancel()
            raise
        except JobCancelled:
            # Stopped before the worker began; what it had told before stays.
            measured = DatasetMeasured({**view.result, "partial": True}) if view.result else None
        except WorkbenchError as error:
            view.finish(None)
            self.action_edit()
            self.show_error(error)
            return
        finally:
            if self._measuring is call:
                self._measuring = None
        self.show_error(None)
        view.finish(measured)
        self.refresh_bindings()

    @on(DatasetView.StopWanted)
    def stop_measuring(self) -> None:
        if self._measuring is not None:
            self._measuring.cancel()

    @on(DatasetView.Left)
    def leave_dataset(self) -> None:
        self.action_edit()

    def action_send_length(self) -> None:
        """Plan with the data set's 95th percentile as sequence length, and with its tokens for what an epoch costs."""
        model = self.query_one(DatasetView).model
        if model is None or not model["rows"]:
            self.post_message(self.Said("Measure a data set first: d."))
            return
        self.post_message(self.SequenceChosen(model["p95"], model["total"]))

    def action_copy(self) -> None:
        if self._counted:
            self.post_message(self.CopyRequested(league_text(self._results, self._prices), "the figures"))


def word_around(text: str, start: int, end: int) -> str:
    """The word that holds this stretch, with the space before it; what lies between two words by itself."""
    while start > 0 and not text[start].isspace() and end - start < WORD_CHARACTERS:
        start -= 1
    while end < len(text) and not text[end].isspace() and end - start < WORD_CHARACTERS:
        end += 1
    return text[start:end]


BENCH = TokensBench
