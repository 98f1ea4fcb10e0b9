"""The app on a terminal with a real session, with hostile strings in all that its benches read and are given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.app_on_terminal import App
from tests.faults.box import Box, until
from tests.faults.table import fault
from tests.safety import ways
from tests.safety.corpus import MARK, TEXT
from tests.safety.scanner import APP, forbidden
from workbench.session import protocol
from workbench.session.client import SessionClient
from workbench.text import sanitize

pytestmark = [pytest.mark.model, pytest.mark.e2e]

F1, F2, F3, F4, F5, F9 = "\x1bOP", "\x1bOQ", "\x1bOR", "\x1bOS", "\x1b[15~", "\x1b[20~"
ESCAPE, ENTER, CTRL_L, CTRL_O = "\x1b", "\r", "\x0c", "\x0f"
TOUR = (
    *(F1, "p", ("paste", "reports"), "\x1b\r", ESCAPE, "Y", F9, ESCAPE),
    *(F2, ("paste", "text"), ESCAPE, "p", "/", ("paste", "text"), ESCAPE, "m", ("paste", "text"), ESCAPE, ESCAPE),
    *(F3, "a", "f", ESCAPE, "w", ESCAPE, "b", ESCAPE, "d", ESCAPE),
    *(F4, "o", ESCAPE, "w", ESCAPE, CTRL_O, ("paste", "text"), ESCAPE, ESCAPE),
)


@pytest.fixture
async def app(private_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[App]:
    for variable, value in ways.hostile_environment(tmp_path).items():
        monkeypatch.setenv(variable, value)
    app = App("--bench", "doctor", "--model", str(ways.hostile_model(tmp_path)), COLORTERM="truecolor")
    app.resize(120, 40)
    yield app
    app.end()


@fault(
    "hostile text in the app, on every bench",
    "names, configs, tokenizers, pastes, processes, titles and answers of a real session, on a pseudo-terminal",
    "shown, never obeyed: the terminal is sent the app's own commands alone; no markup, no crash",
)
@fault(
    "hostile text in the app, in Chat",
    "a message, a chat template, an answer's tokens and the title of a conversation",
    "shown, never obeyed",
)
async def test_app(app: App, tmp_path: Path) -> None:
    pastes = {"text": TEXT, "reports": "\n".join(path.read_text() for path in ways.reports(tmp_path))}
    await until(lambda: app.shows("compute") or app.shows("healthy") or app.shows("broken") or app.shows("degraded"))
    for step in TOUR:
        if isinstance(step, tuple):
            app.paste(pastes[step[1]])
        else:
            app.press(step)
        await app.quiet(0.2)
        assert app.process.poll() is None, step
    await chat(app)
    await Box("default").must_work()
    assert app.process.poll() is None
    clean(app.output)


async def chat(app: App) -> None:
    """Load the hostile model, ask it, and look at what it said in every way."""
    app.press(CTRL_L)
    await until(lambda: app.shows("quantize"))
    app.press(ENTER)
    await until(lambda: app.shows("●"), "the hostile model does not load")
    app.press(F5)
    await until(lambda: app.shows("enter send"), "the field has no focus")
    box = Box("default")
    client = await box.open()
    said = ""
    for asked in range(1, 5):
        said = said or await answer(app, client, asked)
    assert sanitize(said) != said, "the model said nothing hostile"
    for keys in ("\x1bc", ESCAPE, "\x1bi", ESCAPE, "\x1bp", ESCAPE, ESCAPE, "x", ESCAPE, "Y"):
        app.press(keys)
        await app.quiet(0.2)
    await box.detach()


async def answer(app: App, client: SessionClient, asked: int) -> str:
    """What the model says to the question of this number; nothing where chance ends it before its first token."""
    app.paste(TEXT[120:160])
    app.press(ENTER)
    answers: list[dict[str, object]] = []
    while len(answers) < asked or answers[-1]["state"] == "partial":
        await asyncio.sleep(0.1)
        listed = await client.ask(protocol.ListConversations(), protocol.ConversationsListed)
        for found in listed.conversations:
            opened = await client.ask(protocol.OpenConversation(str(found["id"])), protocol.ConversationRead)
            answers = [message for message in opened.conversation["messages"] if message["role"] == "assistant"]
    assert answers[-1]["state"] == "complete", answers[-1]
    return str(answers[-1]["text"])


def clean(written: bytes) -> None:
    found = forbidden(written, APP, MARK)
    assert not found, f"{found[:6]!r} of {len(found)}"
    assert "␛".encode() in written, "the hostile strings were not on screen"
