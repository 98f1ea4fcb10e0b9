"""Answers of the loaded model, streamed and saved as they grow."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Union

from workbench.chat.answers import GenerationFailed, TokenStep
from workbench.chat.conversations import Message
from workbench.chat.options import SamplingOptions, effective_options
from workbench.chat.template import Prompt, find_template, make_prompt
from workbench.errors import WorkbenchError
from workbench.session.handlers.answer_record import (
    AnswerStream,
    Record,
    being_answered,
    figures_of,
    without_oldest_exchange,
)
from workbench.session.handlers.chat import answers_of, conversation_dict, store_id
from workbench.session.handlers.models import load_slot, make_ready
from workbench.session.handlers.remote_answers import answer_remotely
from workbench.session.handlers.shortage import with_suggestions
from workbench.session.protocol import (
    AnswerStarted,
    ConversationOpened,
    FollowConversation,
    Followed,
    Generate,
    Generated,
    Reply,
    Request,
)
from workbench.session.runtime import LATER, Context, Handler, LoadedSlot, Stage, quick

OVERFLOWS = ("refuse", "drop-oldest")
LEAST_ROOM = 256
"""Tokens kept free for the answer when earlier messages are dropped, or fewer if fewer are asked for."""


def _make_ready(request: Generate, context: Context) -> Union[Generated, Path, None]:
    """Bring the model's weights to this box; the answer itself where a server gives it, which needs no model lane."""
    if not request.prompt and not request.again:
        raise WorkbenchError("bad-prompt", "The prompt is empty.", "Type something.")
    if request.again and not (request.save and request.conversation_id):
        raise WorkbenchError("bad-option", "Only an answer of a conversation that is kept can be given again.")
    if request.overflow not in OVERFLOWS:
        raise WorkbenchError("bad-option", f"overflow is {request.overflow!r:.40}.", f"Known: {', '.join(OVERFLOWS)}.")
    effective_options(request.sampling, None).validate()
    if request.remote is not None:
        return answer_remotely(request, request.remote, context)
    return make_ready(request.load, context) if request.load is not None else None


def _generate(request: Generate, context: Context) -> Generated:
    runtime = context.runtime
    if request.load is not None:
        load_slot(request.load, context)
    slot = runtime.require_slot()
    options = effective_options(request.sampling, slot.loaded.model.generation_config)
    options.validate()
    status = slot.status
    made = {"model": status.name, "quant": status.quant, "dtype": status.dtype}

    def open_record() -> Record:
        return Record(request, made, answers_of(runtime), partial(_tokens_of, slot))

    try:
        with being_answered(request, context, open_record) as record:
            return _answer(request, options, record, slot, context)
    finally:
        runtime.touch_model()


def _tokens_of(slot: LoadedSlot, answer: Message, recorded: Any) -> list[dict[str, Any]]:
    """The tokens of an answer without its end token; those of a text that another program wrote are made anew."""
    if isinstance(recorded, list) and all(token["id"] >= 0 for token in recorded):
        tokens = list(recorded)
    else:
        ids = slot.tokenizer.encode(answer.text, add_special_tokens=False)
        tokens = [asdict(TokenStep(token_id, "", None, given=True)) for token_id in ids]
    while tokens and tokens[-1]["id"] in slot.generator.end_ids:
        tokens.pop()
    return tokens


def _answer(
    request: Generate, options: SamplingOptions, record: Record, slot: LoadedSlot, context: Context
) -> Generated:
    stream = AnswerStream(context, record, options.max_new_tokens)
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
        stream.finish(error.partial.text)
        record.finish("failed", {**figures_of(error.partial), "error": error.message})
        made = len(error.partial.ids)
        tokens = (error.partial.prompt_tokens or 0) + max(made, options.max_new_tokens)
        raise with_suggestions(
            error, slot.status.name, slot.loaded.facts, tokens, "shorten the conversation", context
        ) from None
    except WorkbenchError as error:
        record.finish("failed", {"error": error.message})
        raise
    stream.finish(result.text)
    record.finish("cancelled" if result.finish_reason == "cancelled" else "complete", figures_of(result))
    context.runtime.tokens_per_second = result.tokens_per_second or context.runtime.tokens_per_second
    note = "; ".join(part for part in (result.note, prompt.note, record.note) if part)
    status = slot.status
    about = {"model": status.name, "quant": status.quant, "dtype": status.dtype, "device": status.device, "note": note}
    return Generated(record.conversation_id, {**asdict(result), **about, "message_id": record.message_id})


def _fitting_prompt(
    request: Generate, options: SamplingOptions, record: Record, slot: LoadedSlot, context: Context
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
        shorter = without_oldest_exchange(history)
        if shorter is None:
            break
        dropped += len(history) - len(shorter)
        history = shorter
    if dropped:
        note = f"the {dropped} oldest messages were left out, so that the conversation fits the context"
        prompt = replace(prompt, note="; ".join(part for part in (prompt.note, note) if part))
    return prompt, ids


def _follow(request: FollowConversation, context: Context) -> Reply:
    answers = answers_of(context.runtime)
    with answers.lock:
        conversation = conversation_dict(answers.opened().load(store_id(request.conversation_id)))
        live = answers.live_of(request.conversation_id)
        if live is None:
            return Followed(conversation)
        # The store lags a fraction of a second behind; what has been sent is what the coming events continue.
        messages = list(conversation["messages"])
        messages[-1] = {**messages[-1], "text": live.sent_text}
        context.emit(ConversationOpened({**conversation, "messages": messages}))
        live.followers.append(context)
        return LATER


HANDLERS: dict[type[Request], Handler] = {
    Generate: Handler(
        (Stage("children", _make_ready), Stage("model", _generate)), outlives_client=lambda request: request.save
    ),
    FollowConversation: quick(_follow),
}
