"""Rules about a library of Hugging Face that does not import, or lacks a name that another one asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.changes import change_of
from workbench.doctor.facts import ErrorFact, Facts, ProbeStep
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ISSUES, MODEL_BENCHES, PASSED, Result, Rule, evidence, model_left_out, seen
from workbench.doctor.rules.guess import decided_name
from workbench.doctor.rules.unknown.apart import first_without
from workbench.doctor.rules.unknown.instead import no_package
from workbench.doctor.rules.unknown.packages import may_install
from workbench.doctor.tables import names_read, table
from workbench.doctor.versions import at_least, older, parse_version


def users_without(package: str, name: Optional[str]) -> dict[str, str]:
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
    package = error.values.get("package") or error.values["package2"]
    return [no_package(facts, error) or import_finding(facts, package, error)]


IMPORT_FINDINGS = {
    "huggingface-hub": "huggingface-hub-import-error",
    "tokenizers": "tokenizers-import-error",
    "transformers": "transformers-import-error",
    "accelerate": "accelerate-import-error",
    "peft": "peft-import-error",
    "trl": "trl-import-error",
}


def import_finding(facts: Facts, package: str, error: ErrorFact) -> Finding:
    importer = importer_in(package, error)
    if importer == package:
        return _half_upgraded(facts, package, error)
    name = error.values.get("name") or error.values.get("module")
    told = decided_name(facts, error)
    if told is not None and (bound_of(package, name) is None or not (importer or users_without(package, name))):
        return replace(told, id=IMPORT_FINDINGS[package], affects=MODEL_BENCHES)
    first = next(iter(names_read(package).get("added", {})), "0")
    if told is None and older(facts.package(package), first):
        return _before_the_tables(facts, package, name or "", error)
    return Finding(
        IMPORT_FINDINGS[package],
        "error",
        told.title if told else f"{importer or 'Something'} imports from {package} what this version does not have",
        f"{importer or 'A package beside it'} was written for another version of {package}: newer, when the name came "
        "later; older, when it is gone.",
        {
            **evidence(**{package.replace("-", "_"): facts.package(package)}, name=name, importer=importer),
            **seen(error),
        },
        import_fix(facts, package, importer, error),
        ISSUES + "huggingface/transformers/pull/41973",
        affects=MODEL_BENCHES,
        observed=True,
    )


def _before_the_tables(facts: Facts, package: str, name: str, error: ErrorFact) -> Finding:
    """A release older than all whose names were read, which lacks what no later one is known to have taken away."""
    version = facts.package(package)
    return Finding(
        IMPORT_FINDINGS[package],
        "error",
        f"{package} {version} is too old for the program: it has no {name} yet",
        f"{version} is older than every {package} whose names are known here; no later one is known to have taken this "
        "name away.",
        {**evidence(**{package.replace("-", "_"): version}, name=name), **seen(error)},
        (
            fixes.install(facts, package, upgrade=True) + "   # or the release that the program's requirements name",
            "Restart the notebook kernel or the program, in case it was upgraded while running.",
        ),
        f"https://pypi.org/project/{package}/#history",
        affects=MODEL_BENCHES,
        observed=True,
    )


def importer_in(package: str, error: ErrorFact) -> str:
    """Who imports what `package` does not have; ``""`` where nothing tells."""
    caller = error.values.get("callers", "").split(",")[0]
    # A lazy import names the file that was loaded first: what that asks of its own package lies deeper than the top.
    own = f"from '{package}." in error.text or f"No module named '{package}." in error.text
    lazily = caller if caller != package or own else ""
    return (error.values.get("importer") or lazily).replace("_", "-").lower()


def _half_upgraded(facts: Facts, package: str, error: ErrorFact) -> Finding:
    return Finding(
        IMPORT_FINDINGS[package],
        "error",
        f"{package} does not fit itself: files of two versions are in use",
        "A module of the package asks another one of the same package for a name that it does not have: it was "
        "upgraded while a program had it in memory, or an install over it left files of both.",
        {
            **evidence(**{package.replace("-", "_"): facts.package(package)}, name=error.values.get("name")),
            **seen(error),
        },
        (
            fixes.anew(facts, package),
            "Restart the notebook kernel or the program; where it was upgraded while that ran, this is enough.",
        ),
        ISSUES + "huggingface/transformers/issues/36503",
        affects=MODEL_BENCHES,
        observed=True,
    )


def import_fix(facts: Facts, package: str, importer: str, error: ErrorFact) -> tuple[str, ...]:
    bound = bound_of(package, error.values.get("name"))
    users = users_without(package, error.values.get("name"))
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


def bound_of(package: str, name: Optional[str]) -> Optional[str]:
    """The versions of a package that have a name, such as ``<0.26``; None when it is not in the table."""
    for row in table("transformers")["name"]:
        if row["package"] == package and row["name"] == name:
            return str(row["versions"])
    return None


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
            affects=MODEL_BENCHES,
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
        affects=MODEL_BENCHES if basis else ("chat", "vram"),
        observed=True,
    )


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
    family_import_broken,
    transformers_import_broken,
    peft_version,
    library_import,
)
