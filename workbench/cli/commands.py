"""The click group; each command is imported when it is called."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from workbench import __version__
from workbench.cli.examples import with_examples
from workbench.cli.shell import VARIABLE, answer, complete_model
from workbench.errors import WorkbenchError
from workbench.text import one_line

BENCHES = ("doctor", "tokens", "architecture", "vram", "chat")

COMMANDS = {
    "doctor": "Does this environment really drive this GPU? Root causes and exact fixes.",
    "tokens": "Exact token counts of texts under any models.",
    "inspect": "What a model is made of: exact parameter counts and facts, from its config.",
    "trace": "What happens inside a model on a prompt: time, activations, logit lens, attention.",
    "vram": "Will this job fit? Bytes per category against the GPUs.",
    "chat": "Talk to a model, quantized or not.",
    "models": "List, fetch and find models.",
    "session": "The background model session: status, start, stop, log, unload.",
    "envs": "The Python environments of this box with their torch and CUDA.",
    "completion": "Completion of commands, options and model names for bash, zsh and fish.",
}


class LazyGroup(click.Group):
    """Imports ``workbench.cli.<name>`` only when its command is run; help lines are listed above."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"workbench.cli.{cmd_name}")
        return with_examples(module.command, (cmd_name,))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="workbench")
@click.option("--bench", type=click.Choice(BENCHES), default=None, help="The bench to open.")
@click.option(
    "--model",
    default="",
    metavar="MODEL",
    shell_complete=complete_model,
    help="The model of every bench: name, directory or .gguf.",
)
@click.option("--theme", default="", metavar="NAME", help="A theme by name.")
@click.option("--python", default="", metavar="PATH", help="Target interpreter or environment folder.")
@click.option("--session", default="", metavar="NAME", help="Name of the model session.")
@click.option("--slow-link", is_flag=True, help="Fewer frames and no animation, for slow connections.")
@click.option("--no-mouse", is_flag=True, help="Leave the mouse to the terminal.")
def workbench(**options: Any) -> None:
    """A terminal workbench for people who run and fine-tune language models.

    Without a command it opens the app. A MODEL is a directory, a .gguf file, a Hub id (org/name), a name of the
    catalogue (workbench models list) or a sample such as smollm2-135m-instruct.
    """
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        from workbench.cli.app import open_app

        context.exit(open_app(**options))
    # --python and --session mean the same before the command and after it; the others are the app's alone.
    for name in ("bench", "model", "theme", "slow_link", "no_mouse"):
        if options[name]:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(
                f"{option} before a command does nothing; it belongs to the app or after the command."
            )


with_examples(workbench)


def run(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit code."""
    _prepare_output()
    if VARIABLE in os.environ:
        return answer(workbench, os.environ[VARIABLE])
    try:
        # Not click's own main(): it turns a closed pipe into exit code 1, which here means "the answer is no".
        with workbench.make_context("workbench", list(arguments)) as context:
            workbench.invoke(context)
        return 0
    except click.exceptions.Exit as exit_request:
        return exit_request.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        return _usage_error(error, "--json" in arguments)
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (head, less); keep the interpreter from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:
        if os.environ.get("WORKBENCH_DETAILS"):
            raise
        what = f"unexpected {type(error).__name__}: {one_line(str(error))}."
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            what = "cannot write the output: no space left."
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        print(f"workbench: {what} WORKBENCH_DETAILS=1 shows the traceback.", file=sys.stderr)
        return 2


def _prepare_output() -> None:
    """Streams that take any text, also where the shell closed them or set another encoding."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (lives as long as the process)
        else:
            stream.reconfigure(errors="replace")


def _usage_error(error: click.ClickException, as_json: bool) -> int:
    from workbench.cli.output import command_name, print_error

    context = getattr(error, "ctx", None)
    path = context.command_path if context else "workbench"
    message = error.format_message()
    failure = WorkbenchError("bad-usage", message, f"See {path} --help.")
    print_error(failure, command_name(context), as_json)
    return 2
