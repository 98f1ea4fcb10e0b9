"""What ``workbench inspect`` prints for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from workbench.cli.output import console, table
from workbench.text import format_bytes, format_count

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_BAR_CELLS = 24
_SHOWN = 12
_SHORT_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "float64": "fp64"}


def print_inspection(result: dict[str, Any], depth: int) -> None:
    """Counts, facts, what an adapter trains, whether the checkpoint agrees, and the module tree."""
    out = console()
    out.print(_headline(result))
    for note in result["notes"]:
        out.print(Text(note, "yellow"))
    out.print()
    out.print(Padding(_components(result["parameters"]), (0, 0, 0, 2)))
    out.print()
    out.print(Padding(_path(result["diagram"]), (0, 0, 0, 2)))
    out.print()
    out.print(Padding(_facts(result["explained"]), (0, 0, 0, 2)))
    for part in (_adapter(result["lora"]), _checkpoint(result["checkpoint"])):
        if part:
            out.print()
            for line in part:
                out.print(line)
    out.print()
    out.print(_tree(result["tree"], depth, out.width))


def print_explanation(result: dict[str, Any]) -> None:
    """Each fact of the model with its longer text and where to read on."""
    out = console()
    out.print(_headline(result))
    for fact in result["explained"]:
        out.print()
        out.print(Text.assemble((fact["label"], "bold"), "  ", (fact["chip"], "cyan")))
        out.print(Text(fact["line"]))
        for paragraph in str(fact["text"]).split("\n\n"):
            out.print(Padding(Text(" ".join(paragraph.split()), "dim"), (0, 0, 0, 2)))
        out.print(Padding(Text("; ".join(fact["sources"]), "dim italic"), (0, 0, 0, 2)))


def print_comparison(result: dict[str, Any]) -> None:
    """What differs, side by side; equal values are left out."""
    out = console()
    if result["same"]:
        out.print(Text(f"{result['first']} and {result['second']} are the same model, as far as a config tells."))
        return
    first, second = result["first"], result["second"]
    grid = table("", first, second, right=(first, second))
    grid.add_row("architecture", result["first_architecture"], result["second_architecture"])
    listed: set[str] = set()
    for row in (*result["counts"], *result["facts"]):
        if not row["same"] and row["label"] not in listed:
            listed.add(row["label"])
            grid.add_row(*(Text(part) for part in (row["label"], _value(row["first"]), _value(row["second"]))))
    out.print(grid)
    for title, key in ((f"only in {first}", "only_first"), (f"only in {second}", "only_second")):
        _print_list(out, title, result[key])
    if result["shapes"]:
        _print_list(
            out,
            "other shapes",
            [f"{row['key']}  {_shape(row['first'])} → {_shape(row['second'])}" for row in result["shapes"]],
        )
    if result["config"]:
        _print_list(
            out,
            "config",
            [f"{row['key']}  {_value(row['first'])} → {_value(row['second'])}" for row in result["config"]],
        )


def _print_list(out: Any, title: str, lines: list[str]) -> None:
    if not lines:
        return
    out.print()
    out.print(Text(title, "bold"))
    for line in lines[:_SHOWN]:
        out.print(Padding(Text(line), (0, 0, 0, 2)))
    if len(lines) > _SHOWN:
        out.print(Padding(Text(f"and {len(lines) - _SHOWN} more: --json has them all", "dim"), (0, 0, 0, 2)))


def _headline(result: dict[str, Any]) -> Text:
    parameters = result["parameters"]
    total, active = parameters["total"], parameters["active"]
    line = Text.assemble((result["model"], "bold"), "  ", (result["architecture"], "dim"), "\n")
    line.append(f"{total:,}", "bold cyan").append(f" parameters ({format_count(total)})")
    if active != total:
        line.append("\n").append(f"{active:,}", "bold cyan").append(f" active per token ({format_count(active)})")
    if result["changed"]:
        line.append(f"\nchanged: {', '.join(result['changed'])}", "yellow")
    return line


def _components(parameters: dict[str, Any]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for justify in ("left", "right", "right", "left"):
        grid.add_column(justify=justify)
    total = parameters["total"] or 1
    for name, count in parameters["by_component"].items():
        if count:
            share = count / total
            grid.add_row(
                name.replace("_", " "), f"{count:,}", f"{100 * share:.1f} %", Text(_bar(share), "cyan", end="")
            )
    return grid


def _bar(share: float) -> str:
    eighths = round(share * _BAR_CELLS * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _path(stages: Iterable[dict[str, Any]]) -> Text:
    """``embedding → [norm → attention → + → norm → feed-forward → +] ×32 → norm → LM head``."""
    line = Text()
    for stage in stages:
        blocks = stage["blocks"]
        joined = _parallel(blocks) if stage["parallel"] else " → ".join(block["label"] for block in blocks)
        if line:
            line.append(" → ", "dim")
        if stage["path"]:
            repeat = f" ×{stage['repeat']}" if stage["repeat"] > 1 else ""
            line.append("[", "dim").append(joined).append("]", "dim").append(repeat, "bold cyan")
        else:
            line.append(joined)
    return line


def _parallel(blocks: list[dict[str, Any]]) -> str:
    """``norm → attention ∥ feed-forward → +``, or with a norm for each part, as GPT-NeoX has it."""
    names = [block["label"] for block in blocks]
    norms = [block["label"] for block in blocks if block["kind"] == "norm"]
    parts = names[len(norms) : -1]
    if len(parts) < 2:
        return " → ".join(names)
    if len(norms) == len(parts):
        branches = " ∥ ".join(f"({norm} → {part})" for norm, part in zip(norms, parts, strict=True))
        return f"{branches} → {names[-1]}"
    return " → ".join([*norms, " ∥ ".join(parts), names[-1]])


def _facts(facts: Iterable[dict[str, Any]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for fact in facts:
        grid.add_row(Text(fact["label"], "bold"), Text(fact["line"]))
    return grid


def _adapter(adapter: dict[str, Any] | None) -> list[Any]:
    if not adapter:
        return []
    head = Text.assemble(
        ("LoRA  ", "bold"),
        (f"{adapter['trainable']:,}", "bold cyan"),
        f" trainable ({100 * adapter['share']:.3g} % of all), adapter file {format_bytes(adapter['adapter_bytes'])}, "
        f"scaled by {adapter['scaling']:.3g}",
    )
    grid = table("target", "modules", "in → out", "rank", "parameters", right=("modules", "rank", "parameters"))
    for target in adapter["targets"]:
        experts = f" × {target['experts']} experts" if target["experts"] > 1 else ""
        grid.add_row(
            Text(target["name"]),
            f"{target['modules']:,}",
            f"{target['in_features']:,} → {target['out_features']:,}{experts}",
            str(target["rank"]),
            f"{target['parameters']:,}",
        )
    for name, count in adapter["saved"].items():
        grid.add_row(Text(name), "1", "trained whole", "", f"{count:,}")
    if adapter["biases"]:
        grid.add_row("biases", "", "", "", f"{adapter['biases']:,}")
    return [head, grid, *(Text(note, "yellow") for note in adapter["notes"])]


def _checkpoint(checkpoint: dict[str, Any] | None) -> list[Text]:
    if not checkpoint:
        return []
    if checkpoint["agrees"]:
        count = f"{checkpoint['checkpoint_elements']:,} stored values"
        return [Text.assemble(("Checkpoint  ", "bold"), f"agrees with its config by name and shape ({count}).")]
    counts = checkpoint["counts"]
    said = ", ".join(f"{counts[kind]} {word}" for kind, word in _DIFFERENCES.items() if counts[kind])
    lines = [Text.assemble(("Checkpoint  ", "bold"), (f"differs from its config: {said}.", "yellow"))]
    for kind, word in (("missing", "missing"), ("extra", "extra")):
        lines += [Text(f"  {word}  {name}") for name in checkpoint[kind][:_SHOWN]]
    for row in checkpoint["shapes"][:_SHOWN]:
        lines.append(Text(f"  shape  {row['name']}: config {row['in_model']}, file {row['in_checkpoint']}"))
    return lines


_DIFFERENCES = {"missing": "missing", "extra": "extra", "shapes": "of another shape"}


def _tree(tree: dict[str, Any], depth: int, width: int) -> Table:
    """The folded tree; a narrow terminal gets fewer columns instead of broken ones."""
    columns = ["module", "class", "parameters", "share", "bytes", "shape", "dtype"]
    if width < _WIDE:
        columns.remove("class")
    if width < _MEDIUM:
        columns = ["module", "parameters", "share", "shape"]
    grid = table(*columns, right=("parameters", "share", "bytes"))
    for column in grid.columns:
        column.no_wrap = True
        column.overflow = "ellipsis"
    for cells in _rows(tree, 0, depth, tree["parameters"] or 1):
        grid.add_row(*(cells[column] for column in columns))
    return grid


_WIDE, _MEDIUM = 118, 92


def _rows(node: dict[str, Any], level: int, depth: int, total: int) -> Iterator[dict[str, Any]]:
    name = Text("  " * level + (node["name"] or "(model)"), "" if node.get("children") else "dim")
    if node.get("count", 1) > 1:
        name.append(f" ×{node['count']}", "bold cyan")
    if node.get("tied_to"):
        name.append(f" = {node['tied_to']}", "dim")
    counted = node["parameters"]
    yield {
        "module": name,
        "class": Text(node.get("class") or "", "dim"),
        "parameters": f"{counted:,}" if counted else "–",
        "share": f"{100 * counted / total:.1f} %" if counted else "",
        "bytes": format_bytes(node["bytes"]) if node["bytes"] else "",
        "shape": _shape(node.get("shape")),
        "dtype": _SHORT_DTYPES.get(node.get("dtype") or "", node.get("dtype") or ""),
    }
    if level < depth:
        for child in node.get("children", ()):
            yield from _rows(child, level + 1, depth, total)


def _shape(shape: Any) -> str:
    return " × ".join(f"{size:,}" for size in shape) if isinstance(shape, (list, tuple)) else ""


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items()) or "–"
    if isinstance(value, list):
        return f"{len(value)} entries" if len(value) > 6 else ", ".join(_value(item) for item in value)
    return str(value)
