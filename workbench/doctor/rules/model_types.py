"""Rules about models that are newer than the transformers that is to load them. Needs the tables."""

from __future__ import annotations

import functools
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import MODEL_BENCHES, Result, Rule, evidence, from_message, seen
from workbench.doctor.rules.unknown.packages import callers_of
from workbench.doctor.tables import names_read, newer_than_table
from workbench.doctor.versions import at_least, release_of, without_stage

_FROM_SOURCE = "git+https://github.com/huggingface/transformers"


@functools.cache
def release_of_model_type(model_type: str) -> Optional[str]:
    """The transformers release that brought a model type; None for one that is older or newer than the table."""
    names = names_read("transformers")["added"]
    module = "models." + model_type.replace("-", "_")
    found = [release for release, line in names.items() if module in line.split()]
    return min(found, key=lambda release: release_of(release) or (0, 0)) if found else None


def unknown_architecture(facts: Facts) -> Result:
    """The model is newer than transformers."""
    return from_message(facts, ("unknown-architecture",), lambda error: _finding(facts, error))


def _finding(facts: Facts, error: ErrorFact) -> Finding:
    model_type = error.values.get("type") or error.values.get("type2") or error.values.get("type3")
    since = release_of_model_type(model_type) if model_type else None
    have = facts.package("transformers")
    named = f"transformers {have}" if have else "transformers"
    stale = since is not None and at_least(without_stage(have), since)
    if stale:
        title = f"{named} knows {model_type}: the program runs with an older one, in memory or in another environment"
        why = "What is loaded is older than what is installed. A notebook keeps the transformers that it has imported."
    elif since:
        title = f"{named} does not know {model_type}, which came with transformers {since}"
        why = "The checkpoint's model type came with a later release."
    else:
        title = f"{named} does not know this model's architecture"
        why = "The checkpoint's model type came with a later release."
    return Finding(
        "transformers-too-old-for-model",
        "error",
        title,
        why,
        {**evidence(model_type=model_type, transformers=have, came_with=since), **seen(error)},
        _restart(facts, since) if stale else (*_upgrade(facts, error, since), *_where_pinned(facts, error)),
        "https://huggingface.co/docs/transformers/installation",
        affects=MODEL_BENCHES,
        observed=True,
    )


def _restart(facts: Facts, since: Optional[str]) -> tuple[str, ...]:
    return (
        "Restart the notebook kernel or the program.",
        f'{fixes.python_command(facts)} -c "import sys, transformers; print(sys.executable, transformers.__version__, '
        "transformers.__file__)\"   # in the program's own Python: is it this one?",
        fixes.install(facts, f"transformers>={since}", upgrade=True) + "   # there, where it is not",
    )


def _upgrade(facts: Facts, error: ErrorFact, since: Optional[str]) -> tuple[str, ...]:
    names = (f"transformers>={since}" if since else "transformers",)
    newest = newer_than_table("transformers", facts.package("transformers")) and not since
    if newest:
        return (fixes.install(facts, _FROM_SOURCE, upgrade=True) + "   # newer than the last release",)
    server = next((name for name in ("vllm", "sglang") if name in callers_of(error)), "")
    server = server or ("vllm" if facts.error("served-by-vllm") and not error.values.get("program") else "")
    if server:
        return (
            # In one command: an upgrade of transformers alone would take it beyond what the server allows.
            fixes.install(facts, server, *names, upgrade=True)
            + f"   # {server} has to know the model too; it brings the transformers that it was made for",
        )
    return (
        fixes.install(facts, *names, upgrade=True),
        *(() if since else (f"or, for a model of the last days: {fixes.install(facts, _FROM_SOURCE, upgrade=True)}",)),
    )


def _where_pinned(facts: Facts, error: ErrorFact) -> tuple[str, ...]:
    """What a program that compares versions when it starts has to be told."""
    if error.values.get("program") != "llamafactory":
        return ()
    return (
        "git pull in LLaMA-Factory's folder, for a version that takes this transformers; until then: "
        + fixes.export(facts, "DISABLE_VERSION_CHECK", "1"),
    )


RULES: tuple[Rule, ...] = (unknown_architecture,)
