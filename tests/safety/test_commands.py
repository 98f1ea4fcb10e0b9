"""Every command on a terminal, with hostile strings in all that it reads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.box import Box
from tests.faults.table import faults
from tests.safety import ways
from tests.safety.corpus import ARGUMENT, MARK, TEXT
from tests.safety.scanner import COMMAND, forbidden
from tests.stubs.openai_server import END, Answer, FakeServer, chunk, page, serving
from workbench.session.launch import stop_session


class Hostile:
    """Everything hostile at hand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = str(ways.hostile_model(root))
        self.bad_models = [str(path) for path in ways.bad_models(root)]
        self.reports = [str(path) for path in ways.reports(root)]
        self.data_set = str(ways.data_set(root))
        self.plan = str(ways.plan_file(root))
        self.text = root / f"{ways.NAME[:100]}.txt"
        self.text.write_text(TEXT)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hostile, dict[str, str]]]:
    """One session for all commands, in an environment that is hostile too."""
    root = tmp_path_factory.mktemp("ways")
    with Box.shared_environment(root) as environment, pytest.MonkeyPatch.context() as patch:
        environment = {**environment, **ways.hostile_environment(root)}
        for variable, value in environment.items():
            patch.setenv(variable, value)
        yield Hostile(root), environment
        asyncio.run(stop_session("default", force=True))


COMMANDS: dict[str, Callable[[Hostile], list[list[str]]]] = {
    "doctor of this machine": lambda at: [
        ["doctor"],
        ["doctor", "--light", "--markdown"],
        ["doctor", "--light", "--json"],
    ],
    "pasted reports": lambda at: [
        *(["doctor", "--from", report] for report in at.reports),
        ["doctor", "--from", at.reports[1], "--compare", at.reports[2]],
        ["doctor", "--from", at.reports[1], "--markdown"],
        ["doctor", "--from", ARGUMENT],
    ],
    "texts and tokenizer files": lambda at: [
        ["tokens", ARGUMENT, "--model", at.model, "--pieces", "--ids", "--special"],
        ["tokens", "--file", str(at.text), "--model", at.model, "--model", "tiny-bert", "--pieces", "--chat"],
        ["tokens", "x", "--model", at.model, "--json"],
        *(["tokens", "x", "--model", bad] for bad in at.bad_models[-1:]),
        ["tokens", "--file", ARGUMENT, "--model", at.model],
    ],
    "data sets": lambda at: [
        ["tokens", "--dataset", at.data_set, "--model", at.model],
        ["tokens", "--dataset", at.data_set, "--field", ARGUMENT, "--model", at.model],
    ],
    "model names and configs": lambda at: [
        ["inspect", at.model, "--explain", "--depth", "9"],
        ["inspect", at.model, "--compare", "tiny-llama"],
        ["inspect", at.model, "--set", f"{ARGUMENT}=1"],
        ["inspect", at.model, "--lora", f"r=8,targets={ARGUMENT}"],
        ["inspect", ARGUMENT],
        *(["inspect", bad] for bad in at.bad_models[:3]),
        ["models", "list"],
        ["models", "where", at.model],
        ["models", "where", ARGUMENT],
    ],
    "plan files": lambda at: [
        ["vram", "--plan", at.plan],
        ["vram", at.model, "--gpu", ARGUMENT],
        ["vram", at.model, "--gpu", "24GiB", "--code"],
        ["vram", at.model, "--gpu", "24GiB", "--markdown"],
        ["vram", at.model, "--plan", ARGUMENT],
        ["vram", at.bad_models[2]],
    ],
    "model output and chat templates": lambda at: [
        ["chat", at.model, "--prompt", ARGUMENT, "--max-new-tokens", "40", "--temperature", "1", "--seed", "1"],
        ["chat", at.model, "--prompt", "x", "--system", ARGUMENT, "--max-new-tokens", "20", "--json"],
        ["chat", at.bad_models[0], "--prompt", "x"],
        ["chat", at.bad_models[3], "--prompt", "x"],
        ["trace", at.model, "--prompt", ARGUMENT[:200]],
    ],
    "names of sessions and interpreters": lambda at: [
        ["session", "status"],
        ["session", "list"],
        ["session", "log"],
        ["session", "status", "--session", ARGUMENT],
        ["doctor", "--python", ARGUMENT],
        ["envs"],
        [ARGUMENT],
        ["vram", "tiny-llama", f"--{ARGUMENT}"],
        ["--bench", ARGUMENT],
    ],
}


def must_be_clean(written: bytes, arguments: list[str]) -> None:
    assert written, arguments
    found = forbidden(written, COMMAND, MARK)
    assert not found, f"{[a[:60] for a in arguments]} wrote {found[:6]!r} of {len(found)}"
    assert b"Traceback" not in written, written[-3000:]
    assert not returns(written), f"{arguments} wrote a return that is no line end: {returns(written)!r}"


def returns(written: bytes) -> list[bytes]:
    """Text that would be written over by what follows a carriage return, but for our own line of progress."""
    lines = [line for line in written.replace(b"\r\n", b"\n").split(b"\n") if b"\r" in line]
    return [line for line in lines if any(not part.startswith(b"\x1b[K") for part in line.split(b"\r")[1:])]


@pytest.mark.model
@pytest.mark.parametrize("way", COMMANDS)
@faults(
    "hostile text in a command: {}",
    COMMANDS,
    "escape sequences, C1, OSC 8 and 52, bidirectional, zero-width, piles of marks, markup, NUL on a pseudo-terminal",
    "shown, never obeyed: the terminal is sent colours and line ends alone; no traceback",
)
def test_command(home: tuple[Hostile, dict[str, str]], way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile, environment = home
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    for arguments in COMMANDS[way](hostile):
        must_be_clean(ways.on_terminal(*arguments), arguments)


@pytest.mark.model
@faults(
    "hostile text in a command: {}",
    ("a server's replies",),
    "answers, names of models, errors and headers of a server",
    "shown, never obeyed",
)
def test_server(home: tuple[Hostile, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in home[1].items():
        monkeypatch.setenv(variable, value)
    with serving(FakeServer(owner=TEXT, models=(TEXT, "tiny"))) as server:
        answers: list[tuple[str, Answer]] = [
            ("tiny", Answer([chunk(TEXT[:50]), chunk(TEXT[50:]), END])),
            ("tiny", page({"error": {"message": TEXT, "type": TEXT}}, 400)),
            ("tiny", Answer(TEXT.encode(), 500, "text/html")),
            (TEXT.replace("\0", ""), Answer([chunk("x"), END])),
            ("", Answer([chunk("x"), END])),
        ]
        for model, answer in answers:
            server.answer = answer
            arguments = ["chat", *([model] if model else []), "--url", server.url, "--prompt", "x"]
            must_be_clean(ways.on_terminal(*arguments), arguments)


def test_no_variable_is_lost(home: tuple[Hostile, dict[str, str]]) -> None:
    """What the rows above rest on: the hostile variables are those that the session runs in."""
    assert all(MARK in home[1][name] for name in ways.ENVIRONMENT)
    assert os.path.exists(home[0].model)
