"""Telling that the workbench's own files were changed under the app: what it imports from now on may not fit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from textual.content import Content
from textual.widgets import Static

from workbench.session.changes import CodeWatch

if TYPE_CHECKING:
    from workbench.ui.app import WorkbenchApp

CHANGED = "The workbench was changed since this app started"
LOOK_SECONDS = 10.0
BANNER = "changed"


class OwnChanges:
    """Looks now and then, and whenever something failed in a way that it should not.

    Args:
        app: where it is told, in a line that stays.
    """

    def __init__(self, app: WorkbenchApp) -> None:
        self._app = app
        self._watch = CodeWatch()
        self._told = False
        app.set_interval(LOOK_SECONDS, self._look)

    async def _look(self) -> None:
        changes = "" if self._told else await asyncio.to_thread(self._watch.changes)
        if changes:
            self._tell()

    def explain(self) -> bool:
        """Say that the workbench was changed, if it was: then that is why something has just failed."""
        if not (self._told or self._watch.changes()):
            return False
        self._tell()
        self._app.warn(f"{CHANGED}, so this cannot be shown: ctrl+q and start it again.")
        return True

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            line = Content.assemble(
                ("⚠ ", "bold $warn"), (f"{CHANGED}: ", "bold $warn"), ("ctrl+q", "bold $accent"), ", start it again"
            )
            self._app.call_later(self._app.main.mount, Static(line, id=BANNER), before="#benches")
