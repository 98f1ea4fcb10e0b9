"""``workbench completion``."""

from __future__ import annotations

import click

from workbench.cli.common import Common, common_options
from workbench.cli.output import print_exact, print_json
from workbench.cli.shell import SHELLS, script


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@common_options
def command(common: Common, shell: str) -> None:
    """Print the script that completes commands, options and model names in SHELL.

    Model names are those of the samples, the local Hub cache and the catalogue.
    """
    if common.as_json:
        print_json("completion", {"shell": shell, "script": script(shell)})
    else:
        print_exact(script(shell), end="")
