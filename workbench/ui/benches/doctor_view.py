"""What the Doctor bench shows at a moment, as rows and explanations; knows no widget and asks nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from textual.content import Content

from workbench.ui.benches.doctor_comparison import Comparison
from workbench.ui.benches.doctor_facts import fact_detail, fact_rows, full_text
from workbench.ui.benches.doctor_gpus import gpu_detail, gpu_rows
from workbench.ui.benches.doctor_report import (
    Report,
    at_a_glance,
    counts_of,
    finding_detail,
    finding_preview,
    finding_rows,
    findings_of,
    fix_text,
    verdict,
)
from workbench.ui.benches.doctor_self_test import TITLES, step_detail, step_rows
from workbench.ui.benches.doctor_subject import OWN, Subject
from workbench.ui.gauges import Gauges
from workbench.ui.widgets.row_list import Row, gap, heading


@dataclass
class View:
    """One subject with its report and all that was opened, searched, tested and compared of it."""

    subject: Subject = OWN
    report: Report = field(default_factory=dict)
    final: bool = False
    """Whether the examination has ended, however it did."""
    stopped: bool = False
    """Whether it was ended before everything was tried."""
    doing: str = ""
    """What the examination does now."""
    told: str = ""
    """A line below the verdict."""
    comparison: Comparison | None = None
    opened: set[str] = field(default_factory=set)
    """Keys of the facts that are unfolded."""
    search: str = ""
    steps: dict[Subject, list[dict[str, Any]]] = field(default_factory=dict)
    """Of the self-tests that were run."""
    testing: Subject | None = None
    """Whose self-test runs."""

    def turn_to(self, subject: Subject) -> None:
        """Begin anew with another subject; what was tested stays."""
        self.subject, self.report, self.comparison = subject, {}, None
        self.final = self.stopped = False
        self.doing = self.told = ""
        self.opened.clear()

    def head(self) -> Content:
        """The verdict as a sentence, or how far the examination is."""
        if self.comparison is not None:
            head = self.comparison.headline()
        elif self.report.get("verdict") is not None:
            under_way = "" if self.final else f"now: {self.doing}" if self.doing else "still examining"
            head = verdict(self.report, self.subject, self.final and not self.stopped, under_way)
        else:
            head = Content("")
        return Content.assemble(head, "\n" if head else "", (self.told, "$muted")) if self.told else head

    def rows(self, gauges: Gauges | None) -> Iterator[Row]:
        """All rows of the list."""
        if self.comparison is not None:
            yield from self.comparison.rows(self.search)
            return
        if self.report:
            yield heading(f"FINDINGS  {counts_of(findings_of(self.report))}".rstrip())
        found = list(finding_rows(self.report, self.subject, self.search, self.final and not self.stopped))
        yield from found
        if not self.search:
            yield from self._live_rows(gauges)
        if not self.report:
            return
        yield gap("facts")
        yield heading("FACTS" if self.search else "FACTS  / searches")
        facts = list(fact_rows(self.report.get("facts") or {}, self.opened, self.search))
        yield from facts
        if self.search and not found and not facts:
            yield Row("nothing", Content.styled("Nothing matches.", "$muted"), {})

    def _live_rows(self, gauges: Gauges | None) -> Iterator[Row]:
        if self.subject.session:
            command = f"workbench --python {self.subject.python}"
            line = Content.assemble(("→ ", "$accent"), ("whole workbench there: ", "$muted"), command)
            yield Row("command:use", line, command)
        yield from step_rows(self.steps.get(self.subject, []), self.testing == self.subject)
        if self.subject.is_here:
            yield gap("gpus")
            yield from gpu_rows(gauges, self.report.get("facts") or {})

    def first_key(self) -> str | None:
        """The row that the reader should see first: the cause, or the difference that explains it."""
        if self.comparison is not None:
            return next((f"difference:{item.get('name')}" for item in self.comparison.differences), None)
        return next((row.key for row in finding_rows(self.report, self.subject)), None)

    def step_key(self) -> str | None:
        """The step of the self-test that runs, at its end the one that failed."""
        steps = self.steps.get(self.subject, [])
        if self.testing == self.subject:
            return next((f"step:{name}" for name in list(TITLES)[len(steps) :]), None)
        return next((f"step:{step['step']}" for step in steps if step.get("status") == "failed"), None)

    def detail(self, row: Row, gauges: Gauges | None) -> Content:
        """The explanation of a row."""
        kind, _, name = row.key.partition(":")
        if kind == "difference" and self.comparison is not None:
            return self.comparison.detail(row.data)
        if kind == "finding" and row.data:
            return finding_detail(row.data, self.report)
        if kind in ("fact", "facts"):
            return fact_detail(name, row.data)
        if kind == "step":
            return step_detail(row.data, findings_of(self.report))
        if kind == "gpu":
            return gpu_detail(row.data, gauges)
        return at_a_glance(self.report.get("facts") or {})

    def preview(self, row: Row, detail: Content) -> Content:
        """The few lines under the list of a narrow terminal."""
        if row.key.startswith("finding:") and row.data:
            findings = findings_of(self.report)
            return finding_preview(row.data, self.report, first=bool(findings) and row.data == findings[0])
        lines = [line for line in detail.split("\n") if line.plain.strip()]
        return Content("\n").join(lines if row.key.startswith("finding:") else lines[1:])

    def copied(self, row: Row, gauges: Gauges | None) -> tuple[str, str]:
        """What y sends to the clipboard for a row, and its name."""
        if row.key.startswith("finding:") and row.data:
            fix = fix_text(row.data)
            return (fix, "the fix") if fix else (str(row.data.get("title")), "the finding")
        if row.key.startswith("command:"):
            return str(row.data), "the command"
        if row.key.startswith(("fact:", "facts:")):
            return full_text(row.data, row.key.rpartition(".")[2]), "the fact"
        return self.detail(row, gauges).plain, "what is explained"

    def whole_report(self) -> Report:
        """The report with what was tested and compared, as ``workbench doctor --json`` would give it."""
        report = {**self.report, "self_test": self.steps.get(self.subject) or self.report.get("self_test") or []}
        if self.comparison is not None:
            report["comparison"] = list(self.comparison.differences)
            report["compared_with"] = self.comparison.right.name
        return report
