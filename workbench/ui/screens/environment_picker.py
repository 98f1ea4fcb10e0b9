"""Choose a Python environment of this box, to examine it or to compare with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, Static

from workbench.doctor.environment import carried_environment
from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import EnvironmentsListed, Event, JobProgressed, ListEnvironments
from workbench.text import one_line
from workbench.ui.link import SessionLink
from workbench.ui.screens.dialog import Dialog
from workbench.ui.widgets.bars import left
from workbench.ui.widgets.row_list import Row, RowList, gap

SEARCHED = ("python", "name", "kind", "python_version", "torch", "torch_build", "cuda")


@dataclass(frozen=True)
class PickedEnvironment:
    """An interpreter, the session's own one, a path as typed, or the wish to paste a report."""

    python: str = ""
    own: bool = False
    too_old: bool = False
    """Whether only its files can be examined."""
    typed: bool = False
    """Whether `python` was typed and may be anything, a report too."""
    pasted: bool = False


class EnvironmentPicker(Dialog[PickedEnvironment]):
    """Type to search; enter chooses.

    Args:
        title: what it is chosen for.
        beside_own: whether what is chosen will stand beside the session's own environment.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "choose", "Choose", show=False)]

    def __init__(self, link: SessionLink, title: str, beside_own: bool = False) -> None:
        super().__init__("environment-picker")
        self._link = link
        self._title = title
        self._beside_own = beside_own
        self._environments: list[dict[str, Any]] = []
        self._listed = False
        self._told = "Looking at this box …"

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(self._title, classes="box-title", markup=False)
            yield Input(
                placeholder="Search, or type a path: interpreter, environment or report", id="environment-search"
            )
            yield RowList(id="environment-list")
            yield Static(id="environment-foot", classes="box-foot")

    def on_mount(self) -> None:
        self.query_one(Input).cursor_blink = False
        self.query_one(Input).focus()
        self.fill()
        self.list_environments()

    @work(group="list", exclusive=True, exit_on_error=False)
    async def list_environments(self) -> None:
        """Ask the session what there is."""
        try:
            request = ListEnvironments((os.getcwd(),), carried_environment(os.environ))
            listed = await self._link.ask(request, EnvironmentsListed, self._on_event)
        except JobCancelled:
            return
        except WorkbenchError as error:
            self._told = f"✖ {error.message} {error.remedy}"
        else:
            self._environments, self._listed = listed.environments, True
            self._told = "" if listed.environments else "No Python environment was found in the usual places."
        self.fill()
        if not self.query_one(Input).value:
            likely = (item for item in self._environments if not (self._beside_own and item.get("current")))
            self.query_one(RowList).move_to(f"environment:{next(likely, {}).get('python')}")

    def _on_event(self, event: Event) -> None:
        if isinstance(event, JobProgressed) and event.done:
            self._told = f"Looking at this box … {event.done:,} places"
            self._show_foot()

    def _show_foot(self) -> None:
        row = self.query_one(RowList).row
        found = row.data if row is not None and row.key.startswith("environment:") else None
        told = self._told
        if found:
            told = f"✖ {found['broken']}" if found.get("broken") else str(found.get("python"))
            if found.get("too_old"):
                told = f"{told}: too old to be run, its files are read"
        keys = Content.assemble(("enter", "bold $accent"), " chooses   ", ("escape", "bold $accent"), " leaves")
        self.query_one("#environment-foot", Static).update(Content.assemble(one_line(told), "\n", keys))

    @on(Input.Changed)
    def fill(self) -> None:
        """Show the environments that match what is typed."""
        typed = self.query_one(Input).value.strip()
        words = typed.lower().split()
        matching = [found for found in self._environments if all(word in _searchable(found) for word in words)]
        self.query_one(RowList).set_rows(self._rows(matching, typed))
        self._show_foot()

    def _rows(self, environments: list[dict[str, Any]], typed: str) -> Iterable[Row]:
        if not typed:
            line = Content.assemble(("a pasted report", "bold $accent"), ("  of another machine", "$muted"))
            yield Row("paste", line, PickedEnvironment(pasted=True))
            yield gap("paste")
        yield Row("head", _columns(("environment", "kind", "python", "torch", "CUDA", ""), "bold $muted"), None, False)
        if not environments and self._listed:
            told = f"No environment matches {typed}." if typed else "No Python environment was found here."
            yield Row("none", Content.styled(one_line(told), "$muted"), None, False)
        for found in environments:
            yield Row(f"environment:{found.get('python')}", _line(found), found)
        if typed and os.sep in typed:
            line = Content.assemble(("use as typed  ", "$muted"), (typed, "bold $accent"))
            yield Row("typed", line, PickedEnvironment(typed, typed=True))

    @on(RowList.Highlighted)
    def tell_path(self) -> None:
        self._show_foot()

    def on_key(self, event: events.Key) -> None:
        self.query_one(RowList).steer(event)

    @on(Input.Submitted)
    @on(RowList.Chosen)
    def action_choose(self) -> None:
        row = self.query_one(RowList).row
        if row is None:
            return
        if isinstance(row.data, PickedEnvironment):
            self.dismiss(row.data)
        elif row.data.get("broken"):
            self.notify(f"It cannot be examined: {row.data['broken']}.", severity="warning", markup=False)
        else:
            own, too_old = bool(row.data.get("current")), bool(row.data.get("too_old"))
            self.dismiss(PickedEnvironment(str(row.data.get("python")), own, too_old))


def _searchable(found: dict[str, Any]) -> str:
    told = " ".join(str(found.get(field) or "") for field in SEARCHED)
    return f"{told} broken".lower() if found.get("broken") else told.lower()


def _line(found: dict[str, Any]) -> Callable[[int], Content]:
    if found.get("broken"):
        word, style = "✖ broken", "$bad"
    elif found.get("current"):
        word, style = "● this one", "$good"
    elif found.get("too_old"):
        word, style = "files only", "$warn"
    else:
        word, style = "", ""
    name = str(found.get("name") or found.get("python"))
    cells = (name, found.get("kind"), found.get("python_version"), found.get("torch") or "no torch")
    cuda = found.get("cuda") or found.get("torch_build")
    return _columns(tuple(str(cell or "") for cell in (*cells, cuda, word)), style, str(found.get("python") or ""))


def _columns(cells: tuple[str, ...], style: str = "", path: str = "") -> Callable[[int], Content]:
    """Name and state in `style`; the path beside the name where there is room for it."""
    name, kind, python, torch, cuda, word = (one_line(cell) for cell in cells)
    heading = not path

    def line(width: int) -> Content:
        room = max(12, width - 50)
        plain = style if heading else "$muted"
        label = Content.styled(name, style if heading else "")
        if path and room > len(name) + 20:
            label = Content.assemble(label, (f"  {one_line(path)}", "$muted"))
        return Content.assemble(
            label.truncate(room, ellipsis=True, pad=True),
            " ",
            left(kind, 7, plain),
            left(python, 8, plain),
            left(torch, 15, style if heading else "$muted" if torch == "no torch" else ""),
            left(cuda, 6, plain),
            " ",
            left(word, 11, style),
        )

    return line
