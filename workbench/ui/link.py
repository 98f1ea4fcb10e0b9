"""The one way by which benches reach the model session."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.session.client import Call, SessionClient, SessionLost
    from workbench.session.protocol import Event, Reply, Request

R = TypeVar("R", bound="Reply")

OpenSession: TypeAlias = "Callable[[], Awaitable[SessionClient]]"
EndSession: TypeAlias = "Callable[[], Awaitable[str]]"
"""Ends the session's process, whatever it takes."""
OpenOther: TypeAlias = "Callable[[str], Awaitable[SessionClient]]"
"""Connects to a session of the interpreter named, starting it when there is none."""
DescribeLoss: TypeAlias = "Callable[[SessionClient], Awaitable[SessionLost]]"


def _session_lost(reason: str = "") -> SessionLost:
    # Not at the top: the first frame is drawn before the protocol is imported.
    from workbench.session.client import SessionLost

    return SessionLost(reason) if reason else SessionLost()


async def told_by_client(client: SessionClient) -> SessionLost:
    """What the client itself knows of its loss."""
    return client.lost or _session_lost()


class SessionLink:
    """Holds the current client, and lets requests wait while the session is still starting.

    Args:
        open_session: gives a greeted client that watches broadcasts.
        describe_loss: says why the worker behind a lost client is gone.
        open_other: gives a client of another interpreter's session; None where there is only this one.
        end_session: ends the process of a session that does not answer; None where that is not ours to do.
        open_running: as `open_session`, but starts none; None where nobody else starts one.
    """

    def __init__(
        self,
        open_session: OpenSession,
        describe_loss: DescribeLoss = told_by_client,
        open_other: OpenOther | None = None,
        end_session: EndSession | None = None,
        open_running: OpenSession | None = None,
    ) -> None:
        self._open = open_session
        self._open_running = open_running
        self._end = end_session
        self._open_other = open_other
        self._describe = describe_loss
        self._client: SessionClient | None = None
        self._warmed: SessionClient | None = None
        self._settled = asyncio.Event()
        """Set while it is known whether there is a session; cleared while one is looked for or started."""
        self._leaving = False
        self._calls: dict[int, Call] = {}
        """What is being asked, by the identity of its request."""

    @property
    def client(self) -> SessionClient | None:
        """The connected client, or None while there is no session."""
        return self._client

    async def attach(self) -> SessionClient:
        """Connect. Raises WorkbenchError when no session can be had."""
        self._settled.clear()
        try:
            self._client = await self._open()
        finally:
            self._settled.set()
        return self._client

    async def find(self) -> SessionClient | None:
        """A client of a session that somebody else has started; None where there is none."""
        if self._open_running is None:
            return None
        try:
            return await self._open_running()
        except WorkbenchError:
            return None

    def take(self, client: SessionClient) -> None:
        """Ask this client from now on."""
        self._client = client

    async def end(self) -> None:
        """End a session that does not answer. Raises WorkbenchError if its process does not go."""
        if self._end is not None:
            await self._end()

    async def lost(self) -> SessionLost:
        """Note that the session is gone, and say why."""
        client, self._client = self._client, None
        return await self._describe(client) if client else _session_lost()

    def warm_up(self) -> None:
        """Ask the worker, once, to import torch; nobody waits for it."""
        if self._client is not None and self._client is not self._warmed:
            from workbench.session.protocol import Warm

            self._warmed = self._client
            self._client.send(Warm())

    def leave(self) -> None:
        """The app is about to end: what it asked for goes on without it, so tasks that end now cancel nothing."""
        self._leaving = True

    @property
    def leaving(self) -> bool:
        """Whether the app is about to end."""
        return self._leaving

    async def close(self) -> None:
        """Detach; the worker keeps what it has."""
        client, self._client = self._client, None
        if client:
            await client.close()

    async def ask(self, request: Request, expected: type[R], on_event: Callable[[Event], None] | None = None) -> R:
        """Send a request, hand its events on, and return its reply. Waits while a session is started, not without one.

        Cancelling the awaiting task cancels the request in the worker.

        Raises:
            WorkbenchError: as the worker says, or `SessionLost`.
            JobCancelled: the request was stopped.
        """
        await self._settled.wait()
        client = self._client
        if client is None:
            raise _session_lost()
        return await self._conversation(client, request, expected, on_event)

    def stop(self, request: Request) -> None:
        """Stop a request that is being asked; who asked gets its reply, which may be what was there by then."""
        call = self._calls.get(id(request))
        if call is not None:
            call.cancel()

    async def ask_interpreter(
        self, python: str, request: Request, expected: type[R], on_event: Callable[[Event], None] | None = None
    ) -> R:
        """As `ask`, but in a session of another interpreter, which ends again if this started it.

        Raises:
            WorkbenchError: as the worker says, or why there is none under that interpreter.
            JobCancelled: the request was stopped.
        """
        from workbench.session.client import SessionLost
        from workbench.session.protocol import Shutdown

        if self._open_other is None:
            raise WorkbenchError("no-session", f"{python} cannot be asked from here.", "Start workbench --python PATH.")
        client = await self._open_other(python)
        try:
            return await self._conversation(client, request, expected, on_event)
        except SessionLost:
            lost = await self._describe(client)
            # Of its own kind: the app's session is still there.
            raise WorkbenchError("other-session-lost", f"{python}: {lost.message}", lost.remedy, lost.details) from None
        finally:
            if client.process is not None:
                client.send(Shutdown())
            await client.close()

    async def _conversation(
        self, client: SessionClient, request: Request, expected: type[R], on_event: Callable[[Event], None] | None
    ) -> R:
        call = self._calls[id(request)] = client.start(request)
        try:
            async for event in call.events():
                if on_event is not None:
                    on_event(event)
            reply = await call.reply()
        except asyncio.CancelledError:
            if not self._leaving:
                call.cancel()
            raise
        finally:
            del self._calls[id(request)]
        if not isinstance(reply, expected):
            raise _session_lost(f"The session answered {type(reply).__name__} to {type(request).__name__}.")
        return reply
