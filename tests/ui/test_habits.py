"""Keys that hands know: moved ones, emacs and vim in lists, / and y everywhere."""

from __future__ import annotations

from pathlib import Path

from textual import events
from textual.command import CommandPalette
from textual.widgets import Input, TextArea

from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, screen_text, wait_until
from workbench.paths import state_dir
from workbench.session import protocol
from workbench.settings import Settings, UiSettings
from workbench.ui.benches.vram import VramBench
from workbench.ui.benches.vram_plan import Draft, draft_from
from workbench.ui.screens.help import HelpScreen
from workbench.ui.screens.vram_gpus import GpusScreen
from workbench.ui.widgets.finder import Finder
from workbench.ui.widgets.plan_fields import PlanFields
from workbench.ui.widgets.row_list import RowList

MODEL = "llama-3.1-8b"


async def test_emacs_keys_move_in_lists_and_the_palette_makes_room(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, settings=Settings(ui=UiSettings(welcomed=True, emacs_keys=True)))
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "✖ broken" in screen_text(app) and app.gauges)
        assert "alt+x" in screen_text(app)
        listing = app.query_one("#doctor-list", RowList)
        first = listing.cursor
        await pilot.press("ctrl+n", "ctrl+n")
        assert listing.cursor > first
        await pilot.press("ctrl+p", "k")
        assert listing.cursor == first
        await pilot.press("alt+x")
        await wait_until(pilot, lambda: isinstance(app.screen, CommandPalette))


async def test_keys_can_be_moved_in_lists_too_and_a_clash_is_told(session: ScriptedSession, make_app: MakeApp) -> None:
    keys = {"list-down": "n", "doctor-compare": "t"}
    app = make_app(session, settings=Settings(ui=UiSettings(welcomed=True), keys=keys))
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "✖ broken" in screen_text(app))
        listing = app.query_one("#doctor-list", RowList)
        first = listing.cursor
        await pilot.press("n")
        assert listing.cursor > first
        told = [notice.message for notice in app._notifications]
        assert any("t is the key of doctor-self-test and doctor-compare" in message for message in told)
        assert not any("names no action" in message for message in told)


async def test_a_row_is_found_by_what_it_says(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="vram", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: session.asked(protocol.EstimateMemory) and app.query(PlanFields))
        fields = app.query_one(PlanFields)
        await pilot.press("slash", *"seq")
        assert fields.field is not None
        assert fields.field.id == "sequence_length"
        await pilot.press("enter")
        assert app.focused is fields
        assert not app.query(Finder)
        await pilot.press("t")
        await wait_until(pilot, lambda: isinstance(app.screen, GpusScreen) and app.screen.query_one(RowList).rows)
        listing = app.screen.query_one(RowList)
        await pilot.press("slash", *"h200")
        assert listing.row is not None
        assert listing.row.key == "H200"
        await pilot.press(*(["backspace"] * 4), *"fits", "down")
        assert listing.row.key != "H200"
        await pilot.press("up")
        assert listing.row.key == "H200"
        await pilot.press(*" nothing like it")
        assert app.screen.query_one(Finder).has_class("-nothing")
        await pilot.press("escape")
        await wait_until(pilot, lambda: not app.screen.query(Finder))
        assert isinstance(app.screen, GpusScreen)


async def test_every_list_in_a_box_can_be_copied_and_searched(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "✖ broken" in screen_text(app))
        await pilot.press("question_mark")
        await wait_until(pilot, lambda: isinstance(app.screen, HelpScreen) and app.screen.query_one(RowList).rows)
        await pilot.press("y")
        assert "Run the self-test" in app.clipboard
        assert "list-down" in app.clipboard
        await pilot.press("slash")
        await wait_until(pilot, lambda: isinstance(app.focused, Input))
        await pilot.press(*"longest seq")
        row = app.screen.query_one(RowList).row
        assert row is not None
        assert row.key == "vram-sequence"


async def test_text_that_cannot_be_kept_is_told_once(
    session: ScriptedSession, make_app: MakeApp, private_home: Path
) -> None:
    in_the_way = state_dir()
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.write_text("no directory")
    app = make_app(session, bench="tokens", model=MODEL)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, TextArea))
        for text in ("half", " a thought"):
            await pilot.press(*text)
            await wait_until(pilot, lambda: app._notifications)
            await pilot.pause(1.3)
        told = [notice.message for notice in app._notifications if "cannot be kept" in notice.message]
        assert len(told) == 1


async def test_text_and_plan_are_there_again(session: ScriptedSession, make_app: MakeApp, private_home: Path) -> None:
    app = make_app(session, bench="tokens", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, TextArea))
        await pilot.press(*"half a thought")
        await wait_until(pilot, lambda: session.asked(protocol.RecountTokens))
        await pilot.press("f4")
        await wait_until(pilot, lambda: isinstance(app.main.bench, VramBench) and app.main.bench.estimate)
        assert app.main.bench.attempt("batch", 7) == ""
        await wait_until(pilot, lambda: app.query_one("#tokens-text", TextArea).text == "half a thought")
    later = make_app(session, bench="tokens", model=MODEL)
    async with later.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: later.query("#tokens-text"))
        assert later.query_one("#tokens-text", TextArea).text == "half a thought"
        await pilot.press("f4")
        await wait_until(pilot, lambda: isinstance(later.main.bench, VramBench))
        assert later.main.bench.draft.plan.batch == 7


def test_a_draft_that_is_none_gives_the_defaults() -> None:
    for text in ("", "{", "[]", '{"plan": {"batch": -1}, "gpu": "", "dataset_tokens": 0, "epochs": 1}', '{"plan": 3}'):
        assert draft_from(text) == Draft()


async def test_escape_and_a_bench_key_in_one_burst(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="doctor")
    async with app.run_test(size=(100, 30)) as pilot:
        await wait_until(pilot, lambda: app.session.attached and app.focused is not None)
        for key in ("f4", "escape", "f5"):
            app.post_message(events.Key(key, None))
        await wait_until(pilot, lambda: app.main.current == "chat" and isinstance(app.focused, TextArea))
        await pilot.pause(0.2)
        assert isinstance(app.focused, TextArea)
