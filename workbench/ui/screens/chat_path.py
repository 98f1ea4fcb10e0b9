"""A path, typed with the help of tab."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, Static

from workbench.errors import WorkbenchError
from workbench.text import one_line
from workbench.ui.benches.chat_files import completions
from workbench.ui.screens.dialog import Dialog

MOST_SHOWN = 8


class PathDialog(Dialog[str]):
    """Dismisses with the path, once nothing speaks against it.

    Args:
        title: what it is for.
        does: what enter does, as the key's word.
        check: raises WorkbenchError for a path that cannot be taken.
        path: to begin with.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("tab", "complete", "Complete", show=False, priority=True)]

    def __init__(self, title: str, does: str, check: Callable[[str], object], path: str = "") -> None:
        super().__init__("path-dialog")
        self._title = title
        self._does = does
        self._check = check
        self._path = path

    def compose(self) -> ComposeResult:
        with Vertical(classes="box small"):
            yield Static(Content(self._title), classes="box-title")
            yield Input(self._path, placeholder="Path", id="path-typed", select_on_focus=False)
            yield Static(id="path-said")
            keys = (("enter", self._does), ("tab", "completes"), ("escape", "leaves"))
            foot = [Content.assemble((key, "bold $accent"), (f" {word}", "$muted")) for key, word in keys]
            yield Static(Content("   ").join(foot), id="path-keys")

    def on_mount(self) -> None:
        self.query_one(Input).cursor_blink = False
        self.query_one(Input).focus()

    def _say(self, content: Content | str) -> None:
        self.query_one("#path-said", Static).update(content if isinstance(content, Content) else Content(content))

    @on(Input.Changed)
    def forget(self) -> None:
        self._say("")

    def action_complete(self) -> None:
        field = self.query_one(Input)
        typed, names = completions(field.value)
        with self.prevent(Input.Changed):
            field.value = typed
        field.cursor_position = len(typed)
        if not names:
            self._say(Content.styled("Nothing begins so.", "$warn"))
        elif len(names) > 1:
            more = f"   and {len(names) - MOST_SHOWN:,} more" if len(names) > MOST_SHOWN else ""
            shown = "   ".join(one_line(name, 40) for name in names[:MOST_SHOWN])
            self._say(Content.styled(f"{shown}{more}", "$muted"))
        else:
            self._say("")

    @on(Input.Submitted)
    def take(self, message: Input.Submitted) -> None:
        typed = message.value.strip()
        if not typed:
            return
        try:
            self._check(typed)
        except WorkbenchError as error:
            self._say(Content.assemble(("✖ ", "bold $bad"), (one_line(error.message), "$bad"), f" {error.remedy}"))
        else:
            self.dismiss(typed)
