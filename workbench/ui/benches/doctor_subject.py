"""What a report is of: this session's interpreter, another one of this box, or a pasted report."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from textual.content import Content

from workbench.session.protocol import Diagnose, DiagnoseText
from workbench.text import one_line


@dataclass(frozen=True)
class Subject:
    """One thing to examine; with neither field set it is the session's own interpreter."""

    python: str = ""
    """Path of another interpreter on this box."""
    text: str = ""
    """A pasted report of another machine."""

    @property
    def is_here(self) -> bool:
        """Whether it is on this box, so that it can be run and this box's GPUs are its own."""
        return not self.text

    @property
    def name(self) -> str:
        """In a sentence."""
        return self.python or ("a pasted report" if self.text else "this session's interpreter")

    @property
    def short_name(self) -> str:
        """At the head of a column, and in file names once cleaned."""
        if self.python:
            return PurePath(self.python).parent.parent.name or self.python
        return "pasted" if self.text else "this one"

    @property
    def file_suffix(self) -> str:
        """Keeps the exports of different subjects apart; empty for the own interpreter."""
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", self.short_name).strip("-.")[:40]
        return "" if self == OWN else f"-{name or 'other'}"

    def request(self) -> Diagnose | DiagnoseText:
        """The request that examines it."""
        return DiagnoseText(self.text) if self.text else Diagnose()


OWN = Subject()


def subject_line(subject: Subject, report: dict[str, Any], executable: str) -> Content:
    """Of which interpreter the report is, and the way back if it is not the session's own."""
    facts = report.get("facts") or {}
    label = ("report of  ", "$muted")
    # Ahead of the path, which may be longer than the line.
    back = (" (b goes back)", "$muted")
    if subject.text:
        formats = ", ".join(str(name) for name in facts.get("formats") or ())
        return Content.assemble(
            label, ("a pasted report", "bold $accent"), back, (f"  {one_line(formats, 80)}" if formats else "")
        )
    if subject.python:
        return Content.assemble(
            label, ("another one", "bold $warn"), back, "  ", (one_line(subject.python), "bold $accent")
        )
    seen = (facts.get("python") or {}).get("executable") or executable
    return Content.assemble(label, one_line(str(seen)), (" · this session's interpreter", "$muted"))
