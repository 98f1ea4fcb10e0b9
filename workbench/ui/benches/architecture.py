"""Architecture: what the model is made of, exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import Event, InspectModel, JobProgressed, ModelInspected
from workbench.text import format_bytes, format_count
from workbench.ui.actions import bindings_of
from workbench.ui.bench import Bench, ErrorLine
from workbench.ui.link import SessionLink
from workbench.ui.session_state import STARTING, SessionState
from workbench.ui.strip_text import SHORT_DTYPES, progress_text
from workbench.ui.widgets.bars import bar, left, right
from workbench.ui.widgets.flow import flow
from workbench.ui.widgets.row_list import Row, RowList

NAME_WIDTH = 72
"""On a very wide terminal the numbers stay near the names they belong to."""
LEAST_SHARE = 0.0005
"""What is less reads 0.0 %, and has no bar."""
OPEN_AT_FIRST = 2
"""Levels of the tree that are open when a model is shown."""


@dataclass(frozen=True)
class Node:
    """A module or parameter of the tree; ``count`` of them where equal ones are folded."""

    path: str
    name: str
    class_name: str
    parameters: int
    bytes: int
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    count: int = 1
    tied_to: str = ""
    children: tuple[Node, ...] = field(default=(), repr=False)


def read_tree(tree: dict[str, Any], parent: str = "") -> Node:
    """The nested dictionaries of an inspection as nodes."""
    name = str(tree.get("name") or tree.get("class_name") or tree.get("class") or "model")
    path = f"{parent}.{name}" if parent else name
    return Node(
        path=path,
        name=name,
        class_name=str(tree.get("class_name") or tree.get("class") or ""),
        parameters=int(tree.get("parameters") or 0),
        bytes=int(tree.get("bytes") or 0),
        shape=tuple(tree["shape"]) if tree.get("shape") else None,
        dtype=str(tree.get("dtype") or ""),
        count=int(tree.get("repeat") or tree.get("count") or 1),
        tied_to=str(tree.get("tied_to") or ""),
        children=tuple(read_tree(child, path) for child in tree.get("children") or ()),
    )


def open_paths(node: Node, levels: int) -> set[str]:
    """Paths of the nodes with children in the first `levels` levels."""
    if levels <= 0 or not node.children:
        return set()
    return {node.path}.union(*(open_paths(child, levels - 1) for child in node.children))


class ArchitectureBench(Bench):
    """Facts as chips, then the folded module tree with exact counts."""

    NAME = "architecture"
    NEEDS_TORCH = True
    OF_THE_MODEL = True
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("architecture")]

    def __init__(self, link: SessionLink) -> None:
        super().__init__(link)
        self._asked: tuple[str, int] = ("", 0)
        self._inspected: tuple[str, dict[str, Any]] | None = None
        """Model and reply that are shown; None while another one is waited for."""
        self._root: Node | None = None
        self._open: set[str] = set()
        self._by_size = False

    def compose(self) -> ComposeResult:
        yield Static(id="architecture-head")
        yield ErrorLine()
        yield RowList(id="architecture-tree")
        yield Static(id="architecture-detail")

    def first_focus(self) -> Widget:
        return self.query_one(RowList)

    def session_changed(self, old: SessionState, new: SessionState) -> None:
        if not new.chosen:
            self._head(
                Content.assemble(
                    "Shows every module of a model with its exact parameter count, built on the meta device:\n"
                    "no weights are read, and a model of the catalogue needs no download.\n\n",
                    ("ctrl+o", "bold $accent"),
                    " chooses a model.",
                )
            )
        elif not new.attached:
            if self._root is None:
                self._head(self._waiting("starting the session" if new.connection == STARTING else ""))
        elif (new.chosen, new.attachments) != self._asked:
            self.inspect_model()

    def _head(self, content: Content) -> None:
        self.query_one("#architecture-head", Static).update(content)

    @work(group="inspect", exclusive=True, exit_on_error=False)
    async def inspect_model(self) -> None:
        """Ask for the skeleton of the chosen model and show it."""
        model = self.session.chosen
        self._asked = (model, self.session.attachments)
        self.show_error(None)
        self._root = None
        self._inspected = None
        self.query_one(RowList).set_rows([])
        self.query_one("#architecture-detail", Static).update("")
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

    def _waiting(self, what: str) -> Content:
        return Content.assemble((self.session.chosen, "bold"), (f"  {what} …" if what else "", "$muted"))

    def _on_event(self, event: Event) -> None:
        if isinstance(event, JobProgressed):
            counts = progress_text(event.done, event.total, event.unit)
            self._head(self._waiting(f"{event.phase} {counts}".strip()))

    def show_inspection(self, model: str, result: dict[str, Any]) -> None:
        """Show the reply to an inspection."""
        self._inspected = (model, result)
        self._show_headline()
        tree = result.get("tree")
        if isinstance(tree, dict):
            self._root = read_tree(tree)
            self._open = open_paths(self._root, OPEN_AT_FIRST)
            self._show_rows()

    def on_resize(self) -> None:
        self._show_headline()

    def _show_headline(self) -> None:
        if self._inspected is not None:
            self._head(_headline(*self._inspected, width=max(20, self.size.width - 2)))

    def _show_rows(self) -> None:
        self.query_one(RowList).set_rows(self._rows(self._root, 0) if self._root else [])

    def _rows(self, node: Node, depth: int, each: bool = False) -> Iterator[Row]:
        total = max(1, self._root.parameters if self._root else 1)
        yield Row(node.path, _line_of(node, depth, node.path in self._open, total, each), node)
        if node.path in self._open:
            children = node.children
            if self._by_size:
                children = tuple(sorted(children, key=lambda child: -child.parameters))
            for child in children:
                yield from self._rows(child, depth + 1, each or node.count > 1)

    @on(RowList.Highlighted)
    def describe(self, message: RowList.Highlighted) -> None:
        node = message.row.data
        self.query_one("#architecture-detail", Static).update(_description(node))

    @on(RowList.Chosen)
    def toggle_row(self) -> None:
        self.action_unfold()

    def action_unfold(self) -> None:
        row = self.query_one(RowList).row
        if row is not None and row.data.children:
            self._open ^= {row.key}
            self._show_rows()

    def action_toggle_all(self) -> None:
        if self._root is None:
            return
        everything = open_paths(self._root, 100)
        self._open = open_paths(self._root, OPEN_AT_FIRST) if self._open == everything else everything
        self._show_rows()

    def action_sort(self) -> None:
        self._by_size = not self._by_size
        self._show_rows()
        self.post_message(self.Said("Largest first." if self._by_size else "In the order in which the model runs."))

    def action_copy(self) -> None:
        row = self.query_one(RowList).row
        if row is not None:
            self.post_message(self.CopyRequested(_description(row.data).plain, "the module"))


def _headline(model: str, result: dict[str, Any], width: int) -> Content:
    parameters = result.get("parameters") or {}
    total, active = parameters.get("total") or 0, parameters.get("active") or 0
    counts = [(f"{total:,}", "bold $accent"), (" parameters", "$muted")]
    if active and active != total:
        counts += [(f"  {active:,}", "bold"), (" active per token", "$muted")]
    first = Content.assemble((model, "bold"), (f"  {result.get('architecture') or ''}  ", "$muted"), *counts)
    chips = [Content.styled(f" {chip} ", "$on-panel on $panel") for chip in fact_chips(result.get("facts") or {})]
    return Content("\n").join([first, *flow(chips, " ", width)])


def fact_chips(facts: dict[str, Any]) -> list[str]:
    """The facts that tell architectures apart, a few words each; unknown ones are left out."""
    chips = []
    if facts.get("num_hidden_layers"):
        chips.append(f"{facts['num_hidden_layers']} layers × {facts.get('hidden_size') or '?'}")
    kind = facts.get("attention_kind")
    if kind and kind != "none":
        heads, kv = facts.get("num_attention_heads"), facts.get("num_key_value_heads")
        chips.append(f"{kind} {heads}:{kv}" if heads and kv else str(kind))
    if facts.get("experts"):
        chips.append(f"MoE {facts.get('experts_per_token') or '?'} of {facts['experts']}")
    if facts.get("sliding_window"):
        chips.append(f"window {facts['sliding_window']:,}")
    chips += [str(facts[name]) for name in ("position", "activation", "norm") if facts.get(name)]
    if facts.get("tied_embeddings") is not None:
        chips.append("tied" if facts["tied_embeddings"] else "untied")
    if facts.get("vocab_size"):
        chips.append(f"{format_count(facts['vocab_size'])} vocab")
    if facts.get("context_length"):
        chips.append(f"{facts['context_length']:,} context")
    return chips


def _line_of(node: Node, depth: int, opened: bool, total: int, each: bool) -> Callable[[int], Content]:
    """A row of the tree; `each` where it stands for one of several equal layers and counts that one only."""
    mark = ("▾ " if opened else "▸ ") if node.children else "  "
    share = node.parameters / total
    name = Content.assemble(
        "  " * depth,
        (mark, "$accent"),
        (node.name, "" if node.children else "$muted"),
        (f" ×{node.count}" if node.count > 1 else "", "bold $accent"),
        (f"  = {node.tied_to}" if node.tied_to else "", "$muted"),
    )

    def line(width: int) -> Content:
        count = f"{'each ' if each else ''}{node.parameters:,}" if node.parameters else "–"
        columns = [right(count, 16)]
        if width >= 100:
            columns.insert(0, right(" × ".join(map(str, node.shape)) if node.shape else "", 16, "$muted"))
            columns.insert(1, right(SHORT_DTYPES.get(node.dtype, node.dtype), 6, "$muted"))
            columns.append(right(format_bytes(node.bytes) if node.bytes else "", 10, "$muted"))
        if width >= 130:
            columns.insert(0, left(node.class_name, 26, "$muted"))
        bar_width = 20 if width >= 130 else 10
        columns.append(
            Content.assemble(
                right(f"{100 * share:.1f} %", 8),
                " ",
                bar(share, bar_width) if share >= LEAST_SHARE else " " * bar_width,
            )
        )
        tail = Content(" ").join(columns)
        return Content.assemble(
            name.truncate(min(NAME_WIDTH, max(8, width - tail.cell_length - 1)), ellipsis=True, pad=True), " ", tail
        )

    return line


def _description(node: Node) -> Content:
    path = node.path.partition(".")[2]
    parts: list[tuple[str, str]] = [(path or node.name, "bold")]
    if node.class_name and node.class_name != node.name:
        parts.append((f"  {node.class_name}", "$muted"))
    if node.shape:
        parts.append((f"  {' × '.join(map(str, node.shape))}", ""))
    if node.dtype:
        parts.append((f"  {node.dtype}", "$muted"))
    parts.append((f"  {node.parameters:,} parameters  {format_bytes(node.bytes)}", ""))
    if node.count > 1:
        parts.append((f"  {node.count} equal ones of {node.parameters // node.count:,}", "$muted"))
    if node.tied_to:
        parts.append((f"  shares the weights of {node.tied_to}, counted there", "$muted"))
    return Content.assemble(*parts)


BENCH = ArchitectureBench
