"""What an upgrade must leave alone, and what it must take along, so that no package left behind stops working.

pip heeds the metadata of what it installs, not that of what is there already, and libraries import names of each other
that their metadata do not ask for. Needs the tables.
"""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor.changes import declared_here, installed_version
from workbench.doctor.facts import Facts
from workbench.doctor.tables import companion_of, table
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
    bounded = tuple(_of_the_torch_here(facts, _bounded(facts, package, wanted), wanted) for package in packages)
    ends = {item.name: _end(item) for item in map(parse_requirement, bounded) if item is not None}
    beside = (*bounded, *_companions(facts, ends))
    return (*beside, *_of_this_torch(facts, beside))


def _of_the_torch_here(facts: Facts, package: str, wanted: dict[str, Requirement]) -> str:
    """xformers pins its torch: a newer one would bring another torch, and leave torchvision and the rest behind."""
    if package != "xformers" or "torch" in wanted:
        return package
    own = companion_of("xformers", facts.torch.version)
    return f"xformers=={own}" if own else package


# What asks for a huggingface-hub of its own time, and not for transformers, which bears none of another major.
_BRING_A_HUB = frozenset(
    ("accelerate", "datasets", "diffusers", "evaluate", "gradio", "huggingface-hub", "peft", "tokenizers")
)


def with_who_stays(facts: Facts, packages: tuple[str, ...]) -> tuple[str, ...]:
    """`packages` of an install, and transformers, where one of them would take huggingface-hub beyond what it bears.

    pip meets what the packages of its command ask for, and not what those ask for that are there already. One that is
    named without a version stays where that can be, and moves with the others where it cannot. It stands first: uv
    decides in the order of the command, and would move it for the sake of a newer hub.
    """
    asked = [item for item in map(parse_requirement, packages) if item is not None]
    free = any(item.name in _BRING_A_HUB and not re.match("<|==|~=", item.specifier) for item in asked)
    if not free or facts.lacks("transformers") or any(item.name == "transformers" for item in asked):
        return packages
    return ("transformers", *packages)


def hub_by_its_floor(facts: Facts, packages: tuple[str, ...]) -> bool:
    """Whether these are huggingface-hub from a floor on, beside a transformers that is not known.

    The floor alone brings a newer one; with ``-U`` it would be the newest, which no transformers but today's bears.
    """
    asked = [item for item in map(parse_requirement, packages) if item is not None]
    alone = len(asked) == 1 and asked[0].name == "huggingface-hub" and re.fullmatch(r">=[\d.]+", asked[0].specifier)
    return bool(alone) and facts.package("transformers") is None and not facts.lacks("transformers")


def transformers_beyond(torch: Optional[str]) -> Optional[str]:
    """The first transformers release that no longer takes this torch.

    transformers names torch as an extra only, so that pip lets the two part; it then says that there is no torch.
    """
    return next((row["from"] for row in table("transformers")["release"] if older(torch, row["torch"])), None)


# What is asked of a release before this one does not ask for what the new major took away from everybody else.
_NEW_MAJOR = {"transformers": "5", "accelerate": "1", "huggingface-hub": "1"}


def _bounded(facts: Facts, package: str, wanted: dict[str, Requirement]) -> str:
    requirement = parse_requirement(package)
    if requirement is None or re.search("<|==|~=|@|/", package):
        return package
    bounds = [_first_beyond(facts, requirement.name, wanted), *_caps(facts, requirement.name, wanted)]
    if installed_version(facts, requirement.name) is None:
        bounds += _what_stays_bears(facts, requirement.name)
    floor = requirement.specifier.removeprefix(">=")
    major = _NEW_MAJOR.get(requirement.name)
    if major and floor and requirement.specifier.startswith(">=") and not _is_asked_for(facts, requirement.name, major):
        bounds.append(major)
    fitting = [bound for bound in bounds if bound and not (floor and at_least(floor, bound))]
    if not fitting:
        return package
    lowest = min(fitting, key=lambda bound: [int(part) for part in re.findall(r"\d+", bound)])
    return f"{package}{',' if requirement.specifier else ''}<{lowest}"


def _is_asked_for(facts: Facts, name: str, release: str) -> bool:
    """Whether a package that is here asks for this release of another one, or for a newer one."""
    asked = (item for _, _, text in declared_here(facts) if (item := parse_requirement(text)) and item.name == name)
    return any((floor := _floor(item)) and at_least(floor, release) for item in asked)


_BRING_TORCH = frozenset(("torch", "vllm", "sglang"))
"""What puts a torch of its own in the place of the one that is here."""


def _of_this_torch(facts: Facts, packages: tuple[str, ...]) -> list[str]:
    """What keeps transformers and torch together, where an upgrade names only one of them, or brings the other.

    A transformers that is newer than this torch takes torch along; one that comes as a requirement stays below.
    """
    wanted = {item.name: item for item in map(parse_requirement, packages) if item is not None}
    last = None if _BRING_TORCH & set(wanted) else transformers_beyond(installed_version(facts, "torch"))
    if last is None:
        return []
    if "transformers" in wanted:
        floor = _floor(wanted["transformers"])
        return ["torch"] if floor and at_least(floor, last) else []
    here = installed_version(facts, "transformers")
    asked = (item for name, line in wanted.items() for item in _requirements(name, _end(line)))
    floors = [floor for item in asked if item.name == "transformers" and (floor := _floor(item))]
    if not any(not here or older(here, floor) for floor in floors):
        return []
    return ["torch"] if any(at_least(floor, last) for floor in floors) else [f"transformers<{minor_name(last)}"]


def _requirements(name: str, end: Optional[str]) -> list[Requirement]:
    """What the newest release of a package below `end` asks of others."""
    rows = _rows(name)
    fitting = [line for release, line in rows.items() if not (end and at_least(release, end))]
    return [item for item in map(parse_requirement, fitting[-1].split()) if item is not None] if fitting else []


def _rows(name: str) -> dict[str, str]:
    told = table("requirements").get(name)
    return told if isinstance(told, dict) else {}


def _floor(requirement: Requirement) -> Optional[str]:
    floor = re.match(r">=([\d.]+)", requirement.specifier)
    return floor[1] if floor else None


def _first_beyond(facts: Facts, name: str, wanted: dict[str, Requirement]) -> Optional[str]:
    """The first release of a package that asks for what does not run beside this torch, or what another one forbids."""
    torch = None if "torch" in wanted else installed_version(facts, "torch")
    last = transformers_beyond(torch)
    if name == "transformers":
        return minor_name(last)
    for release, line in _rows(name).items():
        for asked in map(parse_requirement, line.split()):
            floor = _floor(asked) if asked else None
            if asked is None or floor is None:
                continue
            if asked.name == "torch" and older(torch, floor):
                return release
            if asked.name == "transformers" and last is not None and at_least(floor, last):
                return release
            gone = {**wanted, **_replaced(facts, line), name: asked}
            if asked.name not in wanted and any(at_least(floor, cap) for cap in _caps(facts, asked.name, gone)):
                return release
    return None


def _replaced(facts: Facts, line: str) -> dict[str, Requirement]:
    """The packages that pip replaces for these requirements, whose own bounds go with them."""
    found = {}
    for asked in map(parse_requirement, line.split()):
        floor = _floor(asked) if asked else None
        if asked is not None and floor and older(installed_version(facts, asked.name), floor):
            found[asked.name] = asked
    if "transformers" in found:
        found.setdefault("tokenizers", found["transformers"])  # each transformers has tokenizers of its own time
    return found


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


def _what_stays_bears(facts: Facts, name: str) -> list[str]:
    """The bounds of the pairs that are known to part, for one that is not there yet: what is there need not move."""
    rows = table("pairs")["pair"]
    needed = (row for row in rows if row["needs"] == name and row["spec"].startswith("<"))
    asking = (row for row in rows if row["package"] == name and "from" in row and row["spec"].startswith(">"))
    return [
        *(row["spec"][1:] for row in needed if _has_end_and_holds(facts, row)),
        # What was compiled for one major of NumPy does not run on the next: there it is the newcomer that gives way.
        *(row["from"] for row in asking if older(installed_version(facts, row["needs"]), _major(row["spec"]))),
        *(_beyond_accelerate(facts) if name == "transformers" else ()),
    ]


def _major(floor: str) -> str:
    """The major release of a lower bound, such as ``2`` for ``>=2.1``."""
    return floor.removeprefix(">=").partition(".")[0]


def _beyond_accelerate(facts: Facts) -> list[str]:
    """The first transformers release that no longer takes the accelerate that is here, which it names as an extra."""
    here = installed_version(facts, "accelerate")
    rows = table("transformers")["release"]
    return [minor_name(row["from"]) or "" for row in rows if older(here, row["accelerate"])][:1]


def _has_end_and_holds(facts: Facts, row: dict[str, str]) -> bool:
    """Whether a pair ends with some release of its package, and the one that is here comes before that."""
    version = installed_version(facts, row["package"])
    return bool("before" in row and older(version, row["before"]) and not older(version, row.get("from", "0")))


def _companions(facts: Facts, ends: dict[str, Optional[str]]) -> list[str]:
    """What has to go up with these packages, of the pairs that are known to part.

    Args:
        facts: where the installed releases are looked up.
        ends: the packages of the upgrade, each with the release that it stays below, or None.
    """
    found = {}
    for row in table("pairs")["pair"]:
        package, needs = row["package"], row["needs"]
        lower = row["spec"].startswith(">")
        if lower and package in ends and needs not in ends:
            end = ends[package]
            old = satisfies(installed_version(facts, needs), row["spec"]) is False
            if old and not (end and at_least(row.get("from", "0"), end)):
                found[needs] = _bounded(facts, f"{needs}{row['spec']}", {})
        if not lower and needs in ends and package not in ends and _has_end_and_holds(facts, row):
            end = ends[needs]
            if not (end and satisfies(end, row["spec"].replace("<", "<="))):
                found[package] = _bounded(facts, f"{package}>={row['before']}", {})
    return list(found.values())


def _end(requirement: Requirement) -> Optional[str]:
    end = re.search(r"<([\d.]+)", requirement.specifier)
    return end[1] if end else None
