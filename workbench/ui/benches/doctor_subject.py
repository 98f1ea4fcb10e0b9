"""What a report is of: this session's interpreter, another one of this box, or a pasted report."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from textual.content import Content

from workbench.session.protocol import Diagnose, DiagnoseText, RunSelfTest
from workbench.text import one_line


@dataclass(frozen=True)
class Subject:
    """One thing to examine; with no field set it is the session's own interpreter."""

    python: str = ""
    """Path of another interpreter on this box."""
    text: str = ""
    """A pasted report of another machine."""
    files_only: bool = False
    """Whether the interpreter is too old to be run, so that the session reads the files beside it."""
    file: str = ""
    """Path of the file that the report came from."""

    @property
    def is_here(self) -> bool:
        """Whether it is on this box, so that this box's GPUs are its own."""
        return not self.text

    @property
    def cannot_run(self) -> str:
        """Why no self-test can be run on it; empty when one can."""
        if self.text:
            return "A pasted report cannot be run; b goes back to this box."
        return "Its Python is too old: only its files can be read, nothing can be run." if self.files_only else ""

    @property
    def name(self) -> str:
        """In a sentence."""
        return self.python or ((self.file or "a pasted report") if self.text else "this session's interpreter")

    @property
    def short_name(self) -> str:
        """At the head of a column, and in file names once cleaned."""
        if self.python:
            return PurePath(self.python).parent.parent.name or self.python
        return (PurePath(self.file).name or "pasted") if self.text else "this one"

    @property
    def file_suffix(self) -> str:
        """Keeps the exports of different subjects apart; empty for the own interpreter."""
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", self.short_name).strip("-.")[:40]
        return "" if self == OWN else f"-{name or 'other'}"

    @property
    def session(self) -> str:
        """The interpreter whose session examines it; empty for the own one."""
        return "" if self.files_only else self.python

    def request(self) -> Diagnose | DiagnoseText:
        """The request that examines it, as the shell sees the box that the app was started from."""
        if self.text:
            return DiagnoseText(self.text)
        if self.files_only:
            return Diagnose(False, _environment(), files_of=self.python)
        return Diagnose(environment=_environment())

    def self_test(self, report: dict[str, Any]) -> RunSelfTest:
        """The request that tests it; what the test shows is added to `report`."""
        return RunSelfTest(_environment(), report or None)


OWN = Subject()


def _environment() -> dict[str, str]:
    from workbench.doctor.environment import carried_environment

    return carried_environment(os.environ)


def subject_at(path: str) -> Subject:
    """What lies at a path that was typed or picked; may ask an interpreter for its version, so not in the event loop.

    Raises:
        WorkbenchError: ``unreadable-file``, ``file-too-large`` or ``bad-interpreter``.
    """
    from workbench.doctor.environments import too_old
    from workbench.doctor.source import is_report, read_report, refuse_what_is_no_python
    from workbench.session.launch import find_interpreter

    there = Path(path).expanduser()
    if is_report(there):
        return Subject(text=read_report(there), file=str(there))
    refuse_what_is_no_python(there)
    python = find_interpreter(path)
    return Subject(python, files_only=bool(too_old(python)))


def subject_pasted(text: str) -> Subject:
    """A pasted report, or the one in the file that a single pasted line names.

    Raises:
        WorkbenchError: ``unreadable-file`` or ``file-too-large``.
    """
    line = text.strip()
    if "\n" not in line and os.sep in line and len(line) < 4096 and Path(line).expanduser().is_file():
        found = subject_at(line)
        return found if found.text else Subject(text=text)
    return Subject(text=text)


def subject_line(subject: Subject, report: dict[str, Any], executable: str) -> Content:
    """Of which interpreter the report is, and the way back if it is not the session's own."""
    facts = report.get("facts") or {}
    label = ("report of  ", "$muted")
    # Ahead of the path, which may be longer than the line.
    back = (" (b goes back)", "$muted")
    if subject.text:
        formats = ", ".join(str(name) for name in facts.get("formats") or ())
        name = f"a report in {PurePath(subject.file).name}" if subject.file else "a pasted report"
        return Content.assemble(label, (name, "bold $accent"), back, (f"  {one_line(formats, 80)}" if formats else ""))
    if subject.python:
        return Content.assemble(
            label, ("another one", "bold $warn"), back, "  ", (one_line(subject.python), "bold $accent")
        )
    seen = (facts.get("python") or {}).get("executable") or executable
    return Content.assemble(label, one_line(str(seen)), (" · this session's interpreter", "$muted"))
