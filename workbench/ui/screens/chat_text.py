"""A text of several lines with those of its kind kept by name: the system prompt, and prompts to write again."""

from __future__ import annotations

from typing import Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Input, Static, TextArea

from workbench.text import one_line
from workbench.ui.link import SessionLink
from workbench.ui.screens.chat_kept import KeptByName
from workbench.ui.widgets.bars import left
from workbench.ui.widgets.row_list import RowList

KEYS = (("ctrl+s", "takes it"), ("tab", "names and list"), ("escape", "leaves it as it was"))


class TextScreen(KeptByName[str]):
    """Dismisses with the text.

    Args:
        kind: of preset: ``system`` or ``prompt``.
        title: what is edited.
        said: what the text is for.
        text: to begin with.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s,f2", "take", "Take the text", show=False, priority=True),
    ]

    def __init__(self, link: SessionLink, kind: str, title: str, said: str, text: str) -> None:
        super().__init__(link, "chat-text", kind)
        self._title = title
        self._said = said
        self._text = text

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(Content(self._title), classes="box-title")
            yield Static(Content.styled(self._said, "$muted"), classes="said")
            with Horizontal(id="text-body"):
                yield TextArea(self._text, id="text-edited", placeholder="Empty")
                with Vertical(id="text-kept"):
                    yield Input(placeholder="Name; enter keeps the text under it", id="text-name")
                    yield RowList(id="text-list")
            yield Static(id="text-foot", classes="box-foot")

    def on_mount(self) -> None:
        area = self.query_one(TextArea)
        area.cursor_blink = False
        self.query_one(Input).cursor_blink = False
        area.move_cursor(area.document.end)
        area.focus()
        self.tell("")
        self.read_kept()

    def body(self) -> dict[str, Any]:
        return {"text": self.query_one(TextArea).text}

    def line(self, item: dict[str, Any]) -> Content:
        return _line(item)

    def tell(self, told: str) -> None:
        keys: tuple[tuple[str, str], ...] = KEYS
        if self.query_one(RowList).has_focus:
            keys = (("enter", "writes it"), ("r", "renames"), ("x", "deletes"), *KEYS[:1])
        shown = [Content.assemble((key, "bold $accent"), (f" {word}", "$muted")) for key, word in keys]
        lines = [Content(told)] if told else []
        self.query_one("#text-foot", Static).update(Content("\n").join([*lines, Content("   ").join(shown)]))

    @on(RowList.Chosen)
    def load(self, message: RowList.Chosen) -> None:
        area = self.query_one(TextArea)
        area.text = str((message.row.data.get("body") or {}).get("text") or "")
        area.move_cursor(area.document.end)
        area.focus()

    def action_take(self) -> None:
        self.dismiss(self.query_one(TextArea).text)


def _line(item: dict[str, object]) -> Content:
    body = item.get("body")
    text = one_line(str(body.get("text") or ""), 80) if isinstance(body, dict) else ""
    name = one_line(str(item["name"]), 40)
    return Content.assemble(left(name, max(12, len(name)), "bold"), "  ", (text, "$muted"))
