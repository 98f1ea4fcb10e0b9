"""Answers of a model behind an OpenAI-compatible server, as those of a local model come. Stdlib only."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Callable, Optional

from workbench.chat.answers import GenerationFailed, GenerationResult, MemoryUse, TokenStep
from workbench.chat.options import SamplingOptions
from workbench.chat.remote_http import Exchange, check_key, parse_address, watched
from workbench.chat.remote_kinds import KINDS, Parameters, parameters
from workbench.chat.remote_servers import Server
from workbench.chat.remote_stream import UNKNOWN_ID, Chunk, Done, Item, ToldToken, Unreadable, read_answer
from workbench.errors import JobCancelled, WorkbenchError
from workbench.job import SILENT, Job
from workbench.text import one_line

MOST_CHARACTERS = 8 * 2**20
"""A server that never ends an answer is cut off here; an answer of 8 Mi characters is none."""
_KEPT_REASONING = 200_000
_ATTEMPTS = 6
_TOO_LONG = re.compile(
    r"context (length|size|window)|maximum context|max_model_len|longer than|too long|too large|exceeds? the"
    r"|must be <=|n_ctx",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class RemoteResult(GenerationResult):
    """An answer of a server; what a server does not tell is None or empty.

    Attributes:
        server: address of its API.
        server_kind: as people call it.
        model: as the server names it.
        reasoning: what the model said to itself before the answer, where the server keeps it apart.
        tokens_told: whether the server counted the tokens; else `new_tokens` counts pieces.
    """

    server: str = ""
    server_kind: str = ""
    model: str = ""
    reasoning: str = ""
    tokens_told: bool = True


@dataclass
class _Run:
    """One answer while it is written."""

    on_token: Callable[[TokenStep], None]
    on_pause: Callable[[], None]
    started: float
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    characters: int = 0
    pieces: int = 0
    with_logprobs: int = 0
    unreadable: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    finish_reason: str = ""
    stopped_by: str = ""
    done: bool = False
    notes: list[str] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)
    """The latest of what chunks say besides text: counts, the model's name, a stop string."""


class RemoteAnswerer:
    """Asks one model of one server.

    Args:
        server: as found.
        model: as the server names it; empty where it has only one and does not say which.
        api_key: for this server; never kept elsewhere.
        idle_seconds: how long the server may send nothing at all; None for the usual limit.
    """

    def __init__(self, server: Server, model: str, api_key: str = "", idle_seconds: Optional[float] = None) -> None:
        self.server = server
        self.model = model
        self._address = parse_address(server.url)
        self._key = check_key(api_key)
        self._idle = {} if idle_seconds is None else {"idle_seconds": idle_seconds}
        self._kind = KINDS[server.kind]

    def answer(
        self,
        messages: list[dict[str, Any]],
        given: dict[str, Any],
        options: SamplingOptions,
        on_token: Callable[[TokenStep], None],
        job: Job = SILENT,
        alternatives: int = 0,
        raw: bool = False,
        extend: bool = False,
        on_pause: Callable[[], None] = lambda: None,
    ) -> RemoteResult:
        """Answer a conversation.

        Args:
            messages: ``role`` and ``content`` of each; with `raw` the last one's content is the whole prompt.
            given: the options that the user gave; the rest is left to the server.
            options: `given` with our defaults, checked.
            on_token: gets every piece of text as it comes, with log-probabilities where the server gives them.
            job: cancels at once, whatever the server does; what has come by then is the answer.
            alternatives: how many alternatives of each token are wanted.
            raw: complete the prompt as it is.
            extend: the last message is an answer to be gone on with.
            on_pause: called, a few times a second, while nothing comes: what was held back can be shown and kept.

        Raises:
            WorkbenchError: before the answer began; ``prompt-too-long`` if the server says so.
            GenerationFailed: after it began, with what was there.
        """
        self._refuse_what_it_cannot(raw, extend)
        asked = parameters(self._kind, given, options, alternatives, raw)
        run = _Run(on_token, on_pause, time.perf_counter())
        if asked.left_out:
            names = ", ".join(name.replace("_", "-") for name in asked.left_out)
            run.notes.append(f"{self.server.title} does not take {names}: not sent")
        body = {"stream": True, **asked.fields, **self._prompt(messages, raw, extend)}
        if self.model:
            body["model"] = self.model
        try:
            self._converse(body, asked, raw, run, job)
        except JobCancelled:
            run.finish_reason = run.stopped_by = "cancelled"
        except WorkbenchError as error:
            if not run.pieces and not run.reasoning:
                raise
            run.finish_reason = run.stopped_by = "failed"
            raise GenerationFailed(error, self._result(run, options)) from None
        self._note_what_was_ignored(run, asked, options)
        return self._result(run, options)

    def _refuse_what_it_cannot(self, raw: bool, extend: bool) -> None:
        title = self.server.title
        if extend and (raw or not self._kind.continues):
            text = f"{title} cannot go on writing an answer."
            raise WorkbenchError("remote-unsupported", text, "Ask for more in a message.")
        if raw and not self._kind.completes:
            text = f"{title} puts its own template around a completion."
            raise WorkbenchError("remote-unsupported", text, "Leave raw mode.")

    @staticmethod
    def _prompt(messages: list[dict[str, Any]], raw: bool, extend: bool) -> dict[str, Any]:
        if raw:
            return {"prompt": "".join(message["content"] for message in messages[-1:])}
        going_on = {"continue_final_message": True, "add_generation_prompt": False} if extend else {}
        return {"messages": messages, **going_on}

    def _converse(self, body: dict[str, Any], asked: Parameters, raw: bool, run: _Run, job: Job) -> None:
        """Send the request, again without what the server refuses, and take what comes."""
        path = "/completions" if raw else "/chat/completions"
        for _attempt in range(_ATTEMPTS):
            try:
                self._take_all(path, body, run, job)
                return
            except WorkbenchError as error:
                if error.kind != "server-refused":
                    raise
                if not self._without_refused(body, asked, error, run):
                    raise self._explained(error) from None
        raise WorkbenchError("server-refused", f"{self.server.url} refuses every form of the request.")

    @staticmethod
    def _without_refused(body: dict[str, Any], asked: Parameters, error: WorkbenchError, run: _Run) -> bool:
        """Take out of the request what the server complains of; False if that cannot be done."""
        named = {name for name in body if re.search(rf"\b{name}\b", f"{error.message} {error.details}")}
        if "max_tokens" in named and "max_completion_tokens" in error.message:
            body["max_completion_tokens"] = body.pop("max_tokens")  # OpenAI's name for it since 2024
            return True
        refused = named & asked.optional
        if "logprobs" in refused or "top_logprobs" in refused:
            refused |= {"logprobs", "top_logprobs"} & body.keys()
        for name in refused:
            del body[name]
        shown = sorted(name.replace("_", " ") for name in refused if name not in ("stream_options", "top_logprobs"))
        if shown:
            run.notes.append(f"the server refuses {', '.join(shown)}")
        return bool(refused)

    def _explained(self, error: WorkbenchError) -> WorkbenchError:
        if not _TOO_LONG.search(error.message):
            return error
        return WorkbenchError(
            "prompt-too-long", error.message, "Shorten it or drop earlier messages, or ask for fewer new tokens."
        )

    def _take_all(self, path: str, body: dict[str, Any], run: _Run, job: Job) -> None:
        exchange = Exchange(self._address, self._key, **self._idle)

        def produce() -> Iterator[Item]:
            yield from read_answer(exchange, exchange.send(path, body))

        def waiting(seconds: float) -> None:
            run.on_pause()
            phase = "stalled" if run.pieces else "waiting"
            job.progress(phase, int(seconds), None, "seconds", self._address.place)

        job.progress("waiting", 0, None, "seconds", self._address.place)
        for item in watched(exchange, produce, job, waiting=waiting):
            if isinstance(item, Chunk):
                self._take(item, run, job)
            elif isinstance(item, Unreadable):
                run.unreadable += 1
            elif isinstance(item, Done):
                run.done = True
            if run.characters > MOST_CHARACTERS:
                run.notes.append(f"cut off after {MOST_CHARACTERS:,} characters, for the server did not end")
                run.finish_reason, run.stopped_by = "length", "max-new-tokens"
                return
        self._check_end(run)

    def _take(self, chunk: Chunk, run: _Run, job: Job) -> None:
        for name in ("prompt_tokens", "new_tokens", "cached_tokens", "model", "stop_string"):
            value = getattr(chunk, name)
            if value not in (None, ""):
                run.last[name] = value
        if chunk.finish_reason:
            run.finish_reason = chunk.finish_reason
        if chunk.tool_calls and "tool_calls" not in run.last:
            run.last["tool_calls"] = True
            run.notes.append("the model wants to call a tool, which is not shown")
        if not (chunk.text or chunk.reasoning or chunk.tokens):
            return
        run.last_at = time.perf_counter()
        run.first_at = run.first_at or run.last_at
        run.characters += len(chunk.text) + len(chunk.reasoning)
        if chunk.reasoning:
            run.reasoning.append(chunk.reasoning)
            job.progress("reasoning", len(run.reasoning), None, "pieces")
        if chunk.text:
            run.text.append(chunk.text)
        # While the model reasons, what probabilities come are those of the reasoning.
        if chunk.text or (chunk.tokens and not chunk.reasoning):
            for step in _steps(chunk.text, chunk.tokens):
                run.pieces += 1
                run.with_logprobs += step.logprob is not None
                run.on_token(step)

    def _check_end(self, run: _Run) -> None:
        """Raise unless the answer ended as answers do."""
        if not (run.finish_reason or run.done):
            if not run.pieces and not run.reasoning and run.unreadable:
                text = f"{self.server.url} answers with lines that are no JSON."
                raise WorkbenchError("not-openai", text, "Check the port and the path, which usually ends in /v1.")
            when = "in the middle of the answer" if run.pieces or run.reasoning else "before it answered"
            text = f"{self.server.url} closed the connection {when}."
            raise WorkbenchError("server-cut", text, "Ask again, and see the server's own log.")
        if run.unreadable:
            lines = "1 line" if run.unreadable == 1 else f"{run.unreadable:,} lines"
            run.notes.append(f"no JSON, left out: {lines} of the server")
        if run.finish_reason in ("content_filter", "abort", "error"):
            run.notes.append(f"the server ended the answer: {run.finish_reason.replace('_', ' ')}")

    def _note_what_was_ignored(self, run: _Run, asked: Parameters, options: SamplingOptions) -> None:
        title = self.server.title
        wanted = any(name in asked.fields for name in ("logprobs", "top_logprobs"))
        refused = any("refuses logprobs" in note for note in run.notes)
        if wanted and run.pieces and not run.with_logprobs and not refused:
            run.notes.append(f"{title} gave no log-probabilities though asked")
        told = run.last.get("new_tokens")
        if told is not None and told > options.max_new_tokens:
            run.notes.append(f"{title} wrote {told:,} tokens, asked for {options.max_new_tokens:,} at most")
        if run.reasoning:
            count = sum(map(len, run.reasoning))
            run.notes.append(f"{count:,} characters of reasoning are kept apart from the answer")

    def _result(self, run: _Run, options: SamplingOptions) -> RemoteResult:
        told = run.last.get("new_tokens")
        count = run.pieces + len(run.reasoning) if told is None else told
        decode_seconds = run.last_at - run.first_at if run.first_at else 0.0
        length = run.finish_reason in ("length", "max_tokens")
        finish = run.finish_reason if run.finish_reason in ("cancelled", "failed") else "length" if length else "stop"
        by = "stop-string" if run.last.get("stop_string") or run.finish_reason == "stop_sequence" else "end-token"
        return RemoteResult(
            text="".join(run.text),
            ids=[],
            finish_reason=finish,
            stopped_by=run.stopped_by or ("max-new-tokens" if length else by),
            prompt_tokens=run.last.get("prompt_tokens"),
            new_tokens=count,
            given_tokens=0,
            reused_tokens=run.last.get("cached_tokens"),
            time_to_first_token_seconds=run.first_at - run.started if run.first_at else 0.0,
            tokens_per_second=(count - 1) / decode_seconds if decode_seconds > 0 and count > 1 else 0.0,
            prefill_seconds=0.0,
            decode_seconds=decode_seconds,
            seed=options.seed,
            greedy=options.is_greedy,
            method="server",
            guessed_tokens=0,
            note="; ".join(run.notes),
            memory=MemoryUse(None, None, None, "server"),
            server=self.server.url,
            server_kind=self.server.title,
            model=self.model or one_line(run.last.get("model", ""), 200),
            reasoning="".join(run.reasoning)[:_KEPT_REASONING],
            tokens_told=told is not None,
        )


def _steps(text: str, tokens: tuple[ToldToken, ...]) -> Iterator[TokenStep]:
    """A piece of text as tokens, whose texts together are that text."""
    if not tokens:
        yield TokenStep(UNKNOWN_ID, text, None)
        return
    for token in tokens[:-1]:
        # A server tells an unfinished character otherwise than the text has it; the last token takes what is left.
        own = token.text if text.startswith(token.text) else ""
        text = text[len(own) :]
        yield TokenStep(token.id, own, token.logprob, None, token.alternatives, alone="" if own else token.text)
    yield TokenStep(tokens[-1].id, text, tokens[-1].logprob, None, tokens[-1].alternatives)
