"""What the screens over the tokens bench have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import Reply, Request
from workbench.ui.link import SessionLink
from workbench.ui.screens.dialog import Dialog

R = TypeVar("R", bound=Reply)


class TokenScreen(Dialog[None]):
    """A whole screen with a title, one line that tells what is shown or went wrong, and its keys at the foot."""

    KEYS: tuple[tuple[str, str], ...] = ()

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
            yield Static(id="token-said")
            yield from self.parts()
            keys = [Content.assemble((key, "bold $accent"), f" {word}   ") for key, word in self.KEYS]
            yield Static(
                Content("").join([*keys, Content.assemble(("escape", "bold $accent"), " back")]), classes="box-foot"
            )

    def say(self, content: Content | str) -> None:
        """Show the one line under the title."""
        self.query_one("#token-said", Static).update(Content(content) if isinstance(content, str) else content)

    async def ask(self, request: Request, expected: type[R]) -> R | None:
        """Ask the session; a failure is told in one line and gives None."""
        try:
            return await self.link.ask(request, expected)
        except JobCancelled:
            return None
        except WorkbenchError as error:
            self.say(Content.assemble(("✖ ", "bold $bad"), (error.message, "$bad"), f" {error.remedy}"))
            return None
