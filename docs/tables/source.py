"""Python files inside a wheel, and what their top levels define and import; nothing is run."""

from __future__ import annotations

import ast
import re
import warnings
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Optional, Union

Definition = Union[ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.Assign, ast.AnnAssign, ast.ImportFrom]


@dataclass
class Module:
    """A Python file of a wheel."""

    file: str
    """Its path in the wheel."""
    code: bytes

    @property
    def is_package(self) -> bool:
        """Whether it is the ``__init__`` of a folder."""
        return self.file.rpartition("/")[2] == "__init__.py"

    @property
    def path(self) -> str:
        """Its dotted path below the package it belongs to; "" for that package itself."""
        parts = self.file[: -len(".py")].split("/")[1:]
        return ".".join(parts[:-1] if self.is_package else parts)

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax; empty where this Python cannot read it."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            try:
                return ast.parse(self.code)
            except SyntaxError:
                return ast.Module([], [])


def modules(wheel: Path) -> Iterator[Module]:
    """All Python files of a wheel, a package before what is in it."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".py"):
                yield Module(name, archive.read(name))


def definitions(body: list[ast.stmt]) -> Iterator[tuple[str, Definition]]:
    """Names that a module's top level defines or imports from elsewhere, also under conditions; ``*`` for all."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, node
        elif isinstance(node, ast.Assign):
            yield from ((name, node) for target in node.targets for name in _assigned(target))
        elif isinstance(node, ast.AnnAssign):
            yield from ((name, node) for name in _assigned(node.target))
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, node) for alias in node.names)
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            for branch in _branches(node):
                yield from definitions(branch)


def _assigned(target: ast.expr) -> list[str]:
    targets = target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]
    return [item.id for item in targets if isinstance(item, ast.Name)]


def _branches(node: Union[ast.If, ast.Try, ast.With]) -> list[list[ast.stmt]]:
    if isinstance(node, ast.Try):
        return [node.body, node.orelse, node.finalbody, *(handler.body for handler in node.handlers)]
    return [node.body, node.orelse] if isinstance(node, ast.If) else [node.body]


def arguments(function: Union[ast.FunctionDef, ast.AsyncFunctionDef]) -> list[str]:
    """Names of the arguments that a caller may give."""
    args = function.args
    names = [item.arg for item in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def strings(tree: ast.AST) -> Iterator[str]:
    """Strings that stand in lists or tuples anywhere: how lazily loaded packages name what they export."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.List, ast.Tuple)):
            for item in node.elts:
                if isinstance(item, ast.Constant) and isinstance(item.value, str):
                    yield item.value


def handed_out(tree: ast.Module) -> Iterator[str]:
    """What a module with a ``__getattr__`` of its own may give: all strings in it that may be names.

    A key that stands for a pair with None at its end is one that it gives no more (jax).
    """
    defined = {name for name, _ in definitions(tree.body)}
    if "__getattr__" not in defined:
        return
    gone = {
        key.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values)
        if isinstance(key, ast.Constant) and isinstance(value, ast.Tuple) and _ends_in_none(value)
    }
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and text not in gone and re.fullmatch(r"[A-Za-z_]\w{2,80}", text):
            yield text


def _ends_in_none(value: ast.Tuple) -> bool:
    last = value.elts[-1] if value.elts else None
    return isinstance(last, ast.Constant) and last.value is None


def exported(tree: ast.Module) -> list[str]:
    """The names in a module's ``__all__``."""
    for name, node in definitions(tree.body):
        if name == "__all__" and isinstance(node, ast.Assign):
            return list(strings(node.value))
    return []


def origin(module: Module, node: ast.ImportFrom, package: str) -> Optional[str]:
    """The module that an import names, by its path below `package`; None outside of it."""
    if not node.level:
        first, _, rest = (node.module or "").partition(".")
        return rest if first == package else None
    parts = module.path.split(".") if module.path else []
    up = node.level - (1 if module.is_package else 0)
    return ".".join([*parts[: max(len(parts) - up, 0)], *([node.module] if node.module else [])])
