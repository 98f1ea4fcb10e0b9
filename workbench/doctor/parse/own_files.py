"""A file of one's own that is imported in place of a module of its name, by a traceback's frames. Needs the tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Optional

from workbench.doctor.environment import mask_text
from workbench.doctor.facts import ErrorFact
from workbench.doctor.tables import table

_MAX_LINE = 500
_FILE = re.compile(r"\s{0,20}File \"(?P<path>[^\"\n]{2,300})\", line \d{1,6}, in \S")
_IMPORT = re.compile(r"\s{2,20}(?:from|import) (?P<module>[A-Za-z_]\w{1,40})\b")
# What every package of that name has; of other names it may be an old release that lacks them.
_RAISED = re.compile(
    r"cannot import name '__(?:version|file|path)__' from (?:partially initialized module )?'(?P<module>\w{2,40})' "
    r"\((?P<path>[^()\n]{2,300}\.py)\)"
)
_FROM = re.compile(
    r"cannot import name '\w{1,80}' from (?:partially initialized module )?'(?P<module>\w{2,40})' "
    r"(?:\(most likely due to a circular import\) )?\((?:consider renaming ')?(?P<path>[^()'\n]{2,300}?\.py)[')]"
)
_LACKS = re.compile(
    r"AttributeError: (?:partially initialized )?module '(?P<module>\w{2,40})' has no attribute '(?P<name>\w{1,60})'"
)
# Where Python and installers put modules; what lies elsewhere somebody has put there.
_INSTALLED = re.compile(
    r"(?:site|dist)-packages|[/\\]lib(?:64)?[/\\]python|[/\\]lib(?:-python)?[/\\]|\.egg[/\\]|<frozen|\.zip[/\\]",
    re.IGNORECASE,
)


def own_file_in_the_way(lines: Sequence[str]) -> Optional[ErrorFact]:
    """The file that an import has found in place of the module of that name; None where no traceback shows one."""
    frames = [(number, match["path"]) for number, line in enumerate(lines) if (match := _FILE.match(line[:_MAX_LINE]))]
    for (number, _), (below, path) in zip(frames, frames[1:]):
        shown = lines[number + 1 : below]
        asked = next((match["module"] for line in shown if (match := _IMPORT.match(line[:_MAX_LINE]))), "")
        if below - number <= 6 and _takes_the_place(asked, path, "\\.py"):
            return _fact(lines, below, asked, path)
    for number, line in enumerate(lines):
        raised = _RAISED.search(line[:_MAX_LINE]) if "cannot import name" in line else None
        if raised and _takes_the_place(raised["module"], raised["path"], r"(?:\.py|[/\\]__init__\.py)"):
            return _fact(lines, number, raised["module"], raised["path"])
    return _beside_the_program(lines, frames)


def _beside_the_program(lines: Sequence[str], frames: Sequence[tuple[int, str]]) -> Optional[ErrorFact]:
    """A file that is only named by the error at the end, or not even there: what Python's own module never lacked."""
    program = next((path for _, path in frames if not _INSTALLED.search(path)), "")
    above = re.sub(r"[^/\\]+$", "", program)
    for number, line in enumerate(lines if program else ()):
        asker = next((path for at, path in reversed(frames) if at < number), "")
        found = _FROM.search(line[:_MAX_LINE]) if "cannot import name" in line else None
        # A program may have a package of its own beside it; what is installed asks for another one.
        ending = r"(?:\.py|[/\\]__init__\.py)" if _INSTALLED.search(asker) else r"\.py"
        if (
            found
            and _is_known(found["module"])
            and re.fullmatch(re.escape(above + found["module"]) + ending, found["path"])
        ):
            return _fact(lines, number, found["module"], found["path"])
        lacks = _LACKS.search(line[:_MAX_LINE]) if "has no attribute" in line else None
        asked_by_program = lacks and not _of_python(lacks["module"]) and not _INSTALLED.search(asker)
        if lacks and not asked_by_program and lacks["name"] in _steady(lacks["module"]):
            return _fact(lines, number, lacks["module"], f"{above}{lacks['module']}.py", guessed="yes")
    return None


def _steady(module: str) -> list[str]:
    """What a module has had in all its releases."""
    names = table("steady_names")
    return str(names["python"].get(module) or names["packages"].get(module, "")).split()


def _takes_the_place(module: str, path: str, ending: str) -> bool:
    """Whether a file is no part of what was installed; of a package's folder that alone says little.

    A checkout, or a copy of it in a project, is meant to be imported.
    """
    if not module or _INSTALLED.search(path) or not _is_known(module):
        return False
    ends = re.search(rf"[/\\]{module}{ending}$", path)
    return ends is not None and (_of_python(module) or module not in path[: ends.start()].replace("-", "_"))


def _is_known(module: str) -> bool:
    return _of_python(module) or module in table("imports")["names"]


def _of_python(module: str) -> bool:
    return module in table("imports")["python"]


def _fact(lines: Sequence[str], number: int, module: str, path: str, **more: str) -> ErrorFact:
    kind = "python" if _of_python(module) else "package"
    values = {"module": module, "path": mask_text(path), "kind": kind, **more}
    return ErrorFact("own-file-in-the-way", mask_text(lines[number].strip()[:300]), number + 1, values)
