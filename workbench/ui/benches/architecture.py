"""Architecture: what the model is made of, exactly, and what happens inside when it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Static

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import (
    Event,
    InspectLoaded,
    InspectModel,
    JobProgressed,
    LoadedInspected,
    LoadModel,
    ModelInspected,
)
from workbench.ui.actions import bindings_of
from workbench.ui.bench import Bench, ErrorLine
from workbench.ui.benches.architecture_diagram import Stage, stages_of
from workbench.ui.benches.architecture_tree import (
    OPEN_AT_FIRST,
    Node,
    as_json,
    as_markdown,
    description,
    each_of,
    line_of,
    matching,
    open_keys,
    read_tree,
    real_names,
    told,
    walk,
)
from workbench.ui.link import SessionLink
from workbench.ui.session_state import STARTING, SessionState
from workbench.ui.strip_text import SHORT_DTYPES, progress_text, short_name
from workbench.ui.widgets.block_diagram import BlockDiagram
from workbench.ui.widgets.chips import REST, Chips
from workbench.ui.widgets.heat import level
from workbench.ui.widgets.row_list import Row, RowList

if TYPE_CHECKING:
    from workbench.ui.screens.architecture_design import Designing
    from workbench.ui.screens.architecture_embeddings import Looking
    from workbench.ui.screens.architecture_lora import Adapting
    from workbench.ui.screens.architecture_trace import Tracing

FROM_SCRATCH = "family:llama"
"""What a design begins with where no model is chosen."""
ROOM_FOR_CHIPS = ((45, 3), (30, 2))
"""Height of the bench, and lines of chips from there on; one below."""


class ArchitectureBench(Bench):
    """Facts as chips, the folded module tree left, the block diagram right."""

    NAME = "architecture"
    NEEDS_TORCH = True
    OF_THE_MODEL = True
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("architecture")]

    def __init__(self, link: SessionLink) -> None:
        super().__init__(link)
        self._asked: tuple[str, int] = ("", 0)
        self._asked_live: object = None
        self._model = ""
        self.inspection: dict[str, Any] = {}
        """The reply that is shown; empty while another one is waited for."""
        self._built: Node | None = None
        """The tree as the config builds it."""
        self._loaded: Node | None = None
        """The tree as it stands in the worker; None while the model is not loaded."""
        self._stages: tuple[Stage, ...] = ()
        self._live = True
        """Whether the loaded one is shown where there is one."""
        self._open: set[str] = set()
        self._split: set[str] = set()
        """Runs whose modules are listed one by one."""
        self._by_size = False
        self._tracing: Tracing | None = None
        self._looking: Looking | None = None
        self._designing: Designing | None = None
        self._designing_of = ""
        self._adapting: Adapting | None = None
        self._adapted: set[str] = set()
        """Names of the modules that the adapter of the LoRA screen takes hold of."""
        self._above_adapted: set[str] = set()
        self._rank = 0
        self._heat: dict[str, float] = {}
        """Seconds by module of the last trace."""
        self._found: set[str] = set()
        self._above: set[str] = set()

    def compose(self) -> ComposeResult:
        yield Static(id="architecture-head")
        yield Chips(id="architecture-chips")
        yield ErrorLine()
        with Horizontal(id="architecture-body"):
            with Vertical(id="architecture-left"):
                yield Input(placeholder="Part of a name or class; enter keeps it, escape clears it", id="tree-search")
                yield RowList(id="architecture-tree")
            yield BlockDiagram(id="architecture-diagram")
        yield Static(id="architecture-detail")

    def on_mount(self) -> None:
        self.query_one("#tree-search").display = False
        self.query_one(Chips).display = False
        super().on_mount()

    def first_focus(self) -> Widget:
        return self.query_one(RowList)

    # --- What the session says -----------------------------------------------------------------------------

    def session_changed(self, old: SessionState, new: SessionState) -> None:
        if not new.chosen:
            self._head(
                Content.assemble(
                    "Shows every module of a model with its exact parameter count and a diagram,\n"
                    "built on the meta device: no weights are read, and a model of the catalogue\n"
                    "needs no download. Once it is loaded, a trace looks inside a run.\n\n",
                    ("ctrl+o", "bold $accent"),
                    " chooses a model, ",
                    ("d", "bold $accent"),
                    " designs one from scratch.",
                )
            )
        elif not new.attached:
            if self.root is None:
                self._head(self._waiting("starting the session" if new.connection == STARTING else ""))
        elif (new.chosen, new.attachments) != self._asked:
            self.inspect_model()
        self._follow_load()

    def _follow_load(self) -> None:
        """Look into the model as soon as it stands in the worker, and no longer than it does."""
        loaded = self.session.model if self.session.chosen_is_loaded else None
        if loaded == self._asked_live:
            return
        self._asked_live = loaded
        if loaded is not None:
            self.inspect_loaded()
        elif self._loaded is not None:
            self._loaded = None
            self._show()

    def _head(self, content: Content) -> None:
        self.query_one("#architecture-head", Static).update(content)

    @work(group="inspect", exclusive=True, exit_on_error=False)
    async def inspect_model(self) -> None:
        """Ask for the skeleton of the chosen model and show it."""
        model = self.session.chosen
        self._asked = (model, self.session.attachments)
        self.show_error(None)
        self.inspection, self._built, self._loaded, self._asked_live, self._heat = {}, None, None, None, {}
        self._adapted = set()
        self._show()
        self._head(self._waiting("building it on the meta device"))
        try:
            reply = await self.link.ask(InspectModel(model), ModelInspected, self._on_event)
        except JobCancelled:
            self._head(Content(f"Inspecting {model} was stopped."))
        except WorkbenchError as error:
            self._head(Content.styled(model, "bold"))
            self.show_error(error)
        else:
            self.show_inspection(model, reply.result)
            self._follow_load()

    def _waiting(self, what: str) -> Content:
        return Content.assemble((self.session.chosen, "bold"), (f"  {what} …" if what else "", "$muted"))

    def _on_event(self, event: Event) -> None:
        if isinstance(event, JobProgressed):
            counts = progress_text(event.done, event.total, event.unit)
            self._head(self._waiting(f"{event.phase} {counts}".strip()))

    @work(group="live", exclusive=True, exit_on_error=False)
    async def inspect_loaded(self) -> None:
        """Ask for the modules as they stand in the worker; the config's tree stays where that fails."""
        try:
            reply = await self.link.ask(InspectLoaded(), LoadedInspected)
        except JobCancelled:
            return
        except WorkbenchError as error:
            if self.session.chosen_is_loaded:
                self.show_error(error)
            return
        tree = reply.result.get("tree")
        if self.session.chosen_is_loaded and isinstance(tree, dict):
            self._loaded = read_tree(tree)
            self._show()

    def show_inspection(self, model: str, result: dict[str, Any]) -> None:
        """Show the reply to an inspection."""
        self._model, self.inspection = model, result
        tree = result.get("tree")
        if isinstance(tree, dict):
            self._built = read_tree(tree)
            self._open = open_keys(self._built, OPEN_AT_FIRST)
            self._split = set()
        self._stages = stages_of(result, self._built)
        self.query_one(BlockDiagram).set_stages(self._stages)
        self._show()

    # --- Showing -------------------------------------------------------------------------------------------

    @property
    def root(self) -> Node | None:
        """The tree on screen."""
        return self._loaded if self._live and self._loaded is not None else self._built

    def on_resize(self) -> None:
        self._show_headline()

    def _show(self) -> None:
        self._show_headline()
        self._show_rows()

    def _show_headline(self) -> None:
        lines = next((count for height, count in ROOM_FOR_CHIPS if self.size.height >= height), 1)
        self.query_one(Chips).set_chips(chips_of(self.inspection), lines)
        if self.inspection:
            width = max(20, self.size.width - 2)
            head = headline(self._model, self.inspection, self._view_words(), width)
            self._head(Content("\n").join([head, *notices(self.inspection)]))

    def _view_words(self) -> Content:
        if self.root is not None and self.root is self._loaded and self.session.model:
            model = self.session.model
            what = model.quant if model.quant != "none" else SHORT_DTYPES.get(model.dtype, model.dtype)
            return Content.assemble(("live ", "bold $good"), (f"as loaded: {what} on {model.device}", "$muted"))
        return Content.styled("from the config", "$muted")

    def _show_rows(self, cursor_key: str | None = None) -> None:
        rows = self._rows(self.root, 0) if self.root else []
        self.query_one(RowList).set_rows(rows, cursor_key)
        if self.root is None:
            self.query_one("#architecture-detail", Static).update("")

    def _rows(self, node: Node, depth: int) -> Iterator[Row]:
        if self._searching and node.key not in self._found and node.key not in self._above:
            return
        total = self.root.parameters if self.root else 1
        opened = node.key in (self._above if self._searching else self._open)
        yield Row(f"node:{node.key}", line_of(node, depth, opened, total, self._mark_of(node)), node)
        if opened:
            children = [one for child in node.children for one in self._members(child)]
            if self._by_size:
                children.sort(key=lambda child: -child.parameters)
            for child in children:
                yield from self._rows(child, depth + 1)

    def _members(self, node: Node) -> tuple[Node, ...]:
        return each_of(node) if node.key in self._split and not self._searching else (node,)

    @on(RowList.Highlighted, "#architecture-tree")
    def describe(self, message: RowList.Highlighted) -> None:
        node = message.row.data
        self.query_one("#architecture-detail", Static).update(description(node))
        self.query_one(BlockDiagram).select(node.folded)

    # --- Keys of the tree ----------------------------------------------------------------------------------

    @property
    def _node(self) -> Node | None:
        row = self.query_one(RowList).row
        return row.data if row is not None else None

    @on(RowList.Chosen, "#architecture-tree")
    def toggle_row(self) -> None:
        self.action_unfold()

    def action_unfold(self) -> None:
        """Open or fold the module under the cursor."""
        node = self._node
        if node is not None and node.children and not self._searching:
            self._open ^= {node.key}
            self._show_rows()

    def action_fold(self) -> None:
        """Fold the module under the cursor, or go to the one that holds it."""
        node, listing = self._node, self.query_one(RowList)
        if node is None:
            return
        if node.key in self._open and not self._searching:
            self.action_unfold()
            return
        above = [row for row in listing.rows[: listing.cursor] if node in row.data.children]
        inside = [
            row for row in listing.rows[: listing.cursor]
            if row.data.key == "" or node.key.startswith(f"{row.data.key}.")
        ]  # fmt: skip
        for row in (above or inside)[-1:]:
            listing.move_to(row.key)

    def action_each(self) -> None:
        """List the modules of a run one by one, or fold them again."""
        node = self._node
        if node is None or self._searching:
            return
        runs = {run.key for run in _runs(self.root) if run is node or node.key in {one.key for one in each_of(run)}}
        if runs:
            self._split ^= runs
            self._show_rows()

    def action_toggle_all(self) -> None:
        if self.root is None or self._searching:
            return
        everything = open_keys(self.root, 100)
        self._open = open_keys(self.root, OPEN_AT_FIRST) if self._open >= everything else everything
        self._show_rows()

    def action_sort(self) -> None:
        self._by_size = not self._by_size
        self._show_rows()
        self.post_message(self.Said("Largest first." if self._by_size else "In the order in which the model runs."))

    def action_view(self) -> None:
        """Switch between the loaded model and what its config builds."""
        if self._loaded is None:
            self.post_message(self.Said("The model is not loaded: ctrl+l loads it."))
            return
        self._live = not self._live
        self._show()

    # --- Searching -----------------------------------------------------------------------------------------

    @property
    def _searching(self) -> bool:
        return bool(self.query_one("#tree-search", Input).value.strip())

    def action_search(self) -> None:
        field = self.query_one("#tree-search", Input)
        field.display = True
        field.focus()

    @on(Input.Changed, "#tree-search")
    def search(self, message: Input.Changed) -> None:
        """Show what matches with all above it."""
        typed = message.value.strip()
        self._found, self._above = matching(self.root, typed) if self.root and typed else (set(), set())
        self._show_rows()
        for row in self.query_one(RowList).rows:
            if row.data.key in self._found:
                self.query_one(RowList).move_to(row.key)
                break
        self.refresh_bindings()

    @on(Input.Submitted, "#tree-search")
    def leave_search(self) -> None:
        self.query_one(RowList).focus()

    def action_clear(self) -> None:
        """Forget the search; what it found stays in view."""
        node = self._node
        field = self.query_one("#tree-search", Input)
        field.value = ""
        field.display = False
        self.query_one(RowList).focus()
        if node is not None and self.root is not None:
            self._open |= {"", *(holder.key for holder in walk(self.root) if node.key.startswith(f"{holder.key}."))}
            self._show_rows(f"node:{node.key}")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "clear":
            # Also asked while the bench is put together, before its field is there.
            return any(field.display for field in self.query("#tree-search"))
        return super().check_action(action, parameters)

    # --- Facts ---------------------------------------------------------------------------------------------

    @on(Chips.Chosen)
    def explain_chip(self, message: Chips.Chosen) -> None:
        self._explain("" if message.key == REST else message.key)

    def action_facts(self) -> None:
        self._explain("")

    def _explain(self, key: str) -> None:
        facts = self.inspection.get("explained")
        if facts:
            from workbench.ui.screens.architecture_facts import FactsScreen

            self.app.push_screen(FactsScreen(self.link, self._model, facts, key))

    def action_memory(self) -> None:
        """Show in VRAM what the module under the cursor takes of the plan."""
        node = self._node
        if node is not None:
            self.post_message(self.ModulesSent(node.key or node.name, real_names(node)))

    def action_files(self) -> None:
        """Show what lies on disk and whether it agrees with the config."""
        if self.inspection:
            from workbench.ui.screens.architecture_files import FilesScreen

            self.app.push_screen(FilesScreen(self.link, self._model, self.inspection))

    # --- The diagram ---------------------------------------------------------------------------------------

    @on(BlockDiagram.Highlighted)
    @on(BlockDiagram.Chosen)
    def follow_diagram(self, message: BlockDiagram.Highlighted | BlockDiagram.Chosen) -> None:
        self.go_to(message.path)
        if isinstance(message, BlockDiagram.Chosen):
            self.query_one(RowList).focus()

    def go_to(self, key: str) -> None:
        """Bring a module into view in the tree, opening what holds it."""
        node = self._find(key)
        if node is not None and self.root is not None:
            self._split = {run for run in self._split if not f"{key}.".startswith(f"{run}.")}
            self._open |= {"", *(holder.key for holder in walk(self.root) if key.startswith(f"{holder.key}."))}
            self._show_rows(f"node:{key}")

    def _find(self, key: str) -> Node | None:
        nodes = walk(self.root) if self.root else ()
        return next((node for node in nodes if node.key == key), None)

    def action_diagram(self) -> None:
        if self._stages:
            from workbench.ui.screens.architecture_diagram import DiagramScreen

            key = self._node.folded if self._node else ""
            self.app.push_screen(DiagramScreen(self.link, self._model, self._stages, key, self._tell, self.go_to))

    def _tell(self, key: str) -> Content:
        """What stands in the tree at a module, with its own modules and tensors."""
        node = self._find(key)
        return told(node) if node is not None else Content(key)

    # --- Looking closer ------------------------------------------------------------------------------------

    def _load_first(self) -> LoadModel | None:
        """What a look into the model has to load before; None where it stands already."""
        return None if self.session.chosen_is_loaded else LoadModel(self.session.chosen)

    def action_trace(self) -> None:
        """Run a prompt and look inside."""
        if self._chosen():
            from workbench.ui.screens.architecture_trace import TraceScreen, Tracing

            if self._tracing is None or self._tracing.model != self.session.chosen:
                prompt = self._tracing.prompt if self._tracing else ""
                self._tracing = Tracing(prompt) if prompt else Tracing()
            screen = TraceScreen(self.link, self.session.chosen, self._tracing, self._load_first(), self._lay_heat)
            self.app.push_screen(screen)

    def action_lora(self) -> None:
        """Choose what an adapter takes hold of."""
        if self._chosen() and self._built is not None:
            from workbench.ui.screens.architecture_lora import Adapting, LoraScreen

            self._adapting = self._adapting or Adapting()
            self.app.push_screen(
                LoraScreen(self.link, self.session.chosen, self._adapting, self._built, self._mark_adapted)
            )

    def _mark_adapted(self, modules: set[str], rank: int) -> None:
        """Mark in the tree what an adapter takes hold of."""
        self._adapted, self._rank, self._heat = modules, rank, {}
        self._above_adapted = {name[:i] for name in modules for i, letter in enumerate(name) if letter == "."}
        self._show_rows()

    def action_design(self) -> None:
        """Edit the config of the chosen model, or begin with a family."""
        from workbench.ui.screens.architecture_design import Designing, DesignScreen

        if self._designing is None or self._designing_of != self.session.chosen:
            self._designing_of = self.session.chosen
            known = self.inspection if self.session.chosen else {}
            self._designing = Designing(self.session.chosen or FROM_SCRATCH, before=known, now=known)
        self.app.push_screen(DesignScreen(self.link, self._designing))

    @work(group="picker", exclusive=True, exit_on_error=False)
    async def action_compare(self) -> None:
        """Put another model beside this one."""
        if self._chosen():
            from workbench.ui.screens.architecture_compare import CompareModelsScreen
            from workbench.ui.screens.architecture_pick import pick_model

            other = await pick_model(self.app, self.link, "Compare with")
            if other:
                self.app.push_screen(CompareModelsScreen(self.link, self.session.chosen, other))

    def action_embeddings(self) -> None:
        """Look at the vectors of words."""
        if self._chosen():
            from workbench.ui.screens.architecture_embeddings import EmbeddingsScreen, Looking

            self._looking = self._looking or Looking()
            self.app.push_screen(EmbeddingsScreen(self.link, self.session.chosen, self._looking, self._load_first()))

    def _lay_heat(self, result: dict[str, Any]) -> None:
        """Show in the tree how long each module took."""
        self._adapted = set()
        self._heat = {str(module["name"]): float(module["seconds"]) for module in result["modules"]}
        self._show_rows()

    def _mark_of(self, node: Node) -> Content | None:
        if self._adapted and node.class_name:
            names = real_names(node)
            if any(name in self._adapted for name in names):
                return Content.assemble(("◆ ", "bold $accent"), (f"LoRA r {self._rank}", "$accent"))
            if node.key and any(name in self._above_adapted for name in names):
                return Content.assemble(("◇ ", "$accent"), ("LoRA inside", "$muted"))
        if not self._heat or not node.class_name:
            return None
        whole = self._heat.get("") or max(self._heat.values())
        seconds = sum(self._heat.get(name, 0.0) for name in real_names(node))
        if not seconds or not whole:
            return None
        return Content.assemble((level(seconds / whole), "$warn"), (f" {1000 * seconds:.1f} ms", "$muted"))

    def _chosen(self) -> bool:
        if not self.session.chosen:
            self.post_message(self.Said("Choose a model first: ctrl+o."))
        return bool(self.session.chosen)

    # --- Copying -------------------------------------------------------------------------------------------

    def action_copy(self) -> None:
        if self._node is not None:
            self.post_message(self.CopyRequested(description(self._node).plain, "the module"))

    def action_copy_markdown(self) -> None:
        if self.root is not None:
            self.post_message(self.CopyRequested(as_markdown(self.root), "the whole tree as Markdown"))

    def action_copy_json(self) -> None:
        if self.root is not None:
            self.post_message(self.CopyRequested(as_json(self.root), "the whole tree as JSON"))


def _runs(node: Node | None) -> Iterator[Node]:
    if node is not None:
        if node.count > 1:
            yield node
        for child in node.children:
            yield from _runs(child)


def headline(model: str, result: dict[str, Any], view: Content, width: int) -> Content:
    """Name, counts, class where there is room, and which view this is."""
    parameters = result.get("parameters") or {}
    total, active = parameters.get("total") or 0, parameters.get("active") or 0
    counts = [(f"{total:,}", "bold $accent"), (" parameters", "$muted")]
    if active and active != total:
        counts += [(f"  {active:,}", "bold"), (" active per token", "$muted")]
    name = Content.styled(short_name(model), "bold")
    told = Content.assemble(*counts, "  ", view)
    architecture = Content.styled(f"  {result.get('architecture') or ''}", "$muted")
    if name.cell_length + architecture.cell_length + told.cell_length + 2 > width:
        architecture = Content("")
    return Content.assemble(name, architecture, "  ", told)


def notices(result: dict[str, Any]) -> list[Content]:
    """What a user should know before trusting the figures."""
    compared = result.get("checkpoint") or {}
    count = sum(len(compared.get(name) or ()) for name in ("missing", "extra", "shapes"))
    lines = [Content.styled(str(note), "$muted") for note in result.get("notes") or ()]
    if count:
        told = f"Checkpoint and config disagree about {count:,} tensors: "
        lines.insert(0, Content.assemble(("⚠ ", "$warn"), told, ("w", "bold $accent"), " lists them."))
    return lines


def chips_of(result: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts that have a short form, by key."""
    return [(str(fact["key"]), str(fact["chip"])) for fact in result.get("explained") or () if fact.get("chip")]


BENCH = ArchitectureBench
