"""``workbench session``."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

import click

from workbench.cli.common import Common, ask, common_options, with_session
from workbench.cli.output import print_json, print_text
from workbench.errors import WorkbenchError
from workbench.session.client import SessionClient
from workbench.session.launch import stop_session
from workbench.session.lock import SessionFiles, lock_holder, session_names
from workbench.session.logcapture import read_tail
from workbench.session.protocol import ModelUnloaded, SessionStatus, UnloadModel
from workbench.text import format_bytes, sanitize


@click.group("session")
def command() -> None:
    """The background model session."""


@command.command()
@common_options
def status(common: Common) -> int:
    """Process, interpreter, model, memory, lanes and clients. Exit code 1: it does not run."""
    try:
        found = with_session(common, _status, start=False, any_interpreter=True)
    except WorkbenchError as error:
        if error.kind != "no-session":
            raise
        _say(common, "session status", {"running": False}, str(error))
        return 1
    if common.as_json:
        print_json("session status", {"running": True, **asdict(found)})
    else:
        print_text("\n".join(f"{label:<12} {value}" for label, value in _rows(found)))
    return 0


async def _status(session: SessionClient) -> SessionStatus:
    assert session.welcome is not None
    return session.welcome.status


def _rows(status: SessionStatus) -> list[tuple[str, str]]:
    torch = f" {status.torch_version}" if status.torch_version else ""
    rows = [
        ("session", f"{status.session} · pid {status.pid} · {status.clients - 1} other clients"),
        ("interpreter", f"{status.executable} (Python {status.python_version})"),
        ("torch", f"{status.torch_state}{torch}{' · ' + status.torch_error if status.torch_error else ''}"),
    ]
    model = status.model
    if model is None:
        rows.append(("model", "none"))
    else:
        quant = "" if model.quant == "none" else f"{model.quant}{' + double quant' if model.double_quant else ''} · "
        rows.append(("model", f"{model.name} · {quant}{model.dtype} · {model.device}"))
        rows.append(("weights", format_bytes(model.weights_bytes)))
        rows += [("decoding", model.decoding)] if model.decoding else []
    memory = f"{format_bytes(status.resident_bytes)} resident"
    if status.device_bytes is not None:
        memory += f" · {format_bytes(status.device_bytes)} on the GPU"
    rows.append(("memory", memory))
    for lane in status.lanes:
        rows.append((f"{lane.name} lane", f"{lane.job or 'idle'}{f' · {lane.queued} waiting' if lane.queued else ''}"))
    return rows


@command.command("list")
@common_options
def list_command(common: Common) -> int:
    """The sessions that run now; another interpreter has one of its own."""
    found = [(name, lock_holder(SessionFiles.of(name).worker_lock)) for name in session_names()]
    running = [{"session": name, **asdict(holder)} for name, holder in found if holder is not None]
    lines = [f"{item['session']:<24} pid {item['pid']:<8} {item['executable']}" for item in running]
    _say(common, "session list", {"sessions": running}, sanitize("\n".join(lines)) or "No session runs.")
    return 0


@command.command()
@common_options
def start(common: Common) -> int:
    """Start the session if it does not run."""
    found = with_session(common, _status)
    if common.as_json:
        print_json("session start", {"running": True, **asdict(found)})
    else:
        print_text(f"Session {found.session!r} runs: pid {found.pid}, {found.executable}.")
    return 0


@command.command()
@click.option("--force", is_flag=True, help="Even while other clients are attached; kill it if it does not answer.")
@common_options
def stop(common: Common, force: bool) -> int:
    """End the session's worker and free everything it holds."""
    line = asyncio.run(stop_session(common.any_session_options().name, force))
    _say(common, "session stop", {"result": line}, line)
    return 0


@command.command()
@click.option("--lines", default=100, show_default=True, type=click.IntRange(1, 10_000))
@common_options
def log(common: Common, lines: int) -> int:
    """The last lines of the session log, also of a session that has died."""
    files = SessionFiles.of(common.any_session_options().name)
    tail = read_tail(files.log, lines)
    _say(common, "session log", {"path": str(files.log), "lines": tail}, sanitize("\n".join(tail)))
    return 0


@command.command()
@common_options
def unload(common: Common) -> int:
    """Unload the model and free its memory; the worker stays."""

    async def ask_unload(session: SessionClient) -> ModelUnloaded:
        return await ask(session, UnloadModel(), ModelUnloaded)

    done = with_session(common, ask_unload, start=False, any_interpreter=True)
    text = f"Unloaded {done.name}: {format_bytes(done.freed_bytes)} freed." if done.name else "No model was loaded."
    _say(common, "session unload", asdict(done), text)
    return 0


def _say(common: Common, command_name: str, result: dict[str, Any], text: str) -> None:
    if common.as_json:
        print_json(command_name, result)
    else:
        print_text(text)
