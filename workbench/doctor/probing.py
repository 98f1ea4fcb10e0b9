"""Running the probe steps in a child process, and in another one after a step that ended it. Stdlib only."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from workbench.doctor.child import Child, Limits, Stuck, Waiting
from workbench.doctor.facts import Facts, ProbeStep
from workbench.doctor.inside_child import STDERR_OFFSET
from workbench.job import Job

OnStep = Callable[[ProbeStep, dict[str, Any]], None]

# Step and the distribution that it needs; without one there is nothing to try. What matters most comes first.
_STEPS = (
    ("torch", "torch"),
    ("cuda", "torch"),
    ("kernel", "torch"),
    ("bitsandbytes", "bitsandbytes"),
    ("numpy", "numpy"),
    ("safetensors", "safetensors"),
    ("tokenizers", "tokenizers"),
    ("accelerate", "accelerate"),
    ("transformers", "transformers"),
    ("torchvision", "torchvision"),
    ("flash-attn", "flash-attn"),
    ("xformers", "xformers"),
)
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
    steps = [step for step, package in _STEPS if package == "torch" or not facts.lacks(package)]
    total, done = len(steps), 0

    def take(step: ProbeStep, data: dict[str, Any]) -> None:
        nonlocal done
        done += 1
        on_step(step, data)

    def tell(doing: str) -> None:
        job.progress("probe", done, total, "steps", doing)

    run = _Run(facts.torch.location, limits, environ)
    while steps:
        steps = _run_child(run, steps, job, take, tell)


@dataclass(frozen=True)
class _Run:
    """What every child of one examination is started with."""

    location: Optional[str]
    """Folder of torch."""
    limits: Limits
    environ: Optional[Mapping[str, str]]


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
