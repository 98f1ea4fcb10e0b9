"""The two sides of a contradiction as pip lists them, and which of them gives way. Needs the tables."""

from __future__ import annotations

import re
from typing import NamedTuple, Optional

from workbench.doctor import fixes
from workbench.doctor.facts import Facts
from workbench.doctor.versions import normalize, older, satisfies

_SIDE = re.compile(
    r"(?:The user requested (?P<constraint>\(constraint\) )?"
    r"|(?P<asker>[A-Za-z][\w.-]{1,40}(?:\[[\w,-]{1,40}\])? \d[\w.+!]{0,20}) depends on )"
    r"(?P<name>[A-Za-z][\w.-]{0,40})(?:\[[\w,-]{1,40}\])?"
    r"(?P<spec>(?:[<>=!~]=?[\d.*\w+]{1,20}(?: and |, ?)?){0,4})(?=[\s*;`]|$)"
)


class Side(NamedTuple):
    asker: str
    """A package with its release; ``""`` where a file of one's own asks."""
    name: str
    spec: str
    file: str = "requirements"


def title(facts: Facts) -> str:
    """Which demand the others do not meet; ``""`` where pip's list does not tell."""
    sides = _listed(facts)
    if _all_ask_alike(sides):
        asked = f"{sides[0].name}{sides[0].spec}"
        return f"No release of {asked} fits this Python or system, and all that is asked for wants it"
    pinned = _pinned(sides)
    against = _against(sides, pinned) if pinned else []
    same = pinned.name if pinned and against else None
    clashing = clash([side for side in sides if side.asker and side.spec and same in (None, side.name)])
    if clashing:
        one, other = clashing
        return f"{one.asker} wants {one.name}{one.spec}, and {other.asker} {other.name}{other.spec}: no release is both"
    if pinned and against:
        who = against[0].asker or "another line"
        return f"The pin {pinned.name}{pinned.spec} is not what {who} takes: {pinned.name}{against[0].spec}"
    return ""


def _all_ask_alike(sides: list[Side]) -> bool:
    """Whether all that pip lists ask for the same, which is then what it does not find."""
    return len(sides) > 1 and len({(side.name, side.spec) for side in sides}) == 1


def _listed(facts: Facts) -> list[Side]:
    error = facts.error("pip-sides")
    return _sides(error.values.get("sides", "")) if error else []


def _pinned(sides: list[Side]) -> Optional[Side]:
    return next((side for side in sides if not side.asker and side.spec.startswith("==")), None)


def _against(sides: list[Side], pinned: Side) -> list[Side]:
    """Who asks for something else than the pin; other lines of the same requirements count too."""
    same = (side for side in sides if side.name == pinned.name and side.spec and side != pinned)
    return [side for side in same if satisfies(pinned.spec.lstrip("="), side.spec) is False]


def steps(facts: Facts) -> tuple[str, ...]:
    """What to change in the requirements, where pip's own list of who asks for what tells it."""
    sides = _listed(facts)
    if _all_ask_alike(sides):
        return (_of_none(sides[0].name + sides[0].spec),)
    pinned = _pinned(sides)
    others = [side for side in sides if side.asker and side.spec and (pinned is None or side.name == pinned.name)]
    if pinned is None:
        clashing = clash(others)
        return apart(*clashing) if clashing else ()
    against = _against(sides, pinned)
    if not against:
        return ()
    clashing = clash([side for side in others if side.name == pinned.name])
    if clashing:
        return apart(*clashing)
    spec = ",".join(dict.fromkeys(part for side in against for part in side.spec.split(",")))
    return (
        f"In the {pinned.file}: {pinned.name}{spec} in place of {pinned.name}{pinned.spec}   # what "
        f"{against[0].asker or 'another line of them'} asks for",
        f"or, to keep {pinned.name}{pinned.spec}: "
        + (f"another release of {against[0].asker.split(' ')[0]}" if against[0].asker else "take that other line out"),
    )


def _of_none(name: str) -> str:
    return (
        f"{fixes.new_environment('3.11')}   # all of them ask for {name}, and no release of it fits this Python or "
        "system: most often the Python is too old or too new"
    )


def _sides(text: str) -> list[Side]:
    found: list[Side] = []
    for match in _SIDE.finditer(text):
        side = Side(
            match["asker"] or "",
            normalize(match["name"]),
            match["spec"].replace(" and ", ",").replace(" ", "").strip(",").removesuffix("**"),
            "constraints" if match["constraint"] else "requirements",
        )
        # From here on pip tells of the next release that it has tried.
        if not side.asker and side in found and any(other.asker for other in found):
            break
        found.append(side)
    return found


def clash(sides: list[Side]) -> Optional[tuple[Side, Side]]:
    """Two packages that ask for what cannot be met together: one for more than the other allows."""
    for low in sides:
        for high in sides:
            floors = re.findall(r"(?:>=|==|~=)([\d.]*\d)", low.spec) if low.name == high.name else []
            ceilings = re.findall(r"(?<!>)(?:<|==)([\d.]*\d)", high.spec)
            strict = "<=" not in high.spec
            if strict and any(
                older(top, floor) or ("==" not in high.spec and not older(floor, top))
                for floor in floors
                for top in ceilings
            ):
                return low, high
    return None


def apart(low: Side, high: Side) -> tuple[str, ...]:
    """The requirement of one's own gives way; of two packages the one that holds the old version back."""
    if not low.asker and not high.asker:
        return (
            f"In the requirements: take {high.name}{high.spec} out   # {low.name}{low.spec}, the other line, is newer",
            f"or, where the program needs the old one: take {low.name}{low.spec} out",
        )
    own, other = (low, high) if not low.asker else (high, low)
    if not own.asker:
        return (
            f"In the {own.file}: {own.name}{other.spec} in place of {own.name}{own.spec}   # what "
            f"{other.asker or 'the other line'} takes",
            f"or, to keep it, another release of {other.asker.partition(' ')[0]}",
        )
    old, new = (side.asker.partition(" ")[0].partition("[")[0] for side in (high, low))
    return (
        f"In the requirements: {old} without a version, so that a newer one may come, or not at all, where the "
        f"program "
        f"does without   # {high.asker} is what holds {high.name} back",
        f"or an older {new}, from before it asked for {low.name}{low.spec}",
    )
