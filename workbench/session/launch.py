"""Connect to a session, starting its worker when there is none; stop it; say why it died. Stdlib only."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

import workbench
from workbench import paths
from workbench.errors import WorkbenchError
from workbench.processes import end_group
from workbench.session import transport
from workbench.session.client import SessionClient, SessionLost
from workbench.session.lock import FileLock, SessionFiles, WorkerIdentity, lock_holder, process_start_ticks
from workbench.session.logcapture import Spool, read_tail
from workbench.session.protocol import Shutdown, ShutdownNoted, Welcome
from workbench.text import one_line

START_TIMEOUT_SECONDS = 30.0
"""A cold interpreter on a network file system may need most of it."""

ANSWER_TIMEOUT_SECONDS = 5.0

LOST_RACE = 3
"""Exit code of a worker that found another one serving the session."""

DEFAULT_SESSION = "default"

_PATH_VARIABLES = (paths.RUNTIME_VARIABLE, "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE")


@dataclass(frozen=True)
class SessionOptions:
    """Which session, under which interpreter, and how long it keeps things."""

    name: str = DEFAULT_SESSION
    python: str = ""
    """Target interpreter; empty means the one that runs the workbench."""
    keep_model_seconds: float = 1800.0
    """Idle time after which the model is unloaded."""
    keep_worker_seconds: float = 300.0
    """Time without model and clients after which the worker exits."""


def options_for(
    session: str = "", python: str = "", keep_model_seconds: float = 1800.0, keep_worker_seconds: float = 300.0
) -> SessionOptions:
    """Session options of a command line: each interpreter has a session of its own unless one is named.

    The default one belongs to the interpreter that runs the workbench, unless another one's workbench was there first.

    Raises:
        WorkbenchError: ``bad-interpreter`` if `python` is no executable file.
    """
    executable = find_interpreter(python)
    return SessionOptions(session or _name_for(executable), executable, keep_model_seconds, keep_worker_seconds)


def _name_for(executable: str) -> str:
    own = own_session(executable)
    if not _same_interpreter(executable, sys.executable) or _holder(own) is not None:
        return own
    holder = _holder(DEFAULT_SESSION)
    known = [python for python in (holder.requested, holder.executable) if python] if holder is not None else []
    taken = bool(known) and not any(_same_interpreter(executable, python) for python in known)
    return own if taken else DEFAULT_SESSION


def own_session(executable: str) -> str:
    """Name of the session of an interpreter that does not have the default one."""
    folder = Path(executable).parent.parent.name
    label = "".join(c for c in folder if c.isalnum() or c in "-_")[:20].lstrip("-_") or "python"
    return f"{label}-{hashlib.sha256(executable.encode()).hexdigest()[:8]}"


def whichever_runs(options: SessionOptions) -> SessionOptions:
    """The session of these options if it runs, else the default one, whichever interpreter it runs under."""
    if _holder(options.name) is None and _holder(DEFAULT_SESSION) is not None:
        return replace(options, name=DEFAULT_SESSION, python="")
    return options


def _holder(name: str) -> Optional[WorkerIdentity]:
    return lock_holder(SessionFiles.of(name).worker_lock)


def find_interpreter(python: str) -> str:
    """The absolute path of the interpreter a user named: a path, a command on PATH or an environment's folder.

    The path is not resolved: a virtual environment's python is a link, and the link is what makes it one.

    Raises:
        WorkbenchError: ``bad-interpreter``.
    """
    if not python:
        return sys.executable
    candidate = Path(python).expanduser()
    if candidate.is_dir():
        candidate = candidate / "bin" / "python"
    elif os.sep not in python:
        candidate = Path(shutil.which(python) or python)
    if not (candidate.is_file() and os.access(candidate, os.X_OK)):
        raise WorkbenchError(
            "bad-interpreter",
            f"There is no Python interpreter at {one_line(str(candidate))}.",
            "Name one with --python; workbench envs lists those on this box.",
        )
    return os.path.abspath(candidate)


def _same_interpreter(one: str, other: str) -> bool:
    return os.path.abspath(one) == os.path.abspath(other) or (
        Path(one).parent == Path(other).parent and os.path.realpath(one) == os.path.realpath(other)
    )


async def open_session(
    options: SessionOptions, client: str = "tui", watch: bool = True, sanitize: bool = True, start: bool = True
) -> SessionClient:
    """A greeted client of the session, whose worker is started if none runs.

    Raises:
        WorkbenchError: ``no-session`` (only with ``start=False``), ``worker-not-answering``, ``worker-start-failed``,
            ``bad-interpreter``, ``other-interpreter``, ``foreign-socket``, ``protocol-version`` and others.
    """
    files = SessionFiles.of(options.name)
    start_lock = FileLock(files.start_lock)
    child: Optional[subprocess.Popen[bytes]] = None
    try:
        deadline = time.monotonic() + (START_TIMEOUT_SECONDS if start else ANSWER_TIMEOUT_SECONDS)
        while True:
            connected = await _connect(files, client, watch, sanitize)
            if connected is not None:
                if child is None:
                    await _refuse_other_interpreter(connected, files, options)
                    if start and await _gives_way(connected):
                        continue
                connected.process, child = child, None
                connected.files = files
                return connected
            if not start:
                # A worker holds its lock some moments before it can be connected to, and some after.
                if lock_holder(files.worker_lock) is None:
                    raise WorkbenchError(
                        "no-session", f"Session {options.name!r} is not running.", "workbench session start starts it."
                    )
            elif child is None:
                if start_lock.acquire() and lock_holder(files.worker_lock) is None:
                    child = _spawn(files, options, start_lock)
            elif child.poll() == LOST_RACE:
                child = None
            elif child.poll() is not None:
                raise _start_failure(files, options, child.returncode)
            if time.monotonic() > deadline:
                raise _not_answering(files) if child is None else _too_slow(files, options)
            await asyncio.sleep(0.02)
    finally:
        if child is not None:
            # Nobody has met this worker; left alone it would be nobody's.
            end_group(child)
        start_lock.release()


async def _connect(files: SessionFiles, client: str, watch: bool, sanitize: bool) -> Optional[SessionClient]:
    try:
        connection = await transport.connect(files.socket)
    except (FileNotFoundError, ConnectionRefusedError):
        if not files.socket.is_dir():
            return None
        raise _unreachable(files, "it is a directory") from None
    except OSError as error:
        raise _unreachable(files, str(error.strerror or error)) from None
    session = SessionClient(connection, sanitize=sanitize)
    try:
        await asyncio.wait_for(session.greet(client, watch), ANSWER_TIMEOUT_SECONDS)
    except asyncio.TimeoutError:
        await session.close()
        raise _not_answering(files) from None
    except SessionLost:
        return None  # it ended between our connect and its answer
    except WorkbenchError:
        await session.close()
        raise
    return session


def _unreachable(files: SessionFiles, why: str) -> WorkbenchError:
    return WorkbenchError(
        "session-unreachable",
        f"Cannot connect to the session socket {files.socket}: {why}.",
        "Remove it if no workbench runs, or choose another --session name.",
    )


async def _refuse_other_interpreter(session: SessionClient, files: SessionFiles, options: SessionOptions) -> None:
    running = session.welcome.status.executable if session.welcome else ""
    holder = lock_holder(files.worker_lock)
    requested = holder.requested if holder is not None else ""
    if not options.python or any(_same_interpreter(options.python, one) for one in (running, requested) if one):
        return
    await session.close()
    raise WorkbenchError(
        "other-interpreter",
        f"Session {options.name!r} runs under {requested or running}, not under {options.python}.",
        f"Add --session {own_session(options.python)} for one of its own; or end the other: "
        f"workbench session stop --session {options.name}.",
    )


async def _gives_way(session: SessionClient) -> bool:
    """End a worker whose code or packages were changed under it, if nobody would lose anything by it."""
    welcome = session.welcome
    if welcome is None or not _is_outdated(welcome):
        return False
    status = welcome.status
    if status.model is not None or status.clients > 1 or any(lane.job or lane.queued for lane in status.lanes):
        return False
    with contextlib.suppress(WorkbenchError):
        if (await session.ask(Shutdown(), ShutdownNoted)).ending:
            await session.close()
            return True
    return session.lost is not None


def _is_outdated(welcome: Welcome) -> bool:
    return bool(welcome.outdated) or welcome.workbench_version != workbench.__version__


def _too_slow(files: SessionFiles, options: SessionOptions) -> WorkbenchError:
    return WorkbenchError(
        "worker-start-failed",
        f"{options.python or sys.executable} was started but gave no answer within {START_TIMEOUT_SECONDS:.0f} s; "
        "it was ended again.",
        f"See what it does: {options.python or sys.executable} -c 'print(1)'; the log is {files.log}.",
        log_tail(files),
    )


def _not_answering(files: SessionFiles) -> WorkbenchError:
    holder = lock_holder(files.worker_lock)
    pid = holder.pid if holder else 0
    remedy = f"workbench session stop --session {files.name} --force ends it" if pid else "Try again"
    return WorkbenchError(
        "worker-not-answering",
        f"The worker of session {files.name!r}" + (f" (pid {pid})" if pid else "") + " does not answer.",
        f"{remedy}; the log is {files.log}.",
        log_tail(files),
    )


def import_dir() -> Path:
    """A private folder that holds nothing but a link to the `workbench` package.

    It goes on the worker's path in place of our own site-packages, which would shadow the packages under examination.
    """
    package = Path(workbench.__file__).resolve().parent
    label = hashlib.sha256(os.fsencode(str(package))).hexdigest()[:8]
    folder = paths.ensure_private_dir(paths.runtime_dir() / f"import-{label}")
    link = folder / "workbench"
    if not link.is_symlink() or os.readlink(link) != str(package):
        temporary = folder / f".link-{os.getpid()}"
        with contextlib.suppress(FileExistsError):
            temporary.symlink_to(package)
        os.replace(temporary, link)
    return folder


def _spawn(files: SessionFiles, options: SessionOptions, start_lock: FileLock) -> subprocess.Popen[bytes]:
    python = options.python or sys.executable
    try:
        folder = import_dir()
        log = Spool(files.log).open()
    except OSError as error:
        raise WorkbenchError(
            "cannot-write",
            f"The session cannot start: {error.filename or files.log}: {error.strerror}.",
            f"Free some space, or point {paths.RUNTIME_VARIABLE} and XDG_STATE_HOME at a place that can be written.",
        ) from None
    environment = dict(os.environ)
    inherited = environment.get("PYTHONPATH", "")
    # The worker's working directory is not the user's: what is relative in the environment must not move with it.
    parts = [os.path.abspath(part) for part in inherited.split(os.pathsep) if part]
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), *parts])
    for variable in _PATH_VARIABLES:
        if environment.get(variable):
            environment[variable] = os.path.abspath(os.path.expanduser(environment[variable]))
    environment["WORKBENCH_HOME_PYTHON"] = sys.executable
    environment["PYTHONUNBUFFERED"] = "1"
    settings = {
        "session": files.name,
        "python": python,
        # Held by the worker too until it has its own lock, so that it is the only one even if this client dies now.
        "start_lock": start_lock.descriptor,
        "keep_model_seconds": options.keep_model_seconds,
        "keep_worker_seconds": options.keep_worker_seconds,
    }
    with contextlib.suppress(FileNotFoundError):
        files.farewell.unlink()
    try:
        return subprocess.Popen(
            [python, "-X", "faulthandler", "-m", "workbench.session.worker", json.dumps(settings)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            cwd=str(folder),
            start_new_session=True,
            pass_fds=() if start_lock.descriptor is None else (start_lock.descriptor,),
        )
    except OSError as error:
        raise WorkbenchError(
            "bad-interpreter",
            f"Cannot run {one_line(python)}: {error.strerror or error}.",
            "Name a Python interpreter with --python; workbench envs lists those on this box.",
        ) from None
    finally:
        os.close(log)


def _start_failure(files: SessionFiles, options: SessionOptions, code: int) -> WorkbenchError:
    tail = log_tail(files)
    last = one_line(tail.strip().rpartition("\n")[2])
    return WorkbenchError(
        "worker-start-failed",
        f"{options.python or sys.executable} did not start a session: {_ending(code)}"
        + (f"; its last words: {last}" if last else "."),
        f"It must be a Python of version 3.9 or newer with room to write; the log is {files.log}.",
        tail,
    )


def _ending(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"ended by {signal.Signals(-code).name}"
        return f"ended by signal {-code}"
    return f"exit code {code}"


def log_tail(files: SessionFiles, lines: int = 40) -> str:
    """The last lines of the session log."""
    return "\n".join(read_tail(files.log, lines))


async def describe_loss(session: SessionClient) -> SessionLost:
    """Why the worker behind a lost client is gone: its farewell, its exit code or signal, its last log lines."""
    files = session.files
    if files is None:
        return session.lost or SessionLost()
    # The socket closes a moment before the process is gone and its lock is free; longer on a busy machine.
    for _ in range(250):
        if lock_holder(files.worker_lock) is None and (session.process is None or session.process.poll() is not None):
            break
        await asyncio.sleep(0.02)
    tail = log_tail(files)
    with contextlib.suppress(OSError):
        return SessionLost(f"The model session ended: {one_line(files.farewell.read_text())}.", tail)
    holder = lock_holder(files.worker_lock)
    if holder is not None:
        return SessionLost(f"The model session (pid {holder.pid}) closed this connection.", tail)
    code = session.process.poll() if session.process is not None else None
    if code is None:
        crash = re.search("Fatal Python error: (.+)", Spool(files.log).unread())
        if crash:
            return SessionLost(f"The model session crashed: {one_line(crash[1])}.", tail)
        return SessionLost("The model session died without a farewell: killed (dmesg knows), or crashed.", tail)
    hint = " (the kernel's out-of-memory killer sends this too: see dmesg)" if code == -signal.SIGKILL else ""
    return SessionLost(f"The model session died: {_ending(code)}{hint}.", tail)


async def stop_session(name: str, force: bool = False, wait_seconds: float = 5.0) -> str:
    """End a session's worker: ask, then SIGTERM, then SIGKILL. Returns one line saying what happened.

    Raises:
        WorkbenchError: ``clients-attached`` if others use the session and `force` is not given.
    """
    files = SessionFiles.of(name)
    holder = lock_holder(files.worker_lock)
    if holder is None:
        return f"Session {name!r} is not running."
    others = await _ask_shutdown(name, force)
    if others:
        raise WorkbenchError(
            "clients-attached",
            f"Session {name!r} has {others} other client{'s' if others > 1 else ''} attached.",
            "Add --force to end it all the same.",
        )
    return await _end_process(files, holder, wait_seconds)


async def _ask_shutdown(name: str, force: bool) -> int:
    """Clients that keep the session from ending; 0 when it ends, or is beyond being asked."""
    try:
        session = await open_session(SessionOptions(name=name), client="cli", watch=False, start=False)
    except WorkbenchError:
        return 0
    try:
        reply = await asyncio.wait_for(session.ask(Shutdown(force=force), ShutdownNoted), ANSWER_TIMEOUT_SECONDS)
    except (WorkbenchError, asyncio.TimeoutError):
        return 0
    finally:
        await session.close()
    return 0 if reply.ending else reply.other_clients


async def _end_process(files: SessionFiles, holder: WorkerIdentity, wait_seconds: float) -> str:
    for sent in (None, signal.SIGTERM, signal.SIGKILL):
        if sent is not None:
            if not holder.pid or process_start_ticks(holder.pid) != holder.start_ticks:
                break  # never signal a stranger that got the pid
            with contextlib.suppress(ProcessLookupError):
                os.kill(holder.pid, sent)
                os.kill(holder.pid, signal.SIGCONT)
        deadline = time.monotonic() + wait_seconds
        while time.monotonic() < deadline:
            if lock_holder(files.worker_lock) is None:
                suffix = f" by {sent.name}" if sent is not None else ""
                return f"Session {files.name!r} (pid {holder.pid}) ended{suffix}."
            await asyncio.sleep(0.02)
    raise WorkbenchError(
        "worker-not-answering",
        f"Session {files.name!r} (pid {holder.pid}) does not end.",
        f"Look at it: ps -fp {holder.pid}; the log is {files.log}.",
    )
