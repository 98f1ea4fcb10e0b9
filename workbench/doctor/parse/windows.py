"""Which Windows a paste names, and how its NVIDIA driver runs each card. Stdlib only."""

from __future__ import annotations

import re
from collections.abc import Sequence

from workbench.doctor.parse.draft import Draft

_MAX_LINE = 600
_BUILD = re.compile(
    r"(?:\bWindows\b|\bMicrosoft\b|\bwin ?1[01]\b|\bOS build\b)[^\n]{0,60}?(?:\b10\.0\.|[\s(\[]|build )"
    r"(?P<build>1[0-9]{4}|2[0-9]{4})(?:\.\d{1,5})?\b(?! ?(?:MB|MiB|GB))",
    re.IGNORECASE,
)
_RELEASE = re.compile(
    r"\bwin(?:dows)? ?10\b[^\n]{0,30}?\b(?P<name>1903|1909|2004|20H2|21H1|21H2|22H2)\b", re.IGNORECASE
)
_BUILDS = {"1903": 18362, "1909": 18363, "2004": 19041, "20h2": 19042, "21h1": 19043, "21h2": 19044, "22h2": 19045}
_UPDATES = re.compile(
    r"\b(?:need|require|update[ds]?|upgrade[ds]?|or (?:newer|later|higher)|since|at least|\+)\b", re.I
)


# Errors of Microsoft's compiler and linker, which run on Windows alone, and torch's sources as its build there says.
_MSVC = re.compile(r"\bfatal error (?:C1\d{3}|LNK\d{4}): ")
_TORCH_SOURCE = re.compile(r"(?<![\w\\])\.\.\\(?:torch|aten|c10)\\\w")
# Python has paths of this class on Windows only.
_PATH = re.compile(r"\bWindowsPath\(|'WindowsPath'")


def _only_there(line: str) -> bool:
    """Whether a line can only have been printed on Windows: Python's loader speaks of DLLs nowhere else."""
    return (
        ("fatal error" in line and _MSVC.search(line) is not None)
        or ("..\\" in line and _TORCH_SOURCE.search(line) is not None)
        or ("WindowsPath" in line and _PATH.search(line) is not None)
        or "DLL load failed while importing" in line
    )


def read(lines: Sequence[str], draft: Draft) -> None:
    """Take the first Windows that is named as the one at hand; its compiler's errors and paths tell the system too."""
    if any(_only_there(line[:_MAX_LINE]) for line in lines):
        draft.put(draft.platform, system="Windows")
    for line in lines:
        if "indows" not in line and "icrosoft" not in line and "in1" not in line and "in 1" not in line:
            continue
        line = line[:_MAX_LINE]
        build, release = _BUILD.search(line), _RELEASE.search(line)
        if (build or release) and not _UPDATES.search(line):
            number = int(build["build"]) if build else _BUILDS[release["name"].lower()] if release else None
            draft.put(draft.platform, windows_build=number)
            return
