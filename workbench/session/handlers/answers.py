"""Answers of the loaded model, streamed and saved as they grow."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Optional

from workbench.chat.answers import GenerationFailed, GenerationResult, TokenStep
from workbench.chat.conversations import Message
from workbench.chat.options import SamplingOptions, effective_options
from workbench.chat.store import NOTHING, AnswerWriter, ConversationStore
from workbench.chat.template import Prompt, find_template, make_prompt
from workbench.errors import WorkbenchError
from workbench.session.handlers.chat import Answers, answers_of, conversation_dict, history_before, store_id
from workbench.session.handlers.models import load_slot, make_ready
from workbench.session.protocol import (
    AnswerStarted,
    ConversationOpened,
    FollowConversation,
    Followed,
    Generate,
    Generated,
    Reply,
    Request,
    TokensGenerated,
    failure,
)
from workbench.session.runtime import LATER, Context, Handler, LoadedSlot, Stage, quick

EVENT_INTERVAL_SECONDS = 1 / 15
"""A terminal over SSH cannot use more; tokens in between are sent together."""
OVERFLOWS = ("refuse", "drop-oldest")
LEAST_ROOM = 256
"""Tokens kept free for the answer when earlier messages are dropped, or fewer if fewer are asked for."""


class _Record:
    """One exchange on its way into the store. Without a store, or when it fails, the answer goes on all the same."""

    def __init__(self, request: Generate, slot: LoadedSlot, answers: Answers) -> None:
        self.conversation_id = request.conversation_id
        self.note = ""
        self.history: list[dict[str, Any]] = []
        self.given_ids: list[int] = []
        self.message_id = ""
        self._given_tokens: list[dict[str, Any]] = []
        self._tokens: list[dict[str, Any]] = []
        self._store: Optional[ConversationStore] = None
        self._writer: Optional[AnswerWriter] = None
        self._stored_characters = 0
        """How much of the answer is in the store already: it comes first once more from the generator."""
        if request.again:
            self._open_again(request, slot, answers)
            return
        if request.save:
            self._open(request, slot, answers)
        if not self.history and request.system:
            self.history.append({"role": "system", "content": request.system})
        self.history.append({"role": "user", "content": request.prompt})

    def _open(self, request: Generate, slot: LoadedSlot, answers: Answers) -> None:
        try:
            store = self._store = answers.opened()
            if request.conversation_id:
                conversation = history_before(store, request.conversation_id, request.after)
            else:
                conversation = store.create(model=slot.status.name)
            if not conversation.messages and request.system:
                store.add_message(conversation.id, "system", request.system, first=True)
                conversation = store.load(conversation.id)
            self.conversation_id = str(conversation.id)
            self.history = _spoken(conversation.messages)
            parent = conversation.messages[-1].id if conversation.messages else None
            asked = store.add_message(conversation.id, "user", request.prompt, parent, first=parent is None)
            self._begin(store.write_answer(conversation.id, asked.id, _made_with(request, slot)))
            self.note = store.notice
        except WorkbenchError as error:
            if error.kind in ("unknown-conversation", "unknown-message"):
                raise
            self._unsaved(error)

    def _open_again(self, request: Generate, slot: LoadedSlot, answers: Answers) -> None:
        """An answer given once more, from some token on, or written on."""
        store = self._store = answers.opened()
        number, answer = store.message(store_id(request.again, "message"))
        if str(number) != request.conversation_id or answer.role != "assistant":
            raise WorkbenchError("unknown-message", f"Conversation {request.conversation_id} has no such answer.")
        before = store.load(number, leaf=NOTHING if answer.parent is None else answer.parent)
        self.history = _spoken(before.messages)
        self._keep(request, answer, store, slot)
        if request.extend:
            self._stored_characters = len(answer.text)
            self._begin(store.extend_answer(answer.id))
        else:
            made = _made_with(request, slot)
            self._begin(store.write_answer(number, answer.parent, made))

    def _keep(self, request: Generate, answer: Message, store: ConversationStore, slot: LoadedSlot) -> None:
        """The tokens of the earlier answer that this one begins with."""
        known = store.tokens(answer.id)
        if not isinstance(known, list):
            ids = slot.tokenizer.encode(answer.text, add_special_tokens=False)
            known = [asdict(TokenStep(token_id, "", None, given=True)) for token_id in ids]
        while known and known[-1]["id"] in slot.generator.end_ids:
            known.pop()
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
        if self._writer is not None and text:
            try:
                self._writer.append(text)
            except WorkbenchError as error:
                self.note = f"Not saved yet: {error.message}"  # the writer keeps the text and tries again

    def finish(self, state: str, figures: dict[str, Any]) -> None:
        """Write the end of the answer."""
        if self._writer is None:
            return
        try:
            self._writer.finish(state, figures)
            if self._store is not None and self._tokens:
                self._store.save_tokens(self._writer.message.id, self._tokens)
        except WorkbenchError as error:
            self._unsaved(error)

    def _unsaved(self, error: WorkbenchError) -> None:
        self.note = f"Not saved: {error.message}"
        self._writer = None


def _spoken(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    return [{"role": message.role, "content": message.text} for message in messages]


def _made_with(request: Generate, slot: LoadedSlot) -> dict[str, Any]:
    status = slot.status
    made = {"model": status.name, "quant": status.quant, "dtype": status.dtype, "sampling": request.sampling}
    return {**made, "raw": True} if request.raw else made


class _Stream:
    """Gathers tokens into events and sends them to the client that asked and to those that follow."""

    def __init__(self, context: Context, answers: Answers, record: _Record, limit: int) -> None:
        self._context = context
        self._answers = answers
        self._record = record
        self._limit = limit
        self._text = ""
        self._count = 0
        self._sent_at = 0.0

    def take(self, step: TokenStep) -> None:
        """One token; called on the model lane."""
        self._text += step.text
        self._record.take(step)
        if step.given:
            return
        self._count += 1
        self._context.job.progress("decode", self._count, self._limit, "tokens")
        if self._text and time.monotonic() - self._sent_at >= EVENT_INTERVAL_SECONDS:
            self.send()

    def send(self) -> None:
        """Send what has gathered."""
        if not self._text:
            return
        event = TokensGenerated(self._text, self._count, self._record.conversation_id)
        with self._answers.lock:
            self._answers.sent_text += self._text
            self._context.emit(event)
            for follower in self._answers.followers:
                follower.emit(event)
        self._text, self._sent_at = "", time.monotonic()


def _make_ready(request: Generate, context: Context) -> Optional[Path]:
    if not request.prompt and not request.again:
        raise WorkbenchError("bad-prompt", "The prompt is empty.", "Type something.")
    if request.again and not (request.save and request.conversation_id):
        raise WorkbenchError("bad-option", "Only an answer of a conversation that is kept can be given again.")
    if request.overflow not in OVERFLOWS:
        raise WorkbenchError("bad-option", f"overflow is {request.overflow!r:.40}.", f"Known: {', '.join(OVERFLOWS)}.")
    return make_ready(request.load, context) if request.load is not None else None


def _generate(request: Generate, context: Context) -> Generated:
    runtime = context.runtime
    if request.load is not None:
        load_slot(request.load, context)
    slot = runtime.require_slot()
    options = effective_options(request.sampling, slot.loaded.model.generation_config)
    options.validate()
    answers = answers_of(runtime)
    answers.sent_text = ""
    record = _Record(request, slot, answers)
    runtime.conversation_id = record.conversation_id
    runtime.changed()
    try:
        return _answer(request, options, record, slot, context)
    finally:
        runtime.conversation_id = ""
        runtime.touch_model()
        _end_following(answers, record.conversation_id)
        runtime.changed()


def _answer(
    request: Generate, options: SamplingOptions, record: _Record, slot: LoadedSlot, context: Context
) -> Generated:
    stream = _Stream(context, answers_of(context.runtime), record, options.max_new_tokens)
    try:
        prompt, ids = _fitting_prompt(request, options, record, slot, context)
        context.emit(AnswerStarted(record.conversation_id, len(ids), prompt.note or record.note))
        # What an earlier answer left in the cache changes the rounding, and with it greedy text: only the turns of one
        # conversation share it, so that the same question asked anew has the same answer.
        fresh = not request.conversation_id
        result = slot.generator.generate(
            ids,
            options,
            context.job,
            stream.take,
            alternatives=request.alternatives,
            fresh=fresh,
            given_ids=record.given_ids,
        )
    except GenerationFailed as error:
        stream.send()
        record.finish("failed", {**_figures(error.partial), "error": error.message})
        raise
    except WorkbenchError as error:
        record.finish("failed", {"error": error.message})
        raise
    stream.send()
    record.finish("cancelled" if result.finish_reason == "cancelled" else "complete", _figures(result))
    context.runtime.tokens_per_second = result.tokens_per_second or context.runtime.tokens_per_second
    note = "; ".join(part for part in (result.note, prompt.note, record.note) if part)
    status = slot.status
    about = {"model": status.name, "quant": status.quant, "dtype": status.dtype, "device": status.device, "note": note}
    return Generated(record.conversation_id, {**asdict(result), **about, "message_id": record.message_id})


def _fitting_prompt(
    request: Generate, options: SamplingOptions, record: _Record, slot: LoadedSlot, context: Context
) -> tuple[Prompt, list[int]]:
    """The prompt and its tokens; earlier exchanges are left out until it fits, if the request says so."""
    if request.raw:
        prompt = Prompt("".join(message["content"] for message in record.history[-1:]), add_special_tokens=True)
        return prompt, slot.tokenizer.encode(prompt.text, add_special_tokens=True)
    template = find_template(Path(slot.status.directory))
    history, dropped = list(record.history), 0
    length = slot.generator.context_length
    room = min(LEAST_ROOM, options.max_new_tokens) + len(record.given_ids)
    while True:
        prompt = make_prompt(history, template, context.job)
        ids = slot.tokenizer.encode(prompt.text, add_special_tokens=prompt.add_special_tokens)
        if request.overflow == "refuse" or length is None or len(ids) + room <= length:
            break
        shorter = _without_oldest_exchange(history)
        if shorter is None:
            break
        dropped += len(history) - len(shorter)
        history = shorter
    if dropped:
        note = f"the {dropped} oldest messages were left out, so that the conversation fits the context"
        prompt = replace(prompt, note="; ".join(part for part in (prompt.note, note) if part))
    return prompt, ids


def _without_oldest_exchange(history: list[dict[str, Any]]) -> Optional[list[dict[str, Any]]]:
    """The history without its first user message and what answers it; None if only the last one is left."""
    asked = [index for index, message in enumerate(history) if message["role"] == "user"]
    return None if len(asked) < 2 else history[: asked[0]] + history[asked[1] :]


def _figures(result: GenerationResult) -> dict[str, Any]:
    return {key: value for key, value in asdict(result).items() if key not in ("text", "ids")}


def _follow(request: FollowConversation, context: Context) -> Reply:
    answers = answers_of(context.runtime)
    with answers.lock:
        conversation = conversation_dict(answers.opened().load(store_id(request.conversation_id)))
        if context.runtime.conversation_id != request.conversation_id:
            return Followed(conversation)
        # The store lags a fraction of a second behind; what has been sent is what the coming events continue.
        messages = list(conversation["messages"])
        messages[-1] = {**messages[-1], "text": answers.sent_text}
        context.emit(ConversationOpened({**conversation, "messages": messages}))
        answers.followers.append(context)
        return LATER


def _end_following(answers: Answers, conversation_id: str) -> None:
    with answers.lock:
        followers, answers.followers = answers.followers, []
    for follower in followers:
        try:
            conversation = answers.opened().load(store_id(conversation_id))
        except WorkbenchError as error:
            follower.finish(failure(error))
        else:
            follower.finish(Followed(conversation_dict(conversation)))


HANDLERS: dict[type[Request], Handler] = {
    Generate: Handler((Stage("children", _make_ready), Stage("model", _generate)), outlives_client=True),
    FollowConversation: quick(_follow),
}
