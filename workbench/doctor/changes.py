"""Which of two packages is too old for the other: by what releases added and removed, else by when they came out.

Needs the tables.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Optional

from workbench.doctor.facts import Facts
from workbench.doctor.tables import table
from workbench.doctor.versions import at_least, minor_name, normalize, older, parse_version

PYTHON = "python"
# Import names that are not the package's name with other dashes.
_IMPORTED_AS = {
    "PIL": "pillow",
    "awq": "autoawq",
    "cv2": "opencv-python",
    "llama_cpp": "llama-cpp-python",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "attr": "attrs",
    "flashinfer": "flashinfer-python",
    "orbax": "orbax-checkpoint",
    "lightning": "pytorch-lightning",
    "llava": "llava",
}
_APART_MONTHS = 2
"""Releases of one month may know each other; from here on the younger one is taken to be the newer."""


def pip_name(module: str) -> str:
    """The package's name for the first part of a module's path, such as ``scikit-learn`` for ``sklearn.utils``."""
    if module.startswith("google.protobuf"):
        return "protobuf"
    first = module.split(".")[0]
    return _IMPORTED_AS.get(first, normalize(first))


def installed_version(facts: Facts, package: str) -> Optional[str]:
    """The version of a package, of torch or of Python itself, as far as it is known."""
    if package == PYTHON:
        return facts.python.version
    if package == "torch":
        return facts.torch.version or facts.package("torch")
    if package == "pytorch-lightning":
        return facts.package(package) or facts.package("lightning")
    return facts.package(package)


@dataclass(frozen=True)
class Change:
    """A name that a package has only from some release on, or only up to one."""

    package: str
    name: str
    added: bool
    version: str
    """The release, or ``""`` where it is not known exactly."""
    source: str


def change_of(package: str, path: str, version: Optional[str] = None) -> Optional[Change]:
    """What the table says of a name, by its path below the package, or of the module that it stands in.

    A row that the installed `version` gives the lie to counts for nothing.
    """
    row = table("changes").get(package)
    if not isinstance(row, dict):
        return None
    parts = path.split(".")
    keys = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    known = next(filter(None, (_change(package, row, key, version) for key in keys)), None)
    return known or _moved(package, row, parts[-1], version)


def _change(package: str, row: dict[str, Any], key: str, version: Optional[str]) -> Optional[Change]:
    for word in ("added", "removed"):
        if key not in row.get(word, {}):
            continue
        release = str(row[word][key])
        there = at_least(version, release) if word == "added" else older(version, release)
        if not (release and there):
            return Change(package, key, word == "added", release, str(row["source"]))
    return None


def _moved(package: str, row: dict[str, Any], name: str, version: Optional[str]) -> Optional[Change]:
    """The same name in another module: only one that is no common word."""
    if len(name) < 6 or not re.search(r"_|[a-z][A-Z]|^[A-Z]", name):
        return None
    keys = [key for word in ("added", "removed") for key in row.get(word, {}) if key.split(".")[-1] == name]
    return _change(package, row, keys[0], version) if len(keys) == 1 else None


def change_of_call(facts: Facts, call: str, argument: str, packages: tuple[str, ...]) -> Optional[Change]:
    """What the table says of an argument of a function or class, or, without `argument`, of a method.

    Args:
        facts: where the versions are looked up.
        call: ``Class``, ``Class.method`` or ``function``, as the message names it.
        argument: the argument's name, or ``""``.
        packages: packages that the traceback names, or whose the call is; where it is only ``__init__`` one of these
            must fit, and what their ``from_pretrained`` takes holds for all their classes.
    """
    parts = [part for part in call.split(".") if part not in ("__init__", "__new__", "<locals>")]
    wanted = {f"{part}({argument})" for part in parts} if argument else {".".join(parts[-2:])}
    for package, row in table("changes").items():
        if not isinstance(row, dict):
            continue
        for word in ("added", "removed"):
            for key in row.get(word, {}):
                last = key.split(".")[-1] if argument else key
                nameless = not parts and argument and key.endswith(f"({argument})") and package in packages
                nameless = nameless or (package in packages and key == f"from_pretrained({argument})")
                change = (
                    _change(package, row, key, installed_version(facts, package))
                    if last in wanted or nameless
                    else None
                )
                if change is not None:
                    return change
    return None


def month_of(package: str, version: Optional[str]) -> Optional[tuple[int, bool]]:
    """When a release came out, in months, and whether that is exact: beyond the table it is the earliest time."""
    rows = table("dates").get(package)
    wanted = parse_version(minor_name(version))
    if not isinstance(rows, dict) or wanted is None:
        return None
    bounds = [(bound, str(date)) for name, date in rows.items() if (bound := parse_version(name)) is not None]
    fitting = [date for bound, date in bounds if bound <= wanted]
    return (_months(fitting[-1]), wanted <= bounds[-1][0]) if fitting else None


def _months(date: str) -> int:
    year, month = date.split("-")
    return int(year) * 12 + int(month)


def release_of_that_time(package: str, month: int) -> Optional[str]:
    """The last minor release of a package that was out in a month; None without a row."""
    rows = table("dates").get(package)
    if not isinstance(rows, dict):
        return None
    fitting = [name for name, date in rows.items() if _months(str(date)) <= month]
    return fitting[-1] if fitting else None


@dataclass(frozen=True)
class Verdict:
    """Which of the two is too old, and how that is known."""

    old: str
    new: str
    change: Optional[Change] = None


def judge(facts: Facts, caller: str, package: str, change: Optional[Change]) -> Optional[Verdict]:
    """Whether the caller or the package that it calls is too old; None where nothing tells.

    Args:
        caller: pip name of the package that asks, or ``""`` for a program of one's own.
        package: pip name of the package that is asked.
        change: what the table says of the name that is asked for.
    """
    if change is not None:
        return Verdict(package, caller, change) if change.added else Verdict(caller, package, change)
    return by_time(facts, caller, package) if caller else None


def by_time(facts: Facts, first: str, second: str) -> Optional[Verdict]:
    """Which of two installed packages is the older release, where months lie between them."""
    one, two = (month_of(name, installed_version(facts, name)) for name in (first, second))
    if one is None or two is None or abs(one[0] - two[0]) < _APART_MONTHS:
        return None
    old, new, exact = (first, second, one[1]) if one[0] < two[0] else (second, first, two[1])
    return Verdict(old, new) if exact else None
