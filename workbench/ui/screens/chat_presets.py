"""Sampling options kept by name."""

from __future__ import annotations

from typing import Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, Static

from workbench.text import one_line
from workbench.ui.benches.chat_status import sampling_word
from workbench.ui.link import SessionLink
from workbench.ui.screens.chat_kept import KeptByName
from workbench.ui.widgets.bars import left
from workbench.ui.widgets.row_list import RowList

KEYS = (("enter", "takes or keeps it"), ("r", "renames"), ("x", "deletes"), ("tab", "name"), ("escape", "leaves"))


class PresetsScreen(KeptByName[dict[str, Any]]):
    """Dismisses with the options of the one chosen.

    Args:
        given: what is set now, to keep under a name.
    """

    def __init__(self, link: SessionLink, given: dict[str, Any]) -> None:
        super().__init__(link, "chat-presets", "sampling")
        self._given = dict(given)

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("Sampling kept by name", classes="box-title")
            yield Input(placeholder="Name for what is set now; enter keeps it", id="preset-name")
            yield RowList(id="preset-list")
            yield Static(id="preset-foot", classes="box-foot")

    def on_mount(self) -> None:
        self.query_one(Input).cursor_blink = False
        self.query_one(RowList).focus()
        self.read_kept()

    def body(self) -> dict[str, Any]:
        return self._given

    def line(self, item: dict[str, Any]) -> Content:
        return _line(item)

    def tell(self, told: str) -> None:
        keys = [Content.assemble((key, "bold $accent"), (f" {word}", "$muted")) for key, word in KEYS]
        lines = [Content(told)] if told else []
        self.query_one("#preset-foot", Static).update(Content("\n").join([*lines, Content("   ").join(keys)]))

    @on(RowList.Chosen)
    def take(self, message: RowList.Chosen) -> None:
        self.dismiss(dict(message.row.data.get("body") or {}))


def _line(item: dict[str, Any]) -> Content:
    words = [sampling_word(name, value) for name, value in (item.get("body") or {}).items()]
    name = one_line(str(item["name"]), 40)
    told = " · ".join(words) or "nothing set: the model's own"
    return Content.assemble(left(name, max(20, len(name)), "bold"), "  ", (one_line(told, 120), "$muted"))
