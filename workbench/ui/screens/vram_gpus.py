"""Every GPU against the plan: fits or not, the largest batch, the longest sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, ClassVar

from textual import events, on, work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.session.protocol import GpusSurveyed, SurveyGpus
from workbench.text import gib
from workbench.ui.benches.vram_plan import THIS_BOX, Draft
from workbench.ui.link import SessionLink
from workbench.ui.screens.closer_look import ASKING
from workbench.ui.screens.vram_screen import VramScreen
from workbench.ui.widgets.bars import left, right
from workbench.ui.widgets.finder import Finder
from workbench.ui.widgets.row_list import Row, RowList
from workbench.vram.plan import plan_to_dict

SORTS: tuple[tuple[str, Callable[[dict[str, Any]], Any]], ...] = (
    ("memory", lambda row: row["capacity_bytes"]),
    ("name", lambda row: str(row["name"]).lower()),
    ("the smallest that fits first", lambda row: (not row["fits"], abs(row["free_bytes"]))),
    ("largest batch", lambda row: -(row["largest_batch"] or 0)),
    ("longest sequence", lambda row: -(row["longest_sequence"] or 0)),
)
COLUMNS = (("GiB", 8), ("free", 8), ("batch to", 11), ("sequence to", 13))
NAME_WIDTH, VERDICT_WIDTH = 21, 9
VERDICTS = {"fits": ("✔ fits", "$good"), "tight": ("⚠ tight", "$warn"), "no": ("✖ no", "$bad")}


class GpusScreen(VramScreen):
    """One row for each GPU; enter makes it the plan's.

    Args:
        choose: told of the draft with the GPU chosen.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "sort", "Sort by the next column", show=False),
        Binding("y", "copy_table", "Copy the table", show=False),
    ]
    KEYS = (("enter", "plan for it"), ("A…9", "find"), ("s", "sort"), ("?", "keys"))

    def __init__(self, link: SessionLink, model: str, draft: Draft, choose: Callable[[Draft], None]) -> None:
        super().__init__(link, "vram-gpus", "GPUs")
        self._model, self._draft, self._choose = model, draft, choose
        self._gpus: list[dict[str, Any]] = []
        self._sort = 0

    def parts(self) -> Iterable[Widget]:
        yield Static(id="gpus-head")
        yield RowList(id="gpus-rows")
        yield Static(id="gpus-notes")

    def on_mount(self) -> None:
        self.query_one(RowList).focus()
        self.survey()

    @work(group=ASKING, exclusive=True, exit_on_error=False)
    async def survey(self) -> None:
        """Ask for every GPU of the catalogue."""
        self.headline("GPUs", self._model)
        request = SurveyGpus(self._model, plan_to_dict(self._draft.plan))
        reply = await self.ask(request, GpusSurveyed, "solving for every GPU")
        if reply is not None:
            self._gpus = reply.rows
            fitting = [row for row in sorted(reply.rows, key=SORTS[0][1]) if row["fits"]]
            first = str(fitting[0]["name"]) if fitting else ""
            self._show(first if self._draft.gpu == THIS_BOX else self._draft.gpu)

    def _show(self, cursor: str = "") -> None:
        word, key = SORTS[self._sort]
        fitting = sum(bool(row["fits"]) for row in self._gpus)
        total = gib(self._gpus[0]["total_bytes"], 1) if self._gpus else "0"
        self.say(
            Content.assemble(
                (f"{fitting} of {len(self._gpus)}", "bold"),
                (f" hold the plan's {total} GiB. Batch and sequence: each alone, the rest as planned. ", "$muted"),
                (f"Sorted by {word}.", "$muted"),
            )
        )
        heads = [right(name, width, "$muted") for name, width in COLUMNS]
        self.query_one("#gpus-head", Static).update(
            Content.assemble(left(" GPU", NAME_WIDTH, "$muted"), left("", VERDICT_WIDTH), *heads)
        )
        rows = [Row(str(row["name"]), _line(row), row) for row in sorted(self._gpus, key=key)]
        self.query_one(RowList).set_rows(rows, cursor or None)

    @on(RowList.Highlighted)
    def tell_notes(self, message: RowList.Highlighted) -> None:
        notes = [*(message.row.data.get("notes") or ())]
        notes += (
            ["Its sequence is longer than the model was made for."] if message.row.data.get("beyond_context") else []
        )
        marked = [Content.assemble(("⚠ ", "bold $warn"), str(note)) for note in notes]
        self.query_one("#gpus-notes", Static).update(Content(" ").join(marked))

    @on(RowList.Chosen)
    def take(self, message: RowList.Chosen) -> None:
        self._choose(replace(self._draft, gpu=str(message.row.data["name"])))
        self.dismiss(None)

    def on_key(self, event: events.Key) -> None:
        """A letter or digit that is no key of its own looks for a GPU."""
        typed = event.character or ""
        if isinstance(self.focused, RowList) and typed.isalnum() and event.key not in self.active_bindings:
            event.stop()
            self.action_find_row()
            for finder in self.query(Finder):
                finder.select_on_focus = False
                finder.insert_text_at_cursor(typed)
                # It searches only once it is mounted.
                finder.call_after_refresh(finder.watch_value)

    def action_sort(self) -> None:
        self._sort = (self._sort + 1) % len(SORTS)
        self._show()

    def action_copy_table(self) -> None:
        lines = ["GPU\tverdict\tGiB\tfree GiB\tlargest batch\tlongest sequence"]
        for row in sorted(self._gpus, key=SORTS[self._sort][1]):
            cells = (row["name"], row["verdict"], gib(row["capacity_bytes"]), gib(row["free_bytes"]))
            lines.append("\t".join(str(cell) for cell in (*cells, row["largest_batch"], row["longest_sequence"])))
        self.copy("\n".join(lines), "the table of GPUs")


def _line(row: dict[str, Any]) -> Content:
    words, style = VERDICTS.get(str(row["verdict"]), VERDICTS["no"])
    most = [f"{value:,}" if value is not None else "–" for value in (row["largest_batch"], row["longest_sequence"])]
    most[1] += " ⚠" if row.get("beyond_context") else ""
    numbers = (gib(row["capacity_bytes"], 1), gib(row["free_bytes"], 1), *most)
    cells = [right(number, width) for number, (_, width) in zip(numbers, COLUMNS, strict=True)]
    note = Content.styled("  ⚠", "$warn") if row.get("notes") else Content("")
    return Content.assemble(
        " ", left(str(row["name"]), NAME_WIDTH - 1, "bold"), left(words, VERDICT_WIDTH, style), *cells, note
    )
