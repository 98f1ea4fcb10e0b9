"""Every measurement kept on this box; one of them opens as the plan."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.errors import WorkbenchError
from workbench.session.protocol import ListMeasurements, MeasurementsListed
from workbench.text import gib
from workbench.ui.benches.vram_budget import measured_words
from workbench.ui.link import SessionLink
from workbench.ui.screens.closer_look import ASKING
from workbench.ui.screens.vram_screen import VramScreen
from workbench.ui.widgets.bars import left, right
from workbench.ui.widgets.row_list import Row, RowList
from workbench.vram.plan import Plan, plan_from_dict
from workbench.vram.ranges import duration

WHEN_WIDTH, MODEL_WIDTH, PLAN_WIDTH, PEAK_WIDTH = 18, 22, 22, 8


class KeptScreen(VramScreen):
    """One row for each measurement, the newest first; enter plans what was measured.

    Args:
        take: told of the plan and of the model that it was measured on.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "copy_table", "Copy the table", show=False)]
    KEYS = (("enter", "plan it"), ("y", "copy"), ("?", "keys"))

    def __init__(self, link: SessionLink, take: Callable[[Plan, str], None]) -> None:
        super().__init__(link, "vram-kept", "Measurements kept on this box")
        self._take = take
        self._points: list[dict[str, Any]] = []

    def parts(self) -> Iterable[Widget]:
        yield Static(id="kept-head")
        yield RowList(id="kept-rows")
        yield Static(id="kept-notes")

    def on_mount(self) -> None:
        self.query_one(RowList).focus()
        self.read()

    @work(group=ASKING, exclusive=True, exit_on_error=False)
    async def read(self) -> None:
        """Ask for all of them."""
        reply = await self.ask(ListMeasurements(), MeasurementsListed, "reading the measurements")
        if reply is None:
            return
        self._points = reply.points
        what = f"{len(reply.points):,} kept, the newest first." if reply.points else "None yet: m measures a plan."
        self.say(f"{what} {reply.note}".strip())
        heads = (left(" when", WHEN_WIDTH), left("model", MODEL_WIDTH), left("plan", PLAN_WIDTH))
        head = Content.assemble(*heads, right("GiB", PEAK_WIDTH)).stylize("$muted")
        self.query_one("#kept-head", Static).update(head)
        self.query_one(RowList).set_rows(Row(f"point:{point['id']}", _line(point), point) for point in reply.points)

    @on(RowList.Highlighted)
    def tell(self, message: RowList.Highlighted) -> None:
        measured = message.row.data["measurement"]
        steps = ", ".join(duration(float(seconds)) for seconds in measured.get("step_seconds") or ())
        lines = [f"{measured_words(measured)} Peak in {measured['peak_phase']}; steps took {steps or 'no time'}."]
        versions = ", ".join(f"{name} {version}" for name, version in (measured.get("versions") or {}).items())
        self.query_one("#kept-notes", Static).update(Content.styled(" ".join([*lines, versions]), "$muted"))

    @on(RowList.Chosen)
    def choose(self, message: RowList.Chosen) -> None:
        try:
            plan = plan_from_dict(message.row.data["plan"])
        except WorkbenchError as error:
            self.fail(error)
            return
        self._take(plan, str(message.row.data["model"]))
        self.dismiss(None)

    def action_copy_table(self) -> None:
        lines = ["when\tmodel\tplan\tdevice\tpeak bytes\ttotal bytes"]
        for point in self._points:
            measured = point["measurement"]
            sizes = (measured["allocated_bytes"], measured["total"])
            cells = (_when(point), point["model"], plan_words(point["plan"]), measured["device"], *sizes)
            lines.append("\t".join(str(cell) for cell in cells))
        self.copy("\n".join(lines), "the measurements")


def plan_words(plan: dict[str, Any]) -> str:
    """A plan in a few words: ``qlora nf4 1 × 2,048``."""
    quant = "" if plan.get("quant") in (None, "none") else f" {plan['quant']}"
    return f"{plan.get('job')}{quant} {plan.get('batch', 1):,} × {plan.get('sequence_length', 0):,}"


def _when(point: dict[str, Any]) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(float(point["measured_at"])))


def _line(point: dict[str, Any]) -> Content:
    measured = point["measurement"]
    return Content.assemble(
        left(f" {_when(point)}", WHEN_WIDTH, "$muted"),
        left(str(point["model"]), MODEL_WIDTH - 1, "bold"),
        " ",
        left(plan_words(point["plan"]), PLAN_WIDTH),
        right(gib(measured["allocated_bytes"], 2), PEAK_WIDTH),
        Content.styled(f"  {measured['device']}", "$muted"),
    )
