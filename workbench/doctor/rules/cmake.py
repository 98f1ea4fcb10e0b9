"""Rules about what CMake and pkg-config look for in vain: what it is, and what brings it. Needs the tables."""

from __future__ import annotations

import re
from typing import Any, Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.building import ready_wheel
from workbench.doctor.rules.common import PASSED, Result, Rule, evidence, seen
from workbench.doctor.rules.headers import steps_of_row
from workbench.doctor.tables import table

_ENDS = re.compile(r"_(?:LIBRARY|LIBRARIES|INCLUDE_DIRS?|INCLUDE_PATH|ROOT_DIR)$")


def not_found(facts: Facts) -> Result:
    """A library, a target or a package of CMake that a build ends without."""
    error = facts.error("cmake-not-found")
    name = _name(error) if error else ""
    if error is None or not name:
        return PASSED
    row = next((row for row in table("cmake")["name"] if re.fullmatch(row["match"], name.lower())), None)
    told = row or {}
    return [
        Finding(
            "build-library-not-found",
            "error",
            str(told.get("title", "The build does not find {name}, or not its development files")).replace(
                "{name}", name
            ),
            told.get("why", "Headers and CMake files are packed apart from the library that programs use."),
            {**evidence(missing=name, toolkit=facts.toolkit.nvcc), **seen(error)},
            _steps(facts, row, name),
            told.get("source", table("cmake")["source"]),
            affects=("chat",),
            observed=True,
        )
    ]


def _name(error: ErrorFact) -> str:
    """The first name that the message tells, without CMake's endings."""
    return next((_ENDS.sub("", told) for key, told in sorted(error.values.items()) if key.startswith("name")), "")


def _steps(facts: Facts, row: Optional[dict[str, Any]], name: str) -> tuple[str, ...]:
    if row is None:
        return (
            f"apt-file search -x '(?i)/(find)?{re.escape(name)}(-?config)?\\.(cmake|pc)$'   # which package has it "
            "(sudo apt install apt-file && sudo apt-file update)",
            "Install that package, whose name mostly ends in -dev; where it lies in a folder of its own: export "
            "CMAKE_PREFIX_PATH=<that folder>, delete the build folder, and run the same command again.",
        )
    told = facts.toolkit.nvcc or facts.torch.cuda
    cuda = ".".join(told.split(".")[:2]) if told else None
    fills = {
        "{cuda}": cuda or "$(nvcc --version | grep -oP 'release \\K[0-9.]+')",
        "{cuda_dashed}": cuda.replace(".", "-")
        if cuda
        else "$(nvcc --version | grep -oP 'release \\K[0-9.]+' | tr . -)",
        "{major}": cuda.split(".")[0] if cuda else "12",
    }
    steps = (made for step in steps_of_row(facts, row) for made in (_wheel(facts) if step == "wheel" else (step,)))
    return tuple(_filled(step, fills) for step in steps)


def _wheel(facts: Facts) -> tuple[str, ...]:
    return ready_wheel(facts) or (
        fixes.install(facts, "<the package>", options="--only-binary :all:", upgrade=True)
        + "   # a release with a ready wheel for this Python; else:",
    )


def _filled(step: str, fills: dict[str, str]) -> str:
    for mark, value in fills.items():
        step = step.replace(mark, value)
    return step


RULES: tuple[Rule, ...] = (not_found,)
