"""Answers of a server, kept and streamed as those of the loaded model; they run on the children lane."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from workbench.chat.answers import GenerationFailed, TokenStep
from workbench.chat.conversations import Message
from workbench.chat.options import SamplingOptions, effective_options
from workbench.chat.remote import RemoteAnswerer, RemoteResult
from workbench.chat.remote_servers import Server, choose_model
from workbench.chat.remote_stream import UNKNOWN_ID
from workbench.errors import WorkbenchError
from workbench.session.handlers.answer_record import (
    AnswerStream,
    Record,
    being_answered,
    figures_of,
    without_oldest_exchange,
)
from workbench.session.handlers.chat import answers_of
from workbench.session.handlers.servers import forget_server, server_of
from workbench.session.protocol import AnswerStarted, Generate, Generated, RemoteModel
from workbench.session.runtime import Context

SERVER_GONE = ("no-server", "not-openai", "server-not-found", "server-redirects")


def answer_remotely(request: Generate, remote: RemoteModel, context: Context) -> Generated:
    """Let a server answer.

    Raises:
        WorkbenchError: one line for each thing that a server cannot do or did wrong.
    """
    if request.load is not None:
        raise WorkbenchError("bad-option", "A server answers with its own model.", "Leave out what is to be loaded.")
    if request.then_token is not None or request.keep_tokens is not None:
        text = "A server takes no answer begun by token ids, so none can be forked at a token there."
        raise WorkbenchError("remote-unsupported", text, "Edit the message before it, or answer with a local model.")
    given = {name: value for name, value in request.sampling.items() if value is not None}
    options = effective_options(given, None)
    options.validate()
    server = server_of(remote, context)
    model = choose_model(server, remote.model)
    answerer = RemoteAnswerer(server, model, remote.api_key)
    made = {"model": _name(server, model), "server": server.url}

    def open_record() -> Record:
        return Record(request, made, answers_of(context.runtime), _tokens_of)

    try:
        with being_answered(request, context, open_record) as record:
            return _answer(request, given, options, record, answerer, context)
    except WorkbenchError as error:
        if error.kind in SERVER_GONE:
            forget_server(remote, context)
        raise


def _answer(
    request: Generate,
    given: dict[str, Any],
    options: SamplingOptions,
    record: Record,
    answerer: RemoteAnswerer,
    context: Context,
) -> Generated:
    stream = AnswerStream(context, record, options.max_new_tokens)
    server = answerer.server
    context.emit(AnswerStarted(record.conversation_id, 0, "; ".join(filter(None, (server.note, record.note)))))
    try:
        for step in record.given_steps():
            stream.take(step)
        result, dropped = _fitting_answer(request, given, options, record, answerer, stream, context)
    except GenerationFailed as error:
        stream.send()
        record.finish("failed", {**figures_of(error.partial), "error": error.message})
        raise
    except WorkbenchError as error:
        record.finish("failed", {"error": error.message})
        raise
    stream.send()
    record.finish("cancelled" if result.finish_reason == "cancelled" else "complete", figures_of(result))
    note = "; ".join(part for part in (result.note, dropped, server.note, record.note) if part)
    about = {"model": _name(server, result.model), "quant": "", "dtype": "", "device": "", "note": note}
    text = record.given_text + result.text
    shown = {**asdict(result), "text": text, **about, "message_id": record.message_id}
    return Generated(record.conversation_id, shown)


def _fitting_answer(
    request: Generate,
    given: dict[str, Any],
    options: SamplingOptions,
    record: Record,
    answerer: RemoteAnswerer,
    stream: AnswerStream,
    context: Context,
) -> tuple[RemoteResult, str]:
    """The answer; earlier exchanges are left out until the server takes the rest, if the request says so."""
    history, dropped = list(record.history), 0
    while True:
        messages = [*history, {"role": "assistant", "content": record.given_text}] if request.extend else history
        try:
            result = answerer.answer(
                messages,
                given,
                options,
                stream.take,
                context.job,
                alternatives=request.alternatives,
                raw=request.raw,
                extend=request.extend,
                on_pause=stream.pause,
            )
        except WorkbenchError as error:
            shorter = without_oldest_exchange(history)
            if error.kind != "prompt-too-long" or request.overflow == "refuse" or request.raw or shorter is None:
                raise
            dropped += len(history) - len(shorter)
            history = shorter
            continue
        left_out = f"the {dropped} oldest messages were left out, so that the conversation fits the context"
        return result, left_out if dropped else ""


def _tokens_of(answer: Message, recorded: Any) -> list[dict[str, Any]]:
    """An answer to be gone on with, as the tokens recorded if they make up its text, else as one piece."""
    if isinstance(recorded, list) and "".join(str(token["text"]) for token in recorded) == answer.text:
        return recorded
    return [asdict(TokenStep(UNKNOWN_ID, answer.text, None, given=True))]


def _name(server: Server, model: str) -> str:
    """The model as it is shown and kept: never the name of a local one."""
    return f"{model or 'its model'} at {server.url}"
