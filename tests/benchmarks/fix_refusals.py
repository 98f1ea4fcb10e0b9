"""Installs that fail as they resolve: requirements of two times, or of a Python that they do not take."""

from __future__ import annotations

import datetime
import os
import random
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.fix_faults import BESIDE, NEWEST, OLDEST
from tests.benchmarks.fix_tasks import TRAINING

PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13")
_CHANGED = re.compile(
    r"(?:Where .+? is your own, in its pyproject\.toml|In the (?:requirements|constraints)): (?P<change>.+)"
)
_IN_PLACE = re.compile(r"(?P<new>\S+)(?P<free> without a version)? in place of (?P<old>\S+)")
_TAKEN_OUT = re.compile(r"take (?P<old>\S+) out")
_FREE = re.compile(r"(?P<name>[\w.-]+) without a version")
_PYTHON = re.compile(r"uv venv .*--python '?(?P<python>3\.\d+)'?")


@dataclass
class Requirements:
    """A requirements.txt, a constraints.txt beside it, and the Python for which they are resolved."""

    folder: Path
    lines: list[str]
    python: str
    tool: str
    """``uv`` or ``pip``."""
    constraints: list[str]
    only_binary: bool = True
    """Whether wheels alone are taken, as on a machine without a compiler."""

    def resolve(self) -> tuple[bool, str]:
        """Whether a tool finds releases for all of it, and the report of a person who has tried."""
        (self.folder / "requirements.txt").write_text("\n".join(self.lines) + "\n")
        (self.folder / "constraints.txt").write_text("\n".join(self.constraints) + "\n")
        files = ("-r", "requirements.txt", *(("-c", "constraints.txt") if self.constraints else ()))
        subprocess.run(
            ("uv", "venv", "-q", "--clear", "--seed", "--python", self.python, "venv"), cwd=self.folder, check=True
        )
        python = str(self.folder / "venv/bin/python")
        wheels_alone = ("--only-binary", ":all:") if self.only_binary else ()
        options = ("--dry-run", *wheels_alone, *files)
        if self.tool == "uv":
            command, typed = ("uv", "pip", "install", "--python", python, *options), "uv pip"
        else:
            command, typed = (python, "-m", "pip", "install", *options), "pip"
        plain = {
            **os.environ,
            "PIP_CONFIG_FILE": os.devnull,
        }  # what pip is told on this machine says nothing of a fault
        done = subprocess.run(
            command, cwd=self.folder, env=plain, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        version = subprocess.run((python, "--version"), text=True, capture_output=True).stdout
        report = f"$ python --version\n{version}$ {typed} install {' '.join(files)}\n{done.stdout}"
        return done.returncode == 0, report

    def change(self, step: str) -> bool:
        """Do what a step of a fix says; False where it says nothing of the requirements or of the Python."""
        python = _PYTHON.match(step)
        if python:
            self.python = python["python"]
            return True
        if step.startswith("the same command without --no-build"):
            self.only_binary = False
            return True
        told = _CHANGED.match(step.split("   # ")[0])
        place = _IN_PLACE.search(told["change"]) if told else None
        out = _TAKEN_OUT.search(told["change"]) if told else None
        free = _FREE.match(told["change"]) if told else None
        if place:
            return self._replace(place["old"], place["new"])
        if out:
            return self._replace(out["old"], "")
        return self._freed(free["name"]) if free else False

    def _replace(self, old: str, new: str) -> bool:
        files = (self.lines, self.constraints)
        found = next((file for file in files if old in file), None)
        if found is not None:
            found[:] = [line for line in (*found, new) if line not in (old, "")]
        return found is not None

    def _freed(self, name: str) -> bool:
        self.lines = [name if re.split("[<>=!~]", line)[0] == name else line for line in self.lines]
        return True


def drawn(folder: Path, number: int) -> Requirements:
    """Requirements of which one or two are pinned to what was new at some days, or held there by a constraint."""
    draw = random.Random(number)
    task = TRAINING[draw.choice(sorted(TRAINING))]
    lines, constraints = list(task.wanted), list[str]()
    for name in dict.fromkeys((draw.choice(task.wanted), draw.choice([*task.wanted, *BESIDE]))):
        day = OLDEST + datetime.timedelta(draw.randrange((NEWEST - OLDEST).days))
        command = ("uv", "pip", "compile", "-q", "--no-deps", "--exclude-newer", str(day), "-")
        told = subprocess.run(command, input=name, text=True, capture_output=True, cwd=folder).stdout
        pin = next((line.split(" ")[0] for line in told.splitlines() if line.startswith(f"{name}==")), name)
        if pin != name and draw.random() < 0.3:
            constraints.append(pin)
        else:
            lines = [*(line for line in lines if line != name), pin]
    return Requirements(folder, lines, draw.choice(PYTHONS), draw.choice(("uv", "pip")), constraints)
