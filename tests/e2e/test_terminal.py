"""The main job through the screen of a real terminal."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.terminal import Terminal
from workbench.session.launch import SessionOptions, open_session
from workbench.session.lock import SessionFiles, WorkerIdentity, lock_holder
from workbench.session.protocol import SessionStatus

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux"),
]

APP = (sys.executable, "-m", "workbench", "--bench", "chat")
QUESTION = "What is the capital of France?"
FIGURES = " out · first "
"""Stands in the line below an answer that ended."""


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.kill()


def open_terminal(terminals: list[Terminal], *command: str, width: int = 80, height: int = 24) -> Terminal:
    terminal = Terminal(*command, width=width, height=height)
    terminals.append(terminal)
    return terminal


def session_status() -> SessionStatus:
    async def read() -> SessionStatus:
        client = await open_session(SessionOptions("default"), client="test", watch=False, start=False)
        await client.close()
        assert client.welcome is not None
        return client.welcome.status

    return asyncio.run(read())


def worker() -> WorkerIdentity:
    holder = lock_holder(SessionFiles.of("default").worker_lock)
    assert holder is not None
    return holder


@pytest.mark.model
@pytest.mark.timeout(400)
def test_open_load_ask_drop_the_line_and_attach_again(shared_cache: Path, terminals: list[Terminal]) -> None:
    terminal = open_terminal(terminals, *APP)
    terminal.wait_for("5 Chat", "ctrl+o")
    terminal.keys("C-o")
    terminal.wait_for("smollm2-135m-instruct")
    terminal.type("smollm2-135m-i")
    terminal.wait_until(lambda screen: "tiny-llama" not in screen, 20, "the search does not narrow the list")
    terminal.keys("C-l")
    terminal.wait_for("Load smollm2-135m-instruct", "quantize")
    terminal.keys("Right", "Right")
    terminal.wait_for("nf4 ▸")
    terminal.keys("Enter")
    terminal.wait_for("tensors", seconds=120)
    terminal.wait_until(lambda screen: "● smollm2" in screen, 200, "never loaded")
    terminal.type(QUESTION)
    terminal.keys("Enter")
    lines = terminal.wait_for(FIGURES, seconds=180).splitlines()
    last_words = lines[next(number for number, line in enumerate(lines) if FIGURES in line) - 1].strip()
    assert last_words
    before = session_status()
    assert before.model is not None
    assert before.model.quant == "nf4"

    terminal.kill()

    again = open_terminal(terminals, *APP)
    screen = again.wait_for(last_words, FIGURES, "● smollm2")
    assert "not loaded" not in screen
    after = session_status()
    assert after.pid == before.pid
    assert after.model == before.model
    again.keys("Escape", "q")
    again.wait_for("left with 0")
    assert lock_holder(SessionFiles.of("default").worker_lock) is None


@pytest.mark.model
@pytest.mark.timeout(300)
def test_a_killed_worker_is_told_and_replaced_without_leaving(shared_cache: Path, terminals: list[Terminal]) -> None:
    terminal = open_terminal(terminals, *APP, "--model", "tiny-llama", width=120, height=36)
    terminal.wait_for("tiny-llama", "ctrl+l")
    terminal.keys("C-l", "Enter")
    terminal.wait_for("● tiny-llama", seconds=90)
    terminal.type("half a thought")
    os.kill(worker().pid, signal.SIGKILL)
    screen = terminal.wait_for("SIGKILL")
    assert "half a thought" in screen
    terminal.keys("Escape", "r")
    terminal.wait_until(lambda screen: "SIGKILL" not in screen, 30, "the banner stays")
    terminal.wait_until(lambda _: lock_holder(SessionFiles.of("default").worker_lock) is not None, 30, "no session")
    terminal.wait_for("py3.11" if sys.version_info[:2] == (3, 11) else "py3", seconds=30)
    assert "half a thought" in terminal.screen()
    assert session_status().model is None


def test_an_interpreter_that_cannot_start_is_said_on_the_screen(terminals: list[Terminal]) -> None:
    terminal = open_terminal(terminals, sys.executable, "-m", "workbench", "--python", "/bin/false")
    terminal.wait_for("/bin/false")
    terminal.keys("Escape", "q")
    terminal.wait_for("left with")


def test_detaching_leaves_the_session_running(terminals: list[Terminal]) -> None:
    terminal = open_terminal(terminals, sys.executable, "-m", "workbench", "--bench", "doctor")
    terminal.wait_for("1 Doctor")
    terminal.wait_until(lambda _: lock_holder(SessionFiles.of("default").worker_lock) is not None, 20, "no session")
    terminal.keys("M-d")
    terminal.wait_for("left with 0")
    assert worker().pid


def test_a_pasted_log_presses_no_keys_and_odd_bytes_end_nothing(terminals: list[Terminal]) -> None:
    terminal = open_terminal(terminals, *APP)
    terminal.wait_for("Write a message")
    terminal.send_bytes(b"\x1b[200~Why?\n \x1b[31mERROR\x1b[0m \x11 \x03 \x1bq two\x1b[201~")
    screen = terminal.wait_for("Why?", "ERROR", "two")
    assert "left with" not in screen
    terminal.send_bytes(b"\xff\x9b more")
    screen = terminal.wait_for("more")
    assert "Why?" in screen
    assert "left with" not in screen
