"""The only writer to standard output; progress and errors go to standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from workbench.errors import WorkbenchError
from workbench.text import format_bytes, format_count, one_line, sanitize

if TYPE_CHECKING:
    import click
    from rich.console import Console
    from rich.table import Table

    from workbench.session.protocol import JobProgressed

SCHEMA = 1


def print_json(command: str, result: dict[str, Any]) -> None:
    """One object; ASCII only, so that no control character of a model or a file reaches a terminal raw."""
    print(json.dumps({"schema": SCHEMA, "command": command, **result}, indent=2))


def print_text(text: str = "", end: str = "\n") -> None:
    """Plain text for people: control characters are made visible, also into a pipe, which often ends in a pager."""
    print(sanitize(text), end=end, flush=True)


def print_exact(text: str, end: str = "\n") -> None:
    """What is the command's product, for a file or another command: an answer, a path, code."""
    print(sanitize(text) if sys.stdout.isatty() else text, end=end, flush=True)


def console() -> Console:
    """A rich console on standard output: no colour into a pipe or under NO_COLOR, no control character of the text."""
    from rich.console import Console
    from rich.segment import Segment

    class SafeConsole(Console):
        def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                if segment.control is None:
                    yield Segment(sanitize(segment.text), segment.style)
                else:
                    yield segment

        def on_broken_pipe(self) -> None:
            # Rich's own ends with code 1, which here means "the answer is no"; `run` knows what a closed pipe is.
            raise BrokenPipeError

    width = None if sys.stdout.isatty() else 120
    return SafeConsole(highlight=False, markup=False, emoji=False, width=width)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A plain table; the columns named in `right` are numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made


def command_name(context: click.Context | None) -> str:
    """``session status`` for ``workbench session status``."""
    return context.command_path.partition(" ")[2] if context is not None else ""


class ProgressLine:
    """Real counts on one line of standard error; silent when that is no terminal."""

    def __init__(self) -> None:
        self._shown = False
        self._enabled = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def show(self, event: JobProgressed) -> None:
        """Replace the line by this event."""
        if not self._enabled:
            return
        print(f"\r\x1b[K{describe_progress(event)[:78]}", end="", file=sys.stderr, flush=True)
        self._shown = True

    def clear(self) -> None:
        """Remove the line before something else is printed."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = False


def describe_progress(event: JobProgressed) -> str:
    """``download 12.0 of 88.6 MiB · SmolLM2.gguf``."""
    number = format_bytes if event.unit == "bytes" else format_count
    unit = "" if event.unit == "bytes" else f" {event.unit}"
    counts = f"{number(event.done)} of {number(event.total)}{unit}" if event.total else f"{number(event.done)}{unit}"
    detail = f" · {one_line(event.detail, 40)}" if event.detail else ""
    return f"{event.phase} {counts}{detail}"


def print_error(error: WorkbenchError, command: str, as_json: bool) -> None:
    """One line: what failed, on what, what to do; as JSON the same under ``error``."""
    if as_json:
        print_json(command, {"error": {"kind": error.kind, "message": error.message, "remedy": error.remedy}})
    print(f"workbench: {one_line(str(error), 1000)}", file=sys.stderr)
    if error.details and os.environ.get("WORKBENCH_DETAILS"):
        print(sanitize(error.details), file=sys.stderr)
