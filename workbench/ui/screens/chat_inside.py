"""Inside an answer: every token's probability, what else could have stood there, and the prompt it came from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widget import Widget

from workbench.session.protocol import AnswerRead, PromptRead, ReadAnswer, ReadPrompt
from workbench.ui.bench import Bench
from workbench.ui.link import SessionLink
from workbench.ui.screens import chat_inside_rows as shown
from workbench.ui.screens.closer_look import ASKING, CloserLook
from workbench.ui.widgets.heat import heat_of
from workbench.ui.widgets.one_line import OneLine
from workbench.ui.widgets.pieces import PieceView
from workbench.ui.widgets.probability_view import ProbabilityView, legend, token_words
from workbench.ui.widgets.row_list import RowList

ALTERNATIVES = 8
SOURCES = {"recorded": "as recorded while it was written", "scored": "as the loaded model reads it now"}


@dataclass(frozen=True)
class Fork:
    """Another token at a place of the answer, from where it is to be written on."""

    answer: str
    keep_tokens: int
    then_token: int
    kept_text: str


class EntropyLine(OneLine):
    """Entropy along the answer, as wide as there is room."""

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self._tokens: list[dict[str, Any]] = []
        self._cursor = 0

    def show_tokens(self, tokens: list[dict[str, Any]], cursor: int) -> None:
        """Show these tokens with the cursor's place marked."""
        self._tokens, self._cursor = tokens, cursor
        self.repaint()

    def line(self, width: int) -> Content:
        return shown.entropy_line(self._tokens, self._cursor, width)


class InsideScreen(CloserLook):
    """Shades, figures and alternatives of every token; enter on an alternative leaves with a fork.

    Args:
        conversation: its id.
        answer: id of the answer.
        model: the loaded model, which may score the answer; empty without one.
        written_by: the model that wrote it; empty where it is none of this box.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t", "view('tokens')", "The answer's tokens", show=False),
        Binding("p", "view('prompt')", "The exact prompt", show=False),
        Binding("n", "numbers", "Probabilities as numbers", show=False),
        Binding("s", "score", "Run the answer through the loaded model", show=False),
        Binding("u", "unsure(1)", "Next unlikely token", show=False),
        Binding("U", "unsure(-1)", "Unlikely token before", show=False),
        Binding("o", "tokens", "Open the token in Tokens", show=False),
        Binding("y", "copy", "Copy what is shown", show=False),
    ]
    KEYS = (("enter", "alternatives"), ("u", "next unlikely"), ("o", "in Tokens"), ("p", "prompt"))

    def __init__(self, link: SessionLink, conversation: str, answer: str, model: str, written_by: str = "") -> None:
        super().__init__(link, "chat-inside", "Inside the answer")
        self._conversation = conversation
        self._answer = answer
        self._model = model
        self._written_by = written_by
        self._tokens: list[dict[str, Any]] = []
        self._summary = ""
        self._may_fork = False
        self.chosen: Fork | None = None
        """The fork that the screen was left with."""
        self.sent: Bench.TextSent | None = None
        """The text that the screen was left with for Tokens, with the token meant."""
        self._read_by = written_by
        """Whose tokens are shown."""
        self._prompt: PromptRead | None = None

    def parts(self) -> Iterable[Widget]:
        with_tokens = Vertical(
            ProbabilityView(id="inside-tokens"),
            EntropyLine(id="inside-entropy"),
            OneLine(id="inside-legend"),
            OneLine(id="inside-token"),
            RowList(id="inside-alternatives"),
            id="inside-answer",
        )
        yield with_tokens
        yield Vertical(PieceView(id="inside-prompt"), OneLine(id="inside-piece"), id="inside-prompt-body")

    def on_mount(self) -> None:
        self.query_one("#inside-prompt-body").display = False
        self.query_one("#inside-legend", OneLine).show(legend(heat_of(self.app)))
        self.query_one(ProbabilityView).focus()
        self.read(False)

    # --- Asking --------------------------------------------------------------------------------------------

    @work(group=ASKING, exclusive=True, exit_on_error=False)
    async def read(self, score: bool) -> None:
        """Ask for the tokens as they were recorded, or have the loaded model read the answer."""
        request = ReadAnswer(self._conversation, self._answer, score, ALTERNATIVES)
        reply = await self.ask(request, AnswerRead, "Running the answer through the model" if score else "Reading")
        if reply is None:
            return
        self._tokens = reply.tokens
        self._read_by = self._model if reply.source == "scored" else self._written_by
        # Scored by another model, the tokens are not those that the answer is kept as.
        self._may_fork = bool(reply.tokens) and not reply.note
        if not reply.source:
            self._offer_scoring(reply.note)
            return
        self.retitle(f"Inside the answer, {SOURCES[reply.source]}")
        self._summary = shown.answer_line(reply.tokens) + (f" · {reply.note}" if reply.note else "")
        self.say(self._summary)
        self.query_one(ProbabilityView).set_tokens(reply.tokens)

    def _offer_scoring(self, note: str) -> None:
        if self._model:
            offer = (("s", "bold $accent"), (f" runs the answer through {self._model}", "$muted"))
            self.say(Content.assemble((f"{note}  ", "$warn"), *offer))
        else:
            self.say(Content.assemble((f"{note}  ", "$warn"), ("ctrl+l", "bold $accent"), (" loads one", "$muted")))

    def action_score(self) -> None:
        if self._model:
            self.read(True)
        else:
            self.say("No model is loaded: escape, then ctrl+l loads one.")

    @work(group="prompt", exclusive=True, exit_on_error=False)
    async def read_prompt(self) -> None:
        """Ask for the exact text that the model saw."""
        if self._prompt is None:
            request = ReadPrompt(conversation_id=self._conversation, answer=self._answer)
            self._prompt = await self.ask(request, PromptRead, "Rendering the prompt")
        if self._prompt is None:
            return
        of = f" of {self._prompt.context_length:,}" if self._prompt.context_length else ""
        special = sum(bool(piece["special"]) for piece in self._prompt.pieces)
        note = f" · {self._prompt.note}" if self._prompt.note else ""
        self.say(
            f"The prompt as the model saw it: {self._prompt.tokens:,}{of} tokens, {special:,} of them special{note}"
        )
        pieces, place = [], 0
        for piece in self._prompt.pieces:
            end = place + max(1, len(piece["text"]))
            pieces.append({**piece, "start": place, "end": end})
            place = end
        self.query_one("#inside-prompt", PieceView).set_pieces(pieces)

    # --- Showing -------------------------------------------------------------------------------------------

    def action_view(self, view: str) -> None:
        prompt = view == "prompt"
        self.query_one("#inside-answer").display = not prompt
        self.query_one("#inside-prompt-body").display = prompt
        self.query_one("#inside-prompt" if prompt else "#inside-tokens").focus()
        if prompt:
            self.read_prompt()
        else:
            self.say(self._summary)
        self.show_keys()

    def keys(self) -> tuple[tuple[str, str], ...]:
        prompt = self.is_mounted and self.query_one("#inside-prompt-body").display
        return (("← →", "tokens"), ("t", "the answer"), ("y", "copy")) if prompt else self.KEYS

    @on(PieceView.Highlighted, "#inside-tokens")
    def show_token(self) -> None:
        view = self.query_one(ProbabilityView)
        token = view.token
        if token is None:
            return
        self.query_one("#inside-token", OneLine).show(shown.token_line(token, view.cursor, len(self._tokens)))
        self.query_one(EntropyLine).show_tokens(self._tokens, view.cursor)
        self.query_one(RowList).set_rows(shown.alternative_rows(token), cursor_key=shown.chosen_key(token))

    @on(PieceView.Highlighted, "#inside-prompt")
    def show_piece(self) -> None:
        piece = self.query_one("#inside-prompt", PieceView).piece
        if piece is not None:
            words = f"   id {piece['id']}" + (" · special token" if piece["special"] else "")
            told = Content.assemble((shown.quoted(str(piece["text"])), "bold"), (words, "$muted"))
            self.query_one("#inside-piece", OneLine).show(told)

    @on(PieceView.Chosen, "#inside-tokens")
    def choose_alternative(self) -> None:
        if self.query_one(RowList).rows:
            self.query_one(RowList).focus()

    @on(RowList.Chosen)
    def fork(self, message: RowList.Chosen) -> None:
        """Write the answer on from another token."""
        if not self._may_fork:
            self.say(Content.styled("Only the model that wrote the answer can go on from its tokens.", "$warn"))
            return
        place = self.query_one(ProbabilityView).cursor
        kept = "".join(str(token["text"]) for token in self._tokens[:place])
        self.chosen = Fork(self._answer, place, int(message.row.data["id"]), kept)
        self.dismiss(None)

    def action_unsure(self, step: int) -> None:
        view = self.query_one(ProbabilityView)
        index = view.cursor + step
        while 0 <= index < len(self._tokens):
            logprob = self._tokens[index].get("logprob")
            if logprob is not None and logprob < -0.6931:
                view.cursor = index
                view.focus()
                return
            index += step

    def action_tokens(self) -> None:
        """Leave for Tokens with the answer or the prompt, on the token under the cursor."""
        prompt = self.query_one("#inside-prompt-body").display
        view = self.query_one("#inside-prompt" if prompt else "#inside-tokens", PieceView)
        tokens = self._prompt.pieces if prompt and self._prompt is not None else self._tokens
        texts = [str(token["text"]) for token in tokens]
        if any(texts):
            model = self._model if prompt else self._read_by
            token_id = int(tokens[view.cursor]["id"])
            self.sent = Bench.TextSent("".join(texts), len("".join(texts[: view.cursor])), model, token_id)
            self.dismiss(None)

    def action_numbers(self) -> None:
        self.query_one(ProbabilityView).toggle_numbers()

    def action_close(self) -> None:
        if self.query_one(RowList).has_focus and not self.asking:
            self.query_one(ProbabilityView).focus()
            return
        super().action_close()

    def action_copy(self) -> None:
        if self.query_one("#inside-prompt-body").display and self._prompt is not None:
            self.copy(self._prompt.text, "the prompt")
        elif self._tokens:
            self.copy(self._table(), "the tokens")

    def _table(self) -> str:
        rows = ["token\tid\tlogprob\tentropy_bits"]
        for token in self._tokens:
            figures = (token["id"], token.get("logprob"), token.get("entropy_bits"))
            rows.append("\t".join([shown.quoted(token_words(token)), *("" if x is None else f"{x}" for x in figures)]))
        return "\n".join(rows)
