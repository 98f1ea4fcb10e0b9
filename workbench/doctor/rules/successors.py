"""Rules about packages that are made no more, or are not what was meant, and that do not install. Needs the tables."""

from __future__ import annotations

from workbench.doctor import fixes
from workbench.doctor.facts import Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import PASSED, Result, Rule, evidence, seen
from workbench.doctor.tables import table


def made_no_more(facts: Facts) -> Result:
    """A package that another one took the place of fails to build, or is on the index no more."""
    error = facts.error("build-failed", "pip-offers")
    if error is None:
        return PASSED
    package = error.values.get("package", "").lower()
    row = next((row for row in table("successors")["package"] if package in row["names"]), None)
    if row is None or (error.id == "pip-offers" and error.values.get("oldest")) or _its_own_source(facts, package):
        return PASSED
    instead = row.get("instead", "")
    out = f"Take the line {package} out of the requirements, and run the same command again"
    return [
        Finding(
            "package-made-no-more",
            "error",
            f"{package} is not the package to install"
            + (f": {instead} is" if instead else " any more, or not from the index"),
            f"{package}: {row['why']}.",
            {**evidence(package=package, python=facts.python.version), **seen(error)},
            (
                f"{fixes.install(facts, instead)}   # in place of {package}, in the requirements too",
                f"or: {out[0].lower()}{out[1:]}",
            )
            if instead
            else (out,),
            row["source"],
            affects=("chat",),
            observed=True,
        )
    ]


def _its_own_source(facts: Facts, package: str) -> bool:
    """Whether what is built is no package of the index, but the other one of that name, from its repository."""
    return package == "apex" and facts.error("apex-of-nvidia") is not None


def of_python_2(facts: Facts) -> Result:
    """A setup that only Python 2 can read, with the package's name where a build log has it."""
    error, failed = facts.error("package-of-python-2"), facts.error("build-failed")
    if error is None or failed is None or not failed.values.get("package"):
        return PASSED  # without a name: a row of the faults
    package = failed.values["package"]
    named = f"{package} {failed.values.get('version', '')}".strip()
    return [
        Finding(
            "package-of-python-2",
            "error",
            f"{named} is written for Python 2: its setup does not run on any Python 3",
            "pip takes an old release of the time before 2020 where no newer one fits, or where the package has "
            "another name today.",
            {**evidence(package=package, python=facts.python.version), **seen(error)},
            (
                f"https://pypi.org/project/{package}/ tells: is there a newer release, or a successor under "
                f"another name? "
                "That one for Python 3",
                f"or for Python 2: conda create -y -n py27 -c conda-forge python=2.7 pip && conda run -n py27 pip "
                f"install {named.replace(' ', '==')}",
            ),
            "https://docs.python.org/3/howto/pyporting.html",
            affects=("chat",),
            observed=True,
        )
    ]


RULES: tuple[Rule, ...] = (made_no_more, of_python_2)
