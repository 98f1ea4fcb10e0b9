"""What people tell of a fault without an error message: things in a paste that together have a usual cause.

Needs the tables.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from workbench.doctor.environment import mask_text
from workbench.doctor.facts import ErrorFact
from workbench.doctor.tables import table

_MAX_LINE = 600
_MAX_LINES = 400
_PREFIX = "symptom "
# Lines of `transformers env` that name GPU or CUDA on every machine, a comment of Unsloth's notebooks, and the source
# that a traceback shows: nobody tells of a fault there.
_FORM = re.compile(
    r"[\s>*-]{0,8}(?:(?:PyTorch|Tensorflow|Flax) version \(|Using (?:GPU|distributed)\b|GPU type:"
    r"|#? ?token ?= ?['\"]hf_\.\.\.)"
    r"|\s{0,8}-{1,8}>\s{0,4}\d{1,6}\s|\s{0,8}\d{1,6}\s{4,60}\S|\s{0,8}File ['\"</~]"
    r"|\s{0,8}\|[\s=+-].{20,}\|\s{0,4}$|\S{1,40}[>$#] nvidia-smi\s{0,4}$"  # what nvidia-smi draws, and its call
)


@dataclass(frozen=True)
class _Symptom:
    name: str
    all: tuple[re.Pattern[str], ...]
    unless: Optional[re.Pattern[str]]
    in_report: bool
    """Whether it is also looked for beside a report of a known kind."""


@functools.lru_cache(maxsize=1)
def _known() -> tuple[_Symptom, ...]:
    words = table("symptoms")["words"]

    def compiled(text: str) -> re.Pattern[str]:
        full = re.sub(r"<(\w+)>", lambda name: f"(?:{words[name[1]]})", text)
        return re.compile(full, re.IGNORECASE | re.ASCII)

    rows = table("symptoms")["symptom"]
    return tuple(
        _Symptom(
            str(row.get("variant", row["id"])),
            tuple(map(compiled, row["all"])),
            compiled(unless) if (unless := row.get("instead_of_a_report", row.get("unless"))) else None,
            "instead_of_a_report" not in row,
        )
        for row in rows
    )


def explains_idle_gpu(symptom: ErrorFact) -> bool:
    """Whether a symptom says of itself why the GPU is not used."""
    return _says(symptom, "explains_idle_gpu")


def tells_of_two_pythons(symptom: ErrorFact) -> bool:
    """Whether what a paste says of torch is said of two environments, so that none of it holds for one."""
    return _says(symptom, "two_pythons")


def _says(symptom: ErrorFact, key: str) -> bool:
    rows = table("symptoms")["symptom"]
    return any(row.get(key) for row in rows if message_of_symptom(row.get("variant", row["id"])) == symptom.id)


def is_symptom(error: ErrorFact) -> bool:
    """Whether an error is a symptom of the table."""
    return error.id.startswith(_PREFIX)


def message_of_symptom(name: str) -> str:
    """The id under which a symptom stands among the messages."""
    return _PREFIX + name


def find_symptom(lines: Sequence[str], in_report: bool) -> Optional[ErrorFact]:
    """The first symptom of the table of which a paste tells everything; a long paste is no sentence of a person.

    Args:
        lines: of the paste.
        in_report: whether a report of a known kind is in it, which judges for itself.
    """
    told = [
        (number, line[:_MAX_LINE].lower())
        for number, line in enumerate(lines, 1)
        if line.strip() and not _FORM.match(line)
    ]
    if len(told) > _MAX_LINES:
        return None
    for row in _known():
        unless = row.unless
        if (in_report and not row.in_report) or (unless and any(unless.search(line) for _, line in told)):
            continue
        places = [next((number for number, line in told if pattern.search(line)), 0) for pattern in row.all]
        if all(places):
            text = " ".join(lines[places[-1] - 1].split())[:300]
            return ErrorFact(message_of_symptom(row.name), mask_text(text), places[-1])
    return None
