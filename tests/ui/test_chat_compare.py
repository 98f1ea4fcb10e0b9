"""What quantizing costs: asked for, shown as it comes, stopped, copied and exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input

from tests.stubs.scripted_chat import COMPARISON
from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, screen_text, wait_until
from tests.ui.test_chat_conversation import begun
from workbench.session import protocol
from workbench.ui.screens import chat_compare_rows as shown
from workbench.ui.widgets.fields import Fields


async def test_variants_are_chosen_measured_and_looked_at(
    loaded_session: ScriptedSession, make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.txt").write_text("My own text.")
    gate = loaded_session.hold(protocol.CompareVariants, before=3)
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(120, 36)) as pilot:
        await begun(pilot, "Capital of France?")
        await pilot.press("escape", "v")
        await wait_until(pilot, lambda: "Text to measure on" in screen_text(app))
        assert app.screen.query_one("#compare-prompt", Input).value == "Capital of France?"
        fields = app.screen.query_one(Fields)
        fields.move_to("bf16")
        await pilot.press("right", "ctrl+s")
        await wait_until(pilot, lambda: "✖ Only one variant is on." in screen_text(app))
        await pilot.press("right")
        app.screen.query_one("#compare-path", Input).value = "nowhere.txt"
        await pilot.press("ctrl+s")
        await wait_until(pilot, lambda: "✖ nowhere.txt cannot be read" in screen_text(app))
        app.screen.query_one("#compare-path", Input).value = "own.txt"
        fields.move_to("layers")
        await pilot.press("right", "ctrl+s")
        # The reference's figures stand there while the second one is being measured.
        await wait_until(pilot, lambda: "nf4, 1 of 2 done: text 120 of 190 tokens" in screen_text(app))
        assert "11.21" in screen_text(app)
        request = loaded_session.asked(protocol.CompareVariants)[0]
        assert (request.variants, request.text, request.layers) == (["bf16", "nf4"], "My own text.", True)
        assert request.prompt == "Capital of France?"
        gate.set()
        await wait_until(pilot, lambda: "Measured." in screen_text(app))
        text = screen_text(app)
        assert all(word in text for word in ("12.87", "0.1834", "1.902", "82.1 %", "41 % of bf16"))
        await pilot.press("2")
        await wait_until(pilot, lambda: "differs from token 6 on" in screen_text(app))
        assert "The capital of France is ▸Lyon." in screen_text(app)
        await pilot.press("3")
        await wait_until(pilot, lambda: "6.41" in screen_text(app) and "·Seine" in screen_text(app))
        await pilot.press("4")
        await wait_until(pilot, lambda: "model.layers.0.mlp.down_proj" in screen_text(app))
        assert "9.51 %" in screen_text(app)
        await pilot.press("y")
        await wait_until(pilot, lambda: "| nf4 | 110 MiB |" in app.clipboard)
        await pilot.press("e", "j")
        await wait_until(pilot, lambda: "Write to a file" in screen_text(app))
        await pilot.press("enter")
        await wait_until(pilot, lambda: (tmp_path / "quantizing-costs.json").exists())
        assert json.loads((tmp_path / "quantizing-costs.json").read_text())["text_tokens"] == 190
        # Left and opened again, the result is still there.
        await pilot.press("escape")
        await wait_until(pilot, lambda: len(app.screen_stack) == 1)
        await pilot.press("v")
        await wait_until(pilot, lambda: "9.51 %" in screen_text(app))


async def test_what_was_measured_before_stopping_stays(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    loaded_session.hold(protocol.CompareVariants, before=3)
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await begun(pilot, "Hello")
        await pilot.press("escape", "v", "ctrl+s")
        await wait_until(pilot, lambda: "1 of 2 done" in screen_text(app))
        await pilot.press("escape")
        await wait_until(pilot, lambda: loaded_session.asked(protocol.Cancel))
        assert "11.21" in screen_text(app)
        assert len(app.screen_stack) == 2
        await pilot.press("escape")
        await wait_until(pilot, lambda: len(app.screen_stack) == 1)


def test_a_variant_that_could_not_be_loaded_says_why() -> None:
    failed: dict[str, Any] = {"name": "int8", "error": "No memory for [int8]."}
    lines = [line.plain for line in shown.table_lines([COMPARISON["variants"][0], failed])]
    assert lines[2] == "int8       ✖ No memory for [int8]."
    assert all(line.cell_length <= 76 for line in shown.table_lines(COMPARISON["variants"]))


def test_answers_stand_below_one_another_where_there_is_no_room() -> None:
    variants = [{**COMPARISON["variants"][0], "name": f"v{i}"} for i in range(4)]
    narrow = [line.plain for line in shown.answer_lines(variants, 76)]
    assert sum("The capital" in line for line in narrow) == 4
    wide = [line.plain for line in shown.answer_lines(variants, 190)]
    assert sum("The capital" in line for line in wide) == 1
    assert shown.common_length("abcd", "abX") == 2
