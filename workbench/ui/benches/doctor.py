"""Doctor: does this environment really drive this GPU, and if not, what exactly to type."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Static

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import (
    CompareReports,
    Diagnosed,
    DiagnosisUpdated,
    Event,
    JobProgressed,
    Reply,
    ReportsCompared,
    Request,
    SelfTested,
    SelfTestStepped,
)
from workbench.text import one_line
from workbench.ui.actions import bindings_of
from workbench.ui.bench import Bench, ErrorLine
from workbench.ui.benches.doctor_comparison import Comparison
from workbench.ui.benches.doctor_export import as_json, as_markdown, write_report
from workbench.ui.benches.doctor_gpus import LIVE_KEYS, gpu_rows
from workbench.ui.benches.doctor_picking import pick_paste, pick_subject
from workbench.ui.benches.doctor_report import Report, findings_of
from workbench.ui.benches.doctor_subject import OWN, Subject, subject_line
from workbench.ui.benches.doctor_view import View
from workbench.ui.link import SessionLink
from workbench.ui.screens.detail import DetailScreen
from workbench.ui.session_state import SessionState
from workbench.ui.strip_text import progress_text
from workbench.ui.widgets.one_line import OneLine
from workbench.ui.widgets.row_list import Row, RowList

R = TypeVar("R", bound=Reply)

OPENING = "Examining this environment: driver, CUDA, PyTorch, bitsandbytes, transformers …"
STOPPED = "Stopped. r examines again."


class DoctorBench(Bench):
    """Verdict as a sentence, findings with the selected one explained, self-test, live GPUs, facts folded below."""

    NAME = "doctor"
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("doctor")]

    def __init__(self, link: SessionLink) -> None:
        super().__init__(link)
        self.view = View()
        self._reports: dict[Subject, Report] = {}
        self._asked = 0
        """The attachment to the session at which it was last seen to that there is a report."""
        self._sought_from: str | None = None
        """Key of the row that the cursor stood on before the search."""
        self._sought: str | None = None
        """Key of the row that the search put it on."""
        self._placed: str | None = None
        """Key of the row on which the bench itself put the cursor; on any other one the reader did."""
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
        if new.attachments and new.attachments != self._asked:
            # Once for each session: its status changes with every request, this one included.
            self._asked = new.attachments
            if self.view.subject == OWN or not self.view.report:
                self.examine()
        else:
            self._show_subject()
        self._show_gauges()

    def watch_gauges(self) -> None:
        if self.ready and self.display:
            self._show_gauges()

    # --- Examining -----------------------------------------------------------------------------------------

    async def _ask(
        self, subject: Subject, request: Request, expected: type[R], on_event: Callable[[Event], None] | None = None
    ) -> R:
        if subject.session:
            return await self.link.ask_interpreter(subject.session, request, expected, on_event)
        return await self.link.ask(request, expected, on_event)

    @work(group="doctor", exclusive=True, exit_on_error=False)
    async def examine(self) -> None:
        """Examine what the bench is about, and show what is known as it comes in."""
        subject = self.view.subject
        self.show_error(None)
        self.view.final = self.view.stopped = False
        self._begin(_opening(subject))
        try:
            reply = await self._ask(subject, subject.request(), Diagnosed, self._on_event)
        except JobCancelled:
            self._end(STOPPED, stopped=True)
        except WorkbenchError as error:
            self._end("Not examined. r tries again.", stopped=True)
            self.show_error(error)
        else:
            self._end()
            self.show_report(reply.report)

    def _begin(self, told: str) -> None:
        self.view.told = f"{told}   escape stops"
        self._show_head()

    def _end(self, told: str = "", stopped: bool = False) -> None:
        self.view.told, self.view.doing = told, ""
        self.view.final, self.view.stopped = True, stopped
        self._show_head()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, DiagnosisUpdated):
            self.view.told = ""
            self.show_report(event.report, final=False)
        elif isinstance(event, JobProgressed):
            if self.view.told:
                counts = progress_text(event.done, event.total, event.unit)
                self._begin(f"{_opening(self.view.subject)} {event.phase} {counts}".rstrip())
            elif event.detail != self.view.doing:
                self.view.doing = one_line(event.detail)
                self._show_head()

    def turn_to(self, subject: Subject) -> None:
        """Show the report of another subject: the one it had before, else examine it now."""
        self.workers.cancel_group(self, "doctor")
        self.view.turn_to(subject)
        self.show_error(None)
        known = self._reports.get(subject)
        if known:
            self.show_report(known)
        else:
            self._fill()
            self.examine()

    # --- Showing -------------------------------------------------------------------------------------------

    def show_report(self, report: Report, final: bool = True) -> None:
        """Show a report, complete or as far as it is known."""
        row = self._list.row
        follow = not self.view.report or row is None or row.key == self._placed
        self.view.report, self.view.final = report, final
        if final:
            self._reports[self.view.subject] = report
        self._show_head()
        # The cursor stays on the first cause as that becomes known, until the reader puts it elsewhere.
        self._fill(self._place(self.view.first_key()) if follow else None)

    def _place(self, key: str | None) -> str | None:
        self._placed = key or self._placed
        return key

    def _show_subject(self) -> None:
        status = self.session.status
        line = subject_line(self.view.subject, self.view.report, status.executable if status else "")
        self.query_one("#doctor-subject", OneLine).show(line)

    def _show_head(self) -> None:
        self._show_subject()
        self.query_one("#doctor-verdict", Static).update(self.view.head())

    def _fill(self, cursor_key: str | None = None) -> None:
        self._list.set_rows(self.view.rows(self.gauges), cursor_key=cursor_key)

    def _show_gauges(self) -> None:
        """Bring the GPUs' rows up to date, painting only what changed."""
        view = self.view
        if view.comparison is not None or view.search or not view.subject.is_here:
            return
        listing = self._list
        rows = list(gpu_rows(self.gauges, view.report.get("facts") or {}))
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
        content = self.view.detail(row, self.gauges)
        if content.is_same(self._explained):
            return False
        self._explained = content
        self.query_one("#doctor-detail-text", Static).update(content)
        self.query_one("#doctor-preview", Static).update(self.view.preview(row, content))
        if self._detail is not None and row.key.startswith("gpu:"):
            self._detail.show(content)
        return True

    @on(RowList.Chosen)
    def open_row(self, message: RowList.Chosen) -> None:
        """Unfold facts, go to the finding that explains a step, else show the explanation on the whole screen."""
        row = message.row
        if row.key.startswith("facts:"):
            self.view.opened ^= {row.key}
            self._fill()
            return
        if row.key.startswith("step:") and self._go_to_finding(row.data.get("explained_by")):
            return
        self._detail = DetailScreen(self.view.detail(row, self.gauges), self.view.copied(row, self.gauges))
        self.app.push_screen(self._detail, self._forget_detail)

    def _forget_detail(self, result: None) -> None:
        self._detail = None

    def _go_to_finding(self, finding_id: object) -> bool:
        known = any(finding.get("id") == finding_id for finding in findings_of(self.view.report))
        if finding_id and known:
            self._list.move_to(f"finding:{finding_id}")
            return True
        return False

    # --- Search --------------------------------------------------------------------------------------------

    def action_search(self) -> None:
        field = self.query_one("#doctor-search", Input)
        if not self.view.search:
            row = self._list.row
            self._sought_from, self._sought = row.key if row else None, None
        field.display = True
        field.focus()

    @on(Input.Changed, "#doctor-search")
    def search(self, message: Input.Changed) -> None:
        self.view.search = message.value.strip()
        row = self._list.row
        if self._sought is not None and row is not None and row.key != self._sought:
            self._sought_from = row.key  # the reader went there among what was found
        keys = [row.key for row in self.view.rows(self.gauges) if row.selectable]
        self._sought = self._sought_from if self._sought_from in keys else next(iter(keys), None)
        self._fill(self._sought)

    @on(Input.Submitted, "#doctor-search")
    def keep_search(self) -> None:
        if not self.view.search:
            self._clear_search()
        self._list.focus()

    def on_key(self, event: events.Key) -> None:
        if isinstance(self.screen.focused, Input):
            self._list.steer(event)

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
        if self.view.testing is not None:
            return "self-test"
        if any(w.node is self and w.group == "doctor" and not w.is_finished for w in self.workers):
            return "doctor"
        return "comparison" if self.view.comparison is not None else ""

    def action_stop(self) -> None:
        what = self._stoppable()
        if what == "search":
            self._clear_search()
        elif what == "self-test":
            self.workers.cancel_group(self, "self-test")
        elif what == "doctor":
            self.workers.cancel_group(self, "doctor")
            self._end(STOPPED, stopped=not self.view.final)
        elif what == "comparison":
            self.view.comparison = None
            self._show_head()
            self._fill(self._place(self.view.first_key()))

    def action_again(self) -> None:
        if self.view.comparison is not None:
            self.action_stop()
        self.examine()

    def action_own(self) -> None:
        if self.view.subject != OWN:
            self.turn_to(OWN)
        elif self.view.comparison is not None:
            self.action_stop()

    # --- Other subjects ------------------------------------------------------------------------------------

    @work(group="pick", exclusive=True, exit_on_error=False)
    async def action_paste_report(self) -> None:
        try:
            pasted = await pick_paste(self.app)
        except WorkbenchError as error:
            self.show_error(error)
        else:
            if pasted is not None:
                self.turn_to(pasted)

    @work(group="pick", exclusive=True, exit_on_error=False)
    async def action_environments(self) -> None:
        try:
            picked = await pick_subject(self.app, self.link, "Environment to examine")
        except WorkbenchError as error:
            self.show_error(error)
        else:
            if picked is not None and (picked != self.view.subject or self.view.comparison is not None):
                self.turn_to(picked)

    @work(group="pick", exclusive=True, exit_on_error=False)
    async def action_compare(self) -> None:
        if not (self.view.final and self.view.report):
            self.post_message(self.Said("Wait until this environment is examined, then compare."))
            return
        here = self.view.subject
        try:
            other = await pick_subject(self.app, self.link, f"Compare {here.name} with", beside_own=here == OWN)
        except WorkbenchError as error:
            self.show_error(error)
            return
        if other is not None and other == here:
            self.post_message(self.Said("That is the one shown here; choose another to compare with."))
        elif other is not None:
            self.compare_with(other)

    @work(group="doctor", exclusive=True, exit_on_error=False)
    async def compare_with(self, other: Subject) -> None:
        """Examine another subject where that was not done yet, and show what differs."""
        here, report = self.view.subject, self.view.report
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
            self.view.comparison = Comparison.of(here, other, (report, there), reply.differences)
            self._end()
            self._fill(self._place(self.view.first_key()))

    # --- Self-test -----------------------------------------------------------------------------------------

    @work(group="self-test", exclusive=True, exit_on_error=False)
    async def action_self_test(self) -> None:
        view, subject = self.view, self.view.subject
        if subject.cannot_run:
            self.post_message(self.Said(subject.cannot_run))
            return
        self.show_error(None)
        if view.comparison is not None:
            view.comparison = None
            self._show_head()
        view.steps[subject] = []
        view.testing = subject
        self._fill(view.step_key())
        try:
            request = subject.self_test(view.report if view.final else {})
            reply = await self._ask(subject, request, SelfTested, lambda event: self._step(subject, event))
            view.steps[subject] = reply.steps
            if reply.report is not None:
                self._reports[subject] = reply.report
                if subject == view.subject and view.final:
                    self.show_report(reply.report)
        except JobCancelled:
            self.post_message(self.Said("The self-test was stopped."))
        except WorkbenchError as error:
            self.show_error(error)
        finally:
            view.testing = None
            if self.is_attached:
                self._follow_test()

    def _step(self, subject: Subject, event: Event) -> None:
        if isinstance(event, SelfTestStepped):
            self.view.steps[subject] = [*self.view.steps[subject], event.step]
            if subject == self.view.subject:
                self._follow_test()

    def _follow_test(self) -> None:
        """Show the step that came; a cursor on the steps goes along to the one that runs, at the end to what failed."""
        row = self._list.row
        self._fill(self.view.step_key() if row is not None and row.key.startswith("step:") else None)

    # --- Copies and files ----------------------------------------------------------------------------------

    def action_copy(self) -> None:
        row = self._list.row
        if row is not None:
            self.post_message(self.CopyRequested(*self.view.copied(row, self.gauges)))

    def action_copy_report(self) -> None:
        if self.view.report:
            self.post_message(self.CopyRequested(as_markdown(self.view), "the whole report as Markdown"))

    def action_export(self) -> None:
        if self.view.report:
            self._write("md", as_markdown(self.view))

    def action_export_json(self) -> None:
        if self.view.report:
            self._write("json", as_json(self.view))

    def _write(self, ending: str, text: str) -> None:
        try:
            path = write_report(self.view, ending, text)
        except WorkbenchError as error:
            self.show_error(error)
        else:
            self.post_message(self.Said(f"Written to {path}"))


def _opening(subject: Subject) -> str:
    return OPENING if subject == OWN else f"Examining {subject.name} …"


BENCH = DoctorBench
