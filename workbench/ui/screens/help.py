"""Every key, from the one declaration of the actions."""

from __future__ import annotations

from collections.abc import Iterator

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from workbench.ui.actions import APP, BENCH_TITLES, Action, actions_of
from workbench.ui.screens.dialog import Dialog
from workbench.ui.widgets.bars import left
from workbench.ui.widgets.key_bar import SHOWN
from workbench.ui.widgets.row_list import Row, RowList, gap, heading

EVERYWHERE = (
    ("↑ ↓  k j", "move the cursor"),
    ("enter", "choose, open, send"),
    ("tab", "next part"),
    ("escape", "leave a field or a box; stop an answer"),
    ("ctrl+p", "palette: every action by name"),
)


class HelpScreen(Dialog[None]):
    """The keys of the current bench, then those of the app, then the other benches'."""

    def __init__(self, bench: str, keymap: dict[str, str]) -> None:
        super().__init__("help")
        self._bench = bench
        self._keymap = keymap

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("Keys", classes="box-title")
            yield RowList(id="help-list")
            yield Static(
                Content.assemble(
                    "Change a key in settings.toml: ",
                    ("[keys]", "bold"),
                    ' id = "key".   ',
                    ("escape", "bold $accent"),
                    " leaves",
                ),
                classes="box-foot",
            )

    def on_mount(self) -> None:
        listing = self.query_one(RowList)
        listing.set_rows(self._rows())
        listing.focus()

    def _rows(self) -> Iterator[Row]:
        yield from self._section(BENCH_TITLES[self._bench], actions_of(self._bench))
        yield heading("EVERYWHERE")
        for key, does in EVERYWHERE:
            yield Row(f"key:{key}", Content.assemble("  ", left(key, 20, "bold $accent"), does))
        yield from (self._row(action) for action in actions_of(APP))
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
            parts: list[Content | tuple[str, str]] = [
                left(shown, 20, "bold $accent"),
                left(action.title, 26),
                (action.help, "$muted"),
            ]
            if width >= 100:
                parts.insert(2, left(action.id, 22, "$muted"))
            return Content.assemble("  ", *parts)

        return Row(action.id, line)
