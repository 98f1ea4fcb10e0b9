from __future__ import annotations

from textual.app import App, ComposeResult
from textual.containers import Vertical
from textual.pilot import Pilot
from textual.widgets import TextArea

from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, screen_text, wait_until
from workbench.session import protocol
from workbench.settings import Settings, TokenSettings, load_settings
from workbench.ui.app import WorkbenchApp
from workbench.ui.benches.tokens import PATIENCE_SECONDS
from workbench.ui.benches.tokens_dataset import DatasetView
from workbench.ui.benches.tokens_league import prices_of
from workbench.ui.widgets.fields import Fields
from workbench.ui.widgets.pieces import PieceView, visible, wrapped
from workbench.ui.widgets.row_list import RowList

MODEL = "smollm2-135m-instruct"
TWO = Settings(tokens=TokenSettings(models=("other-model",), prices=("other-model=2.5",)))


async def test_it_counts_what_is_typed_and_gathers_keys(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="tokens", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, TextArea) and app.session.attached)
        await pilot.press(*"Hello wonderful world")
        await wait_until(pilot, lambda: "Hello·wonderful·world" in screen_text(app))
        requests = session.asked(protocol.RecountTokens)
        assert requests[-1].text == "Hello wonderful world"
        row = next(line for line in screen_text(app).splitlines() if MODEL[:12] in line and "best" in line)
        assert " 3 " in row


async def test_keys_are_not_held_up_by_a_slow_count(session: ScriptedSession, make_app: MakeApp) -> None:
    session.hold(protocol.RecountTokens)
    app = make_app(session, bench="tokens", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, TextArea) and app.session.attached)
        await pilot.press("a")
        await wait_until(pilot, lambda: session.asked(protocol.RecountTokens))
        await pilot.press(*"bc")
        assert app.query_one(TextArea).text == "abc"
        assert [request.text for request in session.asked(protocol.RecountTokens)] == ["a"]
        await pilot.pause(PATIENCE_SECONDS)
        await pilot.press("d")
        await wait_until(pilot, lambda: session.asked(protocol.Cancel), "the count of a was cancelled")
        await wait_until(pilot, lambda: session.asked(protocol.RecountTokens)[-1].text == "abcd")


async def test_counts_come_before_the_tokens(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="tokens", model=MODEL, settings=TWO)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, TextArea) and app.session.attached)
        app.query_one(TextArea).text = "one two"
        await wait_until(pilot, lambda: len(session.asked(protocol.RecountTokens)) == 2)
        counts, tokens = session.asked(protocol.RecountTokens)
        assert (counts.models, counts.selected) == ([MODEL, "other-model"], "")
        assert (tokens.models, tokens.selected) == ([MODEL], MODEL)


async def test_without_a_model_it_says_how_to_choose_one(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="tokens")
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "ctrl+o chooses the model" in screen_text(app))


async def test_tokenizers_beside_each_other_with_price_and_context(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="tokens", model=MODEL, settings=TWO)
    async with app.run_test(size=(120, 36)) as pilot:
        await wait_until(pilot, lambda: app.session.attached and app.main.bench is not None)
        app.query_one(TextArea).text = "one two three four"
        await wait_until(pilot, lambda: "+50%" in screen_text(app))
        text = screen_text(app)
        assert "0.000015" in text  # six tokens at 2.5 a million
        await pilot.press("escape", "t", "down")
        await wait_until(pilot, lambda: session.asked(protocol.RecountTokens)[-1].selected == "other-model")


async def test_tokenizers_are_added_removed_and_remembered(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="tokens", model=MODEL, remember=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, TextArea) and app.session.attached)
        await pilot.press(*"hello", "escape", "a")
        await wait_until(pilot, lambda: "Add a tokenizer" in screen_text(app) and "Mistral" in screen_text(app))
        await pilot.press(*"Mistral", "enter")
        await wait_until(pilot, lambda: load_settings().tokens.models == ("mistralai/Mistral-7B-Instruct-v0.3",))
        await wait_until(pilot, lambda: len(app.query_one("#tokens-league", RowList).rows) == 3)
        await pilot.press("t", "down", "delete")
        await wait_until(pilot, lambda: load_settings().tokens.models == ())
        await wait_until(pilot, lambda: len(app.query_one("#tokens-league", RowList).rows) == 2)


async def test_the_cursor_tells_of_each_token(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="tokens", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, TextArea) and app.session.attached)
        await pilot.press(*"one two", "escape")
        await wait_until(pilot, lambda: app.query_one(PieceView).pieces)
        await pilot.press("p", "right")
        await wait_until(pilot, lambda: "id 1 · 4 bytes · characters 3–7 · rank 2 of 49,152" in screen_text(app))


async def test_only_a_window_of_a_long_text_is_asked_for(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="tokens", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, TextArea) and app.session.attached)
        app.query_one(TextArea).text = "word " * 20_000
        view = app.query_one(PieceView)
        await wait_until(pilot, lambda: view.pieces)
        assert view.pieces[-1]["end"] < 20_000
        view.focus()
        await pilot.press("end", "right")
        await wait_until(pilot, lambda: view.pieces[0]["start"] > 0)
        assert view.piece is not None
        assert view.piece["start"] > 1000


async def test_shorter_tokens_come_while_there_is_no_width() -> None:
    class OneView(App[None]):
        def compose(self) -> ComposeResult:
            yield Vertical(PieceView())

    app = OneView()
    async with app.run_test(size=(80, 24)) as pilot:
        view, around = app.query_one(PieceView), app.query_one(Vertical)
        pieces = [{"text": "word ", "start": 5 * i, "end": 5 * i + 5, "special": False} for i in range(300)]
        view.set_pieces(pieces)
        await pilot.pause()
        assert view.line_at(10) is not None
        around.styles.width = 0
        await pilot.pause()
        view.set_pieces(pieces[:1])
        assert [view.line_at(line) for line in range(20)] == [None] * 20
        around.styles.width = 80
        await pilot.pause()
        shown = view.line_at(0)
        assert shown is not None
        assert shown[0].plain == "word·"


def test_white_space_and_wrapping() -> None:
    assert visible("a b\tc\u00a0\n") == "a·b→c␣↵\n"
    assert wrapped(["ab", "cde\n", "f"], 4) == [[(0, "ab")], [(1, "cde")], [(2, "f")]]
    assert wrapped(["abcdefg"], 3) == [[(0, "abc")], [(0, "def")], [(0, "g")]]
    assert wrapped(["日本", "語"], 5) == [[(0, "日本")], [(1, "語")]]


def test_prices_are_read_leniently() -> None:
    assert prices_of(["a=b=0.5", "nothing", "*=2", "x=-1", "y=inf"]) == {"a=b": 0.5, "*": 2.0}


async def open_dataset(app: WorkbenchApp, pilot: Pilot[int]) -> None:
    await wait_until(pilot, lambda: isinstance(app.focused, TextArea) and app.session.attached)
    await pilot.press("escape", "d")
    await wait_until(pilot, lambda: "Measure a data set" in screen_text(app))
    await pilot.press(*"train.jsonl", "enter")


async def test_a_data_set_shows_its_progress_then_its_figures(session: ScriptedSession, make_app: MakeApp) -> None:
    gate = session.hold(protocol.MeasureDataset, before=2)
    app = make_app(session, bench="tokens", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_dataset(app, pilot)
        await wait_until(pilot, lambda: "8.58 MiB of 17.2 MiB · 50 % · 5,000 rows" in screen_text(app))
        await wait_until(pilot, lambda: "ROWS BY TOKENS" in screen_text(app))
        gate.set()
        await wait_until(pilot, lambda: "10,000 rows" in screen_text(app))
        text = screen_text(app)
        assert "┊" in text
        assert "1,182" in text
        assert session.asked(protocol.MeasureDataset)[0].path == "train.jsonl"
        await pilot.press("end")
        await wait_until(pilot, lambda: "LONGEST ROWS" in screen_text(app) and "train.jsonl:812" in screen_text(app))
        await pilot.press("escape")
        await wait_until(pilot, lambda: isinstance(app.focused, TextArea))


async def test_escape_stops_a_count_and_the_figures_stay(session: ScriptedSession, make_app: MakeApp) -> None:
    gate = session.hold(protocol.MeasureDataset, before=2)
    app = make_app(session, bench="tokens", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_dataset(app, pilot)
        await wait_until(pilot, lambda: "50 %" in screen_text(app))
        view = app.query_one(DatasetView)
        await pilot.press("escape")
        await wait_until(pilot, lambda: session.asked(protocol.Cancel))
        await wait_until(pilot, lambda: "stopped at 50 %" in screen_text(app))
        assert view.display
        await pilot.press("escape")
        await wait_until(pilot, lambda: isinstance(app.focused, TextArea))
        gate.set()


async def test_p95_becomes_the_sequence_length_of_the_plan(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="tokens", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_dataset(app, pilot)
        await wait_until(pilot, lambda: "10,000 rows" in screen_text(app))
        await pilot.press("v")
        await wait_until(pilot, lambda: app.main.current == "vram" and session.asked(protocol.EstimateMemory))
        await wait_until(
            pilot, lambda: session.asked(protocol.EstimateMemory)[-1].plan["sequence_length"] == 1182, "p95 in the plan"
        )
        assert app.query_one("#vram-plan", Fields).values["sequence_length"] == 1182
        assert app.main.bench.dataset_tokens == 4_300_000
