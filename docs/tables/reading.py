"""The names that a release of a package has, read from its wheel."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from docs.tables.source import (
    Definition,
    Module,
    arguments,
    definitions,
    exported,
    handed_out,
    modules,
    origin,
    strings,
)


@dataclass(frozen=True)
class Reading:
    """How the names of a package are read; for patterns over dotted paths below the package see `fits`."""

    module: str
    """Its import name."""
    lazy: bool = False
    """Whether it exports what lists of strings name, and what its modules import of one another."""
    skipped: tuple[str, ...] = ()
    """Modules that are not read; the path of a module ends with a dot."""
    outlined: tuple[str, ...] = ()
    """Modules of which is only read that they are there."""
    calls: tuple[str, ...] = ()
    """Classes and functions whose arguments are read, and of classes the methods; "Class.method" for its arguments."""
    parts: tuple[str, ...] = ()
    """Classes that inherit nothing from the package: read is all that they have, and marked with OWN."""
    marked: bool = False
    """Whether what a module only takes from another one is marked with TAKEN, and all methods are read."""


TAKEN = "~"
"""In front of a name that its module does not define, and does not export; and of "*.method" for that of any class."""

OWN = "@"
"""In front of what a class of ``parts`` has: that another class has such a name too says nothing of it."""


def fits(name: str, patterns: Iterable[str], verdict: bool = False) -> bool:
    """Whether patterns stand for a name: ``*`` for any part between dots, ``**`` for any parts, ``[A-Z]`` for a letter.

    The last pattern that matches decides; one with ``!`` in front says that it is not. Where none matches it is the
    `verdict` given.
    """
    for pattern in patterns:
        if verdict == pattern.startswith("!") and _expression(pattern.lstrip("!")).fullmatch(name):
            verdict = not verdict
    return verdict


_WILDCARDS = {"**": ".*", "*": r"[^.]*"}


@functools.cache
def _expression(pattern: str) -> re.Pattern[str]:
    pieces = re.split(r"(\*\*?|\[[^]]+\])", pattern)
    return re.compile(
        "".join(_WILDCARDS.get(piece) or (piece if piece[:1] == "[" else re.escape(piece)) for piece in pieces)
    )


def read_names(wheel: Path, reading: Reading) -> list[str]:
    """Paths below the package, that of a module with a dot at its end; "Class(argument)" and "Class.method"."""
    names: set[str] = set()
    stars: list[tuple[str, str]] = []
    loads_models = False
    for module in modules(wheel):
        path = module.path
        inside = module.file.split("/")[0] == reading.module
        if not inside or fits(f"{path}.", reading.skipped):
            continue
        if path:
            names.add(f"{path}.")
        loads_models = loads_models or (not path and b"define_import_structure" in module.code)
        if loads_models and path.startswith("models."):
            names.update(exported(module.tree))
        if fits(f"{path}.", reading.outlined):
            continue
        names.update(_names_of(module, reading))
        if reading.lazy:
            stars.extend((path, source) for source in _stars(module, reading.module))
    for path, source in (*stars, *stars):  # twice: what a module takes over may be taken over from it
        below = (name.lstrip(TAKEN) for name in names if "(" not in name)
        found = [name.rpartition(".")[2] for name in below if name.rpartition(".")[0] == source]
        names.update(_below(path, name) for name in found if name)
    return sorted(names)


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _names_of(module: Module, reading: Reading) -> Iterator[str]:
    for name, node in definitions(module.tree.body):
        if len(name) < 3 or name.startswith("__") or name == "logger":
            continue
        if isinstance(node, ast.ImportFrom) and not _is_export(module, node, reading):
            if reading.marked:
                yield f"{TAKEN}{_below(module.path, name)}"
            continue
        taken = reading.marked and isinstance(node, ast.ImportFrom) and not module.is_package
        yield f"{TAKEN if taken else ''}{_below(module.path, name)}"
        if reading.marked and isinstance(node, ast.ClassDef):
            yield from (f"{TAKEN}*.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef))
        if fits(name, reading.parts) and isinstance(node, ast.ClassDef):
            yield from (f"{OWN}{name}{member}" for member in _members(node))
        if fits(name, reading.calls):
            yield from _details(name, node, reading)
    if not reading.lazy:
        return
    yield from (_below(module.path, name) for name in handed_out(module.tree))
    if module.is_package:
        yield from (
            _below(module.path, name) for name in strings(module.tree) if re.fullmatch(r"[A-Za-z_]\w{2,80}", name)
        )


def _is_export(module: Module, node: ast.ImportFrom, reading: Reading) -> bool:
    """Whether an import hands on names of the package itself."""
    return origin(module, node, reading.module) is not None and (reading.lazy or module.is_package)


def _details(name: str, node: Definition, reading: Reading) -> Iterator[str]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        yield from (f"{name}({argument})" for argument in arguments(node))
    if not isinstance(node, ast.ClassDef):
        return
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            yield f"{name}({item.target.id})"
        elif isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if item.name == "__init__":
                yield from (f"{name}({argument})" for argument in arguments(item))
            elif not item.name.startswith("__"):
                yield f"{name}.{item.name}"
                if fits(f"{name}.{item.name}", reading.calls):
                    yield from (f"{name}.{item.name}({argument})" for argument in arguments(item))


def _members(node: ast.ClassDef) -> Iterator[str]:
    """Methods of a class, what they set on ``self``, and the arguments that it is made and called with."""
    for item in node.body:
        if not isinstance(item, ast.FunctionDef):
            continue
        if item.name in ("__init__", "forward"):
            method = "" if item.name == "__init__" else f".{item.name}"
            yield from (f"{method}({argument})" for argument in arguments(item))
        if not item.name.startswith("__"):
            yield f".{item.name}"
        for inner in ast.walk(item):
            targets = inner.targets if isinstance(inner, ast.Assign) else [getattr(inner, "target", None)]
            yield from (f".{target.attr}" for target in targets if _is_own(target))


def _is_own(target: object) -> TypeGuard[ast.Attribute]:
    """Whether what is assigned to is an attribute of ``self``."""
    return isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self"


def _stars(module: Module, package: str) -> Iterator[str]:
    """Modules of the package of which a module imports all names."""
    for name, node in definitions(module.tree.body):
        source = origin(module, node, package) if name == "*" and isinstance(node, ast.ImportFrom) else None
        if source is not None:
            yield source
