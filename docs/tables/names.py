"""Writes names.toml: what came with a minor release of a package or went with one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from docs.tables import layout
from docs.tables.compare import Event, at_shortest_path, events, without_families, without_members, worth_listing
from docs.tables.imports import asked_of
from docs.tables.reading import Reading, read_names
from docs.tables.releases import LINUX, Releases, by_version, from_wheel, minor_releases
from workbench import toml
from workbench.doctor.versions import at_least

PLAN = Path(__file__).with_name("names_plan.toml")
PURPOSE = """Names that came with a minor release ("added") or went with one ("removed"), found by reading the source of all minor
releases of a package one after another: paths below the package, "Class(argument)" and "Class.method" of what other
packages call. A name that stands in several modules is listed at its shortest path. What changes.toml says by hand counts
first."""


def make(releases: Releases) -> Path:
    """Write the table from what the releases have; its path."""
    plan = toml.load(PLAN)
    everywhere = plan.pop("everywhere")
    lines = [""]
    for package, rules in plan.items():
        lines += [layout.section(package), f'source = "{rules["source"]}"', ""]
        lines += _sections(package, changes(package, rules, everywhere, releases))
    return layout.write("names", PURPOSE, lines)


def changes(package: str, rules: dict[str, Any], everywhere: dict[str, Any], releases: Releases) -> set[Event]:
    """What is listed of a package, by its rules in the plan and those that hold for all."""
    reading = Reading(
        rules.get("module", package.replace("-", "_")),
        rules.get("lazy", True),
        (*everywhere["skipped"], *rules.get("skipped", ())),
        tuple(rules.get("outlined", ())),
        tuple(rules.get("calls", ())),
    )
    reader = partial(
        from_wheel, package, reader=partial(read_names, reading=reading), platforms=rules.get("platforms", LINUX)
    )
    names = releases.read("names", package, minor_releases(package, rules["oldest"]), reader)
    since = rules.get("listed", rules["oldest"])
    found = {event for event in events(names) if at_least(event.version, since)}
    left_out = [*everywhere["left_out"], *rules.get("left_out", ())]
    asked = asked_of(package, releases)
    shortest = at_shortest_path(worth_listing(set(without_members(found)), left_out, asked))
    return set(without_families(shortest, asked)) if rules.get("families") else shortest


def _sections(package: str, found: set[Event]) -> Iterator[str]:
    for word in ("added", "removed"):
        yield layout.section(package, word)
        for version in sorted({event.version for event in found if event.word == word}, key=by_version):
            words = sorted(event.name for event in found if (event.word, event.version) == (word, version))
            yield layout.row(version, words)
        yield ""
