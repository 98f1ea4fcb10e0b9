"""A conversation on screen that the model answers: shown, followed, restored, kept through every failure."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.constants import MAX_FPS
from textual.containers import Horizontal
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import (
    AnswerStarted,
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
    OpenConversation,
    StopAnswer,
    TokensGenerated,
)
from workbench.ui.bench import Bench, ErrorLine
from workbench.ui.benches.chat_figures import (
    FAILED_ANSWER,
    LOST_ANSWER,
    context_used,
    figures_line,
    figures_of,
    settings_of,
    turn_of,
    variant_words,
)
from workbench.ui.benches.chat_files import Attachment
from workbench.ui.benches.chat_input import Prompt
from workbench.ui.benches.chat_numbers import estimate_of, numbers_lines
from workbench.ui.benches.chat_status import Asking, Doing, StatusLine, status_line
from workbench.ui.environment import SLOW_FRAMES_PER_SECOND, SSH_FRAMES_PER_SECOND
from workbench.ui.link import SessionLink
from workbench.ui.session_state import SessionState
from workbench.ui.strip_text import progress_text
from workbench.ui.widgets.transcript import Transcript, Turn

NOTICE_SECONDS = 4.0
ALTERNATIVES = 8
"""Recorded for each token, so that every answer can be looked into."""
UNKNOWN = ("unknown-request", "unknown-conversation")
STILL_ANSWERING = "The model is still answering; escape stops it."


def scroll_step(frames_per_second: int) -> int:
    """Lines by which a growing answer scrolls at once: each time the whole pane is sent."""
    if frames_per_second > SSH_FRAMES_PER_SECOND:
        return 1
    return 5 if frames_per_second > SLOW_FRAMES_PER_SECOND else 8


@dataclass(frozen=True)
class Draft:
    """What was typed for a message, to give back if it is not answered."""

    text: str = ""
    files: tuple[Attachment, ...] = ()


class ChatTranscript(Transcript):
    """The conversation, with the keys of a message in the footer; they act on the bench."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("e", "do('change')", "edit"),
        ("r", "do('again')", "again"),
        ("i", "do('inside')", "inside"),
        ("c", "do('go_on')", "continue"),
        ("escape,enter", "leave", "write"),
    ]

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        bench = self.bench
        if action == "do" and bench is not None:
            return bench.check_action(str(parameters[0]), ())
        return not (action == "leave" and bench is not None and bench.doing.answering)

    @property
    def bench(self) -> ConversationBench | None:
        """The bench that it is part of."""
        return next((node for node in self.ancestors if isinstance(node, ConversationBench)), None)

    async def action_do(self, name: str) -> None:
        await self.app.run_action(name, self.bench)

    def action_leave(self) -> None:
        self.post_message(self.EndReached())


class ConversationBench(Bench):
    """The conversation, one line on what goes on, and the message being written."""

    NAME = "chat"
    NEEDS_TORCH = True
    OF_THE_MODEL = True
    TELLS_LOSS = True

    def __init__(self, link: SessionLink) -> None:
        super().__init__(link)
        self.conversation_id = ""
        self.title = ""
        self.asking = Asking()
        self.doing = Doing()
        self._asked: Generate | None = None
        """What is being answered; None where the answer is another client's, or was asked for in an earlier run."""
        self._history_note = ""
        """What happened to a damaged history, one line."""
        self._begun_anew = False
        """Whether the user began a conversation that has no message yet."""
        self._restored = 0
        """The attachment after which the conversation was last restored."""

    def compose(self) -> ComposeResult:
        with Horizontal(id="chat-body"):
            yield ChatTranscript(id="chat-transcript", scroll_step=scroll_step(MAX_FPS))
            yield Static(id="chat-side")
        yield ErrorLine()
        yield StatusLine(id="chat-status")
        yield Prompt(id="chat-input", placeholder="Write a message. enter sends, ctrl+j starts a new line.")

    def first_focus(self) -> Widget:
        return self.query_one(Prompt)

    @property
    def transcript(self) -> Transcript:
        """The conversation on screen."""
        return self.query_one(Transcript)

    @property
    def answering(self) -> bool:
        """Whether an answer is being written."""
        return self.doing.answering

    def bench_shown(self) -> None:
        self.query_one(Prompt).cursor_blink = False
        if not self.transcript.turns:
            self._show_opening()
        self.show_status()

    def session_changed(self, old: SessionState, new: SessionState) -> None:
        if new.attached and not self.answering:
            running = new.status.conversation_id if new.status else ""
            was_running = old.status.conversation_id if old.status and old.attached else ""
            another_answers_here = running != was_running and running == self.conversation_id != ""
            if new.attachments != self._restored or another_answers_here:
                self._restored = new.attachments
                self.restore(running)
        if all(turn.role == "note" for turn in self.transcript.turns):
            self._show_opening()
            if old.model is None and new.model is not None and self.has_focus:
                self.query_one(Prompt).focus()
        self.show_status()

    # --- Showing a conversation ----------------------------------------------------------------------------

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
                self._history_note = listed.note
                if listed.note and not wanted:
                    self._show_opening()
            if wanted and not self.answering:
                read = await self.link.ask(OpenConversation(wanted), ConversationRead)
                self.show_conversation(read.conversation)
        except JobCancelled:
            return
        except WorkbenchError as error:
            # A worker without a history yet is no failure of the chat.
            if error.kind not in UNKNOWN:
                self.show_error(error)

    async def _follow(self, conversation_id: str) -> None:
        self._set_answering(True)
        try:
            followed = await self.link.ask(FollowConversation(conversation_id), Followed, self._on_event)
            self.show_conversation(followed.conversation)
        finally:
            self._set_answering(False)

    def show_conversation(self, conversation: dict[str, Any], growing: bool = False) -> None:
        """Show a conversation that was opened, at its end."""
        self.conversation_id = str(conversation.get("id") or self.conversation_id)
        turns = self._turns_of(conversation)
        system = next((turn.text for turn in turns if turn.role == "system"), "")
        self.asking.system = system if turns else self.asking.system
        for turn in turns:
            if turn.role == "user":
                self.query_one(Prompt).remember(turn.text)
        if growing:
            if not turns or turns[-1].role != "assistant":
                turns.append(Turn("assistant", ""))
            turns[-1].growing = True
            turns[-1].foot = ""
        self.transcript.set_turns(turns)
        self.conversation_changed()
        if not turns:
            self._show_opening()
        self.refresh_bindings()
        self.show_status()
        self.show_side()

    def _turns_of(self, conversation: dict[str, Any]) -> list[Turn]:
        """The messages as turns; what the context holds is counted on the way."""
        self.title = str(conversation.get("title") or "")
        messages = conversation.get("messages") or []
        self.doing.used_tokens, self.doing.counted_by, self.doing.begun = 0, "", bool(messages)
        for message in messages:
            self._count_context(figures_of(message), settings_of(message))
        return [turn_of(message) for message in messages]

    @work(group="chat-side", exclusive=True, exit_on_error=False)
    async def show_side(self) -> None:
        """The last answer in numbers, where the terminal is wide enough to have them beside the conversation."""
        side = self.query_one("#chat-side", Static)
        if not side.display:
            return
        answers = [turn.message for turn in self.transcript.turns if turn.role == "assistant" and turn.message]
        message = answers[-1] if answers else {}
        estimate = await estimate_of(self.link, message, self.session.model)
        lines = numbers_lines(message, self.session.model, estimate, max(20, side.content_size.width))
        side.update(Content("\n").join(lines))

    def on_resize(self) -> None:
        self.call_after_refresh(self.show_side)

    def _count_context(self, figures: dict[str, Any], settings: dict[str, Any]) -> None:
        if used := context_used(figures):
            self.doing.used_tokens, self.doing.counted_by = used, str(settings.get("model") or "")

    def _show_opening(self) -> None:
        words = ["Talk to the model, and see how fast it answers, what it takes and what it was unsure of."]
        if not self.session.chosen:
            words.append("ctrl+o chooses a model; the samples are small and run on any CPU.")
        elif self.session.model is None:
            words.append(f"ctrl+l loads {self.session.chosen}; what is not on this box is fetched first.")
        if self.session.model is None and self.asking.server is None:
            words.append("alt+u lets a model of an OpenAI-compatible server answer instead.")
        if self._history_note:
            words.append(self._history_note)
        if self.is_mounted and [turn.text for turn in self.transcript.turns] != words:
            self.transcript.set_turns([Turn("note", text) for text in words])

    def begin_anew(self) -> None:
        """An empty conversation; the one shown is kept."""
        self.conversation_id, self.title = "", ""
        self.doing.used_tokens, self.doing.counted_by, self.doing.begun = 0, "", False
        self.asking.overflow, self.asking.overflow_asked = "refuse", False
        self._begun_anew = True
        self.show_error(None)
        self._show_opening()
        self.conversation_changed()
        self.refresh_bindings()
        self.show_status()

    async def open(self, conversation_id: str) -> None:
        """Show another conversation."""
        try:
            read = await self.link.ask(OpenConversation(conversation_id), ConversationRead)
        except JobCancelled:
            return
        except WorkbenchError as error:
            self.show_error(error)
        else:
            self.show_error(None)
            self._begun_anew = False
            self.asking.overflow, self.asking.overflow_asked = "refuse", False
            self.show_conversation(read.conversation)

    # --- Answers -------------------------------------------------------------------------------------------

    def request(self, prompt: str, **options: Any) -> Generate:
        """What to ask for, with all that is set: the one place where settings become a request."""
        asking = self.asking
        request = Generate(
            prompt,
            conversation_id=self.conversation_id,
            system=asking.system,
            raw=asking.raw,
            sampling=dict(asking.sampling),
            load=self.session.standing_load if asking.server is None else None,
            alternatives=ALTERNATIVES,
            overflow=asking.overflow,
            remote=asking.server.remote if asking.server is not None else None,
        )
        return replace(request, **options)

    @work(group="chat-answer", exclusive=True, exit_on_error=False)
    async def answer(self, request: Generate, before: Sequence[Turn], draft: Draft, kept: str = "") -> None:
        """Ask for an answer and show it as it grows.

        Args:
            request: what to ask.
            before: the turns that stay; the prompt's own and the answer's are put behind them.
            draft: what to give back if there is no answer.
            kept: text that the answer begins with.
        """
        self.show_error(None)
        self.transcript.mark("")
        turns = [turn for turn in before if turn.role != "note"]
        if request.prompt:
            turns.append(Turn("user", request.prompt))
        turn = Turn("assistant", kept, growing=True, expected=len(kept))
        self.transcript.set_turns([*turns, turn])
        self._asked = request
        self._set_answering(True)
        try:
            reply = await self.link.ask(request, Generated, self._on_event)
        except asyncio.CancelledError:
            self._end_turn(turn, foot="stopped")
            raise
        except JobCancelled:
            self._end_turn(turn, foot="stopped before the answer began" if not turn.text else "stopped")
        except WorkbenchError as error:
            await self._answer_failed(turn, draft, error)
        else:
            self.conversation_id = reply.conversation_id or self.conversation_id
            self._count_context(reply.result, reply.result)
            note = str(reply.result.get("note") or "")
            foot = figures_line(reply.result, variant_words(reply.result)) + (f" · {note}" if note else "")
            self._end_turn(turn, text=str(reply.result.get("text") or turn.text), foot=foot)
            await self._read_again(foot)
        finally:
            self._asked = None
            self._set_answering(False)

    async def _read_again(self, foot: str) -> None:
        """The conversation as it is kept now, with the ids and branches of its messages."""
        try:
            read = await self.link.ask(OpenConversation(self.conversation_id), ConversationRead)
        except (JobCancelled, WorkbenchError):
            return  # what is on screen stays; it was not kept, or the session is gone, and both are told elsewhere
        turns = self._turns_of(read.conversation)
        if turns:
            turns[-1].foot = foot or turns[-1].foot
            self.transcript.update_turns(turns)
            self.show_side()

    async def _answer_failed(self, turn: Turn, draft: Draft, error: WorkbenchError) -> None:
        lost = error.kind == "session-lost"
        self._end_turn(turn, foot=LOST_ANSWER if lost else FAILED_ANSWER if turn.text else "failed")
        self.show_error(error)
        field = self.query_one(Prompt)
        gives_back = not turn.text and not field.text
        if gives_back:
            # Nothing was answered, so the words go back to where they can be sent again.
            field.text, self.asking.files = draft.text, draft.files
            field.move_cursor(field.document.end)
        if self.conversation_id and not lost:
            await self._read_again("")
            if gives_back:
                self.gave_back(draft)

    def gave_back(self, draft: Draft) -> None:
        """The words of a message that failed are in the field again, and the failed one may be on screen."""

    def conversation_changed(self) -> None:
        """Another conversation is on screen."""

    def _end_turn(self, turn: Turn, text: str | None = None, foot: str = "") -> None:
        turn.finish(text, foot)
        self.transcript.lay_out()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, TokensGenerated):
            self.doing.tokens, self.doing.progress = event.count, ""
            self.transcript.grow(event.text)
        elif isinstance(event, AnswerStarted):
            self.conversation_id = event.conversation_id or self.conversation_id
            self.doing.progress = ""
        elif isinstance(event, JobProgressed) and event.phase != "decode":
            self.doing.progress = f"{event.phase} {progress_text(event.done, event.total, event.unit)}".strip()
        elif isinstance(event, ConversationOpened):
            self.show_conversation(event.conversation, growing=True)
        self.show_status()

    def _set_answering(self, answering: bool) -> None:
        self.doing.answering = answering
        self.doing.tokens, self.doing.progress = 0, ""
        self.query_one(Prompt).busy = answering
        self.refresh_bindings()
        self.show_status()

    def action_stop(self) -> None:
        if self._asked is not None:
            self.link.stop(self._asked)
        elif self.link.client is not None:
            self.link.client.send(StopAnswer(self.conversation_id))
        self.doing.progress = "stopping"
        self.show_status()

    # --- One line on what goes on --------------------------------------------------------------------------

    def show_status(self, refused: bool = False) -> None:
        """Say what goes on; with `refused`, why a message was just not sent."""
        if self.is_mounted:
            self.doing.refused = refused
            line = status_line(self.session, self.doing, self.asking.server)
            self.query_one(StatusLine).show_both(line, [] if refused else self.asking.words())

    def take_notice(self, text: str) -> bool:
        self.doing.notice = text
        self.show_status()
        self.set_timer(NOTICE_SECONDS, lambda: self._end_notice(text))
        return True

    def _end_notice(self, text: str) -> None:
        if self.doing.notice == text:
            self.doing.notice = ""
            self.show_status()

    @on(Prompt.Paged)
    def page(self, message: Prompt.Paged) -> None:
        """Scroll the conversation, while the message field keeps the focus."""
        transcript = self.transcript
        step = message.direction * max(1, transcript.size.height - 1)
        transcript.scroll_to(y=transcript.scroll_offset.y + step, animate=False)
