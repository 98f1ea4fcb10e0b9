"""A session without a worker: speaks the real protocol over a pair in memory, by a script."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from tests.stubs import scripted_chat
from tests.stubs import scripted_data as data
from workbench.session import protocol
from workbench.session.client import SessionClient, SessionLost
from workbench.session.transport import MemoryTransport, memory_pair

Answer = Iterable[protocol.Message]
"""Events, then one reply."""
Script = Callable[[Any], Answer]


class ScriptedSession:
    """Answers each request by its script; a gate holds a script before the message it names.

    Attributes:
        requests: every request that arrived, in order.
        stopped: the requests that were stopped while they ran.
        opened: how often a client connected.
        others: the sessions of other interpreters, by path; one that examines a healthy environment when not given.
        asked_others: the interpreters that were connected to, in order.
    """

    def __init__(self, status: protocol.SessionStatus = data.STATUS) -> None:
        self.status = status
        self.requests: list[protocol.Request] = []
        self.stopped: list[protocol.Request] = []
        self.opened = 0
        self.others: dict[str, ScriptedSession] = {}
        self.asked_others: list[str] = []
        self.refuse: Exception | None = None
        self._scripts: dict[type[protocol.Request], Script] = {**data.SCRIPTS, **scripted_chat.scripts()}
        self._gates: dict[tuple[type[protocol.Request], int], asyncio.Event] = {}
        self._ends: list[MemoryTransport] = []
        self._running: dict[int, tuple[protocol.Request, asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # --- What a test does ----------------------------------------------------------------------------------

    def script(self, request: type[protocol.Request], answer: Script) -> None:
        """Answer this type of request so from now on."""
        self._scripts[request] = answer

    def hold(self, request: type[protocol.Request], before: int = 0) -> asyncio.Event:
        """Stop the script of this request before its message number `before`, until the event is set."""
        self._gates[request, before] = gate = asyncio.Event()
        return gate

    def asked(self, kind: type[protocol.Request]) -> list[Any]:
        """The requests of one type."""
        return [request for request in self.requests if isinstance(request, kind)]

    def broadcast(self, event: protocol.Event) -> None:
        """Send to every client."""
        for end in self._ends:
            end.write(protocol.encode(protocol.BROADCAST_ID, event))

    def set_status(self, **changes: Any) -> None:
        """Change the status and tell every client."""
        self.status = dataclasses.replace(self.status, **changes)
        self.broadcast(protocol.StatusChanged(self.status))

    def kill(self) -> None:
        """The worker dies."""
        for _, task in self._running.values():
            task.cancel()
        self._running.clear()
        for end in self._ends:
            end.close()
        self._ends.clear()

    # --- What the app is given -----------------------------------------------------------------------------

    async def open(self) -> SessionClient:
        """A greeted client, as `workbench.session.launch.open_session` gives one."""
        if self.refuse is not None:
            raise self.refuse
        self.opened += 1
        ours, theirs = memory_pair()
        self._ends.append(ours)
        self._spawn(self._serve(ours))
        client = SessionClient(theirs, sanitize=True)
        await client.greet("tui", watch=True)
        return client

    async def open_other(self, python: str) -> SessionClient:
        """A client of another interpreter's session, as `workbench.ui.run` gives one."""
        self.asked_others.append(python)
        if python not in self.others:
            self.others[python] = other = ScriptedSession()
            other.script(protocol.Diagnose, lambda request: [protocol.Diagnosed(data.HEALTHY)])
        return await self.others[python].open()

    async def describe_loss(self, client: SessionClient) -> SessionLost:
        return SessionLost("The model session died: ended by SIGKILL.", "last line of the log")

    # --- The other side ------------------------------------------------------------------------------------

    def _spawn(self, coroutine: Any) -> asyncio.Task[None]:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _serve(self, end: MemoryTransport) -> None:
        async for frame in _frames(end):
            message = frame.message
            if isinstance(message, protocol.Hello):
                welcome = protocol.Welcome(protocol.PROTOCOL_VERSION, "0.1.0", 0.0, (), self.status)
                end.write(protocol.encode(frame.id, welcome))
                continue
            assert isinstance(message, protocol.Request)
            self.requests.append(message)
            if isinstance(message, protocol.Cancel):
                self._cancel(end, frame.id, message)
            else:
                self._running[frame.id] = message, self._spawn(self._answer(end, frame.id, message))

    def _cancel(self, end: MemoryTransport, cancel_id: int, message: protocol.Cancel) -> None:
        wanted = [message.request_id] if message.request_id else list(self._running)
        for request_id in wanted:
            running = self._running.pop(request_id, None)
            if running is not None:
                request, task = running
                task.cancel()
                self.stopped.append(request)
                end.write(protocol.encode(request_id, protocol.Cancelled()))
        end.write(protocol.encode(cancel_id, protocol.CancelNoted(bool(wanted))))

    async def _answer(self, end: MemoryTransport, request_id: int, request: protocol.Request) -> None:
        script = self._scripts.get(type(request))
        answer = script(request) if script else [protocol.Failed("unknown-request", f"no script for {request!r}")]
        for number, message in enumerate(answer):
            gate = self._gates.get((type(request), number))
            if gate is not None:
                await gate.wait()
            if isinstance(message, protocol.ModelLoaded):
                self.set_status(model=message.model)
            end.write(protocol.encode(request_id, message))
            await asyncio.sleep(0)
        self._running.pop(request_id, None)


async def _frames(end: MemoryTransport) -> AsyncIterator[protocol.Frame]:
    while line := await end.read_line():
        yield protocol.decode(line)
