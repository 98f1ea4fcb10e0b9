"""The tokens of a text as coloured cells that wrap as the text does. Only visible lines are rendered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from rich.cells import cell_len
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Size
from textual.message import Message
from textual.style import Style

from workbench.ui.widgets.bars import series_style
from workbench.ui.widgets.cursor_view import CursorView
from workbench.ui.widgets.one_line import OneLine

SPECIAL = "bold $on-accent on $accent"
PLATE = "$on-panel on $panel"


def visible(text: str) -> str:
    """White space made visible, in one cell each; a newline keeps its line break."""
    marked = text.replace(" ", "·").replace("\t", "→").replace("\n", "↵\n")
    return "".join("␣" if mark.isspace() and mark != "\n" else mark for mark in marked)


def wrapped(cells: Sequence[str], width: int) -> list[list[tuple[int, str]]]:
    """Texts laid one after the other into lines of `width` cells: per line the index of each text and its part.

    A text goes to the next line whole if it fits there; a longer one is cut.
    """
    lines: list[list[tuple[int, str]]] = [[]]
    used = 0
    for index, cell in enumerate(cells):
        stretches = cell.split("\n")
        for number, stretch in enumerate(stretches):
            for part in _parts(stretch, width):
                length = cell_len(part)
                if used + length > width:
                    lines.append([])
                    used = 0
                lines[-1].append((index, part))
                used += length
            if number < len(stretches) - 1:
                lines.append([])
                used = 0
    return lines if lines[-1] or len(lines) == 1 else lines[:-1]


def _parts(text: str, width: int) -> list[str]:
    if cell_len(text) <= width:
        return [text] if text else []
    parts, part, used = [], "", 0
    for character in text:
        length = cell_len(character)
        if used + length > width:
            parts.append(part)
            part, used = "", 0
        part += character
        used += length
    return [*parts, part]


class PieceLine(OneLine):
    """What is known of the token under the cursor; what does not fit is marked as cut."""

    def line(self, width: int) -> Content:
        return super().line(width).truncate(width, ellipsis=True)


class PieceView(CursorView):
    """Tokens with a cursor. Neighbours stand on different grounds, so that they stay apart in 16 colours too."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "step(-1)", "Token before", show=False),
        Binding("right,l", "step(1)", "Next token", show=False),
        Binding("up,k", "line(-1)", "Line above", show=False),
        Binding("down,j", "line(1)", "Line below", show=False),
        Binding("enter", "choose", "why this token", show=True),
    ]

    @dataclass
    class Highlighted(Message):
        """The cursor stands on another token, or its token was replaced."""

        view: PieceView

        @property
        def control(self) -> PieceView:
            return self.view

    @dataclass
    class Chosen(Message):
        """Enter, or a click on the token under the cursor."""

        view: PieceView

        @property
        def control(self) -> PieceView:
            return self.view

    @dataclass
    class EdgeReached(Message):
        """The cursor was moved beyond the first (-1) or the last token (1)."""

        view: PieceView
        direction: int

        @property
        def control(self) -> PieceView:
            return self.view

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.pieces: list[dict[str, Any]] = []
        self._marked: frozenset[int] = frozenset()
        self._lines: list[list[tuple[int, str]]] = [[]]
        """Of `pieces` as they are now; empty while there is no width to lay them out in."""
        self._line_of: list[int] = []

    @property
    def piece(self) -> dict[str, Any] | None:
        """The token under the cursor."""
        return self.pieces[self.cursor] if 0 <= self.cursor < len(self.pieces) else None

    def set_pieces(
        self,
        pieces: list[dict[str, Any]],
        marked: Collection[int] = (),
        at: int | None = None,
        token_id: int | None = None,
    ) -> None:
        """Show other tokens.

        Args:
            pieces: as `workbench.session.protocol.TokensRecounted` has them.
            marked: indexes to underline.
            at: character offset for the cursor; None keeps its place.
            token_id: of several tokens at that offset, as the parts of a character are, the one meant.
        """
        before = self.piece
        wanted = at if at is not None else before["start"] if before else 0
        self.pieces, self._marked = pieces, frozenset(marked)
        index = next((i for i, piece in enumerate(pieces) if piece["end"] > wanted), max(0, len(pieces) - 1))
        if token_id is not None:
            there = (i for i, piece in enumerate(pieces) if piece["start"] <= wanted <= piece["end"])
            index = next((i for i in there if pieces[i]["id"] == token_id), index)
        self.set_reactive(PieceView.cursor, index if pieces else 0)
        self._lay_out()
        self.post_message(self.Highlighted(self))

    def move_to(self, place: int) -> None:
        """Put the cursor on the token that covers this character."""
        index = next((i for i, piece in enumerate(self.pieces) if piece["end"] > place), None)
        if index is not None:
            self.cursor = index

    def _lay_out(self) -> None:
        width = self.scrollable_content_region.width
        if not width:
            # Lines of the tokens before would be drawn with the tokens of now.
            self._lines, self._line_of = [[]], []
            return
        self._lines = wrapped([visible(str(piece["text"])) for piece in self.pieces], width)
        self._line_of = [0] * len(self.pieces)
        for number in range(len(self._lines) - 1, -1, -1):
            for index, _ in self._lines[number]:
                self._line_of[index] = number
        self.virtual_size = Size(0, len(self._lines))
        self.refresh()
        self.call_after_refresh(self.keep_visible)

    def on_resize(self) -> None:
        self._lay_out()

    def repaint_item(self, index: int) -> None:
        self.refresh()

    def announce(self) -> None:
        self.post_message(self.Highlighted(self))

    def cursor_lines(self) -> tuple[int, int] | None:
        if not 0 <= self.cursor < len(self._line_of):
            return None
        return self._line_of[self.cursor], self._line_of[self.cursor]

    def action_step(self, step: int) -> None:
        index = self.cursor + step
        if 0 <= index < len(self.pieces):
            self.cursor = index
        elif self.pieces:
            self.post_message(self.EdgeReached(self, step))

    def action_line(self, step: int) -> None:
        if not self._line_of:
            return
        here = self._line_of[self.cursor]
        column = 0
        for index, part in self._lines[here]:
            if index == self.cursor:
                break
            column += cell_len(part)
        line = here + step
        while 0 <= line < len(self._lines) and not self._lines[line]:
            line += step
        if not 0 <= line < len(self._lines):
            self.post_message(self.EdgeReached(self, step))
            return
        found = self.item_at(line, column)
        self.cursor = self._lines[line][-1][0] if found is None else found

    def item_at(self, line: int, column: int) -> int | None:
        used = 0
        for index, part in self._lines[line] if 0 <= line < len(self._lines) else ():
            used += cell_len(part)
            if column < used:
                return index
        return None

    def action_page(self, step: int) -> None:
        if self._line_of:
            here = self._line_of[self.cursor]
            line = max(0, min(len(self._lines) - 1, here + step * max(1, self.size.height - 1)))
            if line == here:
                self.post_message(self.EdgeReached(self, step))
                return
            while line and not self._lines[line]:
                line -= 1
            if self._lines[line]:
                self.cursor = self._lines[line][0][0]

    def action_edge(self, step: int) -> None:
        self.cursor = 0 if step < 0 else max(0, len(self.pieces) - 1)

    def action_choose(self) -> None:
        if self.piece is not None:
            self.post_message(self.Chosen(self))

    def _style(self, index: int) -> str:
        piece = self.pieces[index]
        style = SPECIAL if piece.get("special") else PLATE if index % 2 else series_style(index // 2)
        if index in self._marked:
            style = f"underline bold {style}"
        return f"reverse {style}" if index == self.cursor else style

    def line_at(self, line: int) -> tuple[Content, Style] | None:
        if line >= len(self._lines) or not self._lines[line]:
            return None
        content = Content.assemble(*((part, self._style(index)) for index, part in self._lines[line]))
        return content, self.visual_style
