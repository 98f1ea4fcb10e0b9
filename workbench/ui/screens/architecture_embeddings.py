"""The embedding tables of the loaded model: neighbours, similarities, norms, a map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from textual import events, on, work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Static

from workbench.session.protocol import (
    CompareTokens,
    EmbeddingNorms,
    EmbeddingNormsRead,
    LoadModel,
    MapWords,
    NearestTokens,
    NearestTokensFound,
    TokensCompared,
    WordsMapped,
)
from workbench.ui.link import SessionLink
from workbench.ui.screens import architecture_embeddings_rows as shown
from workbench.ui.screens.architecture_trace_rows import token
from workbench.ui.screens.closer_look import ASKING, CloserLook
from workbench.ui.strip_text import short_name
from workbench.ui.widgets.grid import Cells, Grid
from workbench.ui.widgets.heat import heat_of
from workbench.ui.widgets.row_list import RowList

VIEWS = ("neighbours", "similarity", "norms", "map")


@dataclass
class Looking:
    """What the screen keeps while it is closed."""

    word: str = "Paris"
    words: str = "king, queen, man, woman, Paris, London, France, England, cat, dog"
    spaced: bool = True
    table: str = "input"
    measure: str = "cosine"
    view: str = "neighbours"


class WordPlot(Static):
    """The map at the size it has."""

    DEFAULT_CSS = "WordPlot { height: 1fr; width: 1fr; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._points: list[dict[str, Any]] = []
        self._here = 0

    def show(self, points: list[dict[str, Any]], here: int) -> None:
        """Show these points, one of them marked."""
        self._points, self._here = points, here
        self._draw()

    def on_resize(self, event: events.Resize) -> None:
        self._draw()

    def _draw(self) -> None:
        width, height = self.size
        if self._points and width > 12 and height > 2:
            places = [(point["x"], point["y"]) for point in self._points]
            labels = [token(point["word"]["text"]).strip("·") for point in self._points]
            braille = bool(heat_of(self.app).colors)
            self.update(Content("\n").join(shown.plot(places, labels, width, height, self._here, braille)))


class EmbeddingsScreen(CloserLook):
    """Type a word or several; look at the vectors behind them.

    Args:
        looking: what was looked at last; kept up to date.
        load: what to load first; None where the model stands already.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(i), f"view('{view}')", f"Show {view}", show=False) for i, view in enumerate(VIEWS, 1)),
        Binding("i", "edit", "Edit the words", show=False),
        Binding("o", "table", "Input or output table", show=False),
        Binding("m", "measure", "Cosine or dot product", show=False),
        Binding("b", "spaced", "A space before each word, or not", show=False),
        Binding("y", "copy", "Copy what is shown", show=False),
    ]
    KEYS = (("i", "words"), ("1-4", "views"), ("o", "table"), ("?", "keys"))

    def __init__(self, link: SessionLink, model: str, looking: Looking, load: LoadModel | None) -> None:
        super().__init__(link, "architecture-embeddings", f"Embeddings of {short_name(model)}")
        self.looking = looking
        self._load = load
        self._result: dict[str, Any] = {}

    def parts(self) -> Iterable[Widget]:
        yield Input(id="embeddings-words")
        yield Static(id="embeddings-tabs")
        yield Static(id="embeddings-head")
        yield Horizontal(
            RowList(id="embeddings-rows"), Grid(id="embeddings-grid"), WordPlot(id="embeddings-plot"),
            id="embeddings-body",
        )  # fmt: skip
        yield Static(id="embeddings-detail")

    def on_mount(self) -> None:
        self.query_one(Input).cursor_blink = False
        self._show_form()
        if self._load is None:
            self._focus_view()
            self.look()
        else:
            self.say(Content.assemble(("enter", "bold $accent"), (" loads the model first.", "$muted")))
            self.query_one(Input).focus()

    # --- The form ------------------------------------------------------------------------------------------

    def _show_form(self) -> None:
        view, field = self.looking.view, self.query_one(Input)
        single = view == "neighbours"
        field.display = view != "norms"
        field.value = self.looking.word if single else self.looking.words
        field.placeholder = "A word; enter looks it up" if single else "Words divided by commas; enter looks them up"
        parts: list[Content | str | tuple[str, str]] = []
        for i, name in enumerate(VIEWS, 1):
            here = name == view
            parts += [(f" {i} ", "bold $on-accent on $accent" if here else "bold $accent")]
            parts += [(f"{name} ", "bold $on-accent on $accent" if here else "$muted"), " "]
        space = "space before words" if self.looking.spaced else "as typed"
        parts += [(f"  {self.looking.table} · {space}", "$muted")]
        self.query_one("#embeddings-tabs", Static).update(Content.assemble(*parts))
        rows, grid = self.query_one("#embeddings-rows", RowList), self.query_one("#embeddings-grid", Grid)
        rows.display, grid.display = view != "similarity", view == "similarity"
        rows.set_class(view == "map", "-beside")
        self.query_one("#embeddings-plot").display = view == "map"

    @on(Input.Submitted)
    def submit(self) -> None:
        typed = self.query_one(Input).value
        if self.looking.view == "neighbours":
            self.looking.word = typed
        else:
            self.looking.words = typed
        self._focus_view()
        self.look()

    def action_view(self, view: str) -> None:
        self.looking.view = view
        self._show_form()
        self._focus_view()
        self.look()

    def _focus_view(self) -> None:
        self.query_one("#embeddings-grid" if self.looking.view == "similarity" else "#embeddings-rows").focus()

    def action_edit(self) -> None:
        if self.query_one(Input).display:
            self.query_one(Input).focus()

    def action_table(self) -> None:
        self.looking.table = "output" if self.looking.table == "input" else "input"
        self._show_form()
        self.look()

    def action_measure(self) -> None:
        self.looking.measure = "dot" if self.looking.measure == "cosine" else "cosine"
        self.look()

    def action_spaced(self) -> None:
        self.looking.spaced = not self.looking.spaced
        self._show_form()
        self.look()

    # --- Asking --------------------------------------------------------------------------------------------

    @work(group=ASKING, exclusive=True, exit_on_error=False)
    async def look(self, token_id: int | None = None) -> None:
        """Ask for what the view shows; a later call replaces this one."""
        self._head(Content(""))
        self.query_one("#embeddings-detail", Static).update("")
        result = await self._asked(token_id)
        if result is None:
            self.query_one("#embeddings-rows", RowList).set_rows([])
            self.query_one("#embeddings-grid", Grid).set_cells(Cells())
            return
        self._load = None
        self._result = result
        self.say(shown.table_words(result["facts"]))
        getattr(self, f"_show_{self.looking.view}")(result)

    async def _asked(self, token_id: int | None) -> dict[str, Any] | None:
        looking, table, load = self.looking, self.looking.table, self._load
        words = shown.word_list(looking.words, looking.spaced)
        doing = "reading the table"
        if looking.view == "neighbours":
            text = looking.word if not looking.spaced else f" {looking.word.strip()}"
            asked = NearestTokens("" if token_id is not None else text, token_id, table, looking.measure, 40, load)
            near = await self.ask(asked, NearestTokensFound, doing)
            return near.result if near else None
        if looking.view == "similarity":
            compared = await self.ask(CompareTokens(words, table, load), TokensCompared, doing)
            return compared.result if compared else None
        if looking.view == "norms":
            norms = await self.ask(EmbeddingNorms(table, load=load), EmbeddingNormsRead, doing)
            return norms.result if norms else None
        mapped = await self.ask(MapWords(words, table, load), WordsMapped, doing)
        return mapped.result if mapped else None

    # --- Showing -------------------------------------------------------------------------------------------

    def _head(self, content: Content) -> None:
        self.query_one("#embeddings-head", Static).update(content)

    def _show_neighbours(self, result: dict[str, Any]) -> None:
        self._head(shown.neighbour_head(result["measure"]))
        self._list(shown.neighbour_rows(result))
        self.query_one("#embeddings-detail", Static).update(shown.word_words(result["query"]))

    def _show_similarity(self, result: dict[str, Any]) -> None:
        self.query_one("#embeddings-grid", Grid).set_cells(shown.similarity_cells(result))

    def _show_norms(self, result: dict[str, Any]) -> None:
        self._head(shown.norm_head(result, max(40, self.size.width - 6)))
        self._list(shown.norm_rows(result))

    def _show_map(self, result: dict[str, Any]) -> None:
        self._head(shown.map_head(result))
        self._list(shown.map_rows(result))

    def _list(self, rows: Iterable[Any]) -> None:
        listing = self.query_one("#embeddings-rows", RowList)
        listing.set_rows(rows)
        listing.action_edge(-1)

    @on(RowList.Highlighted)
    def follow(self, message: RowList.Highlighted) -> None:
        if self.looking.view == "map" and self._result.get("points"):
            points = self._result["points"]
            if message.row.data < len(points):
                self.query_one(WordPlot).show(points, message.row.data)
                detail = shown.word_words(points[message.row.data]["word"])
                self.query_one("#embeddings-detail", Static).update(detail)

    @on(RowList.Chosen)
    def look_up(self, message: RowList.Chosen) -> None:
        """Go on to the neighbours of the token under the cursor."""
        view, data = self.looking.view, message.row.data
        if view in ("neighbours", "norms"):
            self.looking.view = "neighbours"
            text = str(data["text"])
            self.looking.word, self.looking.spaced = text.strip() or text, text.startswith(" ")
            self._show_form()
            self.look(int(data["id"]))

    @on(Grid.Highlighted)
    def read_cell(self, message: Grid.Highlighted) -> None:
        if self.looking.view == "similarity" and message.row < len(self._result.get("words", ())):
            words = shown.similarity_words(self._result, message.row, message.column)
            self.query_one("#embeddings-detail", Static).update(words)

    def action_close(self) -> None:
        if self._result and self.query_one(Input).has_focus and not self.asking:
            self._focus_view()
            return
        super().action_close()

    def action_copy(self) -> None:
        view = self.looking.view
        if view == "similarity":
            text = self.query_one(Grid).as_text()
        else:
            rows = self.query_one("#embeddings-rows", RowList).rows
            text = "\n".join(row.content(100).plain.rstrip() for row in rows)
        if view == "map":
            text = f"{self.query_one(WordPlot).content}\n{text}"
        self.copy(text, f"the {view}")
