"""Pictures of every bench. Look at the report of a failed run before updating any of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import textual
from textual.pilot import Pilot

from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import BASELINE_TEXTUAL, MakeApp, screen_text, wait_until

pytestmark = pytest.mark.skipif(
    textual.__version__ != BASELINE_TEXTUAL, reason=f"pictures are of Textual {BASELINE_TEXTUAL}"
)
SIZES = [(80, 24), (120, 36)]
SHOWN = {
    "doctor": "FIX",
    "tokens": "wonderful",
    "architecture": "134,515,008 parameters",
    "vram": "does not fit",
    "chat": "41.0 tok/s",
}
Steps = Callable[[Pilot[int]], Awaitable[None]]


def steps_for(bench: str) -> Steps:
    async def steps(pilot: Pilot[int]) -> None:
        app: Any = pilot.app
        await wait_until(pilot, lambda: app.session.attached and app.main.bench is not None and app.gauges)
        if bench == "tokens":
            app.query_one("#tokens-text").text = "Hello wonderful world,\nhow many tokens is this?"
        if bench == "chat":
            app.query_one("#chat-input").text = "What is the capital of France?"
            await pilot.press("enter")
        await wait_until(pilot, lambda: SHOWN[bench] in screen_text(app).replace("·", " "))
        await pilot.pause(0.1)

    return steps


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x36"])
@pytest.mark.parametrize("bench", list(SHOWN))
def test_bench(
    bench: str, size: tuple[int, int], loaded_session: ScriptedSession, make_app: MakeApp, snap_compare: Any
) -> None:
    model = "llama-3.1-8b" if bench == "vram" else ""
    app = make_app(loaded_session, bench=bench, model=model)
    assert snap_compare(app, terminal_size=size, run_before=steps_for(bench))


@pytest.mark.parametrize("theme", ["light", "high-contrast", "colour-blind", "ansi-16"])
def test_theme(theme: str, loaded_session: ScriptedSession, make_app: MakeApp, snap_compare: Any) -> None:
    app = make_app(loaded_session, bench="vram", model="llama-3.1-8b", theme=theme)
    assert snap_compare(app, terminal_size=(80, 24), run_before=steps_for("vram"))


@pytest.mark.parametrize(("key", "shown"), [("ctrl+o", "CATALOGUE"), ("ctrl+l", "double quant"), ("f8", "DOCTOR")])
def test_screen(key: str, shown: str, session: ScriptedSession, make_app: MakeApp, snap_compare: Any) -> None:
    async def steps(pilot: Pilot[int]) -> None:
        app: Any = pilot.app
        await steps_for("doctor")(pilot)
        await pilot.press(key)
        await wait_until(pilot, lambda: shown in screen_text(app))
        await pilot.pause(0.1)

    app = make_app(session, model="smollm2-135m-instruct")
    assert snap_compare(app, terminal_size=(80, 24), run_before=steps)


def test_lost_session(loaded_session: ScriptedSession, make_app: MakeApp, snap_compare: Any) -> None:
    async def steps(pilot: Pilot[int]) -> None:
        app: Any = pilot.app
        await steps_for("doctor")(pilot)
        loaded_session.kill()
        await wait_until(pilot, lambda: "SIGKILL" in screen_text(app))
        await pilot.pause(0.1)

    assert snap_compare(make_app(loaded_session), terminal_size=(80, 24), run_before=steps)


@pytest.mark.parametrize("bench", ["tokens", "architecture", "vram", "chat"])
def test_empty_state(bench: str, session: ScriptedSession, make_app: MakeApp, snap_compare: Any) -> None:
    async def steps(pilot: Pilot[int]) -> None:
        app: Any = pilot.app
        await wait_until(pilot, lambda: app.session.attached and app.main.bench is not None and app.gauges)
        await wait_until(pilot, lambda: "choose" in screen_text(app))
        await pilot.pause(0.1)

    assert snap_compare(make_app(session, bench=bench), terminal_size=(80, 24), run_before=steps)
