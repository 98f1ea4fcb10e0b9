"""Compiled modules that pip finds in no index: of repositories, and of programs' own folders. Needs the tables."""

from __future__ import annotations

import re
from typing import Any, Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import evidence, seen
from workbench.doctor.rules.matching_builds import matching_build
from workbench.doctor.tables import table

_NAMED = re.compile(r"(?i:no module named) ['\"`]?(?P<module>\w{2,60})(?P<part>(?:\.\w{1,60}){0,3})")
_PARTS = frozenset(("._C", "._ext", ".pytorch", "._cuda", ".layers"))
"""What is compiled, or new, of a package that may be here all the same."""


def own_module(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """A module that was to be compiled from a repository or from a folder of the program, and is not there."""
    found = _NAMED.search(error.text)
    row = _row(found["module"]) if found else None
    if found is None or row is None or (found["part"] and found["part"] not in _PARTS):
        return None
    if not found["part"] and matching_build(facts, found["module"]):
        return None  # what is not there at all is told of with the builds for this torch
    module = f"{found['module']}{found['part']}"
    return Finding(
        "compiled-module-missing",
        "error",
        f"{module} is not there: it is {row.get('comes') or _compiled_from(row)}",
        "No index has it, or one of that name that is another package: pip install with its name alone does not "
        "bring it." + ("" if "comes" in row else " It takes nvcc of torch's CUDA and a C++ compiler."),
        {**evidence(torch__version=facts.torch.version, python=facts.python.version), **seen(error)},
        (_step(facts, found["module"], row), *_afterwards(facts, module)),
        row["source"],
        affects=("chat",),
        observed=True,
    )


def _row(module: str) -> Optional[dict[str, Any]]:
    return next((row for row in table("own_modules")["module"] if module in row["names"]), None)


def _compiled_from(row: dict[str, Any]) -> str:
    return f"compiled from {'its repository' if 'install' in row else 'a folder of the program itself'}"


def _step(facts: Facts, module: str, row: dict[str, Any]) -> str:
    note = f"   # {row['note']}" if "note" in row else ""
    if "install" in row:
        return fixes.install(facts, row["install"], options="--no-build-isolation") + note
    build = fixes.install(facts, ".", options="--no-build-isolation")
    if fixes.on_windows(facts):
        folder = f"(Get-ChildItem -Recurse -Filter setup.py | Select-String -List '\\b{module}\\b')[0].Path"
        return f"cd (Split-Path {folder}); {build}   # PowerShell, in the program's folder: where the setup.py names it"
    folder = f'"$(dirname "$(grep -rlw --include=setup.py {module} . | head -1)")"'
    return f"cd {folder} && {build}   # in the program's folder: where the setup.py names it"


def _afterwards(facts: Facts, module: str) -> tuple[str, ...]:
    python = fixes.python_command(facts)
    return (
        f'{python} -c "import torch, {module}"   # no error: it is there; torch first, whose libraries it asks for',
        f'{python} -c "import torch; print(torch.version.cuda)"; nvcc --version   # the build fails? of one CUDA major',
    )
