"""A real worker process over a real socket."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.conftest import Opener
from workbench import paths
from workbench.cli.session import command as session_command
from workbench.errors import WorkbenchError
from workbench.session import launch, protocol
from workbench.session.launch import SessionOptions, open_session, stop_session
from workbench.session.lock import FileLock, SessionFiles, lock_holder


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "never happened"
        await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


async def test_it_answers_before_importing_anything_heavy(session_opener: Opener) -> None:
    client = await session_opener()
    assert client.welcome is not None
    status = client.welcome.status
    assert status.torch_state == "not imported"
    assert status.executable == sys.executable
    mapped = Path(f"/proc/{status.pid}/maps").read_text()
    assert "libtorch" not in mapped
    assert "site-packages" not in mapped


async def test_files_are_the_users_alone(session_opener: Opener) -> None:
    client = await session_opener()
    files = client.files
    assert files is not None
    assert stat.S_IMODE(files.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(files.socket.parent.stat().st_mode) == 0o700
    await client.ask(protocol.ReadLog(), protocol.LogRead)
    assert stat.S_IMODE(files.log.stat().st_mode) == 0o600
    assert stat.S_IMODE(files.log.parent.stat().st_mode) == 0o700


async def test_the_worker_outlives_the_client_that_started_it(session_opener: Opener) -> None:
    first = await session_opener()
    pid = first.welcome.status.pid  # type: ignore[union-attr]
    await first.close()
    second = await session_opener()
    assert second.welcome.status.pid == pid  # type: ignore[union-attr]


async def test_status_reaches_watchers_and_counts_clients(session_opener: Opener) -> None:
    watcher = await session_opener(watch=True)
    await session_opener()
    async for event in watcher.broadcasts():
        if isinstance(event, protocol.StatusChanged) and event.status.clients == 2:
            break


async def test_stop_leaves_nothing_behind(session_opener: Opener) -> None:
    client = await session_opener()
    pid = client.welcome.status.pid  # type: ignore[union-attr]
    assert client.files is not None
    with pytest.raises(WorkbenchError, match="other client"):
        await stop_session("test")
    assert alive(pid)
    await client.close()
    assert "ended" in await stop_session("test")
    await until(lambda: not alive(pid))
    assert not client.files.socket.exists()
    assert "not running" in await stop_session("test")


def interpreters() -> dict[str, str]:
    """Other Pythons of this machine by version; looked up before tests get a home of their own."""
    found = {}
    for version in ("3.9", "3.10", "3.12", "3.13"):
        pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
        path = str(pyenv[-1]) if pyenv else shutil.which(f"python{version}")
        if path:
            found[version] = path
    return found


@pytest.mark.parametrize(("version", "python"), interpreters().items())
async def test_it_runs_under_other_pythons(session_opener: Opener, version: str, python: str) -> None:
    client = await session_opener(name="other", python=python)
    assert client.welcome.status.python_version.startswith(version)  # type: ignore[union-attr]
    report = (await client.ask(protocol.Diagnose(live=False), protocol.Diagnosed)).report
    assert report["facts"]["python"]


async def test_what_is_no_python_is_said(session_opener: Opener, tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError) as caught:
        await session_opener(name="odd", python="/bin/false")
    assert caught.value.kind == "worker-start-failed"
    assert "/bin/false" in caught.value.message
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no soup today >&2\nexit 4\n")
    broken.chmod(0o755)
    with pytest.raises(WorkbenchError, match="no soup today"):
        await session_opener(name="odd", python=str(broken))
    with pytest.raises(WorkbenchError, match="There is no Python interpreter"):
        launch.find_interpreter(str(tmp_path / "absent"))


async def test_a_wrapper_script_is_an_interpreter_too(session_opener: Opener, tmp_path: Path) -> None:
    shim = tmp_path / "shim"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    shim.chmod(0o755)
    first = await session_opener(name="shim", python=str(shim))
    second = await session_opener(name="shim", python=str(shim))
    assert first.welcome.status.pid == second.welcome.status.pid  # type: ignore[union-attr]


async def test_a_relative_runtime_directory_is_the_clients(
    session_opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(os.environ[paths.RUNTIME_VARIABLE])
    monkeypatch.setenv(paths.RUNTIME_VARIABLE, "r")
    client = await session_opener()
    await client.ask(protocol.Shutdown(force=True), protocol.ShutdownNoted)


async def test_another_interpreter_is_not_attached_to_silently(
    session_opener: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await session_opener(name=launch.DEFAULT_SESSION)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "other")], check=True)
    with pytest.raises(WorkbenchError) as caught:
        await session_opener(name=launch.DEFAULT_SESSION, python=str(tmp_path / "other" / "bin" / "python"))
    assert caught.value.kind == "other-interpreter"
    options = launch.options_for(python=str(tmp_path / "other"))
    assert options.name.startswith("other-")
    assert f"--session {options.name} " in caught.value.remedy
    # The same for a workbench that is itself installed there; what any session can tell it asks this one.
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", options.python)
        assert launch.options_for() == options
        found = launch.whichever_runs(options)
        assert (found.name, found.python) == (launch.DEFAULT_SESSION, "")
        status = await asyncio.to_thread(CliRunner().invoke, session_command, ["status"])
        assert status.exit_code == 0, status.output
    assert launch.options_for().name == launch.DEFAULT_SESSION


async def test_session_names_and_paths_are_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("../x", "", "a b", "x" * 41, ".hidden"):
        with pytest.raises(WorkbenchError, match="cannot name a session"):
            SessionFiles.of(name)
    assert lock_holder(SessionFiles.of("x").worker_lock) is None
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(WorkbenchError, match="not a directory of user"):
        paths.ensure_private_dir(link)
    deep = tmp_path / ("d" * 110)
    monkeypatch.setenv(paths.RUNTIME_VARIABLE, str(deep))
    with pytest.raises(WorkbenchError, match="longer than"):
        SessionFiles.of("x")


async def test_nothing_starts_when_asked_not_to(private_home: Path) -> None:
    with pytest.raises(WorkbenchError) as caught:
        await open_session(SessionOptions("absent"), start=False)
    assert caught.value.kind == "no-session"


async def test_a_worker_that_holds_its_lock_without_answering_is_starting_or_ending(private_home: Path) -> None:
    lock = FileLock(SessionFiles.of("ending").worker_lock)
    assert lock.acquire()
    opening = asyncio.create_task(open_session(SessionOptions("ending"), start=False))
    await asyncio.sleep(0.2)
    assert not opening.done()
    lock.release()
    with pytest.raises(WorkbenchError) as caught:
        await opening
    assert caught.value.kind == "no-session"
