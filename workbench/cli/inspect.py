"""``workbench inspect``."""

from __future__ import annotations

import json
from typing import Any

import click

from workbench.cli.common import Common, ask, common_options, model_name, with_session
from workbench.cli.lora_option import parse_lora
from workbench.cli.output import print_json, print_text
from workbench.cli.shell import complete_model
from workbench.errors import WorkbenchError
from workbench.paths import absolute_model
from workbench.session.client import SessionClient
from workbench.session.protocol import (
    CompareModels,
    DesignSaved,
    InspectModel,
    ModelInspected,
    ModelsCompared,
    SaveDesign,
)


@click.command("inspect")
@click.argument("model", callback=model_name, shell_complete=complete_model)
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Replace a config value; repeatable.")
@click.option("--lora", metavar="r=16,targets=NAMES", help="Count a LoRA adapter: r, alpha, targets, regex, dora …")
@click.option("--depth", type=click.IntRange(1, 32), default=None, help="How deep the module tree goes.")
@click.option(
    "--compare",
    "other",
    metavar="MODEL",
    callback=model_name,
    shell_complete=complete_model,
    help="Show what differs from MODEL.",
)
@click.option("--gpu", default="", metavar="NAME|SIZE", help="GPU for the limits on speed.")
@click.option("--context", type=click.IntRange(1, 10**9), default=4096, show_default=True, help="Tokens in the cache.")
@click.option("--explain", is_flag=True, help="Print the longer text of every fact.")
@click.option("--save", metavar="PATH", help="Write the changed config as a config.json.")
@common_options
def command(
    common: Common,
    model: str,
    changes: tuple[str, ...],
    lora: str | None,
    depth: int | None,
    other: str | None,
    gpu: str,
    context: int,
    explain: bool,
    save: str | None,
) -> int:
    """Exact parameter counts and facts of MODEL from its config; no weights are read.

    MODEL is any model's name, or family:llama for a small model of a family to design from. With --compare the exit
    code is 1 if the two differ.
    """
    replaced = _changes(changes)
    if other is not None:
        return _compare(common, CompareModels(model, other, replaced))
    adapter = parse_lora(lora) if lora is not None else {}
    if lora is not None and not adapter:
        adapter = {"targets": ["all-linear"]}
    request = InspectModel(model, replaced, depth, adapter, gpu, context)

    async def inspect(session: SessionClient) -> dict[str, Any]:
        result = (await ask(session, request, ModelInspected)).result
        if save is not None:
            target = absolute_model(save if save.startswith(("/", "~", ".")) else f"./{save}")
            result["saved"] = (await ask(session, SaveDesign(model, replaced, target), DesignSaved)).path
        return result

    result = with_session(common, inspect)
    if common.as_json:
        print_json("inspect", result)
        return 0
    from workbench.cli import inspect_text

    if explain:
        inspect_text.print_explanation(result)
    else:
        inspect_text.print_inspection(result, depth or 3)
    if save is not None:
        print_text(f"\nSaved as {result['saved']}")
    return 0


def _compare(common: Common, request: CompareModels) -> int:
    async def compare(session: SessionClient) -> dict[str, Any]:
        return (await ask(session, request, ModelsCompared)).result

    result = with_session(common, compare)
    if common.as_json:
        print_json("inspect", {"comparison": result})
    else:
        from workbench.cli.inspect_text import print_comparison

        print_comparison(result)
    return 0 if result["same"] else 1


def _changes(pairs: tuple[str, ...]) -> dict[str, Any]:
    changes = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise WorkbenchError("bad-option", f"--set {pair} is not KEY=VALUE.", "Example: --set num_hidden_layers=8")
        try:
            changes[key] = json.loads(value)
        except (ValueError, RecursionError):
            changes[key] = value
    return changes
