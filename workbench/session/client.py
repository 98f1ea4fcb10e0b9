"""A client's view of the model session: ask, follow, cancel, hear broadcasts. Stdlib only."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import subprocess
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Optional, TypeVar

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session import protocol
from workbench.session.lock import SessionFiles
from workbench.session.protocol import Cancel, Cancelled, Event, Failed, JobProgressed, Message, Reply, Request
from workbench.session.transport import FrameTooLarge, Transport
from workbench.text import sanitize_tree

R = TypeVar("R", bound=Reply)


class SessionLost(WorkbenchError):
    """The worker is gone: killed, crashed or ended. Nothing saved is lost."""

    def __init__(self, reason: str = "The model session ended.", details: str = "") -> None:
        super().__init__("session-lost", reason, "Start it again: r in the app, or repeat the command.", details)


class Call:
    """One request under way: iterate over its events, then await `reply`."""

    def __init__(self, client: SessionClient, call_id: int) -> None:
        self.id = call_id
        self._client = client
        self._events: deque[Event] = deque()
        self._reply: Optional[Reply] = None
        self._error: Optional[WorkbenchError] = None
        self._changed = asyncio.Event()

    def cancel(self) -> None:
        """Ask the worker to stop this request; its reply still comes."""
        if self._reply is None and self._error is None:
            self._client.send(Cancel(request_id=self.id))

    async def events(self) -> AsyncIterator[Event]:
        """Events in order, until the reply is there. A progress event that nobody read yet is replaced."""
        while True:
            while self._events:
                yield self._events.popleft()
            if self._reply is not None or self._error is not None:
                return
            self._changed.clear()
            await self._changed.wait()

    async def reply(self) -> Reply:
        """The final reply; events not read are dropped.

        Raises:
            WorkbenchError: the request failed in the worker.
            JobCancelled: the request was stopped.
            SessionLost: the worker went away first.
        """
        async for _ in self.events():
            pass
        if self._error is not None:
            raise self._error
        if isinstance(self._reply, Failed):
            raise self._reply.error()
        if isinstance(self._reply, Cancelled):
            raise JobCancelled(self._reply.reason)
        assert self._reply is not None
        return self._reply

    def deliver(self, message: Message) -> None:
        """Called by the client's reader."""
        if isinstance(message, Reply):
            self._reply = message
        elif isinstance(message, Event):
            if isinstance(message, JobProgressed) and self._events and isinstance(self._events[-1], JobProgressed):
                self._events.pop()
            self._events.append(message)
        self._changed.set()

    def fail(self, error: WorkbenchError) -> None:
        """Called by the client when the connection ends."""
        self._error = error
        self._changed.set()


class SessionClient:
    """Speaks the protocol over any `Transport`.

    Args:
        transport: a connected line transport.
        sanitize: replace control characters in every string received, for callers that show text on a terminal.
    """

    def __init__(self, transport: Transport, sanitize: bool = False) -> None:
        self.welcome: Optional[protocol.Welcome] = None
        self.files: Optional[SessionFiles] = None
        """Where the session lives; None over a transport that is not a socket."""
        self.process: Optional[subprocess.Popen[bytes]] = None
        """The worker, if this client started it: its exit status tells how it died."""
        self._transport = transport
        self._sanitize = sanitize
        self._next_id = 1
        self._calls: dict[int, Call] = {}
        self._broadcasts: asyncio.Queue[Optional[Event]] = asyncio.Queue()
        self._lost: Optional[SessionLost] = None
        self._reader = asyncio.ensure_future(self._read())

    async def greet(self, client: str, watch: bool = False) -> protocol.Welcome:
        """Exchange `Hello` and `Welcome`; must come first."""
        self.welcome = await self.ask(protocol.Hello(client=client, watch=watch), protocol.Welcome)
        return self.welcome

    def start(self, request: Request) -> Call:
        """Send a request and return its `Call`; fails through the call if the session is lost."""
        call = Call(self, self._next_id)
        if self._lost is not None:
            call.fail(self._lost)
            return call
        line = protocol.encode(call.id, request)
        if len(line) > protocol.MAX_FRAME_BYTES:
            limit = protocol.MAX_FRAME_BYTES // 2**20
            call.fail(
                WorkbenchError("too-large", f"That is more than the {limit} MiB a request may hold.", "Send less.")
            )
            return call
        self._calls[call.id] = call
        self._next_id += 1
        self._transport.write(line)
        return call

    def send(self, request: Request) -> None:
        """Send without waiting for the reply, which is dropped unless `start` registered it."""
        message_id = self._next_id
        self._next_id += 1
        self._transport.write(protocol.encode(message_id, request))

    async def ask(self, request: Request, expected: type[R]) -> R:
        """Send a request and await its reply, which must be of the expected type. See `Call.reply`.

        If the awaiting task is cancelled, the request is cancelled in the worker too.
        """
        call = self.start(request)
        try:
            reply = await call.reply()
        except asyncio.CancelledError:
            call.cancel()
            raise
        if not isinstance(reply, expected):
            raise WorkbenchError(
                "bad-reply", f"The session answered {type(reply).__name__} to {type(request).__name__}."
            )
        return reply

    async def broadcasts(self) -> AsyncIterator[Event]:
        """`StatusChanged`, `LogAppended` and `SessionEnding`, until the connection ends."""
        while True:
            event = await self._broadcasts.get()
            if event is None:
                return
            yield event

    @property
    def lost(self) -> Optional[SessionLost]:
        """Why the session is gone, or None while it is connected."""
        return self._lost

    async def close(self) -> None:
        """Detach: the worker keeps the model, and running answers go on."""
        self._transport.close()
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader
        self._end(SessionLost("This client detached."))

    async def _read(self) -> None:
        reason = "The model session closed the connection."
        while True:
            try:
                line = await self._transport.read_line()
            except FrameTooLarge:
                reason = "The model session sent a line that is too long."
                break
            if not line:
                break
            try:
                frame = protocol.decode(line)
            except protocol.ProtocolError as error:
                if error.kind == "unknown-request":
                    continue  # an event of a newer worker
                reason = f"The model session sent something that is no message: {error}."
                break
            self._dispatch(frame)
        self._transport.close()
        self._end(SessionLost(reason))

    def _dispatch(self, frame: protocol.Frame) -> None:
        message = _sanitized(frame.message) if self._sanitize else frame.message
        if frame.id == protocol.BROADCAST_ID:
            if isinstance(message, Event):
                self._broadcasts.put_nowait(message)
            return
        call = self._calls.get(frame.id)
        if call is None:
            return
        if isinstance(message, Reply):
            del self._calls[frame.id]
        call.deliver(message)

    def _end(self, lost: SessionLost) -> None:
        if self._lost is not None:
            return
        self._lost = lost
        for call in self._calls.values():
            call.fail(lost)
        self._calls.clear()
        self._broadcasts.put_nowait(None)


def _sanitized(message: Message) -> Message:
    record: Any = message
    return protocol.rebuild(type(message), sanitize_tree(dataclasses.asdict(record)))
