"""Pictures of the Doctor bench in its states."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import textual
from textual.pilot import Pilot

from tests.stubs import scripted_data as data
from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import BASELINE_TEXTUAL, TWO_GPUS, MakeApp, screen_text, wait_until
from workbench.session import protocol
from workbench.ui.gauges import Gauges
from workbench.ui.widgets.row_list import RowList

pytestmark = pytest.mark.skipif(
    textual.__version__ != BASELINE_TEXTUAL, reason=f"pictures are of Textual {BASELINE_TEXTUAL}"
)
SIZES = [(80, 24), (120, 36)]
NO_GPU = Gauges(ram_used_bytes=9 * 2**30, ram_total_bytes=32 * 2**30, cpu_percent=15)
FIRST = "finding:driver-too-old-for-wheel-cuda"
OTHER = "/opt/conda/envs/llm/bin/python"
Steps = Callable[[Pilot[int]], Awaitable[None]]


def after(*keys: str, shown: str, cursor: tuple[str, ...] = (), picker: bool = False) -> Steps:
    """Wait for the first report, press the keys, and wait until the text is shown."""

    async def steps(pilot: Pilot[int]) -> None:
        app: Any = pilot.app
        await wait_until(pilot, lambda: app.gauges and app.main.bench and app.main.bench.view.final)
        await pilot.press(*keys)
        if picker:
            await wait_until(pilot, lambda: len(app.screen_stack) == 2 and "conda" in screen_text(app))
            app.screen.query_one(RowList).move_to(f"environment:{OTHER}")
            await pilot.press("enter")
        await wait_until(pilot, lambda: shown in screen_text(app))
        for key in cursor:
            app.query_one("#doctor-list", RowList).move_to(key)
            await pilot.pause()
        await pilot.pause(0.1)

    return steps


def healthy(session: ScriptedSession) -> None:
    session.script(protocol.Diagnose, lambda request: [protocol.Diagnosed(data.HEALTHY)])


def half_tested(session: ScriptedSession) -> None:
    session.hold(protocol.RunSelfTest, before=2)


def as_it_is(session: ScriptedSession) -> None:
    pass


STATES: dict[str, tuple[Callable[[ScriptedSession], None], Gauges, Steps]] = {
    "healthy": (healthy, NO_GPU, after(shown="✔ healthy")),
    "broken": (as_it_is, NO_GPU, after(shown="FIX")),
    "finding": (as_it_is, NO_GPU, after("enter", shown="WHAT FOLLOWS")),
    "testing": (half_tested, NO_GPU, after("t", shown="2 of 5 steps done")),
    "tested": (as_it_is, NO_GPU, after("t", shown="4 passed, 1 failed", cursor=(FIRST, "step:gpu"))),
    "environments": (as_it_is, NO_GPU, after("v", shown="● this one")),
    "other": (healthy, NO_GPU, after("v", shown="another one", picker=True)),
    "compared": (as_it_is, NO_GPU, after("c", shown="EXPLAINS A FAULT", picker=True)),
    "gpus": (healthy, TWO_GPUS, after(shown="RTX 3060", cursor=("gpu:0",))),
    "search": (as_it_is, NO_GPU, after("slash", *"cuda", shown="driver.cuda")),
}


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x36"])
@pytest.mark.parametrize("state", list(STATES))
def test_doctor(
    state: str, size: tuple[int, int], session: ScriptedSession, make_app: MakeApp, snap_compare: Any
) -> None:
    prepare, gauges, steps = STATES[state]
    prepare(session)
    app = make_app(session, make_gauges=lambda: lambda: gauges)
    assert snap_compare(app, terminal_size=size, run_before=steps)
