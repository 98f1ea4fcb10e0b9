"""One line of styled text that repaints only the cells that changed."""

from __future__ import annotations

from textual.content import Content
from textual.geometry import Region
from textual.strip import Strip
from textual.visual import Visual
from textual.widget import Widget


class OneLine(Widget):
    """A line of its own height; subclasses give its content for a width, or `show` sets it."""

    DEFAULT_CSS = "OneLine { height: 1; width: 1fr; }"

    def __init__(self, *, name: str | None = None, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(name=name, id=id, classes=classes)
        self._line = Content("")
        self._painted: Content | None = None

    def line(self, width: int) -> Content:
        """What to show at this width."""
        return self._line

    def show(self, content: Content | str) -> None:
        """Replace the line."""
        self._line = Content(content) if isinstance(content, str) else content
        self.repaint()

    def repaint(self) -> None:
        """Paint the cells that are no longer right, and no others: a byte saved on every tick over SSH."""
        width = self.size.width
        if not width or self._painted is None:
            # Out of sight it has no width; Textual would show again what it painted before.
            self._painted = None
            self.refresh()
            return
        new, old = self.line(width), self._painted
        if new.is_same(old):
            return
        start, end = changed_cells(old, new, width)
        self.refresh(Region(start, 0, max(1, end - start), 1))

    def render(self) -> Content:
        return self.line(self.size.width)

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        content = self.line(width)
        self._painted = content
        style = self.visual_style
        strips = Visual.to_strips(self, content.truncate(width), width, 1, style, pad=True)
        return strips[0] if strips else Strip.blank(width, style.rich_style)


def changed_cells(old: Content, new: Content, width: int) -> tuple[int, int]:
    """First and last changed column, from a comparison of both lines character by character with their styles."""
    before, after = _characters(old), _characters(new)
    start = 0
    while start < min(len(before), len(after)) and before[start] == after[start]:
        start += 1
    if len(before) != len(after) or old.cell_length != new.cell_length:
        return new[:start].cell_length, width
    end = len(after)
    while end > start and before[end - 1] == after[end - 1]:
        end -= 1
    return new[:start].cell_length, new[:end].cell_length


def _characters(content: Content) -> list[tuple[str, tuple[str, ...]]]:
    styles: list[list[str]] = [[] for _ in content.plain]
    for span in content.spans:
        for i in range(max(0, span.start), min(span.end, len(styles))):
            styles[i].append(str(span.style))
    return list(zip(content.plain, map(tuple, styles), strict=True))
