"""Running the probe steps in child processes, each failure contained. Stdlib only."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional

from workbench.doctor.child import STDERR_OFFSET, Child
from workbench.doctor.facts import Facts, ProbeStep
from workbench.job import Job

OnStep = Callable[[ProbeStep, dict[str, Any]], None]

# Step and the distribution that it needs; without one there is nothing to try.
_STEPS = (
    ("torch", "torch"),
    ("cuda", "torch"),
    ("kernel", "torch"),
    ("bitsandbytes", "bitsandbytes"),
    ("numpy", "numpy"),
    ("torchvision", "torchvision"),
    ("transformers", "transformers"),
    ("flash-attn", "flash-attn"),
    ("xformers", "xformers"),
)


def steps_for(facts: Facts) -> list[str]:
    """The steps worth trying: those whose package is there."""
    if not facts.torch.installed:
        return []
    return [step for step, package in _STEPS if package == "torch" or not facts.lacks(package)]


def run_probe(facts: Facts, job: Job, on_step: OnStep, limit_seconds: float) -> None:
    """Run every step that applies; a step that kills or hangs its process does not stop the others.

    Raises:
        JobCancelled: if the caller asked to stop.
    """
    remaining = steps_for(facts)
    total = len(remaining)
    while remaining:
        done = total - len(remaining)
        job.progress("probe", done, total, "steps", remaining[0])
        remaining = _run_child(remaining, job, on_step, limit_seconds, total)


@dataclass
class _Running:
    step: str
    started: float
    stderr_offset: int


def _run_child(steps: list[str], job: Job, on_step: OnStep, limit_seconds: float, total: int) -> list[str]:
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
                    job.progress("probe", total - len(left), total, "steps", step)
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


def _broken(step: str, child: Child, running: Optional[_Running], timed_out: bool, limit_seconds: float) -> ProbeStep:
    seconds = round(time.monotonic() - running.started, 3) if running else 0.0
    offset = running.stderr_offset if running else 0
    if timed_out:
        detail = f"did not finish within {limit_seconds:g} s"
        return ProbeStep(step, "timeout", seconds, detail, stderr=child.stderr_since(offset))
    code, signal_name = child.ended()
    detail = f"the process was ended by {signal_name}" if signal_name else f"the process ended with code {code}"
    return ProbeStep(step, "crashed", seconds, detail, code, signal_name, child.stderr_since(offset))
