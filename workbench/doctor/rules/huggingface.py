"""Rules about transformers and its neighbours."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes, upgrades
from workbench.doctor.changes import change_of
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ISSUES, MODEL_BENCHES, PASSED, Result, Rule, evidence, seen
from workbench.doctor.rules.unknown.packages import callers_of
from workbench.doctor.tables import newer_than_table, table, transformers_release
from workbench.doctor.versions import at_least, older


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
            affects=MODEL_BENCHES,
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
            affects=MODEL_BENCHES,
            observed=error is not None,
        )
    ]


def _gained(error: Optional[ErrorFact], torch: Optional[str]) -> Optional[str]:
    """The torch release that brought the attribute which an error misses; None where the table has it not."""
    name = re.search(
        r"has no attribute '(\w{2,60})'|cannot import name '(?P<name>\w{2,60})' from 'torch\.(?P<path>[\w.]{2,80})'",
        error.text if error else "",
    )
    path = f"{name['path']}.{name['name']}" if name and name["path"] else name[1] if name else None
    change = change_of("torch", path, torch) if path else None
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
            affects=MODEL_BENCHES,
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
            affects=MODEL_BENCHES,
        )
    ]


def _first_refusing(python: str) -> str:
    return next(str(row["from"]) for row in table("transformers")["release"] if older(python, row["python"]))


RULES: tuple[Rule, ...] = (
    transformers_missing,
    python_too_old,
    too_new_for_torch,
    torch_load_refused,
)
