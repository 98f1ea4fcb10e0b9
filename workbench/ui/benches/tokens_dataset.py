"""A measured data set on the tokens bench: progress, histogram, lengths and longest rows."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from workbench.session.protocol import DatasetMeasured, DatasetUpdated, Event, JobProgressed
from workbench.text import format_bytes, format_count, format_seconds, one_line
from workbench.ui.benches.tokens_league import short_model
from workbench.ui.widgets.bars import left, right
from workbench.ui.widgets.one_line import OneLine

CHART_LINES = 7
MARKED_LENGTHS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
_LEVELS = " ▁▂▃▄▅▆▇█"
PERCENTILES = ("mean", "p50", "p90", "p95", "p99", "max")


class FiguresScroll(VerticalScroll, inherit_bindings=False):
    """Scrolls by pages, and to the ends: the arrow keys choose a tokenizer."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("pageup", "page_up", "Page up", show=False),
        Binding("pagedown,space", "page_down", "Page down", show=False),
        Binding("home", "scroll_home", "Top", show=False),
        Binding("end", "scroll_end", "End", show=False),
        Binding("ctrl+up", "scroll_up", "Up", show=False),
        Binding("ctrl+down", "scroll_down", "Down", show=False),
    ]


class DatasetView(Vertical):
    """What is known of a data set, also while it is counted."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "stop, back"),
        Binding("down,right", "step(1)", "next tokenizer"),
        Binding("up,left", "step(-1)", "Tokenizer before", show=False),
    ]

    class StopWanted(Message):
        """The user asked to stop, keeping what was counted."""

    class Left(Message):
        """The user asked to go back to the text."""

    def __init__(self) -> None:
        super().__init__(id="tokens-dataset")
        self.result: dict[str, Any] | None = None
        self.running = False
        self._path = ""
        self._started = 0.0
        self._shown = 0

    def compose(self) -> ComposeResult:
        yield OneLine(id="dataset-head", classes="title")
        yield OneLine(id="dataset-progress")
        with FiguresScroll(id="dataset-scroll"):
            yield Static(id="dataset-figures")

    @property
    def model(self) -> dict[str, Any] | None:
        """The figures of the tokenizer shown."""
        models = self.result["models"] if self.result else []
        return models[self._shown % len(models)] if models else None

    def begin(self, path: str) -> None:
        """A data set is about to be counted."""
        self.result, self.running, self._path = None, True, path
        self._started = time.monotonic()
        self._progress("opening")
        self._draw()

    def take_event(self, event: Event) -> None:
        """Show how far the count is."""
        if isinstance(event, DatasetUpdated):
            self.result = event.result
            self._draw()
            self._progress(counted_words(self.result, time.monotonic() - self._started))
        elif isinstance(event, JobProgressed) and self.result is None:
            # Later on, what is beside the figures is of their moment and not of the latest.
            self._progress(progress_words(event, time.monotonic() - self._started))

    def finish(self, reply: DatasetMeasured | None) -> None:
        """Show the final figures; None if it failed."""
        self.running = False
        if reply is not None:
            self.result = reply.result
        self._progress(ended_words(self.result) if reply is not None and self.result else "")
        self._draw()

    def _progress(self, words: str) -> None:
        keys = ("   escape stops here", "$muted") if self.running else ""
        self.query_one("#dataset-progress", OneLine).show(Content.assemble(f" {words}", keys))

    def _draw(self) -> None:
        result = self.result
        fields = f" · {result['format']} · field {result['field'] or '–'}" if result else ""
        self.query_one("#dataset-head", OneLine).show(f"DATA SET  {one_line(self._path, 200)}{fields}")
        width = max(40, self.query_one("#dataset-scroll").scrollable_content_region.width)
        content = dataset_content(result, self.model, width) if result else Content("")
        self.query_one("#dataset-figures", Static).update(content)

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    def action_step(self, step: int) -> None:
        scroll = self.query_one("#dataset-scroll")
        if self.result is None or len(self.result["models"]) < 2:
            scroll.scroll_relative(y=step, animate=False)
            return
        self._shown += step
        self._draw()
        scroll.scroll_home(animate=False)

    def action_leave(self) -> None:
        self.post_message(self.StopWanted() if self.running else self.Left())


def progress_words(event: JobProgressed, seconds: float) -> str:
    """Bytes, rows and time left of a count under way."""
    if not event.total or event.unit != "bytes":
        counted = f" {event.done + 1:,} of {event.total:,} {event.unit}" if event.total else ""
        return f"{event.phase}{counted}"
    words = f"{format_bytes(event.done)} of {format_bytes(event.total)} · {100 * event.done // event.total} %"
    rest = seconds * (event.total - event.done) / event.done if event.done and seconds > 0.5 else None
    time_left = f" · {format_seconds(rest)} left" if rest is not None else ""
    return f"{words} · {event.detail}{time_left}"


def counted_words(result: dict[str, Any], seconds: float) -> str:
    """How far a count under way was when its figures were made."""
    rows = f"{result['rows']:,} rows"
    event = JobProgressed("count", result["bytes_done"], result["bytes_total"], "bytes", rows)
    return progress_words(event, seconds)


def ended_words(result: dict[str, Any]) -> str:
    """What was counted, and what was skipped."""
    words = [
        f"{result['rows']:,} rows",
        format_bytes(result["bytes_done"]),
        format_seconds(result["seconds"]),
    ]
    if result["partial"]:
        share = 100 * result["bytes_done"] // max(1, result["bytes_total"])
        words.append(f"stopped at {share} %")
    for count, what in ((result["bad_rows"], "cannot be read"), (result["missing_rows"], "without the field")):
        if count:
            words.append(f"{count:,} rows {what}")
    return " · ".join(words)


def dataset_content(result: dict[str, Any], model: dict[str, Any] | None, width: int) -> Content:
    """All figures of a data set, those of `model` in detail."""
    blocks = [_models_table(result["models"], model, width)]
    if model and model["error"]:
        blocks.append(Content.assemble(("✖ ", "bold $bad"), (one_line(model["error"], 400), "$bad")))
    if model and model["histogram"]:
        blocks.append(histogram_chart(model, width))
    if model and model["lengths"]:
        blocks.append(_lengths_table(model, width))
    if model and model["longest"]:
        blocks.append(_longest(model, width))
    problems = [f"{bad['file']}:{bad['row']}: {one_line(bad['reason'], 160)}" for bad in result["examples"]]
    problems += [one_line(note, 300) for note in result["notes"]]
    problems += [
        f"{short_model(str(entry['model']), 34)}: has no token for {share:.1%} of the characters of the first rows"
        for entry in result["models"]
        if (share := entry.get("lost_share", 0.0))
    ]
    problems += [refused_words(entry) for entry in result["models"] if entry["refused_rows"]]
    if problems:
        blocks.append(Content("\n").join(Content.assemble(("⚠ ", "$warn"), problem) for problem in problems))
    return Content("\n\n").join(blocks)


def refused_words(model: dict[str, Any]) -> str:
    """How many rows a model's figures are without, and the first of them."""
    first = ", ".join(f"{row['file']}:{row['row']}" for row in model.get("refused_examples", ()))
    name = short_model(str(model["model"]), 34)
    return f"{name}: {model['refused_rows']:,} rows refused ({first} …); its figures are of {model['rows']:,} rows"


def _models_table(models: list[dict[str, Any]], shown: dict[str, Any] | None, width: int) -> Content:
    name = max(16, min(34, width - 62))
    heads = (right(title, 8, "$muted") for title in PERCENTILES)
    lines = [Content.assemble(left("TOKENIZER", name + 2, "bold $muted"), right("tokens", 10, "$muted"), *heads)]
    for model in models:
        mark = ("▸ ", "bold $accent") if model is shown else "  "
        if model["error"] and not model["rows"]:
            why = one_line(model["error"], max(10, width - name - 7))
            shown_name = left(short_model(str(model["model"]), name - 1), name)
            lines.append(Content.assemble(mark, shown_name, ("✖ ", "bold $bad"), (why, "$bad")))
            continue
        numbers = (right(_count(model[key]), 8) for key in PERCENTILES)
        total = right(format_count(model["total"]), 10, "bold $accent")
        lines.append(Content.assemble(mark, left(short_model(str(model["model"]), name - 1), name), total, *numbers))
    return Content("\n").join(lines)


def _count(value: float) -> str:
    return f"{value:,.1f}" if isinstance(value, float) and value < 1000 else f"{round(value):,}"


def histogram_chart(model: dict[str, Any], width: int) -> Content:
    """Rows by tokens, with the usual lengths as lines; the last column takes all longer rows."""
    bins = model["histogram"]
    step = bins[0]["high"] - bins[0]["low"] + 1
    reach = bins[-1]["low"] + step
    cells = max(1, min(width - 2, 4 * len(bins)) // len(bins)) * len(bins)
    most = max(entry["rows"] for entry in bins) or 1
    heights = [max(1, round(8 * CHART_LINES * entry["rows"] / most)) if entry["rows"] else 0 for entry in bins]
    marks = {round(length / reach * cells): length for length in MARKED_LENGTHS if length < reach}
    lines = [Content.assemble(("ROWS BY TOKENS", "bold $muted"), (f"  highest column {most:,} rows", "$muted"))]
    for line in range(CHART_LINES - 1, -1, -1):
        parts: list[tuple[str, str]] = []
        for x in range(cells):
            level = max(0, min(8, heights[x * len(bins) // cells] - 8 * line))
            parts.append(("┊", "$warn") if x in marks and not level else (_LEVELS[level], "$accent"))
        lines.append(Content.assemble(*parts))
    lines.append(Content.styled("─" * cells, "$faint"))
    lines.append(_axis(marks, cells, reach, bins[-1]["high"]))
    return Content("\n").join(lines)


def _axis(marks: dict[int, int], cells: int, reach: int, largest: int) -> Content:
    end = f"{reach:,}" if largest < reach else f"up to {largest:,}"
    labels = "0"
    for x, length in sorted(marks.items()):
        word = f"{length // 1024}k" if length >= 1024 else str(length)
        if x > len(labels) and x + len(word) + 2 + len(end) <= cells:
            labels += " " * (x - len(labels)) + word
    return Content.styled(labels + end.rjust(max(len(end) + 1, cells - len(labels))), "$muted")


def _lengths_table(model: dict[str, Any], width: int) -> Content:
    titles = ("length", "truncated", "lost", "padding", "in batches", "packing", "epoch")
    wide = (8, 11, 8, 9, 12, 9, 11)
    lines = [
        Content.styled("WHAT A SEQUENCE LENGTH COSTS", "bold $muted"),
        Content.assemble(*(right(title, size, "$muted") for title, size in zip(titles, wide, strict=True))),
    ]
    for entry in model["lengths"]:
        own = entry["length"] == model["context_length"]
        cells = (
            f"{entry['length']:,}",
            f"{entry['truncated_share']:.1%}",
            f"{entry['lost_share']:.1%}",
            f"{entry['padding_share']:.1%}",
            f"{entry['batch_padding_share']:.1%}",
            f"{entry['packing_efficiency']:.1%}",
            format_count(entry["tokens_per_epoch"]),
        )
        line = Content.assemble(*(right(cell, size) for cell, size in zip(cells, wide, strict=True)))
        lines.append(Content.assemble(line, ("  context" if own and width >= 78 else "", "$accent")))
    return Content("\n").join(lines)


def _longest(model: dict[str, Any], width: int) -> Content:
    lines = [Content.styled("LONGEST ROWS", "bold $muted")]
    for row in model["longest"]:
        where = f"{row['file']}:{row['row']}"
        tail = max(10, width - 34)
        lines.append(
            Content.assemble(
                right(f"{row['tokens']:,}", 9, "bold"),
                "  ",
                left(where, 22, "$muted"),
                " ",
                left(one_line(row["preview"], 200), tail),
            )
        )
    return Content("\n").join(lines)
