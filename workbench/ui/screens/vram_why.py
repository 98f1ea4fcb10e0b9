"""Where each number of the budget comes from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.ui.benches.vram_budget import KNOWN_WORDS, measured_words, parts_of, tensors_words
from workbench.ui.link import SessionLink
from workbench.ui.screens.vram_screen import VramScreen
from workbench.ui.widgets.bars import left, right
from workbench.ui.widgets.memory_bar import CATEGORIES, label_of, mark_of
from workbench.ui.widgets.memory_plot import told

STATIC_WORDS = {
    "quant_state": "of it quantization state",
    "buffers": "of it buffers",
    "prepared": "added by k-bit preparation",
    "parameters": "parameters",
    "trainable_parameters": "trainable parameters",
    "paged": "optimizer in pages CUDA can move",
    "on_cpu": "optimizer on the CPU",
    "gradients": "all gradients",
    "kv_cache": "KV cache at its largest",
}
COUNTS = ("parameters", "trainable_parameters")


class WhyScreen(VramScreen):
    """Rule by rule, to the byte."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "copy_why", "Copy it all", show=False)]
    KEYS = (("↑ ↓", "scroll"), ("y", "copy"), ("?", "keys"))

    def __init__(
        self, link: SessionLink, model: str, result: dict[str, Any], simulation: dict[str, Any] | None
    ) -> None:
        super().__init__(link, "vram-why", "Where the numbers come from")
        self._model, self._content = model, Content("\n").join(why_lines(result, simulation))

    def parts(self) -> Iterable[Widget]:
        yield VerticalScroll(Static(self._content, id="why-told"), id="why-scroll")

    def on_mount(self) -> None:
        self.headline("Where the numbers come from", self._model)
        self.say("exact: to the byte. from simulations: coefficients read off simulated steps. by rule: stated below.")
        self.query_one("#why-scroll").focus()

    def action_copy_why(self) -> None:
        self.copy(self._content.plain, "where the numbers come from")


def why_lines(result: dict[str, Any], simulation: dict[str, Any] | None) -> Iterator[Content]:
    """Each category with its bytes and its rule, the exact parts, phases, versions."""
    known, why = result.get("known") or {}, result.get("why") or {}
    estimate = result.get("estimate") or {}
    parts = parts_of(estimate)
    yield Content.styled("THE PEAK, BY CATEGORY", "bold $muted")
    for name in CATEGORIES:
        if name not in parts and known.get(name) != "not covered":
            continue
        word = KNOWN_WORDS.get(str(known.get(name, "")), str(known.get(name, "")))
        size = int(estimate.get(name) or 0)
        yield Content.assemble(
            mark_of(name),
            " ",
            left(label_of(name), 15),
            right(f"{size:,}", 18, "bold"),
            f"  {told(size):>12}",
            (f"  {word}", "$accent"),
        )
        yield Content.assemble("    ", (str(why.get(name, "")), "$muted"))
    static = {name: int(size) for name, size in (result.get("static") or {}).items() if size}
    rows = [(words, static[name], name) for name, words in STATIC_WORDS.items() if static.get(name)]
    if rows:
        yield Content("")
        yield Content.styled("EXACT PARTS", "bold $muted")
        for words, size, name in rows:
            unit = "" if name in COUNTS else f"  {told(size):>12}"
            yield Content.assemble("   ", left(words, 33), right(f"{size:,}", 18, "bold"), unit)
    if simulation and (words := tensors_words(result, simulation)):
        yield Content("")
        yield Content(words)
    measured = result.get("measurement")
    if measured:
        yield Content("")
        yield Content(" ".join([measured_words(measured), *map(str, measured.get("notes") or ())]))
    stored = result.get("stored")
    if stored:
        yield Content("")
        yield Content(f"The checkpoint is quantized already: {stored.get('method')}, {told(stored.get('bytes') or 0)}.")
    versions = ", ".join(f"{name} {version}" for name, version in (result.get("versions") or {}).items())
    if versions:
        yield Content("")
        yield Content.styled(f"Rules as read from {versions}.", "$muted")
