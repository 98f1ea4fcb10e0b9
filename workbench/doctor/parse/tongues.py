"""Prose of any language in the words that the readers of prose know: nouns of the trade, and that the GPU is idle.

Needs the tables.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from workbench.doctor.tables import table

_MAX_LINE = 600
_MAX_LINES = 400
# Scripts that put no blank between their words and Latin letters or numbers.
_CLOSE = "[\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff]"
_SEAM = re.compile(f"(?<={_CLOSE})(?=[A-Za-z0-9])|(?<=[A-Za-z0-9])(?={_CLOSE})")


@functools.lru_cache(maxsize=1)
def _glossary() -> tuple[re.Pattern[str], tuple[tuple[re.Pattern[str], str], ...]]:
    words = table("glossary")
    rows = ((re.compile(row["told"], re.IGNORECASE | re.ASCII), str(row["english"])) for row in words["row"])
    return re.compile(words["supposes"], re.IGNORECASE | re.ASCII), tuple(rows)


def in_english(lines: Sequence[str], complains: bool) -> list[str]:
    """`lines` with what the glossary knows put into English; a long paste is no text of a person and stays as it is.

    Args:
        lines: of a paste.
        complains: whether what is said of an idle GPU is the complaint, and no remark beside an error.
    """
    if sum(map(bool, lines)) > _MAX_LINES:
        return list(lines)
    return [_translated(line, complains) if 4 < len(line) <= _MAX_LINE else line for line in lines]


def _translated(line: str, complains: bool) -> str:
    supposes, rows = _glossary()
    certain = complains and not supposes.search(line)
    for told, english in rows:
        if certain or "not used" not in english:
            line = told.sub(english, line)
    return _SEAM.sub(" ", line)
