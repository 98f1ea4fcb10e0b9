"""Running the probe steps in child processes, each failure contained. Stdlib only."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Optional

from workbench.doctor.child import STDERR_OFFSET, Child
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


class _Stoppable(Job):
    """The job of the second group: ends when the first one does not go on."""

    def __init__(self) -> None:
        self.stop = threading.Event()

    def check(self) -> None:
        if self.stop.is_set():
            raise JobCancelled


def _present(steps: tuple[tuple[str, str], ...], facts: Facts) -> list[str]:
    return [step for step, package in steps if package == "torch" or not facts.lacks(package)]


def run_probe(facts: Facts, job: Job, on_step: OnStep, limit_seconds: float) -> None:
    """Run every step that applies; a step that kills or hangs its process does not stop the others.

    Raises:
        JobCancelled: if the caller asked to stop; all children are gone by then.
    """
    if not facts.torch.installed:
        return
    core, companions = _present(_CORE, facts), _present(_COMPANIONS, facts)
    beside = _Stoppable()
    results: queue.Queue[Optional[tuple[ProbeStep, dict[str, Any]]]] = queue.Queue()
    second = threading.Thread(target=_run_beside, args=(companions, beside, results, limit_seconds), daemon=True)
    second.start()
    total, done = len(core) + len(companions), 0
    torch_works = False

    def take(step: ProbeStep, data: dict[str, Any]) -> None:
        nonlocal done, torch_works
        torch_works = torch_works or (step.step == "torch" and step.status == "passed")
        done += 1
        job.progress("probe", done, total, "steps", step.step)
        on_step(step, data)

    job.progress("probe", 0, total, "steps", "torch")
    try:
        _run_group(core, job, take, limit_seconds)
        for step, data in _delivered(results, job):
            # What needs torch fails in its own words when torch does; that would be said twice.
            take(*((step, data) if torch_works else (_skipped(step.step), {})))
    finally:
        beside.stop.set()
        second.join()


def _delivered(
    results: queue.Queue[Optional[tuple[ProbeStep, dict[str, Any]]]], job: Job
) -> Iterator[tuple[ProbeStep, dict[str, Any]]]:
    while True:
        job.check()
        try:
            item = results.get(timeout=_DELIVERY_SECONDS)
        except queue.Empty:
            continue
        if item is None:
            return
        yield item


def _run_beside(
    steps: list[str],
    job: Job,
    results: queue.Queue[Optional[tuple[ProbeStep, dict[str, Any]]]],
    limit_seconds: float,
) -> None:
    try:
        with contextlib.suppress(JobCancelled):
            _run_group(steps, job, lambda step, data: results.put((step, data)), limit_seconds)
    finally:
        results.put(None)


def _run_group(steps: list[str], job: Job, on_step: OnStep, limit_seconds: float) -> None:
    remaining = steps
    while remaining:
        remaining = _run_child(remaining, job, on_step, limit_seconds)


@dataclass
class _Running:
    step: str
    started: float
    stderr_offset: int


def _run_child(steps: list[str], job: Job, on_step: OnStep, limit_seconds: float) -> list[str]:
    """Run `steps` in one child; returns those left after one that ended it."""
    left = list(steps)
    running: Optional[_Running] = None
    child = Child("workbench.doctor.probe", steps)
    timed_out = False
    try:
        try:
            for event in child.events(job, limit_seconds):
                step = str(event.get("step"))
                if event.get("event") == "start":
                    running = _Running(step, time.monotonic(), int(event.get(STDERR_OFFSET) or 0))
                elif running is not None and step in left:
                    left.remove(step)
                    on_step(_ended(event, child, running), event.get("data") or {})
                    running = None
                    if step == "torch" and event.get("status") != "passed":
                        return _skip(left, on_step)
        except TimeoutError:
            timed_out = True
        if not left:
            return []
        broken = running.step if running else left[0]
        on_step(_broken(broken, child, running, timed_out, limit_seconds), {})
        left.remove(broken)
        return _skip(left, on_step) if broken == "torch" else left
    finally:
        child.close()


def _skip(steps: list[str], on_step: OnStep) -> list[str]:
    for step in steps:
        on_step(_skipped(step), {})
    return []


def _skipped(step: str) -> ProbeStep:
    return ProbeStep(step, "skipped", detail="torch does not import")


def _ended(event: dict[str, Any], child: Child, running: _Running) -> ProbeStep:
    return ProbeStep(
        step=running.step,
        status=str(event.get("status")),
        seconds=float(event.get("seconds") or 0.0),
        detail=str(event.get("detail") or ""),
        stderr=child.stderr_since(running.stderr_offset),
    )


def _broken(step: str, child: Child, running: Optional[_Running], timed_out: bool, limit_seconds: float) -> ProbeStep:
    seconds = round(time.monotonic() - running.started, 3) if running else 0.0
    offset = running.stderr_offset if running else 0
    if timed_out:
        detail = f"did not finish within {limit_seconds:g} s"
        return ProbeStep(step, "timeout", seconds, detail, stderr=child.stderr_since(offset))
    code, signal_name = child.ended()
    detail = f"the process was ended by {signal_name}" if signal_name else f"the process ended with code {code}"
    return ProbeStep(step, "crashed", seconds, detail, code, signal_name, child.stderr_since(offset))
