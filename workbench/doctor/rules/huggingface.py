"""Rules about transformers and its neighbours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Optional

from workbench.doctor import fixes, upgrades
from workbench.doctor.changes import askers_of, change_of, name_asked_for
from workbench.doctor.facts import Conflict, ErrorFact, Facts, ProbeStep
from workbench.doctor.findings import Finding
from workbench.doctor.parse.draft import REMARKS
from workbench.doctor.rules.common import ISSUES, PASSED, Result, Rule, evidence, model_left_out, seen
from workbench.doctor.rules.guess import decided_name
from workbench.doctor.rules.unknown.apart import first_without
from workbench.doctor.rules.unknown.packages import callers_of, may_install
from workbench.doctor.tables import WHEELS, newer_than_table, table, transformers_release
from workbench.doctor.versions import at_least, older, parse_requirement, parse_version, satisfies

MODELS = ("chat", "architecture", "vram")


def transformers_missing(facts: Facts) -> Result:
    """No transformers."""
    if not facts.lacks("transformers"):
        return None if facts.package("transformers") is None else PASSED
    if facts.origin != "live":
        return PASSED
    return [
        Finding(
            "transformers-missing",
            "warning",
            "transformers is not installed: no model can be loaded",
            "Architectures and weights are built by transformers; GGUF headers and tokenizer files are read without "
            "it.",
            evidence(interpreter=facts.python.executable),
            (*fixes.preparation(facts), fixes.install(facts, "transformers", "accelerate")),
            "https://huggingface.co/docs/transformers/installation",
            affects=MODELS,
            observed=True,
        )
    ]


def too_new_for_torch(facts: Facts) -> Result:
    """transformers ignores a torch older than it wants."""
    error = facts.error("pytorch-disabled", "torch-attribute")
    version, torch = facts.package("transformers"), facts.torch.version
    row = transformers_release(version)
    old = older(torch, row["torch"]) if row and torch else None
    if error is None and old is None:
        return None
    if error is None and not old:
        return PASSED
    gained = _gained(error, torch)
    if error is not None and error.id == "torch-attribute" and old is False and gained is None:
        return PASSED
    needed = (error.values.get("needed") if error else None) or gained or (row["torch"] if row else None)
    found = (error.values.get("found") if error else None) or torch
    older_release = upgrades.transformers_beyond(found)
    if older_release and older(version, older_release):  # the message asks for more than the table knows of
        older_release = f"{str(version).partition('.')[0]}.0"
    beyond = newer_than_table("transformers", version)
    # Where nothing tells of transformers, another package may be the one that asks.
    other = version is None and error is not None and error.id == "torch-attribute"
    asker = next((name for name in callers_of(error) if name in table("requirements")), "") if error and gained else ""
    other = other or asker not in ("", "transformers")
    named = f"{asker} {facts.package(asker) or ''}".strip() if asker else "A package in the traceback"
    asking = named if other else f"transformers {version or ''}"
    return [
        Finding(
            "transformers-too-new-for-torch",
            "error",
            f"{asking} needs torch {needed or 'newer than this one'}".replace("  ", " ")
            + (f", but {found} is installed" if found else ""),
            "transformers does not refuse an old torch, it leaves it out; what fails later speaks of a missing PyTorch."
            + (
                " This release is newer than the tables; its needs are at least those of the last known one."
                if beyond
                else ""
            ),
            {
                **evidence(transformers=version, torch__version=found, needs=needed and f"torch>={needed}"),
                **seen(error),
            },
            (
                *fixes.reinstall_torch(facts, keep_release=False),
                *(
                    ("or: " + fixes.install(facts, f"transformers<{older_release}"),)
                    if older_release and not other
                    else ()
                ),
            ),
            ISSUES + "huggingface/transformers/issues/31385",
            affects=MODELS,
            observed=error is not None,
        )
    ]


def _gained(error: Optional[ErrorFact], torch: Optional[str]) -> Optional[str]:
    """The torch release that brought the attribute which an error misses; None where the table has it not."""
    name = re.search(r"has no attribute '(\w{2,60})'", error.text) if error else None
    change = change_of("torch", name[1], torch) if name else None
    return change.version if change is not None and change.added else None


def torch_load_refused(facts: Facts) -> Result:
    """transformers reads pickled weights only with torch 2.6 or newer."""
    error = facts.error("torch-load-refused")
    if error is None or at_least(facts.torch.version, "2.6"):
        return PASSED
    return [
        Finding(
            "torch-load-needs-2-6",
            "error",
            f"transformers opens pickled weights only with torch 2.6 or newer{_but(facts.torch.version)}",
            "Before 2.6 a crafted file could run code even with weights_only=True (CVE-2025-32434); safetensors are "
            "opened with any torch.",
            {**evidence(torch__version=facts.torch.version, transformers=facts.package("transformers")), **seen(error)},
            (
                *_newer_torch(facts),
                "or, where the model has safetensors files beside them: use_safetensors=True",
            ),
            ISSUES + "huggingface/transformers/issues/38464",
            affects=MODELS,
            observed=True,
        )
    ]


def _but(version: Optional[str]) -> str:
    return f", and this is {version}" if version else ""


def _newer_torch(facts: Facts) -> tuple[str, ...]:
    return fixes.reinstall_torch(facts, keep_release=False)


def python_too_old(facts: Facts) -> Result:
    """transformers needs a newer Python."""
    version, python = facts.package("transformers"), facts.python.version
    row = transformers_release(version)
    if row is None or python is None:
        return None
    if not older(python, row["python"]):
        return PASSED
    return [
        Finding(
            "transformers-needs-newer-python",
            "error",
            f"transformers {version} needs Python {row['python']}, this is {python}",
            "pip would not have installed it; it was forced or copied.",
            evidence(transformers=version, python=python, needs=f"python>={row['python']}"),
            (
                f"Make an environment with Python {row['python']} or newer: {fixes.new_environment()}",
                "or: " + fixes.install(facts, f"transformers<{_first_refusing(python)}"),
            ),
            str(row["source"]),
            affects=MODELS,
        )
    ]


def _first_refusing(python: str) -> str:
    return next(str(row["from"]) for row in table("transformers")["release"] if older(python, row["python"]))


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
    importer = (_importer(package, import_error) if import_error else "") or "transformers"
    held = _held_back(facts, package, import_error) if error is None and import_error else None
    if held is not None:
        return [held]
    if error is None and import_error and (met or (met is None and importer != "transformers")):
        return [_import_error(facts, package, import_error)]
    if error is None and import_error and version is None and not _asks(package, import_error):
        told = decided_name(facts, import_error) if importer == "transformers" else None
        if told is not None and not import_error.values.get("importer"):
            return [replace(told, id=id, affects=(*MODELS, "tokens"))]
    if specifier:
        bound = _bound(package, import_error.values.get("name")) if import_error else None
        floor = re.search(r">=(\d[\d.]*)", specifier)
        # One program wants it newer, another older: the second has to be a newer one itself.
        if import_error and bound and bound.startswith("<") and floor and not older(floor[1], bound[1:]):
            return [_pulled_both_ways(facts, package, specifier, import_error)]
        specifier = f"{specifier.rsplit(',<', 1)[0]},{bound}" if bound and bound.startswith("<") else specifier
        fix = _repair(facts, f"{package}{specifier}", error)
        if older(version, "5.0") or version is None:
            fix.append("or: " + fixes.install(facts, "transformers", upgrade=True))
    elif import_error and _bound(package, import_error.values.get("name")):
        fix = list(_import_fix(facts, package, "transformers", import_error))
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
            tuple(fix),
            source,
            affects=(*MODELS, "tokens"),
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


def _pulled_both_ways(facts: Facts, package: str, specifier: str, error: ErrorFact) -> Finding:
    name = error.values.get("name", "")
    bound = _bound(package, name) or ""
    change = change_of(package, name)
    known = [item.package for item in askers_of(change)] if change else []
    askers = [asker for asker in (*known, *_without(package, name)) if may_install(facts, asker)][:3]
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
        affects=(*MODELS, "tokens"),
        observed=True,
    )


def _named(package: str, version: Optional[str]) -> str:
    return f"{package} {version}" if version else package


def _since(package: str, error: Optional[ErrorFact]) -> str:
    """When a package gained the name that an import does not find; ``""`` where the table does not say."""
    name = error.values.get("name") if error else None
    bound = _bound(package, name) or ""
    return f"{name} came with {package} {bound[2:]}." if bound.startswith(">=") else ""


def _asks(package: str, error: Optional[ErrorFact]) -> str:
    """The one package that is known to ask for the name that is not there; ``""`` where several may."""
    users = _without(package, error.values.get("name")) if error else {}
    return next(iter(users)) if len(users) == 1 else ""


def _held_back(facts: Facts, package: str, error: ErrorFact) -> Optional[Finding]:
    """One package needs a newer `package` than another one that is installed allows."""
    name = error.values.get("name")
    bound = _bound(package, name)
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
    users = _without(package, name)
    allows = parse_requirement(holder.requires)
    older_users = [f"{user}{versions}" for user, versions in users.items()]
    family = ("transformers", "tokenizers") if holder.package in ("transformers", "tokenizers") else (holder.package,)
    return Finding(
        _IMPORT_ERRORS[package],
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
        affects=MODELS,
        observed=True,
    )


def _without(package: str, name: Optional[str]) -> dict[str, str]:
    """The packages that ask for a name from some version on, and their versions that do not."""
    for row in table("transformers")["name"]:
        if row["package"] == package and row["name"] == name:
            return {str(user): str(versions) for user, versions in row.get("without", {}).items()}
    return {}


def library_import(facts: Facts) -> Result:
    """One library of the family imports from another what that one's version does not have."""
    error = facts.error("library-import")
    if error is None:
        return None
    if model_left_out(facts):
        return PASSED  # torch is what is missing
    return [_import_error(facts, error.values.get("package") or error.values["package2"], error)]


_IMPORT_ERRORS = {
    "huggingface-hub": "huggingface-hub-import-error",
    "tokenizers": "tokenizers-import-error",
    "transformers": "transformers-import-error",
    "accelerate": "accelerate-import-error",
    "peft": "peft-import-error",
    "trl": "trl-import-error",
}


def _import_error(facts: Facts, package: str, error: ErrorFact) -> Finding:
    importer = _importer(package, error)
    if importer == package:
        return _half_upgraded(facts, package, error)
    name = error.values.get("name") or error.values.get("module")
    told = decided_name(facts, error)
    if told is not None and (_bound(package, name) is None or not (importer or _without(package, name))):
        return replace(told, id=_IMPORT_ERRORS[package], affects=MODELS)
    return Finding(
        _IMPORT_ERRORS[package],
        "error",
        told.title if told else f"{importer or 'Something'} imports from {package} what this version does not have",
        f"{importer or 'A package beside it'} was written for another version of {package}: newer, when the name came "
        "later; older, when it is gone.",
        {
            **evidence(**{package.replace("-", "_"): facts.package(package)}, name=name, importer=importer),
            **seen(error),
        },
        _import_fix(facts, package, importer, error),
        ISSUES + "huggingface/transformers/pull/41973",
        affects=MODELS,
        observed=True,
    )


def _importer(package: str, error: ErrorFact) -> str:
    """Who imports what `package` does not have; ``""`` where nothing tells."""
    caller = error.values.get("callers", "").split(",")[0]
    # A lazy import names the file that was loaded first: what that asks of its own package lies deeper than the top.
    own = f"from '{package}." in error.text or f"No module named '{package}." in error.text
    lazily = caller if caller != package or own else ""
    return (error.values.get("importer") or lazily).replace("_", "-").lower()


def _half_upgraded(facts: Facts, package: str, error: ErrorFact) -> Finding:
    return Finding(
        _IMPORT_ERRORS[package],
        "error",
        f"{package} does not fit itself: files of two versions are in use",
        "A module of the package asks another one of the same package for a name that it does not have: it was "
        "upgraded while a program had it in memory, or an install over it left files of both.",
        {
            **evidence(**{package.replace("-", "_"): facts.package(package)}, name=error.values.get("name")),
            **seen(error),
        },
        (
            fixes.install(facts, package, options="--force-reinstall --no-deps --no-cache-dir")
            + "   # not needed where it was upgraded while the program ran: then the restart is enough",
            "Restart the notebook kernel or the program.",
        ),
        ISSUES + "huggingface/transformers/issues/36503",
        affects=MODELS,
        observed=True,
    )


def _import_fix(facts: Facts, package: str, importer: str, error: ErrorFact) -> tuple[str, ...]:
    bound = _bound(package, error.values.get("name"))
    users = _without(package, error.values.get("name"))
    # Where no traceback tells who asks, it is who the table knows to ask.
    importer = importer or (next(iter(users)) if len(users) == 1 else "")
    earlier = users.get(importer)
    if earlier and package == "transformers":
        # Projects that pin transformers stay as they are: the importer gives way.
        return (
            fixes.install(facts, f"{importer}{earlier}") + f"   # the last that fits this {package}",
            f"or, where nothing pins {package}: " + fixes.install(facts, importer, package, upgrade=True),
        )
    if package == "accelerate" and not bound and importer in _UPGRADABLE:
        # What these ask of accelerate came with one of its releases; it has hardly ever taken a name away.
        return (
            fixes.install(facts, package, upgrade=True),
            f"or, with what asks for it: {fixes.install(facts, importer, package, upgrade=True)}",
        )
    if bound:
        removed = bound.startswith("<")
        floor = first_without(change_of(package, error.values.get("name", "")), importer) if removed else ""
        upgrade = fixes.install(facts, importer, upgrade=True) if importer in _UPGRADABLE else ""
        upgrade = fixes.lift(facts, f"{importer}{floor}", package) if upgrade and floor else upgrade
        return tuple(
            filter(
                None,
                (
                    upgrade if removed else "",
                    ("or, to keep the rest as it is: " if removed and upgrade else "")
                    + fixes.install(facts, f"{package}{bound}"),
                ),
            )
        )
    if importer in _UPGRADABLE or (importer and may_install(facts, importer)):
        return (fixes.install(facts, importer, package, upgrade=True),)
    names = dict.fromkeys((package, *(name for name in ("transformers", "peft", "accelerate") if facts.package(name))))
    if not importer:
        return (
            f"Install the {package} that the program was written for; its requirements.txt or README names it.",
            f"{fixes.python_command(facts)} -m pip index versions {package}   # where neither does: one of its time",
            "or, for a program written for the newest: " + fixes.install(facts, *names, upgrade=True),
        )
    return (
        "Upgrade the package that the traceback comes from, and this with it: "
        + fixes.install(facts, *names, upgrade=True),
    )


_UPGRADABLE = frozenset(("transformers", "accelerate", "peft", "trl", "diffusers", "sentence-transformers", "datasets"))


def _bound(package: str, name: Optional[str]) -> Optional[str]:
    """The versions of a package that have a name, such as ``<0.26``; None when it is not in the table."""
    for row in table("transformers")["name"]:
        if row["package"] == package and row["name"] == name:
            return str(row["versions"])
    return None


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
            affects=MODELS,
            observed=True,
        )
    ]


def accelerate(facts: Facts) -> Result:
    """accelerate is missing or too old."""
    error = facts.error("accelerate-required", "accelerate-name") or facts.error("accelerate-looked-for")
    version, found = facts.package("transformers"), facts.package("accelerate")
    row = transformers_release(version)
    too_old = bool(row and found and older(found, row["accelerate"]))
    absent = facts.lacks("accelerate")
    if error is None and not too_old and not absent:
        return None if found is None else PASSED
    if error is None and absent and (facts.origin != "live" or facts.lacks("transformers")):
        return PASSED
    named = error is not None and error.id == "accelerate-name"
    if error is not None and not named and facts.platform.system == "Darwin" and "load_in_" in error.text:
        return [_quantized_on_mac(facts, error)]
    if error is not None and found and not too_old and not named and older(version, "4.43"):
        return [_accelerate_red_herring(facts, error)]
    if error is not None and found and not too_old and not named:
        return [_restart(facts, error)]
    minimum = row["accelerate"] if row and not (named and found and not too_old) else None
    asked = re.search(r"accelerate ?>= ?(\d[\d.]{0,8}\d)", error.text) if error else None
    floor = asked[1] if asked else minimum if too_old else None
    return [
        Finding(
            "accelerate-missing",
            "error" if error or too_old else "warning",
            f"accelerate {found} is too old"
            if found
            else f"accelerate is not there, or older than {asked[1]}, where this program runs"
            if asked
            else "accelerate is not installed: no device_map, no 4-bit loading",
            "transformers hands placing and quantized loading to accelerate."
            + (f" It wants {minimum} or newer." if minimum else ""),
            {**evidence(transformers=version, accelerate=found), **seen(error)},
            (
                fixes.lift(facts, f"accelerate>={floor}")
                if floor
                else fixes.install(facts, "accelerate", upgrade=True),
                *(
                    (
                        f'{fixes.python_command(facts)} -c "import sys, accelerate; print(sys.executable, '
                        'accelerate.__version__)"   # with the Python that the program runs under: is it this one?',
                    )
                    if asked
                    else ()
                ),
                "Restart the notebook kernel or the program afterwards.",
            ),
            ISSUES + "huggingface/transformers/issues/24539",
            affects=("chat", "vram"),
            observed=error is not None,
        )
    ]


def _quantized_on_mac(facts: Facts, error: ErrorFact) -> Finding:
    return Finding(
        "accelerate-message-without-cuda",
        "error",
        "A Mac has no CUDA, which loading in 4 or 8 bits asks for here",
        "The message names accelerate and bitsandbytes, but came also where torch saw no NVIDIA GPU; bitsandbytes has "
        "code for Apple's machines from 0.49 on.",
        {**evidence(transformers=facts.package("transformers"), system="macOS"), **seen(error)},
        (
            fixes.install(facts, "transformers", "accelerate", "bitsandbytes>=0.49", upgrade=True),
            "or load without load_in_8bit and load_in_4bit, on device 'mps'; or a GGUF file with llama.cpp",
        ),
        ISSUES + "bitsandbytes-foundation/bitsandbytes/issues/252",
        affects=("chat", "vram"),
        observed=True,
    )


def _accelerate_red_herring(facts: Facts, error: ErrorFact) -> Finding:
    return Finding(
        "accelerate-message-without-cuda",
        "error",
        "transformers asks for accelerate, but means that CUDA is missing",
        "Before 4.43 the message 'requires Accelerate' also came when torch saw no GPU; accelerate is installed here.",
        {**evidence(accelerate=facts.package("accelerate"), transformers=facts.package("transformers")), **seen(error)},
        (f'{fixes.python_command(facts)} -c "import torch; print(torch.cuda.is_available())"',),
        ISSUES + "huggingface/transformers/issues/24539",
        affects=("chat", "vram"),
        observed=True,
    )


def _restart(facts: Facts, error: ErrorFact) -> Finding:
    return Finding(
        "stale-notebook-kernel",
        "error",
        "accelerate is installed, but the running program does not see it",
        "It was installed after the program started, or into another environment.",
        {**evidence(accelerate=facts.package("accelerate")), **seen(error)},
        ("Restart the notebook kernel or the program.", f"{fixes.python_command(facts)} -m pip show accelerate"),
        ISSUES + "huggingface/transformers/issues/24539",
        affects=("chat", "vram"),
        observed=True,
    )


def transformers_import_broken(facts: Facts) -> Result:
    """transformers does not import, or finds no torch; the generic case."""
    step = facts.probe("transformers")
    error = facts.error("no-framework")
    if step is None and error is None:
        return None
    failed = step is not None and step.status in ("failed", "crashed", "timeout")
    if not failed and (error is None or len(facts.errors) > 1):
        return PASSED  # a notice, where something else is what fails
    detail = step.detail.strip().splitlines()[0][:200] if step and step.detail.strip() else None
    return [
        Finding(
            "transformers-import-broken",
            "error",
            f"transformers does not import: {detail}" if failed and detail else "transformers finds no usable torch",
            "It reports what fails last; the first line of the output names the cause.",
            {
                **evidence(
                    transformers=facts.package("transformers"), torch__version=facts.torch.version, detail=detail
                ),
                **seen(error),
            },
            (fixes.install(facts, "transformers", upgrade=True),)
            if failed
            else (
                fixes.fresh_torch(facts, upgrade=True) + "   # where it is missing in this very Python, or too old",
                f'{fixes.python_command(facts)} -c "import torch; print(torch.__version__)"   # an error is the cause',
            ),
            "https://huggingface.co/docs/transformers/installation",
            affects=MODELS,
            observed=True,
        )
    ]


_FAMILY = {
    "safetensors": "safetensors-import-broken",
    "tokenizers": "tokenizers-import-broken",
    "accelerate": "accelerate-import-broken",
    "peft": "peft-import-broken",
}


def family_import_broken(facts: Facts) -> Result:
    """A package beside transformers that is installed, but does not import."""
    tried = [step for step in map(facts.probe, _FAMILY) if step is not None and step.status != "skipped"]
    if not tried:
        return None
    return [_does_not_import(facts, step) for step in tried if step.status in ("failed", "crashed")]


def _does_not_import(facts: Facts, step: ProbeStep) -> Finding:
    detail = next((line.strip() for line in step.detail.splitlines() if line.strip()), step.status)[:200]
    detail = detail.removeprefix(f"{step.step} is installed, but does not import: ")
    basis = step.step in ("safetensors", "tokenizers")
    return Finding(
        _FAMILY[step.step],
        "error",
        f"{step.step} is installed, but does not import: {detail}",
        "transformers itself needs it, so no model can be loaded."
        if basis
        else "Adapters and training go through it."
        if step.step == "peft"
        else "transformers hands placing and quantized loading to it.",
        evidence(**{step.step: facts.package(step.step), "transformers": facts.package("transformers")}, detail=detail),
        (
            f'{fixes.python_command(facts)} -c "import {step.step}"   # the whole traceback',
            fixes.install(facts, step.step, options="--force-reinstall --no-deps"),
            *(
                ()
                if basis
                else ("or with its neighbours: " + fixes.install(facts, step.step, "transformers", upgrade=True),)
            ),
        ),
        f"https://huggingface.co/docs/{step.step}",
        affects=MODELS if basis else ("chat", "vram"),
        observed=True,
    )


_NOTABLE = frozenset(
    (
        "torch",
        "torchvision",
        "torchaudio",
        "transformers",
        "tokenizers",
        "huggingface-hub",
        "accelerate",
        "peft",
        "trl",
        "bitsandbytes",
        "xformers",
        "flash-attn",
        "vllm",
        "datasets",
    )
)


_OF_TORCH = frozenset(("torch", "torchvision", "torchaudio", "xformers", "vllm"))


def requirement_conflicts(facts: Facts) -> Result:
    """Declared requirements that are not met, as pip check finds them."""
    if facts.conflicts is None:
        return None
    notable = [item for item in facts.conflicts if item.package in _NOTABLE or name_asked_for(item) in _NOTABLE]
    if not notable and _tells_of_nothing_else(facts):
        notable = list(facts.conflicts)
    if not notable:
        return PASSED
    notable.sort(key=lambda item: item.found is None)  # a release that does not fit tells more than one that is absent
    shown = {
        f"{item.package} {item.version or ''}".strip(): f"needs {item.requires}, found {item.found or 'nothing'}"
        for item in notable[:12]
    }
    return [
        Finding(
            "requirement-conflicts",
            "warning",
            _title_of(notable),
            "pip allowed it, or something was installed past it; it may work until the missing part is used.",
            shown,
            (
                *dict.fromkeys(_as_asked(facts, item) for item in notable[:4]),
                *_newer_askers(facts, notable),
                *_older_askers(notable),
            ),
            "https://pip.pypa.io/en/stable/cli/pip_check/",
            affects=MODELS,
        )
    ]


def _title_of(conflicts: Sequence[Conflict]) -> str:
    first, asker = conflicts[0], f"{conflicts[0].package} {conflicts[0].version or ''}".strip()
    met = f"and {first.found} is here" if first.found else "which is not there, or not in such a release"
    more = sorted({item.package for item in conflicts} - {first.package})
    beside = f"; more is not met: {', '.join(more[:3])}" if more else ""
    return f"{asker} asks for {first.requires}, {met}{beside}"


def _tells_of_nothing_else(facts: Facts) -> bool:
    """Whether a paste is a sentence or two of pip's, and no list of packages that has many such lines."""
    told = {error.id for error in facts.errors} - REMARKS - {"installed-in-vain"}
    return facts.origin == "report" and set(facts.formats) <= {"messages", "pip install"} and not told


def _as_asked(facts: Facts, conflict: Conflict) -> str:
    """The command that meets a requirement; builds for one CUDA stand on PyTorch's own index alone."""
    tag = re.search(r"==[\d.]+\+(cu\d{2,3}|cpu)$", conflict.requires)
    return fixes.install(facts, conflict.requires, options=f"--index-url {WHEELS}/{tag[1]}" if tag else "")


def _newer_askers(facts: Facts, conflicts: Sequence[Conflict]) -> tuple[str, ...]:
    """The other way out where packages are newer than what is asked for: newer releases of those that ask."""
    capped = [
        item
        for item in conflicts[:4]
        if item.found and re.search(r"<|==", item.requires) and item.package not in _OF_TORCH
    ]
    askers = sorted({item.package for item in capped if may_install(facts, item.package)})
    kept = ", ".join(sorted({f"{name_asked_for(item)} {item.found}" for item in capped}))
    return (f"or, to keep {kept}: {fixes.install(facts, *askers, upgrade=True)}",) if askers else ()


def _older_askers(conflicts: Sequence[Conflict]) -> tuple[str, ...]:
    """The other way out where packages are older than what is asked for: older releases of those that ask."""
    floors = [item for item in conflicts[:4] if item.found and re.search(r">=|>|~=", item.requires)]
    asked = sorted({f"{name_asked_for(item)} {item.found}" for item in floors})
    known = {"opencv-python": "4.12", "opencv-python-headless": "4.12", "opencv-contrib-python": "4.12"}
    limits = [
        f"'{item.package}<{known[item.package]}'" if item.package in known else f"'{item.package}<{item.version}'"
        for item in floors
        if item.version
    ]
    return (f"or, to keep {', '.join(asked)}: older releases, such as {' '.join(limits)}",) if limits else ()


def peft_version(facts: Facts) -> Result:
    """transformers 5 wants a newer peft."""
    transformers, peft = facts.package("transformers"), facts.package("peft")
    if parse_version(transformers) is None or peft is None:
        return None
    wanted = next(
        (
            need
            for bound, need in (("5.18", "0.20"), ("5.10", "0.19"), ("5.0", "0.18"))
            if at_least(transformers, bound)
        ),
        None,
    )
    if wanted is None or not older(peft, wanted):
        return PASSED
    return [
        Finding(
            "peft-too-old",
            "warning",
            f"peft {peft} is too old for transformers {transformers}",
            f"It asks for peft {wanted} or newer; adapters fail to load otherwise.",
            evidence(peft=peft, transformers=transformers),
            (fixes.install(facts, f"peft>={wanted}"),),
            ISSUES + "huggingface/peft",
            affects=("chat", "vram"),
        )
    ]


RULES: tuple[Rule, ...] = (
    transformers_missing,
    python_too_old,
    too_new_for_torch,
    torch_load_refused,
    hub_pin,
    tokenizers_pin,
    other_pin,
    accelerate,
    family_import_broken,
    transformers_import_broken,
    peft_version,
    library_import,
    requirement_conflicts,
)
