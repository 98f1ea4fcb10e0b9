"""VRAM: will this job fit on this GPU, as the plan is edited."""

from __future__ import annotations

from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Static

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import EstimateMemory, Event, JobProgressed, MemoryEstimated
from workbench.text import gib
from workbench.ui.actions import bindings_of
from workbench.ui.bench import Bench, ErrorLine
from workbench.ui.link import SessionLink
from workbench.ui.session_state import STARTING, SessionState
from workbench.ui.strip_text import progress_text
from workbench.ui.widgets.bars import left, legend_mark, right, stacked_bar
from workbench.ui.widgets.fields import Field, Fields, Value

THIS_BOX = "of this box"
MOST_TOKENS = 10_000_000
LOW = 14
"""Below this height plan and result share the lines."""
PLAN = (
    Field("quant", "quantize", ("none", "int8", "nf4", "fp4"), "What bitsandbytes turns the linear layers into."),
    Field("double_quant", "double quant", (False, True), "Quantizes the quantization constants too (nf4 and fp4)."),
    Field(
        "dtype",
        "dtype",
        ("bfloat16", "float16", "float32"),
        "Of everything that is not quantized, and of the KV cache.",
    ),
    Field("batch", "batch", (1, 2, 4, 8, 16, 32, 64), "Sequences at once.", typed=True, most=65_536),
    Field(
        "sequence_length",
        "sequence",
        (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072),
        "Tokens of each prompt.",
        typed=True,
        most=MOST_TOKENS,
    ),
    Field(
        "new_tokens",
        "new tokens",
        (0, 128, 256, 512, 1024, 2048, 4096),
        "Generated after it.",
        typed=True,
        least=0,
        most=MOST_TOKENS,
    ),
    Field(
        "gpu",
        "GPU",
        (THIS_BOX, "RTX 4090", "L4", "A100 80GB", "H100 80GB", "24GiB"),
        "The one to hold it against; enter types another name or a size.",
        typed=True,
    ),
)
ROOM_FOR_WHY = 40
FOUR_BITS = ("nf4", "fp4")
DEFAULTS: dict[str, Value] = {
    "quant": "none",
    "double_quant": False,
    "dtype": "bfloat16",
    "batch": 1,
    "sequence_length": 2048,
    "new_tokens": 256,
    "gpu": THIS_BOX,
}
LABELS = {"kv_cache": "KV cache", "logits": "logits, loss", "overhead": "context, other"}
FITS = {
    "fits": ("✔ fits", "$good"),
    "tight": ("⚠ fits, tight", "$warn"),
    "no": ("✖ does not fit", "$bad"),
}
TIGHT_SHARE = 0.05
"""Less free than this share of the capacity is called tight, where the estimate does not say itself."""
RULE_WORDS = {"exact": "exact", "rule": "by rule", "not covered": "not covered yet"}


class VramBench(Bench):
    """The plan as an editor left, what it takes against each GPU right."""

    NAME = "vram"
    NEEDS_TORCH = True
    OF_THE_MODEL = True
    BINDINGS: ClassVar[list[BindingType]] = [*bindings_of("vram")]

    estimate: reactive[dict[str, Any] | None] = reactive(None, always_update=True)
    """The last reply, as the contract of ``workbench vram --json`` says."""

    def __init__(self, link: SessionLink) -> None:
        super().__init__(link)
        self._asked: tuple[str, int] = ("", 0)
        self.dataset_tokens = 0
        """Tokens of the measured data set, once through; 0 while none was sent here."""

    def compose(self) -> ComposeResult:
        with Container(id="vram-body"):
            with Vertical(id="vram-left"):
                yield Static("PLAN", classes="title")
                yield Fields(PLAN, DEFAULTS, id="vram-plan")
                yield Static(id="vram-hint")
            with VerticalScroll(id="vram-right"):
                yield ErrorLine()
                yield Static(id="vram-budget")

    def first_focus(self) -> Widget:
        return self.query_one(Fields)

    def session_changed(self, old: SessionState, new: SessionState) -> None:
        if not new.chosen:
            self.query_one("#vram-budget", Static).update(
                Content.assemble(
                    "Shows what a job takes on each GPU: weights, KV cache and the rest, before it is loaded.\n\n",
                    ("ctrl+o", "bold $accent"),
                    " chooses a model; one of the catalogue needs no download.",
                )
            )
        elif not new.attached:
            if self.estimate is None:
                self._say("starting the session" if new.connection == STARTING else "")
        elif (new.chosen, new.attachments) != self._asked:
            self.ask_estimate()

    @on(Fields.Changed)
    def plan_changed(self) -> None:
        self.show_error(None)
        self.ask_estimate()

    @on(Fields.Highlighted)
    def explain_field(self, message: Fields.Highlighted) -> None:
        field: Field = message.row.data
        keys = "◂ ▸ change it" + (", enter types one" if field.typed else "")
        self.query_one("#vram-hint", Static).update(Content.assemble(field.help, "\n", (keys, "$muted")))

    @work(group="estimate", exclusive=True, exit_on_error=False)
    async def ask_estimate(self) -> None:
        """Ask for the bytes of the plan as it stands; a later call replaces this one."""
        model = self.session.chosen
        if not model or not self.session.attached:
            return
        self._asked = (model, self.session.attachments)
        if self.estimate is None:
            self._say("building the model on the meta device")
        plan: dict[str, Any] = dict(self.query_one(Fields).values)
        plan["double_quant"] = plan["double_quant"] and plan["quant"] in FOUR_BITS
        gpu = str(plan.pop("gpu"))
        request = EstimateMemory(model, plan=plan, gpus=[] if gpu == THIS_BOX else [gpu])
        try:
            reply = await self.link.ask(request, MemoryEstimated, self._on_event)
        except JobCancelled:
            return
        except WorkbenchError as error:
            if error.kind == "session-lost":
                return
            self.estimate = None
            self.query_one("#vram-budget", Static).update("")
            self.show_error(error)
        else:
            self.show_error(None)
            self.estimate = reply.result

    def _on_event(self, event: Event) -> None:
        if isinstance(event, JobProgressed) and self.estimate is None:
            self._say(f"{event.phase} {progress_text(event.done, event.total, event.unit)}".strip())

    def _say(self, what: str) -> None:
        line = Content.assemble((self.session.chosen, "bold"), (f"  {what} …" if what else "", "$muted"))
        self.query_one("#vram-budget", Static).update(line)

    def watch_estimate(self) -> None:
        self._draw()

    def on_resize(self) -> None:
        self.set_class(self.size.height < LOW, "-low")
        self._draw()

    def _draw(self) -> None:
        if self.estimate is not None and self.is_mounted:
            width = max(30, self.query_one("#vram-right").scrollable_content_region.width)
            self.query_one("#vram-budget", Static).update(budget(self.session.chosen, self.estimate, width))

    def take_sequence_length(self, tokens: int, dataset_tokens: int = 0) -> None:
        """Plan with this many tokens, as another bench measured them, and with a data set of so many for its cost."""
        self.dataset_tokens = dataset_tokens or self.dataset_tokens
        self.query_one(Fields).set_value("sequence_length", max(1, min(MOST_TOKENS, tokens)))
        self.ask_estimate()

    def action_load_plan(self) -> None:
        values = self.query_one(Fields).values
        self.post_message(self.LoadRequested({key: values[key] for key in ("quant", "double_quant", "dtype")}))

    def action_reset(self) -> None:
        fields = self.query_one(Fields)
        for key, value in DEFAULTS.items():
            fields.set_value(key, value)
        self.ask_estimate()

    def action_copy(self) -> None:
        if self.estimate is not None:
            plan = self.query_one(Fields)
            lines = [f"{field.label}: {field.show(plan.values[field.id])}" for field in PLAN]
            table = budget(self.session.chosen, self.estimate, 76).plain
            self.post_message(self.CopyRequested("\n".join([*lines, "", table]), "plan and budget"))


def verdict_of(gpu: dict[str, Any]) -> str:
    """``fits``, ``tight`` or ``no`` for one GPU of the estimate."""
    if gpu.get("verdict") in FITS:
        return str(gpu["verdict"])
    if not gpu.get("fits"):
        return "no"
    free, capacity = gpu.get("free_bytes") or 0, gpu.get("capacity_bytes") or 0
    return "tight" if free < TIGHT_SHARE * capacity else "fits"


def _known(result: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """How each category is known, and why, of what the reply says."""
    why = result.get("why") or {}
    return {str(key): (str(word), str(why.get(key) or "")) for key, word in (result.get("known") or {}).items()}


def _mib(count_bytes: float) -> str:
    return f"{count_bytes / 2**20:,.1f}"


def budget(model: str, result: dict[str, Any], width: int) -> Content:
    """The GPUs with their bars, then the categories with their bytes and how they are known."""
    estimate = {key: value for key, value in (result.get("estimate") or {}).items() if isinstance(value, int)}
    total = estimate.pop("total", sum(estimate.values()))
    parts = {key: value for key, value in estimate.items() if value}
    known = _known(result)
    unit, shown = ("GiB", gib) if total >= 2**30 else ("MiB", _mib)
    blocks = [_gpu_block(gpu, list(parts.values()), width) for gpu in result.get("gpus") or []]
    if not blocks:
        nothing = Content.styled("No GPU on this box: choose one under GPU. The bar shows the parts.", "$muted")
        blocks = [Content.assemble(nothing, "\n", stacked_bar(list(parts.values()), total, width))]
    rows = [Content.assemble(left(model, 21, "bold"), right(unit, 9, "$muted"), right("share", 9, "$muted"))]
    for i, (key, value) in enumerate(parts.items()):
        word, why = known.get(key, ("", ""))
        label = left(LABELS.get(key, key.replace("_", " ")), 18)
        share = right(f"{100 * value / max(1, total):.1f} %", 9, "$muted")
        number = right(shown(value), 9)
        room = width - 39
        told = f"  {RULE_WORDS.get(word, word)}" + (f": {why}" if why and room >= ROOM_FOR_WHY else "")
        note = Content.styled(told, "$muted").truncate(max(0, room), ellipsis=True)
        rows.append(Content.assemble(legend_mark(i), " ", label, number, share, note))
    rows.append(Content.assemble("   ", left("total", 18, "bold"), right(shown(total), 9, "bold $accent")))
    blocks.append(Content("\n").join(rows))
    uncovered = [LABELS.get(key, key.replace("_", " ")) for key, (word, _) in known.items() if word == "not covered"]
    if uncovered:
        blocks.append(Content.styled(f"Not in the total yet: {', '.join(uncovered)}.", "$muted"))
    blocks += [Content.assemble(("⚠ ", "$warn"), str(warning)) for warning in result.get("warnings") or []]
    return Content("\n\n").join(blocks)


def _gpu_block(gpu: dict[str, Any], parts: list[int], width: int) -> Content:
    capacity = int(gpu.get("capacity_bytes") or 0)
    free = int(gpu.get("free_bytes") or 0)
    words, style = FITS[verdict_of(gpu)]
    name = Content.assemble((str(gpu.get("name") or "GPU"), "bold"), (f" · {gib(capacity, 1)} GiB", "$muted"))
    room = (
        f"{gib(free, 1)} GiB free"
        if free >= 0 and gpu.get("fits")
        else f"{gib(abs(free), 1)} GiB short"
        if free
        else ""
    )
    end = Content.assemble((words, f"bold {style}"), (f"  {room}" if room else "", "$muted"))
    space = max(2, width - name.cell_length - end.cell_length)
    return Content.assemble(name, " " * space, end, "\n", stacked_bar(parts, capacity, width))


BENCH = VramBench
