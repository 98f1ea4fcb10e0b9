"""The report as text for an issue and as files in the working directory."""

from __future__ import annotations

import json
from pathlib import Path

from workbench.errors import WorkbenchError
from workbench.paths import write_atomic
from workbench.ui.benches.doctor_view import View


def as_markdown(view: View) -> str:
    """For an issue."""
    from workbench.doctor.report import to_markdown

    return to_markdown(view.whole_report())


def as_json(view: View) -> str:
    """What ``workbench doctor --json`` prints."""
    return json.dumps({"schema": 1, "command": "doctor", **view.whole_report()}, indent=2) + "\n"


def write_report(view: View, ending: str, text: str) -> Path:
    """Write into the working directory; different subjects and comparisons get files of their own.

    Raises:
        WorkbenchError: ``cannot-write``.
    """
    compared = "-compared" if view.comparison is not None else ""
    path = Path.cwd() / f"workbench-doctor{view.subject.file_suffix}{compared}.{ending}"
    try:
        write_atomic(path, text.encode("utf-8", "replace"), mode=0o644)
    except OSError as error:
        reason = f"Cannot write {path}: {error.strerror}."
        raise WorkbenchError("cannot-write", reason, "Start the workbench in a folder of your own.") from None
    return path
