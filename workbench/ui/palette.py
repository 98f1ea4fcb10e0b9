"""The command palette, which may be closed faster than it opens."""

from __future__ import annotations

import contextlib
import inspect

from textual import work
from textual.command import CommandPalette
from textual.css.query import NoMatches

_GATHER = inspect.unwrap(CommandPalette._gather_commands)


class Palette(CommandPalette):
    """Textual's palette, whose search may outlive its list (Textual 8.2 ends the app then)."""

    @work(exclusive=True, group=CommandPalette._GATHER_COMMANDS_GROUP, exit_on_error=False)
    async def _gather_commands(self, search_value: str) -> None:
        # Whatever is not there any more was closed by the user; nothing is left to be listed in.
        with contextlib.suppress(NoMatches):
            await _GATHER(self, search_value)
