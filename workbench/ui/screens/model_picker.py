"""Choose the model of every bench: samples, Hub cache, catalogue, directories, or any id or path typed in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, Static

from workbench.errors import JobCancelled, WorkbenchError
from workbench.paths import absolute_model
from workbench.session.protocol import ListModels, ModelsListed
from workbench.text import format_bytes, format_count, one_line
from workbench.ui.link import SessionLink
from workbench.ui.screens.dialog import Dialog
from workbench.ui.session_state import SessionState
from workbench.ui.widgets.bars import left, right
from workbench.ui.widgets.row_list import Row, RowList, gap, heading

SECTIONS = (
    ("sample", "SAMPLES"),
    ("hub", "HUB CACHE"),
    ("directory", "DIRECTORIES"),
    ("catalogue", "CATALOGUE  for planning before any download"),
)

NO_NAME = "This can be neither a path nor a Hub id (org/name)."


@dataclass(frozen=True)
class Picked:
    """The model named, and whether to load it at once."""

    name: str
    load: bool = False


class ModelPicker(Dialog[Picked]):
    """Type to search; enter chooses, ctrl+l chooses and loads."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+l", "load", "Load", show=False),
        Binding("enter", "choose", "Choose", show=False),
        Binding("ctrl+r", "app.restart_session", "Start the session", show=False),
    ]

    def __init__(
        self,
        link: SessionLink,
        directories: Iterable[str],
        state: SessionState,
        title: str = "Model of every bench",
    ) -> None:
        super().__init__("model-picker")
        self._title = title
        self._link = link
        self._directories = tuple(absolute_model(path) for path in directories)
        self._state = state
        self._models: list[dict[str, Any]] = []
        self._listing = False
        self._chosen_early: bool | None = None
        """Whether to load too what was chosen before the list came; None when nothing was."""

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(self._title, classes="box-title")
            yield Input(placeholder="Search, or type a Hub id, a directory or a .gguf file", id="picker-search")
            yield RowList(id="picker-list")
            yield Static(id="picker-foot", classes="box-foot")

    def on_mount(self) -> None:
        self.query_one(Input).cursor_blink = False
        self.query_one(Input).focus()
        self.fill()
        self.list_models()
        self.watch(self.app, "session", self._follow_session, init=False)

    def _follow_session(self, state: SessionState) -> None:
        if state.attachments != self._state.attachments:
            self._state = state
            self.list_models()

    @work(group="list", exclusive=True, exit_on_error=False)
    async def list_models(self) -> None:
        """Ask the session what there is."""
        self._listing = True
        self._foot("Looking at this box …")
        problem = ""
        try:
            self._models = (await self._link.ask(ListModels(self._directories), ModelsListed)).models
        except JobCancelled:
            problem = "✖ Listing was stopped. A name that you type is taken as it is."
        except WorkbenchError as error:
            lost = error.kind == "session-lost"
            problem = "No session: ctrl+r starts it." if lost else f"✖ {one_line(f'{error.message} {error.remedy}')}"
        except Exception as error:
            problem = f"✖ The list cannot be read: {one_line(f'{type(error).__name__}: {error}', 100)}"
        self._listing = False
        self._foot(problem)
        self.fill()
        if self.query_one(Input).value.strip():
            # While there was no list, the cursor could only stand on the typed name itself.
            self.query_one(RowList).action_edge(-1)
        if self._chosen_early is not None:
            self._dismiss(self._chosen_early)

    def _foot(self, problem: str) -> None:
        keys = Content.assemble(
            ("enter", "bold $accent"),
            " chooses   ",
            ("ctrl+l", "bold $accent"),
            " chooses and loads   ",
            ("escape", "bold $accent"),
            " leaves",
        )
        self.query_one("#picker-foot", Static).update(Content.assemble(problem, "\n", keys) if problem else keys)

    @on(Input.Changed)
    def typed(self) -> None:
        """Another text is another choice."""
        self._chosen_early = None
        self.fill()

    def fill(self) -> None:
        """Show the models that match what is typed."""
        typed = self.query_one(Input).value.strip()
        words = typed.lower().split()
        matching = [
            model
            for model in self._models
            if all(word in f"{model.get('name')} {model.get('title')}".lower() for word in words)
        ]
        self.query_one(RowList).set_rows(
            self._rows(matching, typed), cursor_key=None if typed else f"model:{self._state.chosen}"
        )

    def _rows(self, models: list[dict[str, Any]], typed: str) -> Iterable[Row]:
        exact = any(model.get("name") == typed for model in models)
        kinds = {kind for kind, _ in SECTIONS}
        for kind, title in (*SECTIONS, ("", "OTHERS")):
            section = [m for m in models if m.get("kind") == kind or (not kind and m.get("kind") not in kinds)]
            if section:
                yield heading(title)
                yield from (Row(f"model:{m.get('name')}", _line(m, self._is_loaded(m)), m) for m in section)
                yield gap(title)
        if typed and not exact and not may_be_model(typed):
            yield Row("no-name", Content.styled(f"✖ {NO_NAME}", "$bad"), selectable=False)
        elif typed and not exact:
            line = Content.assemble("use ", (typed, "bold $accent"), ("  as a Hub id or a path", "$muted"))
            yield Row("typed", line, {"name": typed})

    def _is_loaded(self, model: dict[str, Any]) -> bool:
        return self._state.model is not None and self._state.model.name == model.get("name")

    def on_key(self, event: events.Key) -> None:
        self.query_one(RowList).steer(event)

    @on(Input.Submitted)
    @on(RowList.Chosen)
    def action_choose(self) -> None:
        self._dismiss(load=False)

    def action_load(self) -> None:
        self._dismiss(load=True)

    def _dismiss(self, load: bool) -> None:
        row = self.query_one(RowList).row
        if self._listing and row is not None and self._chosen_early is None:
            self._chosen_early = load
            self._foot(f"Waiting for the list. enter again takes {one_line(str(row.data['name']), 60)} as it is.")
        elif row is not None:
            self.dismiss(Picked(absolute_model(str(row.data["name"])), load))


def may_be_model(typed: str) -> bool:
    """Whether a typed name can be a path, a Hub id or the name of a known model."""
    from workbench.models.reference import as_path, is_bare_name, is_hub_id

    return is_hub_id(typed) or is_bare_name(typed) or as_path(typed) is not None


def _line(model: dict[str, Any], loaded: bool) -> Callable[[int], Content]:
    name = str(model.get("name"))
    title = str(model.get("title") or "")
    parameters, size = model.get("parameters"), model.get("size_bytes")
    if loaded:
        word, style = "● loaded", "$good"
    elif model.get("problem"):
        word, style = "✖ unusable", "$bad"
    elif model.get("present"):
        word, style = "here", "$good"
    elif model.get("kind") == "catalogue":
        word, style = "plan only", "$muted"
    elif model.get("fetchable"):
        word, style = "to fetch", "$warn"
    else:
        word, style = "not here", "$muted"

    def line(width: int) -> Content:
        tail = Content.assemble(
            right(format_count(parameters) if parameters else "", 8),
            " ",
            right(format_bytes(size) if size else "", 10, "$muted"),
            "  ",
            left(word, 11, style),
        )
        room = max(10, width - tail.cell_length - 3)
        label = Content.assemble("  ", name)
        if title and title.lower() != name.lower() and width >= 90:
            label = Content.assemble(label, (f"  {title}", "$muted"))
        return Content.assemble(label.truncate(room, ellipsis=True, pad=True), " ", tail)

    return line
