"""An answer on its way into the store and to the clients, whoever writes it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, Optional

from workbench.chat.answers import GenerationResult, TokenStep
from workbench.chat.conversations import Message
from workbench.chat.store import NOTHING, AnswerWriter, ConversationStore
from workbench.errors import WorkbenchError
from workbench.session.handlers.chat import Answers, LiveAnswer, answers_of, conversation_dict, history_before, store_id
from workbench.session.protocol import Followed, Generate, TokensGenerated, failure
from workbench.session.runtime import Context

EVENT_INTERVAL_SECONDS = 1 / 15
"""A terminal over SSH cannot use more; tokens in between are sent together."""

TokensOf = Callable[[Message, Any], list[dict[str, Any]]]
"""The tokens of an answer to begin another with, from the answer and from what was recorded of it."""


@contextlib.contextmanager
def being_answered(request: Generate, context: Context, open_record: Callable[[], Record]) -> Iterator[Record]:
    """The record of an answer, which nobody else adds to or deletes until it has ended.

    Raises:
        WorkbenchError: ``busy`` if the conversation is being answered already.
    """
    runtime, answers = context.runtime, answers_of(context.runtime)
    live = answers.begin(request.conversation_id if request.save else "", context.job)
    record: Optional[Record] = None
    try:
        record = open_record()
        answers.show(live, record.conversation_id)
        runtime.conversation_id = answers.shown()
        runtime.changed()
        record.live = live
        yield record
    finally:
        answers.end(live)
        runtime.conversation_id = answers.shown()
        if record is not None:
            _end_following(answers, live, record.conversation_id)
        runtime.changed()


class Record:
    """One exchange on its way into the store. Without a store, or when it fails, the answer goes on all the same."""

    def __init__(self, request: Generate, made: dict[str, Any], answers: Answers, tokens_of: TokensOf) -> None:
        self.conversation_id = request.conversation_id
        self.note = ""
        self.history: list[dict[str, Any]] = []
        self.given_ids: list[int] = []
        self.message_id = ""
        self.live = LiveAnswer()
        self._made = {**made, "sampling": request.sampling, **({"raw": True} if request.raw else {})}
        self._tokens_of = tokens_of
        self._given_tokens: list[dict[str, Any]] = []
        self._tokens: list[dict[str, Any]] = []
        self._store: Optional[ConversationStore] = None
        self._writer: Optional[AnswerWriter] = None
        self._stored_characters = 0
        """How much of the answer is in the store already: it comes first once more from the generator."""
        if request.again:
            self._open_again(request, answers)
            return
        if request.save:
            self._open(request, answers)
        if not self.history and request.system:
            self.history.append({"role": "system", "content": request.system})
        self.history.append({"role": "user", "content": request.prompt})

    def _open(self, request: Generate, answers: Answers) -> None:
        try:
            store = self._store = answers.opened()
            if request.conversation_id:
                conversation = history_before(store, request.conversation_id, request.after)
            else:
                conversation = store.create(model=str(self._made["model"]))
            if not conversation.messages and request.system:
                store.add_message(conversation.id, "system", request.system, first=True)
                conversation = store.load(conversation.id)
            self.conversation_id = str(conversation.id)
            self.history = _spoken(conversation.messages)
            parent = conversation.messages[-1].id if conversation.messages else None
            asked = store.add_message(conversation.id, "user", request.prompt, parent, first=parent is None)
            self._begin(store.write_answer(conversation.id, asked.id, self._made))
            self.note = store.notice
        except WorkbenchError as error:
            if error.kind in ("unknown-conversation", "unknown-message"):
                raise
            self._unsaved(error)

    def _open_again(self, request: Generate, answers: Answers) -> None:
        """An answer given once more, from some token on, or written on."""
        store = self._store = answers.opened()
        number, answer = store.message(store_id(request.again, "message"))
        if str(number) != request.conversation_id or answer.role != "assistant":
            raise WorkbenchError("unknown-message", f"Conversation {request.conversation_id} has no such answer.")
        before = store.load(number, leaf=NOTHING if answer.parent is None else answer.parent)
        self.history = _spoken(before.messages)
        self._keep(request, answer, store)
        if request.extend:
            self._stored_characters = len(answer.text)
            self._begin(store.extend_answer(answer.id))
        else:
            self._begin(store.write_answer(number, answer.parent, self._made))

    def _keep(self, request: Generate, answer: Message, store: ConversationStore) -> None:
        """The tokens of the earlier answer that this one begins with."""
        known = self._tokens_of(answer, store.tokens(answer.id))
        count = request.keep_tokens if request.keep_tokens is not None else len(known) if request.extend else 0
        if not 0 <= count <= len(known):
            raise WorkbenchError("bad-option", f"The answer has {len(known)} tokens, not {count}.")
        self._given_tokens = known[:count]
        self.given_ids = [int(token["id"]) for token in self._given_tokens]
        if request.then_token is not None:
            self.given_ids.append(request.then_token)

    def _begin(self, writer: AnswerWriter) -> None:
        self._writer = writer
        self.message_id = str(writer.message.id)

    @property
    def given_text(self) -> str:
        """What the tokens say that the answer begins with, as far as they were recorded with their texts."""
        return "".join(str(token["text"]) for token in self._given_tokens)

    def given_steps(self) -> list[TokenStep]:
        """Those tokens, one by one."""
        return [TokenStep(int(token["id"]), str(token["text"]), None, given=True) for token in self._given_tokens]

    def take(self, step: TokenStep) -> None:
        """Add a token to the answer."""
        position = len(self._tokens)
        if step.given and position < len(self._given_tokens):
            # What was recorded of it when it was chosen; its text is what it shows now.
            self._tokens.append({**self._given_tokens[position], "text": step.text})
        else:
            self._tokens.append(asdict(step))
        text = step.text[self._stored_characters :]
        self._stored_characters -= len(step.text) - len(text)
        self.append(text)

    def append(self, text: str) -> None:
        """Write more of the answer's text."""
        if self._writer is not None and text:
            try:
                self._writer.append(text)
            except WorkbenchError as error:
                self.note = f"Not saved yet: {error.message}"  # the writer keeps the text and tries again

    def flush(self) -> None:
        """Write what is held back, for nothing may come for a while."""
        if self._writer is not None:
            with contextlib.suppress(WorkbenchError):
                self._writer.flush()  # it keeps the text and tries again

    def finish(self, state: str, figures: dict[str, Any]) -> None:
        """Write the end of the answer."""
        if self._writer is None:
            return
        try:
            self._writer.finish(state, figures)
            # A server's pieces of text without probabilities are no tokens.
            told = any(token["id"] >= 0 or token["logprob"] is not None for token in self._tokens)
            if self._store is not None and told:
                self._store.save_tokens(self._writer.message.id, self._tokens)
        except WorkbenchError as error:
            self._unsaved(error)

    def _unsaved(self, error: WorkbenchError) -> None:
        self.note = f"Not saved: {error.message}"
        self._writer = None


def _spoken(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    return [{"role": message.role, "content": message.text} for message in messages]


class AnswerStream:
    """Gathers tokens into events and sends them to the client that asked and to those that follow."""

    def __init__(self, context: Context, record: Record, limit: int) -> None:
        self._context = context
        self._lock = answers_of(context.runtime).lock
        self._record = record
        self._limit = limit
        self._text = ""
        self._characters = 0
        self._count = 0
        self._sent_at = 0.0

    def take(self, step: TokenStep) -> None:
        """One token, or one piece of text of a server."""
        self._text += step.text
        self._characters += len(step.text)
        self._record.take(step)
        if step.given:
            return
        self._count += 1
        self._context.job.progress("decode", self._count, self._limit, "tokens")
        if self._text and time.monotonic() - self._sent_at >= EVENT_INTERVAL_SECONDS:
            self.send()

    def pause(self) -> None:
        """Hold nothing back while nothing comes."""
        self._record.flush()
        self.send()

    def finish(self, text: str) -> None:
        """Send the end of the answer's text, which no token brought: what was held back as it was stopped."""
        rest = text[self._characters :]
        self._text += rest
        self._record.append(rest)
        self.send()

    def send(self) -> None:
        """Send what has gathered."""
        if not self._text:
            return
        event = TokensGenerated(self._text, self._count, self._record.conversation_id)
        live = self._record.live
        with self._lock:
            live.sent_text += self._text
            self._context.emit(event)
            for follower in live.followers:
                follower.emit(event)
        self._text, self._sent_at = "", time.monotonic()


def _end_following(answers: Answers, live: LiveAnswer, conversation_id: str) -> None:
    with answers.lock:
        followers, live.followers = live.followers, []
    for follower in followers:
        try:
            conversation = answers.opened().load(store_id(conversation_id))
        except WorkbenchError as error:
            follower.finish(failure(error))
        else:
            follower.finish(Followed(conversation_dict(conversation)))


def without_oldest_exchange(history: list[dict[str, Any]]) -> Optional[list[dict[str, Any]]]:
    """The history without its first user message and what answers it; None if only the last one is left."""
    asked = [index for index, message in enumerate(history) if message["role"] == "user"]
    return None if len(asked) < 2 else history[: asked[0]] + history[asked[1] :]


def figures_of(result: GenerationResult) -> dict[str, Any]:
    """What is kept of a result beside its text and tokens."""
    return {key: value for key, value in asdict(result).items() if key not in ("text", "ids")}
