"""The states that people tell in a sentence where a program would have printed them. Needs the tables."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from workbench.doctor.environment import mask_text
from workbench.doctor.facts import ErrorFact
from workbench.doctor.parse.draft import Draft
from workbench.doctor.tables import table

SECTIONS = ("platform", "python", "torch", "driver", "toolkit", "environment")
_SENTENCES = re.compile(r"(?<=[.!?;])\s{1,4}")
_SUPPOSES = re.compile(r"\b(?:if|unless|whether|in case|assert|raise|elif|should(?:n't)?|would|maybe)\b", re.I)
_CODE = re.compile(r"\s{0,40}(?:if |elif |return |print\(|raise |assert |def |echo |#)|https?://\S+$")
_MAX_SENTENCE = 400


@dataclass(frozen=True)
class _Told:
    says: re.Pattern[str]
    unless: Optional[re.Pattern[str]]
    about: Optional[re.Pattern[str]]
    nowhere: Optional[re.Pattern[str]]
    row: dict[str, Any]


@functools.lru_cache(maxsize=1)
def _known() -> tuple[_Told, ...]:
    def compiled(pattern: Optional[str]) -> Optional[re.Pattern[str]]:
        return re.compile(pattern, re.I | re.ASCII) if pattern else None

    return tuple(
        _Told(
            re.compile(row["says"], re.I | re.ASCII),
            compiled(row.get("unless")),
            compiled(row.get("about")),
            compiled(row.get("nowhere")),
            row,
        )
        for row in table("told")["told"]
    )


def read(lines: Sequence[str], draft: Draft) -> None:
    """Take the states that sentences tell, the first of each, where nothing better has told them."""
    sentences = [
        (number, sentence)
        for number, line in enumerate(lines, 1)
        if not _CODE.match(line)
        for sentence in _SENTENCES.split(line)
        if len(sentence) <= _MAX_SENTENCE and not _SUPPOSES.search(sentence)
    ]
    for told in _known():
        if (told.about and not _anywhere(told.about, lines)) or (told.nowhere and _anywhere(told.nowhere, lines)):
            continue
        for number, sentence in sentences:
            match = told.says.search(sentence)
            if match and not (told.unless and told.unless.search(sentence)):
                _take(told.row, match, ErrorFact("", mask_text(" ".join(sentence.split())[:300]), number), draft)
                break


def _anywhere(pattern: re.Pattern[str], lines: Sequence[str]) -> bool:
    return any(pattern.search(line[:_MAX_SENTENCE]) for line in lines)


def _take(row: dict[str, Any], match: re.Match[str], where: ErrorFact, draft: Draft) -> None:
    values = {name.rstrip("0123456789"): value for name, value in match.groupdict().items() if value}
    for section in SECTIONS:
        for name, value in row.get(section, {}).items():
            told = value.format(**values) if isinstance(value, str) else value
            draft.put(getattr(draft, section), **{name: told})
    named = row.get("error")
    if named and (row.get("beside") or not draft.complaints) and all(error.id != named for error in draft.errors):
        filled = {name: value.format(**values) for name, value in row.get("values", {}).items()}
        draft.errors.append(ErrorFact(named, where.text, where.line, {**values, **filled}))
