"""Every key, from the one declaration of the actions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from workbench.ui.actions import APP, BENCH_TITLES, LIST_KEYS, Action, actions_of
from workbench.ui.screens.dialog import Dialog
from workbench.ui.widgets.bars import left, right
from workbench.ui.widgets.key_bar import SHOWN
from workbench.ui.widgets.row_list import Row, RowList, gap, heading

KEY_WIDTH = 15
MOST_WIDTH = 90
"""On a wide screen the ids stay near the titles they belong to."""
EVERYWHERE = (
    ("enter", "choose, open, send"),
    ("tab", "next part"),
    ("escape", "leave a field or a box; stop an answer"),
    ("/", "find, in a bench or in the list of a box"),
    ("y", "copy: the row, or the whole list of a box"),
)


class HelpScreen(Dialog[None]):
    """The keys of the current bench, then those of the app, then the other benches'; t begins the tour."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("t", "tour", "Take the tour", show=False)]

    def __init__(self, bench: str, keymap: dict[str, str], palette_key: str) -> None:
        super().__init__("help")
        self._bench = bench
        self._keymap = keymap
        self._palette_key = palette_key

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(id="help-title", classes="box-title")
            yield RowList(id="help-list")
            yield Static(id="help-foot", classes="box-foot")

    def on_mount(self) -> None:
        listing = self.query_one(RowList)
        rows = list(self._rows())
        listing.set_rows(rows)
        listing.focus()
        count = sum(row.selectable for row in rows)
        title = Content.assemble(
            ("Keys", ""),
            (f"  {count} in all, ↓ goes on", "$muted"),
            ("   t", "bold $accent"),
            (" the tour, two minutes", "$muted"),
        )
        self.query_one("#help-title", Static).update(title)

    async def action_tour(self) -> None:
        self.dismiss(None)
        await self.app.run_action("app.tour")

    @on(RowList.Highlighted)
    def explain(self, message: RowList.Highlighted) -> None:
        """What the action under the cursor does, and how its key is changed."""
        action: Action | None = message.row.data
        name = action.id if action else "id"
        foot = Content.assemble(
            (action.help if action else "", ""),
            "\n",
            ("settings.toml: ", "$muted"),
            ("[keys]", "bold"),
            f' {name} = "…"   ',
            ("escape", "bold $accent"),
            " leaves",
        )
        self.query_one("#help-foot", Static).update(foot)

    def _rows(self) -> Iterator[Row]:
        yield from self._section(BENCH_TITLES[self._bench], actions_of(self._bench))
        yield heading("EVERYWHERE")
        for key, does in (*EVERYWHERE, (self._palette_key, "palette: every action by name")):
            yield Row(f"key:{key}", Content.assemble("  ", left(key, KEY_WIDTH, "bold $accent"), does))
        yield from (self._row(action) for action in actions_of(APP))
        yield gap("lists")
        yield heading("LISTS")
        yield from (
            self._row(Action(name, keys, "", title, "In every list.")) for name, (keys, title) in LIST_KEYS.items()
        )
        for bench, title in BENCH_TITLES.items():
            if bench != self._bench:
                yield gap(bench)
                yield from self._section(title, actions_of(bench))

    def _section(self, title: str, actions: tuple[Action, ...]) -> Iterator[Row]:
        yield heading(title.upper())
        yield from (self._row(action) for action in actions)
        yield gap(title)

    def _row(self, action: Action) -> Row:
        keys = self._keymap.get(action.id, action.keys).split(",")
        shown = "  ".join(SHOWN.get(key.strip(), key.strip()) for key in keys) or "palette"

        def line(width: int) -> Content:
            start = Content.assemble("  ", left(shown, KEY_WIDTH, "bold $accent"), action.title)
            room = min(width, MOST_WIDTH) - start.cell_length - 2
            return Content.assemble(start, "  ", right(action.id, max(0, room), "$muted"))

        return Row(action.id, line, action)
