"""What lists of rows and cells of tokens share: a cursor that stays in view, over lines of which only those seen are
rendered."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.style import Style
from textual.visual import Visual


class CursorView(ScrollView, can_focus=True):
    """Items on lines, with a cursor on one of them; subclasses say which item is where and how a line looks."""

    DEFAULT_CSS = """
    CursorView { height: 1fr; scrollbar-size-vertical: 1; overflow-x: hidden; }
    """
    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False, id="list-page-up"),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False, id="list-page-down"),
        Binding("home,g", "edge(-1)", "First", show=False, id="list-first"),
        Binding("end,G", "edge(1)", "Last", show=False, id="list-last"),
        Binding("enter", "choose", "Choose", show=False),
    ]

    cursor = reactive(0, repaint=False)
    """Index of the item under the cursor."""

    def cursor_lines(self) -> tuple[int, int] | None:
        """First and last line to be seen with the cursor; None where nothing is laid out."""
        raise NotImplementedError

    def item_at(self, line: int, column: int) -> int | None:
        """Index of the item at a place that can have the cursor."""
        raise NotImplementedError

    def line_at(self, line: int) -> tuple[Content, Style] | None:
        """What to show on a line, no wider than the view; None below the last."""
        raise NotImplementedError

    def repaint_item(self, index: int) -> None:
        """Paint an item again, where the cursor came or went."""
        raise NotImplementedError

    def announce(self) -> None:
        """Post the message that the cursor stands on another item."""
        raise NotImplementedError

    def action_choose(self) -> None:
        """Post the message that the item under the cursor was chosen."""
        raise NotImplementedError

    def watch_cursor(self, old: int, new: int) -> None:
        if old == new:
            return
        self.repaint_item(old)
        self.repaint_item(new)
        self.keep_visible()
        self.announce()

    def keep_visible(self) -> None:
        """Scroll no further than needed to see the cursor."""
        height, top = self.scrollable_content_region.height, self.scroll_offset.y
        lines = self.cursor_lines()
        if not height or lines is None:
            return
        first, last = lines
        if first < top:
            self.scroll_to(y=first, animate=False, immediate=True)
        elif last >= top + height:
            self.scroll_to(y=last - height + 1, animate=False, immediate=True)

    def on_click(self, event: events.Click) -> None:
        found = self.item_at(event.y + self.scroll_offset.y, event.x)
        if found is None:
            return
        if found == self.cursor:
            self.action_choose()
        self.cursor = found

    def on_focus(self) -> None:
        self.repaint_item(self.cursor)

    def on_blur(self) -> None:
        self.repaint_item(self.cursor)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        found = self.line_at(y + self.scroll_offset.y)
        if found is None:
            return Strip.blank(width, self.visual_style.rich_style)
        content, style = found
        strips = Visual.to_strips(self, content, width, 1, style, pad=True)
        return strips[0] if strips else Strip.blank(width, style.rich_style)
