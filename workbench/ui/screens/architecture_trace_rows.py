"""A trace as lines of text: pure, from the reply to rows and cells."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from textual.content import Content

from workbench.architecture.traced import unpack_weights
from workbench.ui.widgets.bars import bar, left, right, stacked_bar
from workbench.ui.widgets.grid import Cells
from workbench.ui.widgets.heat import level
from workbench.ui.widgets.pieces import visible
from workbench.ui.widgets.row_list import Row, gap, heading

WIDE = 108
LENS_CELL = 11
PARTS = ("attention", "MLP", "rest")


def number(value: float | None) -> str:
    """Three significant digits, however large."""
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def milliseconds(seconds: float) -> str:
    """Thousandths of a second, to be read in a column."""
    return f"{1000 * seconds:,.2f}"


def token(text: object) -> str:
    """A token in one line, its white space visible."""
    return visible(str(text)).replace("\n", "")


def figures_line(result: dict[str, Any], width: int) -> Content:
    """How long the forward pass took and what took it."""
    shares = [
        result["mixer_time_share"],
        result["mlp_time_share"],
        result["head_time_share"],
        result["other_time_share"],
    ]
    names = ("attention", "MLP", "head", "other") if width >= 84 else ("attn", "MLP", "head", "rest")
    cells = max(8, min(40, width - 76))
    drawn = stacked_bar([round(1000 * share) for share in shares], 1000, cells)
    marks = "█▓▒░"
    legend = "  ".join(f"{mark} {name} {share:.0%}" for mark, name, share in zip(marks, names, shares, strict=True))
    count = len(result["tokens"])
    start = f"{count:,} tokens  {1000 * result['forward_seconds']:,.1f} ms  "
    return Content.assemble((start, "bold"), drawn, (f"  {legend}", "$muted"))


# --- Layers and modules ------------------------------------------------------------------------------------


def layer_head(width: int) -> Content:
    """Names of the columns of `layer_rows`."""
    parts = [left(" layer", 7), right("ms", 8), left("   time in it", 16), right("stream norm", 12), Content(" ")]
    parts += [right("std", 8), right("absmax", 9), right("bad", 5)]
    if width >= WIDE:
        parts += [
            right("mean", 9),
            right("attn adds", 11),
            right("MLP adds", 10),
            right("outliers", 10),
            Content("  shape"),
        ]
    return Content.styled(Content.assemble(*parts).plain, "$muted")


def layer_rows(result: dict[str, Any]) -> Iterator[Row]:
    """One row a layer; heat where it takes long, where the stream is large, where values are no numbers."""
    layers = result["layers"]
    slowest = max((layer["seconds"] for layer in layers), default=0.0) or 1.0
    greatest = max((layer["residual_norm"] or 0.0 for layer in layers), default=0.0) or 1.0
    several = len({layer["stack"] for layer in layers}) > 1
    for layer in layers:
        yield Row(f"layer:{layer['index']}", _layer_line(layer, slowest, greatest, several), layer)


def _layer_line(layer: dict[str, Any], slowest: float, greatest: float, several: bool) -> Callable[[int], Content]:
    def line(width: int) -> Content:
        name = f"{layer['stack'][:3]} {layer['index']}" if several else f"{layer['index']}"
        norm = layer["residual_norm"]
        output = layer["output"]
        bad = output["nonfinite"]
        parts: list[Content | str | tuple[str, str]] = [
            left(f" {name}", 7, "bold"),
            right(milliseconds(layer["seconds"]), 8),
            (f" {level(layer['seconds'] / slowest)} ", "$warn"),
            _split(layer, 12),
            " ",
            right(number(norm), 11),
            (f" {level((norm or 0.0) / greatest)}", "$accent"),
            right(number(output["std"]), 8),
            right(number(output["absmax"]), 9),
            right(f"{bad:,}", 5, "bold $bad" if bad else "$muted"),
        ]
        if width >= WIDE:
            shape = " × ".join(map(str, output["shape"]))
            parts += [
                right(number(output["mean"]), 9),
                right(_adds(layer["mixer"]), 11),
                right(_adds(layer["mlp"]), 10),
            ]
            parts += [right(str(layer["outlier_channels"]), 10), (f"  {shape}", "$muted")]
        return Content.assemble(*parts)

    return line


def _seconds(part: dict[str, Any] | None) -> float:
    return float(part["seconds"]) if part else 0.0


def _split(layer: dict[str, Any], width: int) -> Content:
    parts = [_seconds(layer["mixer"]), _seconds(layer["mlp"]), max(0.0, layer["other_seconds"])]
    whole = sum(parts) or 1.0
    return stacked_bar([round(1000 * part / whole) for part in parts], 1000, width)


def _adds(part: dict[str, Any] | None) -> str:
    share = part["contribution_share"] if part else None
    return "–" if share is None else f"{share:.0%}"


def layer_words(layer: dict[str, Any]) -> Content:
    """A layer in a sentence or two."""
    parts: list[Content | str | tuple[str, str]] = [(layer["name"], "bold"), (f"  {layer['class_name']}", "$muted")]
    parts.append(f"  {layer['time_share']:.1%} of the forward pass.")
    for part in (layer["mixer"], *layer["others"], layer["mlp"]):
        if part:
            kind = "MLP" if part["kind"] == "mlp" else part["kind"]
            share = part["contribution_share"]
            adds = f", adds {share:.0%} of the stream" if share is not None else ""
            parts.append(f"  {kind} {milliseconds(part['seconds'])} ms{adds}.")
    if layer["first_norm"] is not None:
        parts.append((f"  Norm at the first position {number(layer['first_norm'])}.", "$muted"))
    return Content.assemble(*parts)


def module_head(width: int) -> Content:
    """Names of the columns of `module_rows`."""
    room = max(20, width - 60)
    parts = [left(" module", room), right("own ms", 8), left("", 3), right("shape", 14), right("mean", 11)]
    parts += [right("std", 8), right("absmax", 9), right("bad", 5)]
    return Content.styled(Content.assemble(*parts).plain, "$muted")


def module_rows(result: dict[str, Any], slowest_first: bool) -> Iterator[Row]:
    """Every module that ran, with the time that is its own."""
    modules = [module for module in result["modules"] if module["calls"]]
    slowest = max((module["own_seconds"] for module in modules), default=0.0) or 1.0
    if slowest_first:
        modules = sorted(modules, key=lambda module: -module["own_seconds"])
    for module in modules:
        yield Row(f"module:{module['name']}", _module_line(module, slowest), module)


def _module_line(module: dict[str, Any], slowest: float) -> Callable[[int], Content]:
    def line(width: int) -> Content:
        room = max(20, width - 60)
        output = module["output"] or {"shape": (), "mean": None, "std": None, "absmax": None, "nonfinite": 0}
        bad = output["nonfinite"]
        # The end of a long name tells more than its beginning.
        name = module["name"] or "the whole model"
        shown = name if len(name) < room - 1 else "…" + name[-(room - 3) :]
        return Content.assemble(
            left(f" {shown}", room),
            right(milliseconds(module["own_seconds"]), 8),
            (f" {level(module['own_seconds'] / slowest)} ", "$warn"),
            right("×".join(map(str, output["shape"])) or "–", 14, "$muted"),
            right(number(output["mean"]), 11),
            right(number(output["std"]), 8),
            right(number(output["absmax"]), 9),
            right(f"{bad:,}", 5, "bold $bad" if bad else "$muted"),
        )

    return line


# --- Attention ---------------------------------------------------------------------------------------------


def head_rows(maps: dict[str, Any]) -> Iterator[Row]:
    """One row a head: the percent it gives to the first token, the one before and itself, and how even it spreads."""
    yield heading(" head  1st prev self even")
    for figures in maps["figures"]:
        yield Row(f"head:{figures['head']}", _head_line(figures), figures)


def _head_line(figures: dict[str, Any]) -> Content:
    cells = [figures[name] for name in ("first", "previous", "itself", "entropy_share")]
    # What a head does most tells what kind it is.
    most = max(range(3), key=lambda i: cells[i])
    parts = [
        right(f"{100 * value:.0f}", 5, "bold $accent" if i == most and value >= 0.5 else "")
        for i, value in enumerate(cells)
    ]
    return Content.assemble(right(str(figures["head"]), 5, "bold"), " ", *parts, " ", (level(cells[3]), "$muted"))


def weights_of(maps: dict[str, Any], head: int) -> list[list[float]]:
    """The weights of a head, a list for each query; empty where the map did not come."""
    data = next((item["data"] for item in maps["heads"] if item["head"] == head), "")
    return _unpacked(data, maps["queries"], maps["keys"]) if data else []


@functools.lru_cache(maxsize=4)
def _unpacked(data: str, queries: int, keys: int) -> list[list[float]]:
    return unpack_weights(data, queries, keys)


def attention_cells(maps: dict[str, Any], head: int) -> Cells:
    """Queries down, keys across; the square root of a weight is its shade, so that small ones are seen."""
    weights, keys = weights_of(maps, head), maps["keys"]
    if not weights:
        return Cells()
    names = [token(item["text"]) for item in maps["tokens"]]
    names += ["?"] * (max(keys, maps["queries"]) - len(names))
    return Cells(
        rows=names[: maps["queries"]],
        columns=names[:keys],
        value=lambda row, column: weights[row][column] ** 0.5,
        note=lambda row, column: f"{weights[row][column]:.2f}",
    )


def pair_words(maps: dict[str, Any], head: int, row: int, column: int) -> Content:
    """What one token gives to another, in words."""
    weights = weights_of(maps, head)
    if not weights:
        return Content.styled("This head's map did not come.", "$muted")
    weight = weights[row][column]
    figures = next((item for item in maps["figures"] if item["head"] == head), None)
    names = [token(item["text"]) for item in maps["tokens"]]
    said = Content.assemble(
        (f"layer {maps['layer']} head {head}  ", "$muted"),
        (f"{row} {names[row]}", "bold"),
        (" looks at ", "$muted"),
        (f"{column} {names[column]}", "bold"),
        "  ",
        (f"{weight:.4f}", "bold $accent"),
        "  ",
        bar(weight, 16),
    )
    if figures is None:
        return said
    distance = f"  mean distance {figures['distance']:.1f} tokens"
    return Content.assemble(said, (distance, "$muted"))


# --- Logit lens --------------------------------------------------------------------------------------------


def lens_cells(lens: dict[str, Any], tokens: list[dict[str, Any]]) -> Cells:
    """Layers down, positions across; in each cell the token that would come next, shaded by its probability."""

    def text(row: int, column: int) -> str:
        return token(lens["texts"].get(str(lens["ids"][row][column][0]), "?"))

    return Cells(
        rows=["embed" if layer < 0 else f"{layer}" for layer in lens["layers"]],
        columns=[token(tokens[position]["text"]) for position in lens["positions"]],
        value=lambda row, column: float(lens["probabilities"][row][column][0]),
        text=text,
        cell_width=LENS_CELL,
    )


def lens_words(lens: dict[str, Any], tokens: list[dict[str, Any]], row: int, column: int) -> Content:
    """The tokens of one cell with their probabilities, and how far it is from the model's answer."""
    layer, position = lens["layers"][row], lens["positions"][column]
    where = "the embedding" if layer < 0 else f"layer {layer}"
    lines = [
        Content.assemble(
            (f"after {where}, at ", "$muted"),
            (f"{position} {token(tokens[position]['text'])}", "bold"),
            (
                f"  entropy {lens['entropy'][row][column]:.2f} bits, ranks the final answer "
                f"{lens['final_rank'][row][column] + 1:,}.",
                "$muted",
            ),
        )
    ]
    choices: list[Content | str | tuple[str, str]] = []
    for number_, share in zip(lens["ids"][row][column], lens["probabilities"][row][column], strict=True):
        choices += [(token(lens["texts"].get(str(number_), "?")), "bold"), f" {share:.1%} ", bar(share, 6), "   "]
    return Content("\n").join([*lines, Content.assemble(*choices)])


# --- Experts -----------------------------------------------------------------------------------------------


def routing_head() -> Content:
    """Names of the columns of `routing_rows`."""
    return Content.styled(" layer   uneven   idle   sure  tokens by expert", "$muted")


def routing_rows(result: dict[str, Any]) -> Iterator[Row]:
    """One row a mixture-of-experts layer, a bar an expert."""
    for layer in result["routing"]:
        yield Row(f"routing:{layer['layer']}", _routing_line(layer), layer)


def _routing_line(layer: dict[str, Any]) -> Callable[[int], Content]:
    def line(width: int) -> Content:
        counts, room = layer["counts"], max(8, width - 34)
        most = max(counts, default=0) or 1
        cells = _gathered(counts, room)
        wide = max(1, min(3, room // max(1, len(cells))))
        bars = "".join((level(count / most) if count else "·") * wide for count in cells)
        return Content.assemble(
            right(str(layer["layer"]), 6, "bold"),
            right(f"{layer['imbalance']:.2f}", 9),
            right(f"{layer['dead_share']:.0%}", 7),
            right(f"{layer['confidence']:.0%}", 7),
            "  ",
            (bars, "$accent"),
        )

    return line


def _gathered(counts: list[int], room: int) -> list[int]:
    """No more bars than have room; where several experts share one it shows the busiest."""
    each = -(-len(counts) // room)
    return [max(counts[i : i + each]) for i in range(0, len(counts), each)]


def routing_words(layer: dict[str, Any]) -> Content:
    """The busiest experts of a layer."""
    chosen = sorted(range(len(layer["counts"])), key=lambda expert: -layer["counts"][expert])
    total = max(1, sum(layer["counts"]))
    parts: list[Content | str | tuple[str, str]] = [
        (layer["name"], "bold"),
        (f"  {layer['per_token']} of {layer['experts']} experts for each of {layer['tokens']:,} tokens.  ", "$muted"),
    ]
    for expert in chosen[:8]:
        count = layer["counts"][expert]
        parts += [(f"{expert}", "bold"), f" {count / total:.0%} ", bar(count / total, 5), "  "]
    return Content.assemble(*parts)


# --- Outlier channels --------------------------------------------------------------------------------------


def outlier_head() -> Content:
    """Names of the columns of `outlier_rows`."""
    return Content.styled(" channel    absmax              layers       positions", "$muted")


def outlier_rows(outliers: dict[str, Any]) -> Iterator[Row]:
    """Channels of what enters the linear layers, then those of the stream."""
    for title, name in (("WHAT ENTERS THE LINEAR LAYERS", "inputs"), ("THE RESIDUAL STREAM", "stream")):
        channels = outliers[name]
        yield heading(f"{title}, largest first" if channels else f"{title}: nothing large")
        greatest = max((channel["absmax"] for channel in channels), default=0.0) or 1.0
        for channel in channels:
            yield Row(f"{name}:{channel['channel']}", _channel_line(channel, greatest, outliers["threshold"]), channel)
        yield gap(name)


def _channel_line(channel: dict[str, Any], greatest: float, threshold: float) -> Content:
    large = channel["absmax"] >= threshold
    return Content.assemble(
        right(str(channel["channel"]), 8, "bold"),
        right(number(channel["absmax"]), 10, "bold $warn" if large else ""),
        "  ",
        bar(channel["absmax"] / greatest, 12, "$warn" if large else "$accent"),
        right(f"{channel['layers']} ({channel['layer_share']:.0%})", 12),
        right(f"{channel['position_share']:.0%}", 12),
        ("  ⚠ systematic" if channel["systematic"] else "", "$warn"),
    )


def outlier_words(outliers: dict[str, Any]) -> str:
    """What the criterion found."""
    count = outliers["systematic"]
    found = (
        f"{count} systematic outlier channel{'' if count == 1 else 's'}" if count else "No systematic outlier channel"
    )
    return (
        f"{found} of {outliers['width']:,}. Criterion of LLM.int8: a magnitude of {outliers['threshold']:g} or more in "
        f"{outliers['layer_share']:.0%} of the layers and at {outliers['position_share']:.0%} of the positions."
    )
