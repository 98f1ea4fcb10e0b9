"""Pictures of the tokens bench with several tokenizers and with a data set."""

from __future__ import annotations

from typing import Any

import pytest
import textual
from textual.pilot import Pilot

from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import BASELINE_TEXTUAL, MakeApp, screen_text, wait_until
from workbench.settings import Settings, TokenSettings
from workbench.ui.widgets.pieces import PieceView

pytestmark = pytest.mark.skipif(
    textual.__version__ != BASELINE_TEXTUAL, reason=f"pictures are of Textual {BASELINE_TEXTUAL}"
)
SIZES = [(80, 24), (120, 36)]
IDS = ["80x24", "120x36"]
SETTINGS = Settings(
    tokens=TokenSettings(models=("mistralai/Mistral-7B-Instruct-v0.3", "gpt2"), prices=("gpt2=2.5", "*=0.1"))
)
TEXT = (
    "Hello wonderful world,\nhow many tokens is this text?\tTabs and  spaces.\n\nA longer line that must wrap at last."
)


async def started(pilot: Pilot[int]) -> Any:
    app: Any = pilot.app
    await wait_until(pilot, lambda: app.session.attached and app.main.bench is not None and app.gauges)
    return app


@pytest.mark.parametrize("size", SIZES, ids=IDS)
def test_explorer(size: tuple[int, int], loaded_session: ScriptedSession, make_app: MakeApp, snap_compare: Any) -> None:
    async def steps(pilot: Pilot[int]) -> None:
        app = await started(pilot)
        app.query_one("#tokens-text").text = TEXT
        await wait_until(pilot, lambda: "+100%" in screen_text(app) and app.query_one(PieceView).pieces)
        await pilot.press("escape", "p", "right")
        await wait_until(pilot, lambda: "id 1 " in screen_text(app))
        await pilot.pause(0.1)

    assert snap_compare(
        make_app(loaded_session, bench="tokens", settings=SETTINGS), terminal_size=size, run_before=steps
    )


@pytest.mark.parametrize("theme", ["light", "ansi-16"])
def test_explorer_theme(theme: str, loaded_session: ScriptedSession, make_app: MakeApp, snap_compare: Any) -> None:
    async def steps(pilot: Pilot[int]) -> None:
        app = await started(pilot)
        app.query_one("#tokens-text").text = TEXT
        await wait_until(pilot, lambda: "+100%" in screen_text(app) and app.query_one(PieceView).pieces)
        await pilot.pause(0.1)

    app = make_app(loaded_session, bench="tokens", settings=SETTINGS, theme=theme)
    assert snap_compare(app, terminal_size=(80, 24), run_before=steps)


@pytest.mark.parametrize("size", SIZES, ids=IDS)
def test_data_set(size: tuple[int, int], loaded_session: ScriptedSession, make_app: MakeApp, snap_compare: Any) -> None:
    async def steps(pilot: Pilot[int]) -> None:
        app = await started(pilot)
        await wait_until(pilot, lambda: app.focused is not None and app.focused.id == "tokens-text")
        await pilot.press("escape", "d")
        await wait_until(pilot, lambda: "Measure a data set" in screen_text(app))
        await pilot.press(*"train.jsonl", "enter")
        await wait_until(pilot, lambda: "10,000 rows" in screen_text(app))
        await pilot.pause(0.1)

    assert snap_compare(
        make_app(loaded_session, bench="tokens", settings=SETTINGS), terminal_size=size, run_before=steps
    )


def opens(key: str, there: str, *then: str) -> Any:
    """Steps that type a text, press the key of a closer look, wait for what it shows, and press further keys."""

    async def steps(pilot: Pilot[int]) -> None:
        app = await started(pilot)
        app.query_one("#tokens-text").text = TEXT
        await wait_until(pilot, lambda: "+100%" in screen_text(app) and app.query_one(PieceView).pieces)
        await pilot.press("escape", *key.split())
        await wait_until(pilot, lambda: there in screen_text(app))
        await pilot.press(*then)
        await pilot.pause(0.2)

    return steps


CLOSER = {
    "explain": opens("p right enter", "rank 9"),
    "vocabulary": opens("slash", "·the", "ctrl+n", "ctrl+n"),
    "languages": opens("l", "8.25×"),
    "compare": opens("c", "is split alike", "n"),
    "template": opens("m", "17 from"),
    "tax": opens("u", "COST"),
}


@pytest.mark.parametrize("screen", CLOSER)
def test_closer_look(screen: str, loaded_session: ScriptedSession, make_app: MakeApp, snap_compare: Any) -> None:
    app = make_app(loaded_session, bench="tokens", settings=SETTINGS)
    assert snap_compare(app, terminal_size=(80, 24), run_before=CLOSER[screen])


@pytest.mark.parametrize(
    ("screen", "theme", "size"),
    [("languages", "light", (80, 24)), ("compare", "ansi-16", (80, 24)), ("tax", "light", (120, 36))],
)
def test_closer_look_theme(
    screen: str,
    theme: str,
    size: tuple[int, int],
    loaded_session: ScriptedSession,
    make_app: MakeApp,
    snap_compare: Any,
) -> None:
    app = make_app(loaded_session, bench="tokens", settings=SETTINGS, theme=theme)
    assert snap_compare(app, terminal_size=size, run_before=CLOSER[screen])
