"""The architecture bench on a real worker with a tiny mixture of experts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from tests.conftest import Opener
from tests.ui.conftest import GAUGES, screen_text, wait_until
from workbench.paths import data_dir
from workbench.session.client import SessionClient, SessionLost
from workbench.settings import Settings
from workbench.ui.app import WorkbenchApp
from workbench.ui.widgets.block_diagram import BlockDiagram
from workbench.ui.widgets.value_list import ValueList

pytestmark = pytest.mark.model


async def patiently(pilot: Pilot[int], predicate: Callable[[], object]) -> None:
    """Wait as `wait_until` does, and longer: torch is imported and a model loaded meanwhile."""
    for _ in range(2):
        with contextlib.suppress(AssertionError):
            await wait_until(pilot, predicate)
            return
    await wait_until(pilot, predicate)


async def test_inspect_design_adapt_trace_and_embed(session_opener: Opener, shared_cache: object) -> None:
    async def open_session() -> SessionClient:
        return await session_opener(watch=True)

    async def lost(client: SessionClient) -> SessionLost:
        return SessionLost("gone")

    model = str(data_dir("sample_models") / "tiny-mixtral")
    app: Any = WorkbenchApp(
        Settings(), open_session, bench="architecture", model=model, describe_loss=lost,
        make_gauges=lambda: lambda: GAUGES, remember=False,
    )  # fmt: skip
    async with app.run_test(size=(120, 36)) as pilot:
        await patiently(pilot, lambda: "MixtralForCausalLM" in screen_text(app))
        assert "of 4 experts" in app.query_one(BlockDiagram).text
        await pilot.press("f")
        await wait_until(pilot, lambda: "Parameters" in screen_text(app))
        await pilot.press("escape", "d")
        await wait_until(pilot, lambda: "nothing changed yet" in screen_text(app))
        values = app.screen.query_one(ValueList)
        values.move_to("num_key_value_heads")
        await pilot.press("enter", *"3", "enter")
        await wait_until(pilot, lambda: "✖" in screen_text(app))
        await pilot.press("f")
        await wait_until(pilot, lambda: "✖" not in screen_text(app))
        await pilot.press("escape", "l")
        await wait_until(pilot, lambda: "adapter file" in screen_text(app))
        await pilot.press("escape", "t")
        await wait_until(pilot, lambda: isinstance(app.focused, Input))
        await pilot.press("enter")
        await patiently(pilot, lambda: "1 layers" in screen_text(app) and "stream norm" in screen_text(app))
        await pilot.press("3")
        await wait_until(pilot, lambda: "looks at" in screen_text(app))
        await pilot.press("4")
        await wait_until(pilot, lambda: "ranks the final answer 1." in screen_text(app))
        await pilot.press("5")
        await wait_until(pilot, lambda: "2 of 4 experts for each of" in screen_text(app))
        await pilot.press("6")
        await wait_until(pilot, lambda: "Criterion of LLM.int8" in screen_text(app))
        await pilot.press("escape")
        await wait_until(pilot, lambda: "live" in screen_text(app) and " ms" in screen_text(app))
        await pilot.press("e")
        await wait_until(pilot, lambda: "cosine" in screen_text(app))
        for view, shown in (("2", "random pairs have"), ("3", "SMALLEST"), ("4", "hidden")):
            await pilot.press(view)
            await wait_until(pilot, lambda words=shown: words in screen_text(app))  # type: ignore[misc]
