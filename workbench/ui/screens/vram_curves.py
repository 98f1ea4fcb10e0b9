"""Memory over one field of the plan, and where another category becomes the largest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.session.protocol import CurveDrawn, DrawCurve
from workbench.ui.benches.vram_plan import Draft
from workbench.ui.benches.vram_plots import length_values, spread
from workbench.ui.link import SessionLink
from workbench.ui.screens.closer_look import ASKING
from workbench.ui.screens.vram_screen import VramScreen, tabs
from workbench.ui.widgets.flow import flow
from workbench.ui.widgets.memory_bar import CATEGORIES, label_of, mark_of
from workbench.ui.widgets.memory_plot import stacked_plot, told, x_labels
from workbench.vram.plan import Plan, plan_to_dict

WORDS = {
    "sequence_length": ("sequence", "tokens"),
    "batch": ("batch", "batch"),
    "new_tokens": ("new tokens", "tokens"),
    "lora_r": ("LoRA rank", "rank"),
    "gpus": ("GPUs", "GPUs"),
}
FEWEST_LINES, POINTS = 6, 100


def fields_of_plot(plan: Plan) -> list[str]:
    """The fields that a plan of this job can be drawn over."""
    fields = ["sequence_length", "batch"]
    fields += ["lora_r"] if plan.has_adapters else []
    fields += ["new_tokens"] if not plan.trains else []
    return fields + (["gpus"] if plan.gpus > 1 else [])


def values_of_plot(plan: Plan, field: str, context: int) -> list[int]:
    """What a field is drawn over, around the plan's own value."""
    if field == "sequence_length":
        return length_values(plan.sequence_length, context)
    if field == "batch":
        return spread(1, max(64, 4 * plan.batch), POINTS)
    if field == "new_tokens":
        return spread(1, max(8192, 4 * plan.new_tokens), POINTS)
    if field == "lora_r":
        return spread(1, max(256, 2 * plan.lora.r), POINTS)
    return spread(2, max(64, 2 * plan.gpus), POINTS)


class CurvesScreen(VramScreen):
    """One plot at a time; the arrow keys go through the fields."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,tab,l", "turn(1)", "Next field", show=False),
        Binding("left,shift+tab,h", "turn(-1)", "Field before", show=False),
        Binding("y", "copy_points", "Copy the points", show=False),
    ]
    KEYS = (("← →", "another field"), ("y", "copy"), ("?", "keys"))

    def __init__(self, link: SessionLink, model: str, draft: Draft, capacity: int, context: int) -> None:
        super().__init__(link, "vram-curves", "Plots")
        self._model, self._draft, self._capacity, self._context_length = model, draft, capacity, context
        self._fields = fields_of_plot(draft.plan)
        self._current = 0
        self._drawn: CurveDrawn | None = None

    def parts(self) -> Iterable[Widget]:
        yield Static(id="curves-tabs")
        yield Static(id="curves-plot")

    def on_mount(self) -> None:
        self.draw()

    @property
    def field(self) -> str:
        """What is drawn over now."""
        return self._fields[self._current]

    @work(group=ASKING, exclusive=True, exit_on_error=False)
    async def draw(self) -> None:
        """Ask for the points of the current field."""
        self.headline("Memory over", self._model)
        self.query_one("#curves-tabs", Static).update(tabs([WORDS[field][0] for field in self._fields], self._current))
        plan = self._draft.plan
        values = values_of_plot(plan, self.field, self._context_length)
        reply = await self.ask(DrawCurve(self._model, self.field, values, plan_to_dict(plan)), CurveDrawn, "drawing")
        self._drawn = reply
        if reply is not None:
            held = f" The dashed line is the GPU's {told(self._capacity)}." if self._capacity else ""
            self.say(f"Estimated, the other fields as planned; the axis is logarithmic.{held}")
            self._show()

    def on_resize(self) -> None:
        self._show()

    def _show(self) -> None:
        if self._drawn is None or not self.is_mounted:
            return
        plot = self.query_one("#curves-plot", Static)
        width = max(40, plot.size.width)
        points = self._drawn.points
        below = [legend(points, width), *self._overtakes(), *self._crossing()]
        height = max(FEWEST_LINES, plot.size.height - len(below) - 3)
        lines = [*stacked_plot(points, self._capacity, width, height), x_labels([p["value"] for p in points], width)]
        plot.update(Content("\n").join([*lines, Content(""), *below]))

    def _overtakes(self) -> list[Content]:
        """Where another category becomes the largest."""
        unit = WORDS[self.field][1]
        found = []
        for one in self._drawn.overtakes if self._drawn else ():
            start = f"{unit} from {one['value']:,} on: most is "
            before = f", before that {label_of(str(one['before']))}"
            found.append(
                Content.assemble((start, "$muted"), (label_of(str(one["category"])), "bold"), (before, "$muted"))
            )
        return found or [Content.styled("The same category is the largest throughout.", "$muted")]

    def _crossing(self) -> list[Content]:
        """Where the budget leaves the GPU."""
        points = self._drawn.points if self._drawn else []
        over = next((point["value"] for point in points if point["total"] > self._capacity), None)
        if not self._capacity:
            return []
        unit = WORDS[self.field][1]
        if over is None:
            return [Content.assemble(("✔ fits ", "bold $good"), ("all the way.", "$muted"))]
        return [Content.assemble(("✖ does not fit ", "bold $bad"), (f"with {unit} from about {over:,} on.", "$muted"))]

    def action_turn(self, step: int) -> None:
        self._current = (self._current + step) % len(self._fields)
        self.draw()

    def action_copy_points(self) -> None:
        if self._drawn is not None:
            lines = ["\t".join([self.field, *CATEGORIES, "total"])]
            for point in self._drawn.points:
                lines.append("\t".join(str(point.get(key, 0)) for key in ("value", *CATEGORIES, "total")))
            self.copy("\n".join(lines), "the points in bytes")


def legend(points: Sequence[dict[str, Any]], width: int) -> Content:
    """The categories that hold anything, with their marks."""
    names = [name for name in CATEGORIES if any(point.get(name) for point in points)]
    pieces = [Content.assemble(mark_of(name), f" {label_of(name)}") for name in names]
    return Content("\n").join(flow(pieces, "  ", width))
