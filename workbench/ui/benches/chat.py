"""Chat: how the model really behaves, at what speed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.constants import MAX_FPS
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import TextArea

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import (
    AnswerStarted,
    Cancel,
    ConversationOpened,
    ConversationRead,
    ConversationsListed,
    Event,
    FollowConversation,
    Followed,
    Generate,
    Generated,
    JobProgressed,
    ListConversations,
    ModelStatus,
    OpenConversation,
    TokensGenerated,
)
from workbench.text import format_bytes
from workbench.ui.actions import bindings_of
from workbench.ui.bench import Bench, ErrorLine
from workbench.ui.environment import SLOW_FRAMES_PER_SECOND, SSH_FRAMES_PER_SECOND
from workbench.ui.link import SessionLink
from workbench.ui.session_state import LOST, SessionState
from workbench.ui.strip_text import SHORT_DTYPES, job_text, progress_text, short_name
from workbench.ui.widgets.one_line import OneLine
from workbench.ui.widgets.transcript import Transcript, Turn

LOST_ANSWER = "cut off: the session was lost; what came is kept"
PAGE_KEYS = {"pageup": -1, "pagedown": 1}
NOTICE_SECONDS = 4.0
NEWLINE_KEYS = ("ctrl+j", "shift+enter", "alt+enter")


def scroll_step(frames_per_second: int) -> int:
    """Lines by which a growing answer scrolls at once: each time the whole pane is sent."""
    if frames_per_second > SSH_FRAMES_PER_SECOND:
        return 1
    return 5 if frames_per_second > SLOW_FRAMES_PER_SECOND else 8


class Prompt(TextArea):
    """A message of several lines: enter sends, ctrl+j starts a new line."""

    class Sent(Message):
        """Enter on a message that is not blank."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class Paged(Message):
        """A page up (-1) or down (1) in the conversation above."""

        def __init__(self, direction: int) -> None:
            super().__init__()
            self.direction = direction

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "send", tooltip="Send the message."),
        Binding("ctrl+j", "newline", "new line", tooltip="Start a new line; shift+enter where the terminal sends it."),
    ]

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            # TextArea itself would put a line break there before any binding is asked.
            event.stop()
            event.prevent_default()
            self.action_send()
        elif event.key in NEWLINE_KEYS:
            event.stop()
            event.prevent_default()
            self.action_newline()
        elif event.key in PAGE_KEYS:
            event.stop()
            event.prevent_default()
            self.post_message(self.Paged(PAGE_KEYS[event.key]))
        else:
            await super()._on_key(event)

    def action_send(self) -> None:
        if self.text.strip():
            self.post_message(self.Sent(self.text))

    def action_newline(self) -> None:
        self.insert("\n")


class ChatBench(Bench):
    """The conversation, one line on what goes on, and the message being written."""

    NAME = "chat"
    NEEDS_TORCH = True
    OF_THE_MODEL = True
    TELLS_LOSS = True
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("chat")]

    def __init__(self, link: SessionLink) -> None:
        super().__init__(link)
        self.conversation_id = ""
        self.answering = False
        self._begun_anew = False
        """Whether the user began a conversation that has no message yet."""
        self._restored = 0
        """The attachment after which the conversation was last restored."""
        self._progress = ""
        self._notice = ""
        """A short word that stands in the status line for a moment."""
        self._tokens = 0
        self._used_tokens = 0
        """Tokens that the conversation takes so far, as the last answer told."""
        self._agreed: ModelStatus | None = None
        """A loaded model other than the chosen one, once the user was asked whether it shall answer."""
        self._counted_by = ""
        """The model whose tokens those are."""

    def compose(self) -> ComposeResult:
        yield Transcript(id="chat-transcript", scroll_step=scroll_step(MAX_FPS))
        yield ErrorLine()
        yield OneLine(id="chat-status")
        yield Prompt(id="chat-input", placeholder="Write a message. enter sends, ctrl+j starts a new line.")

    def first_focus(self) -> Widget:
        return self.query_one(Prompt)

    @property
    def transcript(self) -> Transcript:
        """The conversation on screen."""
        return self.query_one(Transcript)

    def bench_shown(self) -> None:
        self.query_one(Prompt).cursor_blink = False
        if not self.transcript.turns:
            self._show_opening()
        self._show_status()

    def session_changed(self, old: SessionState, new: SessionState) -> None:
        if new.attached and not self.answering:
            running = new.status.conversation_id if new.status else ""
            was_running = old.status.conversation_id if old.status and old.attached else ""
            another_answers_here = running != was_running and running == self.conversation_id != ""
            if new.attachments != self._restored or another_answers_here:
                self._restored = new.attachments
                self.restore(running)
        if not self.transcript.turns:
            self._show_opening()
        self._show_status()

    # --- Restoring -----------------------------------------------------------------------------------------

    @work(group="chat-restore", exclusive=True, exit_on_error=False)
    async def restore(self, running: str) -> None:
        """Show the conversation being answered, following it, or else the newest one."""
        try:
            if running:
                await self._follow(running)
                return
            wanted = self.conversation_id
            if not wanted and not self._begun_anew:
                listed = await self.link.ask(ListConversations(limit=1), ConversationsListed)
                wanted = str(listed.conversations[0].get("id") or "") if listed.conversations else ""
            if wanted and not self.answering:
                read = await self.link.ask(OpenConversation(wanted), ConversationRead)
                self._show_conversation(read.conversation)
        except JobCancelled:
            return
        except WorkbenchError as error:
            # A worker without a history yet is no failure of the chat.
            if error.kind not in ("unknown-request", "unknown-conversation"):
                self.show_error(error)

    async def _follow(self, conversation_id: str) -> None:
        self._set_answering(True)
        try:
            followed = await self.link.ask(FollowConversation(conversation_id), Followed, self._on_event)
            self._show_conversation(followed.conversation)
        finally:
            self._set_answering(False)

    def _show_conversation(self, conversation: dict[str, Any], growing: bool = False) -> None:
        self.conversation_id = str(conversation.get("id") or self.conversation_id)
        self._used_tokens, self._counted_by = 0, ""
        for message in conversation.get("messages") or []:
            self._count_context(figures_of(message), settings_of(message))
        turns = [_turn(message) for message in conversation.get("messages") or [] if message.get("role") != "system"]
        if growing:
            if not turns or turns[-1].role != "assistant":
                turns.append(Turn("assistant", ""))
            turns[-1].growing = True
            turns[-1].foot = ""
        self.transcript.set_turns(turns)
        if not turns:
            self._show_opening()
        self._show_status()

    def _count_context(self, figures: dict[str, Any], settings: dict[str, Any]) -> None:
        if used := context_used(figures):
            self._used_tokens, self._counted_by = used, str(settings.get("model") or "")

    def _show_opening(self) -> None:
        self.transcript.set_turns([])
        words = [Turn("note", "Talk to the model, and see how fast it answers and what it takes.")]
        if not self.session.chosen:
            words.append(Turn("note", "ctrl+o chooses a model; the samples are small and run on any CPU."))
        elif self.session.model is None:
            words.append(Turn("note", f"ctrl+l loads {self.session.chosen}; what is not on this box is fetched first."))
        if self.is_mounted:
            self.transcript.set_turns(words)

    # --- Talking -------------------------------------------------------------------------------------------

    @on(Prompt.Paged)
    def page(self, message: Prompt.Paged) -> None:
        """Scroll the conversation, while the message field keeps the focus."""
        transcript = self.transcript
        step = message.direction * max(1, transcript.size.height - 1)
        transcript.scroll_to(y=transcript.scroll_offset.y + step, animate=False)

    @on(Prompt.Sent)
    def send(self, message: Prompt.Sent) -> None:
        if self.answering:
            self.post_message(self.Said("The model is still answering; escape stops it."))
        elif self.session.model is None or not self._may_answer(self.session.model):
            self._show_status(refused=True)
        else:
            self.query_one(Prompt).text = ""
            self.answer(message.text)

    def _may_answer(self, model: ModelStatus) -> bool:
        """Whether the loaded model is the one meant; asks once, in the status line, where it is not."""
        agreed, self._agreed = self._agreed, model
        return not self.session.chosen or self.session.chosen_is_loaded or agreed == model

    @work(group="chat-answer", exclusive=True, exit_on_error=False)
    async def answer(self, prompt: str) -> None:
        """Ask for an answer and show it as it grows."""
        self.show_error(None)
        if self.transcript.turns and self.transcript.turns[0].role == "note":
            self.transcript.set_turns([])
        self.transcript.add(Turn("user", prompt))
        turn = Turn("assistant", "", growing=True)
        self.transcript.add(turn)
        self._set_answering(True)
        try:
            load = self.session.standing_load
            request = Generate(prompt, conversation_id=self.conversation_id, load=load)
            reply = await self.link.ask(request, Generated, self._on_event)
        except JobCancelled:
            self._end_turn(turn, foot="stopped before the answer began")
        except WorkbenchError as error:
            self._answer_failed(turn, prompt, error)
        else:
            self.conversation_id = reply.conversation_id or self.conversation_id
            self._count_context(reply.result, reply.result)
            figures = figures_line(reply.result, variant_words(reply.result))
            self._end_turn(turn, text=str(reply.result.get("text") or turn.text), foot=figures)
        finally:
            self._set_answering(False)

    def _answer_failed(self, turn: Turn, prompt: str, error: WorkbenchError) -> None:
        lost = error.kind == "session-lost"
        self._end_turn(turn, foot=LOST_ANSWER if lost else "cut off: it failed")
        self.show_error(error)
        field = self.query_one(Prompt)
        if not turn.text and not field.text:
            # Nothing was answered, so the words go back to where they can be sent again.
            field.text = prompt

    def _end_turn(self, turn: Turn, text: str | None = None, foot: str = "") -> None:
        turn.finish(text, foot)
        self.transcript.lay_out()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, TokensGenerated):
            self._tokens, self._progress = event.count, ""
            self.transcript.grow(event.text)
        elif isinstance(event, AnswerStarted):
            self.conversation_id = event.conversation_id or self.conversation_id
            self._progress = ""
        elif isinstance(event, JobProgressed) and event.phase != "decode":
            self._progress = f"{event.phase} {progress_text(event.done, event.total, event.unit)}".strip()
        elif isinstance(event, ConversationOpened):
            self._show_conversation(event.conversation, growing=True)
        self._show_status()

    def _set_answering(self, answering: bool) -> None:
        self.answering = answering
        self._tokens, self._progress = 0, ""
        self.refresh_bindings()
        self._show_status()

    # --- One line on what goes on --------------------------------------------------------------------------

    def _show_status(self, refused: bool = False) -> None:
        if not self.is_mounted:
            return
        self.query_one("#chat-status", OneLine).show(self._status(refused))

    def take_notice(self, text: str) -> bool:
        self._notice = text
        self._show_status()
        self.set_timer(NOTICE_SECONDS, lambda: self._end_notice(text))
        return True

    def _end_notice(self, text: str) -> None:
        if self._notice == text:
            self._notice = ""
            self._show_status()

    def _status(self, refused: bool) -> Content:
        state, key = self.session, "bold $accent"
        if self._notice and not refused:
            return Content.styled(self._notice, "$warn")
        if self.answering:
            what = self._progress or (f"answering · {self._tokens:,} tokens" if self._tokens else "answering")
            return Content.assemble((what, "$accent"), ("   escape", key), (" stops", "$muted"))
        lanes = (state.lane("model"), state.lane("children"))
        loading = next((lane for lane in lanes if lane is not None and lane.job == "load_model"), None)
        if loading is not None:
            return Content.assemble((job_text(loading), "$accent"), ("   ctrl+c", key), (" stops", "$muted"))
        if state.connection == LOST:
            lost = ("No session: ", "$bad")
            return Content.assemble(lost, ("ctrl+r", key), (" starts it; what you write stays here.", "$muted"))
        if not state.attached:
            return Content.styled("Starting the session; what you write stays here.", "$muted")
        if state.model is None:
            style = "bold $warn" if refused else "$muted"
            if not state.chosen:
                return Content.assemble(("No model is chosen.  ", style), ("ctrl+o", key), (" chooses one", "$muted"))
            loads = f" loads {state.chosen}"
            return Content.assemble(("No model is loaded.  ", style), ("ctrl+l", key), (loads, "$muted"))
        if not state.chosen_is_loaded and state.chosen:
            return self._other_model(state.model, refused)
        limit = state.model.context_length
        if not limit:
            return Content.styled(f"{state.model.name} is ready.", "$muted")
        if self._used_tokens and self._counted_by != state.model.name:
            return Content.styled(f"{limit:,} tokens of context, counted with the next message", "$muted")
        share = self._used_tokens / limit
        style = "$bad" if share > 0.95 else "$warn" if share > 0.8 else "$muted"
        return Content.styled(f"{self._used_tokens:,} of {limit:,} tokens of context used", style)

    def _other_model(self, model: ModelStatus, refused: bool) -> Content:
        key, chosen = "bold $accent", short_name(self.session.chosen)
        loads = Content.assemble(("ctrl+l", key), (f" loads {chosen}", "$muted"))
        if self._agreed == model and not refused:
            return Content.assemble((f"{short_name(model.name)} answers; ", "$muted"), loads)
        style = "bold $warn" if refused else "$muted"
        again = Content.assemble(("enter", key), (" again answers with it, " if refused else " asks it, ", "$muted"))
        return Content.assemble((f"{short_name(model.name)} is loaded now; ", style), again, loads)

    # --- Actions -------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "stop":
            return self.answering
        return super().check_action(action, parameters)

    def action_stop(self) -> None:
        if self.link.client is not None:
            self.link.client.send(Cancel())
            self._progress = "stopping"
            self._show_status()

    def action_edit(self) -> None:
        self.query_one(Prompt).focus()

    def action_new(self) -> None:
        if self.answering:
            self.post_message(self.Said("The model is still answering; escape stops it."))
            return
        self.conversation_id, self._used_tokens, self._counted_by = "", 0, ""
        self._begun_anew = True
        self.show_error(None)
        self._show_opening()
        self._show_status()
        self.action_edit()

    @work(group="chat-conversations", exclusive=True, exit_on_error=False)
    async def action_conversations(self) -> None:
        """Choose one of the conversations kept, and show it."""
        from workbench.ui.screens.conversations import ConversationsScreen

        screen = ConversationsScreen(self.link, self.conversation_id, self._forget)
        wanted = await self.app.push_screen_wait(screen)
        if not wanted:
            return
        if self.answering:
            self.post_message(self.Said("The model is still answering; escape stops it."))
            return
        try:
            read = await self.link.ask(OpenConversation(wanted), ConversationRead)
        except JobCancelled:
            return
        except WorkbenchError as error:
            self.show_error(error)
        else:
            self.show_error(None)
            self._begun_anew = False
            self._show_conversation(read.conversation)
            self.action_edit()

    def _forget(self, conversation_id: str) -> None:
        if conversation_id == self.conversation_id and not self.answering:
            self.action_new()

    def action_copy(self) -> None:
        answers = [turn.text for turn in self.transcript.turns if turn.role == "assistant" and turn.text]
        if answers:
            self.post_message(self.CopyRequested(answers[-1], "the answer"))


def figures_of(message: dict[str, Any]) -> dict[str, Any]:
    """What an answer took, as it is kept with it."""
    figures = message.get("figures") or message.get("result")
    return figures if isinstance(figures, dict) else {}


def settings_of(message: dict[str, Any]) -> dict[str, Any]:
    """What made an answer, as it is kept with it."""
    settings = message.get("settings")
    return settings if isinstance(settings, dict) else {}


def variant_words(settings: dict[str, Any]) -> str:
    """``smollm2-135m-instruct nf4``, of what is known."""
    name = short_name(str(settings.get("model") or ""))
    quant, dtype = str(settings.get("quant") or ""), str(settings.get("dtype") or "")
    precision = SHORT_DTYPES.get(dtype, dtype) if quant in ("", "none") else quant
    return f"{name} {precision}".strip()


def context_used(figures: dict[str, Any]) -> int:
    """Tokens of a conversation after an answer: its prompt, which holds all before it, and the answer itself."""
    return int(figures.get("prompt_tokens") or 0) + int(figures.get("new_tokens") or 0)


def _turn(message: dict[str, Any]) -> Turn:
    role = str(message.get("role") or "assistant")
    text = str(message.get("text") or message.get("content") or "")
    if role != "assistant":
        return Turn(role, text)
    figures = figures_of(message)
    foot = figures_line(figures, variant_words(settings_of(message)))
    if figures.get("error"):
        foot = f"failed: {figures['error']}"
    elif message.get("state") == "partial":
        foot = LOST_ANSWER
    return Turn(role, text, foot=foot)


def figures_line(result: dict[str, Any], variant: str = "") -> str:
    """``smollm2 nf4 · 143 in (120 reused) · 87 out · first 0.21 s · 41 tok/s · KV 17 MiB``, of what is known."""
    memory = result.get("memory") or {}
    reused = f" ({result['reused_tokens']:,} reused)" if result.get("reused_tokens") else ""
    known: list[tuple[Any, Callable[[], str]]] = [
        (variant, lambda: variant),
        (result.get("prompt_tokens"), lambda: f"{result['prompt_tokens']:,} in{reused}"),
        (result.get("new_tokens"), lambda: f"{result['new_tokens']:,} out"),
        (result.get("time_to_first_token_seconds"), lambda: f"first {result['time_to_first_token_seconds']:.2f} s"),
        (result.get("tokens_per_second"), lambda: f"{result['tokens_per_second']:.1f} tok/s"),
        (memory.get("kv_cache_bytes"), lambda: f"KV {format_bytes(memory['kv_cache_bytes'])}"),
    ]
    limit = f"stopped at the limit of {result.get('new_tokens') or 0:,} tokens"
    ends = {"length": limit, "cancelled": "stopped", "failed": "failed"}
    known.append((ends.get(str(result.get("finish_reason"))), lambda: ends[str(result["finish_reason"])]))
    return " · ".join(word() for value, word in known if value)


BENCH = ChatBench
