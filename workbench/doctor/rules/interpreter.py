"""Rules about the Python that a package asks for. Needs the tables."""

from __future__ import annotations

from typing import Optional

from workbench.doctor.changes import pip_name
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import Result, Rule, evidence, from_message, seen
from workbench.doctor.versions import satisfies

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
                f"uv venv --python {offered} .venv && source .venv/bin/activate   # or: conda create -n py{offered} "
                f"python={offered}; then the same command there",
                "or a release of it that takes this Python, where there is one",
            ),
            "https://packaging.python.org/en/latest/guides/dropping-older-python-versions/",
            affects=("chat",),
            observed=True,
        )

    return from_message(facts, ("other-python-wanted",), make)


def python_for(wanted: str) -> Optional[str]:
    """The most usual Python within a specifier such as ``<3.12,>=3.9.0``; None where none fits or it says nothing."""
    if not wanted:
        return None
    return next((name for name in _OFFERED if satisfies(f"{name}.9", wanted) or satisfies(f"{name}.0", wanted)), None)


RULES: tuple[Rule, ...] = (other_python_wanted,)
