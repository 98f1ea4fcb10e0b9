"""``workbench models``."""

from __future__ import annotations

import sys
from typing import Any

import click

from workbench.cli.common import Common, ask, common_options, model_name, read_settings, with_session
from workbench.cli.output import console, print_exact, print_json, table
from workbench.cli.shell import complete_model
from workbench.paths import absolute_model
from workbench.session.client import SessionClient
from workbench.session.protocol import FetchModel, ListModels, ModelFetched, ModelResolved, ModelsListed, ResolveModel
from workbench.text import format_bytes, format_count


@click.group("models", invoke_without_command=True)
def command() -> None:
    """List, fetch and find models. Without a subcommand: list."""
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        context.invoke(list_command)


@command.command("list")
@common_options
def list_command(common: Common) -> int:
    """Samples, the local Hub cache and the catalogue."""

    directories = tuple(absolute_model(path) for path in read_settings().models.directories)

    async def listed(session: SessionClient) -> list[dict[str, Any]]:
        return (await ask(session, ListModels(directories), ModelsListed)).models

    models = with_session(common, listed, any_interpreter=True)
    if common.as_json:
        print_json("models list", {"models": models})
        return 0
    grid = table("name", "kind", "parameters", "size", "", right=("parameters", "size"))
    for model in models:
        parameters = model.get("parameters")
        size = model.get("size_bytes")
        grid.add_row(
            model["name"],
            model["kind"],
            format_count(parameters) if parameters else "",
            format_bytes(size) if size else "",
            "here" if model.get("present") else "can be fetched" if model.get("fetchable") else "config only",
        )
    console().print(grid)
    return 0


@command.command("get")
@click.argument("name", callback=model_name, shell_complete=complete_model)
@common_options
def get(common: Common, name: str) -> int:
    """Fetch a sample or a Hub model, with progress."""

    async def fetched(session: SessionClient) -> dict[str, Any]:
        return (await ask(session, FetchModel(name), ModelFetched)).model

    model = with_session(common, fetched, any_interpreter=True)
    if common.as_json:
        print_json("models get", {"model": model})
    else:
        print_exact(str(model["path"]))
    return 0


@command.command("where")
@click.argument("name", callback=model_name, shell_complete=complete_model)
@common_options
def where(common: Common, name: str) -> int:
    """The path of a model on this box. Exit code 1: it is known but not here."""

    async def resolved(session: SessionClient) -> dict[str, Any]:
        return (await ask(session, ResolveModel(name), ModelResolved)).model

    model = with_session(common, resolved, any_interpreter=True)
    if common.as_json:
        print_json("models where", {"model": model})
    elif model["path"]:
        print_exact(str(model["path"]))
    else:
        hint = f"workbench models get {name} fetches it." if model.get("fetchable") else "Only its config is known."
        print(f"workbench: {name} is not on this box. {hint}", file=sys.stderr)
    return 0 if model["path"] else 1
