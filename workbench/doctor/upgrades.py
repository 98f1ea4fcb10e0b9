"""What an upgrade must leave alone, and what it must take along, so that no package left behind stops working.

pip heeds the metadata of what it installs, not that of what is there already, and libraries import names of each other
that their metadata do not ask for. Needs the tables.
"""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor.changes import declared_here, installed_version
from workbench.doctor.facts import Facts
from workbench.doctor.tables import table
from workbench.doctor.versions import (
    Requirement,
    at_least,
    minor_name,
    older,
    parse_requirement,
    satisfies,
)


def fitted(facts: Facts, packages: tuple[str, ...]) -> tuple[str, ...]:
    """`packages` of an upgrade, each below the release that would break what stays, with those that must come along.

    What is not known to be installed restricts nothing, and a requirement that names an upper bound keeps it.
    """
    wanted = {item.name: item for item in map(parse_requirement, packages) if item is not None}
    bounded = tuple(_bounded(facts, package, wanted) for package in packages)
    ends = {item.name: _end(item) for item in map(parse_requirement, bounded) if item is not None}
    return (*bounded, *_companions(facts, ends))


def transformers_beyond(torch: Optional[str]) -> Optional[str]:
    """The first transformers release that no longer takes this torch.

    transformers names torch as an extra only, so that pip lets the two part; it then says that there is no torch.
    """
    return next((row["from"] for row in table("transformers")["release"] if older(torch, row["torch"])), None)


def _bounded(facts: Facts, package: str, wanted: dict[str, Requirement]) -> str:
    requirement = parse_requirement(package)
    if requirement is None or re.search("<|==|~=|@|/", package):
        return package
    torch = None if "torch" in wanted else installed_version(facts, "torch")
    bounds = [_first_beyond(requirement.name, torch), *_caps(facts, requirement.name, wanted)]
    floor = requirement.specifier.removeprefix(">=")
    fitting = [bound for bound in bounds if bound and not (floor and at_least(floor, bound))]
    if not fitting:
        return package
    lowest = min(fitting, key=lambda bound: [int(part) for part in re.findall(r"\d+", bound)])
    return f"{package}{',' if requirement.specifier else ''}<{lowest}"


def _first_beyond(name: str, torch: Optional[str]) -> Optional[str]:
    """The first release of a package that does not run beside this torch, or asks for a transformers that does not."""
    if torch is None:
        return None
    last = transformers_beyond(torch)
    if name == "transformers":
        return minor_name(last)
    told = table("requirements").get(name)
    rows: dict[str, str] = told if isinstance(told, dict) else {}
    for release, line in rows.items():
        for asked in map(parse_requirement, line.split()):
            floor = re.match(r">=([\d.]+)", asked.specifier) if asked else None
            if asked is None or floor is None:
                continue
            if asked.name == "torch" and older(torch, floor[1]):
                return release
            if asked.name == "transformers" and last is not None and at_least(floor[1], last):
                return release
    return None


def _caps(facts: Facts, name: str, wanted: dict[str, Requirement]) -> list[str]:
    """The upper bounds that installed packages which are not upgraded set to one that is."""
    found = []
    for package, _, text in declared_here(facts):
        asked = parse_requirement(text)
        if package in wanted or asked is None or asked.name != name:
            continue
        end = _end(asked)
        if end and satisfies(installed_version(facts, name), asked.specifier) is not False:
            found.append(end)
    return found


def _companions(facts: Facts, ends: dict[str, Optional[str]]) -> list[str]:
    """What has to go up with these packages, of the pairs that are known to part.

    Args:
        facts: where the installed releases are looked up.
        ends: the packages of the upgrade, each with the release that it stays below, or None.
    """
    found = {}
    for row in table("pairs")["pair"]:
        package, needs = row["package"], row["needs"]
        version = installed_version(facts, package)
        lower = row["spec"].startswith(">")
        if lower and package in ends and needs not in ends:
            end = ends[package]
            old = satisfies(installed_version(facts, needs), row["spec"]) is False
            if old and not (end and at_least(row.get("from", "0"), end)):
                found[needs] = _bounded(facts, f"{needs}{row['spec']}", {})
        if not lower and needs in ends and package not in ends and "before" in row:
            inside = older(version, row["before"]) and not older(version, row.get("from", "0"))
            end = ends[needs]
            if inside and not (end and satisfies(end, row["spec"].replace("<", "<="))):
                found[package] = _bounded(facts, f"{package}>={row['before']}", {})
    return list(found.values())


def _end(requirement: Requirement) -> Optional[str]:
    end = re.search(r"<([\d.]+)", requirement.specifier)
    return end[1] if end else None
