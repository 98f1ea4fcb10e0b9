"""The block diagram on screen: follows a module, and walks the steps by itself when it has the focus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.visual import Visual

from workbench.ui.benches.architecture_diagram import Line, Stage, draw

ROOMY_HEIGHT = 40
"""From so many lines on, the sizes between all steps have room."""


class BlockDiagram(ScrollView, can_focus=True):
    """A drawing of stages with one module marked."""

    DEFAULT_CSS = """
    BlockDiagram { height: 1fr; scrollbar-size-vertical: 1; overflow-x: hidden; }
    """
    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "step(-1)", "Step before", show=False),
        Binding("down,j", "step(1)", "Next step", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("enter", "choose", "Show it in the tree", show=False),
    ]

    @dataclass
    class Highlighted(Message):
        """The cursor was moved to another step."""

        diagram: BlockDiagram
        path: str

    @dataclass
    class Chosen(Message):
        """Enter, or a click on the marked step."""

        diagram: BlockDiagram
        path: str

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._stages: tuple[Stage, ...] = ()
        self._selected = ""
        self._lines: list[Line] = []

    def set_stages(self, stages: tuple[Stage, ...]) -> None:
        """Draw other stages."""
        if stages != self._stages:
            self._stages = stages
            self._draw()
            self.scroll_to(y=0, animate=False)

    def select(self, module: str) -> None:
        """Mark the step that holds this module, and bring it into view."""
        if module != self._selected:
            self._selected = module
            self._draw()
            self._keep_visible()

    @property
    def selected(self) -> str:
        """Dotted name of the step that is marked, as the drawing has it; empty for none."""
        inside = [path for path in self._paths if path and f"{self._selected}.".startswith(f"{path}.")]
        return max(inside, key=len, default="")

    @property
    def _paths(self) -> list[str]:
        return list(dict.fromkeys(line.path for line in self._lines if line.path))

    def on_resize(self) -> None:
        self._draw()
        self._keep_visible()

    def _draw(self) -> None:
        width = self.scrollable_content_region.width
        if width:
            self._lines = draw(self._stages, width, self.size.height >= ROOMY_HEIGHT, self._selected)
            self.virtual_size = Size(0, len(self._lines))
            self.refresh()

    def _keep_visible(self) -> None:
        here = [i for i, line in enumerate(self._lines) if line.path and line.path == self.selected]
        height, top = self.scrollable_content_region.height, self.scroll_offset.y
        if not here or not height:
            return
        if here[0] < top + 1:
            self.scroll_to(y=max(0, here[0] - 2), animate=False)
        elif here[-1] >= top + height - 1:
            self.scroll_to(y=min(here[0], here[-1] - height + 3), animate=False)

    def action_step(self, step: int) -> None:
        paths = self._paths
        if paths:
            index = paths.index(self.selected) + step if self.selected else 0
            self.select(paths[max(0, min(len(paths) - 1, index))])
            self.post_message(self.Highlighted(self, self._selected))

    def action_page(self, step: int) -> None:
        self.scroll_relative(y=step * max(1, self.size.height - 2), animate=False)

    def action_choose(self) -> None:
        if self.selected:
            self.post_message(self.Chosen(self, self.selected))

    def on_click(self, event: events.Click) -> None:
        index = event.y + self.scroll_offset.y
        if 0 <= index < len(self._lines) and self._lines[index].path:
            if self._lines[index].path == self.selected:
                self.action_choose()
            else:
                self.select(self._lines[index].path)
                self.post_message(self.Highlighted(self, self._selected))

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self.refresh()

    @property
    def text(self) -> str:
        """The drawing as plain text."""
        return "\n".join(line.content.plain.rstrip() for line in self._lines)

    def render_line(self, y: int) -> Strip:
        width, index = self.scrollable_content_region.width, y + self.scroll_offset.y
        style = self.visual_style
        if index >= len(self._lines):
            return Strip.blank(width, style.rich_style)
        content: Content = self._lines[index].content
        strips = Visual.to_strips(self, content.truncate(width), width, 1, style, pad=True)
        return strips[0] if strips else Strip.blank(width, style.rich_style)
