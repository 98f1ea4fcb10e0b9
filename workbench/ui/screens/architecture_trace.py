"""A prompt's way through the loaded model: layers, modules, attention, logit lens, experts, outlier channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Static

from workbench.session.protocol import AttentionRead, LoadModel, ModelTraced, ReadAttention, TraceModel
from workbench.ui.link import SessionLink
from workbench.ui.screens import architecture_trace_rows as shown
from workbench.ui.screens.closer_look import ASKING, CloserLook
from workbench.ui.strip_text import SHORT_DTYPES, short_name
from workbench.ui.widgets.grid import Cells, Grid
from workbench.ui.widgets.heat import heat_of
from workbench.ui.widgets.row_list import RowList

VIEWS = ("layers", "modules", "attention", "lens", "experts", "channels")
EXAMPLE = "The capital of France is"


@dataclass
class Tracing:
    """What the screen keeps while it is closed."""

    prompt: str = EXAMPLE
    chat: bool = False
    model: str = ""
    view: str = "layers"
    layer: int = 0
    result: dict[str, Any] = field(default_factory=dict)
    """The last trace; empty before the first."""
    device: str = ""
    maps: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Attention of the layers looked at."""


class TraceScreen(CloserLook):
    """Type a prompt, run it, look at every layer.

    Args:
        tracing: what was looked at last; kept up to date.
        load: what to load first; None where the model stands already.
        traced: told of each new trace.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(i), f"view('{view}')", f"Show {view}", show=False) for i, view in enumerate(VIEWS, 1)),
        Binding("i", "edit", "Edit the prompt", show=False),
        Binding("r", "run", "Run the prompt again", show=False),
        Binding("m", "chat", "Wrap it in the chat template, or not", show=False),
        Binding("left_square_bracket,comma", "layer(-1)", "Layer before", show=False),
        Binding("right_square_bracket,full_stop", "layer(1)", "Next layer", show=False),
        Binding("n", "head(1)", "Next head", show=False),
        Binding("p", "head(-1)", "Head before", show=False),
        Binding("s", "sort", "Slowest modules first, or in their order", show=False),
        Binding("y", "copy", "Copy what is shown", show=False),
    ]

    def __init__(
        self,
        link: SessionLink,
        model: str,
        tracing: Tracing,
        load: LoadModel | None,
        traced: Callable[[dict[str, Any]], None],
    ) -> None:
        super().__init__(link, "architecture-trace", f"Trace of {short_name(model)}")
        self._model = model
        self.tracing = tracing
        self._load = load
        self._traced = traced
        self._slowest_first = False

    def keys(self) -> tuple[tuple[str, str], ...]:
        if self.tracing.view == "attention":
            return (("1-6", "views"), ("[ ]", "layer"), ("n p", "head"), ("?", "keys"))
        return (("i", "prompt"), ("1-6", "views"), ("y", "copy"), ("?", "keys"))

    def parts(self) -> Iterable[Widget]:
        yield Input(self.tracing.prompt, placeholder="A prompt; enter runs it", id="trace-prompt")
        yield Static(id="trace-figures")
        yield Static(id="trace-tabs")
        yield Static(id="trace-head")
        yield RowList(id="trace-rows")
        yield Horizontal(RowList(id="trace-heads"), Grid(id="trace-grid"), id="trace-body")
        yield Static(id="trace-detail")

    def on_mount(self) -> None:
        self.query_one(Input).cursor_blink = False
        self._invite()
        if self.tracing.result:
            self.show_view(self.tracing.view)
        else:
            self._hide_views()
            self.query_one(Input).focus()

    def _invite(self) -> None:
        first = "loads the model, then " if self._load is not None else ""
        template = "in the chat template" if self.tracing.chat else "as it stands"
        self.say(Content.assemble(("enter", "bold $accent"), (f" {first}runs the prompt {template}.", "$muted")))

    def _hide_views(self) -> None:
        for part in ("#trace-head", "#trace-rows", "#trace-body", "#trace-detail", "#trace-tabs", "#trace-figures"):
            self.query_one(part).display = False

    # --- Running -------------------------------------------------------------------------------------------

    @on(Input.Submitted)
    def submit(self) -> None:
        self.action_run()

    def action_run(self) -> None:
        prompt = self.query_one(Input).value
        if prompt:
            self.tracing.prompt = prompt
            self.run_trace()

    @work(group=ASKING, exclusive=True, exit_on_error=False)
    async def run_trace(self) -> None:
        """Run the prompt and show what came."""
        asked = TraceModel(self.tracing.prompt, chat=self.tracing.chat, load=self._load)
        reply = await self.ask(asked, ModelTraced, "running the prompt")
        if reply is None:
            return
        self._load = None
        self.tracing.result, self.tracing.model = reply.result, reply.model.name
        what = reply.model.quant if reply.model.quant != "none" else SHORT_DTYPES.get(reply.model.dtype, "")
        self.tracing.device = f"{what} on {reply.model.device}"
        self.tracing.maps.clear()
        self.query_one("#trace-grid", Grid).set_cells(Cells())
        self._traced(reply.result)
        self.show_view(self.tracing.view)

    # --- Views ---------------------------------------------------------------------------------------------

    def action_view(self, view: str) -> None:
        if self.tracing.result:
            self.show_view(view)

    def show_view(self, view: str) -> None:
        """Bring one view of the trace on screen."""
        self.tracing.view = view
        result = self.tracing.result
        grids = view in ("attention", "lens")
        for part in ("#trace-tabs", "#trace-figures", "#trace-detail", "#trace-head"):
            self.query_one(part).display = True
        self.query_one("#trace-rows").display = not grids
        self.query_one("#trace-body").display = grids
        self.query_one("#trace-heads").display = view == "attention"
        self.retitle(f"Trace of {short_name(self._model)} · {self.tracing.device}")
        width = max(40, self.size.width - 6)
        self.query_one("#trace-figures", Static).update(shown.figures_line(result, width))
        self.query_one("#trace-tabs", Static).update(self._tabs())
        self.query_one("#trace-detail", Static).update("")
        self.say(" ".join(result["notes"]) if view in ("layers", "modules") else "")
        self.show_keys()
        getattr(self, f"_show_{view}")(width)
        self._focus_view()

    def _tabs(self) -> Content:
        parts: list[Content | str | tuple[str, str]] = []
        for i, view in enumerate(VIEWS, 1):
            here = view == self.tracing.view
            parts += [(f" {i} ", "bold $on-accent on $accent" if here else "bold $accent")]
            parts += [(f"{view} ", "bold $on-accent on $accent" if here else "$muted"), " "]
        return Content.assemble(*parts)

    def _focus_view(self) -> None:
        view = self.tracing.view
        part = {"attention": "#trace-heads", "lens": "#trace-grid"}.get(view, "#trace-rows")
        self.query_one(part).focus()

    def _head(self, content: Content) -> None:
        self.query_one("#trace-head", Static).update(content)

    def _show_layers(self, width: int) -> None:
        self._head(shown.layer_head(width))
        rows = self.query_one("#trace-rows", RowList)
        rows.set_rows(shown.layer_rows(self.tracing.result), cursor_key=f"layer:{self.tracing.layer}")

    def _show_modules(self, width: int) -> None:
        self._head(shown.module_head(width))
        self.query_one("#trace-rows", RowList).set_rows(shown.module_rows(self.tracing.result, self._slowest_first))

    def _show_experts(self, width: int) -> None:
        self._head(shown.routing_head())
        self.query_one("#trace-rows", RowList).set_rows(shown.routing_rows(self.tracing.result))
        self._say_why("routing", bool(self.tracing.result["routing"]))

    def _show_channels(self, width: int) -> None:
        outliers = self.tracing.result["outliers"]
        self._head(shown.outlier_head())
        self.query_one("#trace-rows", RowList).set_rows(shown.outlier_rows(outliers) if outliers else [])
        if outliers:
            self.say(shown.outlier_words(outliers))
        self._say_why("outliers", outliers is not None)

    def _show_lens(self, width: int) -> None:
        lens = self.tracing.result["lens"]
        grid = self.query_one("#trace-grid", Grid)
        if lens:
            tied = " (tied to the embedding)" if lens["tied"] else ""
            head = f"the next token if the model stopped there, through {' → '.join(lens['steps'])}{tied}"
            self._head(Content.styled(head, "$muted"))
            cells = shown.lens_cells(lens, self.tracing.result["tokens"])
            grid.set_cells(cells, len(cells.rows) - 1, len(cells.columns) - 1)
        else:
            grid.set_cells(Cells())
        self._say_why("lens", lens is not None)

    def _say_why(self, what: str, there: bool) -> None:
        if not there:
            self._head(Content(""))
            self.say(str(self.tracing.result["why"].get(what) or f"This trace has no {what}."))

    def action_sort(self) -> None:
        if self.tracing.view == "modules":
            self._slowest_first = not self._slowest_first
            self.show_view("modules")
            self.query_one("#trace-rows", RowList).action_edge(-1)

    @on(RowList.Highlighted, "#trace-rows")
    def tell_row(self, message: RowList.Highlighted) -> None:
        view, data = self.tracing.view, message.row.data
        if view == "layers":
            self.tracing.layer = data["index"]
        words = {"layers": shown.layer_words, "experts": shown.routing_words}.get(view)
        if view == "modules":
            what = Content.assemble(
                (data["name"], "bold"), (f"  {data['class_name']}  {data['calls']} calls", "$muted")
            )
            inclusive = f"  {shown.milliseconds(data['seconds'])} ms with what it calls"
            self.query_one("#trace-detail", Static).update(Content.assemble(what, inclusive))
        elif words is not None:
            self.query_one("#trace-detail", Static).update(words(data))

    @on(RowList.Chosen, "#trace-rows")
    def look_closer(self) -> None:
        if self.tracing.view == "layers":
            self.show_view("attention")

    # --- Attention -----------------------------------------------------------------------------------------

    def _show_attention(self, width: int) -> None:
        maps = self.tracing.maps.get(self.tracing.layer)
        if maps is None:
            self._head(Content.styled(f"layer {self.tracing.layer}", "bold"))
            self.read_attention(self.tracing.layer)
        else:
            self._show_maps(maps)

    @work(group=ASKING, exclusive=True, exit_on_error=False)
    async def read_attention(self, layer: int) -> None:
        """Ask for the weights of a layer."""
        asked = ReadAttention(self.tracing.prompt, layer, chat=self.tracing.chat)
        reply = await self.ask(asked, AttentionRead, f"reading the attention of layer {layer}")
        if reply is None:
            self.query_one("#trace-heads", RowList).set_rows([])
            self.query_one("#trace-grid", Grid).set_cells(Cells())
            self.query_one("#trace-detail", Static).update("")
            return
        self.tracing.maps[layer] = reply.result
        if self.tracing.view == "attention" and self.tracing.layer == layer:
            self._show_maps(reply.result)

    def _show_maps(self, maps: dict[str, Any]) -> None:
        window = f", window {maps['sliding_window']:,}" if maps["sliding_window"] else ""
        kv = f" for {maps['num_key_value_heads']} key/value heads" if maps["num_key_value_heads"] else ""
        count = f"{maps['num_attention_heads']} heads{kv}{window}"
        layers = len(self.tracing.result["layers"])
        legend = heat_of(self.app).legend()
        title = Content.assemble((f"layer {maps['layer']} of {layers}", "bold"), (f"  {count}  ", "$muted"), legend)
        self._head(Content.assemble(title, (" square-root scale", "$muted")))
        self.say(str(maps["note"] or "Rows look at columns. tab goes to the map, the arrow keys read it."))
        heads = self.query_one("#trace-heads", RowList)
        heads.set_rows(shown.head_rows(maps))

    @on(RowList.Highlighted, "#trace-heads")
    def show_head(self, message: RowList.Highlighted) -> None:
        maps = self.tracing.maps.get(self.tracing.layer)
        if maps is not None:
            cells = shown.attention_cells(maps, message.row.data["head"])
            grid = self.query_one("#trace-grid", Grid)
            first = not grid.cells.rows or grid.cells.text is not None
            grid.set_cells(cells, len(cells.rows) - 1 if first else None, 0 if first else None)

    @on(RowList.Chosen, "#trace-heads")
    def go_to_map(self) -> None:
        self.query_one("#trace-grid").focus()

    def action_head(self, step: int) -> None:
        if self.tracing.view == "attention":
            self.query_one("#trace-heads", RowList).action_cursor(step)

    def action_layer(self, step: int) -> None:
        layers = self.tracing.result.get("layers")
        if layers and self.tracing.view == "attention":
            self.tracing.layer = max(0, min(len(layers) - 1, self.tracing.layer + step))
            self._show_attention(0)

    @on(Grid.Highlighted)
    def read_cell(self, message: Grid.Highlighted) -> None:
        grid, row, column = message.grid, message.row, message.column
        if row >= len(grid.cells.rows) or column >= len(grid.cells.columns):
            return  # Of cells that were replaced while the message was under way.
        detail, result = self.query_one("#trace-detail", Static), self.tracing.result
        head = self.query_one("#trace-heads", RowList).row
        maps = self.tracing.maps.get(self.tracing.layer)
        if grid.cells.text is not None and self.tracing.view == "lens":
            detail.update(shown.lens_words(result["lens"], result["tokens"], row, column))
        elif grid.cells.text is None and self.tracing.view == "attention" and maps is not None and head is not None:
            detail.update(shown.pair_words(maps, head.data["head"], row, column))

    # --- Keys ----------------------------------------------------------------------------------------------

    def action_edit(self) -> None:
        self.query_one(Input).focus()

    def action_chat(self) -> None:
        self.tracing.chat = not self.tracing.chat
        self._invite()
        if self.tracing.result:
            self.run_trace()

    def action_close(self) -> None:
        if self.tracing.result and self.query_one(Input).has_focus and not self.asking:
            self._focus_view()
            return
        super().action_close()

    def action_copy(self) -> None:
        """Copy the rows or cells on screen."""
        if self.tracing.view in ("attention", "lens"):
            grid = self.query_one("#trace-grid", Grid)
            self.copy(grid.as_text(), f"the {self.tracing.view} as a table")
            return
        head = str(self.query_one("#trace-head", Static).content)
        rows = self.query_one("#trace-rows", RowList).rows
        self.copy("\n".join([head, *(row.content(120).plain.rstrip() for row in rows)]), f"the {self.tracing.view}")
