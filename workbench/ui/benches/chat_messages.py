"""What keys do with the messages of a conversation: sent, written anew, answered again, gone on, stepped through."""

from __future__ import annotations

from textual import on, work

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import ConversationRead, ModelStatus, PromptRead, ReadPrompt, ShowMessage
from workbench.ui.benches.chat_conversation import STILL_ANSWERING, ConversationBench, Draft
from workbench.ui.benches.chat_figures import can_go_on, settings_of
from workbench.ui.benches.chat_files import with_files
from workbench.ui.benches.chat_input import Prompt
from workbench.ui.link import SessionLink
from workbench.ui.widgets.transcript import Transcript, Turn

LEAST_ROOM = 256
"""Tokens to keep free for an answer before the user is asked what to drop; as the worker keeps when it drops."""


class MessagesBench(ConversationBench):
    """Messages, each of which keys act on."""

    def __init__(self, link: SessionLink) -> None:
        super().__init__(link)
        self._editing = ""
        """Id of the earlier message that is being written anew; empty for none."""
        self._set_aside = Draft()
        """What was being written before."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "stop":
            return self.answering
        turn = self.transcript.turn if self.ready else None
        if action == "go_on":
            return turn is not None and not self.answering and can_go_on(turn.message)
        if action in ("change", "again", "inside"):
            there = turn is not None and bool(turn.message.get("id")) and not self.answering
            return there and super().check_action(action, parameters)
        return super().check_action(action, parameters)

    # --- Sending -------------------------------------------------------------------------------------------

    @on(Prompt.Sent)
    @work(group="chat-send", exclusive=True, exit_on_error=False)
    async def send(self, message: Prompt.Sent) -> None:
        """Send what was written, as a new message or in place of an earlier one."""
        if not self.may_ask():
            return
        draft = Draft(message.text, self.asking.files)
        prompt, after, before = with_files(draft.text, draft.files), None, list(self.transcript.turns)
        edited = self._edited()
        if edited is not None:
            after = self._place_of(edited)
            before = before[: before.index(edited)] if after else []
        if not await self._fits(prompt, after):
            return
        self._take_out(draft)
        self.answer(self.request(prompt, after=after), before, draft)

    def _take_out(self, draft: Draft) -> None:
        """Empty the field of what is sent; what was typed since stays there."""
        field = self.query_one(Prompt)
        rest = field.text.removeprefix(draft.text)
        field.remember(draft.text)
        field.text, self.asking.files = "", ()
        if self._editing:
            self._end_editing()
        if rest:
            field.text = field.text + rest

    def _edited(self) -> Turn | None:
        """The message that is being written anew, while it is on screen."""
        turns = self.transcript.turns
        return next((turn for turn in turns if self._editing and turn.message.get("id") == self._editing), None)

    def gave_back(self, draft: Draft) -> None:
        """What failed is written anew: sent again, it stands beside the failed one and not behind it."""
        turns = [turn for turn in self.transcript.turns if turn.role == "user" and turn.message.get("id")]
        if turns and turns[-1].text == with_files(draft.text, draft.files):
            self._set_aside = Draft()
            self._editing, self.doing.editing = str(turns[-1].message["id"]), True

    def _place_of(self, turn: Turn) -> str:
        """The message that a message written anew follows; none where it begins with another system prompt."""
        parent = str(turn.message.get("parent") or "")
        first = next((item for item in self.transcript.turns if item.message.get("id") == parent), None)
        begins = first is None or first.role == "system"
        system = first.text if first is not None and first.role == "system" else ""
        return "" if begins and system != self.asking.system else parent

    def may_ask(self) -> bool:
        """Whether an answer can be asked for now; says why not."""
        if self.answering:
            self.post_message(self.Said(STILL_ANSWERING))
        elif self.asking.server is not None:
            return True
        elif self.session.model is None or not self._may_answer(self.session.model):
            self.show_status(refused=True)
        else:
            return True
        return False

    def _may_answer(self, model: ModelStatus) -> bool:
        """Whether the loaded model is the one meant; asks once, in the status line, where it is not."""
        agreed, self.doing.agreed = self.doing.agreed, model
        return not self.session.chosen or self.session.chosen_is_loaded or agreed == model

    async def _fits(self, prompt: str, after: str | None) -> bool:
        """Whether a message may be sent: it fits the context, or the user said what to drop."""
        asking, model = self.asking, self.session.model
        limit = model.context_length if model else None
        room = min(LEAST_ROOM, int(asking.sampling.get("max_new_tokens", LEAST_ROOM)))
        if limit is None or asking.raw or asking.overflow_asked or asking.server is not None:
            return True
        # A character is at most a few tokens, so most messages need no counting.
        if self.doing.used_tokens + 4 * len(prompt) + room <= limit:
            return True
        request = ReadPrompt(prompt, self.conversation_id, after, system=asking.system)
        try:
            read = await self.link.ask(request, PromptRead)
        except (JobCancelled, WorkbenchError):
            return True  # the answer itself will tell
        if read.tokens + room <= limit:
            return True
        alone = await self._tokens_alone(prompt)
        if alone >= limit:
            self.show_error(
                WorkbenchError(
                    "too-long",
                    f"This message alone takes {alone:,} tokens; the model's context is {limit:,}.",
                    "Shorten it.",
                )
            )
            return False
        from workbench.ui.screens.confirm import Confirm

        answers = [("d", "leave out the oldest messages, now and later in this conversation")]
        if read.tokens < limit:
            answers.append(("s", f"send it whole: {limit - read.tokens:,} tokens are left for the answer"))
        words = f"With this message the conversation takes {read.tokens:,} of {limit:,} tokens of context."
        picked = await self.app.push_screen_wait(Confirm(words, tuple(answers)))
        asking.overflow_asked = picked is not None
        asking.overflow = "drop-oldest" if picked == "d" else "refuse"
        self.show_status()
        return picked is not None

    async def _tokens_alone(self, prompt: str) -> int:
        """What a message takes when all before it is left out; 0 where that cannot be told."""
        try:
            return (await self.link.ask(ReadPrompt(prompt, system=self.asking.system), PromptRead)).tokens
        except (JobCancelled, WorkbenchError):
            return 0

    def conversation_changed(self) -> None:
        if self._editing and self._edited() is None:
            # What was written stays in the field, as a message of its own.
            self._editing, self.doing.editing = "", False

    # --- Moving between message field and conversation -----------------------------------------------------

    @on(Prompt.Left)
    def look_back(self) -> None:
        """Into the conversation, or out of an edit."""
        if self._editing:
            self._end_editing()
        elif any(turn.role != "note" for turn in self.transcript.turns):
            self.transcript.enter_from_below()
        else:
            self.focus()

    @on(Transcript.EndReached)
    def action_write(self) -> None:
        self.transcript.mark("")
        self.query_one(Prompt).focus()

    # --- One message ---------------------------------------------------------------------------------------

    def answer_here(self) -> tuple[Turn, int] | None:
        """The answer that keys act on: the message itself, or what follows the user's; with its place."""
        turns, turn = self.transcript.turns, self.transcript.turn
        if turn is None or not turn.message.get("id"):
            return None
        place = turns.index(turn)
        if turn.role == "user":
            place += 1
        if place < len(turns) and turns[place].role == "assistant" and turns[place].message.get("id"):
            return turns[place], place
        return None

    def action_change(self) -> None:
        turns, turn = self.transcript.turns, self.transcript.turn
        while turn is not None and turn.role != "user":
            place = turns.index(turn)
            turn = turns[place - 1] if place else None
        if turn is None or self.answering:
            return
        field = self.query_one(Prompt)
        if not self._editing:
            self._set_aside = Draft(field.text, self.asking.files)
        self._editing, self.doing.editing = str(turn.message.get("id") or ""), True
        field.text, self.asking.files = turn.text, ()
        field.move_cursor(field.document.end)
        field.focus()
        self.show_status()

    def _end_editing(self) -> None:
        """Give back what was being written before an earlier message was."""
        field = self.query_one(Prompt)
        self._editing, self.doing.editing = "", False
        field.text, self.asking.files = self._set_aside.text, self._set_aside.files
        field.move_cursor(field.document.end)
        self.show_status()

    def action_again(self) -> None:
        found = self.answer_here()
        if found is not None and self.may_ask():
            turn, place = found
            raw = bool(settings_of(turn.message).get("raw"))
            request = self.request("", again=str(turn.message["id"]), raw=raw)
            self.answer(request, self.transcript.turns[:place], Draft())

    def action_go_on(self) -> None:
        found = self.answer_here()
        if found is not None and self.may_ask():
            turn, place = found
            raw = bool(settings_of(turn.message).get("raw"))
            request = self.request("", again=str(turn.message["id"]), extend=True, raw=raw)
            self.answer(request, self.transcript.turns[:place], Draft(), kept=turn.text)

    @work(group="chat-branch", exclusive=True, exit_on_error=False)
    async def action_branch(self, step: int) -> None:
        """Show the branch beside the one of the message under the cursor."""
        turn = self.transcript.turn
        siblings = list(turn.message.get("siblings") or ()) if turn is not None else []
        if turn is None or len(siblings) < 2:
            return
        index = siblings.index(turn.message["id"]) + step
        if self.answering or not 0 <= index < len(siblings):
            return
        place = self.transcript.turns.index(turn)
        if await self.show_message(siblings[index]):
            self.transcript.show_turn(min(place, len(self.transcript.turns) - 1))

    async def show_message(self, message_id: str) -> bool:
        """Show the branch through a message; False where it failed."""
        try:
            read = await self.link.ask(ShowMessage(self.conversation_id, message_id), ConversationRead)
        except JobCancelled:
            return False
        except WorkbenchError as error:
            self.show_error(error)
            return False
        turns = self._turns_of(read.conversation)
        self.transcript.update_turns(turns)
        self.refresh_bindings()
        self.show_status()
        return True

    def action_fold(self) -> None:
        turn = self.transcript.turn
        if turn is not None and turn.toggle_fold():
            self.transcript.lay_out()

    def action_copy(self) -> None:
        turn = self.transcript.turn
        if turn is not None and turn.text:
            what = "the answer" if turn.role == "assistant" else "the message"
            self.post_message(self.CopyRequested(turn.text, what))
