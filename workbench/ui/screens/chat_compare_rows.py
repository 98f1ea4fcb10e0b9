"""Measured variants as a table, their answers side by side, the worst places of the text, errors by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from textual.content import Content

from workbench.text import format_bytes, format_nats, one_line
from workbench.ui.screens.chat_inside_rows import quoted
from workbench.ui.widgets.bars import bar, left, right
from workbench.ui.widgets.row_list import Row

NAME = 9
COLUMNS = (
    ("weights", 10), ("peak", 10), ("perplexity", 11), ("KL mean", 9), ("KL 99 %", 9), ("same top", 9), ("tok/s", 8),
)  # fmt: skip
LEAST_COLUMN = 28


def cells_of(variant: dict[str, Any]) -> list[str]:
    """A variant's figures in the order of the columns."""
    divergence = variant.get("divergence")
    kl = ["–", "–", "–"]
    if divergence:
        kl = [
            format_nats(divergence["mean_kl"], 4),
            format_nats(divergence["p99_kl"], 3),
            f"{100 * divergence['top1_agreement']:.1f} %",
        ]
    return [
        format_bytes(variant["weights_bytes"]),
        format_bytes(variant["peak_bytes"]),
        f"{variant['perplexity']:,.2f}",
        *kl,
        f"{variant['tokens_per_second']:.1f}" if variant["tokens_per_second"] else "–",
    ]


def table_lines(variants: Sequence[dict[str, Any]]) -> list[Content]:
    """One row for each variant, the reference first."""
    head = [left("", NAME), *(right(name, width, "$muted") for name, width in COLUMNS)]
    lines = [Content("").join(head)]
    for number, variant in enumerate(variants):
        name = left(str(variant["name"]), NAME, "bold $accent" if not number else "bold")
        if variant.get("error"):
            lines.append(Content.assemble(name, ("  ✖ ", "bold $bad"), (one_line(str(variant["error"])), "$bad")))
            continue
        cells = zip(cells_of(variant), (width for _, width in COLUMNS), strict=True)
        lines.append(Content("").join([name, *(right(cell, width) for cell, width in cells)]))
    return lines


def memory_lines(variants: Sequence[dict[str, Any]], width: int) -> Iterator[Content]:
    """Weights as bars, each beside its share of the reference's."""
    measured = [variant for variant in variants if not variant.get("error")]
    if len(measured) < 2:
        return
    most = max(variant["weights_bytes"] for variant in measured) or 1
    first = measured[0]["weights_bytes"] or 1
    yield Content.styled("WEIGHTS", "bold $muted")
    for variant in measured:
        size = variant["weights_bytes"]
        share = f"{100 * size / first:.0f} % of {measured[0]['name']}"
        yield Content.assemble(
            left(str(variant["name"]), NAME, "bold"),
            bar(size / most, max(10, min(50, width - NAME - 32))),
            right(format_bytes(size), 11),
            (f"  {share}", "$muted"),
        )


def remarks(result: dict[str, Any], variants: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What to know of the figures."""
    if result.get("text_tokens"):
        cut = " (the beginning of it: more is not read)" if result.get("text_cut") else ""
        yield f"Perplexity and KL over {result['text_tokens']:,} tokens of text{cut}, on {result.get('device', '')}."
    measured = [variant for variant in variants if not variant.get("error")]
    if measured:
        yield (
            f"KL: divergence from {measured[0]['name']} in nats, mean and 99th percentile. "
            "Same top: how often both would say the same token."
        )
        for variant in measured[1:]:
            if first := (variant.get("divergence") or {}).get("first_other"):
                said, meant = (quoted(str(first[key])) for key in ("variant", "reference"))
                yield (
                    f"{variant['name']} first says another token at {first['position']:,}: "
                    f"“{said}” instead of “{meant}”."
                )
        if measured[0].get("peak_of") == "process":
            yield "Peak is the whole process's highest so far, so later ones never show less."
    if result.get("cancelled"):
        yield "Stopped before all were measured; load the model again with ctrl+l."
    yield from (str(note) for note in result.get("notes") or ())


# --- Answers -----------------------------------------------------------------------------------------------


def common_length(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), min(len(one), len(other)))


def answer_lines(variants: Sequence[dict[str, Any]], width: int) -> list[Content]:
    """The answers beside one another, or below where there is no room; from its first difference on each is marked."""
    answered = [variant for variant in variants if variant.get("answer") or variant.get("answer_ids")]
    if not answered:
        return [Content.styled("No prompt was given, so nothing was answered. f asks for one.", "$muted")]
    reference = str(answered[0]["answer"])
    blocks = [_answer(variant, reference, number == 0) for number, variant in enumerate(answered)]
    column = (width - 3 * (len(blocks) - 1)) // len(blocks)
    if column < LEAST_COLUMN:
        return [line for block in blocks for line in [*_wrapped(block, width), Content("")]]
    wrapped = [_wrapped(block, column) for block in blocks]
    lines = []
    for row in range(max(map(len, wrapped))):
        cells = [(side[row] if row < len(side) else Content("")).truncate(column, pad=True) for side in wrapped]
        lines.append(Content.styled(" │ ", "$faint").join(cells))
    return lines


def _answer(variant: dict[str, Any], reference: str, first: bool) -> list[Content]:
    text = str(variant["answer"])
    alike = common_length(text, reference)
    where = variant.get("differs_at")
    told = "the reference" if first else "the same answer" if where is None else f"differs from token {where + 1:,} on"
    head = Content.assemble((str(variant["name"]), "bold $accent" if first else "bold"), (f"  {told}", "$muted"))
    if first or where is None:
        return [head, Content(""), *Content(text).split("\n", allow_blank=True)]
    said = Content.assemble(text[:alike], ("▸", "bold $accent"), (text[alike:], "underline"))
    return [head, Content(""), *said.split("\n", allow_blank=True)]


def _wrapped(lines: Sequence[Content], width: int) -> list[Content]:
    return [piece for line in lines for piece in (line.wrap(max(8, width)) if line else [line])]


# --- Places and layers -------------------------------------------------------------------------------------


def place_rows(variant: dict[str, Any]) -> Iterator[Row]:
    """Where the text parts a variant most from the reference."""
    divergence = variant.get("divergence") or {}
    for place in divergence.get("places") or ():
        yield Row(str(place["position"]), _place_line(place), place)


def _place_line(place: dict[str, Any]) -> Callable[[int], Content]:
    def line(width: int) -> Content:
        words = [left(quoted(str(place[key])), 14, style) for key, style in
                 (("token", "bold"), ("reference", ""), ("variant", ""))]  # fmt: skip
        head = Content.assemble(
            right(f"{place['position']:,}", 6, "$muted"), right(format_nats(place["kl_divergence"], 2), 8), "  "
        )
        row = Content.assemble(head, Content(" ").join(words))
        before = one_line(str(place["before"]).replace("\n", "↵"))
        room = width - row.cell_length - 2
        return Content.assemble(row, "  ", (before[-room:] if room > 8 else "", "$muted"))

    return line


PLACE_HEAD = Content.assemble(
    right("token", 6, "$muted"), right("KL", 8, "$muted"), "  ",
    Content(" ").join([left(word, 14, "$muted") for word in ("in the text", "reference", "variant")]),
    ("  before it", "$muted"),
)  # fmt: skip


def layer_rows(variant: dict[str, Any]) -> Iterator[Row]:
    """The error of each quantized weight, the largest first."""
    layers = variant.get("layers") or ()
    most = max((layer["relative_error"] for layer in layers), default=0.0) or 1.0
    for layer in layers:
        yield Row(str(layer["name"]), _layer_line(layer, most), layer)


def _layer_line(layer: dict[str, Any], most: float) -> Callable[[int], Content]:
    def line(width: int) -> Content:
        room = max(16, min(44, width - 40))
        return Content.assemble(
            left(str(layer["name"]), room),
            right(f"{100 * layer['relative_error']:.2f} %", 10, "bold"),
            right(f"{layer['worst_error']:.4f}", 12, "$muted"),
            "  ",
            bar(layer["relative_error"] / most, max(4, min(40, width - room - 26))),
        )

    return line


LAYER_TELLS = "Error of each weight: Frobenius norm of the difference over the weight's, and the largest difference."


# --- As text -----------------------------------------------------------------------------------------------


def markdown(result: dict[str, Any]) -> str:
    """The comparison for an issue."""
    variants = result["variants"]
    heads = ["variant", *(name for name, _ in COLUMNS)]
    lines = [f"# What quantizing costs: {one_line(str(result['model']))}", "", f"| {' | '.join(heads)} |"]
    lines.append("|---|" + "---:|" * len(COLUMNS))
    for variant in variants:
        cells = [one_line(str(variant["error"]))] if variant.get("error") else cells_of(variant)
        lines.append(f"| {' | '.join([str(variant['name']), *cells])} |")
    lines += ["", *(f"{remark}" for remark in remarks(result, variants))]
    if result.get("prompt"):
        lines += ["", f"Prompt: {one_line(str(result['prompt']))}"]
        for variant in variants:
            if not variant.get("error"):
                lines += ["", f"## {variant['name']}", "", str(variant["answer"])]
    return "\n".join(lines) + "\n"
