"""A server on loopback that speaks the OpenAI API, or fails to, exactly as a test tells it."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


def chunk(text: str = "", **more: Any) -> bytes:
    """One event of a streamed chat; `more` goes into the choice."""
    delta = {"content": text, **more.pop("delta", {})}
    choice = {"index": 0, "delta": delta, "finish_reason": None, **more}
    return b"data: " + json.dumps({"model": "tiny", "choices": [choice]}, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
END = chunk("", finish_reason="stop") + DONE


@dataclass
class Call:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Answer:
    """What is sent back; `stall` waits there until the client goes or the test ends."""

    body: bytes | list[bytes] = b""
    status: int = 200
    type: str = "text/event-stream"
    headers: dict[str, str] = field(default_factory=dict)
    stall: bool = False
    length: int | None = None
    """The length that is claimed."""


class FakeServer:
    """Answers POST by `answer`, GET by `pages`; keeps every request."""

    def __init__(self, owner: str = "vllm", models: tuple[str, ...] = ("tiny",)) -> None:
        listed = {"object": "list", "data": [{"id": name, "owned_by": owner, "max_model_len": 512} for name in models]}
        self.calls: list[Call] = []
        self.pages: dict[str, Answer] = {"/v1/models": page(listed)}
        self.answer: Answer | Callable[[Call], Answer] = Answer(chunk("Hello") + END)
        self.stalled = threading.Event()
        self.released = threading.Event()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def says(self, *parts: bytes, **more: Any) -> None:
        """Stream these parts to whoever asks next."""
        self.answer = Answer(list(parts), **more)

    def asked(self) -> list[Call]:
        """The requests for an answer."""
        return [call for call in self.calls if call.method == "POST"]


def page(value: Any, status: int = 200, **headers: str) -> Answer:
    """A JSON value as a response."""
    return Answer(json.dumps(value).encode(), status, "application/json", headers)


@contextmanager
def serving(server: FakeServer) -> Iterator[FakeServer]:
    """Let it listen on a port of its own."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_arguments: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._answer(server.pages.get(self.path, page({"detail": "Not Found"}, 404)), {})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            call = Call("POST", self.path, dict(self.headers.items()), body)
            self._answer(server.answer(call) if callable(server.answer) else server.answer, body)

        def _answer(self, answer: Answer, body: dict[str, Any]) -> None:
            server.calls.append(Call(self.command, self.path, dict(self.headers.items()), body))
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.type)
            if answer.length is not None:
                self.send_header("Content-Length", str(answer.length))
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for part in [answer.body] if isinstance(answer.body, bytes) else answer.body:
                    self.wfile.write(part)
                    self.wfile.flush()
            except OSError:
                return
            if answer.stall:
                server.stalled.set()
                server.released.wait(30)

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    server.port = listening.server_port
    thread = threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        listening.shutdown()
        thread.join()
        listening.server_close()
