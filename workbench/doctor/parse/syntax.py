"""Code that the Python which reads it is too old for, by the line that a SyntaxError shows. Stdlib only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Optional

from workbench.doctor.environment import mask_text
from workbench.doctor.facts import ErrorFact

_MAX_LINE = 500
_FILE = re.compile(r"\s{0,20}File ['\"](?P<path>[^'\"\n]{2,300})['\"], line \d{1,6}\s{0,4}$")
_SYNTAX = re.compile(r"\s{0,12}(?:E\s{1,8})?SyntaxError:(?: invalid syntax\b.{0,80}| f-string: .{2,80})?\s{0,4}$")
# Where others' code lies; of one's own a slip of the pen says the same.
_OF_OTHERS = re.compile(
    r"(?:site|dist)-packages[/\\]|[/\\]setup\.py$|pip-(?:build|install|req-build)|[/\\]lib[/\\]python"
)
# What came with which Python: https://docs.python.org/3/whatsnew/
_NEEDS = (
    ("3.12", re.compile(r"^\s*type \w+(?:\[.{1,60}\])? ?=|^\s*(?:class|(?:async )?def) \w+\[[A-Z]")),
    ("3.11", re.compile(r"^\s*except\*")),
    ("3.10", re.compile(r"^\s*match [\w.()\[\], ]{1,80}:\s*$|^\s*with \(\s*$")),
    ("3.8", re.compile(r"[(\s]\w+ ?:= ?\S|\bdef \w+\([^)]{0,200}, /[,)]|^\s*/,\s*$")),
    ("3.7", re.compile(r"^\s*from __future__ import annotations")),
    ("3.6", re.compile(r"(?<![\w\"'])[rR]?[fF][rR]?['\"]")),
    (
        "3.6",
        re.compile(
            r"^\s*(?!else|try|finally|lambda)\w{1,60}: (?:[A-Z]\w+|str|int|bool|float|list|dict|tuple)\b"
            r"[\w.\[\] \"',]{0,80}(?: = .{1,200})?$"
        ),
    ),
)


def newer_python_wanted(lines: Sequence[str]) -> Optional[ErrorFact]:
    """The oldest Python that knows what a SyntaxError in somebody else's code shows; None where none is shown."""
    for number, line in enumerate(lines):
        if "SyntaxError" not in line[:_MAX_LINE] or not _SYNTAX.match(line[:_MAX_LINE]):
            continue
        above = [text[:_MAX_LINE].lstrip("E").rstrip() for text in lines[max(0, number - 4) : number]]
        place = next((at for at, text in enumerate(above) if _FILE.match(text)), None)
        if place is None or "^" not in "".join(above[place + 1 :]):
            continue
        file = _FILE.match(above[place])
        code = above[place + 1]
        needs = next((version for version, pattern in _NEEDS if pattern.search(code)), "")
        if needs and file and _OF_OTHERS.search(file["path"]):
            values = {"needs": needs, "file": mask_text(file["path"])}
            return ErrorFact("code-of-newer-python", mask_text(f"{code.strip()[:200]} SyntaxError"), number + 1, values)
    return None
