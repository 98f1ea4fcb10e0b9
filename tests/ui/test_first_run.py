"""The first minutes: what a first run offers, and what the tour leaves behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import TextArea

from tests.stubs import scripted_data as data
from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, screen_text, wait_until
from workbench.session import protocol
from workbench.settings import Settings, load_settings
from workbench.ui.app import WorkbenchApp
from workbench.ui.benches.architecture import ArchitectureBench
from workbench.ui.benches.vram import VramBench
from workbench.ui.benches.vram_plan import draft_from
from workbench.ui.drafts import PLAN, read_draft
from workbench.ui.sample import BUILT_IN, SAMPLE
from workbench.ui.tour_steps import SENTENCE, STEPS
from workbench.ui.widgets.tour import Tour
from workbench.ui.widgets.welcome import Welcome


def has_sample(session: ScriptedSession, here: bool) -> None:
    path = "/models/sample" if here else None
    session.script(
        protocol.ResolveModel, lambda request: [protocol.ModelResolved({"name": request.model, "path": path})]
    )


async def test_a_first_run_offers_the_sample_and_fetches_it(
    session: ScriptedSession, make_app: MakeApp, private_home: Path
) -> None:
    has_sample(session, False)
    session.script(
        protocol.FetchModel,
        lambda request: [
            protocol.JobProgressed("download", 2**20, 2**22, "bytes"),
            protocol.ModelFetched({"name": request.model}),
        ],
    )
    gate = session.hold(protocol.FetchModel, before=1)
    app = make_app(session, settings=Settings(), remember=True, bench="")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "Five benches" in screen_text(app) and "broken" in screen_text(app))
        assert app.main.current == "doctor"
        assert "258 MiB from the Hub" in screen_text(app)
        await pilot.press("ctrl+g")
        await wait_until(pilot, lambda: "1.00 MiB of 4.00 MiB" in screen_text(app))
        gate.set()
        await wait_until(pilot, lambda: app.session.chosen == SAMPLE and not app.query(Welcome))
    later = make_app(session, settings=load_settings(), bench="")
    async with later.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "broken" in screen_text(later))
        assert later.session.chosen == SAMPLE
        assert not later.query(Welcome)


async def test_what_cannot_be_fetched_is_told_and_escape_puts_it_away_for_good(
    session: ScriptedSession, make_app: MakeApp, private_home: Path
) -> None:
    has_sample(session, False)
    session.script(
        protocol.FetchModel, lambda request: [protocol.Failed("no-network", "No place answers.", "Connect first.")]
    )
    app = make_app(session, settings=Settings(), remember=True, bench="")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "broken" in screen_text(app) and app.query(Welcome))
        await pilot.press("ctrl+g")
        await wait_until(pilot, lambda: "No place answers. Connect first." in screen_text(app))
        await pilot.press("escape")
        await wait_until(pilot, lambda: not app.query(Welcome) and load_settings().ui.welcomed)
    later = make_app(session, settings=load_settings(), bench="")
    async with later.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "broken" in screen_text(later))
        assert not later.query(Welcome)


def outcome(app: WorkbenchApp) -> str:
    return str(app.query_one("#tour-outcome").render())


async def to_step(app: WorkbenchApp, pilot: object, number: int, told: str) -> None:
    await pilot.press("enter")
    await wait_until(pilot, lambda: app.query_one(Tour).number == number and told in outcome(app), f"step {number}")


@pytest.mark.parametrize("here", [True, False])
async def test_the_tour_works_the_benches_and_puts_things_back(
    session: ScriptedSession, make_app: MakeApp, here: bool
) -> None:
    has_sample(session, here)
    session.script(protocol.LoadModel, lambda request: [protocol.ModelLoaded(data.MODEL)])
    app = make_app(session, model="llama-3.1-8b")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "broken" in screen_text(app))
        await pilot.press("question_mark", "t")
        await wait_until(pilot, lambda: app.query(Tour) and ("It uses" if here else "g fetches") in outcome(app))
        assert app.session.chosen == (SAMPLE if here else BUILT_IN)
        await to_step(app, pilot, 1, "Here: broken")
        await to_step(app, pilot, 2, "tokens for")
        assert app.query_one("#tokens-text", TextArea).text == SENTENCE
        await to_step(app, pilot, 3, "parameters.")
        await to_step(app, pilot, 4, "does not fit")
        await to_step(app, pilot, 5, "on an RTX 3060")
        assert [n.message for n in app._notifications] == []  # it would lie over the step's own words
        await pilot.press("b")
        await wait_until(pilot, lambda: app.query_one(Tour).number == 4 and "does not fit" in outcome(app))
        await to_step(app, pilot, 5, "on an RTX 3060")
        await to_step(app, pilot, 6, "tok/s")
        (asked,) = session.asked(protocol.Generate)
        assert asked.prompt == "What is the capital of France?"
        await to_step(app, pilot, len(STEPS) - 1, "taken back")
        await pilot.press("enter")
        await wait_until(pilot, lambda: not app.query(Tour))
        assert app.session.chosen == "llama-3.1-8b"
        assert app.query_one("#tokens-text", TextArea).text == ""
        assert app.query_one(VramBench).draft.plan.job == "inference"
        await pilot.press("f2")
        await wait_until(pilot, lambda: "Counts under llama-3.1-8b" in screen_text(app))
        assert "characters" not in screen_text(app)


async def test_the_tour_waits_for_the_count_of_a_model_whose_modules_come_first(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    gate = loaded_session.hold(protocol.InspectModel)
    app = make_app(loaded_session, model=data.MODEL.name)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "broken" in screen_text(app))
        await app.action_tour()
        await wait_until(pilot, lambda: app.query(Tour) and "It uses" in outcome(app))
        app.query_one(Tour).go_to(3)
        await wait_until(pilot, lambda: app.query(ArchitectureBench) and app.query_one(ArchitectureBench).root)
        await pilot.pause(0.2)
        assert "parameters" not in outcome(app)
        gate.set()
        await wait_until(pilot, lambda: "134,515,008 parameters." in outcome(app))


async def test_the_plan_on_disk_stays_the_users_while_the_tour_shows_its_own(
    session: ScriptedSession, make_app: MakeApp, private_home: Path
) -> None:
    has_sample(session, True)
    app = make_app(session, model="llama-3.1-8b")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "broken" in screen_text(app))
        await pilot.press("f4")
        await wait_until(pilot, lambda: app.query(VramBench))
        bench = app.query_one(VramBench)
        mine = replace(bench.draft, plan=replace(bench.draft.plan, batch=4))
        bench.change(mine)
        await app.action_tour()
        await wait_until(pilot, lambda: app.query(Tour) and "It uses" in outcome(app))
        app.query_one(Tour).go_to(4)
        await wait_until(pilot, lambda: "does not fit" in outcome(app))
        assert bench.draft != mine
    # The app has ended without the tour being left, as with a terminal that dies.
    assert draft_from(read_draft(PLAN)) == mine


async def test_a_load_of_the_tour_is_stopped_only_with_words_and_leaves_no_label(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    has_sample(session, True)
    session.script(protocol.LoadModel, lambda request: [protocol.ModelLoaded(data.MODEL)])
    session.hold(protocol.LoadModel)
    app = make_app(session, model="llama-3.1-8b", bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "No model is loaded" in screen_text(app))
        await app.action_tour()
        await wait_until(pilot, lambda: app.query(Tour) and "It uses" in outcome(app))
        app.query_one(Tour).go_to(len(STEPS) - 2)
        await wait_until(pilot, lambda: session.asked(protocol.LoadModel))
        (load,) = session.asked(protocol.LoadModel)
        idle = session.status.lanes
        loading = protocol.LaneStatus("model", "load_model", "config")
        session.set_status(lanes=(loading,))
        await wait_until(pilot, lambda: "loading · reading its config   ctrl+c stops" in screen_text(app))
        await pilot.press("enter")
        assert "Still loading" in outcome(app)
        assert load not in session.stopped
        await to_step(app, pilot, len(STEPS) - 1, f"Loading {SAMPLE} was stopped")
        assert "Chat was asked nothing" in outcome(app)
        assert load in session.stopped
        await pilot.press("f1")
        session.set_status(lanes=idle)
        await wait_until(pilot, lambda: "broken" in screen_text(app) and "loading" not in screen_text(app))
        await pilot.press("f5")
        await wait_until(pilot, lambda: "No model is loaded" in screen_text(app))
        assert "loading" not in screen_text(app)


@pytest.mark.parametrize(
    ("size", "theme", "keys"),
    [
        ((80, 24), "dark", ()),
        ((120, 36), "light", ()),
        ((80, 24), "dark", ("question_mark", "t", "enter")),
        ((200, 60), "light", ("question_mark", "t", "enter", "enter")),
    ],
    ids=["welcome-80x24", "welcome-120x36", "tour-80x24", "tour-200x60"],
)
def test_picture(
    size: tuple[int, int],
    theme: str,
    keys: tuple[str, ...],
    session: ScriptedSession,
    make_app: MakeApp,
    snap_compare: Any,
) -> None:
    has_sample(session, True)
    app = make_app(session, settings=Settings(), bench="", theme=theme)

    async def steps(pilot: Pilot[int]) -> None:
        await wait_until(pilot, lambda: "broken" in screen_text(app) and "on this box already" in screen_text(app))
        for key in keys:
            await pilot.press(key)
            await pilot.pause()
            if key == "t":
                await wait_until(pilot, lambda: app.query(Tour) and "It uses" in outcome(app))
        if keys:
            await wait_until(pilot, lambda: outcome(app).endswith(".") and "…" not in outcome(app))

    assert snap_compare(app, terminal_size=size, run_before=steps)
