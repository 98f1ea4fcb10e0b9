"""``workbench tokens --dataset``."""

from __future__ import annotations

import sys
from typing import Any

from workbench.cli.common import BAD_INPUT, INTERRUPTED, Common, ask, with_session
from workbench.cli.output import console, print_json, print_text, table
from workbench.paths import absolute_model
from workbench.session.client import SessionClient
from workbench.session.protocol import DatasetMeasured, MeasureDataset
from workbench.text import format_bytes, format_count, format_seconds, one_line

BAR_CELLS = 40


def measure(common: Common, path: str, models: tuple[str, ...], field: str, special: bool) -> int:
    """Measure a data set and print its figures; ctrl+c stops and prints what was counted."""
    request = MeasureDataset(absolute_model(path), list(models), field, special)

    async def run(session: SessionClient) -> dict[str, Any]:
        return (await ask(session, request, DatasetMeasured)).result

    result = with_session(common, run)
    if common.as_json:
        about = {key: value for key, value in result.items() if key != "models"}
        print_json("tokens", {"dataset": about, "results": result["models"]})
    else:
        _print(result)
    for model in result["models"]:
        if model["error"]:
            print(failure_line(model["model"], model["error"]), file=sys.stderr)
    if result["partial"]:
        return INTERRUPTED
    return 0 if any(model["rows"] for model in result["models"]) else BAD_INPUT


def failure_line(model: str, error: str) -> str:
    """Which model failed and why; an error that begins with the model's path does not name it twice."""
    named = f"{one_line(model)}: " if model not in error else ""
    return f"workbench: {named}{one_line(error, 1000)}"


def _print(result: dict[str, Any]) -> None:
    partial = " · stopped before the end" if result["partial"] else ""
    print_text(
        f"{result['path']} · {result['format']} · field {result['field'] or '–'} · {result['rows']:,} rows · "
        f"{format_bytes(result['bytes_done'])} · {format_seconds(result['seconds'])}{partial}"
    )
    for count, what in (
        (result["bad_rows"], "cannot be read"),
        (result["missing_rows"], "without the field"),
    ):
        if count:
            print_text(f"skipped rows: {count:,} {what}")
    for bad in result["examples"]:
        print_text(f"  {bad['file']}:{bad['row']}: {one_line(bad['reason'], 160)}")
    for note in result["notes"]:
        print_text(one_line(note, 400))
    numbers = ("tokens", "mean", "p50", "p90", "p95", "p99", "max")
    grid = table("model", *numbers, right=numbers)
    for model in result["models"]:
        values = (f"{model['mean']:,.1f}", *(f"{model[name]:,}" for name in numbers[2:]))
        figures = (f"{model['total']:,}", *values) if model["rows"] else ("–",) * len(numbers)
        grid.add_row(model["model"], *figures)
    console().print(grid)
    for model in result["models"]:
        if model["lost_share"]:
            print_text(
                f"{model['model']}: has no token for {model['lost_share']:.1%} of the characters of the first rows; "
                "its counts are not of the whole text"
            )
        if model["refused_rows"] and model["rows"]:
            print_text(f"{model['model']}: {refused_words(model)}")
    for model in result["models"]:
        if model["rows"]:
            _print_lengths(model)
            _print_histogram(model)


def refused_words(model: dict[str, Any]) -> str:
    """How many rows a model's figures are without, and the first of them."""
    first = ", ".join(f"{row['file']}:{row['row']}" for row in model["refused_examples"])
    more = ", …" if model["refused_rows"] > len(model["refused_examples"]) else ""
    return f"refused rows: {model['refused_rows']:,} ({first}{more}); its figures are of {model['rows']:,} rows"


def _print_lengths(model: dict[str, Any]) -> None:
    numbers = ("length", "rows truncated", "tokens lost", "padding", "in batches", "packing", "tokens an epoch")
    grid = table(*numbers, right=numbers)
    for figures in model["lengths"]:
        grid.add_row(
            f"{figures['length']:,}",
            f"{figures['truncated_share']:.1%}",
            f"{figures['lost_share']:.1%}",
            f"{figures['padding_share']:.1%}",
            f"{figures['batch_padding_share']:.1%}",
            f"{figures['packing_efficiency']:.1%}",
            format_count(figures["tokens_per_epoch"]),
        )
    print_text(f"\n{model['model']}")
    console().print(grid)


def _print_histogram(model: dict[str, Any]) -> None:
    most = max(entry["rows"] for entry in model["histogram"])
    for entry in model["histogram"]:
        bar = "█" * max(1 if entry["rows"] else 0, round(BAR_CELLS * entry["rows"] / most))
        print_text(f"{entry['low']:>9,} – {entry['high']:<9,} {entry['rows']:>9,} {bar}")
