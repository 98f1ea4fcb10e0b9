"""What quantizing costs: variants of the chosen model loaded in turn and measured on the same text and prompt."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from textual import events, on, work
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, Static

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import CompareVariants, Event, JobProgressed, VariantMeasured, VariantsCompared
from workbench.ui.benches.chat_files import read_attachment
from workbench.ui.link import SessionLink
from workbench.ui.screens import chat_compare_rows as shown
from workbench.ui.screens.chat_export import ask_where, write_text
from workbench.ui.screens.closer_look import ASKING, CloserLook
from workbench.ui.screens.confirm import Confirm
from workbench.ui.strip_text import progress_text
from workbench.ui.widgets.fields import Field, Fields, Value
from workbench.ui.widgets.row_list import RowList

VIEWS = ("table", "answers", "places", "layers")
MEANINGS = {
    "fp32": "float32: exact, twice the memory of 16 bits.",
    "bf16": "bfloat16: what most checkpoints are in.",
    "fp16": "float16: finer than bfloat16, with a smaller range.",
    "int8": "LLM.int8() of bitsandbytes.",
    "nf4": "4-bit NormalFloat of bitsandbytes, as QLoRA has it.",
    "nf4-dq": "NF4 with its constants quantized too.",
    "fp4": "4-bit floats of bitsandbytes.",
    "fp4-dq": "FP4 with its constants quantized too.",
}
FIELDS = (
    *(Field(name, name, (False, True), f"{line} The first one that is on is the reference.")
      for name, line in MEANINGS.items()),
    Field("tokens", "answer tokens", (32, 64, 128, 256), "Of each answer at most.", typed=True, most=4096),
    Field("layers", "layer errors", (False, True), "Also the error of every quantized weight; loads the model twice."),
)  # fmt: skip


@dataclass
class Comparing:
    """What the screen keeps while it is closed."""

    values: dict[str, Value] = field(
        default_factory=lambda: {**{name: name in ("bf16", "nf4") for name in MEANINGS}, "tokens": 64, "layers": False}
    )
    prompt: str = ""
    path: str = ""
    """File with the text; empty takes the built-in one."""
    view: str = "form"
    result: dict[str, Any] = field(default_factory=dict)


class CompareScreen(CloserLook):
    """A form, then the figures as they come; every view is a key away.

    Args:
        model: the chosen one.
        comparing: what was asked and measured last; kept up to date.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(i), f"view('{view}')", f"Show {view}", show=False) for i, view in enumerate(VIEWS, 1)),
        Binding("f", "view('form')", "Choose variants, prompt and text", show=False),
        Binding("ctrl+s", "compare", "Measure", show=False, priority=True),
        Binding("v", "variant", "Next variant", show=False),
        Binding("y", "copy", "Copy as Markdown", show=False),
        Binding("e", "export", "Export as Markdown or JSON", show=False),
    ]

    def __init__(self, link: SessionLink, model: str, comparing: Comparing) -> None:
        super().__init__(link, "chat-compare", f"What quantizing costs: {model}")
        self._model = model
        self.comparing = comparing
        self._variant = 1

    def parts(self) -> Iterable[Widget]:
        yield Static(id="compare-tabs")
        yield Vertical(
            Static(Content.styled("Prompt for all of them to answer greedily", "$muted")),
            Input(self.comparing.prompt, placeholder="Empty: nothing is answered", id="compare-prompt"),
            Static(Content.styled("Text to measure on", "$muted")),
            Input(self.comparing.path, placeholder="Path of a text file; empty: the built-in text", id="compare-path"),
            Fields(FIELDS, self.comparing.values, id="compare-fields"),
            Static(id="compare-help"),
            id="compare-form",
        )
        yield VerticalScroll(Static(id="compare-text"), id="compare-scroll")
        yield Vertical(Static(id="compare-head"), RowList(id="compare-rows"), id="compare-listing")

    def on_mount(self) -> None:
        for item in self.query(Input):
            item.cursor_blink = False
        self.action_view("form" if not self._variants else self.comparing.view)

    def on_resize(self, event: events.Resize) -> None:
        if self.is_mounted and self.comparing.view in ("table", "answers"):
            self.call_after_refresh(self._show)

    @property
    def _variants(self) -> list[dict[str, Any]]:
        return list(self.comparing.result.get("variants") or ())

    def keys(self) -> tuple[tuple[str, str], ...]:
        if self.comparing.view == "form":
            return (("ctrl+s", "measures"), ("◂ ▸", "on, off"), ("tab", "prompt, text"), ("1-4", "results"))
        return (("1-4", "views"), ("v", "variant"), ("f", "form"), ("e", "export"))

    # --- Asking --------------------------------------------------------------------------------------------

    @on(Fields.Submitted)
    def submit(self) -> None:
        self.action_compare()

    @on(Input.Submitted)
    def leave_field(self) -> None:
        self.focus_next()

    @on(RowList.Highlighted, "#compare-fields")
    def explain(self, message: RowList.Highlighted) -> None:
        self.query_one("#compare-help", Static).update(Content.styled(message.row.data.help, "$muted"))

    def _request(self) -> CompareVariants:
        comparing = self.comparing
        comparing.prompt = self.query_one("#compare-prompt", Input).value
        comparing.path = self.query_one("#compare-path", Input).value.strip()
        comparing.values = dict(self.query_one(Fields).values)
        names = [name for name in MEANINGS if comparing.values[name]]
        if len(names) < 2:
            raise WorkbenchError("bad-option", "Only one variant is on.", "Turn on two or more.")
        text = read_attachment(comparing.path).text if comparing.path else ""
        if comparing.path and not text.strip():
            raise WorkbenchError("empty-text", f"{comparing.path} is empty.", "Name a text file, or none.")
        tokens, layers = int(comparing.values["tokens"]), bool(comparing.values["layers"])
        return CompareVariants(self._model, names, text, comparing.prompt.strip(), tokens, layers)

    @work(group=ASKING, exclusive=True, exit_on_error=False)
    async def action_compare(self) -> None:
        """Measure, showing each variant as it is done."""
        try:
            request = self._request()
        except WorkbenchError as error:
            self.fail(error)
            return
        self.comparing.result = {"model": self._model, "prompt": request.prompt, "variants": []}
        self.action_view("table")
        self.say("beginning …")
        try:
            reply = await self.link.ask(request, VariantsCompared, self._on_event)
        except JobCancelled:
            self.say("Stopped.")
        except WorkbenchError as error:
            self.fail(error)
        else:
            self.comparing.result = reply.result
            self.say("Stopped." if reply.result.get("cancelled") else "Measured.")
            self._show()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, VariantMeasured):
            self.comparing.result["variants"] = [*self._variants, event.variant]
            self._show()
        elif isinstance(event, JobProgressed):
            asked = [name for name in MEANINGS if self.comparing.values[name]]
            done = len(self._variants)
            now = f"{asked[min(done, len(asked) - 1)]}, {done} of {len(asked)} done: "
            counts = progress_text(event.done, event.total, event.unit)
            self.say(Content.assemble(f"{now}{event.phase} {counts}   ", ("escape", "bold $accent"), " stops it"))

    # --- Showing -------------------------------------------------------------------------------------------

    def action_view(self, view: str) -> None:
        self.comparing.view = view
        listing = view in ("places", "layers")
        self.query_one("#compare-form").display = view == "form"
        self.query_one("#compare-scroll").display = view in ("table", "answers")
        self.query_one("#compare-listing").display = listing
        focused = {"form": "#compare-fields", "table": "#compare-scroll", "answers": "#compare-scroll"}
        self.query_one(focused.get(view, "#compare-rows")).focus()
        self._tabs()
        self.show_keys()
        self._show()

    def _tabs(self) -> None:
        parts: list[Content | str | tuple[str, str]] = []
        for i, name in enumerate(VIEWS, 1):
            here = name == self.comparing.view
            parts += [(f" {i} ", "bold $on-accent on $accent" if here else "bold $accent")]
            parts += [(f"{name} ", "bold $on-accent on $accent" if here else "$muted"), " "]
        self.query_one("#compare-tabs", Static).update(Content.assemble(*parts))

    def _show(self) -> None:
        view = self.comparing.view
        if view in ("table", "answers"):
            width = max(40, self.size.width - 6)
            lines = self._table(width) if view == "table" else shown.answer_lines(self._variants, width)
            self.query_one("#compare-text", Static).update(Content("\n").join(lines))
        elif view in ("places", "layers"):
            self._show_rows(view)

    def _table(self, width: int) -> list[Content]:
        if not self._variants:
            empty = "Each variant is shown here as soon as it is measured."
            return [Content.styled(empty, "$muted")]
        lines = [*shown.table_lines(self._variants), Content("")]
        lines += [*shown.memory_lines(self._variants, width), Content("")]
        for remark in shown.remarks(self.comparing.result, self._variants):
            lines += Content.styled(remark, "$muted").wrap(width)
        return lines

    def _of_interest(self, view: str) -> list[dict[str, Any]]:
        key = "divergence" if view == "places" else "layers"
        return [variant for variant in self._variants if variant.get(key)]

    def _show_rows(self, view: str) -> None:
        known = self._of_interest(view)
        head = self.query_one("#compare-head", Static)
        if not known:
            empty = "Shown once two variants are measured." if view == "places" else "f turns on the layer errors."
            head.update(Content.styled(empty, "$muted"))
            self.query_one("#compare-rows", RowList).set_rows([])
            return
        variant = known[self._variant % len(known)]
        name = Content.assemble(
            (str(variant["name"]), "bold"), ("   v shows the next variant" if len(known) > 1 else "", "$muted")
        )
        below = shown.PLACE_HEAD if view == "places" else Content.styled(shown.LAYER_TELLS, "$muted")
        head.update(Content("\n").join([name, below]))
        rows = shown.place_rows(variant) if view == "places" else shown.layer_rows(variant)
        self.query_one("#compare-rows", RowList).set_rows(rows)

    def action_variant(self) -> None:
        self._variant += 1
        self._show()

    # --- Out -----------------------------------------------------------------------------------------------

    def action_copy(self) -> None:
        if self._variants:
            self.copy(shown.markdown(self.comparing.result), "the comparison")

    @work(group="export", exclusive=True, exit_on_error=False)
    async def action_export(self) -> None:
        """Write the comparison to a file."""
        if not self._variants:
            return
        question = Confirm("Export the comparison as", (("m", "Markdown, to read"), ("j", "JSON, for scripts")))
        picked = await self.app.push_screen_wait(question)
        if picked is None:
            return
        path = await ask_where(self.app, f"quantizing-costs.{'md' if picked == 'm' else 'json'}")
        if path is not None:
            result = self.comparing.result
            text = shown.markdown(result) if picked == "m" else json.dumps(result, indent=2) + "\n"
            self.say(write_text(path, text))
