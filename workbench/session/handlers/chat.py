"""The conversations kept, their branches, presets and exports."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Optional

from workbench.chat.conversations import Conversation, Preset
from workbench.chat.export import to_jsonl, to_markdown
from workbench.chat.store import NOTHING, ConversationStore
from workbench.errors import WorkbenchError
from workbench.session.lanes import LaneJob
from workbench.session.protocol import (
    CancelNoted,
    ConversationDeleted,
    ConversationRead,
    ConversationsExported,
    ConversationsFound,
    ConversationsListed,
    DeleteConversation,
    DeletePreset,
    ExportConversations,
    ListConversations,
    ListPresets,
    OpenConversation,
    PresetsListed,
    RenameConversation,
    Request,
    SavePreset,
    SearchConversations,
    ShowMessage,
    StopAnswer,
)
from workbench.session.runtime import Context, Handler, Runtime, quick

_OPENING = threading.Lock()


@dataclass(eq=False)
class LiveAnswer:
    """An answer being written, and who follows it."""

    conversation_id: str = ""
    """Empty while it is not kept."""
    shown: bool = False
    """Whether its message is in the store already, so that it can be followed."""
    job: Optional[LaneJob] = None
    """Stops it."""
    followers: list[Context] = field(default_factory=list)
    sent_text: str = ""
    """What clients have been sent of it."""


@dataclass
class Answers:
    """The conversation store and the answers being written: one of the loaded model, any number of servers."""

    store: Optional[ConversationStore] = None
    live: list[LiveAnswer] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def begin(self, conversation_id: str, job: LaneJob) -> LiveAnswer:
        """Take a conversation, new if empty, for one answer. Raises WorkbenchError ``busy`` if another has it."""
        with self.lock:
            self.refuse_while_answering(conversation_id)
            live = LiveAnswer(conversation_id, job=job)
            self.live.append(live)
            return live

    def show(self, live: LiveAnswer, conversation_id: str) -> None:
        """The answer's message is in the store now, in the conversation named."""
        with self.lock:
            live.conversation_id, live.shown = conversation_id, bool(conversation_id)

    def end(self, live: LiveAnswer) -> None:
        """The answer has ended."""
        with self.lock:
            self.live.remove(live)

    def live_of(self, conversation_id: str) -> Optional[LiveAnswer]:
        """The answer that can be followed in a conversation."""
        with self.lock:
            return next((live for live in self.live if live.shown and live.conversation_id == conversation_id), None)

    def shown(self) -> str:
        """The conversation whose answer began last; empty when none is kept."""
        with self.lock:
            return next((live.conversation_id for live in reversed(self.live) if live.shown), "")

    def refuse_while_answering(self, conversation_id: str) -> None:
        """Raise WorkbenchError ``busy`` if the conversation is being answered."""
        with self.lock:
            if conversation_id and any(live.conversation_id == conversation_id for live in self.live):
                raise WorkbenchError("busy", "That conversation is being answered.", "Stop the answer first (escape).")

    def opened(self) -> ConversationStore:
        """The store, opened at the first need. Raises WorkbenchError if it cannot be."""
        with self.lock:
            if self.store is None:
                self.store = ConversationStore()
            return self.store


def answers_of(runtime: Runtime) -> Answers:
    """The worker's one `Answers`."""
    with _OPENING:
        answers: Answers = runtime.services.setdefault("answers", Answers())
        return answers


def conversation_dict(conversation: Conversation) -> dict[str, Any]:
    """A conversation as clients see it: ids are strings there."""
    shown = {**asdict(conversation), "id": str(conversation.id)}
    for message in shown["messages"]:
        message["id"] = str(message["id"])
        message["parent"] = "" if message["parent"] is None else str(message["parent"])
        message["siblings"] = [str(item) for item in message["siblings"]]
    return shown


def store_id(given: str, what: str = "conversation") -> int:
    """The number behind an id of a client. Raises WorkbenchError ``unknown-conversation`` or ``unknown-message``."""
    if not given.isdecimal() or len(given) > 18:
        raise WorkbenchError(f"unknown-{what}", f"There is no {what} {given!r:.40}.")
    return int(given)


def history_before(store: ConversationStore, conversation_id: str, after: Optional[str]) -> Conversation:
    """A conversation up to the message that a new one follows; all of the shown branch for None, nothing for ''.

    Raises:
        WorkbenchError: ``unknown-conversation``, ``unknown-message``.
    """
    number = store_id(conversation_id)
    if after:
        return store.load(number, leaf=store_id(after, "message"))
    return store.load(number, leaf=None if after is None else NOTHING)


def _store(context: Context) -> ConversationStore:
    return answers_of(context.runtime).opened()


def _list(request: ListConversations, context: Context) -> ConversationsListed:
    store = _store(context)
    return ConversationsListed([conversation_dict(item) for item in store.conversations(request.limit)], store.notice)


def _read(store: ConversationStore, conversation_id: str) -> ConversationRead:
    return ConversationRead(conversation_dict(store.load(store_id(conversation_id))))


def _open(request: OpenConversation, context: Context) -> ConversationRead:
    return _read(_store(context), request.conversation_id)


def _rename(request: RenameConversation, context: Context) -> ConversationRead:
    store = _store(context)
    store.rename(store_id(request.conversation_id), request.title)
    return _read(store, request.conversation_id)


def _delete(request: DeleteConversation, context: Context) -> ConversationDeleted:
    answers_of(context.runtime).refuse_while_answering(request.conversation_id)
    _store(context).delete(store_id(request.conversation_id))
    return ConversationDeleted(request.conversation_id)


def _show(request: ShowMessage, context: Context) -> ConversationRead:
    answers_of(context.runtime).refuse_while_answering(request.conversation_id)
    conversation, message = store_id(request.conversation_id), store_id(request.message_id, "message")
    return ConversationRead(conversation_dict(_store(context).show_message(conversation, message)))


def _stop(request: StopAnswer, context: Context) -> CancelNoted:
    live = answers_of(context.runtime).live_of(request.conversation_id)
    if live is not None and live.job is not None:
        live.job.cancel()
    return CancelNoted(live is not None)


def _search(request: SearchConversations, context: Context) -> ConversationsFound:
    if not request.words.strip():
        return ConversationsFound([])
    found = [asdict(item) for item in _store(context).search(request.words, request.limit)]
    return ConversationsFound(
        [{**item, "conversation": str(item["conversation"]), "message": str(item["message"])} for item in found]
    )


_FORMS: dict[str, Callable[[list[Conversation]], str]] = {
    "markdown": lambda conversations: "\n".join(map(to_markdown, conversations)),
    "jsonl": to_jsonl,
}


def _export(request: ExportConversations, context: Context) -> ConversationsExported:
    if request.form not in _FORMS:
        raise WorkbenchError("bad-option", f"There is no form {request.form!r:.40}.", f"Known: {', '.join(_FORMS)}.")
    store = _store(context)
    wanted = [store_id(item) for item in request.conversation_ids]
    wanted = wanted or [item.id for item in reversed(store.conversations())]
    conversations = []
    for number in wanted:
        context.job.check()
        conversations.append(store.load(number))
    return ConversationsExported(_FORMS[request.form](conversations), len(conversations))


def _list_presets(request: ListPresets, context: Context) -> PresetsListed:
    return PresetsListed([asdict(item) for item in _store(context).presets(request.kind)])


def _save_preset(request: SavePreset, context: Context) -> PresetsListed:
    store = _store(context)
    store.save_preset(Preset(request.kind, request.name, request.body))
    return PresetsListed([asdict(item) for item in store.presets(request.kind)])


def _delete_preset(request: DeletePreset, context: Context) -> PresetsListed:
    store = _store(context)
    store.delete_preset(request.kind, request.name)
    return PresetsListed([asdict(item) for item in store.presets(request.kind)])


HANDLERS: dict[type[Request], Handler] = {
    ListConversations: quick(_list),
    OpenConversation: quick(_open),
    RenameConversation: quick(_rename),
    DeleteConversation: quick(_delete),
    ShowMessage: quick(_show),
    StopAnswer: quick(_stop),
    SearchConversations: quick(_search),
    ExportConversations: quick(_export),
    ListPresets: quick(_list_presets),
    SavePreset: quick(_save_preset),
    DeletePreset: quick(_delete_preset),
}
