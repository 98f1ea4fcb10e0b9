"""Whether the workbench's code or the interpreter's packages were changed under a running process. Stdlib only."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import workbench

Stamps = dict[str, tuple[int, int]]
"""Size and time of last change by path."""

LOOK_AGAIN_SECONDS = 1.0
_RECORDS = (".dist-info", ".egg-info")


class CodeWatch:
    """Remembers the workbench's own files, as Python reads many of them only when they are needed."""

    def __init__(self) -> None:
        self._package = Path(workbench.__file__).resolve().parent
        self._code = _stamps(_code_files(str(self._package)))

    def changes(self) -> str:
        """Which files were changed since, in a few words; empty if none was. New ones do not count."""
        changed = _changed(self._code)
        if not changed:
            return ""
        more = f" and {len(changed) - 1} more files" if len(changed) > 1 else ""
        return f"{os.path.relpath(changed[0], self._package)}{more}"


class UpgradeWatch:
    """Remembers the files a worker began with: the workbench's and the records of what is installed."""

    def __init__(self) -> None:
        self._code = CodeWatch()
        self._installed = _stamps(_installed_records())
        self._looked_at = time.monotonic()
        self._line = ""

    def changes(self) -> str:
        """What was changed since, as the beginning of a sentence; empty if nothing was. New packages do not count."""
        if self._line or time.monotonic() - self._looked_at < LOOK_AGAIN_SECONDS:
            return self._line
        code = self._code.changes()
        installed = [] if code else _changed(self._installed)
        if code:
            self._line = f"The workbench itself was changed under this session ({code})"
        elif installed:
            names = ", ".join(sorted(Path(path).stem for path in installed)[:3])
            self._line = f"Packages of {sys.executable} were changed under this session ({names})"
        self._looked_at = time.monotonic()
        return self._line


def _stamps(files: Iterator[os.DirEntry[str]]) -> Stamps:
    found = {}
    for entry in files:
        try:
            info = entry.stat()
        except OSError:
            continue
        found[entry.path] = (info.st_size, info.st_mtime_ns)
    return found


def _changed(before: Stamps) -> list[str]:
    changed = []
    for path, stamp in before.items():
        try:
            info = os.stat(path)
        except OSError:
            changed.append(path)
            continue
        if (info.st_size, info.st_mtime_ns) != stamp:
            changed.append(path)
    return changed


def _code_files(folder: str) -> Iterator[os.DirEntry[str]]:
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _code_files(entry.path)
        elif entry.name.endswith(".py"):
            yield entry


def _installed_records() -> Iterator[os.DirEntry[str]]:
    for folder in sys.path:
        for entry in _entries(folder) if folder else ():
            if entry.name.endswith(_RECORDS):
                yield entry


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []
