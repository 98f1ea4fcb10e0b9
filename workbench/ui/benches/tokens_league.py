"""The tokenizers of the tokens bench against each other, as rows, and what one says of a token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from textual.content import Content

from workbench.text import format_count
from workbench.ui.widgets.bars import left, right
from workbench.ui.widgets.pieces import visible
from workbench.ui.widgets.row_list import Row

NAME_LEAST, NAME_MOST = 20, 34
NAMELESS = ("tokenizer.json", "tokenizer.model", "tekken.json")
"""Files that have the name of their folder."""


@dataclass(frozen=True)
class _Column:
    title: str
    width: int
    most_wanted: int
    """Where the width is short, columns of a higher number go first."""


COLUMNS = (
    _Column("tokens", 10, 0),
    _Column("more", 8, 1),
    _Column("B/tok", 7, 2),
    _Column("tok/word", 9, 3),
    _Column("char/tok", 9, 6),
    _Column("vocab", 9, 5),
    _Column("context", 9, 4),
    _Column("cost", 11, 2),
)


def prices_of(stated: Iterable[str]) -> dict[str, float]:
    """Prices of a million tokens by model, from ``NAME=PRICE`` texts; what is no price is left out."""
    prices = {}
    for item in stated:
        name, _, price = item.rpartition("=")
        try:
            value = float(price)
        except ValueError:
            continue
        if name.strip() and 0 <= value < float("inf"):
            prices[name.strip()] = value
    return prices


def league_rows(results: Sequence[dict[str, Any]], prices: dict[str, float]) -> list[Row]:
    """A heading and one row for each tokenizer, in the order given."""
    # A tokenizer that has no token for a part of the text is not cheap.
    counted = [result["tokens"] for result in results if "tokens" in result and not result.get("lost_characters")]
    best = min(counted, default=0)
    with_price = [price for result in results if (price := _price(result, prices)) is not None]
    left_out = set() if with_price else {"cost"}

    def head(width: int) -> Content:
        name, columns = _layout(width, left_out)
        titles = (right(column.title, column.width, "$muted") for column in columns)
        return Content.assemble(left("TOKENIZER", name, "bold $muted"), *titles)

    return [Row("head", head, selectable=False), *(_row(result, best, prices, left_out) for result in results)]


def short_model(model: str, width: int) -> str:
    """A model's name in at most `width` cells: of a path the file's, or its folder's where all are called alike."""
    if cell_len(model) <= width:
        return model
    if not model.startswith(("/", "~", ".")):
        return model[: width - 1] + "…"
    folder, _, file = model.removesuffix("/").rpartition("/")
    own = folder.rpartition("/")[2] if file in NAMELESS and folder else file
    return own if cell_len(own) <= width else own[: width - 1] + "…"


def _price(result: dict[str, Any], prices: dict[str, float]) -> float | None:
    model = str(result["model"])
    return prices.get(model, prices.get("*"))


def _layout(width: int, left_out: set[str]) -> tuple[int, list[_Column]]:
    chosen = [column for column in COLUMNS if column.title not in left_out]
    while len(chosen) > 1 and NAME_LEAST + sum(column.width for column in chosen) > width:
        chosen.remove(max(chosen, key=lambda column: column.most_wanted))
    room = width - sum(column.width for column in chosen)
    return max(NAME_LEAST, min(NAME_MOST, room)), chosen


def _row(result: dict[str, Any], best: int, prices: dict[str, float], left_out: set[str]) -> Row:
    model = str(result["model"])

    def line(width: int) -> Content:
        name_width, columns = _layout(width, left_out)
        name = left(short_model(model, name_width - 1), name_width)
        if result.get("error"):
            return Content.assemble(name, ("✖ ", "bold $bad"), (str(result["error"]), "$bad"))
        if result.get("counting"):
            return Content.assemble(name, *(right("…", column.width, "$muted") for column in columns))
        cells = _cells(result, best, _price(result, prices))
        if result.get("lost_characters"):
            cells["more"] = ("lossy", "$bad")
        return Content.assemble(
            name, *(right(cells[column.title][0], column.width, cells[column.title][1]) for column in columns)
        )

    return Row(f"model:{model}", line, result)


def _cells(result: dict[str, Any], best: int, price: float | None) -> dict[str, tuple[str, str]]:
    tokens = int(result["tokens"])
    more = tokens - best
    context = result.get("context_length")
    share = tokens / context if context else None
    return {
        "tokens": (f"{tokens:,}", "bold $accent"),
        "more": (f"+{more / best:.0%}" if more and best else "best", "" if more else "$good"),
        "B/tok": (f"{result['bytes_per_token']:.2f}", ""),
        "tok/word": (f"{result['tokens_per_word']:.2f}", ""),
        "char/tok": (f"{result['characters_per_token']:.2f}", ""),
        "vocab": (format_count(result["vocab_size"]), "$muted"),
        "context": ("–", "$muted") if share is None else (_share(share), "$bad" if share > 1 else ""),
        "cost": ("–", "$muted") if price is None else (_money(tokens * price / 1e6), ""),
    }


def _share(share: float) -> str:
    """In per cent, or how many times over."""
    return f"{share:.1%}" if share < 10 else f"{share:,.0f}×"


def _money(cost: float) -> str:
    return f"{cost:,.6f}" if cost < 100 else f"{cost:,.2f}"


def league_text(results: Sequence[dict[str, Any]], prices: dict[str, float]) -> str:
    """The table as plain text."""
    return "\n".join(row.content(112).plain.rstrip() for row in league_rows(results, prices))


def loss_line(result: dict[str, Any], characters: int) -> str:
    """What a tokenizer loses of a text of so many characters."""
    lost = result["lost_characters"]
    return f"no token for {lost:,} characters ({lost / max(1, characters):.1%}): not compared"


def piece_line(piece: dict[str, Any], vocab_size: int) -> Content:
    """One token in a line: text, id, bytes, offsets and rank."""
    identity = int(piece["id"])
    rank = f" · rank {identity + 1:,} of {vocab_size:,}" if vocab_size else ""
    count = int(piece["bytes"])
    where = (
        f"characters {piece['start']:,}–{piece['end']:,}" if piece["start"] < piece["end"] else "added by the tokenizer"
    )
    kind = " · special" if piece["special"] else "" if piece["whole"] else " · part of a character"
    text = visible(str(piece["text"])).replace("\n", "")
    return Content.assemble(
        (text, "bold"),
        (f"  {piece['spelling']}" if piece["spelling"] != piece["text"] else "", "$muted"),
        (f"  id {identity:,} · {count} byte{'' if count == 1 else 's'} · {where}{rank}{kind}", "$muted"),
    )
