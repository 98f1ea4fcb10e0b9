"""``workbench inspect``."""

from __future__ import annotations

import json
from typing import Any

import click

from workbench.cli.common import Common, ask, common_options, model_name, with_session
from workbench.cli.output import console, print_json, print_text, table
from workbench.errors import WorkbenchError
from workbench.session.client import SessionClient
from workbench.session.protocol import InspectModel, ModelInspected
from workbench.text import format_bytes, format_count


@click.command("inspect")
@click.argument("model", callback=model_name)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Replace a config value; repeatable.")
@click.option("--depth", type=click.IntRange(1, 32), default=None, help="How deep the module tree goes.")
@common_options
def command(common: Common, model: str, changes: tuple[str, ...], depth: int | None) -> int:
    """Exact parameter counts and facts of MODEL from its config; no weights are read."""
    request = InspectModel(model, _changes(changes), depth)

    async def inspect(session: SessionClient) -> dict[str, Any]:
        return (await ask(session, request, ModelInspected)).result

    result = with_session(common, inspect)
    if common.as_json:
        print_json("inspect", result)
    else:
        _print(result, depth or 3)
    return 0


def _changes(pairs: tuple[str, ...]) -> dict[str, Any]:
    changes = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise WorkbenchError("bad-option", f"--set {pair} is not KEY=VALUE.", "Example: --set num_hidden_layers=8")
        try:
            changes[key] = json.loads(value)
        except ValueError:
            changes[key] = value
    return changes


def _print(result: dict[str, Any], depth: int) -> None:
    parameters, facts = result["parameters"], result["facts"]
    print_text(f"{result['model']} · {result['architecture']}")
    print_text(f"{parameters['total']:,} parameters ({format_count(parameters['total'])})")
    if parameters.get("active") and parameters["active"] != parameters["total"]:
        print_text(f"{parameters['active']:,} active per token ({format_count(parameters['active'])})")
    for note in result["notes"]:
        print_text(note)
    print_text()
    total = parameters["total"] or 1
    for name, count in parameters["by_component"].items():
        if count:
            print_text(f"  {name:<10} {count:>20,}  {count / total:6.1%}")
    print_text()
    for name, value in facts.items():
        if value is not None and value != {}:
            print_text(f"  {name:<22} {_fact(value)}")
    print_text()
    numbers = ("parameters", "bytes")
    grid = table("module", "class", *numbers, "shape", "dtype", right=numbers)
    _add_rows(grid, result["tree"], 0, depth)
    console().print(grid)


def _fact(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key} × {count}" for key, count in value.items())
    return str(value)


def _add_rows(grid: Any, node: dict[str, Any], level: int, depth: int) -> None:
    name = node["name"] + (f" ×{node['count']}" if node.get("count", 1) > 1 else "")
    shape = "×".join(map(str, node["shape"])) if node.get("shape") else ""
    grid.add_row(
        "  " * level + (name or "(model)"),
        node.get("class", ""),
        f"{node['parameters']:,}",
        format_bytes(node["bytes"]),
        shape,
        node.get("dtype") or "",
    )
    if level < depth:
        for child in node.get("children", ()):
            _add_rows(grid, child, level + 1, depth)
