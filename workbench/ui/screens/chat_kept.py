"""What the dialogs have in common that keep things by name: kept, renamed, deleted."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Input

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import DeletePreset, ListPresets, PresetsListed, Request, SavePreset
from workbench.text import one_line
from workbench.ui.link import SessionLink
from workbench.ui.screens.dialog import Dialog
from workbench.ui.widgets.row_list import Row, RowList

T = TypeVar("T")


class KeptByName(Dialog[T]):
    """A dialog with one name field and one list of what is kept.

    Args:
        id: of the screen.
        link: reaches the session that keeps them.
        kind: of preset: ``system``, ``prompt`` or ``sampling``.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("x,delete", "forget", "Delete the one under the cursor", show=False),
        Binding("r", "rename", "Rename the one under the cursor", show=False),
    ]

    def __init__(self, link: SessionLink, id: str, kind: str) -> None:
        super().__init__(id)
        self._link = link
        self._kind = kind
        self._renamed = ""
        """The name that the field's will replace; empty where it is for something new."""
        self._told = ""
        """What came of the last change."""

    def body(self) -> dict[str, Any]:
        """What would be kept now."""
        raise NotImplementedError

    def line(self, item: dict[str, Any]) -> Content:
        """One that is kept, as a row."""
        raise NotImplementedError

    def tell(self, told: str) -> None:
        """Show a line above the keys; empty for the keys alone."""
        raise NotImplementedError

    def read_kept(self) -> None:
        """List what is kept."""
        self._change("", ListPresets(self._kind))

    @work(group="presets", exit_on_error=False)
    async def _change(self, told: str, *requests: Request) -> None:
        try:
            for request in requests:
                listed = await self._link.ask(request, PresetsListed)
        except JobCancelled:
            return
        except WorkbenchError as error:
            self._told = f"✖ {error.message} {error.remedy}"
            self.tell(self._told)
            return
        rows = [Row(item["name"], self.line(item), item) for item in listed.presets if item["kind"] == self._kind]
        self.query_one(RowList).set_rows(rows)
        self._told = told or ("" if rows else "None is kept yet: tab, a name, enter.")
        self.tell(self._told)

    @on(Input.Submitted)
    def keep(self, message: Input.Submitted) -> None:
        """Keep what is there, or what is renamed, under the name typed."""
        name, old = message.value.strip(), self._renamed
        rows = {row.key: row.data for row in self.query_one(RowList).rows}
        if not name:
            return
        if old and name != old and name in rows:
            self.tell(f"✖ “{one_line(name, 40)}” is there already: delete it first, or take another name.")
            return
        self._renamed, message.input.value = "", ""
        self.query_one(RowList).focus()
        if not old or old not in rows:
            self._change(f"Kept as “{one_line(name, 40)}”.", SavePreset(self._kind, name, self.body()))
        elif name != old:
            body = dict(rows[old].get("body") or {})
            told = f"“{one_line(old, 40)}” is “{one_line(name, 40)}” now."
            self._change(told, SavePreset(self._kind, name, body), DeletePreset(self._kind, old))

    def action_forget(self) -> None:
        row = self.query_one(RowList).row
        if row is not None and self.query_one(RowList).has_focus:
            self._change(f"Deleted: “{one_line(row.key, 40)}”.", DeletePreset(self._kind, row.key))

    def action_rename(self) -> None:
        row = self.query_one(RowList).row
        if row is not None and self.query_one(RowList).has_focus:
            field = self.query_one(Input)
            self._renamed = field.value = row.key
            field.focus()

    def on_descendant_focus(self) -> None:
        if not self.query_one(Input).has_focus:
            self._renamed = ""
        self.tell("Another name, then enter." if self._renamed else self._told)
