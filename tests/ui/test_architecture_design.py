"""The design screen: editing, refusing, undoing, saving; and two models side by side."""

from __future__ import annotations

from typing import Any

import pytest
from textual.pilot import Pilot

from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, screen_text, wait_until
from workbench.session import protocol
from workbench.ui.widgets.row_list import RowList
from workbench.ui.widgets.value_list import ValueList, parsed, stepped

MODEL = "smollm2-135m-instruct"


async def opened(app: Any, pilot: Pilot[int]) -> None:
    await wait_until(pilot, lambda: "134,515,008" in screen_text(app))
    await pilot.press("d")
    await wait_until(pilot, lambda: "nothing changed yet" in screen_text(app))


def said(app: Any) -> str:
    return " ".join(screen_text(app).split())


async def test_figures_follow_every_edit_and_undo_takes_them_back(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="architecture", model=MODEL)
    async with app.run_test(size=(120, 36)) as pilot:
        await opened(app, pilot)
        assert "▸" in screen_text(app)
        assert "What layers means." in screen_text(app)
        await pilot.press("right", "right")
        await wait_until(pilot, lambda: "141,595,200" in screen_text(app))
        assert session.asked(protocol.InspectModel)[-1].changes == {"num_hidden_layers": 32}
        assert "● layers ◂ 32 ▸ was 30" in said(app)
        assert "+5.3 %" in screen_text(app)
        assert "1 value changed" in screen_text(app)
        await pilot.press("enter", *"12", "enter")
        await wait_until(pilot, lambda: "12 ▸ was 30" in said(app) and "70,793,280" in screen_text(app))
        await pilot.press("down", "down", "right")
        await wait_until(pilot, lambda: "relu ▸ was silu" in said(app))
        await pilot.press("u", "u", "u", "u")
        await wait_until(pilot, lambda: "nothing changed yet" in screen_text(app))
        await wait_until(pilot, lambda: "134,515,008 134,515,008" in said(app))
        await pilot.press("u")
        await wait_until(pilot, lambda: "Nothing to undo." in screen_text(app))


async def test_what_cannot_be_is_refused_and_the_nearest_is_taken(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="architecture", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot)
        values = app.screen.query_one(ValueList)
        values.move_to("num_key_value_heads")
        built = len(session.asked(protocol.InspectModel))
        await pilot.press("right")
        await wait_until(pilot, lambda: "✖ num_key_value_heads is 4" in screen_text(app))
        rows = app.screen.query_one("#design-problems", RowList).rows
        assert [row.data for row in rows] == [("num_key_value_heads", 3), ("num_key_value_heads", 1)]
        assert "✖ key/value heads" in screen_text(app)
        assert "of the last design" in screen_text(app)
        assert len(session.asked(protocol.InspectModel)) == built, "nothing is built of what cannot be"
        await pilot.press("s")
        await wait_until(pilot, lambda: "What cannot be built is not saved." in screen_text(app))
        await pilot.press("tab", "down", "enter")
        await wait_until(pilot, lambda: values.field is not None and values.field["value"] == 1)
        await wait_until(pilot, lambda: "1 value changed" in screen_text(app))
        await pilot.press("right")
        await wait_until(pilot, lambda: session.asked(protocol.CheckDesign)[-1].changes == {"num_key_value_heads": 2})
        await wait_until(pilot, lambda: "✖ num_key_value_heads is 2" in screen_text(app))
        await pilot.press("f")
        await wait_until(pilot, lambda: "nothing changed yet" in screen_text(app))


async def test_a_design_is_saved_and_a_file_replaced_only_when_asked_again(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    there = protocol.Failed("exists", "/x/config.json is there already.", "Allow it to be replaced.")
    session.script(
        protocol.SaveDesign,
        lambda request: [protocol.DesignSaved(request.path) if request.overwrite else there],
    )
    app = make_app(session, bench="architecture", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot)
        await pilot.press("right")
        await wait_until(pilot, lambda: "1 value changed" in screen_text(app))
        await pilot.press("s")
        await wait_until(pilot, lambda: f"{MODEL}-design" in screen_text(app))
        await pilot.press("ctrl+u", *"/x", "enter")
        await wait_until(pilot, lambda: "enter again replaces it" in screen_text(app))
        first = session.asked(protocol.SaveDesign)[0]
        assert (first.path, first.changes, first.overwrite) == ("/x", {"num_hidden_layers": 31}, False)
        await pilot.press("enter")
        await wait_until(pilot, lambda: "Saved /x." in screen_text(app))


async def test_a_family_is_where_one_starts_from_scratch(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="architecture", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot)
        await pilot.press("n")
        await wait_until(pilot, lambda: "Start from a family" in screen_text(app))
        await pilot.press("down", "enter")
        await wait_until(pilot, lambda: "Design from family:mamba" in screen_text(app))
        await wait_until(pilot, lambda: session.asked(protocol.CheckDesign)[-1].model == "family:mamba")


async def test_without_a_model_one_begins_with_a_family(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="architecture")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "designs one from scratch" in screen_text(app) and app.session.attached)
        await pilot.press("d")
        await wait_until(pilot, lambda: "Design from family:llama" in screen_text(app))
        await wait_until(pilot, lambda: "28,311,552" in screen_text(app) or "134,515,008" in screen_text(app))


async def test_a_design_is_kept_and_compared(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="architecture", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(app, pilot)
        await pilot.press("right")
        await wait_until(pilot, lambda: "1 value changed" in screen_text(app))
        await pilot.press("escape", "d")
        await wait_until(pilot, lambda: "1 value changed" in screen_text(app))
        await pilot.press("c")
        await wait_until(pilot, lambda: "your design" in screen_text(app))
        asked = session.asked(protocol.CompareModels)[0]
        assert (asked.first, asked.second, asked.second_changes) == (MODEL, MODEL, {"num_hidden_layers": 31})
        assert "≠ layers" in screen_text(app)
        assert "decoder" not in screen_text(app), "what is the same is not shown at first"
        await pilot.press("a")
        await wait_until(pilot, lambda: "decoder" in screen_text(app))
        await pilot.press("y")
        await wait_until(pilot, lambda: "| layers | 30 | 31 |" in app.clipboard)


async def test_another_model_is_put_beside(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="architecture", model=MODEL)
    async with app.run_test(size=(120, 36)) as pilot:
        await wait_until(pilot, lambda: "134,515,008" in screen_text(app))
        await pilot.press("c")
        await wait_until(pilot, lambda: "CATALOGUE" in screen_text(app))
        await pilot.press(*"llama-3.1", "enter")
        await wait_until(pilot, lambda: "8,030,261,248" in screen_text(app))
        assert "ONLY IN THE SECOND" in screen_text(app)
        await pilot.press("x")
        await wait_until(pilot, lambda: session.asked(protocol.CompareModels)[-1].second == MODEL)


@pytest.mark.parametrize(
    ("typed", "kind", "value"),
    [
        ("1,536", "integer", 1536),
        ("9" * 20, "integer", 10**20 - 1), ("1.5", "integer", 1.5), ("1e-6", "number", 1e-6), ("none", "integer", None),
        ("off", "boolean", False), ("[1, 2]", "list", [1, 2]), ("gelu", "choice", "gelu"),
    ],
)  # fmt: skip
def test_typed_values(typed: str, kind: str, value: Any) -> None:
    assert parsed(typed, kind) == value


@pytest.mark.parametrize(("typed", "kind"), [("x", "integer"), ("inf", "number"), ("maybe", "boolean"), ("[", "list")])
def test_typed_nonsense_is_refused(typed: str, kind: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parsed(typed, kind)


def test_steps_stay_inside_and_keep_their_kind() -> None:
    def field(**changes: Any) -> dict[str, Any]:
        plain = {"kind": "integer", "value": 8, "original": 8, "least": 1, "most": None, "step": 4, "choices": []}
        return {**plain, **changes}

    assert stepped(field(), 1) == 12
    assert stepped(field(value=2), -1) == 1
    assert stepped(field(most=10), 1) == 10
    assert stepped(field(value=None, original=None), 1) == 1
    assert stepped(field(kind="boolean", value=True), 1) is False
    assert stepped(field(kind="choice", value="a", choices=["a", "b"]), -1) == "b"
    assert stepped(field(kind="number", value=1e-5, least=0, step=None), 1) == 1e-4
    assert stepped(field(kind="list", value=[1]), 1) == [1]
