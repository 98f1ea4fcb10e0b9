"""VRAM: will this job fit on this GPU, and what to change so that it does."""

from __future__ import annotations

import asyncio
import json
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Static

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import (
    CurveDrawn,
    DrawCurve,
    EstimateMemory,
    Event,
    FitPlan,
    JobProgressed,
    MeasureLoaded,
    MeasureMemory,
    MemoryEstimated,
    MemoryMeasured,
    MemorySimulated,
    PlanFitted,
    PlanWritten,
    SimulateMemory,
    WritePlan,
)
from workbench.ui.actions import bindings_of
from workbench.ui.bench import Bench, ErrorLine
from workbench.ui.benches.vram_budget import budget, verdict_of
from workbench.ui.benches.vram_changes import change_rows, explained, heading_words
from workbench.ui.benches.vram_plan import (
    MOST_TOKENS,
    THIS_BOX,
    Draft,
    draft_as_text,
    draft_from,
    edited,
    fields_of,
    in_words,
    notes_of,
    reason_of,
    values_of,
    with_changes,
)
from workbench.ui.benches.vram_plots import length_values, over_length, over_time
from workbench.ui.drafts import PLAN, DraftKeeper, read_draft
from workbench.ui.link import SessionLink
from workbench.ui.session_state import LOST, STARTING, SessionState
from workbench.ui.strip_text import progress_text
from workbench.ui.widgets.fields import Value
from workbench.ui.widgets.finder import find_in
from workbench.ui.widgets.plan_fields import PlanFields
from workbench.ui.widgets.row_list import RowList
from workbench.vram.plan import Plan, check_plan, plan_from_dict, plan_to_dict

ADVICE_AFTER_SECONDS = 0.25
"""No key for so long, and the slower answers are asked for: what to change, kept simulations, the plot."""
REFUSALS = ("bad-plan", "bad-lora", "bad-option")
MOST_UNDONE = 300
LOW, SLIM = 16, 66
"""Below this height or width plan and budget are stacked, the budget reached by tab."""
ROOM_FOR_PLOT, ROOM_FOR_CURVE = 8, 26
TALLEST_PLOT = 28
FEWEST_CHANGES = 6
"""Lines that the list of changes has at least, with its title; the fields take what is left."""


class VramBench(Bench):
    """The plan as an editor left with what to change below it; what it takes, on three rungs, right."""

    NAME = "vram"
    NEEDS_TORCH = True
    OF_THE_MODEL = True
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("vram")]

    estimate: reactive[dict[str, Any] | None] = reactive(None, always_update=True)
    """The last reply, as the contract of ``workbench vram --json`` says."""

    def __init__(self, link: SessionLink) -> None:
        super().__init__(link)
        self._asked: tuple[str, int] = ("", 0)
        self.draft = draft_from(read_draft(PLAN))
        self.kept: Draft | None = None
        """Put aside, to compare with."""
        self.history: list[Draft] = []
        """The drafts before each edit, the latest last."""
        self._keeper = DraftKeeper(self, PLAN)
        self.shows_anothers = False
        """Whether the plan is the tour's: the user's own stays on disk meanwhile."""
        self._sent_length = 0
        self._wrong = ""
        self._told = ""
        """Why the last value was refused or stepped over, while the cursor stays on its field."""
        self._curve: list[dict[str, int]] = []
        self._simulations: dict[tuple[str, str], dict[str, Any]] = {}
        self._measurements: dict[tuple[str, str], dict[str, Any]] = {}
        self._rung_running = ""
        """What is running: ``simulating`` or ``measuring``."""

    def compose(self) -> ComposeResult:
        yield ErrorLine()
        with Container(id="vram-body"):
            with Vertical(id="vram-left"):
                yield Static("PLAN", classes="title", id="vram-title")
                yield PlanFields(self.attempt, id="vram-plan")
                yield Static(id="vram-hint")
                yield Static("WHAT TO CHANGE", classes="title", id="vram-changes-title")
                yield RowList(id="vram-changes")
            with VerticalScroll(id="vram-right"):
                yield Static(id="vram-progress")
                yield Static(id="vram-budget")

    def on_unmount(self) -> None:
        self._keeper.keep()

    def first_focus(self) -> Widget:
        return self.query_one(PlanFields)

    def on_mount(self) -> None:
        super().on_mount()
        self._show_progress(None)
        self._show_fields()

    # --- Following the session and the plan ----------------------------------------------------------------

    def session_changed(self, old: SessionState, new: SessionState) -> None:
        if old.chosen != new.chosen:
            self._curve = []
            self._show_fields()
        if not new.chosen:
            self.query_one("#vram-budget", Static).update(
                Content.assemble(
                    "Shows what a job takes on each GPU: weights, KV cache and the rest, before it is loaded.\n\n",
                    ("ctrl+o", "bold $accent"),
                    " chooses a model; one of the catalogue needs no download.",
                )
            )
        elif not new.attached:
            if self.estimate is None:
                self._say("starting the session" if new.connection == STARTING else "")
        elif (new.chosen, new.attachments) != self._asked:
            self.ask_estimate()

    @work(group="estimate", exclusive=True, exit_on_error=False)
    async def ask_estimate(self) -> None:
        """Ask for the bytes of the plan as it stands, then for what takes longer; a later call replaces this one."""
        model = self.session.chosen
        if not model or not self.session.attached:
            return
        self._asked = (model, self.session.attachments)
        if self.estimate is None:
            self._say("building the model on the meta device")
        try:
            reply = await self.link.ask(self._request(suggest=False), MemoryEstimated, self._on_event)
        except JobCancelled:
            return
        except WorkbenchError as error:
            self._take_refusal(error)
            return
        self._take_estimate(reply.result | {"suggestions": (self.estimate or {}).get("suggestions")})
        await asyncio.sleep(ADVICE_AFTER_SECONDS)
        try:
            reply = await self.link.ask(self._request(), MemoryEstimated)
            self._take_estimate(reply.result)
            await self._ask_kept(model)
            await self._ask_curve(model)
        except (JobCancelled, WorkbenchError) as error:
            # The estimate stands, whatever becomes of the rest.
            self._fail(error)

    def _request(self, suggest: bool = True, solve: str = "") -> EstimateMemory:
        draft = self.draft
        return EstimateMemory(
            self.session.chosen,
            plan_to_dict(draft.plan),
            self.gpu_names,
            solve,
            draft.dataset_tokens if draft.plan.trains else 0,
            draft.epochs,
            suggest,
        )

    @property
    def gpu_names(self) -> list[str]:
        """The GPUs of the request: none means those of this box."""
        return [] if self.draft.gpu == THIS_BOX else [self.draft.gpu]

    @property
    def dataset_tokens(self) -> int:
        """Tokens of the measured data set, once through; 0 while none was sent here."""
        return self.draft.dataset_tokens

    def _take_estimate(self, result: dict[str, Any]) -> None:
        if self.estimate is None:
            # What failed before was the estimate; a failure to load, say, stays until the plan is edited.
            self.show_error(None)
        if self._wrong:
            self._wrong = ""
            self._hint_field()
        self.estimate = result
        self._show_fields()

    def _take_refusal(self, error: WorkbenchError) -> None:
        """A plan that this model cannot have is told where the cursor is; anything else in the error line."""
        if error.kind == "session-lost":
            return
        if error.kind in REFUSALS and self.estimate is not None:
            field = self.query_one(PlanFields).field
            self._wrong = field.id if field is not None else ""
            self._show_fields()
            self._hint(Content.assemble(("✖ ", "bold $bad"), reason_of(error), (" u undoes", "$muted")))
            self.query_one("#vram-budget").add_class("-stale")
            return
        self.estimate = None
        self.query_one("#vram-budget", Static).update("")
        self.show_error(error)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, JobProgressed) and self.estimate is None:
            self._say(f"{event.phase} {progress_text(event.done, event.total, event.unit)}".strip())

    def _say(self, what: str) -> None:
        line = Content.assemble((self.session.chosen, "bold"), (f"  {what} …" if what else "", "$muted"))
        self.query_one("#vram-budget", Static).update(line)

    # --- Drawing -------------------------------------------------------------------------------------------

    def watch_estimate(self) -> None:
        if self.is_mounted:
            self._draw()
            self._show_changes()

    def on_resize(self) -> None:
        self.set_class(self.size.height < LOW, "-low")
        self.set_class(self.size.width < SLIM, "-slim")
        self._share_lines()
        self.call_after_refresh(self._show_changes)
        # Once the parts have their new places, which the classes decide too.
        self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        if self.estimate is None or not self.is_mounted:
            return
        pane = self.query_one("#vram-right")
        width = max(30, pane.scrollable_content_region.width)
        shown = budget(self.result, self.simulation, width)
        above = 2 if self._rung_running else 0
        room = pane.size.height - above - lines_of(shown, width) - 1
        plot = self._plot(width, min(TALLEST_PLOT, room)) if room >= ROOM_FOR_PLOT else None
        whole = Content.assemble(shown, "\n\n", plot) if plot is not None else shown
        told = self.query_one("#vram-budget", Static)
        told.remove_class("-stale")
        told.update(whole)

    def _plot(self, width: int, height: int) -> Content | None:
        """Live memory over the simulated step; the budget over the length where none was simulated."""
        if self.simulation:
            return over_time(self.simulation, self._capacity, width, height)
        return over_length(self._curve, self.draft.plan, self._capacity, width, height) if self._curve else None

    def _show_fields(self, wrong: str = "") -> None:
        if not self.ready:
            return
        context = (self.estimate or {}).get("context_length")
        notes = notes_of(self.draft, self._sent_length, context if isinstance(context, int) else None)
        fields = self.query_one(PlanFields)
        fields.show_fields(fields_of(self.draft), values_of(self.draft), notes, wrong or self._wrong)
        self._share_lines()
        title = Content.assemble("PLAN", (f"  {self.session.chosen}", "$foreground"))
        self.query_one("#vram-title", Static).update(title)

    def _share_lines(self) -> None:
        """Give the fields as many lines as they have, while the changes below keep theirs."""
        if self.has_class("-slim"):
            return
        below = self.query_one("#vram-hint").outer_size.height + (FEWEST_CHANGES if self.size.height < 26 else 9)
        fields = self.query_one(PlanFields)
        fields.styles.height = max(3, min(len(fields.fields), self.size.height - below - 1))

    def _show_changes(self) -> None:
        result = self.estimate or {}
        verdicts = [verdict_of(gpu) for gpu in result.get("gpus") or []]
        fits = bool(verdicts) and all(verdict == "fits" for verdict in verdicts)
        note = heading_words(self.query_one("#vram-changes").size.width, fits)
        self.query_one("#vram-changes-title", Static).update(Content.assemble("WHAT TO CHANGE", (note, "$muted")))
        suggestions = result.get("suggestions")
        self.query_one("#vram-changes", RowList).set_rows(() if suggestions is None else change_rows(suggestions))

    # --- Saying what is under the cursor -------------------------------------------------------------------

    def _hint(self, content: Content) -> None:
        self.query_one("#vram-hint", Static).update(content)

    def _hint_field(self) -> None:
        field = self.query_one(PlanFields).field
        if field is not None:
            keys = "◂ ▸ change it" + (", enter types one" if field.typed else "")
            self._hint(Content.assemble(field.help, (f"  {keys}", "$muted")))

    @on(PlanFields.Highlighted, "#vram-plan")
    def explain_field(self) -> None:
        if self.query_one(PlanFields).has_focus and not self._wrong and not self._told:
            self._hint_field()

    @on(PlanFields.Told)
    def tell_refusal(self, message: PlanFields.Told) -> None:
        self._told = message.reason
        if message.reason:
            self._hint(Content.assemble(("✖ ", "bold $bad"), message.reason))
        elif not self._wrong:
            self._hint_field()

    @on(RowList.Highlighted, "#vram-changes")
    def explain_change(self, message: RowList.Highlighted) -> None:
        if self.query_one("#vram-changes").has_focus:
            self._hint(explained(message.row.data))

    def on_descendant_focus(self) -> None:
        row = self.query_one("#vram-changes", RowList).row
        if row is not None and self.query_one("#vram-changes").has_focus:
            self._hint(explained(row.data))
        elif self.query_one(PlanFields).has_focus and not self._wrong:
            self._hint_field()

    # --- Editing -------------------------------------------------------------------------------------------

    def attempt(self, field: str, value: Value) -> str:
        """Take a value of a field, or say why it cannot be."""
        try:
            after = edited(self.draft, field, value)
        except WorkbenchError as error:
            return reason_of(error)
        self.change(after)
        return ""

    def change(self, after: Draft) -> None:
        """Go on with another draft; undo comes back to the present one."""
        if after == self.draft:
            return
        self.history = [*self.history[-MOST_UNDONE:], self.draft]
        self._go_to(after)

    def _go_to(self, draft: Draft) -> None:
        self.draft, self._wrong = draft, ""
        if not self.shows_anothers:
            self._keeper.changed(draft_as_text(draft))
        self.show_error(None)
        self._show_fields()
        self.ask_estimate()

    def action_undo(self) -> None:
        if not self.history:
            self.post_message(self.Said("Nothing to undo."))
            return
        self._go_to(self.history.pop())
        self._hint_field()

    def action_reset(self) -> None:
        self.change(Draft())

    def take_sequence_length(self, tokens: int, dataset_tokens: int = 0) -> None:
        """Plan with this many tokens, as another bench measured them, and with a data set of so many for its cost."""
        self._sent_length = max(1, min(MOST_TOKENS, tokens))
        after = edited(self.draft, "sequence_length", self._sent_length)
        if dataset_tokens:
            after = edited(after, "dataset_tokens", dataset_tokens)
        self.change(after)

    @work(group="standing", exclusive=True, exit_on_error=False)
    async def take_standing(self) -> None:
        """Plan what Chat did last, with what the loaded model holds since as its measurement."""
        try:
            reply = await self.link.ask(MeasureLoaded(), MemoryMeasured)
            plan = plan_from_dict(reply.plan)
        except (JobCancelled, WorkbenchError) as error:
            self._fail(error)
            return
        if reply.model != self.session.chosen:
            self.post_message(self.Said(f"{reply.model} is loaded: ctrl+o chooses it."))
            return
        self.change(Draft(plan, self.draft.gpu, self.draft.dataset_tokens, self.draft.epochs))
        self._keep(self._plan_key, reply)
        self.post_message(self.Said("Measured: what the loaded model holds after its last answer. u undoes."))

    @on(RowList.Chosen, "#vram-changes")
    def apply_change(self, message: RowList.Chosen) -> None:
        self._apply(message.row.data)

    def _apply(self, suggestion: dict[str, Any]) -> None:
        try:
            plan = with_changes(self.draft.plan, suggestion["change"])
            check_plan(plan)
        except WorkbenchError as error:
            self._hint(Content.assemble(("✖ ", "bold $bad"), reason_of(error)))
            return
        self.change(Draft(plan, self.draft.gpu, self.draft.dataset_tokens, self.draft.epochs))
        self.post_message(self.Said(f"Changed: {suggestion['title']}. u undoes."))

    # --- What fits -----------------------------------------------------------------------------------------

    def _target(self) -> str:
        """The GPU to fit, as the session takes it; says what is missing where there is none."""
        if self.draft.gpu != THIS_BOX:
            return self.draft.gpu
        gpus = (self.estimate or {}).get("gpus") or []
        if not gpus:
            self.post_message(self.Said("There is no GPU on this box to fit: t lists those there are."))
            return ""
        return f"{int(gpus[0]['capacity_bytes']) // 2**20}MiB"

    @work(group="fit", exclusive=True, exit_on_error=False)
    async def action_fit(self) -> None:
        """Make the cheapest changes with which the plan fits."""
        said = await self.make_it_fit()
        if said:
            self.post_message(self.Said(said))

    async def make_it_fit(self) -> str:
        """Make the cheapest changes with which the plan fits; what came of it, in a short word."""
        target = self._target() if self._ready() else ""
        if not target:
            return ""
        try:
            request = FitPlan(self.session.chosen, target, plan_to_dict(self.draft.plan))
            reply = await self.link.ask(request, PlanFitted, self._on_event)
        except (JobCancelled, WorkbenchError) as error:
            self._fail(error)
            return ""
        if not reply.fits:
            return "No set of changes is enough for this GPU: t lists larger ones."
        if not reply.changes:
            return f"It fits as it is, by {reply.by}."
        draft = self.draft
        self.change(Draft(plan_from_dict(reply.plan), draft.gpu, draft.dataset_tokens, draft.epochs))
        made = ", ".join(str(change["title"]) for change in reply.changes)
        check = " s simulates it," if reply.by == "estimate" else ""
        return f"Fits by {reply.by} with {made}.{check} u undoes."

    @work(group="fit", exclusive=True, exit_on_error=False)
    async def action_solve(self, what: str) -> None:
        """Set the largest batch or the longest sequence that fits."""
        if not self._ready() or not self._target():
            return
        try:
            reply = await self.link.ask(self._request(suggest=False, solve=what), MemoryEstimated)
        except (JobCancelled, WorkbenchError) as error:
            self._fail(error)
            return
        solved = (reply.result.get("solved") or [{}])[0]
        value, word = solved.get("value"), "batch" if what == "batch" else "sequence"
        if value is None:
            self.post_message(self.Said(f"Not even a {word} of 1 fits: f looks for changes."))
            return
        context = reply.result.get("context_length")
        note = ""
        if solved.get("beyond_context") and context:
            value = max(1, context - (0 if self.draft.plan.trains else self.draft.plan.new_tokens))
            note = f" within the model's context ({solved['value']:,} would fit)"
        self.change(edited(self.draft, str(solved["field"]), min(value, MOST_TOKENS)))
        self.post_message(self.Said(f"{value:,} is the largest {word} that fits{note}. u undoes."))

    def _ready(self) -> bool:
        if not self.session.chosen:
            self.post_message(self.Said("Choose a model first: ctrl+o."))
        return bool(self.session.chosen) and self.session.attached

    def _fail(self, error: Exception) -> None:
        if isinstance(error, WorkbenchError):
            self.show_error(error)

    # --- Simulating and measuring --------------------------------------------------------------------------

    @property
    def _plan_key(self) -> tuple[str, str]:
        return self.session.chosen, json.dumps(plan_to_dict(self.draft.plan), sort_keys=True)

    @property
    def simulation(self) -> dict[str, Any] | None:
        """The simulation of the plan as it stands, if it was made."""
        return self._simulations.get(self._plan_key)

    @property
    def result(self) -> dict[str, Any]:
        """The estimate, with the measurement of the plan as it stands if there is one."""
        return (self.estimate or {}) | self._measurements.get(self._plan_key, {})

    async def _ask_kept(self, model: str) -> None:
        """Look for a simulation and a measurement made before."""
        key, plan = self._plan_key, plan_to_dict(self.draft.plan)
        if self._rung_running:
            return
        if key not in self._simulations:
            self._keep(key, await self.link.ask(SimulateMemory(model, plan, only_kept=True), MemorySimulated))
        if key not in self._measurements:
            self._keep(key, await self.link.ask(MeasureMemory(model, plan, only_kept=True), MemoryMeasured))

    async def _ask_curve(self, model: str) -> None:
        """The budget over the length, where the screen has room for it."""
        context = (self.estimate or {}).get("context_length")
        values = length_values(self.draft.plan.sequence_length, context if isinstance(context, int) else 0)
        request = DrawCurve(model, "sequence_length", values, plan_to_dict(self.draft.plan))
        if self.size.height >= ROOM_FOR_CURVE and self.simulation is None:
            self._curve = (await self.link.ask(request, CurveDrawn)).points
            self._draw()

    def _keep(self, key: tuple[str, str], reply: MemorySimulated | MemoryMeasured) -> None:
        """Show what was found for a plan whenever that plan stands."""
        if isinstance(reply, MemorySimulated) and reply.simulation is not None:
            self._simulations[key] = reply.simulation
        elif isinstance(reply, MemoryMeasured) and reply.measurement is not None:
            self._measurements[key] = {"measurement": reply.measurement, "errors": reply.errors}
        self._draw()

    def action_simulate(self) -> None:
        """Run the step on tensors without data; of a plan that was simulated, look closer."""
        if not self._ready() or self._is_busy():
            return
        if self.simulation is not None:
            self.action_timeline()
        else:
            self._run("simulating", SimulateMemory(self.session.chosen, plan_to_dict(self.draft.plan)), MemorySimulated)

    def action_measure(self) -> None:
        """Run two steps of the plan for real, on the GPU of this box or its CPU."""
        if self._ready() and not self._is_busy():
            self._run("measuring", MeasureMemory(self.session.chosen, plan_to_dict(self.draft.plan)), MemoryMeasured)

    def _is_busy(self) -> bool:
        if self._rung_running:
            self.post_message(self.Said(f"Still {self._rung_running}: escape stops it."))
        return bool(self._rung_running)

    @work(group="rung", exclusive=True, exit_on_error=False)
    async def _run(
        self, what: str, request: SimulateMemory | MeasureMemory, expected: type[MemorySimulated | MemoryMeasured]
    ) -> None:
        key = self._plan_key
        self._set_running(what)
        try:
            self._keep(key, await self.link.ask(request, expected, self._on_run))
        except (JobCancelled, WorkbenchError) as error:
            self._fail(error)
        else:
            # What fits follows the best rung there is.
            self.ask_estimate()
        finally:
            self._set_running("")

    def _set_running(self, what: str) -> None:
        self._rung_running = what
        self.refresh_bindings()
        self._show_progress(Content.styled("starting", "$muted") if what else None)
        self._draw()

    def _on_run(self, event: Event) -> None:
        if isinstance(event, JobProgressed):
            counts = progress_text(event.done, event.total, event.unit)
            self._show_progress(Content.assemble((f"{event.phase} ", "bold"), counts))

    def _show_progress(self, content: Content | None) -> None:
        line = self.query_one("#vram-progress", Static)
        line.display = content is not None
        if content is not None:
            stops = (("   ", ""), ("escape", "bold $accent"), (" stops", "$muted"))
            line.update(Content.assemble((f"{self._rung_running}: ", "$muted"), content, *stops))

    def action_stop(self) -> None:
        self.workers.cancel_group(self, "rung")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "stop":
            return bool(self._rung_running)
        if action == "rules" and self.session.connection == LOST:
            return False
        return super().check_action(action, parameters)

    # --- Looking closer ------------------------------------------------------------------------------------

    def action_timeline(self) -> None:
        """The simulated step: its timeline, phases and who holds the most."""
        if self.simulation is not None:
            from workbench.ui.screens.vram_simulation import SimulationScreen

            self.app.push_screen(SimulationScreen(self.link, self.session.chosen, self.simulation, self._capacity))

    @property
    def _capacity(self) -> int:
        """Of the first GPU; 0 where there is none."""
        gpus = (self.estimate or {}).get("gpus") or []
        return int(gpus[0].get("capacity_bytes") or 0) if gpus else 0

    def action_gpus(self) -> None:
        """Every GPU of the catalogue against this plan."""
        if self._ready():
            from workbench.ui.screens.vram_gpus import GpusScreen

            self.app.push_screen(GpusScreen(self.link, self.session.chosen, self.draft, self.change))

    def action_plots(self) -> None:
        """Memory over length, batch, rank."""
        if self._ready():
            from workbench.ui.screens.vram_curves import CurvesScreen

            context = int((self.estimate or {}).get("context_length") or 0)
            self.app.push_screen(CurvesScreen(self.link, self.session.chosen, self.draft, self._capacity, context))

    def action_money(self) -> None:
        """What it costs in time and money."""
        if self._ready():
            from workbench.ui.screens.vram_money import MoneyScreen

            self.app.push_screen(MoneyScreen(self.link, self.session.chosen, self.draft, self.gpu_names, self.change))

    def action_compare(self) -> None:
        """This plan beside another."""
        if self._ready():
            from workbench.ui.screens.vram_compare import ComparePlansScreen

            self.app.push_screen(ComparePlansScreen(self.link, self.session.chosen, self))

    def action_rules(self) -> None:
        """Rules of thumb beside the right numbers."""
        from workbench.ui.screens.vram_rules import RulesScreen

        self.app.push_screen(RulesScreen(self.link))

    def action_kept(self) -> None:
        """Every measurement kept on this box."""
        if self._ready():
            from workbench.ui.screens.vram_kept import KeptScreen

            self.app.push_screen(KeptScreen(self.link, self.take_measured))

    def take_measured(self, plan: Plan, model: str) -> None:
        """Go on with the plan of a measurement, which is shown beside it where its model is the chosen one."""
        self.open_plan(Draft(plan, self.draft.gpu, self.draft.dataset_tokens, self.draft.epochs), model)

    def action_why(self) -> None:
        """Where each number comes from."""
        if self.estimate is not None:
            from workbench.ui.screens.vram_why import WhyScreen

            self.app.push_screen(WhyScreen(self.link, self.session.chosen, self.result, self.simulation))

    def show_modules(self, title: str, modules: list[str]) -> None:
        """What some modules of the model take of this plan."""
        if self._ready():
            from workbench.ui.screens.vram_modules import ModulesScreen

            self.app.push_screen(ModulesScreen(self.link, self.session.chosen, self.draft, title, modules))

    def action_find(self) -> None:
        """Go to a field of the plan by its name or value."""
        find_in(self.query_one(PlanFields))

    def action_out(self) -> None:
        """Code, plan file, Markdown."""
        if self._ready():
            from workbench.ui.screens.vram_out import OutScreen

            launch = [str(line) for line in (self.estimate or {}).get("launch") or ()]
            self.app.push_screen(OutScreen(self.link, self.session.chosen, self.write_request, launch, self.open_plan))

    def open_plan(self, draft: Draft, model: str) -> None:
        """Go on with a plan from a file; its model is only named, choosing one is the user's."""
        self.change(draft)
        if model and model != self.session.chosen:
            self.post_message(self.Said(f"The plan was made for {model}: ctrl+o chooses it."))

    # --- Out of the bench ----------------------------------------------------------------------------------

    def action_load_plan(self) -> None:
        plan = self.draft.plan
        self.post_message(
            self.LoadRequested({"quant": plan.quant, "double_quant": plan.double_quant, "dtype": plan.dtype})
        )

    def action_copy(self) -> None:
        if self.estimate is not None:
            table = budget(self.result, self.simulation, 100).plain
            text = "\n".join([f"model: {self.session.chosen}", *in_words(self.draft), "", table])
            self.post_message(self.CopyRequested(text, "plan and budget"))

    @work(group="copy", exclusive=True, exit_on_error=False)
    async def action_copy_markdown(self) -> None:
        """The budget as Markdown, for an issue."""
        if not self._ready():
            return
        try:
            reply = await self.link.ask(self.write_request("markdown"), PlanWritten)
        except (JobCancelled, WorkbenchError) as error:
            self._fail(error)
        else:
            self.post_message(self.CopyRequested(reply.text, "the budget as Markdown"))

    def write_request(self, form: str, path: str = "", overwrite: bool = False) -> WritePlan:
        """The request that turns the present plan into text."""
        draft = self.draft
        plan = plan_to_dict(draft.plan)
        return WritePlan(
            self.session.chosen, plan, self.gpu_names, form, path, overwrite, draft.dataset_tokens, draft.epochs
        )


def lines_of(content: Content, width: int) -> int:
    """How many lines it takes once those that are too long are broken between words."""
    lengths = (line.cell_length for line in content.split("\n", allow_blank=True))
    return sum(1 if length <= width else 1 + -(-length // width) for length in lengths)


BENCH = VramBench
