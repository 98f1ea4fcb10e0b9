"""What an OpenAI-compatible server sends, read tolerantly: server-sent events and their chunks. Stdlib only.

Comments, carriage returns, a missing blank after ``data:``, events of several lines or without a blank line between
them, bare JSON lines, null fields and a missing ``[DONE]`` are all taken; a line that is no JSON is counted and left
out. Form of the chunks: https://platform.openai.com/docs/api-reference/chat-streaming; ``reasoning_content`` is vLLM's,
SGLang's and llama.cpp's name of what Ollama and newer vLLM call ``reasoning``.
"""

from __future__ import annotations

import http.client
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional, Union

from workbench.chat.answer_text import REPLACEMENT
from workbench.chat.answers import Alternative
from workbench.chat.remote_http import Exchange, error_message, not_openai
from workbench.errors import WorkbenchError
from workbench.text import one_line
from workbench.tokens.byte_level import readable

LINE_BYTES = 4 * 2**20
_WHOLE_BYTES = 32 * 2**20
_OTHER_FIELDS = ("", "id", "retry")
"""A comment has no field name; ``error`` is llama.cpp's. https://html.spec.whatwg.org/multipage/server-sent-events.html"""
UNKNOWN_ID = -1
"""Id of a token whose server tells its text only."""


@dataclass(frozen=True)
class ToldToken:
    """One token as the server tells it, with the natural logarithm of its probability."""

    id: int
    text: str
    logprob: Optional[float]
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True)
class Chunk:
    """One piece of an answer; what it does not say is empty or None."""

    text: str = ""
    reasoning: str = ""
    tokens: tuple[ToldToken, ...] = ()
    finish_reason: str = ""
    stop_string: str = ""
    """The stop string that ended the answer, where the server names it."""
    tool_calls: bool = False
    prompt_tokens: Optional[int] = None
    new_tokens: Optional[int] = None
    cached_tokens: Optional[int] = None
    model: str = ""


@dataclass(frozen=True)
class Unreadable:
    """A line that is no JSON."""

    line: str


@dataclass(frozen=True)
class Done:
    """The server says that nothing more comes."""


Item = Union[Chunk, Unreadable, Done]


def read_answer(exchange: Exchange, response: http.client.HTTPResponse) -> Iterator[Item]:
    """The pieces of an answer, as they come.

    Raises:
        WorkbenchError: ``not-openai`` for a page, ``server-failed`` for an error inside the stream, and those of
            `workbench.chat.remote_http.explain_failure`.
    """
    packed = str(response.headers.get("Content-Encoding") or "identity")
    if packed.strip().lower() != "identity":
        text = f"{exchange.address.url} sends {one_line(packed, 40)}, though it was asked for plain text."
        raise WorkbenchError("not-openai", text, "Turn compression off in the server, or in the proxy before it.")
    kind = str(response.headers.get("Content-Type") or "").lower()
    if "html" in kind:
        with exchange.explained():
            raise not_openai(exchange.address, response.read(LINE_BYTES))
    if "json" in kind and "ndjson" not in kind and "jsonl" not in kind:
        with exchange.explained():
            body = response.read(_WHOLE_BYTES)
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            raise not_openai(exchange.address, body) from None
        yield _chunk(exchange, value)
        yield Done()
        return
    for item in _events(exchange, response):
        if isinstance(item, dict):
            yield _chunk(exchange, item)
        else:
            yield item
            if isinstance(item, Done):
                return


def _events(
    exchange: Exchange, response: http.client.HTTPResponse
) -> Iterator[Union[dict[str, Any], Unreadable, Done]]:
    held, named = "", ""
    while True:
        with exchange.explained():
            raw = response.readline(LINE_BYTES)
        if len(raw) >= LINE_BYTES:
            size = f"{LINE_BYTES // 2**20} MiB"
            text = f"{exchange.address.url} sends a line of more than {size}."
            raise WorkbenchError("not-openai", text, "Check the port and the path, which usually ends in /v1.")
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        field, _, value = line.partition(":")
        if line.startswith("{"):
            field, value = "data", line
        if field == "event":
            named = value.strip()
        elif field in ("data", "error"):
            value = value[1:] if value.startswith(" ") else value
            if value.strip() == "[DONE]":
                if held:
                    yield Unreadable(held)
                yield Done()
                return
            # A value that is JSON by itself is an event by itself, so that a missing blank line does no harm.
            for candidate in (value, f"{held}\n{value}") if held else (value,):
                parsed = _object(candidate)
                if parsed is not None:
                    if held and candidate == value:
                        yield Unreadable(held)
                    held = ""
                    yield {"error": parsed} if "error" in (field, named) else parsed
                    break
            else:
                held = f"{held}\n{value}" if held else value
        elif not line:
            if held:
                yield Unreadable(held)
            held, named = "", ""
        elif field not in _OTHER_FIELDS:
            yield Unreadable(line)
        if not raw:
            return


def _object(text: str) -> Optional[dict[str, Any]]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _chunk(exchange: Exchange, value: Any) -> Chunk:
    """A JSON value as a chunk. Raises WorkbenchError where it is an error or something else altogether."""
    if not isinstance(value, dict):
        raise not_openai(exchange.address, json.dumps(value)[:500].encode("ascii"))
    if value.get("error") or value.get("object") == "error":
        said = one_line(exchange.hidden(error_message(value) or json.dumps(value)), 300)
        text = f"{exchange.address.url} gave up: {said}"
        raise WorkbenchError("server-failed", text, "See the server's own log.")
    choices = value.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    usage = value.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    said_by = first.get("delta") or first.get("message")
    said_by = said_by if isinstance(said_by, dict) else {}
    stop = first.get("stop_reason")
    return Chunk(
        text=_text(said_by.get("content")) or _text(first.get("text")),
        reasoning=_text(said_by.get("reasoning_content")) or _text(said_by.get("reasoning")),
        tokens=_tokens(first.get("logprobs")),
        finish_reason=_text(first.get("finish_reason")),
        stop_string=stop if isinstance(stop, str) else "",
        tool_calls=bool(said_by.get("tool_calls")),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        new_tokens=_count(usage.get("completion_tokens")),
        cached_tokens=_count(details.get("cached_tokens")) if isinstance(details, dict) else None,
        model=_text(value.get("model")),
    )


def _text(value: Any) -> str:
    if isinstance(value, list):  # parts, as some gateways pass them on
        return "".join(_text(part.get("text")) for part in value if isinstance(part, dict))
    return value if isinstance(value, str) else ""


def _count(value: Any) -> Optional[int]:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def _tokens(logprobs: Any) -> tuple[ToldToken, ...]:
    """Tokens with their probabilities, of a chat's form or of a completion's."""
    if not isinstance(logprobs, dict):
        return ()
    content = logprobs.get("content")
    if isinstance(content, list):
        return tuple(_told(item) for item in content if isinstance(item, dict))
    texts, values, tops = (logprobs.get(key) for key in ("tokens", "token_logprobs", "top_logprobs"))
    if not isinstance(texts, list) or not isinstance(values, list):
        return ()
    rows = tops if isinstance(tops, list) else []
    found = []
    for index, (text, value) in enumerate(zip(texts, values)):
        row = rows[index] if index < len(rows) and isinstance(rows[index], dict) else {}
        others = ((UNKNOWN_ID, _text(key), _logprob(item)) for key, item in row.items())
        found.append(ToldToken(UNKNOWN_ID, _text(text), _logprob(value), _ordered(others)))
    return tuple(found)


def _told(item: dict[str, Any]) -> ToldToken:
    listed = item.get("top_logprobs")
    others = [other for other in listed if isinstance(other, dict)] if isinstance(listed, list) else []
    alternatives = _ordered((_id(other), _token_text(other), _logprob(other.get("logprob"))) for other in others)
    return ToldToken(_id(item), _token_text(item), _logprob(item.get("logprob")), alternatives)


def _ordered(found: Iterator[tuple[int, str, Optional[float]]]) -> tuple[Alternative, ...]:
    known = [Alternative(number, text, logprob) for number, text, logprob in found if logprob is not None]
    return tuple(sorted(known, key=lambda item: -item.logprob))


def _id(item: dict[str, Any]) -> int:
    number = _count(item.get("id"))  # llama.cpp tells it
    return UNKNOWN_ID if number is None else number


def _token_text(item: dict[str, Any]) -> str:
    text = _text(item.get("token"))
    if text and REPLACEMENT not in text:
        return text
    values = item.get("bytes")
    if isinstance(values, list) and values and all(isinstance(byte, int) and 0 <= byte < 256 for byte in values):
        return readable(bytes(values))
    return text


def _logprob(value: Any) -> Optional[float]:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return min(0.0, float(value)) if number else None
