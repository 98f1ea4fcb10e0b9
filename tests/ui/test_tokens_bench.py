from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.text import Text
from textual._wrap import compute_wrap_offsets
from textual.app import App, ComposeResult
from textual.containers import Vertical
from textual.pilot import Pilot
from textual.widgets import TextArea

from tests.stubs import scripted_data as data
from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, screen_text, wait_until
from workbench.session import protocol
from workbench.settings import Settings, TokenSettings, load_settings
from workbench.ui.app import WorkbenchApp
from workbench.ui.benches.tokens_dataset import DatasetView
from workbench.ui.benches.tokens_league import league_text, prices_of
from workbench.ui.screens.error_details import ErrorDetails
from workbench.ui.terminal_input import PASTE_END, PASTE_START, TerminalReader
from workbench.ui.widgets.edited_text import EditedText
from workbench.ui.widgets.fields import Fields
from workbench.ui.widgets.long_lines import rewrapped
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
        # A count that takes its time: nothing on screen passes for what it is not.
        gate = session.hold(protocol.RecountTokens)
        await pilot.press(*" again")
        await wait_until(pilot, lambda: "27 characters  27 bytes  counting …" in screen_text(app))
        row = next(line for line in screen_text(app).splitlines() if MODEL[:12] in line and "…" in line)
        assert "best" not in row
        gate.set()
        await wait_until(pilot, lambda: "Hello·wonderful·world·again" in screen_text(app))
        assert "27 characters  4 words  27 bytes" in screen_text(app)
        assert "counting" not in screen_text(app)


async def test_keys_are_not_held_up_by_a_slow_count(
    session: ScriptedSession, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience = "workbench.ui.benches.tokens.PATIENCE_SECONDS"
    monkeypatch.setattr(patience, 1000.0)
    session.hold(protocol.RecountTokens)
    app = make_app(session, bench="tokens", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, TextArea) and app.session.attached)
        await pilot.press("a")
        await wait_until(pilot, lambda: session.asked(protocol.RecountTokens))
        await pilot.press(*"bc")
        assert app.query_one(TextArea).text == "abc"
        assert [request.text for request in session.asked(protocol.RecountTokens)] == ["a"]
        monkeypatch.setattr(patience, 0.001)
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
        last = view.pieces[-1]
        assert last["end"] < 20_000
        view.focus()
        await pilot.press("end", "right")
        await wait_until(pilot, lambda: view.pieces[0]["start"] > 0)
        assert view.piece is not None
        assert view.piece["start"] >= last["start"]


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


def test_columns_of_large_figures_stay_apart() -> None:
    result = {"model": "m", "tokens": 9_400_000, "bytes_per_token": 6.8, "tokens_per_word": 6.8, "vocab_size": 512}
    result |= {"characters_per_token": 6.8, "context_length": 2048}
    words = league_text([result], {"m": 90_000.0}).splitlines()[1].split()
    assert words == ["m", "9,400,000", "best", "6.80", "6.80", "6.80", "512", "4,590×", "846,000.00"]


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


async def test_pasted_control_characters_are_counted_as_they_were(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="tokens", model=MODEL)

    def paste(raw: str) -> None:
        (event,) = TerminalReader().feed(f"{PASTE_START}{raw}{PASTE_END}")
        app.post_message(event)

    async with app.run_test(size=(120, 36)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, TextArea) and app.session.attached)
        area = app.query_one(EditedText)
        raw = "\x1b[31mred\x1b[0m \x7f\n"
        paste(raw)
        await wait_until(pilot, lambda: area.text == "␛[31mred␛[0m ␡\n")
        assert area.written == raw
        await wait_until(pilot, lambda: session.asked(protocol.RecountTokens)[-1].text == raw)
        assert area.replaced == 0
        paste("␀")
        await wait_until(pilot, lambda: area.replaced == 3)
        assert area.written == f"{area.text}"
        await wait_until(pilot, lambda: "3 control characters counted as the symbols shown" in screen_text(app))
        area.text = ""
        paste("a\x85b")
        await wait_until(pilot, lambda: area.written == "a\ufffdb")
        assert area.replaced == 1


async def test_typed_characters_that_do_not_print_are_kept(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="tokens", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, TextArea) and app.session.attached)
        typed = "👩\u200d👧 a\u00a0b\u00adc"
        for event in TerminalReader().feed(typed):
            app.post_message(event)
        await wait_until(pilot, lambda: app.query_one(EditedText).written == typed)


words = st.lists(st.sampled_from(["a", "word ", "  ", "日本語 ", "\u00a0", "x" * 45, "y" * 9, " "]), max_size=600)


@settings(deadline=None, max_examples=150)
@given(words, st.integers(0, 10**6), st.integers(0, 60), st.sampled_from(["", "q", " ", "new words here ", "z" * 50]))
def test_a_long_line_is_wrapped_as_if_anew(parts: list[str], place: int, removed: int, put: str) -> None:
    line, width = "lorem ipsum " * 170 + "".join(parts) + "dolor sit amet " * 90, 20
    start = place % (len(line) + 1)
    edited = line[:start] + put + line[start + removed :]
    shift = len(edited) - len(line)
    old = compute_wrap_offsets(line, width, 4)
    assert rewrapped(edited, old, start, start + len(put), shift, width) == compute_wrap_offsets(edited, width, 4)


async def test_a_long_line_is_drawn_and_edited_as_any_text_area_does(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(session, bench="tokens", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, TextArea) and app.session.attached)
        area = app.query_one(EditedText)
        plain = TextArea(id="plain")
        plain.styles.width, plain.styles.height = area.size.width, area.size.height
        await area.parent.mount(plain)  # type: ignore[union-attr]
        line = "one two  three four five " * 400
        area.text = plain.text = line
        for key in (*"xy z", "left", "backspace", "ctrl+w", "home", "Q", "end", "ctrl+z", "ctrl+y", "up", "k"):
            for each in (area, plain):
                each.focus()
                await pilot.press(key)
        assert area.text == plain.text
        assert area.selection == plain.selection
        documents = (area.wrapped_document, plain.wrapped_document)
        if documents[0]._width == documents[1]._width:
            assert documents[0]._wrap_offsets == documents[1]._wrap_offsets
        fresh = compute_wrap_offsets(area.text, documents[0]._width, 4)
        assert documents[0].get_offsets(0) == fresh
        assert documents[0].get_sections(0) == [section.plain for section in Text(area.text).divide(fresh)]
        area.focus()
        await pilot.pause()
        top = area.scroll_offset.y
        shown = [area.render_line(y).text.rstrip() for y in range(area.size.height)]
        wanted = [section.rstrip() for section in documents[0].get_sections(0)[top : top + len(shown)]]
        assert [text.strip() for text in shown][: len(wanted)] == [text.strip() for text in wanted]


async def test_enter_on_a_tokenizer_that_cannot_count_tells_all(session: ScriptedSession, make_app: MakeApp) -> None:
    reason = "no tokenizer: " + "something long is wrong with it " * 8

    def answer(request: protocol.RecountTokens) -> list[protocol.Message]:
        (counted,) = data.recount_reply(request)
        assert isinstance(counted, protocol.TokensRecounted)
        results = [*counted.results[:1], {"model": "other-model", "error": reason}]
        return [protocol.TokensRecounted(counted.figures, results, counted.pieces)]

    session.script(protocol.RecountTokens, answer)
    app = make_app(session, bench="tokens", model=MODEL, settings=TWO)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, TextArea) and app.session.attached)
        app.query_one(TextArea).text = "hi"
        await wait_until(pilot, lambda: "✖ no tokenizer" in screen_text(app))
        await pilot.press("escape", "t", "end", "enter")
        await wait_until(pilot, lambda: isinstance(app.screen, ErrorDetails))
        await wait_until(pilot, lambda: screen_text(app).count("something") >= 6)


async def test_a_tokenizer_added_last_is_scrolled_to(session: ScriptedSession, make_app: MakeApp) -> None:
    many = Settings(tokens=TokenSettings(models=tuple(f"model-{number}" for number in range(9))))
    app = make_app(session, bench="tokens", model=MODEL, settings=many)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: isinstance(app.focused, TextArea) and app.session.attached)
        await pilot.press(*"hello", "escape", "a")
        await wait_until(pilot, lambda: "Add a tokenizer" in screen_text(app) and "Mistral" in screen_text(app))
        await pilot.press(*"Mistral", "enter")
        await wait_until(pilot, lambda: len(app.query_one("#tokens-league", RowList).rows) == 12)
        await wait_until(pilot, lambda: "mistralai/Mistral" in screen_text(app))


async def test_a_data_set_is_looked_at_under_each_tokenizer_and_again(
    session: ScriptedSession, make_app: MakeApp
) -> None:
    def answer(request: protocol.MeasureDataset) -> list[protocol.Message]:
        result = data.dataset_result(request.models[0], 10_000)
        other = {**result["models"][0], "model": "other-model", "p95": 1234}
        broken = {**other, "model": "broken", "rows": 0, "error": "It cannot be read.", "histogram": [], "lengths": []}
        refused = {"refused_rows": 2, "refused_examples": [{"file": "train.jsonl", "row": 7, "reason": "no"}]}
        models = [{**result["models"][0], **refused}, other, broken]
        return [protocol.DatasetMeasured({**result, "models": models})]

    session.script(protocol.MeasureDataset, answer)
    app = make_app(session, bench="tokens", model=MODEL, settings=TWO)
    async with app.run_test(size=(120, 36)) as pilot:
        await open_dataset(app, pilot)
        await wait_until(pilot, lambda: f"▸ {MODEL}" in screen_text(app))
        assert "✖ It cannot be read." in screen_text(app)
        assert "next tokenizer" in screen_text(app)
        await pilot.press("end")
        await wait_until(pilot, lambda: "2 rows refused (train.jsonl:7" in screen_text(app))
        await pilot.press("down")
        await wait_until(pilot, lambda: "▸ other-model" in screen_text(app))
        await pilot.press("escape")
        await wait_until(pilot, lambda: isinstance(app.focused, TextArea))
        await pilot.press("escape", "D")
        await wait_until(pilot, lambda: "▸ other-model" in screen_text(app))
        assert len(session.asked(protocol.MeasureDataset)) == 1
        await pilot.press("v")
        await wait_until(pilot, lambda: app.main.current == "vram" and session.asked(protocol.EstimateMemory))
        await wait_until(
            pilot, lambda: session.asked(protocol.EstimateMemory)[-1].plan["sequence_length"] == 1234, "the other's p95"
        )


async def test_progress_beside_figures_is_of_their_moment(session: ScriptedSession, make_app: MakeApp) -> None:
    def answer(request: protocol.MeasureDataset) -> list[protocol.Message]:
        return [
            protocol.DatasetUpdated(data.dataset_result(request.models[0], 5_000, partial=True)),
            protocol.JobProgressed("count", 17_000_000, 18_000_000, "bytes", "9,500 rows"),
            protocol.DatasetMeasured(data.dataset_result(request.models[0], 10_000)),
        ]

    session.script(protocol.MeasureDataset, answer)
    gate = session.hold(protocol.MeasureDataset, before=2)
    app = make_app(session, bench="tokens", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_dataset(app, pilot)
        await wait_until(pilot, lambda: "50 % · 5,000 rows" in screen_text(app))
        await pilot.pause(0.2)
        assert "9,500 rows" not in screen_text(app)
        gate.set()
        await wait_until(pilot, lambda: "10,000 rows" in screen_text(app))
