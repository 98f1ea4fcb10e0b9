"""Every command that the README shows is run, on tiny models and in a home of its own."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.model]

ROOT = Path(__file__).parents[2]
SHOWN = [
    line
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
LEFT_OUT = {
    "pip install": "installs, which a test must not",
    "--self-test": "five steps with a process each: tests/unit/test_doctor_selftest.py",
}
"""What a line holds that is not run, and why."""
SMALLER = (
    ("smollm2-135m-instruct", "tiny-llama"),
    ("llama-3.1-8b", "tiny-llama"),
    ("llama-3.2-1b", "tiny-gpt2"),
    ("--gpu L4", "--gpu 1GiB"),
    ("num_hidden_layers=16", "num_hidden_layers=1"),
    ("~/envs/old/bin/python", "report.txt"),
    ("git diff", "cat README.md"),
)
"""What stands for a download, another box or a minute's work."""
REPORT = "PyTorch version: 2.6.0+cu124\nIs CUDA available: True\nOS: Ubuntu 24.04\nPython version: 3.11.9\n"
MAY_SAY_NO = ("workbench doctor", "workbench inspect tiny-llama --set")
"""Commands whose answer may be "no": something is broken here, two models are not equal."""


def runnable() -> list[str]:
    """The lines as they are run: alternatives each by itself."""
    lines = [line for line in SHOWN if not any(part in line for part in LEFT_OUT)]
    for before, after in SMALLER:
        lines = [line.replace(before, after) for line in lines]
    found = []
    for line in lines:
        alternatives = re.fullmatch(r"workbench session ([a-z]+(?: \| [a-z]+)+)", line)
        if alternatives is None:
            found.append(line)
        else:
            # Starting first, so that each of the others has something to tell of.
            words = sorted(alternatives[1].split(" | "), key=["start", "status", "list", "log", "unload", "stop"].index)
            found += [f"workbench session {word}" for word in words]
    return found


def test_nothing_shown_is_passed_over() -> None:
    assert len(SHOWN) >= 20
    for part in LEFT_OUT:
        assert any(part in line for line in SHOWN), f"{part!r} is left out and not even shown"


@pytest.mark.timeout(600)
def test_every_command_shown_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "workbench"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m workbench "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "report.txt").write_text(REPORT)
    (tmp_path / "README.md").write_text("# A change\n\nOne line more.\n")
    rows = [json.dumps({"text": "one two three " * (n + 1)}) for n in range(20)]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    for line in runnable():
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=180)
        expected = (0, 1) if line.startswith(MAY_SAY_NO) else (0,)
        assert done.returncode in expected, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert "Traceback" not in done.stderr, line
        silent = line.startswith(("eval", "workbench session log"))
        assert done.stdout or silent, f"{line} printed nothing"
