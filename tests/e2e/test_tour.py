"""The first run and the tour, in a real terminal with a real session, on the model that is built in."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.terminal import Terminal, unwrapped
from workbench.settings import load_settings

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.model,
    pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux"),
]

STEPS = (
    ("TOUR 2 of 8 Doctor", "Here:"),
    ("TOUR 3 of 8 Tokens", "tokens for 85 characters under tiny-llama."),
    ("TOUR 4 of 8 Architecture", "238,144 parameters."),
    ("TOUR 5 of 8 VRAM", "✖ does not fit."),
    ("TOUR 6 of 8 VRAM", "✔ fits. Changed: batch:"),
    ("TOUR 7 of 8 Chat", "48 out"),
    ("TOUR 8 of 8 That was it", "taken back when you leave"),
)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    opened = Terminal(sys.executable, "-m", "workbench")
    yield opened
    opened.kill()


@pytest.mark.timeout(240)
def test_the_tour_walks_every_bench_and_does_what_it_says(terminal: Terminal) -> None:
    screen = terminal.wait_for("Five benches on one model", "ctrl+g", "the tour", "report of")
    assert "no model" in screen
    terminal.keys("?")
    terminal.wait_for("the tour, two minutes")
    terminal.keys("t")
    terminal.wait_for("TOUR 1 of 8", "g fetches SmolLM2 135M Instruct", "Else it uses tiny-llama")
    for title, outcome in STEPS:
        terminal.keys("Enter")
        screen = terminal.wait_until(
            lambda shown, title=title, outcome=outcome: title in unwrapped(shown) and outcome in unwrapped(shown),
            90,
            f"the tour never came to {title!r}: {outcome!r}",
        )
        assert "✖" not in unwrapped(screen).partition("TOUR")[2].replace("✖ does not fit", "")
    assert "What is the capital of France?" in screen
    terminal.keys("Enter")
    terminal.wait_until(lambda shown: "TOUR" not in shown and "no model" in shown, 20, "the tour does not leave")
    terminal.keys("C-q")
    terminal.wait_for("left with 0")
    settings = load_settings()
    assert settings.ui.welcomed
    assert settings.ui.last_model == ""
