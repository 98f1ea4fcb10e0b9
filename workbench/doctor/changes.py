"""Which of two packages is too old for the other: by what releases added and removed, else by when they came out.

Needs the tables.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from workbench.doctor.facts import Conflict, Facts
from workbench.doctor.tables import names_read, names_text, packages_read, table
from workbench.doctor.versions import (
    at_least,
    minor_name,
    normalize,
    older,
    parse_requirement,
    parse_version,
    release_of,
    satisfies,
    without_stage,
)

PYTHON = "python"
# Import names that are not the package's name with other dashes.
_APART_MONTHS = 2
"""Releases of one month may know each other; from here on the younger one is taken to be the newer."""


def pip_name(module: str) -> str:
    """The package's name for the first part of a module's path, such as ``scikit-learn`` for ``sklearn.utils``."""
    if module.startswith("google.protobuf"):
        return "protobuf"
    first = module.split(".")[0]
    return str(table("imports")["called"].get(first, normalize(first)))


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
    row = _row(package)
    if row is None:
        return None
    parts = path.split(".")
    whole = _change(package, row, path, version)
    if whole is not None:
        return whole
    # That a module once came says of a name in it nothing, where the version is not known.
    modules = [".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]
    above = (_change(package, row, key, version) for key in modules)
    known = next((change for change in above if change is not None and (version or not change.added)), None)
    exported = _change(package, row, parts[-1], version) if re.match(r"[A-Z]\w*[a-z]", parts[-1]) else None
    return exported or known or _moved(package, row, parts[-1], version) or _sibling(package, row, parts[-1], version)


@functools.lru_cache(maxsize=256)
def _row(package: str) -> Optional[dict[str, Any]]:
    """What both tables say of a package; an exact release in the one that is written by hand counts first."""
    told, read = table("changes").get(package), names_read(package)
    if not isinstance(told, dict):
        told = {}
    if not read:
        return told or None
    row: dict[str, Any] = {"source": told.get("source") or read["source"]}
    for word in ("added", "removed"):
        names = {name: release for release, line in read.get(word, {}).items() for name in line.split()}
        ends = {name.split(".")[-1] for name in names}
        by_hand = told.get(word, {}).items()
        row[word] = {
            **names,
            **{name: release for name, release in by_hand if release or name.split(".")[-1] not in ends},
        }
    return row


def never_there(package: str, name: str, version: Optional[str]) -> str:
    """The newest release that was read, where no release up to it has such a name at the package's top, else "".

    Args:
        package: its pip name.
        name: the path below the package; of one with a dot, a constant or a private name nothing is said.
        version: the installed one; of one that is newer than the table nothing is said.
    """
    row = names_read(package)
    newest = str(row.get("newest", ""))
    parts = newest.count(".") + 1
    have, last = release_of(version, parts), release_of(newest, parts)
    if have is None or last is None or have > last or not re.fullmatch(r"[a-zA-Z]\w*[a-z]\w*", name):
        return ""
    listed = _row(package) or {}
    known = name in row["always"].split() or any(name in listed.get(word, {}) for word in ("added", "removed"))
    return "" if known else newest


def alike(package: str, name: str) -> str:
    """The name at a package's top that is spelled most like this one; "" where none is close."""
    row = names_read(package)
    came = [word for line in row["added"].values() for word in line.split() if word.isidentifier()]
    close = difflib.get_close_matches(name, [*row["always"].split(), *came], 1, 0.85)
    return close[0] if close else ""


_HEAD = re.compile(
    r"(\w+?)(?:For[A-Z]\w+|PreTrainedModel|(?:Image|Video)?Processor(?:Fast)?|Tokenizer(?:Fast)?|FeatureExtractor"
    r"|(?:Text|Vision|Audio)?(?:Config|Model))"
)


def _sibling(package: str, row: dict[str, Any], name: str, version: Optional[str]) -> Optional[Change]:
    """A class of a family that came or went as a whole, such as all that begins with Phi3, or with TF."""
    if package == "transformers" and re.match(r"(?:TF|Flax)[A-Z]", name):
        gone = _change(package, row, f"{'TF' if name.startswith('TF') else 'Flax'}PreTrainedModel", version)
        return Change(package, name, False, gone.version, gone.source) if gone else None
    family = _HEAD.fullmatch(name) if package == "transformers" else None
    family = None if family and family[1] == "PreTrained" else family  # the base of all of them, not a family
    ends = ("Config", "Model", "ForCausalLM", "ForConditionalGeneration")
    found = (_change(package, row, family[1] + end, version) for end in ends) if family else iter(())
    change = next((change for change in found if change is not None and change.added), None)
    return Change(package, name, True, change.version, change.source) if change else None


def _change(package: str, row: dict[str, Any], key: str, version: Optional[str]) -> Optional[Change]:
    both = key in row.get("added", {}) and key in row.get("removed", {})
    for word in ("removed", "added") if both and version is None else ("added", "removed"):
        if key not in row.get(word, {}):
            continue
        release, version = str(row[word][key]), without_stage(version)
        there = at_least(version, release) if word == "added" else older(version, release)
        if not (release and there):
            return Change(package, key, word == "added", release, str(row["source"]))
    return None


def _moved(package: str, row: dict[str, Any], name: str, version: Optional[str]) -> Optional[Change]:
    """The same name in another module: only one that is no common word, and that was not moved about."""
    if len(name) < 6 or not re.search(r"_|[a-z][A-Z]|^[A-Z]", name):
        return None
    added, removed = ([key for key in row.get(word, {}) if key.split(".")[-1] == name] for word in ("added", "removed"))
    if added and removed and set(added) != set(removed):
        return None
    # Where several modules have it, it was there from the first on, and until the last.
    earliest = sorted(added, key=lambda key: release_of(str(row["added"][key]) or "0", 3) or ())[:1]
    latest = sorted(removed, key=lambda key: release_of(str(row["removed"][key]) or "0", 3) or ())[-1:]
    return next(filter(None, (_change(package, row, key, version) for key in (*earliest, *latest))), None)


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
    if parts[1:] and parts[-1] == "forward":  # every module has one, and each takes something else
        wanted = {f"{parts[-2]}.forward({argument})"}
    # Only an argument of a class without a name needs a package to be found for it.
    named = [] if parts or not argument else [name for name in packages if name] or _the_one_with(facts, argument)
    for package, row in _rows(f"({argument})" if argument else ".".join(parts[-2:]), packages):
        for word in ("added", "removed"):
            for key in row.get(word, {}):
                last = _call_of(key) if argument else key
                nameless = package in named and key.endswith(f"({argument})")
                nameless = nameless or (package in packages and key == f"from_pretrained({argument})")
                change = (
                    _change(package, row, key, installed_version(facts, package))
                    if last in wanted or nameless
                    else None
                )
                if change is not None:
                    return change
    return None


def _call_of(key: str) -> str:
    """``function(argument)`` at the end of a path, with the class before it where it is a ``forward``."""
    parts = key.split(".")
    return ".".join(parts[-2:] if parts[-1].startswith("forward(") and len(parts) > 1 else parts[-1:])


def change_of_missing(facts: Facts, call: str, argument: str, packages: tuple[str, ...]) -> Optional[Change]:
    """What the table says of an argument that a call leaves out: the reverse of one that it has too many.

    What came with a release is asked for there, so that its callers are from before; what went with one is still asked
    for here, so that they are from after. `added` tells which: whether the callee is the one that is too old.
    """
    parts = [part for part in call.split(".") if part not in ("__init__", "__new__", "<locals>")]
    if not parts or parts == ["forward"]:
        return None  # everybody has such a one
    wanted = f"{'.'.join(parts[-2:]) if parts[-1] == 'forward' else parts[-1]}({argument})"
    for package, row in _rows(f"({argument})", packages):
        version = without_stage(installed_version(facts, package))
        for word in ("removed", "added"):
            for key, release in row.get(word, {}).items():
                fits = older(version, release) if word == "removed" else at_least(version, release)
                if _call_of(key) == wanted and release and (version is None or fits):
                    return Change(package, key, word == "removed", str(release), str(row["source"]))
    return None


def _the_one_with(facts: Facts, argument: str) -> list[str]:
    """The package that alone has such an argument in the tables, of those in a paste or else of all; else ``[]``."""
    rows = [
        package
        for package, row in _rows(f"({argument})")
        if any(key.endswith(f"({argument})") for word in ("added", "removed") for key in row.get(word, {}))
    ]
    here = [package for package in rows if installed_version(facts, package)] or rows
    return here if len(here) == 1 else []


def gone_again(change: Change) -> str:
    """The release in which a name that came went again, or an argument of its class or function; ``""`` for none."""
    removed = (_row(change.package) or {}).get("removed", {})
    argument = re.search(r"\(\w+\)$", change.name)
    ends = [release for key, release in removed.items() if argument and key.endswith(argument[0])]
    release = removed.get(change.name) or (ends[0] if len(ends) == 1 else "")
    return release if change.added and older(change.version, release) else ""


@dataclass(frozen=True)
class Asker:
    """A package that imports a name, and the versions that do."""

    package: str
    versions: str


def askers_of(change: Change) -> tuple[Asker, ...]:
    """Who imports a name that came or went, as far as the table of what packages import tells."""
    names = table("askers").get(change.package, {}).get("added" if change.added else "removed", {})
    last = change.name.split(".")[-1]
    told = [line for name, line in names.items() if name == change.name or name.split(".")[-1] == last]
    found = (re.match(r"([\w-]+?)([<>]=?.+)?$", item) for line in told[:1] for item in line.split())
    return tuple(Asker(match[1], match[2] or "") for match in found if match)


# What programs of one's own import, whichever packages do so too.
_OF_A_MODEL = re.compile(r"\w+(?:For[A-Z]\w+|Model|Processor|Tokenizer(?:Fast)?|Config)")


def asker_here(facts: Facts, change: Change) -> str:
    """The package that asks for a name: by its version, or the only one that asks for a new one; else ``""``."""
    askers = askers_of(change)
    here = [item.package for item in askers if satisfies(installed_version(facts, item.package), item.versions)]
    if here:
        return here[0]
    # Many programs ask for what was there for years; what is new is asked for by few.
    alone = askers[0] if len(askers) == 1 and change.added and not _OF_A_MODEL.fullmatch(change.name) else None
    return alone.package if alone and not installed_version(facts, alone.package) else ""


def _rows(having: str, first: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """The packages of both tables that say something of names with `having` in them; those named `first` before all."""
    told = {package: row for package, row in table("changes").items() if isinstance(row, dict)}
    for package in dict.fromkeys((*first, *told, *packages_read())):
        by_hand = (key for word in ("added", "removed") for key in told.get(package, {}).get(word, ()))
        row = _row(package) if having in names_text(package) or any(having in key for key in by_hand) else None
        if row is not None:
            yield package, row


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


def declared_conflicts(facts: Facts) -> tuple[Conflict, ...]:
    """Releases of which one asks for others than those that are here, by its metadata.

    Only for versions that a paste names: of an environment that is at hand, its own metadata tell.
    """
    found = []
    for package, released, text in declared_here(facts):
        wanted = parse_requirement(text)
        have = installed_version(facts, wanted.name) if wanted else None
        if wanted and have and satisfies(have, wanted.specifier) is False:
            found.append(Conflict(package, released, text, have))
    return tuple(found)


def declared_here(facts: Facts) -> Iterator[tuple[str, str, str]]:
    """What the releases that are here ask of others: a package, its release, and one requirement of it."""
    for package, rows in table("requirements").items():
        version = installed_version(facts, package) if isinstance(rows, dict) else None
        if not version or "dev" in version or older(_requirements_read_to().get(package), version):
            continue  # of one to come nothing is known
        fitting = [name for name in rows if at_least(version, name)]
        for text in rows[fitting[-1]].split() if fitting else ():
            yield package, version, text


@functools.cache
def _requirements_read_to() -> dict[str, str]:
    """The newest release of each package whose requirements are known."""
    return dict(item.split("==") for item in str(table("requirements").get("read_to", "")).split())


def judge_declared(conflict: Conflict) -> Verdict:
    """Which of the two in a conflict is too old."""
    wanted = parse_requirement(conflict.requires)
    name, specifier = (wanted.name, wanted.specifier) if wanted else ("", "")
    floors = ",".join(part for part in specifier.split(",") if part.startswith(">"))
    if floors and satisfies(conflict.found, floors) is False:
        return Verdict(name, conflict.package)
    return Verdict(conflict.package, name)


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
    declared = (item for item in declared_conflicts(facts) if {item.package, name_asked_for(item)} == {caller, package})
    conflict = next(declared, None)
    if conflict is not None:
        return judge_declared(conflict)
    return by_time(facts, caller, package) if caller else None


def name_asked_for(conflict: Conflict) -> str:
    """The package that one of the two in a conflict asks for."""
    requirement = parse_requirement(conflict.requires)
    return requirement.name if requirement else ""


def by_time(facts: Facts, first: str, second: str) -> Optional[Verdict]:
    """Which of two installed packages is the older release, where months lie between them."""
    one, two = (month_of(name, installed_version(facts, name)) for name in (first, second))
    if one is None or two is None or abs(one[0] - two[0]) < _APART_MONTHS:
        return None
    old, new, exact = (first, second, one[1]) if one[0] < two[0] else (second, first, two[1])
    return Verdict(old, new) if exact else None
