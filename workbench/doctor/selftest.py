"""The self-test: five steps that prove an environment for fine-tuning, run in a child process. Stdlib only."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Optional

from workbench.doctor.child import Child, Limits, Stuck, Waiting
from workbench.doctor.diagnose import Report, diagnose, verdict_of
from workbench.doctor.environment import child_environment, mask_text
from workbench.doctor.facts import Facts, ProbeStep
from workbench.doctor.findings import SEVERITIES, Finding
from workbench.doctor.gather import gather_light
from workbench.doctor.inside_child import STDERR_OFFSET
from workbench.errors import WorkbenchError
from workbench.job import SILENT, Job
from workbench.paths import data_dir
from workbench.text import one_line

STEPS = ("gpu", "load-4bit", "inference", "lora", "train-step")
FAILED = "self-test-failed"
_MAX_SAID = 4000
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
    said: str = ""
    """Of a failed step: the end of what it wrote to standard error."""


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
            step = replace(step, said=mask_text(stderr[-_MAX_SAID:]))
            cause = explanation(facts or gather_light(environ=environ), step)
            step = replace(step, explained_by=cause.id if cause else FAILED)
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


def explanation(facts: Facts, step: SelfTestStep) -> Optional[Finding]:
    """The root cause that the rules name once this failure is among the facts; None when they know none.

    What they name only now comes before what was known already, and that only if it keeps models from running.
    """
    try:
        before = {finding.id for finding in diagnose(facts).findings}
        findings = diagnose(_with_probe(facts, _as_probe(step))).findings
    except WorkbenchError:
        return None
    by_id = {finding.id: finding for finding in findings}
    new = next((finding for finding in findings if finding.id not in before and finding.severity != "info"), None)
    if new is None:
        return next(
            (finding for finding in findings if finding.severity == "error" and "chat" in finding.affects), None
        )
    while new.caused_by is not None and new.caused_by in by_id:
        new = by_id[new.caused_by]
    return new


def with_self_test(report: Report, steps: Iterable[SelfTestStep]) -> Report:
    """`report` with what the self-test has seen among its facts: what works, and what fails and why.

    A failed step that no rule explains is a finding itself, so that no report with one is a healthy one.
    """
    done = list(steps)
    facts = report.facts
    for step in done:
        if step.status == "failed" or (step.status, step.step) == ("passed", "load-4bit"):
            facts = _with_probe(facts, _as_probe(step))
    judged = diagnose(facts)
    if any((step.step, step.status) == ("load-4bit", "passed") for step in done):
        findings = tuple(sorted(map(_worked_all_the_same, judged.findings), key=_rank))
        judged = replace(judged, findings=findings, verdict=verdict_of(findings))
    known = {finding.id: finding for finding in judged.findings}
    failed = [step for step in done if step.status == "failed"]
    unexplained = [
        step for step in failed if step.explained_by not in known or known[step.explained_by].severity == "info"
    ]
    if not unexplained:
        return judged
    findings = (_failed(unexplained), *judged.findings)
    return replace(judged, findings=tuple(sorted(findings, key=_rank)), verdict="broken")


def _rank(finding: Finding) -> int:
    return SEVERITIES.index(finding.severity)


def _worked_all_the_same(finding: Finding) -> Finding:
    """What was seen working outranks what should not work."""
    if finding.severity != "error" or not finding.id.startswith(("bnb-", "bitsandbytes-")):
        return finding
    seen = " The self-test loaded a model in 4 bits and ran it all the same; without the native library that is slow."
    return replace(finding, severity="warning", why=finding.why + seen)


def _failed(steps: list[SelfTestStep]) -> Finding:
    first = steps[0]
    return Finding(
        FAILED,
        "error",
        f"The self-test fails at {first.step}: {one_line(first.detail, 120)}",
        "What the rules look at is in order, and still this step does not work; its own error is all that is known.",
        {step.step: one_line(step.detail, 300) for step in steps}
        | ({"standard error": one_line(first.said[-300:], 300)} if first.said else {}),
        ("Search the message in the issues of the package that it names.",),
        "https://github.com/search?type=issues",
        affects=("chat", "vram"),
        observed=True,
    )


def _with_probe(facts: Facts, seen: ProbeStep) -> Facts:
    return replace(facts, probes=(*(probe for probe in facts.probes if probe.step != seen.step), seen))


def _as_probe(step: SelfTestStep) -> ProbeStep:
    # The rules know failures by what was tried; the library that the message names first is what was tried here.
    named = re.search(r"\b(bitsandbytes|peft|accelerate|tokenizers|safetensors|transformers)\b", step.detail)
    tried = named[1] if named and step.status == "failed" else f"self-test {step.step}"
    return ProbeStep(tried, step.status, step.seconds, step.detail, stderr=step.said)
