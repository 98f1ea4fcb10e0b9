"""Which packages an error is about, and which of them may be named in a command. Needs the tables."""

from __future__ import annotations

import functools

from workbench.doctor import fixes
from workbench.doctor.changes import pip_name
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.tables import table

FAMILY = frozenset(("accelerate", "diffusers", "optimum", "peft", "trl", "unsloth", "unsloth-zoo"))
"""Packages that are written against transformers, whatever else they call."""

PIP_CHECK = "https://pip.pypa.io/en/stable/cli/pip_check/"

RESTART = "Restart the notebook kernel or the program, in case it was upgraded while running."

# Packages of many years, which move and remove more names than they gain.
MATURE = frozenset(
    (
        *FAMILY,
        "transformers",
        "datasets",
        "torchvision",
        "torchaudio",
        "numpy",
        "scipy",
        "pandas",
        "scikit-learn",
        "jax",
    )
) - {"unsloth", "unsloth-zoo", "optimum"}


# Packages that one other package alone is written against: who asks, where no traceback tells.
ONLY_ASKED_BY = {"sgl-kernel": "sglang", "unsloth-zoo": "unsloth"}

# What only starts a program, and stands in every traceback of it.
_STARTERS = frozenset(("fire", "click", "typer", "hydra", "absl-py", "uvicorn", "starlette", "anyio", "streamlit"))


def callers_of(error: ErrorFact) -> tuple[str, ...]:
    """Pip names of the packages in the traceback, the one that raised first; ``""`` is a program of one's own."""
    told = error.values.get("callers", error.values.get("importer", ""))
    names = tuple(pip_name(name) if name else "" for name in told.split(",")) if told else ()
    return tuple(name for name in names if name not in _STARTERS) or names


@functools.cache
def known_imports() -> frozenset[str]:
    """Import names for what people run models with.

    Any other name may be the user's own file, or anybody's package: nothing is offered to be installed for those.
    """
    return frozenset(table("imports")["names"])


@functools.cache
def _installable() -> frozenset[str]:
    return frozenset((*map(pip_name, known_imports()), *table("imports")["packages"]))


def may_install(facts: Facts, package: str) -> bool:
    """Whether this is the name of a package for certain: a folder in a traceback may be called otherwise than it."""
    return package in _installable() or package in facts.packages or package in table("changes")


def again(facts: Facts, package: str) -> str:
    """What puts the files of a package there anew."""
    if not may_install(facts, package):
        return (
            f"Install {package or 'the package that the traceback names'} again, in a build for this Python and torch."
        )
    return fixes.anew(facts, package)
