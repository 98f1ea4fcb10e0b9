"""Pictures of the architecture bench and its screens."""

from __future__ import annotations

from typing import Any

import pytest
import textual
from textual.pilot import Pilot

from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import BASELINE_TEXTUAL, MakeApp, screen_text, wait_until
from workbench.ui.widgets.row_list import RowList
from workbench.ui.widgets.value_list import ValueList

pytestmark = pytest.mark.skipif(
    textual.__version__ != BASELINE_TEXTUAL, reason=f"pictures are of Textual {BASELINE_TEXTUAL}"
)
SMALL, LARGE = (80, 24), (120, 36)
STATES: dict[str, tuple[tuple[int, int], str, tuple[str, ...], str]] = {
    "diagram": (SMALL, "dark", ("b", "down", "down", "down"), "LlamaAttention"),
    "facts": (LARGE, "dark", ("f", "down"), "Three query heads"),
    "layers": (LARGE, "dark", ("t", "enter"), "36.2 ms"),
    "attention": (
        LARGE,
        "dark",
        ("t", "enter", "WAIT 36.2 ms", "3", "WAIT looks at", "down", "down", "down"),
        "head 3",
    ),
    "attention-16": (SMALL, "ansi-16", ("t", "enter", "WAIT 36.2 ms", "3", "WAIT looks at", "down", "down"), "head 2"),
    "lens-light": (SMALL, "light", ("t", "enter", "WAIT 36.2 ms", "4", "left"), "3 ·France"),
    "map": (LARGE, "dark", ("e", "4", "WAIT hidden", "down", "down"), "·man  id 2"),
    "lora": (LARGE, "dark", ("l",), "921,600"),
}


@pytest.mark.parametrize("state", STATES)
def test_screen(state: str, loaded_session: ScriptedSession, make_app: MakeApp, snap_compare: Any) -> None:
    size, theme, keys, shown = STATES[state]

    async def steps(pilot: Pilot[int]) -> None:
        app: Any = pilot.app
        await wait_until(pilot, lambda: "live" in screen_text(app) and app.gauges)
        for key in keys:
            if key.startswith("WAIT "):
                await wait_until(pilot, lambda words=key[5:]: words in screen_text(app))  # type: ignore[misc]
            else:
                await pilot.press(key)
        await wait_until(pilot, lambda: shown in screen_text(app))
        await pilot.pause(0.1)

    app = make_app(loaded_session, bench="architecture", theme=theme)
    assert snap_compare(app, terminal_size=size, run_before=steps)


def test_refused_design(loaded_session: ScriptedSession, make_app: MakeApp, snap_compare: Any) -> None:
    async def steps(pilot: Pilot[int]) -> None:
        app: Any = pilot.app
        await wait_until(pilot, lambda: "live" in screen_text(app) and app.gauges)
        await pilot.press("d")
        await wait_until(pilot, lambda: "nothing changed" in screen_text(app))
        app.screen.query_one(ValueList).move_to("num_key_value_heads")
        await pilot.press("right")
        await wait_until(pilot, lambda: "✖ num_key_value_heads" in screen_text(app))
        await pilot.pause(0.1)

    app = make_app(loaded_session, bench="architecture")
    assert snap_compare(app, terminal_size=SMALL, run_before=steps)


def test_heated_tree(loaded_session: ScriptedSession, make_app: MakeApp, snap_compare: Any) -> None:
    async def steps(pilot: Pilot[int]) -> None:
        app: Any = pilot.app
        await wait_until(pilot, lambda: "live" in screen_text(app) and app.gauges)
        await pilot.press("t", "enter")
        await wait_until(pilot, lambda: "36.2 ms" in screen_text(app))
        await pilot.press("escape")
        await wait_until(pilot, lambda: app.screen is app.main)
        app.query_one("#architecture-tree", RowList).move_to("node:model.layers.0-29.mlp")
        await pilot.pause(0.2)

    app = make_app(loaded_session, bench="architecture")
    assert snap_compare(app, terminal_size=LARGE, run_before=steps)
