"""Jobs that tests watch."""

from __future__ import annotations

from typing import Any

from workbench.errors import JobCancelled
from workbench.job import Job


class Recorder(Job):
    """Keeps the phases that were reported, and stops in one."""

    def __init__(self, stop_in: str = "") -> None:
        self.phases: list[str] = []
        self._stop_in = stop_in

    def progress(self, phase: str, done: int, total: Any = None, unit: str = "", detail: str = "") -> None:
        self.phases.append(phase)

    def check(self) -> None:
        if self._stop_in and self._stop_in in self.phases:
            raise JobCancelled
