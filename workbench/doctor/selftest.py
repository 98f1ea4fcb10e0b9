"""The self-test: five steps that prove an environment for fine-tuning, run in a child process. Stdlib only."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Optional

from workbench.doctor.child import Child, Limits, Stuck, Waiting
from workbench.doctor.diagnose import diagnose
from workbench.doctor.environment import child_environment, mask_text
from workbench.doctor.facts import Facts, ProbeStep
from workbench.doctor.gather import gather_light
from workbench.doctor.inside_child import STDERR_OFFSET
from workbench.errors import WorkbenchError
from workbench.job import SILENT, Job
from workbench.paths import data_dir

STEPS = ("gpu", "load-4bit", "inference", "lora", "train-step")
LIMITS = Limits(total_seconds=180.0, idle_seconds=30.0)
"""The first kernel on a GPU that torch has no code for is compiled for minutes; that keeps the processor busy."""


@dataclass(frozen=True)
class SelfTestStep:
    """What came of one step."""

    step: str
    """``gpu``, ``load-4bit``, ``inference``, ``lora`` or ``train-step``."""
    status: str
    """``passed``, ``failed`` or ``skipped``."""
    detail: str
    seconds: float
    memory_bytes: Optional[int] = None
    """Peak so far: of GPU memory, or of the process where there is no GPU."""
    explained_by: Optional[str] = None
    """Id of the finding that explains a failure."""


def run_self_test(
    job: Job = SILENT,
    on_step: Callable[[SelfTestStep], None] = lambda step: None,
    facts: Optional[Facts] = None,
    limits: Limits = LIMITS,
    environ: Optional[Mapping[str, str]] = None,
) -> list[SelfTestStep]:
    """Run the five steps on a tiny model, on the GPU or, saying so, on the CPU.

    A crash or a hang of the child is a failed step; those after it are skipped.

    Args:
        job: progress and cancellation.
        on_step: called with each step as it ends.
        facts: what is known of the environment, to explain a failure; gathered when needed.
        limits: time that one step may take.
        environ: the client's environment as `workbench.doctor.environment.carried_environment` gives it; this
            process's own if None.

    Raises:
        JobCancelled: if the caller asked to stop; the child is gone by then.
    """
    steps: list[SelfTestStep] = []

    def take(step: SelfTestStep, stderr: str) -> None:
        if step.status == "failed":
            step = replace(step, explained_by=_explanation(facts or gather_light(environ=environ), step, stderr))
        steps.append(step)
        job.progress("self-test", len(steps), len(STEPS), "steps", step.step)
        on_step(step)

    job.progress("self-test", 0, len(STEPS), "steps", STEPS[0])
    model = data_dir("sample_models") / "tiny-llama"
    arguments = [str(model)] if model.is_dir() else []
    surroundings = None if environ is None else child_environment(environ)
    child = Child("workbench.doctor.selftest_child", arguments, surroundings)
    try:
        trouble = _follow(child, job, take, limits)
        if trouble is not None:
            take(*trouble)
        for name in STEPS[len(steps) :]:
            take(SelfTestStep(name, "skipped", "an earlier step ended the process", 0.0), "")
    finally:
        child.close()
    return steps


def _follow(
    child: Child, job: Job, take: Callable[[SelfTestStep, str], None], limits: Limits
) -> Optional[tuple[SelfTestStep, str]]:
    """Hand on each step that ends; returns the one that ended the process, if one did."""
    running, started, offset, done = STEPS[0], time.monotonic(), 0, 0
    reason = ""
    try:
        for event in child.events(job, limits):
            if isinstance(event, Waiting):
                job.progress("self-test", done, len(STEPS), "steps", f"{running} · {event}")
            elif event.get("event") == "start":
                running, started, offset = str(event.get("step")), time.monotonic(), int(event.get(STDERR_OFFSET) or 0)
            else:
                done += 1
                take(_step(event), child.stderr_since(offset))
    except Stuck as stuck:
        where = child.why_stuck(offset, None).get("where")
        reason = f"{stuck}, in {where}" if where else str(stuck)
    if done == len(STEPS):
        return None
    if not reason:
        code, signal_name = child.ended()
        reason = f"the process was ended by {signal_name}" if signal_name else f"the process ended with code {code}"
    return SelfTestStep(running, "failed", reason, round(time.monotonic() - started, 3)), child.stderr_since(offset)


def _step(event: dict[str, Any]) -> SelfTestStep:
    memory = event.get("memory_bytes")
    return SelfTestStep(
        step=str(event.get("step")),
        status=str(event.get("status")),
        detail=mask_text(str(event.get("detail"))),
        seconds=float(event.get("seconds") or 0.0),
        memory_bytes=int(memory) if isinstance(memory, int) else None,
    )


def _explanation(facts: Facts, step: SelfTestStep, stderr: str) -> Optional[str]:
    """The root cause that the rules name once this failure is among the facts."""
    text = f"{step.detail}\n{stderr}"
    # The rules know failures by what was tried; the library that the message names is what was tried here.
    tried = next((name for name in ("bitsandbytes", "transformers") if name in text), "self-test")
    seen = ProbeStep(tried, "failed", step.seconds, step.detail, stderr=stderr)
    try:
        others = tuple(probe for probe in facts.probes if probe.step != tried)
        findings = diagnose(replace(facts, probes=(*others, seen))).findings
    except WorkbenchError:
        return None
    relevant = [finding for finding in findings if finding.severity == "error" or "chat" in finding.affects]
    return relevant[0].id if relevant and relevant[0].severity != "info" else None
