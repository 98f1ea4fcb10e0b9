"""The facts of a report as a tree of rows that can be searched, and any fact in full; pure functions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from textual.content import Content

from workbench.text import format_bytes, format_seconds, one_line
from workbench.ui.widgets.bars import left
from workbench.ui.widgets.row_list import Row

NAME_WIDTH = 26
FULL_TEXT = 20_000
"""Characters of one fact that its explanation shows."""

LABELS = {"absent": "not installed", "gpus": "GPUs", "errors": "messages", "probes": "tried", "formats": "recognised"}
UNITS = {"_seconds": "s", "_celsius": "°C", "_watts": "W", "_percent": "%"}
_NAMES = ("name", "id", "step", "package", "purpose", "path")
"""What tells the items of a list apart, the best first."""


def show_value(value: Any, limit: int = 200) -> str:
    """A fact in words; an unknown one says so."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return one_line(", ".join(f"{key} {show_value(item, 60)}" for key, item in value.items()), limit) or "none"
    if isinstance(value, (list, tuple)):
        return one_line(", ".join(show_value(item, 120) for item in value), limit) or "none"
    return one_line(str(value), limit) or "none"


def value_of(name: str, value: Any) -> str:
    """A fact with the unit that its name tells."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if name.endswith("_bytes"):
            return "unlimited" if value < 0 else format_bytes(value)
        if name.endswith("seconds"):
            return format_seconds(value)
        for suffix, unit in UNITS.items():
            if name.endswith(suffix):
                return f"{value:g} {unit}"
    return show_value(value)


def _label(name: str) -> str:
    for suffix in ("_bytes", *UNITS):
        name = name.removesuffix(suffix)
    return LABELS.get(name, name.replace("_", " "))


def fact_rows(facts: dict[str, Any], opened: set[str], search: str = "") -> Iterator[Row]:
    """Groups of facts, folded unless their key is in `opened`; with `search`, every fact that matches, by its path."""
    if search:
        words = search.lower().split()
        for path, value in _leaves("", facts):
            told = value_of(path, value)
            if all(word in f"{path} {show_value(value, FULL_TEXT)} {told}".lower() for word in words):
                yield Row(f"fact:{path}", Content.assemble("  ", (f"{path}  ", "$muted"), told), value)
        return
    yield from _branch("", facts, opened, 0)


def _branch(path: str, value: Any, opened: set[str], depth: int) -> Iterator[Row]:
    for name, item in children(value):
        if name == "formats" and not item:
            continue  # nothing was pasted
        inner = f"{path}.{name}" if path else name
        indent = "  " * depth
        if children(item):
            key = f"facts:{inner}"
            mark = f"{indent}▾ " if key in opened else f"{indent}▸ "
            yield Row(key, _line(_title(name, item), _summary(item), mark), item)
            if key in opened:
                yield from _branch(inner, item, opened, depth + 1)
        else:
            yield Row(f"fact:{inner}", _line(_label(name), value_of(name, item), f"{indent}  "), item)


def children(value: Any) -> list[tuple[str, Any]]:
    """What is inside a fact; nothing inside a plain value or a list of plain values."""
    if isinstance(value, dict):
        return [(str(name), item) for name, item in value.items()]
    if isinstance(value, (list, tuple)) and any(isinstance(item, (dict, list, tuple)) for item in value):
        return [(str(number), item) for number, item in enumerate(value)]
    return []


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    for name, item in children(value):
        inner = f"{path}.{name}" if path else name
        if children(item):
            yield from _leaves(inner, item)
        else:
            yield inner, item


def _title(name: str, item: Any) -> str:
    if not name.isdigit():
        return _label(name)
    own = next((str(item[key]) for key in _NAMES if isinstance(item, dict) and item.get(key)), "")
    return f"{name} {own}".rstrip()


def _summary(value: Any) -> str:
    items = children(value)
    if isinstance(value, dict):
        for name in ("version", "os", "cuda", "status", "purpose", "compute_capability"):
            if value.get(name):
                return show_value(value[name])
        known = sum(item is not None for _, item in items)
        return f"{known} known of {len(items)}" if known < len(items) else _entries(items)
    named = [str(item["name"]) for _, item in items if isinstance(item, dict) and item.get("name")]
    return one_line(", ".join(named)) if named else _entries(items)


def _entries(items: list[tuple[str, Any]]) -> str:
    return "1 entry" if len(items) == 1 else f"{len(items)} entries"


def _line(name: str, value: str, mark: str) -> Content:
    style = "$muted" if value in ("unknown", "none") else ""
    room = max(NAME_WIDTH - len(mark) + 2, 8)
    return Content.assemble((mark, "$accent"), left(name, room, "$muted"), " ", (value, style))


def fact_detail(path: str, value: Any) -> Content:
    """A fact in full: text as it was written, lists one item a line, groups name by name."""
    return Content.assemble((path, "bold"), "\n\n", full_text(value, path.rpartition(".")[2]))


def full_text(value: Any, name: str = "") -> str:
    """All of a fact as lines."""
    if isinstance(value, str):
        return value[:FULL_TEXT] or "none"
    if isinstance(value, dict):
        told = "\n".join(f"{_label(str(key))}  {value_of(str(key), item)}" for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        told = "\n".join(show_value(item, 400) for item in value)
    else:
        return value_of(name, value)
    return told[:FULL_TEXT] or "none"
