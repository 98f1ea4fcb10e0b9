"""The way into the app for the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.errors import WorkbenchError
from workbench.settings import Settings, load_settings
from workbench.ui.app import WorkbenchApp
from workbench.ui.terminal_input import TerminalDriver

if TYPE_CHECKING:
    from workbench.session.client import SessionClient, SessionLost
    from workbench.session.launch import SessionOptions

OTHER_WORKER_SECONDS = 60.0
"""A worker that was started only to examine its interpreter ends at once; this is for when nobody is left to say so."""


def run_app(
    options: SessionOptions | Callable[[], SessionOptions],
    *,
    bench: str = "",
    model: str = "",
    theme: str = "",
    mouse: bool = True,
    settings: Settings | None = None,
) -> int:
    """Open the app and return its exit code.

    Call `workbench.ui.environment.prepare_environment` before this module is imported.

    Args:
        options: which session to attach to or start, or a function that tells; it is called after the first frame, and
            what it raises is shown as the reason why there is no session.
        bench: doctor, tokens, architecture, vram or chat; the last one when empty.
        model: the model of every bench; the loaded or last one when empty.
        theme: theme for this run.
        mouse: whether to ask the terminal for mouse reports.
        settings: those already read; else they are read now.

    Raises:
        WorkbenchError: the app itself failed.
    """

    async def open_now() -> SessionClient:
        # The session's modules are imported after the first frame, which needs none of them.
        from workbench.session.launch import open_session

        return await open_session(options() if callable(options) else options)

    async def open_running() -> SessionClient:
        from workbench.session.launch import open_session

        return await open_session(options() if callable(options) else options, start=False)

    async def explain(client: SessionClient) -> SessionLost:
        from workbench.session.launch import describe_loss

        return await describe_loss(client)

    async def end_now() -> str:
        from workbench.session.launch import stop_session

        return await stop_session((options() if callable(options) else options).name, force=True, wait_seconds=1.0)

    async def open_other(python: str) -> SessionClient:
        from workbench.session.launch import open_session, options_for

        return await open_session(options_for(python=python, keep_worker_seconds=OTHER_WORKER_SECONDS), watch=False)

    app = WorkbenchApp(
        settings or load_settings(),
        open_now,
        describe_loss=explain,
        open_other=open_other,
        end_session=end_now,
        open_running=open_running,
        bench=bench,
        model=model,
        theme=theme,
    )
    app.driver_class = TerminalDriver
    code = app.run(mouse=mouse)
    if app.return_code:
        raise WorkbenchError("app-failed", "The app ended with an error.", "Its report stands above.")
    return code or 0
