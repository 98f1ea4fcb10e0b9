"""A session to break, and what every row asks of it afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.session import protocol
from workbench.session.client import SessionClient
from workbench.session.launch import SessionOptions, open_session
from workbench.session.lock import SessionFiles

PATIENCE_SECONDS = 60.0
"""Nothing is timed here; this only ends a test that hangs."""

INJECTOR = """
import os, signal
def inject(number, frame):
    path = os.environ["WORKBENCH_FAULT"]
    exec(compile(open(path).read(), path, "exec"), {})
    os.unlink(path)
if "WORKBENCH_FAULT" in os.environ:
    signal.signal(signal.SIGUSR2, inject)
"""
"""A sitecustomize for the worker's interpreter: at SIGUSR2 it runs a file inside the worker."""


class Box:
    """One session and its clients."""

    def __init__(self, name: str = "fault") -> None:
        self.name = name
        self.files = SessionFiles.of(name)
        self.clients: list[SessionClient] = []

    @staticmethod
    @contextlib.contextmanager
    def shared_environment(root: Path) -> Iterator[dict[str, str]]:
        """Environment variables of a home for several tests, with the injector on the worker's path."""
        runtime = tempfile.mkdtemp(prefix="wb-")
        (root / "injector").mkdir()
        (root / "injector" / "sitecustomize.py").write_text(INJECTOR)
        environment = {"WORKBENCH_RUNTIME_DIR": runtime, "PYTHONPATH": str(root / "injector")}
        environment["WORKBENCH_FAULT"] = str(root / "fault.py")
        for variable in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "HF_HOME"):
            environment[variable] = str(root / variable.lower())
            (root / variable.lower()).mkdir()
        yield environment
        shutil.rmtree(runtime, ignore_errors=True)

    async def open(self, watch: bool = False, **options: Any) -> SessionClient:
        """A client of the session, which starts it if need be."""
        client = await open_session(SessionOptions(self.name, **options), "test", watch=watch, sanitize=False)
        self.clients.append(client)
        return client

    async def detach(self) -> None:
        """Close all clients."""
        while self.clients:
            await self.clients.pop().close()

    async def refusal(self, **options: Any) -> WorkbenchError:
        """Why the session cannot be opened: one line that names it and one that says what to do."""
        try:
            await self.open(**options)
        except WorkbenchError as error:
            return one_clear_line(error)
        raise AssertionError("it opened")

    async def must_work(self) -> protocol.SessionStatus:
        """A new client gets an answer, from the worker that is there or from a new one."""
        client = await self.open()
        try:
            await client.ask(protocol.ListFamilies(), protocol.FamiliesListed)
            return (await client.ask(protocol.GetStatus(), protocol.StatusReported)).status
        finally:
            self.clients.remove(client)
            await client.close()

    def inject(self, pid: int, code: str) -> None:
        """Run code inside the worker's main thread."""
        path = Path(os.environ["WORKBENCH_FAULT"])
        path.with_suffix(".new").write_text(code)
        path.with_suffix(".new").replace(path)
        os.kill(pid, signal.SIGUSR2)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while path.exists():
            assert time.monotonic() < deadline, "the injected code did not end"
            time.sleep(0.01)

    async def nothing_left(self) -> None:
        """No process of this session is there any more."""
        await until(lambda: not processes_of(os.environ["WORKBENCH_RUNTIME_DIR"]), "processes are left behind")


def pid_of(client: SessionClient) -> int:
    """The worker's process."""
    assert client.welcome is not None
    return client.welcome.status.pid


def one_clear_line(error: WorkbenchError) -> WorkbenchError:
    """The same error, if a user can read it."""
    assert error.message
    assert "\n" not in f"{error.message}{error.remedy}"
    assert "Traceback" not in str(error)
    assert error.kind != "internal", error
    return error


async def refused(asking: Any) -> WorkbenchError:
    """The clear error that a request ends with."""
    try:
        reply = await asking
    except WorkbenchError as error:
        return one_clear_line(error)
    raise AssertionError(f"answered {reply}")


async def until(condition: Callable[[], bool], complaint: str = "never happened") -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, complaint
        await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def processes_of(runtime: str) -> list[int]:
    """Live processes that were started for this runtime directory: workers and their children."""
    mark = os.fsencode(f"WORKBENCH_RUNTIME_DIR={runtime}")
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes().split(b"\0") and alive(int(folder.name)):
                    found.append(int(folder.name))
    return found


def end_processes(pids: list[int]) -> None:
    """End what a failed test left, so that it does not stay on the machine."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def bare_python(folder: Path) -> str:
    """A virtual environment without any package."""
    import venv

    venv.create(folder, with_pip=False, symlinks=True)
    return str(folder / "bin" / "python")
