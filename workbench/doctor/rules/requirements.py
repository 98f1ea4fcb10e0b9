"""Rules about what installed packages ask of one another, checked as pip would."""

from __future__ import annotations

import re
from collections.abc import Sequence

from workbench.doctor import fixes
from workbench.doctor.changes import name_asked_for
from workbench.doctor.facts import Conflict, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.parse.draft import REMARKS
from workbench.doctor.rules.common import MODEL_BENCHES, PASSED, Result, Rule
from workbench.doctor.rules.unknown.packages import may_install
from workbench.doctor.tables import WHEELS
from workbench.doctor.versions import parse_requirement, satisfies

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
            affects=MODEL_BENCHES,
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
    capped = [item for item in conflicts[:4] if _breaks(item, "<=!") and item.package not in _OF_TORCH]
    askers = sorted({item.package for item in capped if may_install(facts, item.package)})
    kept = ", ".join(sorted({f"{name_asked_for(item)} {item.found}" for item in capped}))
    return (f"or, to keep {kept}: {fixes.install(facts, *askers, upgrade=True)}",) if askers else ()


def _breaks(conflict: Conflict, operators: str) -> bool:
    """Whether the release that is there breaks a bound that begins with one of these."""
    wanted = parse_requirement(conflict.requires)
    bounds = [part.strip() for part in wanted.specifier.split(",")] if wanted else []
    return any(satisfies(conflict.found, bound) is False for bound in bounds if bound[:1] in operators)


def _older_askers(conflicts: Sequence[Conflict]) -> tuple[str, ...]:
    """The other way out where packages are older than what is asked for: older releases of those that ask."""
    floors = [item for item in conflicts[:4] if _breaks(item, ">~")]
    asked = sorted({f"{name_asked_for(item)} {item.found}" for item in floors})
    known = {"opencv-python": "4.12", "opencv-python-headless": "4.12", "opencv-contrib-python": "4.12"}
    limits = [
        f"'{item.package}<{known[item.package]}'" if item.package in known else f"'{item.package}<{item.version}'"
        for item in floors
        if item.version
    ]
    return (f"or, to keep {', '.join(asked)}: older releases, such as {' '.join(limits)}",) if limits else ()


RULES: tuple[Rule, ...] = (requirement_conflicts,)
