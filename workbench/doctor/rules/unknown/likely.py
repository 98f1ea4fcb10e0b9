"""Errors that no table knows, of which the place where they were raised tells the likely cause. Needs the tables."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.changes import by_time, installed_version
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import evidence, seen
from workbench.doctor.rules.unknown.packages import PIP_CHECK, RESTART, callers_of, may_install

_CHECK = "python -m pip check   # what the installed packages ask of each other, and do not get"
_UNSLOTH = ("unsloth", "unsloth-zoo")


def likely_apart(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """Packages that most likely do not fit, where an error was raised in Unsloth's patches or during an import."""
    callers = [name for name in callers_of(error) if name]
    if error.values.get("stage") == "model code" and _OF_CODE.match(error.text):
        return _model_code(facts, error)
    if callers and callers[0] in _UNSLOTH:
        return _unsloth(facts, error)
    if callers and error.values.get("stage") == "import" and may_install(facts, callers[0]):
        return _import_fails(facts, error, callers)
    return None


# Errors of code that was written for other releases; memory and devices have others.
_OF_CODE = re.compile(r"(?:[\w.]{0,60}\.)?(?:Attribute|Type|Name|Import|ModuleNotFound|Key)Error: ")


def _model_code(facts: Facts, error: ErrorFact) -> Finding:
    have = facts.package("transformers")
    return Finding(
        "model-code-too-old",
        "warning",
        f"Likely: the model brings code of its own that does not fit transformers {have or 'as it is here'}",
        "Repositories with trust_remote_code are written for the transformers of their day; what they take from inside "
        "it has moved or gone since, or came later.",
        {**evidence(transformers=have), **seen(error)},
        (
            "grep transformers_version <the model's folder>/config.json   # then: python -m pip install "
            "transformers==<that version>",
            "or newer files of the model: hf download <model> --force-download   # its owner may have mended the code",
            "or without trust_remote_code, where transformers knows the architecture itself by now",
        ),
        "https://huggingface.co/docs/transformers/custom_models",
        affects=("chat", "architecture"),
        observed=True,
    )


def _unsloth(facts: Facts, error: ErrorFact) -> Finding:
    around = {name.replace("-", "_"): facts.package(name) for name in (*_UNSLOTH, "transformers", "trl", "peft")}
    return Finding(
        "package-versions-do-not-fit",
        "warning",
        "Likely: Unsloth does not fit the transformers, trl or unsloth_zoo beside it",
        "Unsloth rewrites classes of transformers and trl when it is imported, and each of its releases knows those of "
        "its time; its two parts must be of the same release.",
        {**evidence(**around), **seen(error)},
        (
            fixes.install(facts, *_UNSLOTH, upgrade=True, options="--no-cache-dir"),
            _CHECK + "; then the versions of transformers and trl that unsloth names there",
            RESTART,
        ),
        "https://docs.unsloth.ai/get-started/install-and-update",
        affects=("chat", "vram"),
        observed=True,
    )


def _import_fails(facts: Facts, error: ErrorFact, callers: list[str]) -> Finding:
    """An error while a package is imported: it was made for another release of what it imports."""
    package = callers[0]
    named = f"{package} {installed_version(facts, package) or ''}".strip()
    verdicts = (by_time(facts, package, other) for other in ("torch", "transformers", "numpy", *callers[1:]))
    verdict = next((item for item in verdicts if item is not None), None)
    stays = verdict is not None and verdict.old != package and may_install(facts, verdict.old)
    first = fixes.install(facts, verdict.old if verdict and stays else package, upgrade=True)
    return Finding(
        "package-versions-do-not-fit",
        "warning",
        f"Likely: {named} does not fit a package that it imports, or this Python: it fails while it is imported",
        "Nothing of the program has run yet. Code that fails there was most often written for another release of what "
        "it imports, or an install broke off.",
        {**evidence(**{package.replace("-", "_"): installed_version(facts, package)}), **seen(error)},
        (
            first,
            _CHECK,
            "or the versions that the program's requirements name",
            RESTART,
        ),
        PIP_CHECK,
        affects=("chat",),
        observed=True,
    )
