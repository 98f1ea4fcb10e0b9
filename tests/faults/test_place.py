"""Where the session lives: sockets, locks and the directory they are in."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.box import Box, alive, one_clear_line, until
from tests.faults.table import fault
from workbench import paths
from workbench.errors import WorkbenchError
from workbench.session import protocol
from workbench.session.launch import stop_session
from workbench.session.lock import FileLock, SessionFiles, WorkerIdentity, lock_holder


def complaint() -> WorkbenchError:
    with pytest.raises(WorkbenchError) as caught:
        SessionFiles.of("x")
    return one_clear_line(caught.value)


@fault("stale socket", "a socket that nobody listens on", "replaced silently")
async def test_stale_socket(box: Box) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(box.files.socket))
    await box.open()


@fault("something else in the socket's place", "a file; a directory", "replaced; or named with what to do")
async def test_no_socket(box: Box) -> None:
    box.files.socket.write_text("not a socket")
    await box.open()
    await box.detach()
    await stop_session(box.name, force=True)
    box.files.socket.mkdir()
    error = await box.refusal()
    assert f"{box.files.socket}: it is a directory" in error.message
    box.files.socket.rmdir()


@fault("something else in the lock's place", "a directory; a link; a pipe", "named with what to do")
async def test_no_lock(box: Box, tmp_path: Path) -> None:
    box.files.worker_lock.mkdir()
    assert str(box.files.worker_lock) in (await box.refusal()).message
    box.files.worker_lock.rmdir()
    box.files.worker_lock.symlink_to(tmp_path / "elsewhere")
    assert str(box.files.worker_lock) in (await box.refusal()).message
    assert not (tmp_path / "elsewhere").exists()
    box.files.worker_lock.unlink()
    os.mkfifo(box.files.worker_lock)
    error = await box.refusal()
    assert f"{box.files.worker_lock}: It is not a regular file" in error.message
    box.files.worker_lock.unlink()


@fault("socket of another user", "chown", "not spoken to; how to get a place of one's own")
async def test_foreign_socket(box: Box) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to give a file away")
    box.files.socket.touch()
    os.chown(box.files.socket, 12345, 12345)
    error = await box.refusal()
    assert error.kind == "foreign-socket"
    assert "12345" in error.message
    box.files.socket.unlink()


@fault("socket path too long", "a runtime directory of 110 characters", "the limit and the path named")
async def test_long_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(paths.RUNTIME_VARIABLE, str(tmp_path / ("d" * 110)))
    assert complaint().kind == "socket-path-too-long"


@fault(
    "XDG_RUNTIME_DIR missing, or another user's",
    "variable unset; set to a strange place",
    "not used: found after a logout",
)
def test_xdg_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(paths.RUNTIME_VARIABLE)
    for place in ("", str(tmp_path), "/run/user/12345"):
        monkeypatch.setenv("XDG_RUNTIME_DIR", place)
        assert str(paths.runtime_dir()) == f"/tmp/workbench-{os.getuid()}"


@fault("runtime directory shared with others", "mode 0777; 1777 as /tmp; another's; a link", "closed; the rest refused")
def test_shared_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "run"
    place.mkdir()
    place.chmod(0o777)
    monkeypatch.setenv(paths.RUNTIME_VARIABLE, str(place))
    SessionFiles.of("x")
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    place.chmod(0o1777)
    assert "everybody's" in complaint().message
    assert stat.S_IMODE(place.stat().st_mode) == 0o1777
    place.chmod(0o700)
    link = tmp_path / "link"
    link.symlink_to(place)
    monkeypatch.setenv(paths.RUNTIME_VARIABLE, str(link))
    assert complaint().kind == "unsafe-directory"
    if os.getuid() == 0:
        os.chown(place, 12345, 12345)
        monkeypatch.setenv(paths.RUNTIME_VARIABLE, str(place))
        assert str(place) in complaint().message


@fault(
    "runtime directory cannot be made",
    "a place no user can write to; a file in the way",
    "named, which variables to set",
)
def test_no_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in ("/sys/workbench", str(tmp_path / "file" / "run")):
        monkeypatch.setenv(paths.RUNTIME_VARIABLE, place)
        assert paths.RUNTIME_VARIABLE in complaint().remedy


@fault(
    "runtime directory removed under the worker",
    "rm -r of socket, locks and log",
    "those attached are served; it leaves after them",
)
async def test_removed_directory(box: Box) -> None:
    client = await box.open()
    shutil.rmtree(box.files.socket.parent)
    await until(lambda: any(box.files.socket.parent.glob("import-*/workbench")))
    await client.ask(protocol.ListFamilies(), protocol.FamiliesListed)
    assert client.welcome is not None
    pid = client.welcome.status.pid
    assert alive(pid)
    await box.detach()
    await until(lambda: not alive(pid))


@fault(
    "pid of a dead worker given to a stranger",
    "lock held, its content names our shell with another start time",
    "never signalled",
)
async def test_reused_pid(box: Box) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    holder = FileLock(box.files.worker_lock)
    assert holder.acquire()
    holder.write(WorkerIdentity(stranger.pid, 1, "/usr/bin/python", 0.0))
    try:
        found = lock_holder(box.files.worker_lock)
        assert found is not None
        assert found.pid == 0
        with pytest.raises(WorkbenchError) as caught:
            await stop_session(box.name, force=True, wait_seconds=0.1)
        one_clear_line(caught.value)
        assert alive(stranger.pid)
    finally:
        holder.release()
        stranger.kill()
        stranger.wait()


@fault("lock file of a dead worker is garbage", "binary; half a JSON; a list", "started over it")
async def test_garbage_lock(box: Box) -> None:
    for content in (b"\x00\xff", b'{"pid": 1', json.dumps([1, 2]).encode(), b"\xef" * 5000):
        box.files.worker_lock.write_bytes(content)
        assert lock_holder(box.files.worker_lock) is None
    await box.open()


@fault("ten starts at once", "ten processes", "one worker, all attached to it")
async def test_ten_starts(box: Box) -> None:
    code = (
        "import asyncio\n"
        "from workbench.session.launch import open_session, SessionOptions\n"
        "async def main():\n"
        f"    client = await open_session(SessionOptions({box.name!r}), client='test', watch=False)\n"
        "    print(client.welcome.status.pid, flush=True)\n"
        "    input()\n"
        "asyncio.run(main())\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(10)
    ]
    pids = set()
    for process in started:
        assert process.stdout is not None
        pids.add(process.stdout.readline().strip())
    for process in started:
        process.communicate("\n")
    assert len(pids) == 1
    assert pids != {""}


@fault("no space where the session lives", "a full tmpfs as runtime directory", "the place named, nothing left running")
async def test_full_runtime(box: Box, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = Path(os.environ[paths.RUNTIME_VARIABLE]) / "full"
    place.mkdir(mode=0o700)
    options = "size=64k,mode=700"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(place)], capture_output=True).returncode:
        pytest.skip("needs to mount a file system")
    with contextlib.suppress(OSError):
        (place / "filler").write_bytes(b"x" * 64 * 1024)
    ours = os.environ[paths.RUNTIME_VARIABLE]
    monkeypatch.setenv(paths.RUNTIME_VARIABLE, str(place))
    try:
        full = Box("full")
        error = await full.refusal()
        assert error.kind in ("unsafe-directory", "cannot-write", "worker-start-failed")
        assert str(place) in f"{error.message}{error.remedy}"
        await full.nothing_left()
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
        monkeypatch.setenv(paths.RUNTIME_VARIABLE, ours)
