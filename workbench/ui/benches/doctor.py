"""Doctor: does this environment really drive this GPU, and if not, what exactly to type."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.errors import JobCancelled, WorkbenchError
from workbench.paths import write_atomic
from workbench.session.protocol import Diagnose, Diagnosed, DiagnoseText, DiagnosisUpdated, Event, JobProgressed
from workbench.ui.actions import bindings_of
from workbench.ui.bench import Bench, ErrorLine
from workbench.ui.benches.doctor_report import at_a_glance, fact_rows, fix_text, show_value
from workbench.ui.link import SessionLink
from workbench.ui.session_state import SessionState
from workbench.ui.strip_text import progress_text
from workbench.ui.widgets.bars import left
from workbench.ui.widgets.row_list import Row, RowList, gap, heading

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
OPENING = "Examining this environment: driver, CUDA, PyTorch, bitsandbytes, transformers …"


class DoctorBench(Bench):
    """Verdict as a sentence, findings with the selected one explained, facts folded below."""

    NAME = "doctor"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("doctor")]

    def __init__(self, link: SessionLink) -> None:
        super().__init__(link)
        self.report: dict[str, Any] = {}
        self._open: set[str] = set()
        self._pasted = ""

    def compose(self) -> ComposeResult:
        yield Static(Content.styled(OPENING, "$muted"), id="doctor-verdict")
        yield ErrorLine()
        with Container(id="doctor-body"):
            yield RowList(id="doctor-list")
            with VerticalScroll(id="doctor-detail", can_focus=False):
                yield Static(id="doctor-detail-text")

    def first_focus(self) -> Widget:
        return self.query_one(RowList)

    def session_changed(self, old: SessionState, new: SessionState) -> None:
        if new.attachments and (new.attachments != old.attachments or not self.report):
            self.examine()

    # --- Asking --------------------------------------------------------------------------------------------

    @work(group="doctor", exclusive=True, exit_on_error=False)
    async def examine(self) -> None:
        """Diagnose the target interpreter, or the pasted report, and show what is known as it comes in."""
        request = DiagnoseText(self._pasted) if self._pasted else Diagnose()
        self.show_error(None)
        try:
            reply = await self.link.ask(request, Diagnosed, self._on_event)
        except JobCancelled:
            self.query_one("#doctor-verdict", Static).update("Stopped. r examines again.")
        except WorkbenchError as error:
            if not self.report:
                self.query_one("#doctor-verdict", Static).update(
                    Content.styled("Not examined. r tries again.", "$muted")
                )
            self.show_error(error)
        else:
            self.show_report(reply.report)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, DiagnosisUpdated):
            self.show_report(event.report, final=False)
        elif isinstance(event, JobProgressed) and not self.report:
            counts = progress_text(event.done, event.total, event.unit)
            self.query_one("#doctor-verdict", Static).update(
                Content.styled(f"{OPENING} {event.phase} {counts}", "$muted")
            )

    # --- Showing -------------------------------------------------------------------------------------------

    def show_report(self, report: dict[str, Any], final: bool = True) -> None:
        """Show a report, complete or as far as it is known."""
        had_findings = bool(self.report.get("findings"))
        self.report = report
        self.query_one("#doctor-verdict", Static).update(self._verdict(final))
        findings = report.get("findings") or []
        # The cause gets the cursor as soon as it is known; afterwards the cursor stays where the reader put it.
        first = f"finding:{findings[0].get('id')}" if findings and not had_findings else None
        self.query_one(RowList).set_rows(self._rows(), cursor_key=first)

    def _verdict(self, final: bool) -> Content:
        findings = self.report.get("findings") or []
        verdict = str(self.report.get("verdict") or "")
        mark, word, style, sentence = VERDICTS.get(verdict, ("·", verdict or "unknown", "$muted", ""))
        first = findings[0] if findings else None
        if first and verdict in ("broken", "degraded"):
            sentence = str(first.get("title") or sentence)
        source = " a pasted report ·" if self._pasted else ""
        counts = _counts(findings) + ("" if final else " · still examining")
        return Content.assemble(
            (f"{mark} {word}", f"bold {style}"),
            (f":{source} " if source else "  ", "$muted"),
            sentence,
            ("  " + counts, "$muted"),
        )

    def _rows(self) -> Iterator[Row]:
        findings = self.report.get("findings") or []
        yield heading("FINDINGS")
        for finding in findings:
            yield Row(f"finding:{finding.get('id')}", _finding_line(finding), finding)
        if not findings and self.report.get("verdict"):
            yield Row("finding:none", Content.assemble(("✔ ", "$good"), "nothing found wrong"), {})
        if self.report.get("passed"):
            unknown = self.report.get("unknown") or 0
            told = f"{self.report['passed']} checks" + (f", {unknown} could not be judged" if unknown else "")
            yield Row("finding:passed", Content.assemble(("✔ ", "$good"), left("passed", 8, "$good"), f" {told}"), {})
        steps = self.report.get("self_test") or []
        if steps:
            yield gap("steps")
            yield heading("SELF-TEST")
            for step in steps:
                yield Row(f"step:{step.get('step')}", Content(f"{step.get('status')}  {step.get('step')}"), step)
        yield gap("facts")
        yield heading("FACTS")
        yield from fact_rows(self.report.get("facts") or {}, self._open)

    @on(RowList.Highlighted)
    def explain(self, message: RowList.Highlighted) -> None:
        row = message.row
        if row.key.startswith("finding:") and row.data:
            content = _explanation(row.data, self.report)
        elif row.key.startswith("fact"):
            content = Content.assemble((row.key.partition(":")[2], "bold"), "\n\n", show_value(row.data, 4000))
        elif row.key.startswith("step:"):
            content = Content(str(row.data.get("detail") or ""))
        else:
            content = at_a_glance(self.report.get("facts") or {})
        self.query_one("#doctor-detail-text", Static).update(content)
        self.query_one("#doctor-detail", VerticalScroll).scroll_home(animate=False)

    @on(RowList.Chosen)
    def unfold(self, message: RowList.Chosen) -> None:
        if message.row.key.startswith("facts:"):
            self._open ^= {message.row.key}
            message.list.set_rows(self._rows())

    # --- Actions -------------------------------------------------------------------------------------------

    def action_again(self) -> None:
        self._pasted = ""
        self.examine()

    def action_copy(self) -> None:
        row = self.query_one(RowList).row
        if row is None:
            return
        if row.key.startswith("finding:") and row.data:
            self.post_message(self.CopyRequested(fix_text(row.data) or str(row.data.get("title")), "the fix"))
        elif row.data is not None:
            self.post_message(self.CopyRequested(show_value(row.data, 100_000), "the fact"))

    def action_export(self) -> None:
        if not self.report:
            return
        from workbench.doctor.report import to_markdown

        path = Path.cwd() / "workbench-doctor.md"
        try:
            write_atomic(path, to_markdown(self.report).encode("utf-8", "replace"), mode=0o644)
        except OSError as error:
            reason = f"Cannot write {path}: {error.strerror}."
            self.show_error(WorkbenchError("cannot-write", reason, "Start the workbench in a folder of your own."))
        else:
            self.post_message(self.Said(f"Written to {path}"))

    @work(group="paste", exclusive=True, exit_on_error=False)
    async def action_paste_report(self) -> None:
        from workbench.ui.screens.paste import PasteScreen

        text = await self.app.push_screen_wait(PasteScreen())
        if text:
            self._pasted = text
            self.examine()


def _counts(findings: list[dict[str, Any]]) -> str:
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


def _finding_line(finding: dict[str, Any]) -> Content:
    follows = bool(finding.get("caused_by"))
    mark, word, style = MARKS.get(str(finding.get("severity")), MARKS["info"])
    if follows:
        mark, word, style = "↳", "follows", "$muted"
    return Content.assemble(
        (f"{mark} ", style), left(word, 8, style), " ", str(finding.get("title") or finding.get("id"))
    )


def _explanation(finding: dict[str, Any], report: dict[str, Any]) -> Content:
    _, word, style = MARKS.get(str(finding.get("severity")), MARKS["info"])
    blocks: list[Content] = [
        Content.assemble((str(finding.get("title") or ""), "bold"), "\n", (f"{word} · {finding.get('id')}", style))
    ]
    fix = finding.get("fix") or []
    if fix:
        steps = Content("\n").join(Content.assemble("  ", (str(step), "$accent")) for step in fix)
        blocks.append(Content.assemble(("FIX", "bold $muted"), ("   y copies", "$muted"), "\n", steps))
    if finding.get("why"):
        blocks.append(Content.assemble(("WHY", "bold $muted"), "\n", str(finding["why"])))
    evidence = finding.get("evidence") or {}
    if evidence:
        seen = Content("\n").join(
            Content.assemble("  ", (f"{key}  ", "$muted"), show_value(value, 300)) for key, value in evidence.items()
        )
        blocks.append(Content.assemble(("SEEN", "bold $muted"), "\n", seen))
    if finding.get("caused_by"):
        cause = next((f for f in report.get("findings", []) if f.get("id") == finding["caused_by"]), None)
        name = (cause or {}).get("title") or finding["caused_by"]
        blocks.append(Content.assemble(("FOLLOWS FROM", "bold $muted"), "\n", str(name)))
    if finding.get("source"):
        blocks.append(Content.assemble(("source  ", "$muted"), str(finding["source"])))
    return Content("\n\n").join(blocks)


BENCH = DoctorBench
