"""Running the probe steps in child processes, each failure contained. Stdlib only."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from workbench.doctor.child import STDERR_OFFSET, Child, Limits, Stuck, Waiting
from workbench.doctor.facts import Facts, ProbeStep
from workbench.errors import JobCancelled
from workbench.job import Job

OnStep = Callable[[ProbeStep, dict[str, Any]], None]

# Step and the distribution that it needs; without one there is nothing to try. The two groups run side by side.
_CORE = (
    ("torch", "torch"),
    ("cuda", "torch"),
    ("kernel", "torch"),
    ("bitsandbytes", "bitsandbytes"),
    ("numpy", "numpy"),
)
_COMPANIONS = (
    ("transformers", "transformers"),
    ("torchvision", "torchvision"),
    ("flash-attn", "flash-attn"),
    ("xformers", "xformers"),
)
_DELIVERY_SECONDS = 0.1
_TRIES = {
    "torch": "import torch",
    "cuda": "start CUDA",
    "kernel": "run a kernel",
    "bitsandbytes": "load bitsandbytes' library",
    "numpy": "hand a tensor to numpy",
}


def what_it_tries(step: str) -> str:
    """A step in words, such as ``import torch``."""
    return _TRIES.get(step, f"import {step.replace('-', '_')}")


class _Stoppable(Job):
    """The job of the second group: ends when the first one does not go on, and keeps what it does for the first."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.doing = ""

    def check(self) -> None:
        if self.stop.is_set():
            raise JobCancelled

    def progress(self, phase: str, done: int, total: Optional[int] = None, unit: str = "", detail: str = "") -> None:
        self.doing = detail


def _present(steps: tuple[tuple[str, str], ...], facts: Facts) -> list[str]:
    return [step for step, package in steps if package == "torch" or not facts.lacks(package)]


def run_probe(
    facts: Facts, job: Job, on_step: OnStep, limits: Limits, environ: Optional[Mapping[str, str]] = None
) -> None:
    """Run every step that applies; a step that kills or hangs its process does not stop the others.

    Args:
        facts: tells which steps apply.
        job: progress, which names the step under way and how long it takes; cancellation.
        on_step: called with every step that ended and what it found.
        limits: time that one step may take.
        environ: the environment of the children; this process's own if None.

    Raises:
        JobCancelled: if the caller asked to stop; all children are gone by then.
    """
    if not facts.torch.installed:
        return
    core, companions = _present(_CORE, facts), _present(_COMPANIONS, facts)
    beside = _Stoppable()
    results: queue.Queue[Optional[tuple[ProbeStep, dict[str, Any]]]] = queue.Queue()
    run = _Run(facts.torch.location, limits, environ)
    second = threading.Thread(target=_run_beside, args=(run, companions, beside, results), daemon=True)
    second.start()
    total, done = len(core) + len(companions), 0
    torch_works = False

    def take(step: ProbeStep, data: dict[str, Any]) -> None:
        nonlocal done, torch_works
        torch_works = torch_works or (step.step == "torch" and step.status == "passed")
        done += 1
        on_step(step, data)

    def tell(doing: str) -> None:
        job.progress("probe", done, total, "steps", doing)

    try:
        _run_group(run, core, job, take, tell)
        if torch_works:
            for step, data in _delivered(results, job, lambda: tell(beside.doing)):
                take(step, data)
        else:
            # What needs torch fails in its own words when torch does; that would be said twice.
            _skip(companions, take)
    finally:
        beside.stop.set()
        second.join()


def _delivered(
    results: queue.Queue[Optional[tuple[ProbeStep, dict[str, Any]]]], job: Job, tell: Callable[[], None]
) -> Iterator[tuple[ProbeStep, dict[str, Any]]]:
    while True:
        job.check()
        tell()
        try:
            item = results.get(timeout=_DELIVERY_SECONDS)
        except queue.Empty:
            continue
        if item is None:
            return
        yield item


@dataclass(frozen=True)
class _Run:
    """What every child of one examination is started with."""

    location: Optional[str]
    """Folder of torch."""
    limits: Limits
    environ: Optional[Mapping[str, str]]


def _run_beside(
    run: _Run, steps: list[str], job: Job, results: queue.Queue[Optional[tuple[ProbeStep, dict[str, Any]]]]
) -> None:
    try:
        with contextlib.suppress(JobCancelled):
            _run_group(
                run,
                steps,
                job,
                lambda step, data: results.put((step, data)),
                lambda doing: job.progress("probe", 0, None, "steps", doing),
            )
    finally:
        results.put(None)


def _run_group(run: _Run, steps: list[str], job: Job, on_step: OnStep, tell: Callable[[str], None]) -> None:
    remaining = steps
    while remaining:
        remaining = _run_child(run, remaining, job, on_step, tell)


@dataclass
class _Running:
    step: str
    started: float
    stderr_offset: int


def _run_child(run: _Run, steps: list[str], job: Job, on_step: OnStep, tell: Callable[[str], None]) -> list[str]:
    """Run `steps` in one child; returns those left after one that ended it."""
    left = list(steps)
    running: Optional[_Running] = None
    tell(what_it_tries(steps[0]))
    child = Child("workbench.doctor.probe", steps, run.environ)
    stuck: Optional[Stuck] = None
    try:
        try:
            for event in child.events(job, run.limits):
                if isinstance(event, Waiting):
                    tell(f"{what_it_tries(running.step if running else left[0])} · {event}")
                    continue
                step = str(event.get("step"))
                if event.get("event") == "start":
                    running = _Running(step, time.monotonic(), int(event.get(STDERR_OFFSET) or 0))
                    tell(what_it_tries(step))
                elif running is not None and step in left:
                    left.remove(step)
                    on_step(_ended(event, child, running), event.get("data") or {})
                    running = None
                    if step == "torch" and event.get("status") != "passed":
                        return _skip(left, on_step)
        except Stuck as reason:
            stuck = reason
        if not left:
            return []
        running = running or _Running(left[0], time.monotonic(), 0)
        on_step(_out_of_time(child, running, stuck, run.location) if stuck else _died(child, running), {})
        left.remove(running.step)
        return _skip(left, on_step) if running.step == "torch" else left
    finally:
        child.close()


def _skip(steps: list[str], on_step: OnStep) -> list[str]:
    for step in steps:
        on_step(ProbeStep(step, "skipped", detail="torch does not import"), {})
    return []


def _ended(event: dict[str, Any], child: Child, running: _Running) -> ProbeStep:
    return ProbeStep(
        step=running.step,
        status=str(event.get("status")),
        seconds=float(event.get("seconds") or 0.0),
        detail=str(event.get("detail") or ""),
        stderr=child.stderr_since(running.stderr_offset),
    )


def _out_of_time(child: Child, running: _Running, stuck: Stuck, location: Optional[str]) -> ProbeStep:
    seconds = round(time.monotonic() - running.started, 3)
    said = child.stderr_since(running.stderr_offset)
    told = child.why_stuck(running.stderr_offset, location)
    idle = None if stuck.idle_seconds is None else round(stuck.idle_seconds, 1)
    return ProbeStep(running.step, "timeout", seconds, str(stuck), stderr=said, idle_seconds=idle, stuck=told)


def _died(child: Child, running: _Running) -> ProbeStep:
    seconds = round(time.monotonic() - running.started, 3)
    code, signal_name = child.ended()
    detail = f"the process was ended by {signal_name}" if signal_name else f"the process ended with code {code}"
    said = child.stderr_since(running.stderr_offset)
    return ProbeStep(running.step, "crashed", seconds, detail, code, signal_name, said)
