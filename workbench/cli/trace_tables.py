"""The tables of ``workbench trace``: readable without colour, better with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.architecture.traced import unpack_weights
from workbench.cli.output import console, print_text, table
from workbench.session.protocol import ModelStatus
from workbench.text import format_seconds, one_line

if TYPE_CHECKING:
    from rich.text import Text

_BAR = 16
_MIXER, _MLP, _OTHER = ("█", "cyan"), ("▓", "magenta"), ("░", "bright_black")
_STEPS = "▁▂▃▄▅▆▇█"
_SHADES = " ░▒▓█"
_WIDEST_MAP = 48
_EXPERT_COLUMNS = 64
_WIDE = 100
_EXPECTED_ABSENT = {"routing": "no mixture of experts.", "lens": "not asked for."}


def print_trace(model: ModelStatus, result: dict[str, Any]) -> None:
    """Summary, layers, lens, routing, outliers, and what is missing with the reason."""
    print_text(f"{model.name} · {model.architecture} · {_variant(model)} on {model.device}")
    print_text(
        f"{len(result['tokens']):,} tokens · forward pass {_seconds(result['forward_seconds'])} ({result['clock']})"
    )
    print_text()
    _print_shares(result)
    print_text()
    _print_layers(result)
    if result["lens"] is not None:
        _print_lens(result)
    if result["routing"]:
        _print_routing(result["routing"])
    if result["outliers"] is not None:
        print_text()
        print_text(_outlier_line(result["outliers"], len(result["layers"])))
    for name, reason in result["why"].items():
        if name not in _EXPECTED_ABSENT or not reason.endswith(_EXPECTED_ABSENT[name]):
            print_text(f"{name}: {one_line(reason)}")
    for note in result["notes"]:
        print_text(one_line(note))


def print_attention(result: dict[str, Any], with_maps: bool) -> None:
    """Every head in figures; the maps of the heads asked for."""
    print_text()
    kv = result["num_key_value_heads"]
    window = f", window {result['sliding_window']:,}" if result["sliding_window"] else ""
    shared = f" over {kv} KV heads" if kv and kv != result["num_attention_heads"] else ""
    print_text(f"attention of layer {result['layer']}: {result['num_attention_heads']} heads{shared}{window}")
    numbers = ("head", "on the first", "previous", "itself", "distance")
    grid = table(*numbers, "spread", right=numbers)
    for head in result["figures"]:
        grid.add_row(
            str(head["head"]),
            f"{head['first']:.1%}",
            f"{head['previous']:.1%}",
            f"{head['itself']:.1%}",
            f"{head['distance']:.1f}",
            f"{_bar(head['entropy_share'])} {head['entropy_share']:.0%}",
        )
    console().print(grid)
    if result["note"]:
        print_text(one_line(result["note"]))
    for head in result["heads"] if with_maps else ():
        _print_map(result, head)


def _variant(model: ModelStatus) -> str:
    return model.dtype if model.quant == "none" else f"{model.quant}{' double' if model.double_quant else ''}"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms" if seconds < 0.1 else format_seconds(seconds)


def _print_shares(result: dict[str, Any]) -> None:
    from rich.text import Text

    line = Text()
    for name, key, (glyph, colour) in (
        ("attention or state", "mixer_time_share", _MIXER),
        ("MLP", "mlp_time_share", _MLP),
        ("norm and head", "head_time_share", ("▒", "yellow")),
        ("other", "other_time_share", _OTHER),
    ):
        line.append(glyph, colour).append(f" {name} {result[key]:.0%}   ")
    line.append("of the time")
    console().print(line)


def _print_layers(result: dict[str, Any]) -> None:
    longest = max((layer["seconds"] for layer in result["layers"]), default=0.0)
    lens = _last_words(result["lens"])
    wide = console().width >= _WIDE
    numbers = ("layer", "time", "norm", "+mixer", "+MLP", *(("std",) if wide else ()), "absmax")
    grid = table("layer", "time", "", *numbers[2:], "would say next", right=numbers)
    several = len({layer["stack"] for layer in result["layers"]}) > 1
    for layer in result["layers"]:
        output = layer["output"]
        grid.add_row(
            f"{layer['index']} {layer['stack'][:3]}" if several else str(layer["index"]),
            _seconds(layer["seconds"]),
            _time_bar(layer, longest, _BAR if wide else _BAR // 2),
            _number(layer["residual_norm"]),
            _share(layer["mixer"]),
            _share(layer["mlp"]),
            *((_number(output["std"]),) if wide else ()),
            _number(output["absmax"]),
            _bad(output["nonfinite"]) if output["nonfinite"] else lens.get(layer["index"], ""),
        )
    console().print(grid)


def _bad(count: int) -> Text:
    from rich.text import Text

    return Text(f"{count:,} not finite", "bold red")


def _time_bar(layer: dict[str, Any], longest: float, most: int) -> Text:
    from rich.text import Text

    bar = Text()
    width = most * layer["seconds"] / longest if longest else 0.0
    used = 0
    mixer, mlp = (layer[key]["seconds"] if layer[key] else 0.0 for key in ("mixer", "mlp"))
    for seconds, (glyph, colour) in ((mixer, _MIXER), (mlp, _MLP)):
        cells = round(width * seconds / layer["seconds"]) if layer["seconds"] else 0
        bar.append(glyph * cells, colour)
        used += cells
    return bar.append(_OTHER[0] * max(0, round(width) - used), _OTHER[1])


def _share(part: dict[str, Any] | None) -> str:
    if part is None:
        return ""
    return "–" if part["contribution_share"] is None else f"{part['contribution_share']:.0%}"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _last_words(lens: dict[str, Any] | None) -> dict[int, str]:
    """The most probable next token after each layer, at the last position."""
    if lens is None:
        return {}
    return {layer: _cell(lens, row, 0) for row, layer in enumerate(lens["layers"])}


def _cell(lens: dict[str, Any], row: int, rank: int) -> str:
    token, chance = lens["ids"][row][-1][rank], lens["probabilities"][row][-1][rank]
    return f"{_token(lens['texts'][str(token)])} {chance:.0%}"


def _token(text: str) -> str:
    """A token's text with its spaces to be seen."""
    seen = text.replace(" ", "␣").replace("\u00a0", "⍽").replace("\n", "↵").replace("\t", "⇥")
    return one_line(seen, 18) or "∅"


def _print_lens(result: dict[str, Any]) -> None:
    from rich.text import Text

    lens = result["lens"]
    ranks = len(lens["ids"][0][-1])
    if ranks < 2:
        return
    shown = min(ranks, 5 if console().width >= _WIDE else 3)
    last = result["tokens"][-1]["text"] if len(result["tokens"]) > lens["positions"][-1] else ""
    print_text()
    print_text(
        f"logit lens after {_token(last)} (through {', '.join(lens['steps'])}; rank is that of the final answer)"
    )
    grid = table("layer", "bits", "rank", *("" for _ in range(shown)), right=("layer", "bits", "rank"))
    for row, layer in enumerate(lens["layers"]):
        cells = []
        for rank in range(shown):
            chance = lens["probabilities"][row][-1][rank]
            cells.append(Text(_cell(lens, row, rank), "bold" if chance >= 0.5 else "" if chance >= 0.1 else "dim"))
        name = "embed" if layer < 0 else str(layer)
        grid.add_row(name, f"{lens['entropy'][row][-1]:.1f}", f"{lens['final_rank'][row][-1] + 1:,}", *cells)
    console().print(grid)


def _print_routing(routing: list[dict[str, Any]]) -> None:
    print_text()
    first = routing[0]
    print_text(f"routing: {first['per_token']} of {first['experts']} experts for each of {first['tokens']:,} tokens")
    numbers = ("layer", "imbalance", "unused", "first choice", "undecided")
    grid = table("layer", "tokens by expert", *numbers[1:], right=numbers)
    for layer in routing:
        counts = layer["counts"][:_EXPERT_COLUMNS]
        most = max(layer["counts"]) or 1
        bars = "".join(_STEPS[round((len(_STEPS) - 1) * count / most)] if count else "·" for count in counts)
        grid.add_row(
            str(layer["layer"]),
            bars + ("…" if len(layer["counts"]) > _EXPERT_COLUMNS else ""),
            f"{layer['imbalance']:.2f}",
            f"{layer['dead_share']:.0%}",
            f"{layer['confidence']:.0%}",
            f"{layer['entropy_share']:.0%}",
        )
    console().print(grid)


def _outlier_line(outliers: dict[str, Any], layers: int) -> str:
    shares = f"{outliers['layer_share']:.0%} of layers and {outliers['position_share']:.0%} of positions"
    rule = f"{outliers['threshold']:g} in {shares}"
    if not outliers["systematic"]:
        return f"no channel of {outliers['width']:,} reaches {rule}: int8 holds this prompt well"
    worst = [item for item in outliers["inputs"] if item["systematic"]][:4]
    named = ", ".join(
        f"{item['channel']} ({item['layers']} of {layers} layers, up to {item['absmax']:.3g})" for item in worst
    )
    more = f" and {outliers['systematic'] - len(worst)} more" if outliers["systematic"] > len(worst) else ""
    return f"outlier channels that int8 must keep apart ({rule}): {named}{more}"


def _bar(share: float, width: int = 10) -> str:
    filled = round(width * min(1.0, max(0.0, share)))
    return "█" * filled + "░" * (width - filled)


def _print_map(result: dict[str, Any], head: dict[str, Any]) -> None:
    queries, keys = result["queries"], result["keys"]
    print_text()
    if keys > _WIDEST_MAP:
        print_text(f"head {head['head']}: {keys:,} tokens are too many for a map here; --json has the weights")
        return
    print_text(f"head {head['head']}: a row is a token, a column what it looks at")
    rows = unpack_weights(head["data"], queries, keys)
    for query, weights in enumerate(rows):
        cells = "".join(_SHADES[min(len(_SHADES) - 1, int(weight * len(_SHADES)))] * 2 for weight in weights)
        at = max(range(keys), key=lambda key: weights[key])
        label = _token(result["tokens"][query]["text"])
        target = _token(result["tokens"][at]["text"]) if at < len(result["tokens"]) else str(at)
        print_text(f"{query:>3} {label:<18} {cells}  {target} {weights[at]:.0%}")
