"""One client as the worker sees it: reads its requests, writes its replies, cuts it off if it does not read."""

from __future__ import annotations

from typing import Optional, Protocol

import workbench
from workbench.session import handlers, protocol
from workbench.session.changes import UpgradeWatch
from workbench.session.lanes import Lane, LaneJob
from workbench.session.lock import SessionFiles
from workbench.session.logcapture import LogCapture
from workbench.session.protocol import (
    Cancel,
    Failed,
    JobProgressed,
    Message,
    Reply,
    Request,
    SessionStatus,
    StatusChanged,
)
from workbench.session.runtime import Handler
from workbench.session.transport import FrameTooLarge, Transport

REPLACEABLE_LIMIT_BYTES = 256 * 1024
"""Above this backlog, progress and status are dropped: a later one says more."""

CUT_OFF_BYTES = 64 * 2**20
"""A client with this much unread is gone or broken; two of the largest frames fit below it."""


class Host(Protocol):
    """What a connection needs of the worker it belongs to."""

    files: SessionFiles
    started_at: float
    connections: set[Connection]
    lanes: dict[str, Lane]
    log: LogCapture
    upgrades: UpgradeWatch

    def status(self) -> SessionStatus:
        """A snapshot of the session."""

    def status_changed(self) -> None:
        """Tell watching clients soon."""

    def submit(self, connection: Connection, message_id: int, request: Request, handler: Handler) -> None:
        """Send a request through its lanes."""

    def failure(self, error: BaseException) -> Reply:
        """The reply that an exception ends a request with."""

    def end(self, reason: str) -> None:
        """Leave in order, soon."""

    def note(self, line: str) -> None:
        """Write a line into the session log."""


class Connection:
    """Serves one client.

    Attributes:
        jobs: requests under way by their id.
        watching: whether the client wants broadcasts.
    """

    def __init__(self, worker: Host, transport: Transport) -> None:
        self.worker = worker
        self.transport = transport
        self.jobs: dict[int, tuple[LaneJob, bool]] = {}
        """Requests that run, and whether each goes on without this client."""
        self.watching = False
        self._greeted = False

    async def serve(self) -> None:
        """Answer requests until the client goes away."""
        while True:
            try:
                line = await self.transport.read_line()
            except FrameTooLarge:
                text = f"A message is longer than {protocol.MAX_FRAME_BYTES // 2**20} MiB."
                self.send(protocol.BROADCAST_ID, Failed("frame-too-large", text, "Send less at once."))
                break
            if not line.endswith(b"\n"):
                break  # the end, or half a line of a client that died
            try:
                frame = protocol.decode(line)
            except protocol.ProtocolError as error:
                self.send(error.message_id, Failed(error.kind, f"The session cannot read this message: {error}."))
                continue
            self._receive(frame.id, frame.message)
        self.transport.close()

    def send(self, message_id: int, message: Message) -> None:
        """Queue a message for the client; never waits for it."""
        pending = self.transport.pending_bytes()
        if pending > REPLACEABLE_LIMIT_BYTES and isinstance(message, (JobProgressed, StatusChanged)):
            return
        if pending > CUT_OFF_BYTES:
            self.worker.note(f"cut off a client that has not read {pending // 2**20} MiB")
            self.transport.abort()
            return
        self.transport.write(protocol.encode(message_id, message))

    def finish(self, message_id: int, reply: Reply) -> None:
        """End a request."""
        if self.jobs.pop(message_id, None) is not None:
            self.send(message_id, reply)

    def _receive(self, message_id: int, message: Message) -> None:
        if not isinstance(message, Request):
            self.send(message_id, Failed("unknown-request", "That is no request."))
        elif message_id == protocol.BROADCAST_ID or message_id in self.jobs:
            self.send(message_id, Failed("bad-message", f"The id {message_id} is taken."))
        elif isinstance(message, protocol.Hello):
            self._welcome(message_id, message)
        elif not self._greeted:
            self.send(message_id, Failed("protocol-version", "The first message must be hello."))
        else:
            try:
                self._route(message_id, message)
            except Exception as error:
                # Most likely a domain module that cannot be imported here; one request fails, not the session.
                self.send(message_id, self.worker.failure(error))

    def _route(self, message_id: int, request: Request) -> None:
        reply = self._answer_at_once(request)
        if reply is not None:
            self.send(message_id, reply)
        else:
            self.worker.submit(self, message_id, request, handlers.find(type(request)))

    def _welcome(self, message_id: int, hello: protocol.Hello) -> None:
        if hello.protocol_version != protocol.PROTOCOL_VERSION:
            text = f"This session speaks protocol {protocol.PROTOCOL_VERSION}, the client {hello.protocol_version}."
            remedy = "Stop the session (workbench session stop --force) and start it with the same version."
            self.send(message_id, Failed("protocol-version", text, remedy))
            return
        self._greeted = True
        self.watching = hello.watch
        known = tuple(name for name, kind in protocol.registry().items() if issubclass(kind, Request))
        self.send(
            message_id,
            protocol.Welcome(
                protocol.PROTOCOL_VERSION,
                workbench.__version__,
                self.worker.started_at,
                known,
                self.worker.status(),
                self.worker.upgrades.changes(),
            ),
        )
        self.worker.status_changed()

    def _answer_at_once(self, request: Request) -> Optional[Reply]:
        """Requests about the session itself; they never wait for a lane."""
        worker = self.worker
        if isinstance(request, protocol.GetStatus):
            return protocol.StatusReported(worker.status())
        if isinstance(request, Cancel):
            return protocol.CancelNoted(self._cancel(request))
        if isinstance(request, protocol.ReadLog):
            return protocol.LogRead(str(worker.files.log), tuple(worker.log.tail(max(1, min(request.lines, 10_000)))))
        if isinstance(request, protocol.Shutdown):
            others = len(worker.connections) - 1
            if others and not request.force:
                return protocol.ShutdownNoted(False, others)
            worker.end("asked to")
            return protocol.ShutdownNoted(True, others)
        return None

    def _cancel(self, cancel: Cancel) -> bool:
        if cancel.request_id:
            job, _ = self.jobs.get(cancel.request_id, (None, None))
            if job is not None:
                job.cancel()
            return job is not None
        lane = self.worker.lanes.get(cancel.lane)
        return lane is not None and lane.cancel_running()
