"""What a shell is told while one types. Runs at every tab, so it imports nothing that it does not need."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class, shell_complete

from workbench.errors import WorkbenchError

VARIABLE = "_WORKBENCH_COMPLETE"
"""Set by the shell's script for the call that asks what could stand at the cursor."""
PROGRAM = "workbench"
SHELLS = ("bash", "zsh", "fish")


def script(shell: str) -> str:
    """What the shell has to run once."""
    made = get_completion_class(shell)
    assert made is not None
    return made(click.Group(), {}, PROGRAM, VARIABLE).source().lstrip()


def answer(cli: click.Command, instruction: str) -> int:
    """Print what could stand at the cursor, in the form that `instruction` names; returns the exit code."""
    return shell_complete(cli, {}, PROGRAM, VARIABLE, instruction)


def complete_model(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Samples, what is in the Hub cache, and the catalogue; what begins like a path is left to the shell."""
    if incomplete.startswith((".", "/", "~")):
        return [CompletionItem(incomplete, type="file")]
    return [CompletionItem(name, help=kind) for name, kind in _models() if name.lower().startswith(incomplete.lower())]


def _models() -> list[tuple[str, str]]:
    from workbench.models import catalogue, hub_cache, samples

    try:
        found = dict.fromkeys(samples.samples(), "sample")
        found |= {item.hub_id: "on this box" for item in hub_cache.repositories()}
        found |= {name: "catalogue" for name in catalogue.entries() if name not in found}
    except (OSError, WorkbenchError):
        return []  # a shell that completes has nowhere to say what is wrong
    return list(found.items())
