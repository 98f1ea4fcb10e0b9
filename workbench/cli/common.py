"""What every command shares: its options, and running a conversation with the session."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Optional, TypeVar

import click

from workbench.cli.output import ProgressLine, command_name, print_error
from workbench.errors import JobCancelled, WorkbenchError
from workbench.paths import absolute_model
from workbench.session.client import Call, SessionClient, SessionLost
from workbench.session.launch import SessionOptions, describe_loss, open_session, options_for, whichever_runs
from workbench.session.protocol import Event, JobProgressed, Reply, Request
from workbench.settings import Settings, load_settings
from workbench.text import one_line
from workbench.tokens.encodings import suspected_utf16, utf16_error

R = TypeVar("R", bound=Reply)
T = TypeVar("T")

RESTART_HINT = "workbench session stop --force, then start again, to use what is there now."

INTERRUPTED = 130
BAD_INPUT = 2

SHORT_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
DTYPES = click.Choice(["auto", *SHORT_DTYPES, *SHORT_DTYPES.values()])


def long_dtype(name: str) -> str:
    """``bf16`` → ``bfloat16``; other names as they are."""
    return SHORT_DTYPES.get(name, name)


def model_name(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Click callback of a model by any of its names; a path becomes absolute, as the worker runs elsewhere."""
    if isinstance(value, tuple):
        return tuple(model_name(context, parameter, item) for item in value)
    if value is not None and not value.strip():
        raise click.BadParameter("a model needs a name.", context, parameter)
    return None if value is None else absolute_model(value)


@dataclass(frozen=True)
class Common:
    """The options that every command takes."""

    as_json: bool
    python: str
    session: str

    def session_options(self) -> SessionOptions:
        """Which worker to talk to; settings give what the command line does not."""
        settings = read_settings()
        return options_for(
            session=self.session,
            python=self.python or settings.session.python,
            keep_model_seconds=settings.session.keep_model_minutes * 60,
            keep_worker_seconds=settings.session.keep_worker_minutes * 60,
        )

    def any_session_options(self) -> SessionOptions:
        """As `session_options`, but any interpreter's session will do where none is named and its own does not run."""
        named = self.session or self.python or read_settings().session.python
        return self.session_options() if named else whichever_runs(self.session_options())


@functools.cache
def read_settings() -> Settings:
    """The user's settings; what is wrong with them is said once, on standard error."""
    settings = load_settings()
    for warning in settings.warnings:
        print(f"workbench: {one_line(warning)}", file=sys.stderr)
    return settings


def common_options(command: Callable[..., Optional[int]]) -> Callable[..., None]:
    """Add ``--json``, ``--python`` and ``--session``, and turn exceptions and results into exit codes."""

    @click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, nothing else there.")
    @click.option("--python", default="", metavar="PATH", help="Target interpreter or environment folder.")
    @click.option("--session", default="", metavar="NAME", help="Name of the model session.")
    @functools.wraps(command)
    def wrapped(as_json: bool, python: str, session: str, **arguments: Any) -> None:
        context = click.get_current_context()
        given_before = context.find_root().params
        common = Common(as_json, python or given_before.get("python", ""), session or given_before.get("session", ""))
        try:
            code = command(common, **arguments)
        except WorkbenchError as error:
            print_error(error, command_name(context), as_json)
            code = BAD_INPUT
        except JobCancelled:
            code = INTERRUPTED
        context.exit(code or 0)

    return wrapped


def with_session(
    common: Common,
    work: Callable[[SessionClient], Awaitable[T]],
    start: bool = True,
    any_interpreter: bool = False,
) -> T:
    """Run `work` with a client of the session, which is started if it does not run and `start` is true.

    With `any_interpreter` the session of another one will do: what is asked does not depend on it.

    Text is made safe to show where it goes to a terminal; JSON and pipes get it as it is.

    Raises:
        WorkbenchError: as the session or the work reports it; a lost session says why it died.
        KeyboardInterrupt: on ctrl+c while no request is running.
    """

    async def run() -> T:
        options = common.any_session_options() if any_interpreter else common.session_options()
        sanitize = not common.as_json and sys.stdout.isatty()
        session = await open_session(options, "cli", watch=False, sanitize=sanitize, start=start)
        if session.welcome is not None and session.welcome.outdated:
            print(f"workbench: {session.welcome.outdated}; {RESTART_HINT}", file=sys.stderr)
        try:
            return await work(session)
        except SessionLost:
            raise await describe_loss(session) from None
        finally:
            await session.close()

    return asyncio.run(run())


async def ask(
    session: SessionClient,
    request: Request,
    expected: type[R],
    on_event: Callable[[Event], None] | None = None,
    printed: type[Event] | None = None,
) -> R:
    """Send a request, show its progress on standard error, hand other events to `on_event`; the final reply.

    The first ctrl+c stops the request in the worker and waits for its reply, which for an answer brings what was
    generated; the second gives up waiting.

    Args:
        session: the client.
        request: what is asked.
        expected: the type of its reply.
        on_event: gets what is no progress.
        printed: an event that `on_event` prints without ending the line; no progress is shown over it.

    Raises:
        JobCancelled: the request was stopped and has nothing to show for it.
        WorkbenchError: as the worker reports it.
    """
    line = ProgressLine()
    taken = False
    call = session.start(request)
    with _interrupt_cancels(call):
        try:
            async for event in call.events():
                if isinstance(event, JobProgressed):
                    if not taken:
                        line.show(event)
                elif on_event is not None:
                    line.clear()
                    on_event(event)
                    taken = taken or (printed is not None and isinstance(event, printed))
            reply = await call.reply()
        finally:
            line.clear()
    if not isinstance(reply, expected):
        raise WorkbenchError("bad-reply", f"The session answered {type(reply).__name__}.")
    return reply


@contextlib.contextmanager
def _interrupt_cancels(call: Call) -> Any:
    loop = asyncio.get_running_loop()
    previous = signal.getsignal(signal.SIGINT)

    def interrupted() -> None:
        call.cancel()
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, previous)

    loop.add_signal_handler(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        if loop.remove_signal_handler(signal.SIGINT):
            signal.signal(signal.SIGINT, previous)


def decode_utf8(data: bytes, name: str) -> str:
    """Text from a file or standard input.

    Raises:
        WorkbenchError: ``bad-encoding`` with the offset of the first byte that is not UTF-8, or for UTF-16.
    """
    encoding = suspected_utf16(data)
    if encoding is not None:
        raise utf16_error(name, encoding)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if b"\0" in data:
            raise WorkbenchError(
                "binary-file", f"{name} is no text: byte {data.index(0):,} is NUL.", "Name a text file."
            ) from None
        raise WorkbenchError(
            "bad-encoding",
            f"{name} is not UTF-8 at byte {error.start:,}.",
            "Convert it first, for example: iconv -f latin1 -t utf-8 FILE",
        ) from None
