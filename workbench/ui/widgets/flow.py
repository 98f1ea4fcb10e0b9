"""Short pieces side by side, broken between them and never inside one."""

from __future__ import annotations

from collections.abc import Iterable

from textual.content import Content


def flow(pieces: Iterable[Content], separator: str, width: int) -> list[Content]:
    """The pieces in as few lines of this width as hold them; one that is wider itself is cut."""
    lines: list[Content] = []
    for piece in pieces:
        piece = piece.truncate(max(1, width), ellipsis=True)
        if lines and lines[-1].cell_length + len(separator) + piece.cell_length <= width:
            lines[-1] = Content.assemble(lines[-1], separator, piece)
        else:
            lines.append(piece)
    return lines
