"""Two packages whose releases are known not to work together, whatever their metadata says. Needs the tables."""

from __future__ import annotations

import re
from typing import Any, Optional

from workbench.doctor import fixes
from workbench.doctor.changes import declared_conflicts, judge_declared, name_asked_for
from workbench.doctor.facts import Conflict, ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import Result, evidence, seen
from workbench.doctor.tables import table
from workbench.doctor.versions import at_least, older, satisfies


def known_pairs(facts: Facts) -> Result:
    """Rows of the table that the installed releases run into."""
    rows = [row for row in table("pairs")["pair"] if facts.package(row["package"]) and facts.package(row["needs"])]
    if not rows:
        return None
    return [_finding(facts, row, _trace(facts, row)) for row in rows if _apart(facts, row)][:1]


def _apart(facts: Facts, row: dict[str, Any]) -> bool:
    version = facts.package(row["package"])
    if "from" in row and not at_least(version, row["from"]):
        return False
    if "before" in row and not older(version, row["before"]):
        return False
    return satisfies(facts.package(row["needs"]), row["spec"]) is False


def _trace(facts: Facts, row: dict[str, Any]) -> Optional[ErrorFact]:
    """An error that shows the two at it: one that names what is missing, or a traceback that goes through them."""
    told = next((error for error in facts.errors if row["named"] in error.text), None)
    cut = facts.error("traceback-cut")
    packages = cut.values.get("callers", "").replace("_", "-").split(",") if cut else []
    # Cut in its first frames a traceback names no package at all.
    through = not any(packages) or row["package"] in packages or row["needs"] in packages
    return told or (cut if through else None)


def _finding(facts: Facts, row: dict[str, Any], error: Optional[ErrorFact]) -> Finding:
    package, needs = row["package"], row["needs"]
    lower = row["spec"].startswith(">")
    first = f"{package} {facts.package(package)}"
    second = f"{needs} {facts.package(needs)}"
    too_old, too_new = (second, first) if lower else (first, second)
    earlier = f"{package}<{row['from']}" if "from" in row else ""
    later = f"{package}>={row['before']}" if "before" in row else ""
    steps = [
        fixes.install(facts, f"{needs}{row['spec']}", upgrade=lower) if lower or not later else "",
        fixes.install(facts, later, upgrade=True) if later and not lower else "",
        f"or: {fixes.install(facts, earlier)}" if lower and earlier else "",
        f"or: {fixes.install(facts, needs + row['spec'])}" if not lower and later else "",
    ]
    return Finding(
        "packages-known-apart",
        "warning" if error is None else "error",
        f"{too_old} is too old for {too_new}",
        row["why"],
        {
            **evidence(
                **{package.replace("-", "_"): facts.package(package), needs.replace("-", "_"): facts.package(needs)}
            ),
            **seen(error),
        },
        tuple(filter(None, steps)),
        row["source"],
        affects=("chat",),
        observed=error is not None,
    )


def declared(facts: Facts, error: Optional[ErrorFact] = None) -> Optional[Finding]:
    """Two releases that do not fit by what one of them asks for; with `error`, only two that it speaks of."""
    told = f"{error.text} {error.values.get('callers', '')}".replace("_", "-").lower() if error else ""
    conflicts = [item for item in declared_conflicts(facts) if not error or _spoken_of(item, told)]
    if not conflicts:
        return None
    # That NumPy 2 is refused was most often caution.
    first = min(conflicts, key=lambda item: item.requires.startswith("numpy"))
    verdict = judge_declared(first)
    name = verdict.new if verdict.old == first.package else verdict.old
    bound = first.requires[len(name) :]
    too_old, too_new = (
        f"{package} {first.version if package == first.package else first.found}"
        for package in (verdict.old, verdict.new)
    )
    return Finding(
        "packages-known-apart",
        "error" if error else "warning",
        f"{too_old} is too old for {too_new}",
        f"The metadata of {first.package} {first.version} asks for {name}{bound}; pip would not have installed the two "
        "together.",
        {
            **evidence(
                **{
                    f"{item.package} {item.version} asks for": f"{item.requires}, and {item.found} is here"
                    for item in conflicts[:4]
                }
            ),
            **seen(error),
        },
        (
            fixes.install(facts, f"{name}{bound}"),
            f"or: {fixes.install(facts, first.package, upgrade=True)}"
            if verdict.old == first.package
            else f"or a {first.package} of the time of {name} {first.found}",
            f"{fixes.python_command(facts)} -m pip check   # what else does not fit",
        ),
        f"https://pypi.org/project/{first.package}/{first.version}/",
        affects=("chat",),
        observed=error is not None,
    )


_OF_PACKAGES = re.compile(r"(?:import|attribute|name|type|modulenotfound)error: ")


def _spoken_of(conflict: Conflict, told: str) -> bool:
    """Whether an error is about one of the two: by its words, its traceback, or, without one, by its kind."""
    nameless = bool(_OF_PACKAGES.match(told)) and told.endswith(" ")
    return nameless or conflict.package in told or name_asked_for(conflict) in told


RULES = (known_pairs,)
