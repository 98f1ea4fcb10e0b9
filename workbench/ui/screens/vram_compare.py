"""Two plans side by side: what differs between them, and what that does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.errors import WorkbenchError
from workbench.session.protocol import EstimateMemory, MemoryEstimated
from workbench.ui.benches.vram_budget import gpu_block, parts_of, total_of
from workbench.ui.benches.vram_plan import LABEL_OF, THIS_BOX, Draft, edited, fields_of, values_of
from workbench.ui.link import SessionLink
from workbench.ui.screens.closer_look import ASKING
from workbench.ui.screens.vram_screen import VramScreen, tabs
from workbench.ui.widgets.bars import left, right
from workbench.ui.widgets.memory_bar import CATEGORIES, label_of, mark_of, memory_bar
from workbench.ui.widgets.memory_plot import told
from workbench.vram.plan import JOBS, plan_to_dict
from workbench.vram.ranges import dollars, duration, range_words, speed

if TYPE_CHECKING:
    from workbench.ui.benches.vram import VramBench

LABEL_WIDTH, CELL_WIDTH = 18, 20


class ComparePlansScreen(VramScreen):
    """This plan left, another right: one kept, one from before, or the same model with another job."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,tab,l", "turn(1)", "Next plan to compare with", show=False),
        Binding("left,shift+tab,h", "turn(-1)", "Plan before", show=False),
        Binding("k", "keep", "Keep this plan, to compare with later", show=False),
        Binding("enter", "take", "Take the other plan", show=False),
        Binding("y", "copy_table", "Copy the comparison", show=False),
    ]
    KEYS = (("← →", "another"), ("enter", "take the other"), ("k", "keep this"), ("?", "keys"))

    def __init__(self, link: SessionLink, model: str, bench: VramBench) -> None:
        super().__init__(link, "vram-compare", "Two plans")
        self._model, self._bench = model, bench
        self._others = list(others_of(bench.draft, bench.kept, bench.history))
        self._current = 0
        self._results: tuple[dict[str, Any], dict[str, Any]] | None = None

    def parts(self) -> Iterable[Widget]:
        yield Static(id="compared-tabs")
        yield VerticalScroll(Static(id="compared-told"), id="compared-scroll")

    def on_mount(self) -> None:
        self.query_one("#compared-scroll").focus()
        self.compare()

    @work(group=ASKING, exclusive=True, exit_on_error=False)
    async def compare(self) -> None:
        """Ask for both budgets."""
        self.headline("This plan beside another", self._model)
        self.query_one("#compared-tabs", Static).update(tabs([name for name, _ in self._others], self._current))
        first = await self._estimate(self._bench.draft)
        second = await self._estimate(self._others[self._current][1])
        self._results = (first, second) if first is not None and second is not None else None
        if self._results is not None:
            self.say("What is the same in both is left out.")
        self._show()

    async def _estimate(self, draft: Draft) -> dict[str, Any] | None:
        gpus = [] if draft.gpu == THIS_BOX else [draft.gpu]
        request = EstimateMemory(
            self._model, plan_to_dict(draft.plan), gpus, "", draft.dataset_tokens, draft.epochs, suggest=False
        )
        reply = await self.ask(request, MemoryEstimated)
        return reply.result if reply is not None else None

    def on_resize(self) -> None:
        self._show()

    def _show(self) -> None:
        if not self.is_mounted:
            return
        width = max(40, self.query_one("#compared-scroll").size.width - 3)
        lines: list[Content] = []
        if self._results is not None:
            lines = [*compared(self._bench.draft, self._others[self._current], self._results, width)]
        self.query_one("#compared-told", Static).update(Content("\n").join(lines))

    def action_turn(self, step: int) -> None:
        self._current = (self._current + step) % len(self._others)
        self.compare()

    def action_keep(self) -> None:
        self._bench.kept = self._bench.draft
        self.say("Kept: edit the plan, then c compares with it.")

    def action_take(self) -> None:
        self._bench.change(self._others[self._current][1])
        self.dismiss(None)

    def action_copy_table(self) -> None:
        if self._results is not None:
            lines = compared(self._bench.draft, self._others[self._current], self._results, 100)
            self.copy("\n".join(line.plain.rstrip() for line in lines), "the comparison")


def others_of(draft: Draft, kept: Draft | None, history: list[Draft]) -> Iterator[tuple[str, Draft]]:
    """Plans to compare with, each once: the kept one, those before, the other jobs."""
    seen = [draft]
    candidates = [("kept", kept)] if kept is not None else []
    if history:
        candidates += [("before the last edit", history[-1]), ("as it was at first", history[0])]
    for job in JOBS:
        try:
            candidates.append((job, edited(draft, "job", job)))
        except WorkbenchError:
            continue
    for name, other in candidates:
        if other is not None and other not in seen:
            seen.append(other)
            yield name, other


def compared(
    draft: Draft, other: tuple[str, Draft], results: tuple[dict[str, Any], dict[str, Any]], width: int
) -> Iterator[Content]:
    """Bars, categories, time and money, and the fields that differ."""
    heads = (
        right("this plan", CELL_WIDTH, "bold"),
        right(other[0], CELL_WIDTH, "bold"),
        right("difference", 14, "$muted"),
    )
    largest = max(total_of(result.get("estimate")) for result in results)
    for name, result in zip(("this plan", other[0]), results, strict=True):
        sharing = int((result.get("plan") or {}).get("gpus") or 1)
        yield Content.styled(name, "$muted")
        parts, gpus = parts_of(result.get("estimate")), result.get("gpus") or []
        yield gpu_block(gpus[0], parts, width, sharing) if gpus else memory_bar(parts, 0, width, largest)
    yield Content("")
    yield Content.assemble(left("", LABEL_WIDTH), *heads)
    first, second = (result.get("estimate") or {} for result in results)
    for category in CATEGORIES:
        pair = (int(first.get(category) or 0), int(second.get(category) or 0))
        if any(pair):
            yield _row(Content.assemble(mark_of(category), " ", left(label_of(category), LABEL_WIDTH - 3)), *pair)
    yield _row(left("   total", LABEL_WIDTH, "bold"), total_of(first), total_of(second), "bold")
    yield from _costs(results)
    yield Content("")
    yield from _differences(draft, other[1])


def _differences(draft: Draft, other: Draft) -> Iterator[Content]:
    ours, theirs = ({field.id: field for field in fields_of(one)} for one in (draft, other))
    mine, its = values_of(draft), values_of(other)
    for key, label in LABEL_OF.items():
        cells = [
            fields[key].show(values[key]) if key in fields else "–" for fields, values in ((ours, mine), (theirs, its))
        ]
        if cells[0] != cells[1]:
            yield Content.assemble(
                ("≠ ", "$accent"), left(label, LABEL_WIDTH - 2), *(right(cell, CELL_WIDTH) for cell in cells)
            )


def _row(label: Content, first: int, second: int, style: str = "") -> Content:
    difference = second - first
    sign = "+" if difference > 0 else "−" if difference < 0 else ""
    words = f"{sign}{told(abs(difference))}" if difference else "same"
    cells = [right(told(size) if size else "–", CELL_WIDTH, style) for size in (first, second)]
    return Content.assemble(label, *cells, right(words, 14, "$muted"))


def _costs(results: tuple[dict[str, Any], dict[str, Any]]) -> Iterator[Content]:
    costs = [result.get("cost") or {} for result in results]
    for label, key, show in (
        ("tokens/s", "tokens_per_second", speed),
        ("a step", "seconds_per_step", duration),
        ("in all", "seconds", duration),
        ("dollars", "usd", dollars),
    ):
        if any(cost.get(key) for cost in costs):
            cells = [range_words(cost[key], show) if cost.get(key) else "–" for cost in costs]
            yield Content.assemble(left(f"   {label}", LABEL_WIDTH), *(right(cell, CELL_WIDTH) for cell in cells))
