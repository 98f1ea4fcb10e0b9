"""What a user names by a path: an interpreter, an environment's folder, or a file with a report. Stdlib only."""

from __future__ import annotations

import os
from pathlib import Path

from workbench.errors import WorkbenchError

MAX_REPORT_BYTES = 16 * 2**20
PROGRAM_STARTS = (b"#!", b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
"""Scripts, and programs of Linux and macOS."""


def is_report(path: Path) -> bool:
    """Whether this is a file and no program; one that may be run, as all on a Windows disk, is told by its start."""
    if not path.is_file():
        return False
    if not os.access(path, os.X_OK):
        return True
    with path.open("rb") as file:
        return not file.read(4).startswith(PROGRAM_STARTS)


def read_report(path: Path) -> str:
    """The text of a report.

    Raises:
        WorkbenchError: ``unreadable-file``, ``file-too-large`` or ``bad-report``.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_REPORT_BYTES + 1)
    except OSError as error:
        raise WorkbenchError(
            "unreadable-file", f"Cannot read {path}: {error.strerror}.", "Give a text file, or - for standard input."
        ) from None
    if len(data) > MAX_REPORT_BYTES:
        raise WorkbenchError(
            "file-too-large", f"{path} is larger than {MAX_REPORT_BYTES // 2**20} MiB.", "Give the report alone."
        )
    return decode_report(data)


def decode_report(data: bytes) -> str:
    """The text of a report, in UTF-8 or, as PowerShell's ``>`` writes it, in UTF-16.

    Raises:
        WorkbenchError: ``bad-report`` for what is no text: by chance it holds words that a report is known by.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    if _is_binary(data):
        raise WorkbenchError("bad-report", "This is no text but binary data.", "Give the report as text.")
    head = data[:4000]
    # Letters of Latin scripts are every other byte of UTF-16, zeros the rest.
    for offset, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        zeros, others = head[offset::2].count(0), head[1 - offset :: 2].count(0)
        if len(head) >= 4 and zeros > len(head) // 4 and others * 8 < zeros:
            return data.decode(name, "replace")
    return data.decode("utf-8-sig", "replace")


# What terminals and logs write besides text: NUL (UTF-16, files cut by a crash), bell, backspace, \t\n\v\f\r, escape.
_OF_TEXT = bytes((0, 7, 8, 9, 10, 11, 12, 13, 27))
_OF_NO_TEXT = bytes(code for code in range(32) if code not in _OF_TEXT)


def _is_binary(data: bytes) -> bool:
    """Whether one byte in fifty is a control character that no text holds; of random bytes one in eleven is."""
    head = data[:100_000]
    return (len(head) - len(head.translate(None, _OF_NO_TEXT))) * 50 > len(head)


def refuse_what_is_no_python(path: Path) -> None:
    """Say so when `path` is neither a program nor the folder of an environment.

    Raises:
        WorkbenchError: ``bad-interpreter``, naming the environment inside of a project's folder.
    """
    if os.sep not in str(path) or path.is_file() or (path / "bin" / "python").exists():
        return
    inside = next((path / name for name in (".venv", "venv", "env") if (path / name / "bin" / "python").exists()), None)
    raise WorkbenchError(
        "bad-interpreter",
        f"{path} is a folder without bin/python, so no Python environment."
        if path.is_dir()
        else f"There is nothing at {path}.",
        f"{inside} is one."
        if inside
        else "Name an environment's folder (workbench envs lists them), an interpreter, or a file with a report.",
    )
