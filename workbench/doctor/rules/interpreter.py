"""Rules about the Python that a package asks for. Needs the tables."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.changes import pip_name
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import PASSED, Result, Rule, evidence, from_message, seen
from workbench.doctor.versions import at_least, minor_name, older, satisfies

# The most usual first: for these nearly every package has wheels.
_OFFERED = ("3.12", "3.11", "3.10", "3.13", "3.9", "3.14", "3.8")


def other_python_wanted(facts: Facts) -> Result:
    """pip, uv or Poetry refuses a package because it names other Pythons."""

    def make(error: ErrorFact) -> Finding:
        wanted, have = error.values.get("wanted", ""), error.values.get("have") or facts.python.version
        package = pip_name(error.values["package"]) if error.values.get("package") else "A package"
        offered = python_for(wanted) or "3.12"
        return Finding(
            "python-does-not-suit-package",
            "error",
            f"{package} is for Python {wanted or 'of other versions'}, and this is {have or 'another one'}",
            "A release names the Pythons that it was made for, and installers keep to that.",
            {**evidence(python=have, wanted=wanted), **seen(error)},
            (
                f"{fixes.new_environment(offered)} && source .venv/bin/activate   "
                f"# or: conda create -n py{offered} "
                f"python={offered}; then the same command there",
                "or a release of it that takes this Python, where there is one",
            ),
            "https://packaging.python.org/en/latest/guides/dropping-older-python-versions/",
            affects=("chat",),
            observed=True,
        )

    return from_message(facts, ("other-python-wanted",), make)


def code_of_newer_python(facts: Facts) -> Result:
    """Installed code that this Python does not understand: pip took a release that is not made for it."""
    error = facts.error("code-of-newer-python")
    if error is None or at_least(facts.python.version, error.values["needs"]):
        return PASSED
    needs, have = error.values["needs"], facts.python.version
    inside = re.search(r"-packages[/\\](\w{2,60})", error.values["file"])
    package = pip_name(inside[1]) if inside else "What is installed"
    new = "3.11" if older(needs, "3.12") else "3.12"
    return [
        Finding(
            "python-does-not-suit-package",
            "error",
            f"{package} is written for Python {needs} or newer, and {f'Python {have}' if have else 'an older one'} "
            "reads it here",
            "The line that the SyntaxError shows is sound in a newer Python. An old pip does not look which Pythons a "
            "release is for, and an address or a repository it takes as it is; on some systems python is another one "
            "than python3.",
            {**evidence(python=have, file=error.values["file"]), **seen(error)},
            (
                f"{fixes.new_environment(new)}   # or: conda create -n py{new} python={new}; then the same commands "
                "there",
                "python --version; python3 --version   # which one ran? the newer may be here already",
            ),
            "https://devguide.python.org/versions/",
            affects=("chat",),
            observed=True,
        )
    ]


def beta_of_python(facts: Facts) -> Result:
    """A Python from before its release, for which no package was compiled."""
    version = facts.python.version
    if version is None:
        return None
    if not re.fullmatch(r"3\.\d{1,2}\.0(?:a|b|rc)\d{1,2}\+?", version):
        return PASSED
    fails = facts.error("torch-import-dll", "torch-library-symbol")
    minor = minor_name(version)
    return [
        Finding(
            "python-before-its-release",
            "error" if fails else "warning",
            f"This Python is a test version from before its release ({version})",
            "Packages are compiled for the release; their DLLs and libraries ask for functions that a test version "
            "does not have, or has in another form.",
            {**evidence(python=version), **seen(fails)},
            (
                f"Install the newest Python {minor}: https://www.python.org/downloads/ (or: uv python install {minor})",
                "Remove the program's environment (venv) and run its setup again: it is made anew with that Python.",
            ),
            "https://devguide.python.org/versions/",
            affects=("chat", "vram", "architecture"),
            observed=True,
        )
    ]


def python_for(wanted: str) -> Optional[str]:
    """The most usual Python within a specifier such as ``<3.12,>=3.9.0``; None where none fits or it says nothing."""
    if not wanted:
        return None
    return next((name for name in _OFFERED if satisfies(f"{name}.9", wanted) or satisfies(f"{name}.0", wanted)), None)


RULES: tuple[Rule, ...] = (other_python_wanted, code_of_newer_python, beta_of_python)
