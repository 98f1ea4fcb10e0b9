"""Opens the Textual app; the only module of the command line that reaches it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from workbench.errors import WorkbenchError
from workbench.paths import absolute_model
from workbench.settings import load_settings
from workbench.ui.environment import prepare_environment

if TYPE_CHECKING:
    from workbench.session.launch import SessionOptions


def open_app(
    bench: str | None, model: str, theme: str, python: str, session: str, slow_link: bool, no_mouse: bool
) -> int:
    """Run the app until the user leaves it; returns the exit code."""
    settings = load_settings()

    def options() -> SessionOptions:
        # Called after the first frame, which needs nothing of the session.
        from workbench.cli.common import Common

        return Common(False, python, session).session_options()

    # Textual reads its environment when it is imported.
    prepare_environment(slow_link or settings.ui.slow_link)
    from workbench.ui.run import run_app

    try:
        _require_terminal()
        return run_app(
            options, bench=bench or "", model=absolute_model(model), theme=theme, mouse=not no_mouse, settings=settings
        )
    except WorkbenchError as error:
        from workbench.cli.output import print_error

        print_error(error, "", False)
        return 2


def _require_terminal() -> None:
    """Raise WorkbenchError ``no-terminal`` where nothing can be drawn or typed."""
    # Textual reads keys from standard input and draws on standard error.
    if os.environ.get("TERM") == "dumb":
        reason = "TERM=dumb cannot place anything on the screen"
    elif not sys.stdin.isatty() or sys.__stderr__ is None or not sys.__stderr__.isatty():
        reason = "standard input and standard error are not both a terminal"
    else:
        return
    raise WorkbenchError(
        "no-terminal",
        f"The app cannot open here: {reason}.",
        "The commands work without: workbench doctor, workbench --help.",
    )
