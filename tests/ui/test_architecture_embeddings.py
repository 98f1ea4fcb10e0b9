"""The embeddings screen: neighbours, similarities, norms and the map."""

from __future__ import annotations

from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, screen_text, wait_until
from workbench.session import protocol
from workbench.ui.screens.architecture_embeddings_rows import plot, word_list


async def test_neighbours_are_walked_by_their_ids(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="architecture")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "134,515,008" in screen_text(app))
        await pilot.press("e")
        await wait_until(pilot, lambda: "·London" in screen_text(app))
        assert "0.813" in screen_text(app)
        asked = loaded_session.asked(protocol.NearestTokens)
        assert (asked[0].text, asked[0].measure, asked[0].table, asked[0].load) == (" Paris", "cosine", "input", None)
        await pilot.press("down", "enter")
        await wait_until(pilot, lambda: loaded_session.asked(protocol.NearestTokens)[-1].id == 4528)
        await pilot.press("m")
        await wait_until(pilot, lambda: loaded_session.asked(protocol.NearestTokens)[-1].measure == "dot")
        await pilot.press("o")
        await wait_until(pilot, lambda: loaded_session.asked(protocol.NearestTokens)[-1].table == "output")
        await pilot.press("i", "end", *"x", "enter")
        await wait_until(pilot, lambda: loaded_session.asked(protocol.NearestTokens)[-1].text == " Londonx")
        await pilot.press("b")
        await wait_until(pilot, lambda: loaded_session.asked(protocol.NearestTokens)[-1].text == "Londonx")


async def test_words_are_compared_pair_by_pair(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="architecture")
    async with app.run_test(size=(120, 36)) as pilot:
        await wait_until(pilot, lambda: "134,515,008" in screen_text(app))
        await pilot.press("e", "2")
        await wait_until(pilot, lambda: "·king and ·king  1.0000" in screen_text(app))
        await pilot.press("right", "right", "down")
        await wait_until(pilot, lambda: "·queen and ·man  0.9000" in screen_text(app))
        assert "random pairs have 0.12" in screen_text(app)
        assert loaded_session.asked(protocol.CompareTokens)[0].texts[:2] == [" king", " queen"]


async def test_norms_show_what_stands_out(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="architecture")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "134,515,008" in screen_text(app))
        await pilot.press("e", "3")
        await wait_until(pilot, lambda: "+7.4 σ" in screen_text(app))
        assert "2 all zero" in screen_text(app)
        assert "1.79 ▁" in screen_text(app)


async def test_the_map_says_what_it_hides(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="architecture")
    async with app.run_test(size=(120, 36)) as pilot:
        await wait_until(pilot, lambda: "134,515,008" in screen_text(app))
        await pilot.press("e", "4")
        await wait_until(pilot, lambda: "56% hidden" in screen_text(app))
        text = screen_text(app)
        assert "1 of 10 words have another nearest word here" in text
        assert "·cat          ≠ ·dog" in text
        assert text.count("●") >= 8
        await pilot.press("i", "ctrl+u", *"one, two", "enter")
        await wait_until(pilot, lambda: loaded_session.asked(protocol.MapWords)[-1].words == [" one", " two"])


async def test_a_model_that_is_not_loaded_waits_for_enter(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="architecture", model="smollm2-135m-instruct")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "134,515,008" in screen_text(app))
        await pilot.press("e")
        await wait_until(pilot, lambda: "loads the model first" in screen_text(app))
        assert not session.asked(protocol.NearestTokens)
        await pilot.press("enter")
        await wait_until(pilot, lambda: "·London" in screen_text(app))
        assert session.asked(protocol.NearestTokens)[0].load == protocol.LoadModel("smollm2-135m-instruct")


def test_words_are_divided_by_commas() -> None:
    assert word_list(" king, queen,,king , ", True) == [" king", " queen"]
    assert word_list("a b,c", False) == ["a b", "c"]


def test_a_plot_keeps_distances_and_writes_no_label_over_another() -> None:
    lines = plot([(0, 0), (2, 0), (0, 1), (0.001, 1)], ["zero", "right", "up", "same"], 44, 12, 0, True)
    text = [line.plain for line in lines]
    assert all(len(line) == 44 for line in text)
    row = next(i for i, line in enumerate(text) if "zero" in line)
    left, right = text[row].index("●"), text[row].rindex("●")
    higher = next(i for i, line in enumerate(text) if "up" in line)
    # Twice as far across as up: with characters twice as high as wide, four columns for each row.
    assert abs((right - left) - 4 * (row - higher)) <= 4
    assert sum("right" in line for line in text) == 1
    assert not any("●" in line for line in text[: row - 1]), "two points in one character are told apart by dots"
    assert [line.plain for line in plot([], [], 20, 4, 0, True)][2].strip("─┼ ") == ""
