"""The trace screen: progress and stopping, every view, reading cells, heat on the tree."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from tests.stubs import scripted_architecture as stub
from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, screen_text, wait_until
from workbench.session import protocol
from workbench.ui.screens import architecture_trace_rows as shown
from workbench.ui.widgets.grid import Grid
from workbench.ui.widgets.row_list import RowList


async def traced(app: Any, pilot: Pilot[int]) -> None:
    await wait_until(pilot, lambda: "134,515,008" in screen_text(app))
    await pilot.press("t")
    await wait_until(pilot, lambda: isinstance(app.focused, Input))
    await pilot.press("enter")
    await wait_until(pilot, lambda: "36.2 ms" in screen_text(app))


async def test_layers_then_their_attention(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="architecture")
    async with app.run_test(size=(120, 36)) as pilot:
        await traced(app, pilot)
        asked = loaded_session.asked(protocol.TraceModel)[0]
        assert (asked.prompt, asked.chat, asked.load) == ("The capital of France is", False, None)
        lines = screen_text(app).splitlines()
        first = next(line for line in lines if " 5 × 576 " in line)
        assert first.split()[1:3] == ["0", "1.10"]
        for part in ("45", "-0.0215", "1.98", "30", "12%", "23%"):
            assert part in first
        await pilot.press("down", "down", "down", "enter")
        await wait_until(pilot, lambda: "layer 3 of 30" in screen_text(app))
        assert loaded_session.asked(protocol.ReadAttention)[0].layer == 3
        assert "layer 3 head 0  4 ·is looks at 0 The  1.0000" in screen_text(app)
        await pilot.press("n", "n")
        await wait_until(pilot, lambda: "head 2  4 ·is looks at 0 The  0.7500" in screen_text(app))
        await pilot.press("tab", "end")
        await wait_until(pilot, lambda: "4 ·is looks at 4 ·is  0.2500" in screen_text(app))
        await pilot.press("up")
        await wait_until(pilot, lambda: "3 ·France looks at 4 ·is  0.0000" in screen_text(app))
        await pilot.press("right_square_bracket")
        await wait_until(pilot, lambda: "layer 4 of 30" in screen_text(app))


async def test_the_lens_reads_any_cell(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="architecture")
    async with app.run_test(size=(80, 24)) as pilot:
        await traced(app, pilot)
        await pilot.press("4")
        await wait_until(pilot, lambda: "after layer 29, at 4 ·is" in screen_text(app))
        assert "·Paris 73.6%" in screen_text(app)
        assert "ranks the final answer 1." in screen_text(app)
        await pilot.press("up", "left")
        await wait_until(pilot, lambda: "after layer 28, at 3 ·France" in screen_text(app))
        assert "ranks the final answer 2." in screen_text(app)
        await pilot.press("g")
        await wait_until(pilot, lambda: "after the embedding" in screen_text(app))


async def test_other_views_and_what_is_missing(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="architecture")
    async with app.run_test(size=(80, 24)) as pilot:
        await traced(app, pilot)
        await pilot.press("6")
        await wait_until(pilot, lambda: "⚠ systematic" in screen_text(app))
        assert "1 systematic outlier channel of 576" in " ".join(screen_text(app).split())
        await pilot.press("5")
        await wait_until(pilot, lambda: "has no mixture of experts" in screen_text(app))
        await pilot.press("2", "s")
        await wait_until(pilot, lambda: "model.layers.0.mlp" in screen_text(app))
        rows = app.screen.query_one("#trace-rows", RowList).rows
        assert [row.data["name"] for row in rows[:2]] == ["model.layers.0.mlp", "model.layers.1.mlp"]
        await pilot.press("y")
        await wait_until(pilot, lambda: "model.layers.29.mlp" in app.clipboard)
        loaded_session.script(
            protocol.TraceModel, lambda _: [protocol.ModelTraced(stub._MODEL, stub.TRACE | {"routing": stub.ROUTING})]
        )
        await pilot.press("r")
        await wait_until(pilot, lambda: len(loaded_session.asked(protocol.TraceModel)) == 2)
        await pilot.press("5")
        await wait_until(pilot, lambda: "2 of 8 experts for each of 5 tokens" in " ".join(screen_text(app).split()))
        assert "···▂▂▂▄▄▄███" in screen_text(app).replace(" ", "")


async def test_escape_stops_a_run_first_and_leaves_then(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    gate = loaded_session.hold(protocol.TraceModel, 1)
    app = make_app(loaded_session, bench="architecture")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "134,515,008" in screen_text(app))
        await pilot.press("t", "m")
        await wait_until(pilot, lambda: isinstance(app.focused, Input))
        await pilot.press("enter")
        await wait_until(pilot, lambda: "12 of 30 layers" in screen_text(app))
        await pilot.press("escape")
        await wait_until(pilot, lambda: loaded_session.asked(protocol.Cancel))
        assert "Stopped." in screen_text(app)
        await pilot.press("escape")
        await wait_until(pilot, lambda: app.screen is app.main)
        gate.set()


async def test_a_model_that_is_not_loaded_is_loaded_in_the_same_step(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(session, bench="architecture", model="smollm2-135m-instruct")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "134,515,008" in screen_text(app))
        await pilot.press("t")
        await wait_until(pilot, lambda: "loads the model, then runs the prompt" in screen_text(app))
        await pilot.press("enter")
        await wait_until(pilot, lambda: "36.2 ms" in screen_text(app))
        assert session.asked(protocol.TraceModel)[0].load == protocol.LoadModel("smollm2-135m-instruct")


async def test_a_trace_stays_and_heats_the_tree(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="architecture")
    async with app.run_test(size=(120, 36)) as pilot:
        await traced(app, pilot)
        await pilot.press("4", "escape")
        await wait_until(pilot, lambda: app.screen is app.main)
        listing = app.query_one("#architecture-tree", RowList)
        row = next(row for row in listing.rows if row.key.endswith("0-29.mlp"))
        # 30 layers of twice 0.6 ms.
        assert "36.0 ms" in row.content(76).plain
        await pilot.press("t")
        await wait_until(pilot, lambda: "after layer 29" in screen_text(app))
        assert len(loaded_session.asked(protocol.TraceModel)) == 1


async def test_a_failure_is_told_in_a_line(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    failed = protocol.Failed("unsupported", "X has no layers [/x].", "Chat works.")
    loaded_session.script(protocol.TraceModel, lambda request: [failed])
    app = make_app(loaded_session, bench="architecture")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "134,515,008" in screen_text(app))
        await pilot.press("t")
        await wait_until(pilot, lambda: isinstance(app.focused, Input))
        await pilot.press("enter")
        await wait_until(pilot, lambda: "✖ X has no layers [/x]. Chat works." in screen_text(app))


def test_weights_are_read_to_the_unit() -> None:
    reply = stub.attention_reply(protocol.ReadAttention("p", 0))[0]
    assert isinstance(reply, protocol.AttentionRead)
    weights = shown.weights_of(reply.result, 4)
    assert weights[4] == [32768 / 65535, 0, 0, 0, 32768 / 65535]
    assert shown.weights_of(reply.result, 99) == []
    cells = shown.attention_cells(reply.result, 4)
    assert cells.value(4, 0) == pytest.approx((32768 / 65535) ** 0.5)


async def test_a_map_that_does_not_fit_is_drawn_in_half_blocks(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(loaded_session, bench="architecture")
    async with app.run_test(size=(80, 24)) as pilot:
        await traced(app, pilot)
        await pilot.press("3", "tab")
        grid = app.screen.query_one(Grid)
        await wait_until(pilot, lambda: "layer 0 of 30" in screen_text(app))
        assert not grid.halved
        reply = stub.attention_reply(protocol.ReadAttention("p", 1))[0]
        assert isinstance(reply, protocol.AttentionRead)
        data = base64.b64encode(bytes(2 * 60 * 60)).decode()
        tokens = [{"id": i, "text": f"t{i}"} for i in range(60)]
        wide = {"tokens": tokens, "queries": 60, "keys": 60, "heads": [{"head": 0, "data": data}], "layer": 1}
        loaded_session.script(
            protocol.ReadAttention, lambda _: [protocol.AttentionRead(stub._MODEL, reply.result | wide)]
        )
        await pilot.press("right_square_bracket")
        await wait_until(pilot, lambda: grid.halved and "▀" in screen_text(app))
        await pilot.press("G", "end")
        await wait_until(pilot, lambda: "59 t59 looks at 59 t59" in screen_text(app))
        await pilot.press("g", "home")
        await wait_until(pilot, lambda: "▾t0" in screen_text(app))
