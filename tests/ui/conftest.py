"""The app on a scripted session, with nothing on screen that differs from run to run."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable

os.environ["TEXTUAL_ANIMATIONS"] = "none"  # read while Textual is imported

import pytest
import textual
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

from tests.stubs import scripted_data as data
from tests.stubs.scripted_session import ScriptedSession
from workbench.settings import Settings
from workbench.ui import own_changes
from workbench.ui.app import WorkbenchApp
from workbench.ui.gauges import Gauges, GpuGauge, GpuHolder

BASELINE_TEXTUAL = "8.2.8"
GAUGES = Gauges(gpus=(GpuGauge("NVIDIA L4", int(5.7 * 2**30), int(22.5 * 2**30), 35),))

WAVE = (0, 5, 20, 45, 70, 90, 100, 100, 95, 80, 60, 40, 25, 10, 0, 0, 15, 55, 85, 35)
TWO_GPUS = Gauges(
    gpus=(
        GpuGauge(
            "NVIDIA GeForce RTX 4090",
            int(21.3 * 2**30),
            24 * 2**30,
            35,
            64,
            287,
            450,
            (
                GpuHolder(4242, "python train.py · ada", int(15.2 * 2**30)),
                GpuHolder(977, "", int(6.1 * 2**30)),
            ),
            WAVE,
            tuple(range(0, 100, 5)),
        ),
        GpuGauge("NVIDIA GeForce RTX 3060", int(0.4 * 2**30), 12 * 2**30, 0, 38, 12, 170, (), (0,) * 20, (5,) * 20),
    )
)


@pytest.fixture(autouse=True)
def _only_the_baseline_updates_snapshots(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--snapshot-update", False) and textual.__version__ != BASELINE_TEXTUAL:
        pytest.exit(f"Snapshots are made with Textual {BASELINE_TEXTUAL}, this is {textual.__version__}.")


@pytest.fixture(autouse=True)
def _steady_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    for widget in (Input, TextArea):
        monkeypatch.setattr(widget.cursor_blink, "_default", False)
    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setattr(own_changes, "LOOK_SECONDS", 3600.0)  # who edits during a run shall not see it in the pictures


@pytest.fixture
def session() -> ScriptedSession:
    return ScriptedSession()


@pytest.fixture
def loaded_session() -> ScriptedSession:
    return ScriptedSession(dataclasses.replace(data.STATUS, model=data.MODEL, tokens_per_second=41.0))


MakeApp = Callable[..., WorkbenchApp]


@pytest.fixture
def make_app() -> MakeApp:
    def make(session: ScriptedSession, bench: str = "doctor", model: str = "", **options: object) -> WorkbenchApp:
        chosen = {
            "settings": Settings(),
            "describe_loss": session.describe_loss,
            "open_other": session.open_other,
            "make_gauges": lambda: lambda: GAUGES,
            "remember": False,
            **options,
        }
        return WorkbenchApp(open_session=session.open, bench=bench, model=model, **chosen)  # type: ignore[arg-type]

    return make


async def wait_until(pilot: Pilot[int], predicate: Callable[[], object], what: str = "") -> None:
    """Let the app work until the predicate holds."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if predicate():
            await pilot.pause()
            return
        await pilot.pause(0.01)
    raise AssertionError(f"did not come: {what or predicate}\n{screen_text(pilot.app)}")


def screen_text(app: WorkbenchApp) -> str:
    """The characters on screen, line by line."""
    lines = app.screen._compositor.render_strips()
    return "\n".join(strip.text.rstrip() for strip in lines)
