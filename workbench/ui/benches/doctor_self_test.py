"""The self-test's five steps as rows and as an explanation; pure functions of the steps' JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from textual.content import Content

from workbench.text import format_bytes, one_line
from workbench.ui.widgets.bars import left, right
from workbench.ui.widgets.row_list import Row, gap, heading

Step = dict[str, Any]

TITLES = {
    "gpu": "GPU, a kernel run",
    "load-4bit": "load in 4 bits",
    "inference": "inference",
    "lora": "LoRA adapter",
    "train-step": "training step",
}
"""Ids of the steps, in their order, and what each does."""

MARKS = {
    "passed": ("✔", "$good"),
    "failed": ("✖", "$bad"),
    "skipped": ("–", "$muted"),
    "running": ("▸", "$accent"),
    "waiting": ("·", "$muted"),
}


def step_rows(steps: Sequence[Step], running: bool) -> Iterator[Row]:
    """The section of the self-test; while it runs, also what is under way and what is still to come."""
    if not steps and not running:
        return
    yield gap("steps")
    yield heading(f"SELF-TEST  {summary(steps, running)}")
    done = {str(step.get("step")): step for step in steps}
    under_way = next((name for name in TITLES if name not in done), None) if running else None
    for name in TITLES:
        if name in done:
            yield Row(f"step:{name}", _line(name, done[name]), done[name])
        elif running:
            status = "running" if name == under_way else "waiting"
            yield Row(f"step:{name}", _line(name, {"status": status}), {"step": name, "status": status})
    for name, step in done.items():
        if name not in TITLES:
            yield Row(f"step:{name}", _line(name, step), step)


def summary(steps: Sequence[Step], running: bool) -> str:
    """How far it is, or how it ended."""
    if running:
        return f"{len(steps)} of {len(TITLES)} steps done, escape stops it"
    seconds = sum(float(step.get("seconds") or 0) for step in steps)
    counts = [
        f"{count} {status}"
        for status in ("passed", "failed", "skipped")
        if (count := sum(step.get("status") == status for step in steps))
    ]
    unrun = len(TITLES) - len(steps)
    if unrun > 0:
        counts.append(f"{unrun} not run")
    return f"{', '.join(counts)} in {seconds:.1f} s"


def _line(name: str, step: Step) -> Callable[[int], Content]:
    status = str(step.get("status"))
    mark, style = MARKS.get(status, ("·", "$muted"))
    seconds, memory = step.get("seconds"), step.get("memory_bytes")
    detail = one_line(str(step.get("detail") or ""))
    if step.get("explained_by"):
        detail = f"→ {step['explained_by']}  {detail}"

    def line(width: int) -> Content:
        return Content.assemble(
            (f"{mark} ", style),
            left(status, 8, style),
            " ",
            left(TITLES.get(name, name), 17),
            right(f"{seconds:.1f} s" if isinstance(seconds, (int, float)) else "", 8),
            right(format_bytes(memory) if isinstance(memory, int) else "", 10, "$muted"),
            (f"  {detail}", "$muted"),
        )

    return line


def step_detail(step: Step, findings: Sequence[dict[str, Any]]) -> Content:
    """All of a step: result, time, memory, what was said, and the finding that explains a failure."""
    name, status = str(step.get("step")), str(step.get("status"))
    mark, style = MARKS.get(status, ("·", "$muted"))
    blocks = [
        Content.assemble((f"Self-test: {TITLES.get(name, name)}", "bold"), "\n", (f"{mark} {status}", style)),
    ]
    measured = []
    if isinstance(step.get("seconds"), (int, float)):
        measured.append(Content.assemble(left("time", 10, "$muted"), f"{step['seconds']:.2f} s"))
    if isinstance(step.get("memory_bytes"), int):
        measured.append(
            Content.assemble(left("memory", 10, "$muted"), f"{format_bytes(step['memory_bytes'])} at its peak so far")
        )
    if measured:
        blocks.append(Content("\n").join(measured))
    if step.get("detail"):
        blocks.append(Content(str(step["detail"])))
    cause = step.get("explained_by")
    if cause:
        found = next((finding for finding in findings if finding.get("id") == cause), None)
        told = (
            Content.assemble(str(found.get("title")), ("   enter goes there", "$muted"))
            if found
            else Content.assemble(str(cause), ("   not among the findings yet: r examines again", "$muted"))
        )
        blocks.append(Content.assemble(("EXPLAINED BY", "bold $muted"), "\n", told))
    return Content("\n\n").join(blocks)
