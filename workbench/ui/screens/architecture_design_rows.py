"""A design in figures beside what it began as: pure, from two inspections to text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from textual.content import Content

from workbench.text import format_bytes, format_count
from workbench.ui.widgets.bars import left, legend_mark, right, stacked_bar
from workbench.ui.widgets.row_list import Row, heading
from workbench.ui.widgets.value_list import shown

LABEL = 20
FACTS_SHOWN = 12


def figures(before: dict[str, Any], now: dict[str, Any], width: int) -> Content:
    """Counts, memory and facts of a design, each with what it was."""
    lines = [_row(width, "", "began as", "is now", "", "$muted")]
    lines += [_row(width, *item) for item in _numbers(before, now)]
    lines += [Content(""), *_components(now, width), Content(""), *_facts(before, now)]
    return Content("\n").join(lines)


def _row(width: int, label: str, was: str, is_now: str, change: str, style: str = "bold") -> Content:
    """One line; where there is no room for what it was, that is left out."""
    number = 14 if width >= 52 else 13
    room = max(10, min(LABEL, width - 9 - (2 * number if width >= 47 else number)))
    old = right(was, number, "$muted") if width >= 47 else Content("")
    return Content.assemble(left(label, room, "$muted"), old, right(is_now, number, style), right(change, 9, "$accent"))


def _numbers(before: dict[str, Any], now: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    counts = [(item.get("parameters") or {}) for item in (before, now)]
    yield _pair("parameters", counts[0].get("total"), counts[1].get("total"), "{:,}".format)
    if any(count.get("active") != count.get("total") for count in counts):
        yield _pair("active/token", counts[0].get("active"), counts[1].get("active"), "{:,}".format)
    sizes = [(item.get("tree") or {}).get("bytes") for item in (before, now)]
    yield _pair("weights", sizes[0], sizes[1], format_bytes)
    compute = [(item.get("compute") or {}) for item in (before, now)]
    for label, key, words in (
        ("KV/token", "kv_bytes_per_token", format_bytes),
        ("KV at 4,096", "kv_bytes", format_bytes),
        ("FLOPs/token", "decode_flops_per_token", format_count),
        ("train on", "training_tokens", format_count),
    ):
        yield _pair(label, _one(compute[0].get(key)), _one(compute[1].get(key)), words)


def _one(value: Any) -> Any:
    """The middle of a range."""
    return value[len(value) // 2] if isinstance(value, list) and value else value


def _pair(label: str, was: Any, is_now: Any, words: Any) -> tuple[str, str, str, str]:
    told = [words(value) if isinstance(value, (int, float)) else "–" for value in (was, is_now)]
    change = ""
    if isinstance(was, (int, float)) and isinstance(is_now, (int, float)) and was and was != is_now:
        change = f"{100 * (is_now - was) / was:+.1f} %" if is_now < 10 * was else f"×{is_now / was:,.1f}"
    return label, told[0], told[1], change


def _components(now: dict[str, Any], width: int) -> list[Content]:
    parts = {k: v for k, v in ((now.get("parameters") or {}).get("by_component") or {}).items() if v}
    total = sum(parts.values()) or 1
    lines = [stacked_bar(list(parts.values()), total, max(10, min(60, width)))]
    for index, (name, count) in enumerate(parts.items()):
        share = right(f"{100 * count / total:.1f} %", 8)
        name = name.replace("_", " ")
        lines.append(
            Content.assemble(
                legend_mark(index), " ", left(name, 17), share, right(f"{count:,}", 16, "$muted") if width >= 46 else ""
            )
        )
    return lines


def _facts(before: dict[str, Any], now: dict[str, Any]) -> list[Content]:
    """The facts that are no longer what they were."""
    old = {fact["key"]: fact for fact in before.get("explained") or ()}
    lines = []
    for fact in now.get("explained") or ():
        was = old.get(fact["key"])
        if was is not None and was["value"] != fact["value"] and fact["chip"] != was["chip"]:
            told = Content.assemble((str(fact["chip"]), "bold"), (f"  was {was['chip']}", "$muted"))
            lines.append(Content.assemble(left(str(fact["label"]), LABEL, "$muted"), told))
    return lines[:FACTS_SHOWN]


def reasons(problems: list[dict[str, Any]]) -> Content:
    """What speaks against a design."""
    return Content("\n").join(
        Content.assemble(("✖ ", "bold $bad"), (str(problem["reason"]), "$bad")) for problem in problems
    )


def offer_rows(problems: list[dict[str, Any]]) -> Iterator[Row]:
    """The values that would do, for each problem the nearest first."""
    for number, problem in enumerate(problems):
        for value in problem["nearest"]:
            offer = Content.assemble(("▸ ", "$accent"), f"{problem['key']} = ", (shown(value), "bold"))
            yield Row(f"offer:{number}:{value}", offer, (problem["key"], value))


def config_text(config: dict[str, Any]) -> str:
    """A config as it is written to a file."""
    return json.dumps(config, indent=2, ensure_ascii=False)


# --- Two models --------------------------------------------------------------------------------------------


def compared_rows(result: dict[str, Any], names: tuple[str, str], all_lines: bool) -> Iterator[Row]:
    """Counts, facts, config values and shapes of two models; only what differs unless all are wanted."""
    head = {"label": "", "first": names[0], "second": names[1], "same": False}
    yield Row("names", lambda width: _compared(head, width, "bold $accent", ""), selectable=False)
    for title, name in (("COUNTS", "counts"), ("FACTS", "facts"), ("CONFIG", "config"), ("SHAPES", "shapes")):
        items = [item for item in result.get(name) or () if all_lines or not item["same"]]
        if items:
            yield heading(title)
        for item in items:
            yield Row(f"{name}:{item['key']}", _compared_line(item), item)
    for title, name in (("ONLY IN THE FIRST", "only_first"), ("ONLY IN THE SECOND", "only_second")):
        modules = result.get(name) or ()
        if modules:
            yield heading(title)
        for module in modules:
            yield Row(f"{name}:{module}", Content(f"   {module}"), {"label": str(module)})


def _compared_line(item: dict[str, Any]) -> Callable[[int], Content]:
    style, mark = ("$muted", " ") if item["same"] else ("bold", "≠")
    return lambda width: _compared(item, width, style, mark)


def _compared(item: dict[str, Any], width: int, style: str, mark: str) -> Content:
    label = max(16, min(44, width // 3))
    each = max(12, min(40, (width - label - 6) // 2))
    return Content.assemble(
        " ",
        left(mark, 2, "bold $warn"),
        left(str(item["label"]), label, "$muted"),
        " ",
        left(_told(item["first"]), each, style),
        " ",
        left(_told(item["second"]), each, style),
    )


def pair_words(item: dict[str, Any]) -> Content:
    """One value of two models, whole."""
    name = Content.styled(str(item.get("key") or item["label"]), "bold")
    if "first" not in item:
        return name
    sign = "=" if item["same"] else "≠"
    return Content.assemble(name, (f"  {_told(item['first'])}  {sign}  {_told(item['second'])}", "$muted"))


def _told(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(part, int) for part in value):
        return " × ".join(f"{part:,}" for part in value)
    return shown(value)


def compared_markdown(result: dict[str, Any]) -> str:
    """What differs, as a Markdown table."""
    lines = [f"| | {result['first']} | {result['second']} |", "|---|---|---|"]
    for name in ("counts", "facts", "config", "shapes"):
        for item in result.get(name) or ():
            if not item["same"]:
                cells = (str(item["label"]), _told(item["first"]), _told(item["second"]))
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)
