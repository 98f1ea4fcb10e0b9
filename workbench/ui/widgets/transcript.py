"""A conversation as lines. A growing answer re-renders only its last block, so its cost stays flat."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.visual import Visual

from workbench.ui.widgets.flow import flow
from workbench.ui.widgets.markdown_lines import markdown_lines, stable_length

FOOT_SEPARATOR = " · "
MARGIN = 2
"""Cells before each line, for the mark of who speaks and of where the cursor is."""
FOLD_LINES, FOLDED_LINES = 30, 12
"""A longer message of the user's shows its beginning only, until it is unfolded."""
SPOKEN = ("user", "assistant")


@dataclass
class Turn:
    """One message as shown."""

    role: str
    """``user``, ``assistant``, ``system`` or ``note``."""
    text: str
    foot: str = ""
    """One quiet line below it: figures, or why it ended."""
    growing: bool = False
    branch: tuple[int, int] = (1, 1)
    """Which of how many branches that part here."""
    message: dict[str, Any] = field(default_factory=dict)
    """What it was made from; empty while the session has not told."""
    expected: int = 0
    """Characters that will come once more and are shown already."""
    folded: bool = True
    body_height: int = 0
    """How many of its lines are the text, once it was laid out."""
    _stable: int = field(default=0, repr=False)
    _lines: list[Content] = field(default_factory=list, repr=False)
    """Lines of the text before `_stable`."""
    _width: int = field(default=0, repr=False)

    def lines(self, width: int) -> list[Content]:
        """The turn at this width, an empty line at its end included."""
        if self._width != width:
            self._stable, self._lines, self._width = 0, [], width
        body = self._growing_lines(width) if self.growing else self._finished_lines(width)
        number, of = self.branch
        pieces = [Content.styled(f"‹ {number}/{of} ›", "$accent")] if of > 1 else []
        pieces += [Content.styled(piece, "$muted") for piece in self.foot.split(FOOT_SEPARATOR) if self.foot]
        foot = [line.stylize_before("$muted") for line in flow(pieces, FOOT_SEPARATOR, width)]
        self.body_height = len(body)
        return [*body, *foot, Content("")]

    def take(self, text: str) -> None:
        """Append what was written, but for the part that was shown from the beginning."""
        known = min(self.expected, len(text))
        self.expected -= known
        self.text += text[known:]

    def same_text(self, other: Turn) -> bool:
        """Whether another turn's lines are this one's too."""
        return (self.role, self.text) == (other.role, other.text) and not (self.growing or other.growing)

    def take_lines_of(self, other: Turn) -> None:
        """Spare the rendering of a text that was rendered before."""
        self._stable, self._lines, self._width = other._stable, other._lines, other._width
        self.folded = other.folded

    def toggle_fold(self) -> bool:
        """Show all of a long message, or its beginning; False where there is nothing to fold."""
        if self.role == "assistant" or len(self._lines) <= FOLD_LINES:
            return False
        self.folded = not self.folded
        return True

    def _finished_lines(self, width: int) -> list[Content]:
        if self._stable != len(self.text) or not self._lines:
            self._stable = len(self.text)
            self._lines = self._markdown(width) if self.role == "assistant" else self._plain(width)
        if self.folded and self.role != "assistant" and len(self._lines) > FOLD_LINES:
            more = f"… {len(self._lines) - FOLDED_LINES:,} more lines, space unfolds them"
            return [*self._lines[:FOLDED_LINES], Content.styled(more, "$muted")]
        return self._lines

    def _markdown(self, width: int) -> list[Content]:
        return markdown_lines(self.text, width)

    def _plain(self, width: int) -> list[Content]:
        style = "bold" if self.role == "user" else "$muted"
        text = f"system: {self.text}" if self.role == "system" else self.text
        lines = Content(text).split("\n", allow_blank=True)
        return [piece.stylize(style) for line in lines for piece in _wrap(line, width)]

    def _growing_lines(self, width: int) -> list[Content]:
        cut = self._stable + stable_length(self.text[self._stable :])
        if cut > self._stable:
            more = markdown_lines(self.text[self._stable : cut], width, highlight=False)
            gap = [Content("")] if self._lines and more else []
            self._lines, self._stable = [*self._lines, *gap, *more], cut
        tail = markdown_lines(self.text[self._stable :], width, highlight=False)
        gap = [Content("")] if self._lines and tail else []
        return [*self._lines, *gap, *tail]

    def finish(self, text: str | None = None, foot: str = "") -> None:
        """The answer is complete: render it once more as a whole."""
        self.growing = False
        self.text = self.text if text is None else text
        self.foot = foot
        self._stable, self._lines = 0, []


def _wrap(line: Content, width: int) -> list[Content]:
    return line.wrap(max(8, width)) if line else [line]


class Transcript(ScrollView, can_focus=True):
    """Turns one under another, with a cursor on one of them while it has the focus.

    It follows the end unless the reader scrolled away from it.

    Args:
        scroll_step: lines the view moves at once while it follows a growing answer. Every move repaints the whole
            view, so over a slow line a larger step saves most of the bytes.
    """

    DEFAULT_CSS = "Transcript { overflow-x: hidden; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "step(-1)", "Message before", show=False),
        Binding("down,j", "step(1)", "Next message", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home,g", "edge(-1)", "First message", show=False),
        Binding("end,G", "edge(1)", "Last message", show=False),
    ]

    cursor = reactive(-1, repaint=False)
    """Index of the turn that keys act on; -1 where there is none."""

    class EndReached(Message):
        """The cursor was moved down from the last message."""

    def __init__(self, *, id: str | None = None, scroll_step: int = 1) -> None:
        super().__init__(id=id)
        self._turns: list[Turn] = []
        self._lines: list[Content] = []
        self._starts: list[int] = []
        self._scroll_step = scroll_step
        self._follow = True
        self._words: re.Pattern[str] | None = None

    @property
    def turns(self) -> list[Turn]:
        """What is shown."""
        return self._turns

    @property
    def turn(self) -> Turn | None:
        """The message that keys act on: under the cursor, else the last one."""
        if 0 <= self.cursor < len(self._turns) and self._turns[self.cursor].role in SPOKEN:
            return self._turns[self.cursor]
        return next((turn for turn in reversed(self._turns) if turn.role in SPOKEN), None)

    @property
    def _text_width(self) -> int:
        # As if the scrollbar were always there: its coming must not lay everything out anew.
        return self.content_size.width - self.styles.scrollbar_size_vertical - MARGIN

    def set_turns(self, turns: Sequence[Turn]) -> None:
        """Replace the whole conversation and go to its end."""
        self._replace(turns)
        self.set_reactive(Transcript.cursor, self._last_spoken() if self.has_focus else -1)
        self._follow = True
        self.lay_out()
        self.refresh()

    def update_turns(self, turns: Sequence[Turn]) -> None:
        """Replace the whole conversation by one that is much the same; view and cursor keep their places."""
        self._replace(turns)
        self.lay_out()

    def _replace(self, turns: Sequence[Turn]) -> None:
        old, self._turns = self._turns, list(turns)
        for before, after in zip(old, self._turns, strict=False):
            if after.same_text(before):
                after.take_lines_of(before)

    def add(self, turn: Turn) -> None:
        """Append a turn and go to the end."""
        self._turns.append(turn)
        self._follow = True
        self.lay_out(len(self._turns) - 1)

    def grow(self, text: str) -> None:
        """Append to the last turn."""
        if self._turns:
            self._turns[-1].take(text)
            self.lay_out(len(self._turns) - 1)

    def mark(self, words: str) -> None:
        """Show these words, letter case aside, wherever they stand; empty marks nothing."""
        pattern = re.compile(re.escape(words), re.IGNORECASE) if words else None
        if pattern != self._words:
            self._words = pattern
            self.refresh()

    @property
    def marks(self) -> bool:
        """Whether words are marked."""
        return self._words is not None

    def on_resize(self) -> None:
        self.lay_out()

    def lay_out(self, first: int = 0) -> None:
        """Lay out the turns from `first` on, and repaint the lines that changed."""
        width = self._text_width
        if width <= 0:
            # Not on screen: laid out anew with the size it gets. The lines it had are of other turns.
            self._lines, self._starts = [], []
            return
        first = first if first <= len(self._starts) else 0
        start = self._starts[first] if first < len(self._starts) else len(self._lines)
        if first == 0:
            start = 0
        old = self._lines[start:]
        new: list[Content] = []
        del self._starts[first:]
        for turn in self._turns[first:]:
            self._starts.append(start + len(new))
            new.extend(turn.lines(width))
        self._lines[start:] = new
        # Never less than what is on screen: a size that changes has everything painted anew.
        self.virtual_size = Size(width + MARGIN, max(self._padded_height(), self.content_size.height))
        for i in range(max(len(new), len(old))):
            if i >= len(new) or i >= len(old) or not new[i].is_same(old[i]):
                self.refresh_line(start + i)
        if self._follow:
            self.scroll_to(y=self.max_scroll_y, animate=False, immediate=True, force=True)

    def _padded_height(self) -> int:
        height = len(self._lines)
        growing = bool(self._turns) and self._turns[-1].growing
        if not growing or self._scroll_step == 1:
            return height
        return -(-height // self._scroll_step) * self._scroll_step

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._follow = new_value >= self.max_scroll_y - 1

    # --- The cursor ----------------------------------------------------------------------------------------

    def _last_spoken(self) -> int:
        return max((i for i, turn in enumerate(self._turns) if turn.role in SPOKEN), default=-1)

    def enter_from_below(self) -> None:
        """Take the focus, with the cursor on the last message."""
        self.cursor = self._last_spoken()
        self.focus()

    def on_focus(self) -> None:
        if not 0 <= self.cursor < len(self._turns):
            self.cursor = self._last_spoken()
        self._repaint_turn(self.cursor)

    def on_blur(self) -> None:
        self._repaint_turn(self.cursor)

    def watch_cursor(self, old: int, new: int) -> None:
        if old != new:
            self._repaint_turn(old)
            self._repaint_turn(new)
            self.refresh_bindings()

    def _repaint_turn(self, index: int) -> None:
        if 0 <= index < len(self._starts):
            for line in range(self._starts[index], self._end(index)):
                self.refresh_line(line)

    def _end(self, index: int) -> int:
        return self._starts[index + 1] if index + 1 < len(self._starts) else len(self._lines)

    def action_step(self, step: int) -> None:
        """To the next message; a long one is scrolled through first."""
        if not 0 <= self.cursor < len(self._starts):
            self.post_message(self.EndReached())
            return
        top, height = self.scroll_offset.y, self.size.height
        hidden = self._end(self.cursor) - 1 - (top + height) if step > 0 else top - self._starts[self.cursor]
        if hidden > 0:
            self.scroll_to(y=top + step * min(hidden, max(1, height // 2)), animate=False)
            return
        index = self.cursor + step
        while 0 <= index < len(self._turns) and self._turns[index].role not in SPOKEN:
            index += step
        if 0 <= index < len(self._turns):
            self.show_turn(index, step)
        elif step > 0:
            self.post_message(self.EndReached())
        else:
            self.scroll_to(y=0, animate=False)

    def show_turn(self, index: int, step: int = 0) -> None:
        """Put the cursor on a turn and bring it into view; its end where one comes up to it from below."""
        self.cursor = index
        if index >= len(self._starts):
            return
        height = self.size.height
        first, last = self._starts[index], self._end(index) - 1
        top = self.scroll_offset.y
        if first < top or last > top + height:
            wanted = last - height if step < 0 or last - first < height else first
            self.scroll_to(y=max(0, wanted), animate=False)

    def action_page(self, step: int) -> None:
        self.scroll_to(y=self.scroll_offset.y + step * max(1, self.size.height - 1), animate=False)
        middle = self.scroll_target_y + self.size.height // 2
        starts = zip(self._turns, self._starts, strict=False)
        spoken = [i for i, (turn, start) in enumerate(starts) if turn.role in SPOKEN and start <= middle]
        if spoken:
            self.cursor = spoken[-1]

    def action_edge(self, step: int) -> None:
        spoken = [i for i, turn in enumerate(self._turns) if turn.role in SPOKEN]
        if spoken:
            self.show_turn(spoken[0 if step < 0 else -1])
        self.scroll_to(y=0 if step < 0 else self.max_scroll_y, animate=False)

    def on_click(self, event: events.Click) -> None:
        index = bisect_right(self._starts, event.y + self.scroll_offset.y) - 1
        if 0 <= index < len(self._turns) and self._turns[index].role in SPOKEN:
            self.cursor = index

    # --- Painting ------------------------------------------------------------------------------------------

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        rows = []
        for index, line in enumerate(self._lines):
            span = selection.get_span(index)
            if span is not None:
                start, end = span
                rows.append(line.plain[max(0, start - MARGIN) : None if end == -1 else max(0, end - MARGIN)])
        return "\n".join(rows), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self.refresh()

    def _margin(self, index: int) -> Content:
        turn = bisect_right(self._starts, index) - 1
        if turn < 0 or index >= self._end(turn) - 1:
            return Content("  ")
        if self.has_focus and turn == self.cursor:
            return Content.styled("▶ " if index == self._starts[turn] else "┃ ", "bold $accent")
        if self._turns[turn].role == "user" and index < self._starts[turn] + self._turns[turn].body_height:
            return Content.styled("▌ ", "$accent")
        return Content("  ")

    def render_line(self, y: int) -> Strip:
        width = self._text_width
        index = y + self.scroll_offset.y
        style = self.visual_style
        if index >= len(self._lines):
            return Strip.blank(width + MARGIN, style.rich_style)
        # One run of cells where it can be: every change of style is bytes on the wire.
        content = Content.assemble(self._margin(index), self._lines[index])
        if self._words is not None:
            for found in self._words.finditer(content.plain):
                content = content.stylize("bold reverse", found.start(), found.end())
        selection = self.text_selection
        if selection is not None and (span := selection.get_span(index)) is not None:
            start, end = span
            content = content.stylize("reverse", max(MARGIN, start), len(content.plain) if end == -1 else end)
        strips = Visual.to_strips(self, content, width + MARGIN, 1, style, pad=True, apply_selection=False)
        strip = strips[0] if strips else Strip.blank(width + MARGIN, style.rich_style)
        return strip.apply_offsets(0, index)
