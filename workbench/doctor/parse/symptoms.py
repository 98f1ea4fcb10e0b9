"""What people tell of a fault without an error message: things in a paste that together have a usual cause.

Needs the tables.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Optional

from workbench.doctor.environment import mask_text
from workbench.doctor.facts import ErrorFact
from workbench.doctor.tables import table

_MAX_LINE = 600
_MAX_LINES = 400
_PREFIX = "symptom "
# Lines of `transformers env` that name GPU or CUDA on every machine: nobody tells of a fault there.
_FORM = re.compile(r"[\s>*-]{0,8}(?:(?:PyTorch|Tensorflow|Flax) version \(|Using (?:GPU|distributed)\b|GPU type:)")


@functools.lru_cache(maxsize=1)
def _known() -> tuple[tuple[str, tuple[re.Pattern[str], ...], Optional[re.Pattern[str]]], ...]:
    words = table("symptoms")["words"]

    def compiled(text: str) -> re.Pattern[str]:
        full = re.sub(r"<(\w+)>", lambda name: f"(?:{words[name[1]]})", text)
        return re.compile(full, re.IGNORECASE | re.ASCII)

    rows = table("symptoms")["symptom"]
    return tuple(
        (
            str(row.get("variant", row["id"])),
            tuple(map(compiled, row["all"])),
            compiled(row["instead_of_a_report"]) if "instead_of_a_report" in row else None,
        )
        for row in rows
    )


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
    for name, patterns, unless in _known():
        if unless is not None and (in_report or any(unless.search(line) for _, line in told)):
            continue
        places = [next((number for number, line in told if pattern.search(line)), 0) for pattern in patterns]
        if all(places):
            text = " ".join(lines[places[-1] - 1].split())[:300]
            return ErrorFact(message_of_symptom(name), mask_text(text), places[-1])
    return None
