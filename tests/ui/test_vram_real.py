"""The VRAM bench on a real worker, with a model of the catalogue: no weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from tests.conftest import Opener
from tests.ui.conftest import GAUGES, screen_text, wait_until
from workbench.session.client import SessionClient, SessionLost
from workbench.settings import Settings
from workbench.ui.app import WorkbenchApp
from workbench.ui.benches.vram_plan import Draft
from workbench.ui.widgets.row_list import RowList
from workbench.vram.plan import Plan

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.model


async def patiently(pilot: Pilot[int], predicate: Callable[[], object]) -> None:
    """Wait as `wait_until` does, and longer: torch is imported meanwhile."""
    for _ in range(2):
        with contextlib.suppress(AssertionError):
            await wait_until(pilot, predicate)
            return
    await wait_until(pilot, predicate)


async def test_plan_fit_survey_draw_and_write(session_opener: Opener) -> None:
    async def open_session() -> SessionClient:
        return await session_opener(watch=True)

    async def lost(client: SessionClient) -> SessionLost:
        return SessionLost("gone")

    app: Any = WorkbenchApp(
        Settings(), open_session, bench="vram", model="meta-llama-3-8b", describe_loss=lost,
        make_gauges=lambda: lambda: GAUGES, remember=False,
    )  # fmt: skip
    async with app.run_test(size=(120, 36)) as pilot:
        await patiently(pilot, lambda: app.main.bench is not None and getattr(app.main.bench, "estimate", None))
        bench = app.main.bench
        bench.change(Draft(Plan(job="qlora", quant="nf4", double_quant=True), "T4"))
        await wait_until(
            pilot, lambda: (bench.estimate or {}).get("suggestions") and "✖ does not fit" in screen_text(app)
        )
        assert bench.estimate["context_length"] == 8192
        await pilot.press("f")
        await wait_until(pilot, lambda: bench.draft.plan.gradient_checkpointing)
        await wait_until(pilot, lambda: "fits" in screen_text(app) and "✖ does not fit" not in screen_text(app))
        await pilot.press("t")
        await wait_until(pilot, lambda: len(app.screen.query_one("#gpus-rows", RowList).rows) > 40)
        await pilot.press("escape", "p")
        await wait_until(pilot, lambda: "the axis is logarithmic" in screen_text(app))
        await pilot.press("escape")
        await pilot.press("d")
        await wait_until(pilot, lambda: "PRICES AN HOUR" in screen_text(app))
        await pilot.press("escape")
        await pilot.press("o")
        await wait_until(pilot, lambda: "LoraConfig" in str(app.screen.query_one("#out-text", Static).content))
