"""What one bench found is there in the next. Here the threads that cross the app; a data set's lengths are in
``test_tokens_bench``, what a finding breaks in ``test_doctor_bench``.
"""

from __future__ import annotations

from textual.widgets import TextArea

from tests.stubs import scripted_chat, scripted_vram
from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, screen_text, wait_until
from tests.ui.test_chat_conversation import begun
from workbench.session import protocol
from workbench.settings import Settings, TokenSettings
from workbench.ui.benches.tokens import TokensBench
from workbench.ui.benches.vram import VramBench
from workbench.ui.screens.chat_numbers import NumbersScreen
from workbench.ui.screens.load_dialog import LoadDialog
from workbench.ui.screens.vram_modules import ModulesScreen
from workbench.ui.widgets.pieces import PieceView
from workbench.ui.widgets.plan_fields import PlanFields
from workbench.ui.widgets.row_list import RowList

MODEL = "smollm2-135m-instruct"


async def test_a_token_of_an_answer_opens_in_tokens(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="tokens", model=MODEL, settings=Settings(tokens=TokenSettings(("tiny-gpt2",))))
    async with app.run_test(size=(100, 30)) as pilot:
        await wait_until(pilot, lambda: app.focused is not None and app.session.attached)
        await pilot.press(*"mine")
        await wait_until(pilot, lambda: app.query_one("#tokens-league", RowList).row is not None)
        app.query_one("#tokens-league", RowList).move_to("model:tiny-gpt2")
        await pilot.press("f5")
        await begun(pilot, "Capital of France?")
        await pilot.press("escape", "i")
        await wait_until(pilot, lambda: "token 1 of 9" in screen_text(app))
        await pilot.press("u")
        await wait_until(pilot, lambda: "token 6 of 9" in screen_text(app))
        await pilot.press("o")
        await wait_until(pilot, lambda: isinstance(app.focused, PieceView) and app.main.current == "tokens")
        bench = app.main.bench
        assert isinstance(bench, TokensBench)
        texts = [str(token["text"]) for token in scripted_chat.tokens()]
        assert bench.text == "".join(texts)
        piece = bench.query_one(PieceView).piece
        assert piece is not None
        assert piece["start"] <= len("".join(texts[:5])) < piece["end"]
        assert bench.selected == MODEL
        assert loaded_session.asked(protocol.RecountTokens)[-1].selected == MODEL
        # The parts of a character stand at one place; the id tells which is meant.
        parts = [piece | {"start": 0, "end": 1, "id": token_id} for token_id in (5, 6, 7)]
        view = bench.query_one(PieceView)
        view.set_pieces(parts, at=0, token_id=6)
        assert view.piece == parts[1]
        await pilot.press("i", "ctrl+z")
        await wait_until(pilot, lambda: bench.query_one(TextArea).text == "mine", "undo brings back what stood there")


async def test_a_layer_opens_its_memory_in_vram(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="architecture", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: any(tree.rows for tree in app.query("#architecture-tree").results(RowList)))
        app.query_one("#architecture-tree", RowList).move_to("node:model.layers.0-29")
        await pilot.press("m")
        await wait_until(pilot, lambda: isinstance(app.screen, ModulesScreen) and "together" in screen_text(app))
        assert app.main.current == "vram"
        (request,) = session.asked(protocol.EstimateModules)
        assert request.model == MODEL
        assert request.modules == [f"model.layers.{number}" for number in range(30)]
        text = screen_text(app)
        assert "Memory of model.layers.0-29" in text
        assert "30 modules" in text
        assert "300.0 %" in text
        await pilot.press("y")
        assert "weights" in app.clipboard
        await pilot.press("escape")
        assert app.focused is app.query_one("#vram-plan", PlanFields)


async def test_a_plan_is_loaded_as_it_stands_and_chat_is_a_key_away(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: session.asked(protocol.EstimateMemory))
        for field, value in (("quant", "nf4"), ("double_quant", True), ("dtype", "bfloat16")):
            assert app.main.bench.attempt(field, value) == ""
        await pilot.press("l")
        await wait_until(pilot, lambda: isinstance(app.screen, LoadDialog))
        await pilot.press("enter")
        await wait_until(pilot, lambda: app.session.model is not None and app.session.model.quant == "nf4")
        assert app.main.current == "vram", "a key that was meant for the plan would be typed into a message"
        (request,) = session.asked(protocol.LoadModel)
        assert (request.model, request.quant, request.double_quant) == (MODEL, "nf4", True)
        assert request.dtype == "bfloat16"
        await pilot.press("f5")
        await wait_until(pilot, lambda: app.main.current == "chat")


async def test_what_chat_measured_stands_beside_the_estimate(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(loaded_session, bench="chat", model=MODEL)
    async with app.run_test(size=(120, 36)) as pilot:
        await wait_until(pilot, lambda: app.focused is not None and app.session.attached)
        await begun(pilot, "Capital of France?")
        await pilot.press("escape", "n")
        await wait_until(pilot, lambda: isinstance(app.screen, NumbersScreen) and "ANSWER" in screen_text(app))
        await pilot.press("m")
        await wait_until(pilot, lambda: isinstance(app.main.bench, VramBench))
        bench = app.main.bench
        assert isinstance(bench, VramBench)
        await wait_until(pilot, lambda: bench.draft.plan == scripted_vram.STANDING_PLAN and bench.estimate is not None)
        assert len(loaded_session.asked(protocol.MeasureLoaded)) == 1
        await wait_until(pilot, lambda: "Measured on CPU" in screen_text(app))
        assert bench.result["measurement"]["kv_cache"] == 64 * 2**20
        await pilot.press("u")
        await wait_until(pilot, lambda: "Measured on CPU" not in screen_text(app))
