"""What every command shares: its options, and running a conversation with the session."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Optional, TypeVar

import click

from workbench.cli.output import ProgressLine, print_error
from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.client import SessionClient, SessionLost
from workbench.session.launch import SessionOptions, describe_loss, open_session, options_for
from workbench.session.protocol import Event, JobProgressed, Reply, Request
from workbench.settings import load_settings

R = TypeVar("R", bound=Reply)
T = TypeVar("T")

INTERRUPTED = 130
BAD_INPUT = 2


SHORT_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def long_dtype(name: str) -> str:
    """``bf16`` → ``bfloat16``; other names as they are."""
    return SHORT_DTYPES.get(name, name)


@dataclass(frozen=True)
class Common:
    """The options that every command takes."""

    as_json: bool
    python: str
    session: str

    def session_options(self) -> SessionOptions:
        """Which worker to talk to; settings give what the command line does not."""
        settings = load_settings()
        return options_for(
            session=self.session,
            python=self.python or settings.session.python,
            keep_model_seconds=settings.session.keep_model_minutes * 60,
            keep_worker_seconds=settings.session.keep_worker_minutes * 60,
        )


def common_options(command: Callable[..., Optional[int]]) -> Callable[..., None]:
    """Add ``--json``, ``--python`` and ``--session``, and turn exceptions and results into exit codes."""

    @click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, nothing else there.")
    @click.option("--python", default="", metavar="PATH", help="Target interpreter or environment folder.")
    @click.option("--session", default="", metavar="NAME", help="Name of the model session.")
    @functools.wraps(command)
    def wrapped(as_json: bool, python: str, session: str, **arguments: Any) -> None:
        common = Common(as_json, python, session)
        context = click.get_current_context()
        try:
            code = command(common, **arguments)
        except WorkbenchError as error:
            print_error(error, context.info_name or "", as_json)
            code = BAD_INPUT
        except JobCancelled:
            code = INTERRUPTED
        context.exit(code or 0)

    return wrapped


def with_session(common: Common, work: Callable[[SessionClient], Awaitable[T]], start: bool = True) -> T:
    """Run `work` with a client of the session, which is started if it does not run and `start` is true.

    Raises:
        WorkbenchError: as the session or the work reports it; a lost session says why it died.
        KeyboardInterrupt: after the running request has been cancelled in the worker.
    """

    async def run() -> T:
        options = common.session_options()
        session = await open_session(options, "cli", watch=False, sanitize=not common.as_json, start=start)
        try:
            return await work(session)
        except SessionLost:
            raise await describe_loss(session) from None
        finally:
            await session.close()

    return asyncio.run(run())


async def ask(
    session: SessionClient, request: Request, expected: type[R], on_event: Callable[[Event], None] | None = None
) -> R:
    """Send a request, show its progress on standard error, hand other events to `on_event`; the final reply."""
    line = ProgressLine()
    call = session.start(request)
    try:
        async for event in call.events():
            if isinstance(event, JobProgressed):
                line.show(event)
            elif on_event is not None:
                line.clear()
                on_event(event)
        reply = await call.reply()
    except asyncio.CancelledError:
        call.cancel()
        # The reply to a cancelled answer brings what was generated; it comes within a token.
        await asyncio.wait([asyncio.ensure_future(call.reply())], timeout=2.0)
        raise
    finally:
        line.clear()
    if not isinstance(reply, expected):
        raise WorkbenchError("bad-reply", f"The session answered {type(reply).__name__}.")
    return reply
