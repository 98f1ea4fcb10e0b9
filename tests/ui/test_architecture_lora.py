"""The LoRA screen: presets, edits, what is matched, and the marks in the tree."""

from __future__ import annotations

from typing import Any

import pytest
from textual.pilot import Pilot

from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, screen_text, wait_until
from workbench.session import protocol
from workbench.ui.screens.architecture_lora import FIELDS, layer_numbers, peft_code, plan_of
from workbench.ui.widgets.row_list import RowList
from workbench.ui.widgets.value_list import ValueList

MODEL = "smollm2-135m-instruct"
DEFAULTS = {item["key"]: item["value"] for item in FIELDS}


async def opened(app: Any, pilot: Pilot[int]) -> ValueList:
    await wait_until(pilot, lambda: "134,515,008" in screen_text(app))
    await pilot.press("l")
    await wait_until(pilot, lambda: "921,600" in screen_text(app))
    values: ValueList = app.screen.query_one(ValueList)
    return values


async def test_presets_ranks_and_layers_are_counted_at_once(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="architecture", model=MODEL)
    async with app.run_test(size=(120, 36)) as pilot:
        values = await opened(app, pilot)
        assert session.asked(protocol.CountAdapter)[0].lora["targets"] == ["all-linear"]
        assert "q_proj  ◆ 30" in screen_text(app)
        assert "k_proj" not in screen_text(app)
        await pilot.press("right")
        await wait_until(
            pilot, lambda: session.asked(protocol.CountAdapter)[-1].lora["targets"] == ["q_proj", "v_proj"]
        )
        values.move_to("r")
        await pilot.press("right")
        await wait_until(pilot, lambda: "1,843,200" in screen_text(app))
        values.move_to("layers")
        await pilot.press("enter", *"0-3, 9", "enter")
        await wait_until(pilot, lambda: "q_proj  ◆ 5" in screen_text(app))
        assert session.asked(protocol.CountAdapter)[-1].lora["layers"] == [0, 1, 2, 3, 9]
        await pilot.press("u")
        await wait_until(pilot, lambda: "q_proj  ◆ 30" in screen_text(app))
        values.move_to("layers")
        await pilot.press("enter", *"x", "enter")
        await wait_until(pilot, lambda: "layers are numbers and ranges" in screen_text(app))
        await pilot.press("u")
        values.move_to("regex")
        await pilot.press("enter", *"nothing", "enter")
        await wait_until(pilot, lambda: "✖ Nothing matches 'nothing'." in screen_text(app))
        assert session.asked(protocol.CountAdapter)[-1].lora["regex"] == "nothing"
        assert "own" in screen_text(app)
        await pilot.press("R", "y")
        await wait_until(pilot, lambda: "target_modules='all-linear'" in app.clipboard)


async def test_what_is_adapted_is_marked_in_the_tree(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="architecture", model=MODEL)
    async with app.run_test(size=(120, 36)) as pilot:
        await opened(app, pilot)
        await pilot.press("escape")
        await wait_until(pilot, lambda: app.screen is app.main)
        await pilot.press("a")
        listing = app.query_one("#architecture-tree", RowList)

        def text(end: str) -> str:
            return str(next(row for row in listing.rows if row.key.endswith(end)).content(78).plain)

        await wait_until(pilot, lambda: "◆ LoRA r 16" in text("q_proj"))
        assert "◇ LoRA inside" in text("self_attn")
        assert "LoRA" not in text("k_proj")
        assert "LoRA" not in text("mlp")


async def test_the_screen_holds_together_at_eighty_columns(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="architecture", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot)
        lines = screen_text(app).splitlines()
        assert any("adapter file" in line and "3.52 MiB" in line for line in lines)
        assert any("q_proj" in line and "552,960" in line for line in lines)


def test_a_plan_names_what_differs_from_nothing() -> None:
    plan = plan_of(DEFAULTS | {"exclude": "lm_head", "layers": "2-4", "modules_to_save": "norm"}, ["experts.down_proj"])
    assert plan == {
        "r": 16, "alpha": 32, "rslora": False, "dora": False, "bias": "none", "dtype": "float32",
        "targets": ["all-linear"], "target_parameters": ["experts.down_proj"], "exclude": ["lm_head"],
        "layers": [2, 3, 4], "modules_to_save": ["norm"],
    }  # fmt: skip
    regex = plan_of(DEFAULTS | {"regex": r".*\.q_proj"}, ["x"])
    assert regex["regex"] == r".*\.q_proj"
    assert "targets" not in regex
    assert "target_parameters" not in regex


@pytest.mark.parametrize("typed", ["a", "3-", "0-99999999", "0-999999"])
def test_layers_that_are_none_are_refused(typed: str) -> None:
    with pytest.raises(ValueError, match="numbers and ranges"):
        layer_numbers(typed)


def test_the_code_is_what_peft_takes() -> None:
    code = peft_code(plan_of(DEFAULTS | {"rslora": True, "targets": "q_proj, v_proj", "layers": "0-1"}, []))
    made: dict[str, Any] = {}
    exec(code.replace("from peft import LoraConfig", ""), {"LoraConfig": lambda **options: made.update(options)})
    assert made == {
        "r": 16, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"], "use_rslora": True,
        "layers_to_transform": [0, 1], "task_type": "CAUSAL_LM",
    }  # fmt: skip
