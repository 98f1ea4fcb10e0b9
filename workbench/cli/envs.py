"""``workbench envs``."""

from __future__ import annotations

import os
from typing import Any

import click

from workbench.cli.common import Common, ask, common_options, with_session
from workbench.cli.output import console, print_json, table
from workbench.doctor.environment import carried_environment
from workbench.session.client import SessionClient
from workbench.session.protocol import EnvironmentsListed, ListEnvironments


@click.command("envs")
@common_options
def command(common: Common) -> int:
    """The Python environments of this box with their torch and CUDA."""

    async def listed(session: SessionClient) -> list[dict[str, Any]]:
        request = ListEnvironments((os.getcwd(),), carried_environment(os.environ))
        return (await ask(session, request, EnvironmentsListed)).environments

    environments = with_session(common, listed, any_interpreter=True)
    if common.as_json:
        print_json("envs", {"environments": environments})
        return 0
    grid = table("python", "kind", "version", "torch", "CUDA", "")
    for found in environments:
        grid.add_row(
            found["python"],
            found["kind"],
            found.get("python_version") or "",
            found["torch"] or "",
            found["cuda"] or found["torch_build"] or "",
            "this one" if found["current"] else found["broken"] or ("only its files" if found["too_old"] else ""),
        )
    console().print(grid)
    return 0
