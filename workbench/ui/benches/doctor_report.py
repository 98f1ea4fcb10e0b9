"""A doctor's report as a verdict, as rows of findings, and a finding in full; pure functions of the report's JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from textual.content import Content

from workbench.text import format_bytes
from workbench.ui.actions import BENCH_TITLES
from workbench.ui.benches.doctor_facts import show_value
from workbench.ui.benches.doctor_subject import Subject
from workbench.ui.widgets.bars import left
from workbench.ui.widgets.row_list import Row

Report = dict[str, Any]
Finding = dict[str, Any]

MARKS = {
    "error": ("✖", "error", "$bad"),
    "warning": ("⚠", "warning", "$warn"),
    "info": ("·", "note", "$muted"),
}
VERDICTS = {
    "healthy": ("✔", "healthy", "$good", "Nothing is in the way of running and fine-tuning models here."),
    "degraded": ("⚠", "degraded", "$warn", "It works, but not as it could."),
    "broken": ("✖", "broken", "$bad", "Something is in the way; the first finding is the cause."),
}
NOTHING_RECOGNISED = (
    "Nothing in the paste is a report or a message that is known here. Paste what collect_env, nvidia-smi, pip list or "
    "python -m bitsandbytes printed."
)
COMPANIONS = ("transformers", "tokenizers", "accelerate", "bitsandbytes", "peft", "trl", "safetensors", "numpy")


def findings_of(report: Report) -> list[Finding]:
    """The findings, in the report's order."""
    return list(report.get("findings") or ())


def recognised(report: Report, subject: Subject) -> bool:
    """Whether a paste held anything to judge; an empty one must not be called healthy."""
    facts = report.get("facts") or {}
    return not subject.text or bool(facts.get("formats") or facts.get("errors") or report.get("findings"))


def verdict(report: Report, subject: Subject, complete: bool, under_way: str = "") -> Content:
    """The verdict as a sentence; before everything was tried nothing is called healthy.

    Args:
        report: complete or as far as it is known.
        subject: what it is of.
        complete: whether everything was tried.
        under_way: what is done now, while the examination goes on.
    """
    if complete and not recognised(report, subject):
        return Content.assemble(("? unknown", "bold $warn"), "  ", NOTHING_RECOGNISED)
    findings = findings_of(report)
    word_of = str(report.get("verdict") or "")
    mark, word, style, sentence = VERDICTS.get(word_of, ("·", word_of or "unknown", "$muted", ""))
    if word_of == "healthy" and subject.text:
        word, sentence = "nothing found", _little_known(report)
    if findings and word_of in ("broken", "degraded"):
        sentence = str(findings[0].get("title") or sentence)
    if not complete and word_of == "healthy":
        mark, word, style, sentence = "·", "so far", "$accent", "Nothing is wrong in what was examined so far."
    head = Content.assemble((f"{mark} {word}", f"bold {style}"), "  ", sentence)
    if under_way:
        return Content.assemble(head, "\n", under_way, ("   escape stops", "$muted"))
    return head if complete else Content.assemble(head, ("  not everything was tried", "$muted"))


def _little_known(report: Report) -> str:
    """What silence is worth: a paste tells what it tells, and no more."""
    passed, unknown = int(report.get("passed") or 0), int(report.get("unknown") or 0)
    judged = f" {unknown} of {passed + unknown} checks had nothing to go by." if unknown else ""
    return f"Nothing wrong was found in what was given.{judged}"


def counts_of(findings: Sequence[Finding]) -> str:
    """``2 errors · 1 warning``."""
    parts = []
    for severity, one, many in (
        ("error", "error", "errors"),
        ("warning", "warning", "warnings"),
        ("info", "note", "notes"),
    ):
        count = sum(finding.get("severity") == severity for finding in findings)
        if count:
            parts.append(f"{count} {one if count == 1 else many}")
    return " · ".join(parts)


def finding_rows(report: Report, subject: Subject, search: str = "", final: bool = True) -> Iterator[Row]:
    """The findings that match, then what was found in order."""
    words = search.lower().split()
    findings = findings_of(report)
    for finding in findings:
        if all(word in _searchable(finding) for word in words):
            yield Row(f"finding:{finding.get('id')}", _finding_line(finding), finding)
    if search or not recognised(report, subject):
        return
    if not findings and report.get("verdict"):
        mark = ("✔ ", "$good") if final else ("· ", "$muted")
        yield Row("finding:none", Content.assemble(mark, "nothing found wrong", "" if final else " so far"), {})
    if report.get("passed"):
        unknown = report.get("unknown") or 0
        told = f"{report['passed']} checks" + (f", {unknown} could not be judged" if unknown else "")
        yield Row("finding:passed", Content.assemble(("✔ ", "$good"), left("passed", 8, "$good"), f" {told}"), {})


def _searchable(finding: Finding) -> str:
    evidence = finding.get("evidence") or {}
    parts = [finding.get(name) or "" for name in ("id", "severity", "title", "why")]
    return " ".join(map(str, (*parts, *evidence, *evidence.values(), *(finding.get("fix") or ())))).lower()


def _finding_line(finding: Finding) -> Content:
    mark, word, style = MARKS.get(str(finding.get("severity")), MARKS["info"])
    if finding.get("caused_by"):
        mark, word, style = "↳", "follows", "$muted"
    return Content.assemble(
        (f"{mark} ", style), left(word, 8, style), " ", str(finding.get("title") or finding.get("id"))
    )


def finding_detail(finding: Finding, report: Report) -> Content:
    """A finding in full: fix, reason, evidence, what it follows from, what follows from it, source."""
    _, word, style = MARKS.get(str(finding.get("severity")), MARKS["info"])
    benches = " · ".join(BENCH_TITLES.get(str(name), str(name)) for name in finding.get("affects") or ())
    affects = (f"  affects {benches}", "$muted") if benches else ""
    name = (f"{word} · {finding.get('id')}", style)
    blocks: list[Content] = [
        Content.assemble((str(finding.get("title") or ""), "bold"), "\n", name, affects),
    ]
    fix = finding.get("fix") or []
    if fix:
        steps = Content("\n").join(Content.assemble(("› ", "$muted"), _step(str(step))) for step in fix)
        blocks.append(Content.assemble(("FIX", "bold $muted"), ("   y copies", "$muted"), "\n", steps))
    if finding.get("why"):
        blocks.append(Content.assemble(("WHY", "bold $muted"), "\n", str(finding["why"])))
    evidence = finding.get("evidence") or {}
    if evidence:
        seen = Content("\n").join(
            Content.assemble("  ", (f"{key}  ", "$muted"), show_value(value, 400)) for key, value in evidence.items()
        )
        blocks.append(Content.assemble(("SEEN", "bold $muted"), "\n", seen))
    if finding.get("caused_by"):
        blocks.append(
            Content.assemble(("FOLLOWS FROM", "bold $muted"), "\n", title_of(report, str(finding["caused_by"])))
        )
    followers = [str(f.get("title")) for f in findings_of(report) if f.get("caused_by") == finding.get("id")]
    if followers:
        lines = Content("\n").join(Content.assemble(("  ↳ ", "$muted"), title) for title in followers)
        blocks.append(Content.assemble(("WHAT FOLLOWS", "bold $muted"), "\n", lines))
    if finding.get("source"):
        blocks.append(Content.assemble(("source  ", "$muted"), str(finding["source"])))
    return Content("\n\n").join(blocks)


def _step(step: str) -> Content:
    """A step of a fix: the command stands out from the remark behind it."""
    command, mark, remark = step.partition("   # ")
    return Content.assemble((command, "$accent"), (mark + remark, "$muted"))


def finding_preview(finding: Finding, report: Report, first: bool) -> Content:
    """What fits in a few lines under the list: the fix, then the reason. The first one's title is the verdict."""
    lines: list[Content] = []
    if not first:
        lines.append(Content.styled(str(finding.get("title") or ""), "bold"))
    for number, step in enumerate(finding.get("fix") or ()):
        label = "FIX   " if number == 0 else "      "
        hint = ("   y copies", "$muted") if number == 0 else ""
        lines.append(Content.assemble((label, "bold $muted"), _step(str(step)), hint))
    if finding.get("caused_by"):
        lines.append(Content.assemble(("FROM  ", "bold $muted"), title_of(report, str(finding["caused_by"]))))
    if finding.get("why"):
        lines.append(Content.assemble(("WHY   ", "bold $muted"), str(finding["why"])))
    return Content("\n").join(lines)


def title_of(report: Report, finding_id: str) -> str:
    """The title of a finding, or its id where the report has no such finding."""
    found = next((finding for finding in findings_of(report) if finding.get("id") == finding_id), None)
    return str((found or {}).get("title") or finding_id)


def fix_text(finding: Finding) -> str:
    """The steps of a fix, one a line, ready to paste into a shell."""
    return "\n".join(str(step) for step in finding.get("fix") or [])


def at_a_glance(facts: dict[str, Any]) -> Content:
    """The environment in a few lines: system, Python, torch, GPUs, the packages that matter; unknown parts left out."""
    platform, python, torch, driver = (facts.get(name) or {} for name in ("platform", "python", "torch", "driver"))
    packages = facts.get("packages") or {}
    gpus = [_gpu_words(gpu) for gpu in facts.get("gpus") or []]
    kind = f" ({python['kind']})" if python.get("kind") else ""
    cuda = f"CUDA {torch['cuda']}" if torch.get("cuda") else f"{torch['build']} build" if torch.get("build") else ""
    version = torch.get("version") or ("not installed" if torch.get("installed") is False else "")
    no_gpus = ["none"] if facts.get("gpus") is not None else []
    lines: list[tuple[str, list[Any]]] = [
        ("system", [platform.get("os"), platform.get("kernel"), platform.get("machine")]),
        ("python", [python.get("version") and f"{python['version']}{kind}", python.get("executable")]),
        ("torch", [version, cuda]),
        ("GPU", gpus or no_gpus),
        ("driver", [driver.get("version"), driver.get("cuda") and f"up to CUDA {driver['cuda']}"]),
        ("packages", [f"{name} {packages[name]}" for name in COMPANIONS if packages.get(name)]),
    ]
    told = [(name, " · ".join(str(part) for part in parts if part)) for name, parts in lines]
    return Content("\n").join(Content.assemble(left(name, 10, "$muted"), text) for name, text in told if text)


def _gpu_words(gpu: dict[str, Any]) -> str:
    name, memory_bytes = str(gpu.get("name") or "unnamed"), gpu.get("memory_bytes")
    return f"{name} {format_bytes(memory_bytes)}" if memory_bytes else name
