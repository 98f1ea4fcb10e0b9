"""Sampling options kept by name."""

from __future__ import annotations

from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, Static

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import DeletePreset, ListPresets, PresetsListed, Request, SavePreset
from workbench.text import one_line
from workbench.ui.benches.chat_status import sampling_word
from workbench.ui.link import SessionLink
from workbench.ui.screens.dialog import Dialog
from workbench.ui.widgets.bars import left
from workbench.ui.widgets.row_list import Row, RowList

KIND = "sampling"
KEYS = (("enter", "takes it, or keeps under the name"), ("x", "deletes"), ("tab", "name"), ("escape", "leaves"))


class PresetsScreen(Dialog[dict[str, Any]]):
    """Dismisses with the options of the one chosen.

    Args:
        given: what is set now, to keep under a name.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("x,delete", "forget", "Delete", show=False)]

    def __init__(self, link: SessionLink, given: dict[str, Any]) -> None:
        super().__init__("chat-presets")
        self._link = link
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
        self._change(ListPresets(KIND))

    def _foot(self, told: str) -> None:
        keys = [Content.assemble((key, "bold $accent"), (f" {word}", "$muted")) for key, word in KEYS]
        lines = [Content(told)] if told else []
        self.query_one("#preset-foot", Static).update(Content("\n").join([*lines, Content("   ").join(keys)]))

    @work(group="presets", exit_on_error=False)
    async def _change(self, request: Request, told: str = "") -> None:
        try:
            listed = await self._link.ask(request, PresetsListed)
        except JobCancelled:
            return
        except WorkbenchError as error:
            self._foot(f"✖ {error.message} {error.remedy}")
            return
        rows = [Row(item["name"], _line(item), item) for item in listed.presets if item["kind"] == KIND]
        self.query_one(RowList).set_rows(rows)
        self._foot(told or ("" if rows else "None is kept yet: tab, a name, enter."))

    @on(Input.Submitted)
    def keep(self, message: Input.Submitted) -> None:
        name = message.value.strip()
        if name:
            message.input.value = ""
            self._change(SavePreset(KIND, name, self._given), f"Kept as “{one_line(name, 40)}”.")
            self.query_one(RowList).focus()

    @on(RowList.Chosen)
    def take(self, message: RowList.Chosen) -> None:
        self.dismiss(dict(message.row.data.get("body") or {}))

    def action_forget(self) -> None:
        row = self.query_one(RowList).row
        if row is not None and self.query_one(RowList).has_focus:
            self._change(DeletePreset(KIND, row.key), f"Deleted: “{one_line(row.key, 40)}”.")


def _line(item: dict[str, Any]) -> Content:
    words = [sampling_word(name, value) for name, value in (item.get("body") or {}).items()]
    name = one_line(str(item["name"]), 40)
    told = " · ".join(words) or "nothing set: the model's own"
    return Content.assemble(left(name, max(20, len(name)), "bold"), "  ", (one_line(told, 120), "$muted"))
