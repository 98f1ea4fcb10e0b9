"""SIGKILL, SIGSEGV and SIGSTOP of the worker in whatever it is doing."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.box import Box, alive, one_clear_line, pid_of, processes_of, refused, until
from tests.faults.table import fault, faults
from tests.faults.test_model import GPT2, LLAMA, MEND, PATCH, last_answer, loaded
from workbench.session import launch, protocol
from workbench.session.client import Call, SessionClient
from workbench.session.launch import describe_loss

pytestmark = pytest.mark.model

ANSWER = protocol.Generate("Once upon a time", sampling={"greedy": True, "max_new_tokens": 60})
DYING = (
    "The model session died: ended by {}",
    "The model session died without a farewell: killed (dmesg knows), or crashed.",
    "The model session crashed: Segmentation fault.",
)
"""What is told: by the client that started the worker; by another one; by another one of a crash."""


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """Where a forward pass waits as long as this file is there."""
    path = tmp_path / "gate"
    path.touch()
    yield path
    path.unlink(missing_ok=True)


async def held_in_forward(box: Box, client: SessionClient, request: protocol.Request, gate: Path) -> Call:
    """A request whose forward pass has come to the gate; the first tokens of an answer went before."""
    reached = gate.with_name("reached")
    wait = f"while calls > {3 * isinstance(request, protocol.Generate)} and os.path.exists({str(gate)!r}): "
    wait += f"open({str(reached)!r}, 'w').close() or time.sleep(0.02)"
    box.inject(pid_of(client), "import os\n" + PATCH.format(what=wait))
    call = client.start(request)
    await until(reached.exists, "no forward pass")
    return call


async def progressed(call: Call) -> Call:
    """A request that has begun."""
    async for event in call.events():
        if isinstance(event, protocol.JobProgressed):
            return call
    raise AssertionError(await call.reply())


async def loading(box: Box, client: SessionClient, gate: Path) -> Call:
    return await progressed(client.start(GPT2))


async def answering(box: Box, client: SessionClient, gate: Path) -> Call:
    await client.ask(LLAMA, protocol.ModelLoaded)
    return await held_in_forward(box, client, ANSWER, gate)


async def tracing(box: Box, client: SessionClient, gate: Path) -> Call:
    await client.ask(LLAMA, protocol.ModelLoaded)
    return await held_in_forward(box, client, protocol.TraceModel("Once upon a time"), gate)


async def simulating(box: Box, client: SessionClient, gate: Path) -> Call:
    return await progressed(client.start(protocol.SimulateMemory("tiny-llama", {"job": "inference"})))


LANES: dict[str, Callable[[Box, SessionClient, Path], Awaitable[Call]]] = {
    "loads": loading,
    "answers": answering,
    "traces": tracing,
    "simulates": simulating,
}


async def text_so_far(client: SessionClient) -> tuple[str, str]:
    """The conversation that is being answered and what is kept of the answer."""
    (newest, *_) = (await client.ask(protocol.ListConversations(), protocol.ConversationsListed)).conversations
    number = str(newest["id"])
    return number, str((await last_answer(client, number))["text"])


async def ended(box: Box, lane: str, number: signal.Signals, gate: Path) -> None:
    """End the worker with a signal in this lane, and look at all that is promised then."""
    runtime = os.environ["WORKBENCH_RUNTIME_DIR"]
    client = await box.open()
    before = processes_of(runtime)
    call = await LANES[lane](box, client, gate)
    kept = ("", "")
    if lane == "answers":
        kept = await text_so_far(client)
    children = set(processes_of(runtime)) - set(before)
    os.kill(pid_of(client), number)
    assert (await refused(call.reply())).kind == "session-lost"
    lost = one_clear_line(await describe_loss(client))
    if client.process is not None:
        assert lost.message.startswith(DYING[0].format(number.name))
        assert ("out-of-memory" in lost.message) == (number == signal.SIGKILL)
    else:
        assert lost.message == DYING[1 if number == signal.SIGKILL else 2]
    if number == signal.SIGSEGV:
        assert "Segmentation fault" in lost.details
        assert re.search('File ".+", line', lost.details)
    await until(lambda: not any(map(alive, children)), "a child process is left behind")
    again = await box.open()
    status = (await again.ask(protocol.GetStatus(), protocol.StatusReported)).status
    assert status.pid != pid_of(client)
    assert status.model is None
    assert not any(lane.job for lane in status.lanes)
    if lane == "answers":
        answer = await last_answer(again, kept[0])
        assert answer["state"] == "partial"
        assert answer["text"].startswith(kept[1])


@pytest.mark.parametrize("lane", LANES)
@faults(
    "worker killed while it {}",
    LANES,
    "SIGKILL",
    "the signal named, the OOM killer hinted at; what was written is kept; no child left; a new worker",
)
async def test_killed(shared_box: Box, lane: str, gate: Path) -> None:
    await ended(shared_box, lane, signal.SIGKILL, gate)


@pytest.mark.parametrize("lane", LANES)
@faults(
    "worker crashes while it {}",
    LANES,
    "SIGSEGV",
    "the crash named, its place in the details; what was written is kept; no child left; a new worker",
)
async def test_crashes(shared_box: Box, lane: str, gate: Path) -> None:
    await ended(shared_box, lane, signal.SIGSEGV, gate)


@pytest.mark.parametrize("lane", LANES)
@faults(
    "worker frozen while it {}",
    LANES,
    "SIGSTOP, then SIGCONT",
    "a new client is told the pid and what to do; thawed, the work is done as if nothing had been",
)
async def test_frozen(shared_box: Box, lane: str, gate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await shared_box.open()
    call = await LANES[lane](shared_box, client, gate)
    os.kill(pid_of(client), signal.SIGSTOP)
    with monkeypatch.context() as impatient:
        impatient.setattr(launch, "ANSWER_TIMEOUT_SECONDS", 0.3)
        error = await shared_box.refusal()
    gate.unlink()
    os.kill(pid_of(client), signal.SIGCONT)
    assert error.kind == "worker-not-answering"
    assert str(pid_of(client)) in error.message
    assert "session stop" in error.remedy
    reply = await call.reply()
    assert not isinstance(reply, protocol.Failed), reply
    if isinstance(reply, protocol.Generated):
        assert (await last_answer(client, reply.conversation_id))["text"] == reply.result["text"]
    if lane in ("answers", "traces"):
        shared_box.inject(pid_of(client), MEND)


def memory_group() -> Path:
    """A control group whose memory can be limited, or the reason why there is none."""
    root = Path("/sys/fs/cgroup")
    try:
        if "memory" not in (root / "cgroup.subtree_control").read_text().split():
            pytest.skip("the memory controller is not handed on to groups below the root")
        (group := root / f"workbench-{os.getpid()}").mkdir()
    except OSError as error:
        pytest.skip(f"no control group (version 2) can be made here: {error.strerror}")
    return group


@fault(
    "worker killed by the kernel's out-of-memory killer",
    "a control group with a memory limit, a forward pass that fills it",
    "the signal named, the OOM killer hinted at; a new worker",
)
async def test_oom_killer(shared_box: Box) -> None:
    group = memory_group()
    client = await loaded(shared_box)
    try:
        (group / "memory.max").write_text(str(256 * 2**20))
        (group / "memory.swap.max").write_text("0")
        (group / "cgroup.procs").write_text(str(pid_of(client)))
        shared_box.inject(pid_of(client), PATCH.format(what="torch.ones(2**28)"))
        await refused(client.ask(ANSWER, protocol.Generated))
        lost = one_clear_line(await describe_loss(client))
        assert lost.message.startswith(DYING[0].format("SIGKILL") if client.process else DYING[1])
        await until(lambda: not alive(pid_of(client)))
    finally:
        await until(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()
