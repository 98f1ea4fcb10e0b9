"""Completion as the shells really ask for it, and the examples under each command's help."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from workbench.cli.commands import COMMANDS, LazyGroup, workbench
from workbench.cli.examples import EXAMPLES

BASH = shutil.which("bash")
HEAVY = {"torch", "transformers", "textual", "rich", "huggingface_hub", "tokenizers"}


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ``workbench`` that the shells find, whatever is installed."""
    program = tmp_path / "bin" / "workbench"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m workbench "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


def completed(*words: str) -> list[str]:
    """What bash would offer for the last of these words, by its own programmable completion."""
    source = """
        eval "$(workbench completion bash)"
        COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 ))
        complete -p workbench >/dev/null || exit 3
        _workbench_completion workbench
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        [BASH or "bash", "--norc", "-c", source, "bash", *words], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


@pytest.mark.skipif(BASH is None, reason="needs bash")
@pytest.mark.usefixtures("on_path")
def test_bash_completes_commands_options_and_models(private_home: Path) -> None:
    assert completed("workbench", "do") == ["doctor"]
    assert completed("workbench", "doctor", "--self") == ["--self-test"]
    assert completed("workbench", "vram", "--job", "ql") == ["qlora"]
    snapshot = private_home / "hf" / "hub" / "models--someone--Mine" / "snapshots" / "a1"
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("a1")
    (snapshot / "config.json").write_text("{}")
    assert completed("workbench", "inspect", "someone/") == ["someone/Mine"]
    assert "llama-3.1-8b" in completed("workbench", "inspect", "llama-3")
    assert completed("workbench", "tokens", "--model", "tiny-ll") == ["tiny-llama"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
@pytest.mark.usefixtures("on_path")
def test_other_shells_read_their_script(shell: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(workbench, ["completion", shell])
    assert result.exit_code == 0
    assert f"_WORKBENCH_COMPLETE={shell}_complete" in result.output
    found = shutil.which(shell)
    if found is not None:
        script = tmp_path / "script"
        script.write_text(result.output)
        subprocess.run([found, "-n", str(script)], check=True, timeout=60)


def test_completing_imports_nothing_heavy() -> None:
    code = (
        "import os, sys; os.environ.update(_WORKBENCH_COMPLETE='bash_complete', "
        "COMP_WORDS='workbench inspect tiny', COMP_CWORD='2')\n"
        "from workbench.cli.commands import run\nrun([])\n"
        f"print(sorted({HEAVY} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "tiny-llama" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command and subcommand by its path."""
    group = workbench
    assert isinstance(group, LazyGroup)
    for name in COMMANDS:
        command = group.get_command(click.Context(group), name)
        assert command is not None
        yield name, command
        for below, one in getattr(command, "commands", {}).items():
            yield f"{name} {below}", one


def test_every_command_has_examples_and_each_is_taken() -> None:
    known = dict(commands())
    assert set(EXAMPLES) - {""} == set(known)
    for path, lines in EXAMPLES.items():
        shown = CliRunner().invoke(workbench, [*path.split(), "--help"]).output
        for line, what in lines:
            assert line in shown
            assert what in shown
            words = shlex.split(line.replace("$(", " ").replace(")", " ").replace('"', " ") if "$(" in line else line)
            arguments = words[words.index("workbench") + 1 :]
            arguments = arguments[: arguments.index(">")] if ">" in arguments else arguments
            context = click.Context(workbench)
            command: click.Command = workbench
            while arguments and isinstance(command, click.Group) and arguments[0] in command.list_commands(context):
                found = command.get_command(context, arguments[0])
                assert found is not None
                command, arguments = found, arguments[1:]
            command.make_context("workbench", list(arguments))
