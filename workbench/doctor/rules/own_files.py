"""Rules about files of one's own that have the name of a module. Needs the tables."""

from __future__ import annotations

import re

from workbench.doctor import fixes
from workbench.doctor.changes import pip_name
from workbench.doctor.facts import Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import PASSED, Result, Rule, evidence, seen


def in_the_way(facts: Facts) -> Result:
    """A file or folder that Python finds before the module of that name."""
    error = facts.error("own-file-in-the-way")
    if error is None:
        return PASSED
    module, path = error.values["module"], error.values["path"]
    folder = re.sub(r"[/\\]__init__\.py$", "", path)
    owner = f"Python's own module {module}" if error.values["kind"] == "python" else f"the package {module}"
    new = f"{module}_own" + ("" if folder != path else ".py")
    above = re.sub(r"[^/\\]+$", "", folder)
    guessed = bool(error.values.get("guessed"))
    bare = folder.removesuffix(".py")
    in_a_folder = (f"Where it is a folder: {_move(facts, bare, f'{above}{module}_own')}",) if guessed else ()
    leftover = guessed and error.values["kind"] == "package"
    again = fixes.install(facts, pip_name(module), options="--force-reinstall --no-deps")
    shown = f"{bare} (.py, or a folder)" if guessed else folder
    return [
        Finding(
            "package-shadowed",
            "error",
            f"{shown} is imported in place of {owner}, and hides it",
            "Python looks first in the folder of the program that is started. Whoever imports that module, other "
            "packages included, gets the file there.",
            {**evidence(file=path), **seen(error)},
            (
                f"{_move(facts, folder, f'{above}{new}')}   # any name that no module has; the imports of it in the "
                "program, too; and the __pycache__ beside it",
                *in_a_folder,
                *((f"Where there is neither, and an uninstall left a folder behind: {again}",) if leftover else ()),
                "or, where the program itself needs nothing beside it: python -P <program>   # Python 3.11 and newer",
            ),
            "https://docs.python.org/3/tutorial/modules.html#the-module-search-path",
            affects=("chat", "tokens", "vram"),
            observed=True,
        )
    ]


def _move(facts: Facts, path: str, new: str) -> str:
    if fixes.on_windows(facts):
        name = re.sub(r"^.*[/\\]", "", new)
        return f"Rename-Item '{path}' '{name}'"
    return f"mv {path} {new}"


RULES: tuple[Rule, ...] = (in_the_way,)
