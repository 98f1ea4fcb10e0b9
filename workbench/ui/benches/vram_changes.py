"""The list of what to change, as rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from textual.content import Content

from workbench.text import gib
from workbench.ui.widgets.bars import left, right
from workbench.ui.widgets.memory_plot import told
from workbench.ui.widgets.row_list import Row

ROOM_FOR_COSTS, ROOM_FOR_UNITS = 62, 42
TITLE_WIDTH = 26


def change_rows(suggestions: Sequence[dict[str, Any]]) -> Iterator[Row]:
    """One row for each suggestion, cheapest first; a word where there is none."""
    if not suggestions:
        yield Row("nothing", Content.styled(" Nothing left to save.", "$muted"), selectable=False)
    for item in suggestions:
        yield Row(f"change:{item['title']}", _line_of(item), item)


def _line_of(item: dict[str, Any]) -> Callable[[int], Content]:
    def line(width: int) -> Content:
        if width < ROOM_FOR_UNITS:
            return _short_line(item, width)
        saves = right(f"−{told(item['saves_bytes'])}", 11)
        fits = _fits(item.get("fits"))
        costs = width >= ROOM_FOR_COSTS
        room = TITLE_WIDTH if costs else max(8, width - 1 - saves.cell_length - fits.cell_length)
        title = left(str(item["title"]), room)
        return Content.assemble(" ", title, saves, fits, (f"  {item['costs']}" if costs else "", "$muted"))

    return line


def _short_line(item: dict[str, Any], width: int) -> Content:
    """Without units, which `heading_words` names, so that the title is whole."""
    saves = right(f"−{gib(item['saves_bytes'], 1)}", 6)
    fits = item.get("fits")
    mark = Content("") if fits is None else Content.styled(" ✔", "$good") if fits else Content.styled(" ✖", "$muted")
    title = left(str(item["title"]), max(8, width - 1 - saves.cell_length - mark.cell_length))
    return Content.assemble(" ", title, saves, mark)


def heading_words(width: int, fits: bool) -> str:
    """What stands beside the title of the list, which is `width` wide, for a plan that fits or does not."""
    if width < ROOM_FOR_UNITS:
        return "  GiB less"
    return "  it fits; to save more" if fits else ""


def _fits(fits: bool | None) -> Content:
    if fits is None:
        return Content("")
    return Content.styled(" ✔ fits", "$good") if fits else Content.styled(" ✖ no  ", "$muted")


def explained(item: dict[str, Any] | None) -> Content:
    """What a suggestion costs and leaves."""
    if item is None:
        return Content("")
    # The key first: on a narrow screen the end is cut.
    title, costs, left_bytes = str(item["title"]), item["costs"], told(item["total_bytes"])
    key = (("enter", "bold $accent"), (" applies ", "$muted"))
    return Content.assemble(*key, (title, "bold"), f": {costs}. ", (f"Then {left_bytes}.", "$muted"))
