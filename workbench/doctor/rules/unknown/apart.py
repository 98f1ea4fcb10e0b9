"""Two packages that do not fit each other: which of them is too old, and what to do. Needs the tables."""

from __future__ import annotations

import re
from typing import Any, Optional

from workbench.doctor import fixes, torch_builds
from workbench.doctor.changes import (
    PYTHON,
    Change,
    Verdict,
    alike,
    asker_here,
    askers_of,
    gone_again,
    installed_version,
    judge,
    month_of,
    never_there,
    release_of_that_time,
)
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.build_tools import other_python
from workbench.doctor.rules.common import evidence, seen
from workbench.doctor.rules.offered import oldest_python
from workbench.doctor.rules.platforms import instead_of
from workbench.doctor.rules.unknown.packages import (
    MATURE,
    ONLY_ASKED_BY,
    PIP_CHECK,
    RESTART,
    again,
    callers_of,
    may_install,
)
from workbench.doctor.tables import WHEELS, table, torch_releases
from workbench.doctor.versions import at_least, local_tag, minor_name, older, without_stage


def together(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """Two packages that are known to part ways at some release of one of them."""
    for row in table("changes")["together"]:
        new = without_stage(installed_version(facts, row["new"]))
        if not re.search(row["match"], error.text) or older(new, without_stage(row["since"]) or ""):
            continue
        beside = [name for name in callers_of(error) if name not in ("", row["new"])]
        if "before" in row and at_least(installed_version(facts, row["old"]), row["before"]):
            continue
        if "after" in row and row["after"] not in (error.values.get("callers") or ""):
            continue
        old = row["old"] or (beside[0] if beside else row.get("usual", ""))
        change = Change(row["new"], row["what"], False, row["since"], row["source"])
        return apart(facts, error, Verdict(old, row["new"], change), _what(row))
    return None


def _what(row: dict[str, Any]) -> str:
    return f"{row['new']} {row['what']}, from {row['since']} on"


def changed(facts: Facts, error: ErrorFact, package: str, change: Optional[Change], name: str) -> Optional[Finding]:
    callers = callers_of(error)
    caller = callers[0] if callers else ""
    if change is not None and not change.added and not installed_version(facts, package):
        # A release that this Python cannot have has taken nothing away: the name is not there yet.
        change = None if older(facts.python.version, oldest_python(package, change.version or "")) else change
    if caller == package and change is None:
        return half_upgraded(facts, error, package, name)
    if not callers and change is None and re.search(r"(?:^|\.)_[a-z]\w*\.", name) and package in MATURE:
        return half_upgraded(facts, error, package, name)  # only a package's own files ask for what is private
    beside = next((other for other in callers if other not in ("", package)), "")
    caller = beside if caller == package else caller
    caller = caller or (asker_here(facts, change) if change else "")
    verdict = judge(facts, caller, package, change)
    if verdict is not None:
        return apart(facts, error, verdict, in_words(verdict, name))
    return None if package == PYTHON else undecided(facts, error, caller, package, name)


def in_words(verdict: Verdict, name: str) -> str:
    change = verdict.change
    if change is None:
        return f"it has not, or no more, {name}"
    where = f"{change.package} {change.version}" if change.version else f"a later release of {change.package}"
    return f"{change.name} came with {where}" if change.added else f"{change.name} is gone since {where}"


def _titled(facts: Facts, package: str) -> str:
    named = {"": "The program", PYTHON: "Python"}.get(package, package)
    version = installed_version(facts, package) if package else None
    return f"{named} {version}" if version else named


def apart(facts: Facts, error: ErrorFact, verdict: Verdict, words: str) -> Finding:
    old, new = _titled(facts, verdict.old), _titled(facts, verdict.new)
    new = new[0].lower() + new[1:] if not verdict.new else new
    old = _whoever_asks(verdict) or old
    versions = {name.replace("-", "_"): installed_version(facts, name) for name in (verdict.old, verdict.new) if name}
    return Finding(
        "package-versions-do-not-fit",
        "error",
        f"{old} is too old for {new}: {words}",
        "Each release of a package is written for the releases of the others that were there in its time."
        if verdict.change is None or not verdict.change.version
        else "The two have parted ways at that release; one of them has to move.",
        {**evidence(**versions), **seen(error)},
        (*_steps(facts, verdict), RESTART),
        verdict.change.source if verdict.change else PIP_CHECK,
        affects=("chat",),
        observed=True,
    )


def _whoever_asks(verdict: Verdict) -> str:
    """Who most likely asks, where no traceback tells; ``""`` where the table knows nobody who does."""
    askers = askers_of(verdict.change) if verdict.change and not verdict.old else ()
    named = " or ".join(f"{item.package} before {item.versions[1:]}" for item in askers[:2] if item.versions[:1] == "<")
    return f"The program, or a package such as {named}," if named else ""


def _steps(facts: Facts, verdict: Verdict) -> tuple[str, ...]:
    change, old, new = verdict.change, verdict.old, verdict.new
    if PYTHON in (old, new):
        return _other_python(facts, verdict)
    steps = []
    if old == "torch":
        bound = f" (at least {change.version})" if change and change.version else ""
        companions = [name for name in ("torchvision", "torchaudio") if facts.package(name)]
        steps.append(fixes.fresh_torch(facts, *companions, upgrade=True) + f"   # a newer torch{bound}")
    elif old and not may_install(facts, old):
        steps.append(f"Upgrade {old}, in the way it was installed")
    elif old:
        floor = f">={change.version}" if change and change.added and change.version and change.package == old else ""
        floor = _known_floor(facts, verdict, floor) or first_without(change, old)
        floor += f",<{gone_again(change)}" if floor and change and gone_again(change) else ""
        steps += _in_newer_python(facts, old, floor) or [_raised(facts, old, floor, new)]
    pinned = _kept_back(facts, verdict)
    if pinned:
        steps.append(pinned if not steps else f"or, to keep {old} as it is: {pinned}")
    elif new in _OF_TORCH and change is not None and not change.added and change.version:
        steps.append(
            f"{fixes.install(facts, f'{new}<{change.version}')}   # with the torch of its time, in an environment of a "
            "Python of its time; or let the program import the name from where it is now"
        )
    elif new and not steps and instead_of(facts, new):
        steps.append(f"Upgrade the program, or run it on Linux: an older {new} has no wheels for this system.")
    elif new and new != "torch" and not steps and may_install(facts, new):
        steps.append(fixes.install(facts, new, upgrade=True))
    if change is not None and not change.added and not old:
        askers = [item.package for item in askers_of(change) if may_install(facts, item.package)]
        here = [name for name in askers if facts.package(name)] or askers[:3]
        steps += [f"or upgrade what asks for it: {fixes.install(facts, *here, upgrade=True)}"] if here else []
    return tuple(steps)


def _raised(facts: Facts, package: str, floor: str, asker: str) -> str:
    """The command that lifts a package, beside the one that asks for it: pip goes no further than that bears."""
    if not floor.startswith(">=") or asker in ("torch", *_OF_TORCH) or not may_install(facts, asker):
        return fixes.install(facts, f"{package}{floor}", upgrade=True)
    return fixes.lift(facts, f"{package}{floor}", asker)


def _in_newer_python(facts: Facts, package: str, floor: str) -> list[str]:
    """An environment of a newer Python, where this one has no release of a package from `floor` on."""
    wanted = re.match(r">=([\d.]+)", floor)
    if wanted is None or not older(facts.python.version, oldest_python(package, wanted[1])):
        return []
    first, *others = other_python(facts, "3.11", {"target": f"{package}{floor}"})
    too_old = f"no {package} {floor} takes Python {minor_name(facts.python.version)}"
    return [f"{first.split('   # ')[0]}   # {too_old}; all that is needed goes into the new one", *others]


def _known_floor(facts: Facts, verdict: Verdict, floor: str) -> str:
    """A floor raised to what the newer of the two is known to need of the older."""
    for row in table("pairs")["pair"]:
        apart_here = row["package"] == verdict.new and row["needs"] == verdict.old and "from" in row
        if apart_here and floor and row["spec"].startswith(">=") and older(floor[2:], row["spec"][2:]):
            return str(row["spec"]) if at_least(facts.package(verdict.new), row["from"]) else floor
    return floor


def first_without(change: Optional[Change], asker: str) -> str:
    """``>=`` the release in which a package gave up a name that another one has lost; ``""`` where it is not known."""
    askers = askers_of(change) if change is not None and not change.added else ()
    bound = next((item.versions for item in askers if item.package == asker), "")
    if re.fullmatch(r"<\d[\w.]*", bound):
        return f">={bound[1:]}"
    gone = f"<{change.version}" if change is not None and not change.added else ""
    pairs = (row for row in table("pairs")["pair"] if row["package"] == asker and row["spec"] == gone)
    return next((f">={row['before']}" for row in pairs if change and row["needs"] == change.package), "")


def _kept_back(facts: Facts, verdict: Verdict) -> str:
    """The command that takes the newer of the two back to where they fitted."""
    change, new = verdict.change, verdict.new
    if not new or new == "torch":
        return "a release of the program or package above that was made for this torch" if new and verdict.old else ""
    if change is not None and not change.added:
        if new in _OF_TORCH and change.version:
            return _with_its_torch(facts, new, change.version)
        return _below(facts, new, change.version) if change.version and not instead_of(facts, new) else ""
    if not may_install(facts, new) or instead_of(facts, new):
        return ""
    since = next((item.versions for item in askers_of(change) if item.package == new), "") if change else ""
    if since.startswith(">="):
        return _below(facts, new, since[2:])
    born = month_of(verdict.old, installed_version(facts, verdict.old))
    release = release_of_that_time(new, born[0] + 1) if born and born[1] else None
    return fixes.install(facts, f"{new}=={release}.*") if release else ""


def _below(facts: Facts, package: str, bound: str) -> str:
    """The command that takes a package below a release, and below the one that is here, which does not work."""
    here = minor_name(without_stage(installed_version(facts, package)))
    return fixes.install(facts, f"{package}<{here if here and older(here, bound) else bound}")


_OF_TORCH = ("torchaudio", "torchvision")


def _with_its_torch(facts: Facts, package: str, bound: str) -> str:
    """The command that takes a companion of torch below a release, and torch with it: pip alone would change its build.

    ``""`` where this Python has no torch of that time.
    """
    numbered = [(item, item.name if package == "torchaudio" else item.torchvision) for item in torch_releases()]
    release = next((item for item, number in reversed(numbered) if older(number, bound)), None)
    if release is None or torch_builds.python_fits(facts.python.version, release) is False:
        return ""
    tags = [local_tag(facts.torch.version), *(local_tag(facts.package(name)) for name in _OF_TORCH)]
    tag = next((tag for tag in tags if tag in release.variants), None)
    wheel = torch_builds.choose_wheel(facts, keep_release=False) if fixes.on_windows(facts) else None
    tag = tag or (wheel.variant if wheel and wheel.variant in release.variants else None)
    others = [f"{name}<{bound}" if name == package else name for name in ("torchvision", "torchaudio")]
    wanted = [item for item in others if package in item or facts.package(item)]
    options = f"--index-url {WHEELS}/{tag}" if tag else ""
    return fixes.install(facts, f"torch=={release.name}.*", *wanted, options=options)


def _other_python(facts: Facts, verdict: Verdict) -> tuple[str, ...]:
    change = verdict.change
    version = change.version if change else ""
    minor = int(version.split(".")[1]) if version else 12
    if verdict.old == PYTHON:
        return (f"An environment with a newer Python: {fixes.new_environment(version or '3.12')}",)
    steps = [fixes.install(facts, verdict.old, upgrade=True)] if may_install(facts, verdict.old) else []
    alternative = f"an environment with an older Python: {fixes.new_environment(f'3.{minor - 1}')}"
    return (*steps, f"or: {alternative}" if steps else alternative)


def half_upgraded(facts: Facts, error: ErrorFact, package: str, name: str) -> Finding:
    return Finding(
        "package-versions-do-not-fit",
        "error",
        f"{package} does not fit itself: {name} is not where another of its files looks for it",
        "It was upgraded while a program had it in memory, or an install over it left files of two versions.",
        {**evidence(**{package.replace("-", "_"): installed_version(facts, package)}), **seen(error)},
        (
            "Restart the notebook kernel or the program.",
            f"If it stays: {again(facts, package)}",
        ),
        PIP_CHECK,
        affects=("chat",),
        observed=True,
    )


# Compiled parts that nobody but the package's own files asks for a name.
_ASKS_ITSELF = {"pyarrow": ("lib.", "_"), "pandas": ("_libs.",), "scipy": ("_lib.",), "scikit-learn": ("_",)}


def undecided(facts: Facts, error: ErrorFact, caller: str, package: str, name: str) -> Finding:
    """Two that do not fit, and nothing tells for certain which of them is too old."""
    if package in _ASKS_ITSELF and name.startswith(_ASKS_ITSELF[package]):
        return half_upgraded(facts, error, package, name)
    caller = caller or ONLY_ASKED_BY.get(package, "")
    newest = never_there(package, name, installed_version(facts, package))
    if newest:
        return _no_release_has(facts, error, caller, package, name, newest)
    return Finding(
        "package-versions-do-not-fit",
        "error",
        f"{caller or 'Something'} asks {package} for {name}, which this version does not have",
        _why_undecided(caller, package, _likely_old(package, name)),
        {**evidence(**{package.replace("-", "_"): installed_version(facts, package)}, importer=caller), **seen(error)},
        (*_steps_undecided(facts, caller, package, _likely_old(package, name)), RESTART),
        PIP_CHECK,
        affects=("chat",),
        observed=True,
    )


def _no_release_has(facts: Facts, error: ErrorFact, caller: str, package: str, name: str, newest: str) -> Finding:
    """A name that a package has had at no time: misspelled, of another package, or newer than what is known of it."""
    meant = "" if caller else alike(package, name)
    upgrade = fixes.install(facts, package, upgrade=True) if may_install(facts, package) else ""
    return Finding(
        "package-versions-do-not-fit",
        "error",
        f"{caller or 'Something'} asks {package} for {name}, which no release up to {newest} has",
        "It is misspelled or of another package, or it came after that release, or stands only in a copy of "
        f"{package} that somebody changed.",
        {**evidence(**{package.replace("-", "_"): installed_version(facts, package)}, importer=caller), **seen(error)},
        (
            *((f"Write {meant} in the program, if that is meant.",) if meant else ()),
            *((f"{upgrade}   # or from where the program's guide says that {package} is taken",) if upgrade else ()),
            RESTART,
        ),
        PIP_CHECK,
        affects=("chat",),
        observed=True,
    )


def _why_undecided(caller: str, package: str, likely: str) -> str:
    if not caller:
        return "The program was written for another version, or files of two versions are mixed after an upgrade."
    written = f"{caller} was written for another version of {package}: "
    if likely == "caller":
        return written + "most likely an older one, since what stands deep in a package is moved without notice."
    if likely == "package":
        return written + "most likely a newer one, which brought the name."
    return written + "newer, if the name came later, else older."


def _steps_undecided(facts: Facts, caller: str, package: str, likely: str) -> tuple[str, ...]:
    if package == "torch":
        return (
            f"Upgrade torch to the release that {caller or 'the package in the traceback'} asks for, with the "
            "torchvision and torchaudio that belong to it",
            f"or take a release of {caller or 'that package'} that was made for this torch",
        )
    if package.startswith("langchain"):
        family = dict.fromkeys(("langchain", "langchain-core", "langchain-community", package))
        return (fixes.install(facts, *family, upgrade=True) + "   # the parts belong together, of one time",)
    safe = [name for name in (caller, package) if may_install(facts, name)]
    check = "python -m pip check   # what the installed packages ask of each other, and do not get"
    if likely == "caller" and caller and caller not in safe:
        return (f"Upgrade {caller}, or the program that it belongs to; or take an older {package}.", check)
    if not safe and package:
        return (f"python -m pip install -U {package}   # or the package that brings the module {package}", check)
    return (fixes.install(facts, *safe, upgrade=True), check) if safe else (check,)


def _likely_old(package: str, name: str) -> str:
    """Who is most likely too old: a function deep in a package was removed, a class at its top came later."""
    *inside, last = name.split(".")
    if package not in MATURE:
        return ""
    if re.match(r"[A-Z]\w*[a-z]", last):
        return "" if inside else "package"
    return "caller" if inside else ""
