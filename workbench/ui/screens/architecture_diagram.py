"""The block diagram on the whole screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.ui.benches.architecture_diagram import Stage
from workbench.ui.link import SessionLink
from workbench.ui.screens.closer_look import CloserLook
from workbench.ui.strip_text import short_name
from workbench.ui.widgets.block_diagram import BlockDiagram


class DiagramScreen(CloserLook):
    """Walk the steps; beside the drawing what the module under the cursor is.

    Args:
        module: dotted name of the module to begin with.
        describe: text about a module, by its dotted name.
        go: shows a module in the bench's tree.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "copy", "Copy the drawing", show=False)]
    KEYS = (("↑ ↓", "walk"), ("enter", "show in the tree"), ("y", "copy"), ("?", "keys"))

    def __init__(
        self,
        link: SessionLink,
        model: str,
        stages: tuple[Stage, ...],
        module: str,
        describe: Callable[[str], Content],
        go: Callable[[str], None],
    ) -> None:
        super().__init__(link, "architecture-diagram-screen", f"{short_name(model)}, block by block")
        self._stages = stages
        self._module = module
        self._describe = describe
        self._go = go

    def parts(self) -> Iterable[Widget]:
        yield Container(
            BlockDiagram(id="diagram-whole"),
            VerticalScroll(Static(id="diagram-text"), id="diagram-scroll"),
            id="diagram-body",
        )

    def on_mount(self) -> None:
        self.query_one(".said").display = False
        diagram = self.query_one(BlockDiagram)
        diagram.set_stages(self._stages)
        diagram.focus()
        self.call_after_refresh(self._start)

    def _start(self) -> None:
        diagram = self.query_one(BlockDiagram)
        diagram.select(self._module)
        if diagram.selected:
            self._tell(diagram.selected)
        else:
            diagram.action_step(0)

    @on(BlockDiagram.Highlighted)
    def tell(self, message: BlockDiagram.Highlighted) -> None:
        self._tell(message.path)

    def _tell(self, path: str) -> None:
        self.query_one("#diagram-text", Static).update(self._describe(path))

    @on(BlockDiagram.Chosen)
    def show_in_tree(self, message: BlockDiagram.Chosen) -> None:
        self.dismiss(None)
        self._go(message.path)

    def action_copy(self) -> None:
        self.copy(self.query_one(BlockDiagram).text, "the drawing")
