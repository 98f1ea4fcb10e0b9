"""Chat: how the model really behaves, at what speed, and what quantizing cost."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.binding import BindingType

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import ConversationsExported, CountTokens, ExportConversations, TokensCounted
from workbench.ui.actions import bindings_of
from workbench.ui.benches.chat_conversation import STILL_ANSWERING, Draft
from workbench.ui.benches.chat_figures import settings_of
from workbench.ui.benches.chat_files import Attachment, read_attachment
from workbench.ui.benches.chat_input import Prompt
from workbench.ui.benches.chat_messages import MessagesBench
from workbench.ui.link import SessionLink
from workbench.ui.widgets.transcript import Turn

if TYPE_CHECKING:
    from workbench.ui.screens.chat_compare import Comparing


class ChatBench(MessagesBench):
    """The bench with its closer looks, the conversations kept, and what the next message is sent with."""

    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("chat")]

    def __init__(self, link: SessionLink) -> None:
        super().__init__(link)
        self._compared: tuple[str, Comparing] | None = None
        """The model whose variants were measured, and what came of it."""

    # --- Closer looks --------------------------------------------------------------------------------------

    @work(group="chat-inside", exclusive=True, exit_on_error=False)
    async def action_inside(self) -> None:
        """Look at an answer's tokens; a fork writes it on from another one."""
        from workbench.ui.screens.chat_inside import InsideScreen

        found = self.answer_here()
        if found is None:
            return
        turn, place = found
        model = self.session.model.name if self.session.model else ""
        made = settings_of(turn.message)
        written_by = "" if made.get("server") else str(made.get("model") or "")
        screen = InsideScreen(self.link, self.conversation_id, str(turn.message["id"]), model, written_by)
        await self.app.push_screen_wait(screen)
        if screen.sent is not None:
            self.post_message(screen.sent)
        fork = screen.chosen
        if fork is None or not self.may_ask():
            return
        raw = bool(made.get("raw"))
        request = self.request("", again=fork.answer, keep_tokens=fork.keep_tokens, then_token=fork.then_token, raw=raw)
        self.answer(request, self.transcript.turns[:place], Draft(), kept=fork.kept_text)

    @work(group="chat-numbers", exclusive=True, exit_on_error=False)
    async def action_numbers(self) -> None:
        """What an answer took."""
        from workbench.ui.screens.chat_numbers import NumbersScreen

        found = self.answer_here()
        message = found[0].message if found is not None else {}
        screen = NumbersScreen(self.link, message, self.session.model)
        await self.app.push_screen_wait(screen)
        if screen.to_vram:
            self.post_message(self.StandingSent())

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
        if found.message not in ids and await self.show_message(found.message):
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

    @work(group="chat-server", exclusive=True, exit_on_error=False)
    async def action_server(self) -> None:
        """Let a model of a server answer, or the loaded one again."""
        from workbench.ui.screens.confirm import Confirm
        from workbench.ui.screens.server_picker import ServerPicker

        server = self.asking.server
        if server is not None:
            answers = (("l", "let the loaded model answer again"), ("o", "choose another server or model"))
            picked = await self.app.push_screen_wait(Confirm(f"{server.name} answers.", answers))
            if picked is None:
                return
            if picked == "l":
                self.asking.server = None
                self.show_status()
                return
        chosen = await self.app.push_screen_wait(ServerPicker(self.link, server.remote if server else None))
        if chosen is not None:
            self.asking.server = chosen
            self.show_status()
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
