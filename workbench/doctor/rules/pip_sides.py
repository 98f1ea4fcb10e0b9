"""The two sides of a contradiction as pip lists them, and which of them gives way. Needs the tables."""

from __future__ import annotations

import re
from typing import NamedTuple, Optional

from workbench.doctor.facts import Facts
from workbench.doctor.versions import normalize, older, satisfies

_SIDE = re.compile(
    r"(?:The user requested (?:\(constraint\) )?"
    r"|(?P<asker>[A-Za-z][\w.-]{1,40}(?:\[[\w,-]{1,40}\])? \d[\w.+!]{0,20}) depends on )"
    r"(?P<name>[A-Za-z][\w.-]{0,40})(?:\[[\w,-]{1,40}\])?"
    r"(?P<spec>(?:[<>=!~]=?[\d.*\w+]{1,20}(?: and |, ?)?){0,4})(?=[\s*;]|$)"
)


class _Side(NamedTuple):
    asker: str
    name: str
    spec: str


def steps(facts: Facts) -> tuple[str, ...]:
    """What to change in the requirements, where pip's own list of who asks for what tells it."""
    error = facts.error("pip-sides")
    sides = _sides(error.values.get("sides", "")) if error else []
    if len(sides) > 1 and len({side.name for side in sides}) == 1 and not any(side.spec for side in sides):
        return (_of_none(sides[0].name),)
    pinned = next((side for side in sides if not side.asker and side.spec.startswith("==")), None)
    others = [side for side in sides if side.asker and side.spec and (pinned is None or side.name == pinned.name)]
    if pinned is None:
        clash = _clash(others)
        return (_of_two(*clash),) if clash else ()
    against = [side for side in others if satisfies(pinned.spec.lstrip("="), side.spec) is False]
    if not against:
        return ()
    clash = _clash([side for side in others if side.name == pinned.name])
    if clash:
        return (_of_two(*clash),)
    spec = ",".join(dict.fromkeys(part for side in against for part in side.spec.split(",")))
    return (
        f"In the requirements: {pinned.name}{spec} in place of {pinned.name}{pinned.spec}   # what {against[0].asker} "
        "asks for",
        f"or, to keep {pinned.name}{pinned.spec}: another release of {against[0].asker.split(' ')[0]}",
    )


def _of_none(name: str) -> str:
    return (
        f"uv venv --seed --python 3.11 .venv   # all of them ask for {name}, and no release of it fits this Python or "
        "system: "
        "most often the Python is too old or too new"
    )


def _sides(text: str) -> list[_Side]:
    found: list[_Side] = []
    for match in _SIDE.finditer(text):
        side = _Side(
            match["asker"] or "",
            normalize(match["name"]),
            match["spec"].replace(" and ", ",").replace(" ", "").strip(",").removesuffix("**"),
        )
        # From here on pip tells of the next release that it has tried.
        if not side.asker and side in found:
            break
        found.append(side)
    return found


def _clash(sides: list[_Side]) -> Optional[tuple[_Side, _Side]]:
    """Two packages that ask for what cannot be met together: one for more than the other allows."""
    for low in sides:
        for high in sides:
            floors = re.findall(r"(?:>=|==|~=)([\d.]*\d)", low.spec) if low.name == high.name else []
            ceilings = re.findall(r"(?<!>)(?:<|==)([\d.]*\d)", high.spec)
            strict = "<=" not in high.spec
            if strict and any(
                older(top, floor) or ("==" not in high.spec and top == floor) for floor in floors for top in ceilings
            ):
                return low, high
    return None


def _of_two(one: _Side, other: _Side) -> str:
    return (
        f"{one.asker} asks for {one.name}{one.spec}, {other.asker} for {other.name}{other.spec}: another release of "
        "one of them, or no version at it, so that pip may choose"
    )
