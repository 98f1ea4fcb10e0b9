from __future__ import annotations

import re

import pytest
from textual.binding import Binding

from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, wait_until
from workbench.ui.actions import ACTIONS, APP, BENCH_TITLES, BENCHES, actions_of, bindings_of
from workbench.ui.main_screen import bench_class
from workbench.ui.widgets.key_bar import KeyBar


def test_every_action_is_told_completely() -> None:
    assert len({action.id for action in ACTIONS}) == len(ACTIONS)
    for action in ACTIONS:
        assert action.title
        assert action.help.endswith(".")
        assert action.scope == APP or action.scope in BENCH_TITLES
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", action.id)
        assert action.keys or action.palette
        # Textual takes what most terminals send for these two as ctrl+left and ctrl+right.
        assert not {"alt+b", "alt+f"} & set(action.keys.split(","))


def test_every_action_exists_where_it_says() -> None:
    from workbench.ui.app import WorkbenchApp

    for action in ACTIONS:
        owner = WorkbenchApp if action.scope == APP else bench_class(action.scope)
        assert hasattr(owner, f"action_{action.action.partition('(')[0]}"), action.id


def test_no_key_of_a_bench_hides_one_of_the_app() -> None:
    taken = {key for binding in bindings_of(APP) for key in binding.key.split(",")}
    for bench, _, _ in BENCHES:
        keys = [key for binding in bindings_of(bench) for key in binding.key.split(",")]
        assert len(keys) == len(set(keys)), bench
        assert not taken.intersection(keys), bench


def test_at_most_five_actions_of_a_bench_want_the_footer() -> None:
    for bench, _, _ in BENCHES:
        assert 1 <= sum(bool(action.footer) for action in actions_of(bench)) <= 5


async def test_footer_fits_eighty_columns_on_every_bench_and_focus(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(loaded_session)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: app.session.attached and app.main.bench)
        bar = app.main.query_one(KeyBar)
        for number in range(1, 6):
            await pilot.press(f"f{number}")
            await pilot.pause(0.05)
            for _ in range(4):
                assert 1 <= len(bar._keys) <= 5
                assert bar.line(1000).cell_length <= 80, bar.line(1000).plain
                await pilot.press("tab")


async def test_the_palette_lists_every_action(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session)
    async with app.run_test(size=(80, 24)):
        titles = {command.title for command in app.get_system_commands(app.screen)}
        themes = {f"Theme: {name}" for name in app.theme_names}
    assert titles == themes | {action.palette_title for action in ACTIONS if action.palette}


@pytest.mark.parametrize("name", [name for name, _, _ in BENCHES])
async def test_a_bench_that_is_still_being_put_together_answers_which_keys_it_takes(
    name: str, session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(session)
    async with app.run_test(size=(80, 24)):
        bench = bench_class(name)(app.link)
        for binding in bench.BINDINGS:
            action = binding.action if isinstance(binding, Binding) else binding[1]
            bench.check_action(action, ())
