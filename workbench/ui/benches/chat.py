"""Chat: how the model really behaves, at what speed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.binding import BindingType

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import (
    ConversationRead,
    ConversationsExported,
    CountTokens,
    ExportConversations,
    ModelStatus,
    PromptRead,
    ReadPrompt,
    ShowMessage,
    TokensCounted,
)
from workbench.ui.actions import bindings_of
from workbench.ui.benches.chat_conversation import STILL_ANSWERING, ConversationBench, Draft
from workbench.ui.benches.chat_figures import can_go_on, settings_of
from workbench.ui.benches.chat_files import Attachment, read_attachment, with_files
from workbench.ui.benches.chat_input import Prompt
from workbench.ui.link import SessionLink
from workbench.ui.widgets.transcript import Transcript, Turn

if TYPE_CHECKING:
    from workbench.ui.screens.chat_compare import Comparing

LEAST_ROOM = 256
"""Tokens to keep free for an answer before the user is asked what to drop; as the worker keeps when it drops."""


class ChatBench(ConversationBench):
    """What keys do with the conversation and with its messages."""

    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("chat")]

    def __init__(self, link: SessionLink) -> None:
        super().__init__(link)
        self._editing = ""
        """Id of the earlier message that is being written anew; empty for none."""
        self._set_aside = Draft()
        """What was being written before."""
        self._compared: tuple[str, Comparing] | None = None
        """The model whose variants were measured, and what came of it."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "stop":
            return self.answering
        turn = self.transcript.turn if self.ready else None
        if action == "go_on":
            return turn is not None and not self.answering and can_go_on(turn.message)
        if action in ("change", "again", "inside"):
            return turn is not None and bool(turn.message.get("id")) and not self.answering
        return super().check_action(action, parameters)

    # --- Sending -------------------------------------------------------------------------------------------

    @on(Prompt.Sent)
    @work(group="chat-send", exclusive=True, exit_on_error=False)
    async def send(self, message: Prompt.Sent) -> None:
        """Send what was written, as a new message or in place of an earlier one."""
        if not self._may_ask():
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

    def _may_ask(self) -> bool:
        if self.answering:
            self.post_message(self.Said(STILL_ANSWERING))
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
        if limit is None or asking.raw or asking.overflow_asked:
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

    def conversation_changed(self) -> None:
        if self._editing and self._edited() is None:
            # What was written stays in the field, as a message of its own.
            self._editing, self.doing.editing = "", False

    # --- Moving between message field and conversation -----------------------------------------------------

    @on(Prompt.Left)
    def look_back(self) -> None:
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

    def _answer_here(self) -> tuple[Turn, int] | None:
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
        found = self._answer_here()
        if found is not None and self._may_ask():
            turn, place = found
            raw = bool(settings_of(turn.message).get("raw"))
            request = self.request("", again=str(turn.message["id"]), raw=raw)
            self.answer(request, self.transcript.turns[:place], Draft())

    def action_go_on(self) -> None:
        found = self._answer_here()
        if found is not None and self._may_ask():
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
        if await self._show_message(siblings[index]):
            self.transcript.show_turn(min(place, len(self.transcript.turns) - 1))

    async def _show_message(self, message_id: str) -> bool:
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

    @work(group="chat-inside", exclusive=True, exit_on_error=False)
    async def action_inside(self) -> None:
        """Look at an answer's tokens; a fork writes it on from another one."""
        from workbench.ui.screens.chat_inside import InsideScreen

        found = self._answer_here()
        if found is None:
            return
        turn, place = found
        model = self.session.model.name if self.session.model else ""
        screen = InsideScreen(self.link, self.conversation_id, str(turn.message["id"]), model)
        await self.app.push_screen_wait(screen)
        fork = screen.chosen
        if fork is None or not self._may_ask():
            return
        raw = bool(settings_of(turn.message).get("raw"))
        request = self.request("", again=fork.answer, keep_tokens=fork.keep_tokens, then_token=fork.then_token, raw=raw)
        self.answer(request, self.transcript.turns[:place], Draft(), kept=fork.kept_text)

    @work(group="chat-numbers", exclusive=True, exit_on_error=False)
    async def action_numbers(self) -> None:
        """What an answer took."""
        from workbench.ui.screens.chat_numbers import NumbersScreen

        found = self._answer_here()
        message = found[0].message if found is not None else {}
        await self.app.push_screen_wait(NumbersScreen(self.link, message, self.session.model))

    @work(group="chat-variants", exclusive=True, exit_on_error=False)
    async def action_variants(self) -> None:
        """Measure what quantizing the chosen model costs."""
        from workbench.ui.screens.chat_compare import CompareScreen, Comparing

        model = self.session.chosen or (self.session.model.name if self.session.model else "")
        if not model:
            self.show_status(refused=True)
            return
        if self._compared is None or self._compared[0] != model:
            prompts = [turn.text for turn in self.transcript.turns if turn.role == "user"]
            self._compared = (model, Comparing(prompt=prompts[-1] if prompts and "\n" not in prompts[-1] else ""))
        await self.app.push_screen_wait(CompareScreen(self.link, *self._compared))

    def action_fold(self) -> None:
        turn = self.transcript.turn
        if turn is not None and turn.toggle_fold():
            self.transcript.lay_out()

    def action_copy(self) -> None:
        turn = self.transcript.turn
        if turn is not None and turn.text:
            what = "the answer" if turn.role == "assistant" else "the message"
            self.post_message(self.CopyRequested(turn.text, what))

    # --- Conversations -------------------------------------------------------------------------------------

    def action_new(self) -> None:
        if self.answering:
            self.post_message(self.Said(STILL_ANSWERING))
            return
        self.begin_anew()
        self.action_write()

    @work(group="chat-conversations", exclusive=True, exit_on_error=False)
    async def action_conversations(self) -> None:
        """Choose one of the conversations kept, and show it."""
        from workbench.ui.screens.conversations import ConversationsScreen

        screen = ConversationsScreen(self.link, self.conversation_id, self._forget)
        wanted = await self.app.push_screen_wait(screen)
        if not wanted:
            return
        if self.answering:
            self.post_message(self.Said(STILL_ANSWERING))
            return
        await self.open(wanted)
        self.action_write()

    def _forget(self, conversation_id: str) -> None:
        if conversation_id == self.conversation_id and not self.answering:
            self.begin_anew()

    @work(group="chat-find", exclusive=True, exit_on_error=False)
    async def action_find(self) -> None:
        """Go to a message that holds the words searched for."""
        from workbench.ui.screens.chat_find import FindScreen

        screen = FindScreen(self.link, self.conversation_id, self.transcript.turns)
        found = await self.app.push_screen_wait(screen)
        if found is None:
            return
        if self.answering:
            self.post_message(self.Said(STILL_ANSWERING))
            return
        if found.conversation != self.conversation_id:
            await self.open(found.conversation)
        ids = [turn.message.get("id") for turn in self.transcript.turns]
        if found.message not in ids and await self._show_message(found.message):
            ids = [turn.message.get("id") for turn in self.transcript.turns]
        if found.message in ids:
            self.transcript.mark(found.words)
            self.transcript.focus()
            self.transcript.show_turn(ids.index(found.message))

    @work(group="chat-export", exclusive=True, exit_on_error=False)
    async def action_export(self) -> None:
        """Write this conversation to a file."""
        from workbench.ui.screens.chat_export import export_conversations

        if not self.conversation_id:
            self.post_message(self.Said("There is no conversation yet."))
            return
        said = await export_conversations(self, [self.conversation_id], self.title)
        if said:
            self.post_message(self.Said(said))

    @work(group="chat-copy", exclusive=True, exit_on_error=False)
    async def action_copy_all(self) -> None:
        """Copy the conversation as Markdown."""
        if not self.conversation_id:
            return
        try:
            reply = await self.link.ask(ExportConversations([self.conversation_id]), ConversationsExported)
        except JobCancelled:
            return
        except WorkbenchError as error:
            self.show_error(error)
        else:
            self.post_message(self.CopyRequested(reply.text, "the conversation"))

    # --- What the next message is sent with ----------------------------------------------------------------

    def action_toggle_raw(self) -> None:
        self.asking.raw = not self.asking.raw
        said = (
            "The model goes on with the bare text; no template, no history." if self.asking.raw else "Chat template on."
        )
        self.post_message(self.Said(said))
        self.show_status()

    @work(group="chat-sampling", exclusive=True, exit_on_error=False)
    async def action_sampling(self) -> None:
        """Set how tokens are chosen, seeing what each knob does."""
        from workbench.ui.screens.chat_sampling import Place, SamplingScreen

        asking, prompt, last = self.asking, self.query_one(Prompt).text, self._last_answer()
        answer = "" if prompt.strip() or last is None else str(last.message["id"])
        place = Place(prompt, self.conversation_id, answer, asking.system, asking.raw)
        await self.app.push_screen_wait(SamplingScreen(self.link, asking.sampling, place))
        self.show_status()

    def _last_answer(self) -> Turn | None:
        turns = reversed(self.transcript.turns)
        return next((turn for turn in turns if turn.role == "assistant" and turn.message.get("id")), None)

    @work(group="chat-text", exclusive=True, exit_on_error=False)
    async def action_system(self) -> None:
        """Edit the system prompt."""
        from workbench.ui.screens.chat_text import TextScreen

        said = "What the model is told before the first message. It counts from the first message on."
        text = await self.app.push_screen_wait(
            TextScreen(self.link, "system", "System prompt", said, self.asking.system)
        )
        if text is None or text.strip() == self.asking.system:
            return
        self.asking.system = text.strip()
        if any(turn.message for turn in self.transcript.turns):
            told = "For the next conversation (ctrl+n), or once the first message here is edited (e)."
            self.post_message(self.Said(told))
        self.show_status()

    @work(group="chat-text", exclusive=True, exit_on_error=False)
    async def action_prompts(self) -> None:
        """Write a prompt that is kept by name, or keep the one being written."""
        from workbench.ui.screens.chat_text import TextScreen

        field = self.query_one(Prompt)
        said = "The message being written. Keep it under a name, or take one that is kept."
        text = await self.app.push_screen_wait(TextScreen(self.link, "prompt", "Prompts", said, field.text))
        if text is not None:
            field.text = text
            field.move_cursor(field.document.end)
            self.action_write()

    @work(group="chat-attach", exclusive=True, exit_on_error=False)
    async def action_attach(self) -> None:
        """Attach a text file, and say what it takes."""
        from workbench.ui.screens.chat_path import PathDialog

        path = await self.app.push_screen_wait(PathDialog("Attach a text file", "attaches", read_attachment))
        if path is None:
            return
        self.asking.files = (*self.asking.files, await self._counted(read_attachment(path)))
        self.show_status()
        self.action_write()

    async def _counted(self, file: Attachment) -> Attachment:
        model = self.session.chosen or (self.session.model.name if self.session.model else "")
        if not model:
            return file
        try:
            request = CountTokens([{"name": file.name, "text": file.text}], [model])
            counted = await self.link.ask(request, TokensCounted)
        except (JobCancelled, WorkbenchError):
            return file  # its size is said all the same
        return replace(file, tokens=counted.result["results"][0]["tokens"])

    def action_detach_files(self) -> None:
        self.asking.files = ()
        self.show_status()


BENCH = ChatBench
