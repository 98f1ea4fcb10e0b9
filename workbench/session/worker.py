"""The worker process: one per session, under the target interpreter. Stdlib only; domain modules come per request.

Started as ``python -m workbench.session.worker '{"session": …}'`` by `workbench.session.launch`.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 9):  # noqa: UP036  (it is the target that may be older)
    sys.exit(f"The workbench needs Python 3.9 or newer as target; this is {sys.version.split()[0]}.")

import asyncio
import contextlib
import faulthandler
import json
import os
import signal
import time
from typing import Any, Callable, Optional

import workbench
from workbench.errors import JobCancelled, WorkbenchError
from workbench.session import protocol
from workbench.session.changes import UpgradeWatch
from workbench.session.connection import Connection
from workbench.session.lanes import Lane, LaneJob
from workbench.session.lock import FileLock, SessionFiles, WorkerIdentity, process_start_ticks
from workbench.session.logcapture import LogCapture
from workbench.session.protocol import Event, LogAppended, Reply, Request, SessionStatus, StatusChanged
from workbench.session.runtime import LATER, Context, Handler, Runtime, device_bytes, resident_bytes
from workbench.session.transport import SocketTransport, peer_uid

LANE_THREADS = {"model": 1, "quick": 4, "children": 4}
STATUS_INTERVAL_SECONDS = 0.15
TICK_SECONDS = 0.5
FAREWELL_SECONDS = 2.0
_MAY_BE_AN_UPGRADE = ("internal", "missing-package", "broken-package")


class ImportLink:
    """The link through which this process imports the workbench; cleaners of ``/tmp`` remove it in the long run."""

    def __init__(self) -> None:
        self._link = os.path.dirname(os.path.abspath(workbench.__file__))
        self._target = os.readlink(self._link) if os.path.islink(self._link) else ""

    def restore(self) -> None:
        """Put it back if it is gone."""
        if self._target and not os.path.lexists(self._link):
            with contextlib.suppress(OSError):
                os.makedirs(os.path.dirname(self._link), mode=0o700, exist_ok=True)
                os.symlink(self._target, self._link)


class Worker:
    """Accepts clients, routes requests to lanes, broadcasts status, leaves when idle."""

    def __init__(self, files: SessionFiles, keep_model_seconds: float, keep_worker_seconds: float) -> None:
        self.files = files
        self.connections: set[Connection] = set()
        self.started_at = time.time()
        self.keep_model_seconds = keep_model_seconds
        self.keep_worker_seconds = keep_worker_seconds
        self.runtime = Runtime(files.name, self.status_changed, self._next_job)
        self.lanes = {name: Lane(name, threads, self.status_changed) for name, threads in LANE_THREADS.items()}
        self.log = LogCapture(files.log, self._log_appended)
        self.upgrades = UpgradeWatch()
        self._import_link = ImportLink()
        self._loop = asyncio.get_running_loop()
        self._ending: asyncio.Future[str] = self._loop.create_future()
        self._status_due: Optional[asyncio.TimerHandle] = None
        self._alone_since = time.monotonic()

    async def serve(self) -> None:
        """Run until told to end."""
        self.log.start()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self.end, f"received {number.name}")
        # The listening socket is created here so that no moment passes with other permissions than 0600.
        with contextlib.suppress(FileNotFoundError):
            self.files.socket.unlink()
        os.umask(0o177)
        server = await asyncio.start_unix_server(
            self._accept, path=str(self.files.socket), limit=protocol.MAX_FRAME_BYTES
        )
        os.umask(0o077)
        self.note(f"session {self.files.name!r} on {sys.executable} ({sys.version.split()[0]}), pid {os.getpid()}")
        ticking = asyncio.ensure_future(self._tick())
        reason = await self._ending
        ticking.cancel()
        server.close()
        await self._say_farewell(reason)

    def end(self, reason: str) -> None:
        """Leave in order, soon."""
        if not self._ending.done():
            self._ending.set_result(reason)

    def status(self) -> SessionStatus:
        """A snapshot of the session."""
        runtime = self.runtime
        slot = runtime.slot
        torch = runtime.torch_seen()
        idle = slot is not None and not self.lanes["model"].busy
        unload_in = self.keep_model_seconds - (time.monotonic() - runtime.model_used_at) if idle else None
        return SessionStatus(
            session=self.files.name,
            pid=os.getpid(),
            executable=sys.executable,
            python_version=sys.version.split()[0],
            torch_state=torch.state,
            torch_version=torch.version,
            torch_error=torch.error,
            model=slot.status if slot else None,
            lanes=tuple(lane.status() for lane in self.lanes.values()),
            clients=len(self.connections),
            resident_bytes=resident_bytes(),
            device_bytes=device_bytes(),
            tokens_per_second=runtime.tokens_per_second,
            conversation_id=runtime.conversation_id,
            unload_in_seconds=None if unload_in is None else max(0.0, round(unload_in)),
        )

    def submit(self, connection: Connection, message_id: int, request: Request, handler: Handler) -> None:
        """Send a request through the stages of its handler."""
        job = LaneJob(
            protocol.wire_name(type(request)),
            lambda event: self._from_thread(connection.send, message_id, event),
            self.status_changed,
        )
        connection.jobs[message_id] = (job, handler.outlives_client(request))

        def finish(reply: Reply) -> None:
            self._from_thread(connection.finish, message_id, reply)

        self._run_stage(request, handler, 0, Context(self.runtime, job, None, finish))

    def _run_stage(self, request: Request, handler: Handler, index: int, context: Context) -> None:
        stage = handler.stages[index]

        def done(result: Any, error: Optional[BaseException]) -> None:
            if error is not None:
                context.finish(self.failure(error))
            elif index + 1 < len(handler.stages) and not isinstance(result, Reply):
                following = Context(context.runtime, context.job, result, context.finish)
                self._run_stage(request, handler, index + 1, following)
            elif result is not LATER:
                context.finish(result)

        self.lanes[stage.lane].submit(context.job, lambda _job: stage.run(request, context), done)

    def failure(self, error: BaseException) -> Reply:
        """The reply that an exception ends a request with; what looks like a fault of ours may be an upgrade."""
        reply = protocol.failure(error)
        if not isinstance(reply, protocol.Failed) or reply.kind not in _MAY_BE_AN_UPGRADE:
            return reply
        if reply.kind == "internal":
            print(reply.details, file=sys.stderr)
        changes = self.upgrades.changes()
        if not changes:
            return reply
        remedy = f"Restart it: workbench session stop --session {self.files.name} --force; the next command starts it."
        return protocol.Failed("session-outdated", f"{changes}, and this request failed.", remedy, reply.details)

    def broadcast(self, event: Event) -> None:
        """Send an event to every watching client."""
        for connection in list(self.connections):
            if connection.watching:
                connection.send(protocol.BROADCAST_ID, event)

    def forget(self, connection: Connection) -> None:
        """A client went away: stop what only it waited for."""
        self.connections.discard(connection)
        for job, outlives in connection.jobs.values():
            if not outlives:
                job.cancel()
        self._alone_since = time.monotonic()
        self.status_changed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid = peer_uid(writer.get_extra_info("socket"))
        if uid is not None and uid != os.getuid():
            self.note(f"turned away a client of uid {uid}")
            writer.close()
            return
        connection = Connection(self, SocketTransport(reader, writer))
        self.connections.add(connection)
        try:
            await connection.serve()
        finally:
            self.forget(connection)

    async def _tick(self) -> None:
        """Keep-alive: the model goes after its idle time, the worker after its own."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            self._import_link.restore()
            if any(lane.busy for lane in self.lanes.values()):
                self._alone_since = now
                continue
            if not self.connections and not os.path.lexists(self.files.socket):
                self.end("its socket was removed, so nobody can reach it")
            elif self.runtime.slot is not None:
                if now - self.runtime.model_used_at >= self.keep_model_seconds:
                    self.note(f"unloading after {self.keep_model_seconds:.0f} idle seconds")
                    self._unload_idle()
                self._alone_since = now
            elif self.connections:
                self._alone_since = now
            elif now - self._alone_since >= self.keep_worker_seconds:
                self.end(f"idle for {self.keep_worker_seconds:.0f} seconds")

    def _unload_idle(self) -> None:
        from workbench.session.handlers.models import unload_slot

        self._next_job("unload_model", lambda _job: unload_slot(self.runtime))

    def _next_job(self, name: str, run: Callable[[LaneJob], Any]) -> None:
        """Queue work of the session's own on the model lane; nobody waits for it, so a failure is noted."""

        def done(_result: Any, error: Optional[BaseException]) -> None:
            if error is not None and not isinstance(error, JobCancelled):
                self.note(f"{name} failed: {error}")

        self.lanes["model"].submit(LaneJob(name, lambda _event: None, self.status_changed), run, done, first=True)

    async def _say_farewell(self, reason: str) -> None:
        self.note(f"session ends: {reason}")
        self.broadcast(protocol.SessionEnding(reason))
        for lane in self.lanes.values():
            lane.cancel_running()
        deadline = time.monotonic() + FAREWELL_SECONDS
        while any(lane.busy for lane in self.lanes.values()) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0)  # let the last replies reach their sockets
        for connection in list(self.connections):
            connection.transport.close()
        for last in (lambda: self.files.farewell.write_text(reason), self.files.socket.unlink, self.log.drain):
            with contextlib.suppress(OSError):  # a full disk
                last()

    def _from_thread(self, function: Any, *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the session has ended
            self._loop.call_soon_threadsafe(function, *arguments)

    def status_changed(self) -> None:
        self._from_thread(self._schedule_status)

    def _schedule_status(self) -> None:
        if self._status_due is None:
            self._status_due = self._loop.call_later(STATUS_INTERVAL_SECONDS, self._broadcast_status)

    def _broadcast_status(self) -> None:
        self._status_due = None
        self.broadcast(StatusChanged(self.status()))

    def _log_appended(self, lines: list[str]) -> None:
        self._from_thread(self.broadcast, LogAppended(tuple(lines)))

    @staticmethod
    def note(line: str) -> None:
        print(f"workbench: {line}", file=sys.stderr, flush=True)


def main() -> int:
    """Take the session's lock and serve it. Exit codes: 0 ended in order, 3 another worker has the lock."""
    settings = json.loads(sys.argv[1])
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.umask(0o077)
    try:
        files = SessionFiles.of(settings["session"])
    except WorkbenchError as error:
        print(f"workbench: {error}", file=sys.stderr)
        return 2
    lock = FileLock(files.worker_lock)
    # A client that asks who holds the lock takes it for a moment itself.
    for _ in range(100):
        if lock.acquire():
            break
        time.sleep(0.02)
    else:
        print("workbench: another worker holds this session", file=sys.stderr)
        return 3
    pid = os.getpid()
    requested = settings.get("python", "")
    lock.write(WorkerIdentity(pid, process_start_ticks(pid), sys.executable, time.time(), requested))
    if settings.get("start_lock") is not None:
        with contextlib.suppress(OSError):  # a wrapper script may have closed it
            os.close(settings["start_lock"])
    faulthandler.enable(all_threads=False)
    faulthandler.register(signal.SIGUSR1)
    _prepare_environment()
    asyncio.run(_serve(files, settings))
    return 0


async def _serve(files: SessionFiles, settings: dict[str, Any]) -> None:
    await Worker(files, settings["keep_model_seconds"], settings["keep_worker_seconds"]).serve()
    # Daemon threads may still be inside native code; an orderly interpreter exit would wait for or trip over them.
    os._exit(0)


def _prepare_environment() -> None:
    # Progress bars are drawn by the clients from real counts.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    # fork after threads is how tokenizers and OpenMP deadlock; nothing here forks without exec.
    os.environ.setdefault("PYTHONFAULTHANDLER", "1")


if __name__ == "__main__":
    sys.exit(main())
