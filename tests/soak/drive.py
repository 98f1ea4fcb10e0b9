"""Drives one session with random operations of several clients while it is killed, frozen and sent noise."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.app_on_terminal import App
from tests.faults.box import Box, alive, processes_of, until
from workbench.errors import JobCancelled, WorkbenchError
from workbench.session import protocol
from workbench.session.client import SessionClient
from workbench.session.launch import stop_session
from workbench.session.lock import lock_holder

SESSION = "soak"
LLAMA = protocol.LoadModel("tiny-llama", dtype="float32", device="cpu")
GPT2 = protocol.LoadModel("tiny-gpt2", dtype="float32", device="cpu")
WORDS = ("Once upon a time", "[/nope] \x1b[31m", "ünïcödé 🎈", "x " * 60)
APP_KEYS = ("\x1bOP", "\x1bOQ", "\x1bOR", "\x1bOS", "\x1b[15~", "\x1b", "\x1b[B", "\x1b[A", "\t", "\x1b[20~", "hello")
LOST = ("session-lost", "worker-not-answering", "worker-start-failed", "foreign-socket")
"""What a client may be told because of a kill; everything else must be about its own request."""
FREEZE_SECONDS = 0.3
REPORT_BYTES = 30_000
"""Of what the app wrote last: it ends with the report of an error, if that is how it ended."""
STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
WARM_UP_SECONDS = 240.0
"""Half of it is quiet, and of that two thirds are looked at."""
GROWTH_BYTES = 48 * 2**20
"""Of resident memory, after the warm-up, that is no leak: caches with a bound, the allocator's own."""
GROWTH_DESCRIPTORS = 8


@dataclass
class Usage:
    """What a process holds."""

    resident_bytes: int
    descriptors: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return cls(pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir(f"/proc/{pid}/fd")))


@dataclass
class Findings:
    """What happened."""

    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    chaos: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    answers: dict[tuple[str, str], str] = field(default_factory=dict)
    """Text by conversation and message, of every answer that was told to be complete."""
    usage: dict[str, list[Usage]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """A summary for people."""
        told = [
            f"{self.done.total():,} operations, {self.refused.total():,} of them refused: {dict(self.refused)}",
            f"chaos: {dict(self.chaos)}",
            f"{len(self.answers):,} answers kept and read back",
        ]
        for name, samples in self.usage.items():
            if samples:
                first, last, most = samples[0], samples[-1], max(sample.resident_bytes for sample in samples)
                mib = f"{first.resident_bytes / 2**20:.0f} → {last.resident_bytes / 2**20:.0f} MiB"
                told.append(
                    f"{name}: {mib} (most {most / 2**20:.0f}), descriptors {first.descriptors} → {last.descriptors}"
                )
        return [*told, *(f"PROBLEM: {problem}" for problem in self.problems)]


class Client:
    """One client that goes on whatever happens to the session."""

    def __init__(self, number: int, findings: Findings) -> None:
        self.dice = random.Random(number)
        self.findings = findings
        self.box = Box(SESSION)
        self.client: SessionClient | None = None
        self.conversations: list[str] = []

    async def run(self, until_time: float) -> None:
        operations = [name for name, share in OPERATIONS.items() for _ in range(share)]
        while time.monotonic() < until_time:
            name = self.dice.choice(operations)
            try:
                if self.client is None or self.client.lost is not None:
                    await self.box.detach()
                    self.client = await self.box.open()
                await asyncio.wait_for(getattr(self, name)(self.client), 90)
            except WorkbenchError as error:
                self.findings.refused[error.kind] += 1
                if error.kind == "internal" or "Traceback" in f"{error.message}{error.remedy}":
                    self.findings.problems.append(f"{name}: {error} {error.details[-800:]}")
            except JobCancelled:
                self.findings.refused["cancelled"] += 1
            except asyncio.TimeoutError:
                self.findings.problems.append(f"{name} was not answered within 90 s")
                self.client = None
            self.findings.done[name] += 1
        await self.box.detach()

    async def status(self, client: SessionClient) -> None:
        await client.ask(protocol.GetStatus(), protocol.StatusReported)

    async def count(self, client: SessionClient) -> None:
        texts = [{"name": "a", "text": self.dice.choice(WORDS) * self.dice.randrange(1, 30)}]
        await client.ask(protocol.CountTokens(texts, ["tiny-llama", "tiny-gpt2"]), protocol.TokensCounted)

    async def inspect(self, client: SessionClient) -> None:
        name = self.dice.choice(("tiny-llama", "tiny-mixtral", "tiny-t5", "absent/model", "\x1b[2J"))
        await client.ask(protocol.InspectModel(name), protocol.ModelInspected)

    async def estimate(self, client: SessionClient) -> None:
        plan = {"job": self.dice.choice(("inference", "full", "qlora", "nonsense")), "batch": self.dice.randrange(0, 9)}
        await client.ask(protocol.EstimateMemory("tiny-llama", plan), protocol.MemoryEstimated)

    async def log(self, client: SessionClient) -> None:
        await client.ask(protocol.ReadLog(), protocol.LogRead)

    async def load(self, client: SessionClient) -> None:
        await client.ask(self.dice.choice((LLAMA, GPT2)), protocol.ModelLoaded)

    async def unload(self, client: SessionClient) -> None:
        await client.ask(protocol.UnloadModel(), protocol.ModelUnloaded)

    async def trace(self, client: SessionClient) -> None:
        await client.ask(protocol.TraceModel("Once upon", load=LLAMA), protocol.ModelTraced)

    async def conversations_listed(self, client: SessionClient) -> None:
        await client.ask(protocol.ListConversations(), protocol.ConversationsListed)

    async def answer(self, client: SessionClient, stop_after: int | None = None) -> None:
        conversation = self.dice.choice(["", "", *self.conversations[-3:]])
        request = protocol.Generate(
            self.dice.choice(WORDS),
            conversation_id=conversation,
            load=self.dice.choice((LLAMA, GPT2)),
            sampling={"max_new_tokens": self.dice.randrange(1, 60), "seed": 1},
        )
        call = client.start(request)
        came = 0
        async for event in call.events():
            if isinstance(event, protocol.TokensGenerated):
                came += 1
                if came == stop_after:
                    call.cancel()
        reply = await call.reply()
        if isinstance(reply, protocol.Generated):
            self.findings.answers[reply.conversation_id, str(reply.result["message_id"])] = reply.result["text"]
            self.conversations.append(reply.conversation_id)

    async def stopped_answer(self, client: SessionClient) -> None:
        await self.answer(client, stop_after=1)

    async def abandon(self, client: SessionClient) -> None:
        client.start(protocol.Generate("Once", load=LLAMA, sampling={"max_new_tokens": 200}))
        client.start(protocol.SimulateMemory("tiny-llama", {"job": "inference"}, only_kept=True))
        await self.box.detach()
        self.client = None

    async def noise(self, client: SessionClient) -> None:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_unix_connection(str(self.box.files.socket))
            writer.write(self.dice.randbytes(self.dice.randrange(1, 5000)) + self.dice.choice((b"\n", b"")))
            with contextlib.suppress(OSError):
                await writer.drain()
            writer.close()


OPERATIONS = {
    "status": 6,
    "count": 5,
    "inspect": 4,
    "estimate": 4,
    "log": 2,
    "load": 1,
    "unload": 1,
    "trace": 1,
    "conversations_listed": 3,
    "answer": 6,
    "stopped_answer": 3,
    "abandon": 2,
    "noise": 2,
}


async def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


async def crash(pid: int) -> None:
    os.kill(pid, signal.SIGSEGV)


async def end(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)


async def freeze(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    await asyncio.sleep(FREEZE_SECONDS)
    os.kill(pid, signal.SIGCONT)


CHAOS: tuple[Callable[[int], Awaitable[None]], ...] = (kill, freeze, freeze, crash, end)


def worker_pid() -> int:
    holder = lock_holder(Box(SESSION).files.worker_lock)
    return holder.pid if holder is not None and alive(holder.pid) else 0


async def chaos(findings: Findings, until_time: float, pause_seconds: float) -> None:
    """Break the worker again and again."""
    dice = random.Random(0)
    while time.monotonic() < until_time:
        await asyncio.sleep(pause_seconds * dice.uniform(0.5, 1.5))
        pid = worker_pid()
        if pid:
            deed = dice.choice(CHAOS)
            with contextlib.suppress(ProcessLookupError):
                await deed(pid)
                findings.chaos[deed.__name__] += 1


async def play_app(app: App, findings: Findings, until_time: float) -> None:
    """Somebody at the keyboard, whose session comes and goes."""
    dice = random.Random(1)
    pressed: deque[str] = deque(maxlen=20)
    while time.monotonic() < until_time:
        await asyncio.sleep(dice.uniform(0.1, 0.6))
        if app.process.poll() is not None:
            await app.quiet()
            report = STYLE.sub("", app.output.decode("utf-8", "replace"))
            findings.problems.append(f"the app ended with {app.process.returncode} after {pressed}: {report}")
            return
        pressed.append("\x12" if dice.random() < 0.1 else dice.choice(APP_KEYS))
        app.press(pressed[-1])
        app.resize(dice.choice((80, 120)), dice.choice((24, 40)))
        app.output = app.output[-REPORT_BYTES:]
        findings.done["app"] += 1


async def sample(app: App, findings: Findings, until_time: float, every_seconds: float) -> None:
    """What worker and app hold, while nobody kills the worker."""
    while time.monotonic() < until_time:
        await asyncio.sleep(every_seconds)
        for name, pid in (("worker", worker_pid()), ("app", app.process.pid)):
            with contextlib.suppress(OSError):
                used = Usage.of(pid)
                findings.usage.setdefault(name, []).append(used)


async def soak(seconds: float, clients: int = 4) -> Findings:
    """Half of the time with kills, half without to see what grows; then all that must hold is looked at."""
    findings = Findings()
    start = time.monotonic()
    middle, end_time = start + seconds / 2, start + seconds
    app = App("--session", SESSION, "--bench", "doctor")
    people = [Client(number, findings) for number in range(clients)]
    try:
        await asyncio.gather(
            *(person.run(end_time) for person in people),
            chaos(findings, middle, max(1.5, seconds / 60)),
            play_app(app, findings, end_time),
            after(middle + seconds / 6, lambda: sample(app, findings, end_time, max(0.3, seconds / 60))),
        )
        await history_complete(findings)
        steady(findings, warm=seconds >= WARM_UP_SECONDS)
        await left_over(findings, app)
    finally:
        app.end()
    return findings


async def after(when: float, then: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(max(0.0, when - time.monotonic()))
    await then()


async def history_complete(findings: Findings) -> None:
    """Every answer that was told to be complete is kept, word for word."""
    box = Box(SESSION)
    client = await box.open()
    for (conversation, message), text in findings.answers.items():
        read = await client.ask(protocol.OpenConversation(conversation), protocol.ConversationRead)
        kept: list[dict[str, Any]] = read.conversation["messages"]
        found = [entry["text"] for entry in kept if str(entry["id"]) == message]
        if found != [text]:
            known = [(entry["id"], entry["state"], entry["text"][:40]) for entry in kept]
            findings.problems.append(
                f"answer {message} of conversation {conversation}: told {text!r}, kept {found}; there are {known}"
            )
    await box.detach()


def steady(findings: Findings, warm: bool) -> None:
    """Neither memory nor descriptors grow; of memory only a process can tell that has run for a while."""
    for name in ("worker", "app"):
        samples = findings.usage.get(name, [])
        if len(samples) < 3:
            findings.problems.append(f"{name} did not run in the quiet half")
            continue
        third = max(1, len(samples) // 3)
        before, behind = samples[:third], samples[-third:]
        grown = min(s.resident_bytes for s in behind) - max(s.resident_bytes for s in before)
        if warm and grown > GROWTH_BYTES:
            findings.problems.append(f"{name} grew by {grown / 2**20:.0f} MiB")
        opened = min(s.descriptors for s in behind) - max(s.descriptors for s in before)
        if opened > GROWTH_DESCRIPTORS:
            findings.problems.append(f"{name} opened {opened} descriptors for good")


async def left_over(findings: Findings, app: App) -> None:
    """When app and session have ended, nothing of them is there."""
    if app.process.poll() is None:
        app.press("\x1b")
        app.hang_up()
    with contextlib.suppress(WorkbenchError):
        await stop_session(SESSION, force=True)
    try:
        await until(lambda: not processes_of(os.environ["WORKBENCH_RUNTIME_DIR"]))
    except AssertionError:
        findings.problems.append(f"processes left: {processes_of(os.environ['WORKBENCH_RUNTIME_DIR'])}")
