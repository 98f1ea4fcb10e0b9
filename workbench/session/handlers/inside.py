"""Looking inside an answer: the exact prompt, the tokens with their probabilities, the distribution of one token."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional

from workbench.chat.answer_text import token_text
from workbench.chat.conversations import Message
from workbench.chat.distribution import explain_distribution
from workbench.chat.options import SAMPLING_FIELDS, SamplingOptions, effective_options, stated_options
from workbench.chat.score import score_tokens
from workbench.chat.store import NOTHING, ConversationStore
from workbench.chat.template import Prompt, find_template, make_prompt
from workbench.errors import WorkbenchError
from workbench.session.handlers.chat import answers_of, history_before, store_id
from workbench.session.protocol import (
    AnswerRead,
    DistributionRead,
    PromptRead,
    ReadAnswer,
    ReadDistribution,
    ReadPrompt,
    ReadSampling,
    Request,
    SamplingRead,
)
from workbench.session.runtime import Context, Handler, LoadedSlot, Stage, quick

MAX_COUNT = 100


def _prompt_for(
    request: ReadPrompt | ReadDistribution, slot: LoadedSlot, context: Context
) -> tuple[Prompt, Optional[Message]]:
    """The prompt of the message being written, or that of an answer, and then the answer."""
    answer: Optional[Message] = None
    history: list[dict[str, Any]] = []
    raw = request.raw
    if request.answer:
        messages, answer = _before_answer(answers_of(context.runtime).opened(), request.conversation_id, request.answer)
        raw = raw or bool(answer.settings.get("raw"))
    elif request.conversation_id:
        store = answers_of(context.runtime).opened()
        messages = history_before(store, request.conversation_id, request.after).messages
    else:
        messages = ()
    history = [{"role": message.role, "content": message.text} for message in messages]
    if not history and request.system:
        history.append({"role": "system", "content": request.system})
    if request.prompt and answer is None:
        history.append({"role": "user", "content": request.prompt})
    if raw:
        return Prompt("".join(item["content"] for item in history[-1:]), add_special_tokens=True), answer
    if not history:
        raise WorkbenchError("bad-prompt", "There is no message yet.", "Write one.")
    return make_prompt(history, find_template(Path(slot.status.directory)), context.job), answer


def _before_answer(
    store: ConversationStore, conversation_id: str, message_id: str
) -> tuple[tuple[Message, ...], Message]:
    number, answer = store.message(store_id(message_id, "message"))
    if str(number) != conversation_id or answer.role != "assistant":
        raise WorkbenchError("unknown-message", f"Conversation {conversation_id:.20} has no answer {message_id:.20}.")
    return store.load(number, leaf=NOTHING if answer.parent is None else answer.parent).messages, answer


def _read_prompt(request: ReadPrompt, context: Context) -> PromptRead:
    slot = context.runtime.require_slot()
    prompt, answer = _prompt_for(request, slot, context)
    ids = slot.tokenizer.encode(prompt.text, add_special_tokens=prompt.add_special_tokens)
    special = set(slot.tokenizer.special_tokens().values())
    pieces = [{"id": item, "text": token_text(slot.tokenizer, item), "special": item in special} for item in ids]
    note = prompt.note
    if answer is not None and answer.settings.get("server"):
        theirs = f"A server wrote this answer and does not show its prompt; so {slot.status.name} would be asked"
        note = "; ".join(filter(None, (theirs, note)))
    return PromptRead(prompt.text, len(ids), slot.generator.context_length, pieces, note)


def _read_answer(request: ReadAnswer, context: Context) -> AnswerRead:
    store = answers_of(context.runtime).opened()
    _messages, answer = _before_answer(store, request.conversation_id, request.message_id)
    recorded = store.tokens(answer.id)
    known = isinstance(recorded, list) and bool(recorded)
    if known and (not request.score or any(token["alternatives"] for token in recorded)):
        return AnswerRead(recorded, "recorded")
    if not request.score:
        return AnswerRead([], "", "Its tokens were not recorded; the loaded model can read the answer again.")
    return _score(request, answer, recorded if known else None, context)


def _score(request: ReadAnswer, answer: Message, recorded: Any, context: Context) -> AnswerRead:
    slot = context.runtime.require_slot()
    look = ReadPrompt(conversation_id=request.conversation_id, answer=request.message_id)
    prompt, _answer = _prompt_for(look, slot, context)
    prompt_ids = slot.tokenizer.encode(prompt.text, add_special_tokens=prompt.add_special_tokens)
    made_by = str(answer.settings.get("model") or "")
    same_model = made_by == slot.status.name
    if recorded and same_model:
        ids = [int(token["id"]) for token in recorded]
    else:
        ids = slot.tokenizer.encode(answer.text, add_special_tokens=False)
    if not ids:
        return AnswerRead([], "", "The answer is empty.")
    count = max(1, min(request.alternatives, MAX_COUNT))
    steps = score_tokens(slot.generator, slot.tokenizer, prompt_ids, ids, count, context.job)
    note = "" if same_model else f"Written by {made_by or 'another model'}, read by {slot.status.name}."
    return AnswerRead([asdict(step) for step in steps], "scored", note)


def _read_distribution(request: ReadDistribution, context: Context) -> DistributionRead:
    slot = context.runtime.require_slot()
    options = effective_options(request.sampling, slot.loaded.model.generation_config)
    options.validate()
    prompt, answer = _prompt_for(request, slot, context)
    ids = slot.tokenizer.encode(prompt.text, add_special_tokens=prompt.add_special_tokens)
    if answer is not None:
        ids += _answer_ids(answer, request.position, slot, context)
    logits = slot.generator.next_logits(ids, context.job)
    if not bool(logits.isfinite().any()):
        raise WorkbenchError("non-finite-logits", f"{slot.status.name} gives no finite logits here.")
    count = max(1, min(request.count, MAX_COUNT))
    result = explain_distribution(logits, options, ids, count, lambda item: token_text(slot.tokenizer, item))
    return DistributionRead(asdict(result))


def _answer_ids(answer: Message, position: int, slot: LoadedSlot, context: Context) -> list[int]:
    """The tokens of an answer before a position."""
    recorded = answers_of(context.runtime).opened().tokens(answer.id)
    if isinstance(recorded, list) and recorded and not answer.settings.get("server"):
        ids = [int(token["id"]) for token in recorded]
    else:
        ids = slot.tokenizer.encode(answer.text, add_special_tokens=False)
    if not 0 <= position <= len(ids):
        raise WorkbenchError("bad-option", f"The answer has {len(ids)} tokens; {position} is none of them.")
    return ids[:position]


def _read_sampling(request: ReadSampling, context: Context) -> SamplingRead:
    slot = context.runtime.slot
    stated = stated_options(slot.loaded.model.generation_config) if slot is not None else {}
    defaults = asdict(SamplingOptions())
    return SamplingRead(
        [{**asdict(item), "default": defaults[item.name], "model": stated.get(item.name)} for item in SAMPLING_FIELDS]
    )


HANDLERS: dict[type[Request], Handler] = {
    ReadPrompt: Handler((Stage("children", _read_prompt),)),
    ReadAnswer: Handler((Stage("model", _read_answer),)),
    ReadDistribution: Handler((Stage("model", _read_distribution),)),
    ReadSampling: quick(_read_sampling),
}
