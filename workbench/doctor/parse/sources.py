"""Sources that pip takes where a package has no wheels for the system. Needs the tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Optional

from workbench.doctor.environment import mask_text
from workbench.doctor.facts import ErrorFact
from workbench.doctor.parse.draft import Draft
from workbench.doctor.tables import table
from workbench.doctor.versions import normalize

_NAME = r"(?P<package>[A-Za-z][\w.-]{1,40}?)"
_TAKEN = (
    re.compile(rf"(?:Downloading|Using cached) (?:\S{{1,200}}/)?{_NAME}-\d[\w.]{{0,30}}\.(?:tar\.gz|zip)\b"),
    re.compile(rf"(?:copying|creating) build[\\/](?:lib|bdist)[^\\/\s]{{0,40}}(?:[\\/]wheel)?[\\/]{_NAME}[\\/]"),
    re.compile(r"(?P<package>vLLM) only supports Linux platform"),
)
_MARKS = (".tar.gz", ".zip", "build\\", "build/", "only supports Linux")
_OF_WINDOWS = re.compile(r"build\\(?:lib|bdist)|[-_.]win[-_]amd64\b|\bBuilding on win32\b")
_MADE = re.compile(r"^\s{0,8}Successfully (?:installed|built) ")


def read(lines: Sequence[str], draft: Draft) -> None:
    """Take the first such package, unless the install came to a good end."""
    short = [line[:1000] for line in lines]
    found = next(filter(None, map(_package, short)), None)
    if found is None or any(map(_MADE.match, short)):
        return
    if any(map(_OF_WINDOWS.search, short)):
        draft.put(draft.platform, system="Windows")
    index = next(number for number, line in enumerate(short) if _package(line) == found)
    text = mask_text(" ".join(short[index].split())[:300])
    draft.errors.append(ErrorFact("source-taken", text, index + 1, {"package": found}))


def _package(line: str) -> Optional[str]:
    """The package of a line that takes sources, where it has wheels for some systems only."""
    if not any(mark in line for mark in _MARKS):
        return None
    match = next(filter(None, (pattern.search(line) for pattern in _TAKEN)), None)
    name = normalize(match["package"]) if match else ""
    return name if any(name in row["names"] for row in table("platforms")["package"]) else None
