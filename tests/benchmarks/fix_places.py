"""The folder in which validate_fixes builds an environment, and what it runs there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

OF_TORCH = re.compile(r"(?:torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==")


@dataclass
class Place:
    """Where a case is built, and with which torch."""

    folder: Path
    torch: str
    find_links: tuple[str, ...]
    with_pip: bool = False
    """Whether fixes are carried out by pip itself: what is damaged it treats otherwise than uv does."""
    script: str = "train.py"
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def python(self) -> str:
        return str(self.folder / "venv/bin/python")

    @property
    def site(self) -> Path:
        return next((self.folder / "venv/lib").glob("python3*/site-packages"))

    def uv(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``uv pip`` on this environment."""
        target = () if words[0] == "compile" else ("--python", self.python)
        return subprocess.run(("uv", "pip", *words, "-q", *target), text=True, capture_output=True, cwd=self.folder)

    def install(self, *words: str, day: str = "") -> bool:
        """Install as a person would, with the torch that is there."""
        (self.folder / "torch.txt").write_text(self.torch + "\n")
        until = ("--exclude-newer", day, "--exclude-newer-package", "torch=false") if day else ()
        return self.uv("install", "-c", "torch.txt", *self.find_links, *until, *words).returncode == 0

    def pip(self, verb: str, words: list[str]) -> None:
        """Carry out a step of a fix, with the tool of this place."""
        names = [re.split(r"[<>=!~\[ ]", word)[0] for word in words if not word.startswith("-")]
        if self.with_pip:
            yes = ("-y",) if verb == "uninstall" else ("-c", "torch.txt", *self.find_links)
            command = (self.python, "-m", "pip", verb, "-q", *yes, *(word for word in words if word != "-y"))
            subprocess.run(command, cwd=self.folder, env=self._environment(), capture_output=True)
        elif verb == "uninstall":
            self.uv("uninstall", *names)
        else:
            plain = [word for word in words if word not in ("-y", "-U", "--force-reinstall", "--no-cache-dir")]
            flag = {"-U": "--upgrade-package", "--force-reinstall": "--reinstall-package"}
            extra = [part for word in flag if word in words for name in names for part in (flag[word], name)]
            self.install(*extra, *plain)

    def run(self, program: str) -> tuple[bool, str]:
        """Whether a program ends well, and what it printed."""
        (self.folder / self.script).write_text(program)
        done = subprocess.run(
            (self.python, self.script),
            cwd=self.folder,
            env=self._environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=600,
        )
        return done.returncode == 0, done.stdout

    def answer(self, code: str) -> str:
        """What a line of Python prints in this environment."""
        command = (self.python, "-c", code)
        return subprocess.run(command, text=True, capture_output=True, env=self._environment()).stdout.strip()

    def listed(self) -> str:
        """What ``pip list`` prints."""
        command = (self.python, "-m", "pip", "list")
        return subprocess.run(command, text=True, capture_output=True, env=self._environment()).stdout

    def _environment(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        quiet = {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        return {**ours, **quiet, **self.environment}


def resolved(place: Place, names: tuple[str, ...], day: str) -> list[str]:
    """The releases that pip would have taken on a day, without torch and what comes with it."""
    (place.folder / "wanted.in").write_text("\n".join(names) + "\n")
    told = place.uv("compile", "--exclude-newer", day, "wanted.in").stdout
    pins = [line.split(" ")[0] for line in told.splitlines() if re.match(r"[a-z]", line)]
    return [pin for pin in pins if not OF_TORCH.match(pin)]


def build(place: Place, pins: list[str]) -> bool:
    """A new environment of these releases, with torch and what it asks for."""
    shutil.rmtree(place.folder / "venv", ignore_errors=True)
    subprocess.run(("uv", "venv", "-q", "--python", sys.executable, "venv"), cwd=place.folder, check=True)
    tools = () if any(pin.startswith("setuptools==") for pin in pins) else ("setuptools<80",)
    # Installed again by pip, a file must not be the one in uv's cache.
    copied = ("--link-mode", "copy") if place.with_pip else ()
    whole = place.install("--no-deps", *copied, *pins, place.torch, "pip", *tools)
    return whole and place.install(place.torch)
