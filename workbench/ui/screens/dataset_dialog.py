"""Which data set to measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, Static

from workbench.ui.screens.dialog import Dialog


@dataclass(frozen=True)
class ChosenDataset:
    """A data set and which field of its rows to count; empty finds one."""

    path: str
    field: str = ""


class DatasetDialog(Dialog[ChosenDataset]):
    """Takes a path or a Hub id, typed or pasted."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("down,up", "other_field", "Other field", show=False)]

    def __init__(self, last: ChosenDataset) -> None:
        super().__init__("dataset-dialog")
        self._last = last

    def compose(self) -> ComposeResult:
        with Vertical(classes="box small"):
            yield Static("Measure a data set", classes="box-title")
            yield Input(self._last.path, placeholder="File, directory or Hub id in the cache", id="dataset-path")
            yield Input(self._last.field, placeholder="Field to count; empty: found by itself", id="dataset-field")
            yield Static(
                "JSONL, JSON, CSV, Parquet, text, or a directory of them. Rows of messages are counted through each "
                "model's own chat template; where it has none they are refused, unless the field is named: then "
                "their contents alone are counted.",
                classes="quiet",
            )
            yield Static(
                Content.assemble(
                    ("enter", "bold $accent"),
                    " measures   ",
                    ("tab", "bold $accent"),
                    " other field   ",
                    ("escape", "bold $accent"),
                    " leaves",
                )
            )

    def on_mount(self) -> None:
        for field in self.query(Input):
            field.cursor_blink = False
        self.query_one("#dataset-path", Input).focus()

    def action_other_field(self) -> None:
        self.focus_next(Input)

    @on(Input.Submitted)
    def take(self) -> None:
        path = self.query_one("#dataset-path", Input).value.strip().strip("'\"")
        if path:
            self.dismiss(ChosenDataset(path, self.query_one("#dataset-field", Input).value.strip()))
