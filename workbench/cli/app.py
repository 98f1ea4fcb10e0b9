"""Opens the Textual app; the only module of the command line that reaches it."""

from __future__ import annotations

from workbench.cli.common import BAD_INPUT, Common
from workbench.cli.output import print_error
from workbench.errors import WorkbenchError
from workbench.settings import load_settings


def open_app(
    bench: str | None, model: str, theme: str, python: str, session: str, slow_link: bool, no_mouse: bool
) -> int:
    """Run the app until the user leaves it; returns the exit code."""
    try:
        options = Common(False, python, session).session_options()
        settings = load_settings()
        # Textual reads its environment when it is imported.
        from workbench.ui.environment import prepare_environment

        prepare_environment(slow_link or settings.ui.slow_link)
        from workbench.ui.run import run_app

        return run_app(options, bench=bench or "", model=model, theme=theme, mouse=not no_mouse, settings=settings)
    except WorkbenchError as error:
        print_error(error, "", False)
        return BAD_INPUT
