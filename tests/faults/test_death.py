"""The worker ends or stops, without a model: it is explained, and the next client has a new one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.box import Box, alive, bare_python, one_clear_line, pid_of, processes_of, until
from tests.faults.table import fault
from workbench.session import launch, protocol
from workbench.session.client import SessionClient, SessionLost
from workbench.session.launch import describe_loss, stop_session
from workbench.session.lock import lock_holder


async def loss(client: SessionClient) -> SessionLost:
    await until(lambda: client.lost is not None)
    lost = await describe_loss(client)
    one_clear_line(lost)
    return lost


@fault("worker killed while idle", "SIGKILL", "the signal named, the OOM killer hinted at; a new worker on request")
async def test_killed_idle(box: Box) -> None:
    client = await box.open()
    os.kill(pid_of(client), signal.SIGKILL)
    with pytest.raises(SessionLost):
        await client.ask(protocol.GetStatus(), protocol.StatusReported)
    lost = await loss(client)
    assert "SIGKILL" in lost.message
    assert "out-of-memory" in lost.message
    assert pid_of(await box.open()) != pid_of(client)


@fault("worker killed that another client started", "SIGKILL", "the one that did not start it is told as well")
async def test_killed_stranger(box: Box) -> None:
    await box.open()
    second = await box.open()
    os.kill(pid_of(second), signal.SIGKILL)
    lost = await loss(second)
    assert "died without a farewell" in lost.message


@fault("worker crashes while idle", "SIGSEGV", "the signal named, its last words in the details")
async def test_crash(box: Box) -> None:
    client = await box.open()
    os.kill(pid_of(client), signal.SIGSEGV)
    lost = await loss(client)
    assert "SIGSEGV" in lost.message
    assert "Segmentation fault" in lost.details


@fault("worker asked to end by the system", "SIGTERM", "watchers hear why, the next one is told, nothing left")
async def test_terminated(box: Box) -> None:
    client = await box.open(watch=True)
    os.kill(pid_of(client), signal.SIGTERM)
    endings = [event async for event in client.broadcasts() if isinstance(event, protocol.SessionEnding)]
    assert endings == [protocol.SessionEnding("received SIGTERM")]
    assert "received SIGTERM" in (await loss(client)).message
    assert not box.files.socket.exists()


@fault("terminal closed under the worker", "SIGHUP", "it goes on")
async def test_hung_up(box: Box) -> None:
    client = await box.open()
    os.kill(pid_of(client), signal.SIGHUP)
    await client.ask(protocol.GetStatus(), protocol.StatusReported)


@fault("worker frozen while idle", "SIGSTOP", "pid named, how to end it; no second worker; it can be ended")
async def test_frozen(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "ANSWER_TIMEOUT_SECONDS", 0.3)
    pid = pid_of(await box.open())
    os.kill(pid, signal.SIGSTOP)
    error = await box.refusal()
    assert error.kind == "worker-not-answering"
    assert str(pid) in error.message
    assert "session stop" in error.remedy
    assert len(processes_of(os.environ["WORKBENCH_RUNTIME_DIR"])) == 1
    assert "ended" in await stop_session(box.name, force=True, wait_seconds=0.3)
    assert not alive(pid)
    monkeypatch.setattr(launch, "ANSWER_TIMEOUT_SECONDS", 30.0)


@fault("worker frozen and thawed", "SIGSTOP, then SIGCONT", "what was asked in between is answered")
async def test_thawed(box: Box) -> None:
    client = await box.open()
    os.kill(pid_of(client), signal.SIGSTOP)
    asked = client.start(protocol.GetStatus())
    await asyncio.sleep(0.1)
    os.kill(pid_of(client), signal.SIGCONT)
    assert isinstance(await asked.reply(), protocol.StatusReported)


@fault(
    "worker leaves as a client comes", "SIGTERM and an attach at once", "the client waits for the lock, a new worker"
)
async def test_attach_while_leaving(box: Box) -> None:
    for _ in range(3):
        pid = pid_of(await box.open())
        os.kill(pid, signal.SIGTERM)
        assert pid_of(await box.open()) in {holder.pid for holder in [lock_holder(box.files.worker_lock)] if holder}
        await box.detach()


@fault("worker killed before it listens", "interpreter that kills itself at start", "how it ended, with its last words")
async def test_killed_at_start(box: Box, tmp_path: Path) -> None:
    shim = tmp_path / "python"
    shim.write_text("#!/bin/sh\necho no soup today >&2\nkill -9 $$\n")
    shim.chmod(0o755)
    error = await box.refusal(python=str(shim))
    assert error.kind == "worker-start-failed"
    assert "SIGKILL" in error.message
    assert "no soup today" in error.message


@fault(
    "client killed while it starts the worker", "SIGKILL of the client", "no worker without owner; the next one starts"
)
async def test_client_killed_while_starting(box: Box) -> None:
    code = (
        "import asyncio\n"
        "from workbench.session import launch\n"
        "spawn = launch._spawn\n"
        "def say(*given):\n"
        "    child = spawn(*given)\n"
        "    print(child.pid, flush=True)\n"
        "    import time; time.sleep(60)\n"
        "launch._spawn = say\n"
        f"asyncio.run(launch.open_session(launch.SessionOptions({box.name!r})))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    worker = int(await asyncio.to_thread(process.stdout.readline))
    process.kill()
    process.wait()
    process.stdout.close()
    assert pid_of(await box.open()) == worker


@fault("nobody needs the worker any more", "idle time of 0.3 s over", "stays while a client is attached, then leaves")
async def test_idle(box: Box) -> None:
    client = await box.open(keep_worker_seconds=0.3)
    pid = pid_of(client)
    await asyncio.sleep(1.2)
    assert alive(pid)
    await box.detach()
    await until(lambda: not alive(pid))
    assert "idle" in box.files.farewell.read_text()


@fault("interpreter is none", "/bin/false; a path that is not there", "the path named, one line")
async def test_no_interpreter(box: Box, tmp_path: Path) -> None:
    error = await box.refusal(python="/bin/false")
    assert error.kind == "worker-start-failed"
    assert "/bin/false" in error.message
    error = await box.refusal(python=str(tmp_path / "absent"))
    assert error.kind == "bad-interpreter"


@fault("interpreter too old", "one that says it is 3.8", "the version needed and the one found")
async def test_old_interpreter(box: Box, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.version_info = (3, 8, 1, 'final', 0)\n")
    shim = tmp_path / "python"
    shim.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{tmp_path}" exec {sys.executable} "$@"\n')
    shim.chmod(0o755)
    error = await box.refusal(python=str(shim))
    assert "3.9 or newer" in error.message


@fault("interpreter without any package", "a bare virtual environment", "serves; torch missing is a finding")
async def test_bare_interpreter(box: Box, tmp_path: Path) -> None:
    python = bare_python(tmp_path / "bare")
    client = await box.open(python=python)
    warmed = await client.ask(protocol.Warm(), protocol.Warmed)
    assert warmed.torch_state == "missing"


@fault("interpreter that prints", "sitecustomize writes escapes to both outputs", "serves; the noise is in the log")
async def test_noisy_interpreter(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os\nos.write(1, b'\\x1b]0;owned\\x07junk\\n')\nos.write(2, b'more junk\\n')\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    client = await box.open()
    lines = (await client.ask(protocol.ReadLog(), protocol.LogRead)).lines
    assert any("more junk" in line for line in lines)


@fault(
    "interpreter removed under the worker", "its link deleted", "attached clients are served; a start names the path"
)
async def test_removed_interpreter(box: Box, tmp_path: Path) -> None:
    python = bare_python(tmp_path / "env")
    client = await box.open(python=python)
    Path(python).unlink()
    await client.ask(protocol.ListFamilies(), protocol.FamiliesListed)
    await client.ask(protocol.Shutdown(force=True), protocol.ShutdownNoted)
    await loss(client)
    error = await box.refusal(python=python)
    assert error.kind == "bad-interpreter"
    assert python in error.message


@fault(
    "another interpreter is asked for", "a session runs under the first", "said, with what to do; not attached silently"
)
async def test_other_interpreter(box: Box, tmp_path: Path) -> None:
    await box.open()
    error = await box.refusal(python=bare_python(tmp_path / "other"))
    assert error.kind == "other-interpreter"
    assert "--session" in error.remedy
