"""Writes askers.toml: which packages import a name that names/*.toml list, and which of their versions do."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from docs.tables import layout
from docs.tables.imports import imports_of, plan
from docs.tables.releases import Releases
from workbench import toml
from workbench.doctor.tables import TABLES
from workbench.doctor.versions import normalize

PURPOSE = """\
Which packages import a name that came with a release of another one ("added") or went with one ("removed"), and
which of their versions do: from the imports at the top of their own source, read release by release.
"""
SHORTEST_ALONE = 6
"""A name of so many letters is taken to be the same one in another module."""
_NOBODY_MISSES = re.compile("logging|testing_utils")

Row = tuple[str, str, str]
"""Package that is asked, "added" or "removed", and the path below it."""


def make(releases: Releases) -> Path:
    """Write the table from what the releases import and from names/*.toml as they are now; its path."""
    rows = asking(releases)
    lines = ['source = "https://pypi.org/"', ""]
    for section, group in groupby(sorted(rows), key=lambda row: row[:2]):
        lines.append(layout.section(*section))
        lines += [layout.row(row[2], sorted(rows[row])) for row in group]
        lines.append("")
    return layout.write("askers", PURPOSE, lines)


def asking(releases: Releases) -> dict[Row, set[str]]:
    """For each name that is listed, who asks for it, such as "peft<0.15"."""
    listed = _listed()
    rows: dict[Row, set[str]] = defaultdict(set)
    for asker in plan()["askers"]:
        name = normalize(asker)
        final = asker in plan()["final"]
        for path, word, versions in _changes(imports_of(asker, releases), final):
            package, _, below = path.partition(".")
            package = package.replace("_", "-")
            last = below.rpartition(".")[2]
            known = listed[package, word]
            alike = below in known or (len(last) >= SHORTEST_ALONE and f".{last}" in known)
            if package != name and alike and not _NOBODY_MISSES.search(below):
                rows[package, word, below].add(f"{name}{versions}")
    for package, words in plan()["by_hand"].items():
        for word, names in words.items():
            for below, line in names.items():
                rows[package, word, below].update(line.split())
    return rows


def _listed() -> dict[tuple[str, str], set[str]]:
    """Paths in names/*.toml, by package and word, and their last parts with a dot in front."""
    listed: dict[tuple[str, str], set[str]] = defaultdict(set)
    for path in (TABLES / "names").glob("*.toml"):
        package, table = path.stem, toml.load(path)
        for word in ("added", "removed"):
            for line in table[word].values():
                names = [name for name in line.split() if "(" not in name]
                listed[package, word].update(names, (f".{name.rpartition('.')[2]}" for name in names))
    return listed


def _changes(imports: dict[str, list[str]], final: bool) -> Iterator[tuple[str, str, str]]:
    """Paths with what a release of them matters to: ("removed", "<1.2") was imported before, ("added", ">=1.2") since.

    Of a package whose last release is read all that this one imports is imported for good.
    """
    versions = list(imports)
    for path in {path for paths in imports.values() for path in paths}:
        having = [number for number, version in enumerate(versions) if path in imports[version]]
        if having[-1] < len(versions) - 1:
            yield path, "removed", f"<{versions[having[-1] + 1]}"
        elif final:
            yield path, "removed", ""
        if having[0] > 0:
            yield path, "added", f">={versions[having[0]]}"
