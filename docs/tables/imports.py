"""What releases of packages import of one another at their modules' top level."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from docs.tables.releases import Releases, from_wheel, minor_releases
from docs.tables.source import modules
from workbench import toml
from workbench.doctor.versions import normalize

PLAN = Path(__file__).with_name("askers_plan.toml")
_RUN_BY_HAND = re.compile(r"(^|/)(tests?|examples|scripts|cli|commands)/")


def plan() -> dict[str, Any]:
    """Whose imports are read, and of which packages."""
    return toml.load(PLAN)


def imports_of(package: str, releases: Releases) -> dict[str, list[str]]:
    """Dotted paths that each release of a package imports, oldest first."""
    rules = plan()
    asked = frozenset(name.replace("-", "_") for name in rules["asked"] if name != package)
    versions = rules["askers"][package]
    named = minor_releases(package, versions) if isinstance(versions, str) else versions
    return releases.read("imports", package, named, partial(from_wheel, package, reader=partial(imported, asked=asked)))


def asked_of(package: str, releases: Releases) -> set[str]:
    """Paths below a package that any release of another one imports."""
    start = f"{package.replace('-', '_')}."
    askers = (imports_of(asker, releases) for asker in plan()["askers"] if normalize(asker) != package)
    return {
        path[len(start) :]
        for by_version in askers
        for paths in by_version.values()
        for path in paths
        if path.startswith(start)
    }


def imported(wheel: Path, asked: frozenset[str]) -> list[str]:
    """Dotted paths in the packages `asked` that the modules of a wheel import, but for tests and programs."""
    found: set[str] = set()
    for module in modules(wheel):
        if not _RUN_BY_HAND.search(module.file):
            found.update(path for path in _imports(module.tree.body) if path.split(".")[0] in asked)
    return sorted(found)


def _imports(body: list[ast.stmt]) -> Iterator[str]:
    """What is imported for sure or under a condition; what is tried may fail, and does not count."""
    for node in body:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names if alias.name != "*")
        elif isinstance(node, ast.If):
            yield from _imports([*node.body, *node.orelse])
        elif isinstance(node, ast.With):
            yield from _imports(node.body)
