"""The tour: a panel under the real benches that walks through them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, TypeVar, cast

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static, TextArea

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import ModelUnloaded, UnloadModel
from workbench.ui.bench import Bench
from workbench.ui.benches.vram import VramBench
from workbench.ui.benches.vram_plan import Draft
from workbench.ui.link import SessionLink
from workbench.ui.sample import BUILT_IN, SAMPLE, fetch_sample, sample_is_here, sample_title, sources_words
from workbench.ui.session_state import ModelChosen
from workbench.ui.strip_text import short_name
from workbench.ui.tour_steps import STEPS

if TYPE_CHECKING:
    from workbench.ui.app import WorkbenchApp

B = TypeVar("B", bound=Bench)


class Tour(Vertical, can_focus=True):
    """Says what a step shows, has it done, and says what came of it. What it changed is put back at the end.

    Args:
        link: to the session.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,right,space,n", "step(1)", "next"),
        Binding("b,left,backspace", "step(-1)", "back"),
        Binding("g", "fetch", "fetch the sample"),
        Binding("escape", "leave", "leaves the tour"),
    ]

    class Left(Message):
        """The user is through, or has enough."""

    def __init__(self, link: SessionLink) -> None:
        super().__init__(id="tour")
        self._link = link
        self.number = 0
        """Index of the step on screen."""
        self.model = ""
        """The model of the tour: the loaded one, else the sample, else the one built in."""
        self._offers = False
        """Whether the sample can be fetched here."""
        self.asked = False
        """Whether Chat was asked the question of the tour."""
        self._loads = False
        self._told_of_load = False
        """Whether a key that leaves the step was answered with what it would stop."""
        self.stopped_words = ""
        """That a load was stopped by leaving its step, as the beginning of what is told next."""
        self._chosen_before = ""
        self._written: tuple[TextArea, str] | None = None
        self._planned: tuple[VramBench, Draft] | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="tour-head")
        yield Static(id="tour-words")
        yield Static(id="tour-outcome")

    @property
    def workbench(self) -> WorkbenchApp:
        """The app, whose benches are walked."""
        return cast("WorkbenchApp", self.app)

    def on_mount(self) -> None:
        self._chosen_before = self.workbench.session.chosen
        self.go_to(0)

    def watch_has_focus(self, has_focus: bool) -> None:
        super().watch_has_focus(has_focus)
        if self.is_mounted:
            self._show_head()

    # --- Walking -------------------------------------------------------------------------------------------

    def go_to(self, number: int) -> None:
        """Show a step and have it done."""
        self.number = number
        self._offers = False
        self._show_head()
        self.query_one("#tour-words", Static).update(Content(STEPS[number].words))
        self.tell("…")
        self.refresh_bindings()
        self.act()

    @work(group="tour", exclusive=True, exit_on_error=False)
    async def act(self) -> None:
        """Do the step, and say what came of it."""
        step = STEPS[self.number]
        await self.workbench.action_show_bench(step.bench)
        self.screen.set_focus(self)  # at once: `focus` comes later, and a key may come in between
        try:
            outcome = await step.act(self)
        except JobCancelled:
            self.tell("Stopped.")
        except WorkbenchError as error:
            self.tell(Content.assemble(("✖ ", "bold $bad"), (error.message, "$bad"), f" {error.remedy}"))
        else:
            self.tell(Content.styled(outcome, "bold"))

    async def action_step(self, by: int) -> None:
        if self._keeps_loading():
            return
        if self.number + by == len(STEPS):
            await self.action_leave()
        elif self.number + by >= 0:
            self.go_to(self.number + by)

    async def action_leave(self) -> None:
        """Put back what the tour changed, and go."""
        if self._keeps_loading():
            return
        if self._loads:
            self.workbench.say(self.stopped_words.strip())
        self.workers.cancel_node(self)
        if self._written is not None:
            area, text = self._written
            if area.text and text.startswith(area.text):
                area.text = ""
        if self._planned is not None:
            bench, draft = self._planned
            bench.shows_anothers = False
            bench.change(draft)
        loaded = self.workbench.session.model
        if self.model == BUILT_IN and loaded is not None and loaded.name == BUILT_IN:
            with contextlib.suppress(WorkbenchError, JobCancelled):
                await self._link.ask(UnloadModel(), ModelUnloaded)
        if self._chosen_before or self.model == BUILT_IN:
            self.workbench.apply(ModelChosen(self._chosen_before))
        elif self.model:
            self.workbench.choose(self.model)
        self.post_message(self.Left())

    def _show_head(self) -> None:
        where = Content.assemble(
            (f"TOUR {self.number + 1} of {len(STEPS)}  ", "bold $muted"), (STEPS[self.number].title, "bold $accent")
        )
        away = "" if self.has_focus else "   tab comes back to the tour"
        self.query_one("#tour-head", Static).update(Content.assemble(where, (away, "$muted")))

    def tell(self, outcome: Content | str) -> None:
        """What the step does now, or what came of it."""
        self.query_one("#tour-outcome", Static).update(outcome)

    def _keeps_loading(self) -> bool:
        """Say, once, that leaving the step stops the load under way; the second key does it."""
        if not self._loads:
            return False
        if self._told_of_load:
            self.stopped_words = f"Loading {short_name(self.model)} was stopped. "
            return False
        self._told_of_load = True
        self.tell(f"Still loading {self.model} …  The same key again stops it and goes on.")
        return True

    @contextlib.contextmanager
    def while_loading(self) -> Iterator[None]:
        """While the model of the tour is being loaded."""
        self._loads, self._told_of_load, self.stopped_words = True, False, ""
        self.tell(f"Loading {self.model} …")
        try:
            yield
        finally:
            self._loads = False

    # --- What the steps use --------------------------------------------------------------------------------

    def bench(self, kind: type[B]) -> B:
        """The bench of the step."""
        bench = self.mounted(kind)
        assert bench is not None
        return bench

    def mounted(self, kind: type[B]) -> B | None:
        """A bench that was shown before."""
        bench = self.workbench.main.mounted_bench(kind.NAME)
        return bench if isinstance(bench, kind) else None

    def wrote(self, area: TextArea, text: str) -> None:
        """Note a text that the tour wrote, to be taken out again."""
        self._written = area, text

    def planned(self, bench: VramBench) -> None:
        """Note the plan that stood before the tour's."""
        self._planned = self._planned or (bench, bench.draft)
        bench.shows_anothers = True

    async def choose_model(self) -> str:
        """Choose the model of the tour: no loaded one is put aside for it."""
        loaded = self.workbench.session.model
        if loaded is not None:
            return self._take(loaded.name, f"It uses {short_name(loaded.name)}, which is loaded.")
        if await sample_is_here(self._link):
            return self._take(SAMPLE, f"It uses {sample_title()}, which is on this box.")
        self._offers = True
        self.refresh_bindings()
        offer = f"g fetches {sample_title()} for it: {sources_words()}."
        return self._take(BUILT_IN, f"{offer} Else it uses {BUILT_IN}, built in, which only babbles.")

    def _take(self, model: str, said: str) -> str:
        self.model = model
        self.workbench.apply(ModelChosen(model))
        return said

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self._offers if action == "fetch" else True

    @work(group="tour", exclusive=True, exit_on_error=False)
    async def action_fetch(self) -> None:
        """Fetch the sample, and go on with it."""
        try:
            await fetch_sample(self._link, lambda told: self.tell(f"Fetching {sample_title()}: {told}"))
        except JobCancelled:
            self.tell("Stopped.")
        except WorkbenchError as error:
            self.tell(Content.assemble(("✖ ", "bold $bad"), (error.message, "$bad"), f" {error.remedy}"))
        else:
            self._offers = False
            self.refresh_bindings()
            self.tell(await self.choose_model())
