from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from textual import events
from textual.app import App, ComposeResult
from textual.content import Content
from textual.geometry import Region

from tests.stubs import scripted_data as data
from workbench.errors import WorkbenchError
from workbench.session import handlers, protocol
from workbench.session.protocol import LaneStatus, StatusChanged
from workbench.ui.gauges import Gauges, GaugeThread, GpuGauge
from workbench.ui.session_state import Attached, Attaching, Lost, ModelChosen, SessionState, reduce
from workbench.ui.strip_text import JOB_WORDS, job_text, progress_text, strip_line
from workbench.ui.widgets.bars import bar, stacked_bar
from workbench.ui.widgets.fields import Field, Fields
from workbench.ui.widgets.markdown_lines import markdown_lines, stable_length
from workbench.ui.widgets.one_line import OneLine
from workbench.ui.widgets.row_list import Row, RowList, gap, heading
from workbench.ui.widgets.transcript import Turn

MARKDOWN = """# Title

Some *text* with **bold** and `code`.

- one
- two
    - nested

1. first
2. second

```python
def f(x):

    return x
```

> quoted
> more

| a | b |
|---|---|
| 1 | 22 |

---

The [end](http://example.org).
"""


def plain(lines: list[Content]) -> list[str]:
    return [line.plain.rstrip() for line in lines]


# --- Markdown and the transcript ---------------------------------------------------------------------------


def test_markdown_becomes_lines() -> None:
    assert plain(markdown_lines(MARKDOWN, 40)) == [
        "Title", "",
        "Some text with bold and code.", "",
        "• one", "• two", "  • nested", "",
        "1. first", "2. second", "",
        "def f(x):", "", "    return x", "",
        "│ quoted", "│ more", "",
        "a  b", "─  ──", "1  22", "",
        "─" * 40, "",
        "The end (http://example.org).",
    ]  # fmt: skip


def test_markdown_wraps_to_its_width() -> None:
    text = "word " * 50 + "\n\n- " + "item " * 30 + "\n\n```\n" + "x" * 200 + "\n```\n"
    for width in (10, 24, 80):
        assert all(line.cell_length <= width for line in markdown_lines(text, width))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300))
def test_no_text_breaks_the_markdown(text: str) -> None:
    for line in markdown_lines(text, 30):
        assert "\n" not in line.plain


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_a_growing_answer_ends_as_the_whole_one_reads(sizes: list[int]) -> None:
    turn = Turn("assistant", "", growing=True)
    position = 0
    for size in sizes:
        turn.text += MARKDOWN[position : position + size]
        position += size
        turn.lines(40)
    turn.text = MARKDOWN
    grown = plain(turn.lines(40))
    turn.finish()
    assert plain(turn.lines(40)) == grown


def test_what_is_stable_never_ends_inside_a_code_block() -> None:
    text = "a\n\n```\nx\n\ny\n"
    assert stable_length(text) == text.index("```")
    assert stable_length("- a\n\n  still a\n\n- b\n") == len("- a\n\n  still a\n\n")


# --- Lists and fields --------------------------------------------------------------------------------------


class ListApp(App[None]):
    def compose(self) -> ComposeResult:
        yield RowList()


async def test_the_cursor_skips_headings_and_keeps_its_row() -> None:
    app = ListApp()
    async with app.run_test(size=(40, 6)) as pilot:
        listing = app.query_one(RowList)
        rows = [
            heading("A"),
            *(Row(f"r{i}", Content(f"row {i}")) for i in range(20)),
            gap("x"),
            Row("last", Content("l")),
        ]
        listing.set_rows(rows)
        listing.focus()
        assert listing.row is not None
        assert listing.row.key == "r0"
        await pilot.press("down", "down", "up")
        assert listing.row.key == "r1"
        await pilot.press("G")
        assert listing.row.key == "last"
        await pilot.press("up")
        assert listing.row.key == "r19"
        listing.set_rows([row for row in rows if row.key not in ("r3", "r5")])
        assert listing.row.key == "r19"
        listing.set_rows(rows[:4])
        assert listing.row is not None
        assert listing.row.key == "r2"
        listing.set_rows([])
        assert listing.row is None
        await pilot.press("down", "up", "pagedown", "home", "enter")


async def test_ten_thousand_rows_are_one_widget() -> None:
    app = ListApp()
    async with app.run_test(size=(40, 6)) as pilot:
        asked: list[int] = []

        def line_of(i: int):  # type: ignore[no-untyped-def]
            return lambda width: asked.append(i) or Content(f"row {i}")

        app.query_one(RowList).set_rows(Row(str(i), line_of(i)) for i in range(10_000))
        await pilot.pause()
        assert len(asked) < 100
        assert len(app.query("*")) < 15


class FieldsApp(App[None]):
    BINDINGS = [("1,2,3", "switch", "a bench")]  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.switched = 0

    def compose(self) -> ComposeResult:
        yield Fields([Field("n", "number", (1, 2, 4), typed=True)], {"n": 1})

    def action_switch(self) -> None:
        self.switched += 1


async def test_digits_typed_in_one_burst_with_enter_are_the_value() -> None:
    app = FieldsApp()
    async with app.run_test(size=(40, 6)) as pilot:
        fields = app.query_one(Fields)
        fields.focus()
        await pilot.pause()
        burst = ["enter", "3", "1", "backspace", "2", "enter"]
        for key in burst:
            app.post_message(events.Key(key, key if len(key) == 1 else None))
        await pilot.pause()
        assert fields.values["n"] == 32
        assert app.switched == 0
        await pilot.press("1")
        assert app.switched == 1, "with nothing being typed a digit is the app's"


@pytest.mark.parametrize(
    ("typed", "read"),
    [("2048", 2048), ("2,048", 2048), ("4k", 4096), ("1.5K", 1536), ("1M", 2**20), ("1e3", 1000), ("1.5e3", 1500)],
)
def test_a_number_is_read_as_people_write_it(typed: str, read: int) -> None:
    assert Field("n", "n", (1,), typed=True, kilo=1024).read(typed) == read


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("1.5", "1.5 is no whole number."),
        ("-5", "-5 is no number: type one such as 4096 or 4k."),
        ("200x", "200x is no number: type one such as 4096 or 4k."),
        ("２４", "２４ is no number: type one such as 4096 or 4k."),
        ("1e99", "1e99 is out of range: 1 to 1,000,000,000."),
        ("0", "0 is out of range: 1 to 1,000,000,000."),
    ],
)
def test_what_is_no_such_number_is_refused_in_words(typed: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        Field("n", "n", (1,), typed=True).read(typed)


def test_a_field_of_fractions_takes_them_and_steps_past_them() -> None:
    field = Field("dropout", "dropout", (0.0, 0.05, 0.1), typed=True, least=0, most=0.9, fractions=True)
    assert field.read("0.07") == 0.07
    assert (field.step(0.07, 1), field.step(0.07, -1)) == (0.1, 0.05)
    assert Field("tokens", "tokens", (1,), typed=True).read("2M") == 2_000_000


def test_a_typed_number_steps_to_its_neighbours() -> None:
    field = Field("n", "n", (1, 2, 4, 8), typed=True)
    assert field.step(3, 1) == 4
    assert field.step(3, -1) == 2
    assert field.step(8, 1) == 8
    assert field.step(100, 1) == 8
    assert Field("q", "q", ("a", "b")).step("b", 1) == "a"


# --- Bars and the strip ------------------------------------------------------------------------------------


def test_bars_are_as_wide_as_asked_for() -> None:
    for fraction in (-1.0, 0.0, 0.001, 0.5, 1.0, 9.0):
        assert bar(fraction, 10).cell_length == 10
    assert bar(0.001, 10).plain.count("━") == 1
    for parts, capacity in (([1, 2, 3], 10), ([50, 50], 10), ([0, 0], 10), ([1], 0), ([1, 10**12], 5)):
        assert stacked_bar(parts, capacity, 40).cell_length <= 40


LOADED = dataclasses.replace(data.STATUS, model=data.MODEL, tokens_per_second=41.0)
GPU = Gauges(gpus=(GpuGauge("NVIDIA GeForce RTX 3060", 5 * 2**30, 12 * 2**30, 35),))
BUSY = (LaneStatus("model", "load_model", "weights", 120, 273, "tensors", queued=1),)
STATES = [
    SessionState(),
    SessionState(chosen="a/b"),
    reduce(SessionState(), Attached(data.STATUS)),
    reduce(SessionState(), Attached(LOADED)),
    reduce(SessionState(chosen="someone/" + "very-long-name-" * 8), Attached(LOADED)),
    reduce(SessionState(), Attached(dataclasses.replace(LOADED, lanes=BUSY))),
    reduce(SessionState(), Lost(WorkbenchError("x", "y"))),
]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("gauges", [None, GPU, Gauges(ram_used_bytes=2**33, ram_total_bytes=2**35, cpu_percent=35)])
def test_the_strip_fits_every_width(state: SessionState, gauges: Gauges | None) -> None:
    for width in (*range(40, 220, 7), 80, 120):
        assert strip_line(state, gauges, width).cell_length <= width


def test_the_strip_tells_what_runs_with_counts() -> None:
    line = strip_line(STATES[5], GPU, 120).plain
    assert "loading · weights 120 of 273 tensors · 43 % · 1 waiting" in line
    assert "● smollm2-135m-instruct · nf4" in line


def test_progress_is_in_its_own_unit() -> None:
    assert progress_text(2**20, 2**21, "bytes") == "1.00 MiB of 2.00 MiB · 50 %"
    assert progress_text(5, None, "tokens") == "5 tokens"
    assert progress_text(0, None, "") == ""


class LineApp(App[None]):
    def compose(self) -> ComposeResult:
        yield OneLine()


async def test_only_changed_cells_are_repainted(monkeypatch: pytest.MonkeyPatch) -> None:
    app = LineApp()
    async with app.run_test(size=(80, 3)) as pilot:
        line = app.query_one(OneLine)
        line.show("RAM 9.1 of 24 GiB  CPU 5 %   idle")
        await pilot.pause()
        regions: list[Region] = []
        monkeypatch.setattr(line, "refresh", lambda *areas, **_: regions.extend(areas))
        line.show("RAM 9.1 of 24 GiB  CPU 7 %   idle")
        assert regions == [Region(23, 0, 1, 1)]
        regions.clear()
        line.show("RAM 9.1 of 24 GiB  CPU 7 %   idle")
        await pilot.pause()
        assert len(regions) <= 1


# --- State and gauges --------------------------------------------------------------------------------------


def test_the_reducer_keeps_what_an_event_does_not_change() -> None:
    state = reduce(SessionState(chosen="x"), Attaching())
    state = reduce(state, Attached(data.STATUS))
    assert (state.attached, state.chosen, state.attachments) == (True, "x", 1)
    assert reduce(state, StatusChanged(data.STATUS)) is state
    state = reduce(state, StatusChanged(LOADED))
    assert state.model == data.MODEL
    assert not state.chosen_is_loaded
    assert reduce(state, ModelChosen(data.MODEL.name)).chosen_is_loaded
    lost = reduce(state, Lost(WorkbenchError("session-lost", "gone")))
    assert (lost.attached, lost.model, lost.status) == (False, None, LOADED)
    assert reduce(lost, Attached(LOADED)).attachments == 2


def test_the_gauge_thread_hands_on_changes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.ui.gauges.INTERVAL_SECONDS", 0.001)
    readings = iter([Gauges(), Gauges(), Gauges(cpu_percent=5), Gauges(cpu_percent=5)])
    delivered: list[Gauges] = []

    def read() -> Gauges:
        try:
            return next(readings)
        except StopIteration:
            thread.end()
            return Gauges(cpu_percent=5)

    thread = GaugeThread(delivered.append, lambda: read)
    thread.start()
    thread.join(5)
    assert delivered == [Gauges(), Gauges(cpu_percent=5)]


def test_gauges_of_this_box() -> None:
    from workbench.ui.gauges import gauge_reader

    reading = gauge_reader()()
    assert 0 < reading.ram_used_bytes < reading.ram_total_bytes
    assert 0 <= reading.cpu_percent <= 100


def test_every_job_has_plain_words() -> None:
    asked = {kind for area, kinds in handlers.MODULES.items() if area != "chat" for kind in kinds}
    missing = {protocol.wire_name(kind) for kind in asked} - set(JOB_WORDS) - {"follow_conversation"}
    assert missing == set()
    lane = protocol.LaneStatus("model", "compare_auto_tokenizer", "import")
    assert job_text(lane) == "checking AutoTokenizer · importing libraries"
