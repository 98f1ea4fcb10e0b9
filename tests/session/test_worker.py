"""A real worker process over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Opener
from workbench import paths
from workbench.errors import WorkbenchError
from workbench.session import launch, protocol
from workbench.session.client import SessionLost
from workbench.session.launch import SessionOptions, describe_loss, open_session, stop_session
from workbench.session.lock import SessionFiles, lock_holder


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


async def test_clients_that_start_at_once_share_one_worker(private_home: Path) -> None:
    code = (
        "import asyncio\n"
        "from workbench.session.launch import open_session, SessionOptions\n"
        "async def main():\n"
        "    client = await open_session(SessionOptions('race'), client='test', watch=False)\n"
        "    print(client.welcome.status.pid, flush=True)\n"
        "    input()\n"
        "asyncio.run(main())\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    pids = set()
    for process in started:
        assert process.stdout is not None
        pids.add(process.stdout.readline().strip())
    for process in started:
        process.communicate("\n")
    assert len(pids) == 1
    assert pids != {""}


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


async def test_a_killed_worker_is_explained_and_replaced(session_opener: Opener) -> None:
    client = await session_opener()
    pid = client.welcome.status.pid  # type: ignore[union-attr]
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(SessionLost):
        await asyncio.wait_for(client.ask(protocol.GetStatus(), protocol.StatusReported), 5)
    lost = await describe_loss(client)
    assert "SIGKILL" in lost.message
    again = await session_opener()
    assert again.welcome.status.pid != pid  # type: ignore[union-attr]


async def test_a_crash_leaves_its_last_words(session_opener: Opener) -> None:
    client = await session_opener()
    os.kill(client.welcome.status.pid, signal.SIGSEGV)  # type: ignore[union-attr]
    await until(lambda: client.lost is not None)
    lost = await describe_loss(client)
    assert "SIGSEGV" in lost.message
    assert "Segmentation fault" in lost.details


async def test_a_stale_socket_is_replaced(session_opener: Opener) -> None:
    files = SessionFiles.of("test")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(files.socket))
    client = await session_opener()
    assert client.welcome is not None


async def test_a_stopped_process_is_named_and_can_be_ended(
    session_opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "ANSWER_TIMEOUT_SECONDS", 0.5)
    client = await session_opener()
    pid = client.welcome.status.pid  # type: ignore[union-attr]
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(WorkbenchError, match=str(pid)) as caught:
        await session_opener()
    assert caught.value.kind == "worker-not-answering"
    line = await stop_session("test", force=True, wait_seconds=0.5)
    assert "ended" in line
    assert not alive(pid)


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


async def test_sigterm_says_goodbye(session_opener: Opener) -> None:
    client = await session_opener(watch=True)
    os.kill(client.welcome.status.pid, signal.SIGTERM)  # type: ignore[union-attr]
    endings = [event async for event in client.broadcasts() if isinstance(event, protocol.SessionEnding)]
    assert endings == [protocol.SessionEnding("received SIGTERM")]
    assert "received SIGTERM" in (await describe_loss(client)).message


async def test_sighup_does_not_end_it(session_opener: Opener) -> None:
    client = await session_opener()
    os.kill(client.welcome.status.pid, signal.SIGHUP)  # type: ignore[union-attr]
    await client.ask(protocol.GetStatus(), protocol.StatusReported)


async def test_an_idle_worker_without_clients_leaves(session_opener: Opener) -> None:
    client = await session_opener(keep_worker_seconds=0.5)
    pid = client.welcome.status.pid  # type: ignore[union-attr]
    await asyncio.sleep(1.5)
    assert alive(pid), "a client is attached"
    await client.close()
    await until(lambda: not alive(pid))
    assert client.files is not None
    assert "idle" in client.files.farewell.read_text()


async def test_it_runs_under_an_interpreter_without_any_package(session_opener: Opener, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    python = str(tmp_path / "bare" / "bin" / "python")
    client = await session_opener(name="bare", python=python)
    assert client.welcome.status.executable == python  # type: ignore[union-attr]
    warmed = await client.ask(protocol.Warm(), protocol.Warmed)
    assert warmed.torch_state == "missing"
    assert (
        f"{python} -m pip install torch"
        in str((await client.ask(protocol.GetStatus(), protocol.StatusReported)).status.torch_error)
        or "needs torch, which is not installed" in warmed.torch_error
    )


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


async def test_another_interpreter_is_not_attached_to_silently(session_opener: Opener, tmp_path: Path) -> None:
    await session_opener()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "other")], check=True)
    with pytest.raises(WorkbenchError) as caught:
        await session_opener(python=str(tmp_path / "other" / "bin" / "python"))
    assert caught.value.kind == "other-interpreter"
    options = launch.options_for(python=str(tmp_path / "other"))
    assert options.name.startswith("other-")


async def test_a_socket_of_someone_else_is_refused(session_opener: Opener) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to give a file away")
    files = SessionFiles.of("test")
    files.socket.touch()
    os.chown(files.socket, 12345, 12345)
    with pytest.raises(WorkbenchError) as caught:
        await session_opener()
    assert caught.value.kind == "foreign-socket"


async def test_a_client_of_another_user_is_turned_away(session_opener: Opener) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to become someone else")
    client = await session_opener()
    assert client.files is not None
    client.files.socket.chmod(0o777)
    client.files.socket.parent.chmod(0o755)
    code = (
        "import os, socket, sys\n"
        "os.setuid(12345)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "s.settimeout(5)\n"
        "try:\n"
        "    s.sendall(b'hello')\n"
        "    print(len(s.recv(100)))\n"
        "except (BrokenPipeError, ConnectionResetError):\n"
        "    print(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(client.files.socket)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "0"
    await client.ask(protocol.GetStatus(), protocol.StatusReported)


async def raw(client_path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_unix_connection(str(client_path), limit=protocol.MAX_FRAME_BYTES)


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        (b"\x00\xff binary\n", "bad-json"),
        (b'{"v":1,"id":5,"type":"fly","body":{}}\n', "unknown-request"),
        (b'{"v":9,"id":5,"type":"hello","body":{}}\n', "protocol-version"),
        (b'{"v":1,"id":5,"type":"list_models","body":{}}\n', "protocol-version"),
        (b'{"v":1,"id":5,"type":"hello","body":{"protocol_version":9}}\n', "protocol-version"),
        (b'{"v":1,"id":5,"type":"welcome","body":{}}\n', "bad-field"),
    ],
)
async def test_bad_clients_get_one_answer_and_harm_nobody(session_opener: Opener, lines: bytes, kind: str) -> None:
    client = await session_opener()
    assert client.files is not None
    reader, writer = await raw(client.files.socket)
    writer.write(lines)
    answer = json.loads(await asyncio.wait_for(reader.readline(), 5))
    assert answer["type"] == "failed"
    assert answer["body"]["kind"] == kind
    writer.write(b'{"half a line')
    writer.close()
    await client.ask(protocol.GetStatus(), protocol.StatusReported)


async def test_an_endless_line_is_cut_off_with_bounded_memory(session_opener: Opener) -> None:
    client = await session_opener()
    assert client.files is not None
    reader, writer = await raw(client.files.socket)
    with contextlib.suppress(ConnectionError):
        for _ in range(200):
            writer.write(b"x" * 2**20)
            await writer.drain()
    with contextlib.suppress(ConnectionError):
        assert b"frame-too-large" in await asyncio.wait_for(reader.read(), 10)
    status = (await client.ask(protocol.GetStatus(), protocol.StatusReported)).status
    assert status.resident_bytes < 300 * 2**20


async def test_native_output_lands_in_the_log_with_repeats_folded(session_opener: Opener) -> None:
    client = await session_opener()
    assert client.files is not None
    spool = client.files.log.with_suffix(".raw")
    with spool.open("ab") as file:
        file.write(b"noise\n" * 5000 + b"10%\r50%\r100%\n" + b"token hf_abcdefghijklmnopqrstuvwxyz\n")
    log = (await client.ask(protocol.ReadLog(lines=50), protocol.LogRead)).lines
    text = "\n".join(log)
    assert sum(line.endswith(" noise") for line in log) == 1
    assert "repeated 4,999 times more: noise" in text
    assert "100%" in text
    assert "50%" not in text
    assert "abcdefghij" not in text


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


def test_sessions_are_found_again_after_a_logout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(paths.RUNTIME_VARIABLE)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert str(paths.runtime_dir()) == f"/tmp/workbench-{os.getuid()}"


async def test_nothing_starts_when_asked_not_to(private_home: Path) -> None:
    with pytest.raises(WorkbenchError) as caught:
        await open_session(SessionOptions("absent"), start=False)
    assert caught.value.kind == "no-session"
