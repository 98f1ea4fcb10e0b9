"""What the whole screens over a bench have in common: a closer look at one thing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import Event, JobProgressed, Reply, Request
from workbench.ui.link import SessionLink
from workbench.ui.screens.dialog import Dialog
from workbench.ui.strip_text import progress_text
from workbench.ui.widgets.bars import left
from workbench.ui.widgets.key_bar import SHOWN
from workbench.ui.widgets.row_list import Row, RowList

R = TypeVar("R", bound=Reply)
ASKING = "ask"
"""Group of the workers whose request escape stops."""
_STOCK = ("Scroll ", "Page Left", "Page Right", "Focus ", "Copy selected")


class CloserLook(Dialog[None]):
    """A whole screen: title, one line that tells progress or what went wrong, its parts, at most five keys at the foot.

    Escape stops a running request first and leaves the screen when none runs.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("question_mark,f8", "keys", "Show every key", show=False)]
    KEYS: tuple[tuple[str, str], ...] = ()
    """Key and word, four at most: escape is the fifth."""

    def __init__(self, link: SessionLink, id: str, title: str) -> None:
        super().__init__(id)
        self.link = link
        self._title = title

    def parts(self) -> Iterable[Widget]:
        """What stands between title and keys."""
        return ()

    def compose(self) -> ComposeResult:
        with Vertical(classes="box whole"):
            yield Static(Content(self._title), classes="box-title")
            yield Static(classes="said")
            yield from self.parts()
            yield Static(self._foot(), classes="box-foot")

    def keys(self) -> tuple[tuple[str, str], ...]:
        """The keys at the foot now."""
        return self.KEYS

    def _foot(self) -> Content:
        shown = [Content.assemble((key, "bold $accent"), (f" {word}", "$muted")) for key, word in self.keys()]
        return Content("   ").join([*shown, Content.assemble(("escape", "bold $accent"), (" back", "$muted"))])

    def show_keys(self) -> None:
        """Show the keys anew, where they depend on what is shown."""
        self.query_one(".box-foot", Static).update(self._foot())

    def retitle(self, title: str | Content) -> None:
        """Replace the title."""
        self.query_one(".box-title", Static).update(Content(title) if isinstance(title, str) else title)

    def say(self, content: Content | str) -> None:
        """Show the one line under the title."""
        for said in self.query(".said").results(Static):
            said.update(Content.styled(content, "$muted") if isinstance(content, str) else content)

    def fail(self, error: WorkbenchError) -> None:
        """Tell a failure in the line under the title."""
        self.say(Content.assemble(("✖ ", "bold $bad"), (error.message, "$bad"), f" {error.remedy}"))

    async def ask(self, request: Request, expected: type[R], doing: str = "") -> R | None:
        """Ask the session, telling its progress; a failure is told in one line and gives None."""

        def on_event(event: Event) -> None:
            if isinstance(event, JobProgressed):
                counts = progress_text(event.done, event.total, event.unit)
                self.say(Content.assemble(f"{event.phase} {counts}  ", ("escape", "bold $accent"), " stops it"))

        if doing:
            self.say(f"{doing} …")
        try:
            return await self.link.ask(request, expected, on_event)
        except JobCancelled:
            self.say("Stopped.")
        except WorkbenchError as error:
            self.fail(error)
        return None

    @property
    def asking(self) -> bool:
        """Whether a request runs that escape stops."""
        return any(worker.group == ASKING and not worker.is_finished for worker in self.workers)

    def action_close(self) -> None:
        if self.asking:
            self.workers.cancel_group(self, ASKING)
            self.say("Stopped.")
            return
        self.dismiss(None)

    def action_keys(self) -> None:
        self.app.push_screen(KeysScreen(self._key_rows()))

    def _key_rows(self) -> Iterator[Row]:
        """The keys of the screen, then those of the part that has the focus; Textual's own left out."""
        keys: dict[str, list[str]] = {}
        for owner in (self, self.focused):
            for key, binding in owner._bindings if owner is not None else ():
                if not binding.description.startswith(_STOCK):
                    keys.setdefault(binding.description, []).append(SHOWN.get(key, key))
        for description, names in keys.items():
            yield Row(description, Content.assemble(left("  ".join(names), 26, "bold $accent"), description))

    def copy(self, text: str, what: str) -> None:
        """Send text to the terminal's clipboard and say so."""
        self.app.copy_to_clipboard(text)
        self.notify(f"Sent to the terminal's clipboard: {what}.", markup=False)


class KeysScreen(Dialog[None]):
    """Every key of the screen below."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("question_mark,enter,q", "close", "Close", show=False)]

    def __init__(self, rows: Iterable[Row]) -> None:
        super().__init__("keys")
        self._rows = list(rows)

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("Keys", classes="box-title")
            yield RowList()
            yield Static(Content.assemble(("escape", "bold $accent"), (" back", "$muted")), classes="box-foot")

    def on_mount(self) -> None:
        self.query_one(RowList).set_rows(self._rows)
        self.query_one(RowList).focus()
