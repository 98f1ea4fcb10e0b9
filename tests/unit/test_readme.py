"""What the README promises is what the program takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from workbench.cli.commands import workbench
from workbench.paths import data_dir
from workbench.settings import parse_settings
from workbench.toml import loads
from workbench.ui.actions import ACTIONS, key_clashes

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]


def test_the_settings_shown_are_settings() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    settings = parse_settings(loads(block))
    assert settings.warnings == ()
    assert set(settings.keys) <= {action.id for action in ACTIONS}
    assert key_clashes(settings.keys) == []


def test_the_pictures_shown_exist() -> None:
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", TEXT):
        assert (README.parent / picture).is_file(), picture


@pytest.mark.parametrize("line", [line for line in COMMANDS if "workbench " in line and "$(" not in line])
def test_the_commands_shown_are_commands(line: str) -> None:
    words = shlex.split(line[line.index("workbench") :].split("&&")[-1])
    arguments = [word for word in words[1:] if word not in ("|",)]
    if arguments and arguments[0] == "session":
        arguments = arguments[:2]
    if arguments and arguments[0].startswith("--"):
        arguments = []
    result = CliRunner().invoke(workbench, [*arguments, "--help"])
    assert result.exit_code == 0, result.output


def test_the_themes_named_are_shipped() -> None:
    named = re.search(r"# (dark, .*), or one of your own", TEXT)
    assert named is not None
    shipped = {path.stem for path in data_dir("themes").glob("*.toml")}
    assert set(named.group(1).split(", ")) <= shipped
