"""Who runs a session: files of one session in the runtime directory, and the locks on them. Stdlib only."""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

from workbench import paths
from workbench.errors import WorkbenchError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


@dataclass(frozen=True)
class SessionFiles:
    """Where one named session keeps its socket, locks, log and farewell."""

    name: str
    socket: Path
    start_lock: Path
    """Held by a client while it starts a worker, so that two terminals start one."""
    worker_lock: Path
    """Held by the worker for life; its content is the `WorkerIdentity`."""
    log: Path
    farewell: Path
    """Written by a worker that ends in order: why it left."""

    @staticmethod
    def of(name: str) -> SessionFiles:
        """The files of session `name`.

        Raises:
            WorkbenchError: ``bad-session-name``, ``socket-path-too-long`` or ``unsafe-directory``.
        """
        if not _NAME.fullmatch(name):
            raise WorkbenchError(
                "bad-session-name",
                f"{name!r:.60} cannot name a session.",
                "Use up to 40 letters, digits, dots, dashes and underscores.",
            )
        folder = paths.runtime_dir()
        socket = folder / f"{name}.sock"
        if len(os.fsencode(str(socket))) > paths.MAX_SOCKET_PATH_BYTES:
            raise WorkbenchError(
                "socket-path-too-long",
                f"The socket path {socket} is longer than the {paths.MAX_SOCKET_PATH_BYTES} bytes the system allows.",
                f"Choose a shorter --session name or a shorter {paths.RUNTIME_VARIABLE}.",
            )
        return SessionFiles(
            name=name,
            socket=socket,
            start_lock=folder / f"{name}.start",
            worker_lock=folder / f"{name}.lock",
            log=paths.log_dir() / f"{name}.log",
            farewell=folder / f"{name}.farewell",
        )


def session_names() -> list[str]:
    """Names of the sessions whose lock file exists, running or not."""
    return sorted(path.stem for path in paths.runtime_dir().glob("*.lock"))


@dataclass(frozen=True)
class WorkerIdentity:
    """Which process holds a session; `start_ticks` guards against a reused pid."""

    pid: int
    start_ticks: int
    executable: str
    started_at: float
    requested: str = ""
    """The interpreter as it was asked for: a shim or wrapper script may run another."""


def process_start_ticks(pid: int) -> int:
    """Start time of a process in clock ticks since boot (proc(5), field 22 of stat); 0 where unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[19])


class FileLock:
    """An exclusive flock(2) that vanishes with its process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: Optional[int] = None

    def acquire(self) -> bool:
        """Try once; True if this holds the lock now.

        Raises:
            WorkbenchError: ``unsafe-directory`` if there can be no such file.
        """
        if self._descriptor is not None:
            return True
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise self._unusable("It is not a regular file")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def _unusable(self, why: str) -> WorkbenchError:
        return WorkbenchError(
            "unsafe-directory",
            f"Cannot open the lock {self._path}: {why}.",
            f"Remove it if it is no file, free some space, or point {paths.RUNTIME_VARIABLE} elsewhere.",
        )

    @property
    def descriptor(self) -> Optional[int]:
        """The open file that holds the lock; a child that inherits it holds it too. None while it is not held."""
        return self._descriptor

    def write(self, identity: WorkerIdentity) -> None:
        """Record who holds the lock."""
        assert self._descriptor is not None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(asdict(identity)).encode(), 0)

    def release(self) -> None:
        """Let go; does nothing if the lock is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def lock_holder(path: Path) -> Optional[WorkerIdentity]:
    """The live process that holds a worker lock, or None if it is free."""
    lock = FileLock(path)
    try:
        free = lock.acquire()
    except FileNotFoundError:
        return None
    if free:
        lock.release()
        return None
    try:
        identity = WorkerIdentity(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return WorkerIdentity(0, 0, "", 0.0)
    if process_start_ticks(identity.pid) != identity.start_ticks:
        return WorkerIdentity(0, 0, identity.executable, identity.started_at)
    return identity
