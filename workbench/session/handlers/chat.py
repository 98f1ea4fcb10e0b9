"""Answers of the loaded model, streamed and saved as they grow; and the conversations kept."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Optional

from workbench.chat.answers import GenerationFailed, GenerationResult, TokenStep
from workbench.chat.conversations import Conversation
from workbench.chat.sampling import SamplingOptions, options_of
from workbench.chat.store import AnswerWriter, ConversationStore
from workbench.chat.template import Prompt, find_template, make_prompt
from workbench.errors import WorkbenchError
from workbench.session.handlers.models import load_slot, make_ready
from workbench.session.protocol import (
    AnswerStarted,
    ConversationDeleted,
    ConversationOpened,
    ConversationRead,
    ConversationsListed,
    DeleteConversation,
    FollowConversation,
    Followed,
    Generate,
    Generated,
    ListConversations,
    OpenConversation,
    RenameConversation,
    Reply,
    Request,
    TokensGenerated,
    failure,
)
from workbench.session.runtime import LATER, Context, Handler, LoadedSlot, Runtime, Stage, quick

EVENT_INTERVAL_SECONDS = 1 / 15
"""A terminal over SSH cannot use more; tokens in between are sent together."""


@dataclass
class _Answers:
    """The conversation store, the answer being written and who follows it."""

    store: Optional[ConversationStore] = None
    followers: list[Context] = field(default_factory=list)
    sent_text: str = ""
    """What clients have been sent of the answer being written."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def opened(self) -> ConversationStore:
        """The store, opened at the first need. Raises WorkbenchError if it cannot be."""
        with self.lock:
            if self.store is None:
                self.store = ConversationStore()
            return self.store


_OPENING = threading.Lock()


def _answers(runtime: Runtime) -> _Answers:
    with _OPENING:
        answers: _Answers = runtime.services.setdefault("answers", _Answers())
        return answers


def conversation_dict(conversation: Conversation) -> dict[str, Any]:
    """A conversation as clients see it: ids are strings there."""
    return {**asdict(conversation), "id": str(conversation.id)}


def _store_id(conversation_id: str) -> int:
    if not conversation_id.isdecimal():
        raise WorkbenchError("unknown-conversation", f"There is no conversation {conversation_id!r:.40}.")
    return int(conversation_id)


class _Record:
    """One exchange on its way into the store. Without a store, or when it fails, the answer goes on all the same."""

    def __init__(self, request: Generate, slot: LoadedSlot, answers: _Answers) -> None:
        self.conversation_id = request.conversation_id
        self.note = ""
        self.history: list[dict[str, Any]] = []
        self._writer: Optional[AnswerWriter] = None
        if request.save:
            self._open(request, slot, answers)
        if not self.history and request.system:
            self.history.append({"role": "system", "content": request.system})
        self.history.append({"role": "user", "content": request.prompt})

    def _open(self, request: Generate, slot: LoadedSlot, answers: _Answers) -> None:
        try:
            store = answers.opened()
            if request.conversation_id:
                conversation = store.load(_store_id(request.conversation_id))
            else:
                conversation = store.create(model=slot.status.name)
                if request.system:
                    store.add_message(conversation.id, "system", request.system)
                    conversation = store.load(conversation.id)
            self.conversation_id = str(conversation.id)
            self.history = [{"role": message.role, "content": message.text} for message in conversation.messages]
            store.add_message(conversation.id, "user", request.prompt)
            status = slot.status
            made = {"model": status.name, "quant": status.quant, "dtype": status.dtype, "sampling": request.sampling}
            self._writer = store.write_answer(conversation.id, settings=made)
            self.note = store.notice
        except WorkbenchError as error:
            if error.kind == "unknown-conversation":
                raise
            self._unsaved(error)

    def append(self, text: str) -> None:
        """Add to the answer."""
        if self._writer is not None and text:
            try:
                self._writer.append(text)
            except WorkbenchError as error:
                self.note = f"Not saved yet: {error.message}"  # the writer keeps the text and tries again

    def finish(self, state: str, figures: dict[str, Any]) -> None:
        """Write the end of the answer."""
        if self._writer is not None:
            try:
                self._writer.finish(state, figures)
            except WorkbenchError as error:
                self._unsaved(error)

    def _unsaved(self, error: WorkbenchError) -> None:
        self.note = f"Not saved: {error.message}"
        self._writer = None


class _Stream:
    """Gathers tokens into events and sends them to the client that asked and to those that follow."""

    def __init__(self, context: Context, answers: _Answers, record: _Record, limit: int) -> None:
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
        self._count += 1
        self._record.append(step.text)
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
    if not request.prompt:
        raise WorkbenchError("bad-prompt", "The prompt is empty.", "Type something.")
    return make_ready(request.load, context) if request.load is not None else None


def _generate(request: Generate, context: Context) -> Generated:
    runtime = context.runtime
    if request.load is not None:
        load_slot(request.load, context)
    slot = runtime.require_slot()
    options = sampling_options(request.sampling, slot.loaded.model.generation_config)
    options.validate()
    answers = _answers(runtime)
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
    stream = _Stream(context, _answers(context.runtime), record, options.max_new_tokens)
    try:
        prompt = _prompt(request, record, slot, context)
        ids = slot.tokenizer.encode(prompt.text, add_special_tokens=prompt.add_special_tokens)
        context.emit(AnswerStarted(record.conversation_id, len(ids), prompt.note or record.note))
        # What an earlier answer left in the cache changes the rounding, and with it greedy text: only the turns of one
        # conversation share it, so that the same question asked anew has the same answer.
        fresh = not request.conversation_id
        result = slot.generator.generate(ids, options, context.job, stream.take, fresh=fresh)
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
    return Generated(record.conversation_id, {**asdict(result), **about})


def sampling_options(given: dict[str, Any], generation_config: Any) -> SamplingOptions:
    """What the request gives, else what the model's own generation config says, else our defaults.

    Raises:
        WorkbenchError: ``bad-option`` for an option that does not exist.
    """
    known = {item.name for item in fields(SamplingOptions)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise WorkbenchError(
            "bad-option", f"There is no sampling option {unknown[0]!r:.60}.", f"Known: {sorted(known)}."
        )
    stated = options_of(generation_config)
    own = {
        item.name: getattr(stated, item.name)
        for item in fields(SamplingOptions)
        if getattr(generation_config, item.name, None) is not None
    }
    own.pop("max_new_tokens", None)
    if getattr(generation_config, "do_sample", None) is False and not given.keys() & {"temperature", "top_p", "top_k"}:
        own["greedy"] = True
    asked = dict(given)
    if isinstance(asked.get("stop"), list):
        asked["stop"] = tuple(asked["stop"])
    return replace(SamplingOptions(), **{**own, **asked})


def _prompt(request: Generate, record: _Record, slot: LoadedSlot, context: Context) -> Prompt:
    if request.raw:
        return Prompt(request.prompt, add_special_tokens=True)
    return make_prompt(record.history, find_template(Path(slot.status.directory)), context.job)


def _figures(result: GenerationResult) -> dict[str, Any]:
    return {key: value for key, value in asdict(result).items() if key not in ("text", "ids")}


def _follow(request: FollowConversation, context: Context) -> Reply:
    answers = _answers(context.runtime)
    with answers.lock:
        conversation = conversation_dict(answers.opened().load(_store_id(request.conversation_id)))
        if context.runtime.conversation_id != request.conversation_id:
            return Followed(conversation)
        # The store lags a fraction of a second behind; what has been sent is what the coming events continue.
        messages = list(conversation["messages"])
        messages[-1] = {**messages[-1], "text": answers.sent_text}
        context.emit(ConversationOpened({**conversation, "messages": messages}))
        answers.followers.append(context)
        return LATER


def _end_following(answers: _Answers, conversation_id: str) -> None:
    with answers.lock:
        followers, answers.followers = answers.followers, []
    for follower in followers:
        try:
            conversation = answers.opened().load(_store_id(conversation_id))
        except WorkbenchError as error:
            follower.finish(failure(error))
        else:
            follower.finish(Followed(conversation_dict(conversation)))


def _list(request: ListConversations, context: Context) -> ConversationsListed:
    store = _answers(context.runtime).opened()
    return ConversationsListed([conversation_dict(item) for item in store.conversations(request.limit)])


def _read(store: ConversationStore, conversation_id: str) -> ConversationRead:
    return ConversationRead(conversation_dict(store.load(_store_id(conversation_id))))


def _open(request: OpenConversation, context: Context) -> ConversationRead:
    return _read(_answers(context.runtime).opened(), request.conversation_id)


def _rename(request: RenameConversation, context: Context) -> ConversationRead:
    store = _answers(context.runtime).opened()
    store.rename(_store_id(request.conversation_id), request.title)
    return _read(store, request.conversation_id)


def _delete(request: DeleteConversation, context: Context) -> ConversationDeleted:
    if context.runtime.conversation_id == request.conversation_id:
        raise WorkbenchError("busy", "That conversation is being answered.", "Stop the answer first (escape).")
    _answers(context.runtime).opened().delete(_store_id(request.conversation_id))
    return ConversationDeleted(request.conversation_id)


HANDLERS: dict[type[Request], Handler] = {
    Generate: Handler((Stage("children", _make_ready), Stage("model", _generate)), outlives_client=True),
    FollowConversation: quick(_follow),
    ListConversations: quick(_list),
    OpenConversation: quick(_open),
    RenameConversation: quick(_rename),
    DeleteConversation: quick(_delete),
}
