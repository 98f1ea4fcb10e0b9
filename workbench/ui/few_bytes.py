"""Fewer bytes to a terminal far away: of what Textual paints, only the cells that differ from what stands there.

Textual paints whole lines of whole widgets and names every colour anew. `Remembered` reads what it writes as a terminal
would, keeps what each cell holds, and writes what differs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.cells import cell_len

_TOKEN = re.compile(
    r"\x1b\[(?P<row>\d+);(?P<column>\d+)H"
    r"|\x1b\[(?P<style>[0-9;]*)m"
    r"|(?P<text>[^\x00-\x1f\x7f]+)"
    r"|(?P<other>\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]P][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b.|.)",
    re.DOTALL,
)
_BRIDGE_CELLS = 6
"""Equal cells between two changed ones that cost no more than moving the cursor over them."""

Cell = tuple[str, str]
"""A character and its style; no character stands for the second half of a wide one."""


class Remembered:
    """What the terminal shows, as far as it is known."""

    def __init__(self) -> None:
        self._cells: dict[tuple[int, int], Cell] = {}
        self._row = self._column = 0
        self._style = ""
        self._out: list[str] = []
        self._out_at: tuple[int, int] | None = None
        self._out_style: str | None = None

    def forget(self) -> None:
        """Nothing is known of the terminal any more: what is painted next is written whole."""
        self._cells.clear()
        self._out_at = self._out_style = None

    def changes(self, written: str) -> str:
        """What has to be sent so that the terminal looks as if `written` had been."""
        self._out = []
        for token in _TOKEN.finditer(written):
            kind = token.lastgroup
            if kind == "column":
                self._row, self._column = int(token["row"]), int(token["column"])
            elif kind == "style":
                self._style = "" if token["style"] in ("", "0") else token["style"]
            elif kind == "text":
                self._text(token["text"])
            elif token["other"] not in "\r\n":
                self._other(token["other"])
        self._restyle("")
        return "".join(self._out)

    def _other(self, sequence: str) -> None:
        self._restyle("")
        self._out.append(sequence)
        # Modes and questions move nothing; whatever else does is not followed.
        if not sequence.startswith(("\x1b[?20", "\x1b[?25", "\x1b]22")):
            self.forget()

    def _text(self, text: str) -> None:
        cells = list(_cells(text))
        if not all(width for _, width in cells) or sum(width for _, width in cells) != cell_len(text):
            self._opaque(text)
            return
        for character, width in cells:
            at = (self._row, self._column)
            if self._cells.get(at) != (character, self._style):
                self._move(at)
                self._restyle(self._style)
                self._out.append(character)
                self._set(at, (character, self._style), width)
                self._out_at = (self._row, self._column + width)
            self._column += width

    def _set(self, at: tuple[int, int], cell: Cell, width: int) -> None:
        row, column = at
        # One half of a wide character goes with the other.
        if self._is_second_half(at):
            self._cells.pop((row, column - 1), None)
        if self._is_second_half((row, column + width)):
            self._cells.pop((row, column + width))
        self._cells[at] = cell
        if width == 2:
            self._cells[row, column + 1] = ("", self._style)

    def _is_second_half(self, at: tuple[int, int]) -> bool:
        cell = self._cells.get(at)
        return cell is not None and not cell[0]

    def _opaque(self, text: str) -> None:
        """Text that terminals take different numbers of cells for: it is always written, and known by nobody."""
        self._move((self._row, self._column))
        self._restyle(self._style)
        self._out.append(text)
        width = cell_len(text)
        for column in range(self._column - 1, self._column + width + 2):
            self._cells.pop((self._row, column), None)
        self._column += width
        self._out_at = None

    def _move(self, at: tuple[int, int]) -> None:
        if self._out_at == at:
            return
        row, column = at
        if self._out_at is not None and self._out_at[0] == row and 0 < column - self._out_at[1] <= _BRIDGE_CELLS:
            between = [self._cells.get((row, between)) for between in range(self._out_at[1], column)]
            if all(cell is not None and cell[0] and cell[1] == self._out_style for cell in between):
                self._out.append("".join(cell[0] for cell in between if cell is not None))
                return
        self._out.append(f"\x1b[{row};{column}H")

    def _restyle(self, style: str) -> None:
        if self._out_style != style:
            self._out.append(f"\x1b[0;{style}m" if style else "\x1b[0m")
            self._out_style = style


def _cells(text: str) -> Iterator[tuple[str, int]]:
    if text.isascii():
        return ((character, 1) for character in text)
    return ((character, cell_len(character)) for character in text)
