"""A package that is taken from outside the environment which a program runs in, by a traceback. Needs the tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Optional

from workbench.doctor.environment import mask_text
from workbench.doctor.facts import ErrorFact
from workbench.doctor.tables import table

_MAX_LINE = 500
_FRAME = re.compile(r"\s{0,20}File \"(?P<path>[^\"\n]{2,300})\", line \d{1,6}, in \S")
_NAMED = re.compile(r"cannot import name '\w{1,80}' from '[\w.]{2,80}' \((?P<path>[^()'\n]{2,300}?\.py)\)")
_SITE = re.compile(r"(?P<prefix>.{1,200}?)[/\\](?:lib(?:64)?[/\\]python3\.\d{1,2}|Lib)[/\\]site-packages[/\\]")
_ENVIRONMENT = re.compile(
    r"[/\\](?:\.?v?env[\w.-]{0,40}|envs[/\\][\w.-]{1,60}|(?:mini|ana|mamba)\w{0,10})$", re.IGNORECASE
)


_OF_PYTHON = re.compile(r"[/\\]lib[/\\]python3\.\d{1,2}[/\\](?!site-packages)|^<frozen")


def copy_outside(lines: Sequence[str]) -> Optional[ErrorFact]:
    """The package whose file an error was raised in, or names, where it lies outside; None where all lies together."""
    frames = [match["path"] for line in lines if (match := _FRAME.match(line[:_MAX_LINE]))]
    sites = [match["prefix"] for path in frames if (match := _SITE.match(path))]
    prefix = next((site for site in sites if _ENVIRONMENT.search(site)), "")
    program = next((re.sub(r"[^/\\]+$", "", path) for path in frames if not _SITE.match(path)), "")
    for number, path in _blamed(lines) if prefix else ():
        copy = _copy(path, prefix)
        if copy is not None and not program.startswith(copy[1]):
            module, root = copy
            values = {"module": module, "root": mask_text(root.rstrip("/\\")), "environment": mask_text(prefix)}
            return ErrorFact("copy-outside-environment", mask_text(lines[number].strip()[:300]), number + 1, values)
    return None


def _blamed(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The files that errors name, and those of the last frame of each traceback."""
    last: Optional[tuple[int, str]] = None
    for number, line in enumerate(lines):
        frame, named = _FRAME.match(line[:_MAX_LINE]), _NAMED.search(line[:_MAX_LINE])
        if named:
            yield number, named["path"]
        elif frame and not _OF_PYTHON.search(frame["path"]):
            last = (number, frame["path"])
        elif last and re.match(r"[A-Za-z][\w.]{2,60}(?:Error|Exception)\b", line):
            yield last
            last = None


def _copy(path: str, prefix: str) -> Optional[tuple[str, str]]:
    """The module that a file outside the environment belongs to, and the folder on Python's path that it lies in.

    A checkout, whose folder is called like the package, is meant to be imported.
    """
    if path.startswith(prefix) or "dist-packages" in path or _OF_PYTHON.search(path):
        return None
    site = _SITE.match(path)
    if "site-packages" in path and not (site and site["prefix"].endswith(".local")):
        return None
    start = site.end() if site else 1
    for match in re.finditer(r"(\w{2,40})(?=[/\\]|\.py$)", path[start:]):
        root = path[: start + match.start()]
        if match[1] in table("imports")["names"]:
            rest = re.split(r"[/\\]", path[start + match.end() :])
            checkout = match[1] in root.replace("-", "_") or match[1] in rest
            return None if checkout else (match[1], root)
    return None


_LACKS = re.compile(
    r"cannot import name '\w{1,80}' from '(?P<module>\w{2,60})[\w.]{0,120}' \((?P<path>[^()'\n]{2,300}?\.py)\)"
)


def other_checkout(lines: Sequence[str]) -> Optional[ErrorFact]:
    """The second clone of a program's repository, whose modules are imported by a script of the first.

    ``pip install -e`` was run in one of the two, and the script is started in the other.
    """
    paths = [match["path"] for line in lines if (match := _FRAME.match(line[:_MAX_LINE]))]
    for number, line in enumerate(lines):
        lacks = _LACKS.search(line[:_MAX_LINE]) if "cannot import name" in line else None
        if lacks is None or "-packages" in lacks["path"]:
            continue
        inside = re.search(rf"(?:[/\\]src)?[/\\]{lacks['module']}[/\\]", lacks["path"])
        root = lacks["path"][: inside.start()] if inside else ""
        above, _, project = root.replace("\\", "/").rpartition("/")
        if not project or project in ("home", "root", "workspace", "src", "code", "app"):
            continue
        clone = re.compile(rf"(?P<root>.{{0,200}}[/\\]{re.escape(project)})[/\\]")
        mine = next((found["root"] for path in paths if (found := clone.match(path)) and found["root"] != root), "")
        if mine and mine.replace("\\", "/").rpartition("/")[0] != above:
            values = {"module": lacks["module"], "root": mask_text(root), "mine": mask_text(mine)}
            return ErrorFact("other-checkout-imported", mask_text(line.strip()[:300]), number + 1, values)
    return None
