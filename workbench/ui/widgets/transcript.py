"""A conversation as lines. A growing answer re-renders only its last block, so its cost stays flat."""

from __future__ import annotations

from dataclasses import dataclass, field

from textual.content import Content
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.visual import Visual

from workbench.ui.widgets.flow import flow
from workbench.ui.widgets.markdown_lines import markdown_lines, stable_length

FOOT_SEPARATOR = " · "


@dataclass
class Turn:
    """One message as shown."""

    role: str
    """``user``, ``assistant`` or ``note``."""
    text: str
    foot: str = ""
    """One quiet line below it: figures, or why it ended."""
    growing: bool = False
    _stable: int = field(default=0, repr=False)
    _lines: list[Content] = field(default_factory=list, repr=False)
    """Lines of the text before `_stable`."""
    _width: int = field(default=0, repr=False)

    def lines(self, width: int) -> list[Content]:
        """The turn at this width, an empty line at its end included."""
        if self._width != width:
            self._stable, self._lines, self._width = 0, [], width
        body = self._growing_lines(width) if self.growing else self._finished_lines(width)
        pieces = [Content.styled(piece, "$muted") for piece in self.foot.split(FOOT_SEPARATOR)] if self.foot else []
        foot = [line.stylize("$muted") for line in flow(pieces, FOOT_SEPARATOR, width)]
        return [*body, *foot, Content("")]

    def _finished_lines(self, width: int) -> list[Content]:
        if self.role == "user":
            mark, rest = Content.styled("▌ ", "$accent"), Content.styled("▌ ", "$accent")
            wrapped = [
                piece for line in Content(self.text).split("\n", allow_blank=True) for piece in _wrap(line, width - 2)
            ]
            return [Content.assemble(mark if i == 0 else rest, (line.plain, "bold")) for i, line in enumerate(wrapped)]
        if self.role == "note":
            return [line.stylize("$muted") for line in _wrap(Content(self.text), width)]
        if self._stable != len(self.text) or not self._lines:
            self._stable, self._lines = len(self.text), markdown_lines(self.text, width)
        return self._lines

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
    """Turns one under another; follows the end unless the reader scrolled away from it.

    Args:
        scroll_step: lines the view moves at once while it follows a growing answer. Every move repaints the whole
            view, so over a slow line a larger step saves most of the bytes.
    """

    DEFAULT_CSS = "Transcript { overflow-x: hidden; }"

    def __init__(self, *, id: str | None = None, scroll_step: int = 1) -> None:
        super().__init__(id=id)
        self._turns: list[Turn] = []
        self._lines: list[Content] = []
        self._starts: list[int] = []
        self._scroll_step = scroll_step
        self._follow = True

    @property
    def turns(self) -> list[Turn]:
        """What is shown."""
        return self._turns

    @property
    def _text_width(self) -> int:
        # As if the scrollbar were always there: its coming must not lay everything out anew.
        return self.content_size.width - self.styles.scrollbar_size_vertical

    def set_turns(self, turns: list[Turn]) -> None:
        """Replace the whole conversation and go to its end."""
        self._turns = list(turns)
        self._follow = True
        self.lay_out()

    def add(self, turn: Turn) -> None:
        """Append a turn and go to the end."""
        self._turns.append(turn)
        self._follow = True
        self.lay_out(len(self._turns) - 1)

    def grow(self, text: str) -> None:
        """Append to the last turn."""
        if self._turns:
            self._turns[-1].text += text
            self.lay_out(len(self._turns) - 1)

    def on_resize(self) -> None:
        self.lay_out()

    def lay_out(self, first: int = 0) -> None:
        """Lay out the turns from `first` on, and repaint the lines that changed."""
        width = self._text_width
        if width <= 0:
            return
        first = first if first < len(self._starts) or first == 0 or first == len(self._starts) else 0
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
        if len(new) != len(old):
            self.virtual_size = Size(width, self._padded_height())
        for i in range(max(len(new), len(old))):
            if i >= len(new) or i >= len(old) or not new[i].is_same(old[i]):
                self.refresh_line(start + i)
        if self._follow:
            self.scroll_to(y=self.max_scroll_y, animate=False, immediate=True)

    def _padded_height(self) -> int:
        height = len(self._lines)
        growing = bool(self._turns) and self._turns[-1].growing
        if not growing or self._scroll_step == 1:
            return height
        return -(-height // self._scroll_step) * self._scroll_step

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._follow = new_value >= self.max_scroll_y - 1

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        return selection.extract("\n".join(line.plain for line in self._lines)), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self._text_width
        index = y + self.scroll_offset.y
        style = self.visual_style
        if index >= len(self._lines):
            return Strip.blank(width, style.rich_style)
        content = self._lines[index]
        selection = self.text_selection
        if selection is not None and (span := selection.get_span(index)) is not None:
            start, end = span
            content = content.stylize("reverse", start, len(content.plain) if end == -1 else end)
        strips = Visual.to_strips(self, content, width, 1, style, pad=True, apply_selection=False)
        strip = strips[0] if strips else Strip.blank(width, style.rich_style)
        return strip.apply_offsets(0, index)
