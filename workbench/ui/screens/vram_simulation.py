"""The simulated step: live memory over time, the phases, and who holds the most at the peak."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.text import format_seconds
from workbench.ui.benches.vram_plots import over_time
from workbench.ui.link import SessionLink
from workbench.ui.screens.vram_screen import VramScreen
from workbench.ui.widgets.bars import left, right
from workbench.ui.widgets.memory_bar import label_of, mark_of
from workbench.ui.widgets.memory_plot import told
from workbench.ui.widgets.row_list import Row, RowList, heading

SHORTEST_PLOT, TALLEST_PLOT = 8, 24


class SimulationScreen(VramScreen):
    """The timeline above, owners and phases below."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "copy_all", "Copy owners and phases", show=False)]
    KEYS = (("↑ ↓", "scroll"), ("y", "copy"), ("?", "keys"))

    def __init__(self, link: SessionLink, model: str, simulation: dict[str, Any], capacity: int) -> None:
        super().__init__(link, "vram-simulation", "Simulated step")
        self._model, self._simulation, self._capacity = model, simulation, capacity

    def parts(self) -> Iterable[Widget]:
        yield Static(id="simulation-plot")
        yield RowList(id="simulation-rows")

    def on_mount(self) -> None:
        found = self._simulation
        self.headline("The simulated step", self._model)
        whole = found["layers"] == found["layers_run"] or not found["layers"]
        layers = "all layers run" if whole else f"{found['layers_run']} of {found['layers']} layers run, the rest alike"
        versions = ", ".join(f"{name} {version}" for name, version in (found.get("versions") or {}).items())
        self.say(f"{layers}; {found['operators']:,} operators in {format_seconds(found['seconds'])}; {versions}")
        self.query_one(RowList).set_rows(simulation_rows(found))
        self.query_one(RowList).focus()

    def on_resize(self) -> None:
        plot = self.query_one("#simulation-plot", Static)
        height = max(SHORTEST_PLOT, min(TALLEST_PLOT, self.size.height // 2 - 2))
        plot.update(over_time(self._simulation, self._capacity, max(40, self.size.width - 4), height))

    def action_copy_all(self) -> None:
        lines = [row.content(110).plain.rstrip() for row in self.query_one(RowList).rows]
        self.copy("\n".join(lines), "owners and phases")


def simulation_rows(found: dict[str, Any]) -> Iterator[Row]:
    """Who holds the most at the peak, the phases, and what the allocator makes of it."""
    yield heading(f"AT THE PEAK, IN {str(found['peak_phase']).upper()}")
    for number, owner in enumerate(found.get("owners") or ()):
        yield Row(f"owner:{number}", _owner(owner), owner)
    yield heading("PHASES")
    for number, phase in enumerate(found.get("phases") or ()):
        step = f"step {phase['step'] + 1}" if phase.get("step") else ""
        numbers = (right(told(phase["peak_bytes"]), 13), right(told(phase["reserved_bytes"]), 13, "$muted"))
        line = Content.assemble(" ", left(str(phase["name"]), 14), left(step, 8, "$muted"), *numbers)
        yield Row(f"phase:{number}", Content.assemble(line, (" reserved at its end", "$muted")), phase)
    yield heading("THE ALLOCATOR")
    for label, key in (
        ("asked for at once", "requested_bytes"),
        ("allocated, in blocks", "allocated_bytes"),
        ("reserved", "reserved_bytes"),
        ("CUDA context", "context_bytes"),
        ("nvidia-smi would show", "total"),
    ):
        yield Row(key, Content.assemble(" ", left(label, 24), right(told(found.get(key) or 0), 13, "bold")), None)


def _owner(owner: dict[str, Any]) -> Content:
    many = f" × {owner['count']:,}" if owner.get("count", 1) > 1 else ""
    category = str(owner["category"])
    return Content.assemble(
        " ",
        mark_of(category),
        right(told(owner["bytes"]), 12, "bold"),
        "  ",
        left(label_of(category), 13, "$muted"),
        " ",
        (str(owner["module"]) or "(the loss)", ""),
        (f"  {owner['operator']}{many}", "$muted"),
    )
