"""Doctor: does this environment really drive this GPU, and if not, what exactly to type."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Static

from workbench.errors import JobCancelled, WorkbenchError
from workbench.paths import write_atomic
from workbench.session.protocol import (
    CompareReports,
    Diagnosed,
    DiagnosisUpdated,
    Event,
    JobProgressed,
    Reply,
    ReportsCompared,
    Request,
    RunSelfTest,
    SelfTested,
    SelfTestStepped,
)
from workbench.ui.actions import bindings_of
from workbench.ui.bench import Bench, ErrorLine
from workbench.ui.benches.doctor_comparison import Comparison
from workbench.ui.benches.doctor_facts import fact_detail, fact_rows, full_text
from workbench.ui.benches.doctor_gpus import LIVE_KEYS, gpu_detail, gpu_rows
from workbench.ui.benches.doctor_report import (
    Report,
    at_a_glance,
    finding_detail,
    finding_preview,
    finding_rows,
    findings_of,
    fix_text,
    verdict,
)
from workbench.ui.benches.doctor_self_test import TITLES, step_detail, step_rows
from workbench.ui.benches.doctor_subject import OWN, Subject, subject_line
from workbench.ui.link import SessionLink
from workbench.ui.screens.detail import DetailScreen
from workbench.ui.screens.environment_picker import EnvironmentPicker, PickedEnvironment
from workbench.ui.session_state import SessionState
from workbench.ui.strip_text import progress_text
from workbench.ui.widgets.one_line import OneLine
from workbench.ui.widgets.row_list import Row, RowList, gap, heading

R = TypeVar("R", bound=Reply)

OPENING = "Examining this environment: driver, CUDA, PyTorch, bitsandbytes, transformers …"
LIST_KEYS = ("up", "down", "pageup", "pagedown")


class DoctorBench(Bench):
    """Verdict as a sentence, findings with the selected one explained, self-test, live GPUs, facts folded below."""

    NAME = "doctor"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("doctor")]

    def __init__(self, link: SessionLink) -> None:
        super().__init__(link)
        self.subject = OWN
        self.report: Report = {}
        self.comparison: Comparison | None = None
        self._final = False
        self._doing = ""
        self._opened: set[str] = set()
        self._search = ""
        self._reports: dict[Subject, Report] = {}
        self._steps: dict[Subject, list[dict[str, Any]]] = {}
        self._testing: Subject | None = None
        self._detail: DetailScreen | None = None
        self._explained = Content("")

    def compose(self) -> ComposeResult:
        yield OneLine(id="doctor-subject")
        yield Static(Content.styled(OPENING, "$muted"), id="doctor-verdict")
        yield ErrorLine()
        yield Input(placeholder="Search findings and facts; enter keeps, escape clears", id="doctor-search")
        with Container(id="doctor-body"):
            yield RowList(id="doctor-list")
            with VerticalScroll(id="doctor-detail", can_focus=False):
                yield Static(id="doctor-detail-text")
        yield Static(id="doctor-preview")

    @property
    def _list(self) -> RowList:
        return self.query_one("#doctor-list", RowList)

    def first_focus(self) -> Widget:
        return self._list

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one(Input).cursor_blink = False

    def session_changed(self, old: SessionState, new: SessionState) -> None:
        if new.attachments and (new.attachments != old.attachments or not self.report):
            if self.subject == OWN or not self.report:
                self.examine()
        else:
            self._show_subject()
        self._show_gauges()

    def watch_gauges(self) -> None:
        if self.ready and self.display:
            self._show_gauges()

    # --- Asking --------------------------------------------------------------------------------------------

    async def _ask(
        self, subject: Subject, request: Request, expected: type[R], on_event: Callable[[Event], None] | None = None
    ) -> R:
        if subject.python:
            return await self.link.ask_interpreter(subject.python, request, expected, on_event)
        return await self.link.ask(request, expected, on_event)

    @work(group="doctor", exclusive=True, exit_on_error=False)
    async def examine(self) -> None:
        """Examine what the bench is about, and show what is known as it comes in."""
        subject = self.subject
        self.show_error(None)
        self._begin(_opening(subject))
        try:
            reply = await self._ask(subject, subject.request(), Diagnosed, self._on_event)
        except JobCancelled:
            self._end("Stopped. r examines again.")
        except WorkbenchError as error:
            self._end("Not examined. r tries again.")
            self.show_error(error)
        else:
            self._end()
            self.show_report(reply.report)

    def _begin(self, doing: str) -> None:
        self._doing = f"{doing}   escape stops"
        self._show_head()

    def _end(self, told: str = "") -> None:
        self._doing = told
        self._final = True
        self._show_head()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, DiagnosisUpdated):
            self._doing = ""
            self.show_report(event.report, final=False)
        elif isinstance(event, JobProgressed) and not self.report:
            counts = progress_text(event.done, event.total, event.unit)
            self._begin(f"{_opening(self.subject)} {event.phase} {counts}".rstrip())

    def turn_to(self, subject: Subject) -> None:
        """Show the report of another subject: the one it had before, else examine it now."""
        self.workers.cancel_group(self, "doctor")
        self.subject = subject
        self.comparison = None
        self.report = {}
        self._opened.clear()
        self._final = False
        self.show_error(None)
        known = self._reports.get(subject)
        if known:
            self._doing = ""
            self.show_report(known)
        else:
            self._fill()
            self.examine()

    # --- Showing -------------------------------------------------------------------------------------------

    def show_report(self, report: Report, final: bool = True) -> None:
        """Show a report, complete or as far as it is known."""
        before = self.report
        self.report, self._final = report, final
        if final:
            self._reports[self.subject] = report
        self._show_head()
        # The cause gets the cursor as soon as it is known; afterwards the cursor stays where the reader put it.
        first = next(finding_rows(report, self.subject), None)
        news = not before or (findings_of(report) and not findings_of(before))
        self._fill(first.key if first and news else None)

    def _show_subject(self) -> None:
        status = self.session.status
        line = subject_line(self.subject, self.report, status.executable if status else "")
        self.query_one("#doctor-subject", OneLine).show(line)

    def _show_head(self) -> None:
        self._show_subject()
        if self.comparison is not None:
            head = self.comparison.headline()
        elif self.report.get("verdict") is not None:
            head = verdict(self.report, self.subject, self._final)
        else:
            head = Content("")
        if self._doing:
            head = Content.assemble(head, "\n" if head else "", (self._doing, "$muted"))
        self.query_one("#doctor-verdict", Static).update(head)

    def _fill(self, cursor_key: str | None = None) -> None:
        self._list.set_rows(self._rows(), cursor_key=cursor_key)

    def _rows(self) -> Iterator[Row]:
        if self.comparison is not None:
            yield from self.comparison.rows(self._search)
            return
        search = self._search
        if self.report:
            yield heading("FINDINGS")
        found = list(finding_rows(self.report, self.subject, search))
        yield from found
        if not search:
            if self.subject.python:
                command = f"workbench --python {self.subject.python}"
                line = Content.assemble(("→ ", "$accent"), ("whole workbench there: ", "$muted"), command)
                yield Row("command:use", line, command)
            yield from step_rows(self._steps.get(self.subject, []), self._testing == self.subject)
            if self.subject.is_here:
                yield gap("gpus")
                yield from gpu_rows(self.gauges)
        if not self.report:
            return
        yield gap("facts")
        yield heading("FACTS" if search else "FACTS  / searches")
        facts = list(fact_rows(self.report.get("facts") or {}, self._opened, search))
        yield from facts
        if search and not found and not facts:
            yield Row("nothing", Content.styled("Nothing matches.", "$muted"), {})

    def _show_gauges(self) -> None:
        """Bring the GPUs' rows up to date, painting only what changed."""
        if self.comparison is not None or self._search or not self.subject.is_here:
            return
        listing = self._list
        rows = list(gpu_rows(self.gauges))
        if [row.key for row in listing.rows if row.key.startswith(LIVE_KEYS)] != [row.key for row in rows]:
            self._fill()
            return
        for row in rows:
            listing.replace_row(row)
        if listing.row is not None and listing.row.key.startswith("gpu:"):
            self._explain(listing.row)

    @on(RowList.Highlighted)
    def explain(self, message: RowList.Highlighted) -> None:
        if self._explain(message.row):
            self.query_one("#doctor-detail", VerticalScroll).scroll_home(animate=False)

    def _explain(self, row: Row) -> bool:
        """Show a row's explanation; False when it is shown already."""
        content = self._detail_of(row)
        if content.is_same(self._explained):
            return False
        self._explained = content
        self.query_one("#doctor-detail-text", Static).update(content)
        self.query_one("#doctor-preview", Static).update(self._preview_of(row, content))
        if self._detail is not None and row.key.startswith("gpu:"):
            self._detail.show(content)
        return True

    def _detail_of(self, row: Row) -> Content:
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
            return gpu_detail(row.data, self.gauges)
        return at_a_glance(self.report.get("facts") or {})

    def _preview_of(self, row: Row, content: Content) -> Content:
        """The few lines under the list of a narrow terminal."""
        if row.key.startswith("finding:") and row.data:
            findings = findings_of(self.report)
            return finding_preview(row.data, self.report, first=bool(findings) and row.data == findings[0])
        lines = [line for line in content.split("\n") if line.plain.strip()]
        return Content("\n").join(lines if row.key.startswith("finding:") else lines[1:])

    @on(RowList.Chosen)
    def open_row(self, message: RowList.Chosen) -> None:
        """Unfold facts, go to the finding that explains a step, else show the explanation on the whole screen."""
        row = message.row
        if row.key.startswith("facts:"):
            self._opened ^= {row.key}
            self._fill()
            return
        if row.key.startswith("step:") and self._go_to_finding(row.data.get("explained_by")):
            return
        self._detail = DetailScreen(self._detail_of(row), self._copied(row))
        self.app.push_screen(self._detail, self._forget_detail)

    def _forget_detail(self, result: None) -> None:
        self._detail = None

    def _go_to_finding(self, finding_id: Any) -> bool:
        known = any(finding.get("id") == finding_id for finding in findings_of(self.report))
        if finding_id and known:
            self._list.move_to(f"finding:{finding_id}")
            return True
        return False

    # --- Search --------------------------------------------------------------------------------------------

    def action_search(self) -> None:
        field = self.query_one("#doctor-search", Input)
        field.display = True
        field.focus()

    @on(Input.Changed, "#doctor-search")
    def search(self, message: Input.Changed) -> None:
        self._search = message.value.strip()
        first = next((row for row in self._rows() if row.selectable), None)
        self._fill(first.key if first and self._search else None)

    @on(Input.Submitted, "#doctor-search")
    def keep_search(self) -> None:
        if not self._search:
            self._clear_search()
        self._list.focus()

    def on_key(self, event: events.Key) -> None:
        # The field keeps the focus while the arrow keys move through what it found.
        if event.key in LIST_KEYS and isinstance(self.screen.focused, Input):
            event.stop()
            event.prevent_default()
            step = -1 if event.key.endswith("up") else 1
            (self._list.action_page if event.key.startswith("page") else self._list.action_cursor)(step)

    def _clear_search(self) -> None:
        field = self.query_one("#doctor-search", Input)
        field.display = False
        field.value = ""
        self._list.focus()

    # --- Stopping and going back ---------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "stop" and not (self.ready and self._stoppable()):
            return False
        return super().check_action(action, parameters)

    def _stoppable(self) -> str:
        """What escape would end now; empty for nothing."""
        if self.query_one("#doctor-search", Input).display:
            return "search"
        if self._testing is not None:
            return "self-test"
        if any(w.node is self and w.group == "doctor" and not w.is_finished for w in self.workers):
            return "doctor"
        return "comparison" if self.comparison is not None else ""

    def action_stop(self) -> None:
        what = self._stoppable()
        if what == "search":
            self._clear_search()
        elif what == "self-test":
            self.workers.cancel_group(self, "self-test")
        elif what == "doctor":
            self.workers.cancel_group(self, "doctor")
            self._end("Stopped. r examines again.")
        elif what == "comparison":
            self.comparison = None
            self._show_head()
            self._fill()

    def action_again(self) -> None:
        if self.comparison is not None:
            self.action_stop()
        self.examine()

    def action_own(self) -> None:
        if self.subject != OWN:
            self.turn_to(OWN)
        elif self.comparison is not None:
            self.action_stop()

    # --- Other environments --------------------------------------------------------------------------------

    @work(group="paste", exclusive=True, exit_on_error=False)
    async def action_paste_report(self) -> None:
        pasted = await self._pasted()
        if pasted is not None:
            self.turn_to(pasted)

    async def _pasted(self) -> Subject | None:
        from workbench.ui.screens.paste import PasteScreen

        text = await self.app.push_screen_wait(PasteScreen())
        return Subject(text=text) if text else None

    @work(group="paste", exclusive=True, exit_on_error=False)
    async def action_environments(self) -> None:
        picked = await self.app.push_screen_wait(EnvironmentPicker(self.link, "Environment to examine"))
        if picked is not None:
            subject = OWN if picked.own else Subject(picked.python)
            if subject != self.subject or self.comparison is not None:
                self.turn_to(subject)

    @work(group="paste", exclusive=True, exit_on_error=False)
    async def action_compare(self) -> None:
        if not (self._final and self.report):
            self.post_message(self.Said("Wait until this environment is examined, then compare."))
            return
        title = f"Compare {self.subject.name} with"
        own = self.subject == OWN
        picker = EnvironmentPicker(self.link, title, offer_paste=True, beside_own=own)
        picked = await self.app.push_screen_wait(picker)
        if picked is None:
            return
        other = await self._subject_of(picked)
        if other == self.subject:
            self.post_message(self.Said("That is the one shown here; choose another to compare with."))
        elif other is not None:
            self.compare_with(other)

    async def _subject_of(self, picked: PickedEnvironment) -> Subject | None:
        if picked.pasted:
            return await self._pasted()
        return OWN if picked.own else Subject(picked.python)

    @work(group="doctor", exclusive=True, exit_on_error=False)
    async def compare_with(self, other: Subject) -> None:
        """Examine another subject where that was not done yet, and show what differs."""
        here, report = self.subject, self.report
        self.show_error(None)
        self._begin(f"Examining {other.name} to compare …")
        try:
            there = self._reports.get(other)
            if there is None:
                there = (await self._ask(other, other.request(), Diagnosed)).report
                self._reports[other] = there
            reply = await self.link.ask(CompareReports(report, there), ReportsCompared)
        except JobCancelled:
            self._end()
        except WorkbenchError as error:
            self._end()
            self.show_error(error)
        else:
            self.comparison = Comparison.of(here, other, (report, there), reply.differences)
            self._end()
            first = self.comparison.differences[0].get("name") if self.comparison.differences else None
            self._fill(f"difference:{first}" if first else None)

    # --- Self-test -----------------------------------------------------------------------------------------

    @work(group="self-test", exclusive=True, exit_on_error=False)
    async def action_self_test(self) -> None:
        subject = self.subject
        if subject.text:
            self.post_message(self.Said("A pasted report cannot be run; b goes back to this box."))
            return
        self.show_error(None)
        if self.comparison is not None:
            self.comparison = None
            self._show_head()
        self._steps[subject] = []
        self._testing = subject
        self._fill("step:gpu")
        try:
            reply = await self._ask(subject, RunSelfTest(), SelfTested, lambda event: self._step(subject, event))
            self._steps[subject] = reply.steps
        except JobCancelled:
            self.post_message(self.Said("The self-test was stopped."))
        except WorkbenchError as error:
            self.show_error(error)
        finally:
            self._testing = None
            if self.is_attached:
                self._follow_test()

    def _step(self, subject: Subject, event: Event) -> None:
        if isinstance(event, SelfTestStepped):
            self._steps[subject] = [*self._steps[subject], event.step]
            if subject == self.subject:
                self._follow_test()

    def _follow_test(self) -> None:
        """Show the step that came; a cursor on the steps goes along to the one that runs, at the end to what failed."""
        row = self._list.row
        steps = self._steps.get(self.subject, [])
        failed = next((step for step in steps if step.get("status") == "failed"), None)
        running = list(TITLES)[len(steps) : len(steps) + 1] if self._testing == self.subject else []
        wanted = running[0] if running else str(failed["step"]) if failed else ""
        self._fill(f"step:{wanted}" if wanted and row is not None and row.key.startswith("step:") else None)

    # --- Copies and files ----------------------------------------------------------------------------------

    def _copied(self, row: Row) -> tuple[str, str]:
        """What y sends to the clipboard for a row, and its name."""
        if row.key.startswith("finding:") and row.data:
            fix = fix_text(row.data)
            return (fix, "the fix") if fix else (str(row.data.get("title")), "the finding")
        if row.key.startswith("command:"):
            return str(row.data), "the command"
        if row.key.startswith(("fact:", "facts:")):
            return full_text(row.data, row.key.rpartition(".")[2]), "the fact"
        return self._detail_of(row).plain, "what is explained"

    def action_copy(self) -> None:
        row = self._list.row
        if row is not None:
            self.post_message(self.CopyRequested(*self._copied(row)))

    def whole_report(self) -> Report:
        """The report with what was tested and compared, as ``workbench doctor --json`` would give it."""
        report = {**self.report, "self_test": self._steps.get(self.subject) or self.report.get("self_test") or []}
        if self.comparison is not None:
            report["comparison"] = list(self.comparison.differences)
            report["compared_with"] = self.comparison.right.name
        return report

    def _markdown(self) -> str:
        from workbench.doctor.report import to_markdown

        return to_markdown(self.whole_report())

    def action_copy_report(self) -> None:
        if self.report:
            self.post_message(self.CopyRequested(self._markdown(), "the whole report as Markdown"))

    def action_export(self) -> None:
        if self.report:
            self._write("md", self._markdown())

    def action_export_json(self) -> None:
        if self.report:
            whole = {"schema": 1, "command": "doctor", **self.whole_report()}
            self._write("json", json.dumps(whole, indent=2) + "\n")

    def _write(self, ending: str, text: str) -> None:
        compared = "-compared" if self.comparison is not None else ""
        path = Path.cwd() / f"workbench-doctor{self.subject.file_suffix}{compared}.{ending}"
        try:
            write_atomic(path, text.encode("utf-8", "replace"), mode=0o644)
        except OSError as error:
            reason = f"Cannot write {path}: {error.strerror}."
            self.show_error(WorkbenchError("cannot-write", reason, "Start the workbench in a folder of your own."))
        else:
            self.post_message(self.Said(f"Written to {path}"))


def _opening(subject: Subject) -> str:
    return OPENING if subject == OWN else f"Examining {subject.name} …"


BENCH = DoctorBench
