"""Writes names/PACKAGE.toml: what came with a release of a package or went with one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from docs.tables import layout
from docs.tables.compare import (
    Event,
    at_shortest_path,
    events,
    without_contents,
    without_families,
    without_members,
    worth_listing,
)
from docs.tables.imports import asked_of
from docs.tables.reading import Reading, fits, read_names
from docs.tables.releases import LINUX, Releases, by_version, from_sdist, from_wheel, minor_releases
from workbench import toml
from workbench.doctor.versions import at_least

PLAN = Path(__file__).with_name("names_plan.toml")
EVERYWHERE, SHALLOW = "everywhere", "shallow"
"""Sections of the plan whose rules hold for all packages, and for those that have ``shallow``."""
PURPOSE = """\
Names of {package} that came with a release ("added") or went with one ("removed"), found by reading the source of
its releases one after another: paths below the package, "Class(argument)" and "Class.method" of what others call.
A name that stands in several modules is listed at its shortest path. What changes.toml says by hand counts first.
"always": what the package itself has had in all of them, from the "oldest" to the "newest".
"""


def make(releases: Releases) -> Path:
    """Write the table's files from what the releases have; their folder."""
    plan = toml.load(PLAN)
    written = [write(package, plan, releases) for package in plan if package not in (EVERYWHERE, SHALLOW)]
    return written[0].parent


def write(package: str, plan: dict[str, Any], releases: Releases) -> Path:
    """Write the file of one package; its path."""
    lines = [f'source = "{plan[package]["source"]}"']
    if plan[package].get("shallow"):
        names = names_of(package, plan, releases)
        steady = set.intersection(*map(set, names.values()))
        always = sorted(name for name in steady if re.fullmatch(r"[a-zA-Z]\w+", name))
        lines += [f'oldest = "{next(iter(names))}"', f'newest = "{list(names)[-1]}"', layout.row("always", always)]
    lines += ["", *_sections(changes(package, plan, releases))]
    return layout.write("names", PURPOSE.format(package=package), lines, package)


def changes(package: str, plan: dict[str, Any], releases: Releases) -> set[Event]:
    """What is listed of a package, by its rules in the plan and those that hold for all."""
    rules = plan[package]
    names = names_of(package, plan, releases)
    there = rules.get("still_there", ())
    found = {event for event in events(names) if at_least(event.version, rules.get("listed", next(iter(names))))}
    found = {event for event in found if event.word == "added" or not fits(event.name, there)}
    steady = set.intersection(*map(set, names.values()))
    left_out = _rules("left_out", package, plan)
    asked = asked_of(package, releases)
    if rules.get("shallow"):
        found = set(without_contents(found))
    shortest = at_shortest_path(worth_listing(set(without_members(found)), left_out, asked, steady))
    return set(without_families(shortest, asked)) if rules.get("families") else shortest


def names_of(package: str, plan: dict[str, Any], releases: Releases) -> dict[str, list[str]]:
    """The names that each minor release of a package has, oldest first."""
    rules = plan[package]
    reading = Reading(
        rules.get("module", package.replace("-", "_")),
        rules.get("lazy", True),
        tuple(_rules("skipped", package, plan)),
        tuple(rules.get("outlined", ())),
        tuple(rules.get("calls", ())),
        tuple(rules.get("parts", ())),
        marked=rules.get("shallow", False),
    )
    read = partial(read_names, reading=reading)
    reader = (
        partial(from_sdist, package, reader=read)
        if rules.get("sdist")
        else partial(from_wheel, package, reader=read, platforms=rules.get("platforms", LINUX))
    )
    named = rules.get("releases", "").split() or minor_releases(package, rules["oldest"])
    return releases.read("names", package, named, reader)


def _rules(kind: str, package: str, plan: dict[str, Any]) -> list[Any]:
    """The rules of a kind that hold for a package, those that hold for others too before its own."""
    shared = plan[SHALLOW] if plan[package].get("shallow") else {}
    return [rule for rules in (plan[EVERYWHERE], shared, plan[package]) for rule in rules.get(kind, ())]


def _sections(found: set[Event]) -> Iterator[str]:
    for word in ("added", "removed"):
        yield layout.section(word)
        for version in sorted({event.version for event in found if event.word == word}, key=by_version):
            words = sorted(event.name for event in found if (event.word, event.version) == (word, version))
            yield layout.row(version, words)
        yield ""
