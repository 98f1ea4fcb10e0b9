"""What some modules of a model take of the plan, beside the whole model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.session.protocol import EstimateModules, ModulesEstimated
from workbench.text import format_bytes
from workbench.ui.benches.vram_plan import Draft, in_words
from workbench.ui.link import SessionLink
from workbench.ui.screens.closer_look import ASKING
from workbench.ui.screens.vram_screen import VramScreen
from workbench.ui.widgets.bars import bar, left, right
from workbench.ui.widgets.memory_bar import CATEGORIES, label_of, mark_of
from workbench.vram.plan import plan_to_dict

LABEL, COLUMN, BAR = 15, 12, 24
NOT_TOLD = "Activations and logits belong to the step, not to a module: s on the bench simulates who holds them."


class ModulesScreen(VramScreen):
    """A table: each category of these modules, of the model, and the share.

    Args:
        link: to the session.
        model: the chosen model.
        draft: the plan of the bench.
        title: what the modules are together.
        modules: their dotted names.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "copy_table", "Copy the table", show=False)]
    KEYS = (("y", "copy"), ("?", "keys"))

    def __init__(self, link: SessionLink, model: str, draft: Draft, title: str, modules: list[str]) -> None:
        super().__init__(link, "vram-modules", "Memory of a part")
        self._model, self._draft, self._name, self._modules = model, draft, title, modules
        self._table = Content("")

    def parts(self) -> Iterable[Widget]:
        yield VerticalScroll(Static(id="modules-told"), id="modules-scroll")

    def on_mount(self) -> None:
        self.headline(f"Memory of {self._name}", self._model)
        self.query_one("#modules-scroll").focus()
        self.ask_bytes()

    @work(group=ASKING, exclusive=True, exit_on_error=False)
    async def ask_bytes(self) -> None:
        """Ask what the modules take."""
        request = EstimateModules(self._model, self._modules, plan_to_dict(self._draft.plan))
        reply = await self.ask(request, ModulesEstimated, "Counting")
        if reply is None:
            return
        plan = self._draft.plan
        quant = plan.quant if plan.quant != "none" else plan.dtype
        self.say(f"Under the plan of the bench: {plan.job}, {quant}, batch {plan.batch} × {plan.sequence_length:,}")
        self._table = Content("\n").join(module_lines(reply.part, reply.whole, len(self._modules)))
        self.query_one("#modules-told", Static).update(self._table)

    def action_copy_table(self) -> None:
        if self._table:
            head = f"{self._name} of {self._model}"
            self.copy("\n".join([head, *in_words(self._draft), "", self._table.plain]), "the table")


def module_lines(part: Mapping[str, int], whole: Mapping[str, int], modules: int) -> Iterator[Content]:
    """The table, and what it does not tell."""
    count = f"   {modules:,} modules" if modules > 1 else ""
    told = f"{part['parameters']:,} of {whole['parameters']:,} parameters{count}"
    yield Content.styled(told, "$muted")
    yield Content("")
    heads = [right(head, COLUMN, "$muted") for head in ("this part", "model")]
    yield Content.assemble(" " * LABEL, *heads, ("  share", "$muted"))
    names = [name for name in CATEGORIES if whole.get(name)]
    for name in names:
        label = Content.assemble(mark_of(name), " ", left(label_of(name), LABEL - 3))
        yield _line(label, part[name], whole[name])
    yield _line(left("   together", LABEL), sum(part[name] for name in names), sum(whole[name] for name in names))
    yield Content("")
    yield Content.styled(NOT_TOLD, "$muted")
    if not part["weights"] and not part["kv_cache"]:
        yield Content.styled("Nothing of its own: its tensors are tied to others, or it has none.", "$muted")


def _line(label: Content, part: int, whole: int) -> Content:
    share = part / whole if whole else 0.0
    cells = [right(format_bytes(part), COLUMN, "bold"), right(format_bytes(whole), COLUMN)]
    return Content.assemble(label, *cells, right(f"{100 * share:.1f} %", 8), "  ", bar(share, BAR, "$accent"))
