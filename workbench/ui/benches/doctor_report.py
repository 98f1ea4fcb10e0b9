"""A doctor's report as rows and as text to copy; pure functions of the report's JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from textual.content import Content

from workbench.text import format_bytes, one_line
from workbench.ui.widgets.bars import left
from workbench.ui.widgets.row_list import Row

NAME_WIDTH = 24


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
    text = str(value)
    return text if len(text) <= limit and "\n" not in text else one_line(text, limit)


def _value_of(name: str, value: Any) -> str:
    if name.endswith("_bytes") and isinstance(value, int) and value >= 0:
        return format_bytes(value)
    return show_value(value)


def _label(name: str) -> str:
    return name.removesuffix("_bytes").replace("_", " ")


def fact_rows(facts: dict[str, Any], opened: set[str]) -> Iterator[Row]:
    """Groups of facts, folded unless their key is in `opened`; unknown facts are left out of the count."""
    for group, value in facts.items():
        key = f"facts:{group}"
        items = _items(value)
        if not items:
            yield Row(f"fact:{group}", _fact_line(_label(group), _value_of(group, value), "  "), value)
            continue
        mark = "▾ " if key in opened else "▸ "
        yield Row(key, _fact_line(_label(group), _summary(group, value), mark), value)
        if key in opened:
            for name, item in items:
                yield Row(f"fact:{group}.{name}", _fact_line("  " + _label(name), _value_of(name, item), "  "), item)


def _items(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, (list, tuple)):
        return [(str(i), item) for i, item in enumerate(value)]
    return []


def _summary(group: str, value: Any) -> str:
    items = _items(value)
    if isinstance(value, dict):
        for name in ("version", "os", "cuda"):
            if value.get(name):
                return show_value(value[name])
        known = sum(item is not None for _, item in items)
        return f"{known} known" if known < len(items) else f"{known} entries"
    names = [str(item.get("name")) for _, item in items if isinstance(item, dict) and item.get("name")]
    return ", ".join(names) if names else f"{len(items)} entries"


def _fact_line(name: str, value: str, mark: str) -> Content:
    style = "$muted" if value == "unknown" else ""
    return Content.assemble((mark, "$accent"), left(name, NAME_WIDTH, "$muted"), " ", (value, style))


def fix_text(finding: dict[str, Any]) -> str:
    """The steps of a fix, one a line, ready to paste into a shell."""
    return "\n".join(str(step) for step in finding.get("fix") or [])


COMPANIONS = ("transformers", "tokenizers", "accelerate", "bitsandbytes", "peft", "trl", "safetensors", "numpy")


def at_a_glance(facts: dict[str, Any]) -> Content:
    """The environment in a few lines: system, Python, torch, GPUs, the packages that matter; unknown parts left out."""
    platform, python, torch, driver = (facts.get(name) or {} for name in ("platform", "python", "torch", "driver"))
    packages = facts.get("packages") or {}
    gpus = [f"{gpu.get('name')} {format_bytes(gpu.get('memory_bytes') or 0)}" for gpu in facts.get("gpus") or []]
    kind = f" ({python['kind']})" if python.get("kind") else ""
    cuda = f"CUDA {torch['cuda']}" if torch.get("cuda") else f"{torch['build']} build" if torch.get("build") else ""
    lines: list[tuple[str, list[Any]]] = [
        ("system", [platform.get("os"), platform.get("kernel"), platform.get("machine")]),
        ("python", [python.get("version") and f"{python['version']}{kind}", python.get("executable")]),
        ("torch", [torch.get("version") or "not installed", cuda]),
        ("GPU", gpus or ["none"]),
        ("driver", [driver.get("version"), driver.get("cuda") and f"up to CUDA {driver['cuda']}"]),
        ("packages", [f"{name} {packages[name]}" for name in COMPANIONS if packages.get(name)]),
    ]
    told = [(name, " · ".join(str(part) for part in parts if part)) for name, parts in lines]
    return Content("\n").join(Content.assemble(left(name, 10, "$muted"), text) for name, text in told if text)
