"""Pictures of the VRAM bench and its screens. Look at the report of a failed run before updating any of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import textual
from textual.pilot import Pilot

from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import BASELINE_TEXTUAL, MakeApp, screen_text, wait_until
from tests.ui.test_vram_bench import MODEL, bench_of, fields, opened, settled
from workbench.ui.benches.vram_plan import Draft
from workbench.vram.plan import Plan

pytestmark = pytest.mark.skipif(
    textual.__version__ != BASELINE_TEXTUAL, reason=f"pictures are of Textual {BASELINE_TEXTUAL}"
)
NARROW, WIDE, WIDEST = (80, 24), (120, 36), (200, 60)
QLORA = Draft(Plan(job="qlora", quant="nf4", double_quant=True, batch=2, sequence_length=1024), "RTX 4090", 10**7)


def steps_to(session: ScriptedSession, keys: list[str], shown: str) -> Callable[[Pilot[int]], Awaitable[None]]:
    async def steps(pilot: Pilot[int]) -> None:
        app: Any = pilot.app
        await wait_until(pilot, lambda: app.session.attached and app.main.bench is not None and app.gauges)
        await opened(app, pilot, session)
        bench_of(app).change(QLORA)
        await settled(app, pilot, session)
        fields(app).move_to("gradient_checkpointing")
        await pilot.press(*keys)
        await wait_until(pilot, lambda: shown in screen_text(app), shown)
        await pilot.pause(0.3)

    return steps


@pytest.mark.parametrize(
    ("keys", "shown", "size"),
    [
        (["s"], "-2.0 %", NARROW),
        (["s"], "LIVE MEMORY", WIDE),
        ([], "MEMORY OVER SEQUENCE", WIDEST),
        (["tab", "down"], "applies", NARROW),
        (["t"], "hold the plan", NARROW),
        (["p"], "logarithmic", WIDE),
        (["d"], "PRICES", WIDE),
        (["c"], "difference", NARROW),
        (["r"], "why ", NARROW),
        (["s", "s"], "THE ALLOCATOR", (120, 50)),
    ],
    ids=["simulated", "timeline", "widest", "changes", "gpus", "plots", "money", "compare", "rules", "simulation"],
)
def test_state(
    keys: list[str], shown: str, size: tuple[int, int], session: ScriptedSession, make_app: MakeApp, snap_compare: Any
) -> None:
    if keys == ["s", "s"]:
        keys, inner = ["s"], steps_to(session, ["s"], "LIVE MEMORY")

        async def steps(pilot: Pilot[int]) -> None:
            await inner(pilot)
            await pilot.press("s")
            await wait_until(pilot, lambda: shown in screen_text(pilot.app))  # type: ignore[arg-type]
            await pilot.pause(0.3)
    else:
        steps = steps_to(session, keys, shown)
    app = make_app(session, bench="vram", model=MODEL)
    assert snap_compare(app, terminal_size=size, run_before=steps)


@pytest.mark.parametrize("theme", ["light", "ansi-16"])
def test_timeline_in_another_theme(theme: str, session: ScriptedSession, make_app: MakeApp, snap_compare: Any) -> None:
    app = make_app(session, bench="vram", model=MODEL, theme=theme)
    assert snap_compare(app, terminal_size=WIDE, run_before=steps_to(session, ["s"], "LIVE MEMORY"))
