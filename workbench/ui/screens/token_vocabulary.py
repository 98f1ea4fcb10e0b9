"""Looking a token up in a vocabulary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from textual import events, on, work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input

from workbench.session.protocol import SearchVocabulary, VocabularySearched
from workbench.ui.link import SessionLink
from workbench.ui.screens.closer_look import ASKING, CloserLook
from workbench.ui.widgets.bars import bar, left, right
from workbench.ui.widgets.pieces import visible
from workbench.ui.widgets.row_list import Row, RowList

COMMANDS = {
    ":longest": "longest",
    ":special": "special",
    ":bytes": "bytes",
    ":unreachable": "unreachable",
    ":scripts": "script",
}


def parsed(typed: str) -> tuple[str, str]:
    """Kind of search and what to search, of what was typed."""
    command, _, rest = typed.strip().partition(" ")
    if command in COMMANDS:
        return COMMANDS[command], ""
    if command == ":script":
        return "script", rest.strip()
    if len(typed) > 1 and typed.startswith("/"):
        return "regex", typed[1:]
    return "text", typed


class VocabularyScreen(CloserLook):
    """Searches as one types: an id, a text, ``/`` and a regular expression, or one of the ``:`` words."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+n", "next_view", "Next view", show=False)]
    KEYS = (("ctrl+n", "longest, scripts, special, bytes, unreachable"),)

    def __init__(self, link: SessionLink, model: str) -> None:
        super().__init__(link, "token-vocabulary", f"Vocabulary of {model}")
        self._model = model
        self._view = -1

    def parts(self) -> Iterable[Widget]:
        yield Input(placeholder="An id, a text, /regular expression, :script CYRILLIC", id="vocabulary-search")
        yield RowList(id="vocabulary-list")

    def on_mount(self) -> None:
        self.query_one(Input).cursor_blink = False
        self.query_one(Input).focus()
        self.search()

    def action_next_view(self) -> None:
        views = [":longest", ":scripts", ":special", ":bytes", ":unreachable"]
        self._view = (self._view + 1) % len(views)
        self.query_one(Input).value = views[self._view]

    @on(Input.Changed)
    def search_soon(self) -> None:
        self.search()

    @work(group=ASKING, exclusive=True, exit_on_error=False)
    async def search(self) -> None:
        """Ask for what is typed; a later call replaces this one."""
        kind, query = parsed(self.query_one(Input).value)
        doing = "Every token's own text is encoded again" if kind == "unreachable" else ""
        reply = await self.ask(SearchVocabulary(self._model, kind, query), VocabularySearched, doing)
        if reply is None:
            return
        if reply.scripts:
            self.say(f"{reply.size:,} tokens by script")
            self.query_one(RowList).set_rows(
                _script_row(name, count, reply.size) for name, count in reply.scripts.items()
            )
            return
        count = len(reply.tokens)
        if reply.more:
            self.say(f"Only the first {count:,} found of {reply.size:,} tokens; more are left out.")
        else:
            found = f"{count:,}" if count else "None"
            self.say(f"{found} of {reply.size:,} tokens.")
        self.query_one(RowList).set_rows(_token_row(token, reply.size) for token in reply.tokens)

    def on_key(self, event: events.Key) -> None:
        self.query_one(RowList).steer(event)

    @on(Input.Submitted)
    @on(RowList.Chosen)
    def open_script(self) -> None:
        row = self.query_one(RowList).row
        if row is not None and row.key.startswith("script:"):
            self.query_one(Input).value = f":script {row.data}"


def _script_row(name: str, count: int, size: int) -> Row:
    share = count / max(1, size)
    line = Content.assemble(
        left(name, 22), right(f"{count:,}", 10, "bold"), right(f"{share:.1%}", 8, "$muted"), "  ", bar(share, 30)
    )
    return Row(f"script:{name}", line, name)


def _token_row(token: dict[str, Any], size: int) -> Row:
    marks = [word for word, here in (("special", token["special"]), ("bytes", not token["whole"])) if here]
    note = str(token.get("note") or " ".join(marks))
    text = visible(str(token["text"])).replace("\n", "")

    def line(width: int) -> Content:
        room = max(12, (width - 40) // (2 if width >= 100 or note else 1))
        return Content.assemble(
            right(f"{token['id']:,}", 9, "$muted"),
            "  ",
            left(text, room, "bold"),
            right(f"{token['bytes']} B", 7, "$muted"),
            right(f"{token['rank']:.1%}", 8, "$muted"),
            f"  {note}",
            (f"  {token['spelling']}", "$muted"),
        )

    return Row(f"token:{token['id']}", line, token)
