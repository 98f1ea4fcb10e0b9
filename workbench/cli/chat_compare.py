"""``workbench chat --compare``: what quantizing costs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from workbench.cli.common import INTERRUPTED, Common, ask, decode_utf8, with_session
from workbench.cli.output import console, print_json, print_text, table
from workbench.errors import WorkbenchError
from workbench.session.protocol import CompareVariants, Event, VariantMeasured, VariantsCompared
from workbench.text import format_bytes, format_nats, one_line, sanitize

MAX_TEXT_BYTES = 4 * 2**20
PLACES = 3
"""Worst places of the text that are printed for each variant."""
LAYERS = 5


def compare(common: Common, request: CompareVariants) -> int:
    """Measure the variants and print them side by side."""

    def show(event: Event) -> None:
        if isinstance(event, VariantMeasured) and not common.as_json:
            print(f"workbench: {event.variant['name']} measured", file=sys.stderr)

    async def run(session: Any) -> VariantsCompared:
        return await ask(session, request, VariantsCompared, show)

    result = with_session(common, run).result
    if common.as_json:
        print_json("chat", result)
    else:
        _print(result)
    return INTERRUPTED if result["cancelled"] else 0


def _place(place: dict[str, Any]) -> str:
    """``at 41, after 'The river': ' Rhine' instead of ' Seine'``; where both would say the same, that."""
    said, reference = f"{place['variant']!r:.30}", f"{place['reference']!r:.30}"
    what = f"both say {said}" if place["variant"] == place["reference"] else f"{said} instead of {reference}"
    return f"at {place['position']:,}, after {one_line(place['before'], 50)!r}: {what}"


def read_text(path: str) -> str:
    """The text of a file. Raises WorkbenchError for one that cannot be read, is too large or no UTF-8."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise WorkbenchError("unreadable", f"{path} cannot be read: {error.strerror}.", "Name a text file.") from None
    if len(data) > MAX_TEXT_BYTES:
        raise WorkbenchError(
            "too-long", f"{path} has {format_bytes(len(data))}.", f"At most {format_bytes(MAX_TEXT_BYTES)} are read."
        )
    if not data.strip():
        raise WorkbenchError("empty-text", f"{path} is empty.", "Name a text file, or leave --text out.")
    return decode_utf8(data, path)


def _print(result: dict[str, Any]) -> None:
    measured = [variant for variant in result["variants"] if not variant["error"]]
    if not measured:
        return
    grid = table(
        "variant", "weights", "perplexity", "KL mean", "KL 99 %", "same top token", "decode tok/s", "read tok/s",
        right=("weights", "perplexity", "KL mean", "KL 99 %", "same top token", "decode tok/s", "read tok/s"),
    )  # fmt: skip
    for variant in measured:
        divergence = variant["divergence"]
        apart = (
            ("", "reference", "")
            if divergence is None
            else (
                format_nats(divergence["mean_kl"], 4),
                format_nats(divergence["p99_kl"], 3),
                f"{100 * divergence['top1_agreement']:.1f} %",
            )
        )
        grid.add_row(
            variant["name"],
            format_bytes(variant["weights_bytes"]),
            f"{variant['perplexity']:.3f}",
            *apart,
            f"{variant['tokens_per_second']:.1f}",
            f"{variant['read_tokens_per_second']:.0f}",
        )
    console().print(grid)
    part = "the text's first " if result["text_cut"] else ""
    print_text(
        f"KL in nats against {measured[0]['name']}, over {part}{result['text_tokens']:,} tokens; {result['device']}."
    )
    for variant in result["variants"]:
        _print_details(variant, result["prompt"])


def _print_details(variant: dict[str, Any], prompt: str) -> None:
    name = variant["name"]
    if variant["error"]:
        print_text(f"\n{name}: {one_line(variant['error'], 400)}")
        return
    if prompt:
        at = variant["differs_at"]
        where = "" if at is None else f" (differs from token {at + 1} on)"
        print_text(f"\n{name} answers{where}:\n{sanitize(variant['answer'])}")
    divergence = variant["divergence"] or {}
    if divergence.get("first_other"):
        print_text(f"  {name} first says another token {_place(divergence['first_other'])}")
    for place in divergence.get("places", [])[:PLACES]:
        print_text(f"  {name} KL {format_nats(place['kl_divergence'], 2)} {_place(place)}")
    for layer in variant["layers"][:LAYERS]:
        print_text(f"  {name} weight error {100 * layer['relative_error']:.2f} %  {layer['name']}")
