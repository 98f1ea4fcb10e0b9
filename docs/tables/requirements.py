"""Writes requirements.toml: what releases ask of each other, by their own metadata."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from docs.tables import layout
from docs.tables.releases import Releases, requirement_lines
from workbench import toml
from workbench.doctor.versions import older, parse_requirement

PLAN = Path(__file__).with_name("requirements_plan.toml")
PURPOSE = """\
What releases ask of each other, from their own metadata. A row holds from its release on until the next one; every
release of a package that the plan names by its oldest was read, up to the one that `read_to` tells, of the others those
that the plan lists. Lower bounds that nobody runs into any more, exclusions of single releases and exact pins are left
out.
"""


def make(releases: Releases) -> Path:
    """Write the table from the releases' metadata; its path."""
    plan = toml.load(PLAN)
    lines: list[str] = []
    read_to = []
    for package, versions in plan["askers"].items():
        named = releases.every("metadata", package, versions) if isinstance(versions, str) else versions
        metadata = releases.read("metadata", package, named, partial(requirement_lines, package))
        rows = [layout.row(version, asked) for version, asked in _spans(package, metadata, plan)]
        lines += [layout.section(package), *rows, ""] if rows else []
        read_to += [f"{package}=={list(metadata)[-1]}"] if rows else []
    return layout.write(
        "requirements", PURPOSE, ['source = "https://pypi.org/"', layout.row("read_to", read_to), "", *lines]
    )


def _spans(package: str, metadata: dict[str, list[str]], plan: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Releases from which on a package asks for something else than before, with what it asks for then."""
    passed_over = {package, *plan["passed_over"].get(package, ())}
    before: list[str] = []
    for version, lines in metadata.items():
        found = (_asked(line, plan["asked"], plan["floors"]) for line in lines)
        wanted = sorted(f"{name}{bounds}" for name, bounds in found if bounds and name not in passed_over)
        if wanted != before:
            yield version, wanted
        before = wanted


def _asked(line: str, packages: list[str], floors: dict[str, str]) -> tuple[str, str]:
    """A package and the bounds that somebody may run into; "" for none, and for what holds only under a condition."""
    wanted = parse_requirement(line)
    if wanted is None or wanted.marker or wanted.name not in packages:
        return "", ""
    clauses = [clause.replace(" ", "") for clause in wanted.specifier.split(",")]
    ceilings = [clause for clause in clauses if clause.startswith("<")]
    lowest = floors.get(wanted.name, floors["any"])
    known = [clause for clause in clauses if clause.startswith(">") and not older(clause.lstrip(">="), lowest)]
    return wanted.name, ",".join([*sorted(known), *sorted(ceilings)])
