"""Rules about the pins that transformers checks as it is imported: huggingface-hub, tokenizers and their like."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.changes import askers_of, change_of
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ISSUES, MODEL_BENCHES, PASSED, Result, Rule, evidence, seen
from workbench.doctor.rules.guess import decided_name
from workbench.doctor.rules.library_imports import (
    IMPORT_FINDINGS,
    bound_of,
    import_finding,
    import_fix,
    importer_in,
    users_without,
)
from workbench.doctor.rules.unknown.packages import callers_of, may_install
from workbench.doctor.tables import newer_than_table, transformers_release
from workbench.doctor.versions import older, parse_requirement, satisfies


def hub_pin(facts: Facts) -> Result:
    """huggingface-hub of the wrong side of 1.0 or 2.0."""
    return _pin(
        facts,
        "huggingface-hub",
        "huggingface-hub-pin-conflict",
        ("hub-import",),
        "huggingface-hub 1.0 and 2.0 removed what earlier transformers import.",
        ISSUES + "huggingface/transformers/pull/41973",
    )


def tokenizers_pin(facts: Facts) -> Result:
    """tokenizers outside the range of this transformers."""
    return _pin(
        facts,
        "tokenizers",
        "tokenizers-pin-conflict",
        ("tokenizers-import",),
        "Each transformers release works with one minor range of tokenizers.",
        ISSUES + "huggingface/transformers/pull/41973",
    )


def _pin(facts: Facts, package: str, id: str, messages: tuple[str, ...], why: str, source: str) -> Result:
    error = facts.error("pin-conflict")
    if error is not None and error.values.get("package", "").replace("_", "-").lower() != package:
        error = None
    import_error = facts.error(*messages)
    version, found = facts.package("transformers"), facts.package(package)
    row = transformers_release(version)
    specifier = (
        error.values.get("spec")
        if error
        else (row[package] if row and not newer_than_table("transformers", version) else None)
    )
    found = (error.values.get("found") if error else None) or found
    met = satisfies(found, specifier) if specifier and found else None
    if error is None and import_error is None and met is None:
        return None
    if error is None and met is not False and import_error is None:
        return PASSED
    importer = (importer_in(package, import_error) if import_error else "") or "transformers"
    held = _held_back(facts, package, import_error) if error is None and import_error else None
    if held is not None:
        return [held]
    if error is None and import_error and (met or (met is None and importer != "transformers")):
        return [import_finding(facts, package, import_error)]
    if error is None and import_error and version is None and not _asks(package, import_error):
        told = decided_name(facts, import_error) if importer == "transformers" else None
        if told is not None and not import_error.values.get("importer"):
            return [replace(told, id=id, affects=(*MODEL_BENCHES, "tokens"))]
    if specifier:
        bound = bound_of(package, import_error.values.get("name")) if import_error else None
        floor = re.search(r">=(\d[\d.]*)", specifier)
        # One program wants it newer, another older: the second has to be a newer one itself.
        if import_error and bound and bound.startswith("<") and floor and not older(floor[1], bound[1:]):
            return [_pulled_both_ways(facts, package, specifier, import_error)]
        specifier = f"{specifier.rsplit(',<', 1)[0]},{bound}" if bound and bound.startswith("<") else specifier
        fix = _repair(facts, f"{package}{specifier}", error)
        if older(version, "5.0") or version is None:
            fix.append("or: " + fixes.install(facts, "transformers", upgrade=True))
    elif import_error and bound_of(package, import_error.values.get("name")):
        fix = list(import_fix(facts, package, "transformers", import_error))
    else:
        fix = [fixes.install(facts, "transformers", package, upgrade=True)]
    return [
        Finding(
            id,
            "error",
            _named(package, found)
            + " does not fit "
            + (_asks(package, import_error) or _named("transformers", version)),
            _since(package, import_error) or why + (f" This one wants {package}{specifier}." if specifier else ""),
            {
                **evidence(transformers=version, **{package.replace("-", "_"): found}, needs=specifier),
                **seen(error or import_error),
            },
            (*fix, *_comes_again(facts, error)),
            source,
            affects=(*MODEL_BENCHES, "tokens"),
            observed=error is not None or import_error is not None,
        )
    ]


def _repair(facts: Facts, wanted: str, error: Optional[ErrorFact]) -> list[str]:
    """The commands that bring what transformers asks for; named too, it stays, and so does what else it bears.

    Where another package stands above it in the traceback, that one may ask for a newer transformers: pip finds out.
    """
    beside = fixes.install(facts, wanted, *(() if facts.lacks("transformers") else ("transformers",)))
    above = [name for name in callers_of(error) if name != "transformers"] if error else []
    users = [name for name in above if name and may_install(facts, name) and not wanted.startswith(name)]
    if not users:
        return [beside]
    note = "   # pip leaves what fits, and moves what does not"
    return [fixes.install(facts, *users, "transformers") + note, f"or: {beside}"]


def _comes_again(facts: Facts, error: Optional[ErrorFact]) -> tuple[str, ...]:
    """What is left where pip has brought the release, and the check still finds the other one.

    The check's words tell no folder, so that a copy which comes before the environment's is not seen in them.
    """
    if error is None or not error.values.get("found") or facts.origin == "live":
        return ()
    return (f"If the same message comes again, another copy comes first: {fixes.unset(facts, 'PYTHONPATH')}",)


def _pulled_both_ways(facts: Facts, package: str, specifier: str, error: ErrorFact) -> Finding:
    name = error.values.get("name", "")
    bound = bound_of(package, name) or ""
    change = change_of(package, name)
    known = [item.package for item in askers_of(change)] if change else []
    askers = [asker for asker in (*known, *users_without(package, name)) if may_install(facts, asker)][:3]
    return Finding(
        "package-versions-do-not-fit",
        "error",
        f"transformers wants {package}{specifier}, and a package beside it imports {name}, which is gone there",
        f"{name} was in {package} before {bound[1:]}. No release fits both: who imports it has to be newer.",
        {**evidence(**{package.replace("-", "_"): facts.package(package)}, name=name), **seen(error)},
        (
            fixes.install(facts, *askers, f"{package}{specifier}", upgrade=True),
            f"The frame above the import of {name} names the package that asks; an extension of a program comes with "
            "newer releases of its own.",
            "Restart the program.",
        ),
        "https://pip.pypa.io/en/stable/cli/pip_check/",
        affects=(*MODEL_BENCHES, "tokens"),
        observed=True,
    )


def _named(package: str, version: Optional[str]) -> str:
    return f"{package} {version}" if version else package


def _since(package: str, error: Optional[ErrorFact]) -> str:
    """When a package gained the name that an import does not find; ``""`` where the table does not say."""
    name = error.values.get("name") if error else None
    bound = bound_of(package, name) or ""
    return f"{name} came with {package} {bound[2:]}." if bound.startswith(">=") else ""


def _asks(package: str, error: Optional[ErrorFact]) -> str:
    """The one package that is known to ask for the name that is not there; ``""`` where several may."""
    users = users_without(package, error.values.get("name")) if error else {}
    return next(iter(users)) if len(users) == 1 else ""


def _held_back(facts: Facts, package: str, error: ErrorFact) -> Optional[Finding]:
    """One package needs a newer `package` than another one that is installed allows."""
    name = error.values.get("name")
    bound = bound_of(package, name)
    floor = (bound or "")[2:]
    holder = next(
        (
            item
            for item in facts.conflicts or ()
            if (wanted := parse_requirement(item.requires)) is not None
            and wanted.name == package
            and satisfies(floor, wanted.specifier) is False
        ),
        None,
    )
    if holder is None or not (bound or "").startswith(">="):
        return None
    users = users_without(package, name)
    allows = parse_requirement(holder.requires)
    older_users = [f"{user}{versions}" for user, versions in users.items()]
    family = ("transformers", "tokenizers") if holder.package in ("transformers", "tokenizers") else (holder.package,)
    return Finding(
        IMPORT_FINDINGS[package],
        "error",
        f"{holder.package} {holder.version or ''} is older than {' and '.join(users) or 'what stands beside it'}: the "
        f"two want different {package}",
        f"'{name}' came with {package} {floor}; {holder.package} {holder.version or ''} refuses that. Upgrading "
        f"{package} alone only moves the error.",
        {**evidence(requires=holder.requires, found=holder.found, name=name), **seen(error)},
        (
            fixes.install(facts, *dict.fromkeys((*family, *users, package)), upgrade=True),
            *(
                (
                    f"or, to keep {holder.package}: "
                    + fixes.install(facts, *older_users, f"{package}{allows.specifier if allows else ''}"),
                )
                if older_users
                else ()
            ),
        ),
        ISSUES + "huggingface/transformers/pull/41973",
        affects=MODEL_BENCHES,
        observed=True,
    )


def other_pin(facts: Facts) -> Result:
    """Any other of the pins that transformers checks when it is imported."""
    error = facts.error("pin-conflict")
    if error is None or error.values.get("package", "").replace("_", "-").lower() in ("huggingface-hub", "tokenizers"):
        return PASSED
    package, specifier = error.values.get("package", "a package"), "".join(error.values.get("spec", "").split())
    llamafactory = error.values.get("program") == "llamafactory"
    who = "LLaMA-Factory" if llamafactory else "transformers" if package != "transformers" else "The program"
    return [
        Finding(
            "transformers-pin-conflict",
            "error",
            f"{who} needs {package}{specifier}",
            "It checks this when it starts and refuses to go on.",
            {**evidence(found=error.values.get("found")), **seen(error)},
            (
                fixes.install(facts, f"{package}{specifier}"),
                *_comes_again(facts, error),
                *(
                    (
                        "or, for a model that wants the newer one: git pull in LLaMA-Factory's folder; until then: "
                        + fixes.export(facts, "DISABLE_VERSION_CHECK", "1"),
                    )
                    if llamafactory
                    else ()
                ),
            ),
            "https://huggingface.co/docs/transformers/installation",
            affects=MODEL_BENCHES,
            observed=True,
        )
    ]


RULES: tuple[Rule, ...] = (
    hub_pin,
    tokenizers_pin,
    other_pin,
)
