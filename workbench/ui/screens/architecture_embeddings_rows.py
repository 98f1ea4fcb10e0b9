"""Embeddings as lines of text: pure, from the replies to rows, cells and a plot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from textual.content import Content

from workbench.ui.screens.architecture_trace_rows import number, token
from workbench.ui.widgets.bars import bar, left, right
from workbench.ui.widgets.grid import Cells
from workbench.ui.widgets.heat import level
from workbench.ui.widgets.row_list import Row, gap, heading

_BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Dots of a braille character by row and column."""
SIMILARITY_CELL = 7


def table_words(facts: dict[str, Any]) -> str:
    """Which table was read."""
    tied = ", tied" if facts["tied"] else ""
    note = f", {facts['note']}" if facts["note"] else ""
    return (
        f"{facts['table']} table {facts['name']}: {facts['rows']:,} × {facts['width']:,} {facts['dtype']}{tied}{note}"
    )


def word_list(typed: str, spaced: bool) -> list[str]:
    """Words divided by commas; `spaced` puts one space before each, as inside a sentence."""
    words = [word.strip() for word in typed.split(",") if word.strip()]
    return list(dict.fromkeys(f" {word}" if spaced else word for word in words))


# --- Neighbours --------------------------------------------------------------------------------------------


def neighbour_rows(result: dict[str, Any]) -> Iterator[Row]:
    """The nearest tokens, nearest first."""
    found = result["neighbours"]
    scores = [item["score"] for item in found]
    least, most = min([0.0, *scores]), max([1e-9, *scores])
    for item in found:
        line = Content.assemble(
            right(number(item["score"]) if result["measure"] == "dot" else f"{item['score']:.3f}", 8, "bold"),
            "  ",
            bar((item["score"] - least) / (most - least), 14),
            "  ",
            left(token(item["text"]), 24, "bold"),
            right(f"{item['id']:,}", 9, "$muted"),
            right(f"{item['norm']:.2f}", 9, "$muted"),
        )
        yield Row(f"token:{item['id']}", line, item)


def neighbour_head(measure: str) -> Content:
    """Names of the columns of `neighbour_rows`."""
    parts = [right(measure, 8), left("", 18), left("token", 24), right("id", 9), right("norm", 9)]
    return Content.styled(Content.assemble(*parts).plain, "$muted")


def word_words(word: dict[str, Any]) -> Content:
    """A text as it was taken apart."""
    tokens = " ".join(token(text) for text in word["tokens"])
    several = f", the mean of {len(word['ids'])} tokens: {tokens}" if len(word["ids"]) > 1 else ""
    ids = " ".join(map(str, word["ids"][:8]))
    return Content.assemble(
        (token(word["text"]), "bold $accent"), (f"{several}  id {ids}  norm {word['norm']:.2f}", "$muted")
    )


# --- Similarities ------------------------------------------------------------------------------------------


def similarity_cells(result: dict[str, Any]) -> Cells:
    """Words against words, shaded from what random tokens have in common up to 1."""
    names = [token(word["text"]) for word in result["words"]]
    floor, cosine = result["background"], result["cosine"]

    def value(row: int, column: int) -> float:
        return float(max(0.0, (cosine[row][column] - floor) / max(1e-9, 1 - floor)))

    return Cells(names, names, value, text=lambda row, column: f"{cosine[row][column]:.2f}", cell_width=SIMILARITY_CELL)


def similarity_words(result: dict[str, Any], row: int, column: int) -> Content:
    """One pair in words."""
    names = [token(word["text"]) for word in result["words"]]
    cosine = result["cosine"][row][column]
    others = sorted((i for i in range(len(names)) if i != row), key=lambda i: -result["cosine"][row][i])
    nearest = f"  Nearest to it here: {', '.join(names[i] for i in others[:3])}." if others else ""
    return Content.assemble(
        (names[row], "bold"),
        (" and ", "$muted"),
        (names[column], "bold"),
        "  ",
        (f"{cosine:.4f}", "bold $accent"),
        (f"  random pairs have {result['background']:.2f}.{nearest}", "$muted"),
    )


# --- Norms -------------------------------------------------------------------------------------------------


def norm_head(result: dict[str, Any], width: int) -> Content:
    """The distribution of all norms."""
    counts = result["histogram"]
    most = max(counts, default=0) or 1
    wide = max(1, (width - 30) // max(1, len(counts)))
    bars = "".join(level(count / most) * wide for count in counts)
    edges = f"{result['least']:.2f} "
    figures = (
        f"{result['facts']['rows']:,} vectors  mean {result['mean']:.2f}  std {result['std']:.2f}  median "
        f"{result['median']:.2f}"
    )
    extra = [f"{result['zeros']:,} all zero"] if result["zeros"] else []
    extra += [f"{result['beyond']:,} rows beyond the last token"] if result["beyond"] else []
    told = "  ".join([figures, *extra])
    return Content.assemble(
        (told, "$muted"), "\n", (edges, "$muted"), (bars, "$accent"), (f" {result['largest']:.2f}", "$muted")
    )


def norm_rows(result: dict[str, Any]) -> Iterator[Row]:
    """The tokens with the smallest norms, often never trained, then those with the largest."""
    for title, name in (("SMALLEST, OFTEN NEVER TRAINED", "smallest"), ("LARGEST", "greatest")):
        yield heading(title)
        for item in result[name]:
            line = Content.assemble(
                right(f"{item['norm']:.3f}", 9, "bold"),
                right(f"{item['deviations']:+.1f} σ", 9, "$warn" if abs(item["deviations"]) >= 4 else "$muted"),
                "  ",
                left(token(item["text"]), 28, "bold"),
                right(f"{item['id']:,}", 9, "$muted"),
            )
            yield Row(f"{name}:{item['id']}", line, item)
        yield gap(name)


# --- The map -----------------------------------------------------------------------------------------------


def map_head(result: dict[str, Any]) -> Content:
    """What the map shows and what it hides."""
    across, up = result["explained"]
    misplaced, count = result["misplaced"], len(result["points"])
    wrong = f"{misplaced} of {count} words have another nearest word here than in all dimensions"
    return Content.assemble(
        (f"→ {across:.0%}  ↑ {up:.0%}", "bold"),
        (" of the variance; ", "$muted"),
        (f"{result['hidden']:.0%} hidden", "bold $warn"),
        (f"; {wrong}.", "$muted"),
    )


def map_rows(result: dict[str, Any]) -> Iterator[Row]:
    """The words, each with the one nearest to it in all dimensions."""
    points = result["points"]
    for index, point in enumerate(points):
        nearest = points[point["nearest"]]["word"]["text"] if point["nearest"] is not None else ""
        wrong = point["nearest"] != point["nearest_on_map"]
        line = Content.assemble(
            left(token(point["word"]["text"]), 12, "bold"),
            ("  ≠ " if wrong else "  ~ ", "$warn" if wrong else "$muted"),
            left(token(nearest), 12, "$muted"),
        )
        yield Row(f"word:{index}", line, index)


def plot(
    points: Sequence[tuple[float, float]], labels: Sequence[str], width: int, height: int, here: int, braille: bool
) -> list[Content]:
    """Points with their labels on `height` lines of `width` columns; a label stands where nothing else does.

    Both axes have one scale, a character being twice as high as wide, so that distances compare.

    Args:
        here: index of the point to mark.
        braille: whether points that share a character are told apart inside it.
    """
    canvas = [[(" ", "")] * width for _ in range(height)]
    scale = _scale(points, width, height)
    places = [_place(point, scale, width, height) for point in points]
    _axes(canvas, _place((0.0, 0.0), scale, width, height))
    cells: dict[tuple[int, int], list[int]] = {}
    for index, (column, row) in enumerate(places):
        cells.setdefault((column // 2, row // 4), []).append(index)
    for (column, row), inside in cells.items():
        style = "bold $on-accent on $accent" if here in inside else "bold $accent"
        canvas[row][column] = (_mark([places[index] for index in inside], braille), style)
    taken = set(cells)
    for index in sorted(range(len(points)), key=lambda i: i != here):
        column, row = places[index][0] // 2, places[index][1] // 4
        _label(canvas, taken, labels[index], column, row, "bold $accent" if index == here else "")
    return [Content.assemble(*line) for line in canvas]


def _mark(places: Sequence[tuple[int, int]], braille: bool) -> str:
    if len(places) < 2 or not braille:
        return "●"
    dots = 0
    for column, row in places:
        dots |= _BRAILLE[row % 4][column % 2]
    return chr(0x2800 + dots)


def _scale(points: Sequence[tuple[float, float]], width: int, height: int) -> tuple[float, float, float]:
    """Dots to a unit, and the point in the middle."""
    xs, ys = [x for x, _ in points] or [0.0], [y for _, y in points] or [0.0]
    wide, high = max(xs) - min(xs) or 1e-9, max(ys) - min(ys) or 1e-9
    # Room at the sides for labels.
    dots = min(2 * (width - 10) / wide, 4 * (height - 2) / high)
    return dots, (max(xs) + min(xs)) / 2, (max(ys) + min(ys)) / 2


def _place(point: tuple[float, float], scale: tuple[float, float, float], width: int, height: int) -> tuple[int, int]:
    dots, middle_x, middle_y = scale
    column = round((point[0] - middle_x) * dots + width)
    row = round((middle_y - point[1]) * dots + 2 * height)
    return max(0, min(2 * width - 1, column)), max(0, min(4 * height - 1, row))


def _axes(canvas: list[list[tuple[str, str]]], origin: tuple[int, int]) -> None:
    column, row = origin[0] // 2, origin[1] // 4
    for line in canvas:
        line[column] = ("│", "$faint")
    canvas[row] = [("─", "$faint")] * len(canvas[row])
    canvas[row][column] = ("┼", "$faint")


def _label(
    canvas: list[list[tuple[str, str]]],
    taken: set[tuple[int, int]],
    label: str,
    column: int,
    row: int,
    style: str,
) -> None:
    """Write beside, above or below the point, the first free place; nowhere if there is none."""
    length = len(label)
    tries = ((column + 2, row), (column - length - 1, row), (column + 1, row - 1), (column + 1, row + 1))
    for start, line in tries:
        cells = {(start + i, line) for i in range(length)}
        inside = 0 <= line < len(canvas) and start >= 0 and start + length <= len(canvas[0])
        if inside and not cells & taken:
            for i, character in enumerate(label):
                canvas[line][start + i] = (character, style)
            taken |= cells
            return
