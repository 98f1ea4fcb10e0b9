"""Choose a model behind an OpenAI-compatible server: those found on this box, or one at an address typed in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from textual import events, on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, Static

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import FindServers, RemoteModel, ServersFound
from workbench.text import one_line
from workbench.ui.link import SessionLink
from workbench.ui.screens.dialog import Dialog
from workbench.ui.widgets.bars import right
from workbench.ui.widgets.row_list import Row, RowList, gap, heading

NO_SERVER = "No server answers at the usual ports of this box."


@dataclass(frozen=True)
class PickedServer:
    """A model of a server.

    Attributes:
        remote: what `Generate.remote` takes; its key is to be kept for this run of the app only.
        title: the kind of server, as people call it.
        can: options and abilities it has: ``top_k``, ``logprobs``, ``raw``, ``extend`` …
        cannot: what is not to be had there, a line each.
        context_length: where the server tells.
    """

    remote: RemoteModel
    title: str
    can: tuple[str, ...] = ()
    cannot: tuple[str, ...] = ()
    context_length: int | None = None

    @property
    def name(self) -> str:
        """The model and where it is, on one line."""
        return f"{self.remote.model or 'its model'} at {self.remote.url}"


@dataclass(frozen=True)
class _Choice:
    server: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    typed: str = ""
    """An address to be asked."""


class ServerPicker(Dialog[PickedServer]):
    """Type an address, or choose what was found; enter chooses."""

    DEFAULT_CSS = """
    ServerPicker #server-list { height: 1fr; }
    ServerPicker #server-cannot { height: auto; max-height: 40%; margin-bottom: 1; color: $muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab,shift+tab", "other_field", "Key", show=False),
        Binding("enter", "choose", "Choose", show=False),
    ]

    def __init__(self, link: SessionLink, current: RemoteModel | None = None) -> None:
        super().__init__("server-picker")
        self._link = link
        self._servers: list[dict[str, Any]] = []
        self._keys: dict[str, str] = {}
        """By address: a key goes only where it was typed for."""
        if current is not None and current.api_key:
            self._keys[current.url] = current.api_key
        self._current = current
        self._told = ""

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("Chat with a model of a server", classes="box-title")
            yield Input(placeholder="Search, or type an address such as http://localhost:8000/v1", id="server-url")
            yield Input(placeholder="Its key, if it asks for one; not kept", password=True, id="server-key")
            yield RowList(id="server-list")
            yield Static(id="server-cannot")
            yield Static(id="server-foot", classes="box-foot")

    def on_mount(self) -> None:
        for box in self.query(Input):
            box.cursor_blink = False
        self.query_one("#server-url", Input).focus()
        self.look("")

    @work(group="look", exclusive=True, exit_on_error=False)
    async def look(self, url: str, api_key: str = "") -> None:
        """Ask the session what there is, at the usual ports or at an address."""
        self._told = f"Asking {url} …" if url else "Looking at the usual ports of this box …"
        self.fill()
        try:
            found = (await self._link.ask(FindServers(url, api_key), ServersFound)).servers
        except JobCancelled:
            self._told = ""
        except WorkbenchError as error:
            self._told = f"✖ {error.message} {error.remedy}"
            if error.kind == "server-unauthorized":
                self.query_one("#server-key", Input).focus()
        else:
            self._told = "" if found else f"{NO_SERVER} Type the address of one."
            self._add(found, api_key)
        self.fill()

    def _add(self, found: list[dict[str, Any]], api_key: str) -> None:
        new = {server["url"] for server in found}
        self._servers = [server for server in self._servers if server["url"] not in new] + found
        if api_key and found:
            self._keys[found[0]["url"]] = api_key
            self.query_one("#server-key", Input).value = ""
        current = self._current
        if current is not None and current.url in new:
            self.query_one(RowList).move_to(_key(current.url, current.model))
        if found and self._typed:
            self.query_one("#server-url", Input).value = ""
            self.query_one("#server-url", Input).focus()
            self.fill()
            self.query_one(RowList).move_to(_key(found[0]["url"], next(iter(found[0]["models"]), "")))

    @property
    def _typed(self) -> str:
        return self.query_one("#server-url", Input).value.strip()

    @on(Input.Changed, "#server-url")
    def fill(self) -> None:
        """Show what matches the words typed, and the address typed as a choice of its own."""
        typed = self._typed
        self.query_one(RowList).set_rows(self._rows(typed))
        self._show_foot()

    def _rows(self, typed: str) -> Iterable[Row]:
        words = typed.lower().split()
        for server in self._servers:
            names = server["models"] or [""]
            about = f"{server['title']} {server['url']}".lower()
            matching = [name for name in names if all(word in f"{about} {name.lower()}" for word in words)]
            if not matching:
                continue
            yield heading(f"{server['title']}  {server['url']}")
            for name in matching:
                yield Row(_key(server["url"], name), _line(server, name), _Choice(server, name))
            yield gap(server["url"])
        if typed:
            line = Content.assemble(("ask  ", "$muted"), (typed, "bold $accent"))
            yield Row("typed", line, _Choice(typed=typed))

    @on(RowList.Highlighted)
    def _show_foot(self) -> None:
        row = self.query_one(RowList).row
        server = row.data.server if row is not None else {}
        lines = [one_line(str(line), 200) for line in server.get("cannot") or ()]
        if lines and self.has_class("-short"):
            # The models need the rows: only what is limited is named, not how.
            lines = [f"Limited or missing there: {'; '.join(line.partition(':')[0] for line in lines)}."]
        if server.get("note"):
            lines.insert(0, one_line(str(server["note"]), 200))
        self.query_one("#server-cannot", Static).update(Content("\n".join(lines)))
        keys = Content.assemble(
            ("enter", "bold $accent"),
            " chooses   ",
            ("tab", "bold $accent"),
            " key   ",
            ("escape", "bold $accent"),
            " leaves",
        )
        models = len(server.get("models") or ())
        told = self._told or (f"{models:,} models; type to search." if models > 1 else "")
        shown = Content.assemble(one_line(told), "\n", keys) if told else keys
        self.query_one("#server-foot", Static).update(shown)

    def action_other_field(self) -> None:
        self.focus_next(Input)

    def on_key(self, event: events.Key) -> None:
        self.query_one(RowList).steer(event)

    @on(Input.Submitted)
    @on(RowList.Chosen)
    def action_choose(self) -> None:
        row = self.query_one(RowList).row
        if row is None:
            return
        choice: _Choice = row.data
        api_key = self.query_one("#server-key", Input).value.strip()
        if choice.typed or api_key:
            self.look(choice.typed or choice.server["url"], api_key)
        elif choice.server["note"] and choice.server["url"] not in self._keys and not choice.server["models"]:
            self.query_one("#server-key", Input).focus()
        else:
            self.dismiss(_picked(choice, self._keys.get(choice.server["url"], "")))


def _key(url: str, model: str) -> str:
    return f"server:{url} {model}"


def _picked(choice: _Choice, api_key: str) -> PickedServer:
    server = choice.server
    return PickedServer(
        RemoteModel(server["url"], choice.model, api_key),
        server["title"],
        tuple(server["can"]),
        tuple(server["cannot"]),
        server["context_lengths"].get(choice.model),
    )


def _line(server: dict[str, Any], name: str) -> Callable[[int], Content]:
    length = server["context_lengths"].get(name)
    words = "  asks for a key" if server["note"] else "  the model it was started with"
    label = Content(f"  {name}") if name else Content.styled(words, "$muted")

    def line(width: int) -> Content:
        tail = right(f"{length:,} tokens" if isinstance(length, int) else "", 16, "$muted")
        return Content.assemble(label.truncate(max(10, width - 18), ellipsis=True, pad=True), " ", tail)

    return line


async def pick_server(app: App[Any], link: SessionLink, current: RemoteModel | None = None) -> PickedServer | None:
    """The server's model that the user picks; None for none. Called inside a worker.

    Args:
        app: shows the dialog.
        link: reaches the session that looks for servers.
        current: what is talked to now; its key is known then.
    """
    picked: PickedServer | None = await app.push_screen_wait(ServerPicker(link, current))
    return picked
