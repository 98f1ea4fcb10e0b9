"""Design a model: edit the values of a config, see at once what they make."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Static

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import (
    CheckDesign,
    DesignChecked,
    DesignSaved,
    FamiliesListed,
    InspectModel,
    ListFamilies,
    ModelInspected,
    SaveDesign,
)
from workbench.ui.benches.architecture_diagram import stages_of
from workbench.ui.benches.architecture_tree import read_tree, told, walk
from workbench.ui.link import SessionLink
from workbench.ui.screens.architecture_design_rows import config_text, figures, offer_rows, reasons
from workbench.ui.screens.closer_look import CloserLook
from workbench.ui.screens.dialog import Dialog
from workbench.ui.strip_text import short_name
from workbench.ui.widgets.row_list import Row, RowList
from workbench.ui.widgets.value_list import ValueList

NARROW = 100


@dataclass
class Designing:
    """What the screen keeps while it is closed."""

    model: str
    changes: dict[str, Any] = field(default_factory=dict)
    undone: list[dict[str, Any]] = field(default_factory=list)
    """The changes before each edit, the latest last."""
    before: dict[str, Any] = field(default_factory=dict)
    """The inspection of the model as it began."""
    now: dict[str, Any] = field(default_factory=dict)
    """The inspection of the last design that can be built."""


class DesignScreen(CloserLook):
    """Values left, what they make right; what cannot be is refused with the nearest that can."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("u", "undo", "Undo the last edit", show=False),
        Binding("R", "reset", "Undo every edit", show=False),
        Binding("f", "fix", "Take the nearest value that works", show=False),
        Binding("s", "save", "Save as a config.json", show=False),
        Binding("c", "compare", "Compare with the model it began as", show=False),
        Binding("C", "compare_other", "Compare with another model", show=False),
        Binding("b", "diagram", "Block diagram of the design", show=False),
        Binding("n", "scratch", "Start from a family", show=False),
        Binding("y", "copy", "Copy the config.json", show=False),
    ]
    KEYS = (("◂ ▸ enter", "edit"), ("u", "undo"), ("s", "save"), ("?", "keys"))

    def __init__(self, link: SessionLink, designing: Designing) -> None:
        super().__init__(link, "architecture-design", "Design")
        self.designing = designing
        self._problems: list[dict[str, Any]] = []
        self._overwrite = False

    def parts(self) -> Iterable[Widget]:
        yield Horizontal(
            Vertical(ValueList(id="design-values"), Static(id="design-line"), id="design-left"),
            Vertical(
                Static(id="design-reasons"),
                RowList(id="design-problems"), VerticalScroll(Static(id="design-figures"), id="design-scroll"),
                id="design-right",
            ),
            id="design-body",
        )  # fmt: skip
        yield Input(placeholder="Folder or .json file; enter writes it", id="design-path")

    def on_mount(self) -> None:
        self.query_one("#design-path", Input).cursor_blink = False
        self.query_one("#design-path").display = False
        self.query_one("#design-problems").display = self.query_one("#design-reasons").display = False
        self.query_one(ValueList).focus()
        self.rebuild()

    # --- Building ------------------------------------------------------------------------------------------

    @work(group="design", exclusive=True, exit_on_error=False)
    async def rebuild(self) -> None:
        """Check the values, then build what they make; a later edit replaces this one."""
        designing = self.designing
        if not designing.before:
            first = await self._inspect({})
            if first is None:
                return
            designing.before = designing.now = first
        checked = await self.ask(CheckDesign(designing.model, dict(designing.changes)), DesignChecked)
        if checked is None:
            return
        self._show_check(checked)
        if checked.problems:
            self._show_figures(stale=True)
            return
        now = await self._inspect(designing.changes)
        if now is not None:
            designing.now = now
            self.say("")
            self._show_figures(stale=False)

    async def _inspect(self, changes: dict[str, Any]) -> dict[str, Any] | None:
        reply = await self.ask(InspectModel(self.designing.model, dict(changes)), ModelInspected)
        return reply.result if reply is not None else None

    def _show_check(self, checked: DesignChecked) -> None:
        self._problems = checked.problems
        count = len(self.designing.changes)
        edits = f"{count} value{'' if count == 1 else 's'} changed" if count else "nothing changed yet"
        self.retitle(
            Content.assemble("Design from ", (short_name(self.designing.model), "bold"), (f"  {edits}", "$muted"))
        )
        wrong = {str(problem["key"]) for problem in checked.problems}
        self.query_one(ValueList).set_fields(checked.fields, wrong)
        told, offers = self.query_one("#design-reasons", Static), self.query_one("#design-problems", RowList)
        told.update(reasons(checked.problems))
        offers.set_rows(offer_rows(checked.problems))
        told.display, offers.display = bool(checked.problems), bool(offers.rows)
        offers.styles.height = min(6, len(offers.rows))
        if checked.problems:
            keys = (("f", "bold $accent"), (" takes the nearest value that works, ", "$muted"))
            self.say(Content.assemble(*keys, ("tab", "bold $accent"), (" chooses one, ", "$muted"),
                                      ("u", "bold $accent"), (" undoes.", "$muted")))  # fmt: skip
        else:
            self.say("")

    def _show_figures(self, stale: bool) -> None:
        panel = self.query_one("#design-scroll")
        panel.set_class(stale, "-stale")
        # The left part is 38 columns wide on narrow screens and half of the others; the rest are frames and bars.
        width = max(28, self.size.width - 8 - (38 if self.size.width < NARROW else self.size.width // 2))
        content = figures(self.designing.before, self.designing.now, width)
        if stale:
            content = Content.assemble(("of the last design that can be built\n", "$warn"), content)
        self.query_one("#design-figures", Static).update(content)

    @on(RowList.Highlighted, "#design-values")
    def explain(self, message: RowList.Highlighted) -> None:
        self.query_one("#design-line", Static).update(Content.styled(str(message.row.data["line"]), "$muted"))

    # --- Editing -------------------------------------------------------------------------------------------

    @on(ValueList.Edited)
    def edited(self, message: ValueList.Edited) -> None:
        self._edit(message.key, message.value)

    def _edit(self, key: str, value: Any) -> None:
        designing = self.designing
        designing.undone.append(dict(designing.changes))
        originals = {str(row.key): row.data["original"] for row in self.query_one(ValueList).rows if row.data}
        designing.changes[key] = value
        if key in originals and originals[key] == value:
            del designing.changes[key]
        self._touch(key, value)
        self.rebuild()

    def _touch(self, key: str, value: Any) -> None:
        """Show the value at once; the session's word on it follows."""
        values = self.query_one(ValueList)
        fields = [row.data | ({"value": value} if row.key == key else {}) for row in values.rows if row.data]
        values.set_fields(fields, values.wrong)

    @on(RowList.Chosen, "#design-problems")
    def take_offer(self, message: RowList.Chosen) -> None:
        key, value = message.row.data
        self._edit(key, value)
        self.query_one(ValueList).focus()

    def action_fix(self) -> None:
        offers = [row for row in self.query_one("#design-problems", RowList).rows if row.data] if self._problems else []
        if offers:
            self._edit(*offers[0].data)
        else:
            self.say("Nothing speaks against this design.")

    def action_undo(self) -> None:
        if self.designing.undone:
            self.designing.changes = self.designing.undone.pop()
            self.rebuild()
        else:
            self.say("Nothing to undo.")

    def action_reset(self) -> None:
        if self.designing.changes:
            self.designing.undone.append(dict(self.designing.changes))
            self.designing.changes = {}
            self.rebuild()

    # --- Starting from scratch -----------------------------------------------------------------------------

    @work(group="picker", exclusive=True, exit_on_error=False)
    async def action_scratch(self) -> None:
        """Begin anew with a family."""
        reply = await self.ask(ListFamilies(), FamiliesListed)
        chosen = await self.app.push_screen_wait(FamilyPicker(reply.families)) if reply is not None else None
        if chosen is not None:
            self.designing = Designing(chosen)
            self.rebuild()

    # --- Saving --------------------------------------------------------------------------------------------

    def action_save(self) -> None:
        if self._problems:
            self.say("What cannot be built is not saved.")
            return
        field_ = self.query_one("#design-path", Input)
        if not field_.value:
            name = self.designing.model.rpartition("/")[2].replace(":", "-")
            field_.value = str(Path.home() / "models" / f"{name}-design")
        self._overwrite = False
        field_.display = True
        field_.focus()

    @on(Input.Changed, "#design-path")
    def another_path(self) -> None:
        self._overwrite = False

    @on(Input.Submitted, "#design-path")
    def save(self) -> None:
        self.write()

    @work(group="save", exclusive=True, exit_on_error=False)
    async def write(self) -> None:
        """Write the config; what is there already is replaced on a second enter."""
        field_ = self.query_one("#design-path", Input)
        path = str(Path(field_.value.strip()).expanduser().absolute())
        request = SaveDesign(self.designing.model, dict(self.designing.changes), path, self._overwrite)
        try:
            saved = await self.link.ask(request, DesignSaved)
        except JobCancelled:
            return
        except WorkbenchError as error:
            self.fail(error)
            if error.kind == "exists" and not self._overwrite and "already" in error.message:
                self._overwrite = True
                self.say(Content.assemble((error.message, "$warn"), ("  enter", "bold $accent"), " again replaces it."))
            return
        field_.display = False
        self.query_one(ValueList).focus()
        self.say(f"Saved {saved.path}. Its folder is a model that ctrl+o and every command can name.")

    # --- Looking closer ------------------------------------------------------------------------------------

    def action_compare(self) -> None:
        from workbench.ui.screens.architecture_compare import CompareModelsScreen

        designing = self.designing
        self.app.push_screen(CompareModelsScreen(self.link, designing.model, designing.model, dict(designing.changes)))

    @work(group="picker", exclusive=True, exit_on_error=False)
    async def action_compare_other(self) -> None:
        """Compare the design with a model of one's choice."""
        from workbench.ui.screens.architecture_compare import CompareModelsScreen
        from workbench.ui.screens.architecture_pick import pick_model

        other = await pick_model(self.app, self.link, "Compare the design with")
        if other:
            changes = dict(self.designing.changes)
            self.app.push_screen(CompareModelsScreen(self.link, other, self.designing.model, changes))

    def action_diagram(self) -> None:
        now = self.designing.now
        if isinstance(now.get("tree"), dict):
            from workbench.ui.screens.architecture_diagram import DiagramScreen

            root = read_tree(now["tree"])
            nodes = {node.key: node for node in walk(root)}

            def describe(key: str) -> Content:
                return told(nodes[key]) if key in nodes else Content(key)

            stages = stages_of(now, root)
            self.app.push_screen(DiagramScreen(self.link, "The design", stages, "", describe, lambda key: None))

    def action_copy(self) -> None:
        config = self.designing.now.get("config")
        if config:
            self.copy(config_text(config), "the config")

    def action_close(self) -> None:
        field_ = self.query_one("#design-path", Input)
        if field_.display:
            field_.display = False
            self.query_one(ValueList).focus()
            return
        super().action_close()


class FamilyPicker(Dialog[str]):
    """A family to begin with."""

    def __init__(self, families: list[dict[str, Any]]) -> None:
        super().__init__("family-picker")
        self._families = families

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("Start from a family", classes="box-title")
            yield RowList()
            yield Static(id="family-line", classes="box-foot")

    def on_mount(self) -> None:
        self.query_one(RowList).set_rows(
            Row(str(family["name"]), Content(str(family["label"])), family) for family in self._families
        )
        self.query_one(RowList).focus()

    @on(RowList.Highlighted)
    def explain(self, message: RowList.Highlighted) -> None:
        line = Content.assemble((str(message.row.data["line"]), "$muted"), "\n", ("enter", "bold $accent"), " takes it")
        self.query_one("#family-line", Static).update(line)

    @on(RowList.Chosen)
    def choose(self, message: RowList.Chosen) -> None:
        self.dismiss(str(message.row.data["name"]))
