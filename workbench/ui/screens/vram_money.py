"""Work, time and money of the plan, and a rented GPU against an API."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import (
    BreakEvenWithApi,
    BrokenEven,
    EstimateMemory,
    ListPrices,
    MemoryEstimated,
    PricesListed,
)
from workbench.text import format_count
from workbench.ui.benches.vram_plan import DATASETS, USUAL_GPUS, Draft
from workbench.ui.link import SessionLink
from workbench.ui.screens.token_tax import Decimal, TaxFields
from workbench.ui.screens.vram_screen import VramScreen
from workbench.ui.widgets.bars import left, right
from workbench.ui.widgets.fields import Field, Fields, Value
from workbench.vram.plan import plan_to_dict
from workbench.vram.ranges import dollars, duration, range_words, speed, two_figures

OWN_PRICE = "stated below"
ANSWERS = (100, 1000, 10_000, 100_000, 1_000_000)
PER_MILLION = ("0.05", "0.1", "0.15", "0.25", "0.3", "0.5", "1", "2", "3", "5", "10", "15")
SECONDS_A_DAY = 86_400


class MoneyScreen(VramScreen):
    """What the figures depend on left, the figures right.

    Args:
        gpus: names that the plan is held against; empty for those of this box.
        change: told of the draft when its data set or GPU is changed here.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "copy_figures", "Copy the figures", show=False)]
    KEYS = (("◂ ▸ enter", "change"), ("tab", "scroll"), ("y", "copy"), ("?", "keys"))

    def __init__(
        self, link: SessionLink, model: str, draft: Draft, gpus: Sequence[str], change: Callable[[Draft], None]
    ) -> None:
        super().__init__(link, "vram-money", "Time and money")
        self._model, self._draft, self._change = model, draft, change
        self._prices = PricesListed([], [], "")
        self._gpu = gpus[0] if gpus else "RTX 4090"
        self._figures = Content("")

    def parts(self) -> Iterable[Widget]:
        fields = money_fields(self._draft.plan.trains, self._gpu, self._prices)
        yield Horizontal(
            Vertical(TaxFields(fields, self._start(), id="money-fields"), Static(id="money-help"), id="money-left"),
            VerticalScroll(Static(id="money-figures"), id="money-scroll"),
            id="money-body",
        )

    def _start(self) -> dict[str, Value]:
        return {
            "gpu": self._gpu, "dataset_tokens": self._draft.dataset_tokens, "epochs": round(self._draft.epochs) or 1,
            "answers": 1000, "agent": "1", "api": OWN_PRICE, "price_in": "0.15", "price_out": "0.5",
        }  # fmt: skip

    def on_mount(self) -> None:
        self.headline("Time and money", self._model, f"{self._draft.plan.job}")
        self.say("Ranges: what published runs reach of a GPU's peak, and what rents were seen.")
        self.query_one(Fields).focus()
        self.read_prices()

    @work(group="prices", exit_on_error=False)
    async def read_prices(self) -> None:
        """Offer what the price table names, then compute."""
        reply = await self.ask(ListPrices(), PricesListed)
        if reply is not None:
            self._prices = reply
            fields = money_fields(self._draft.plan.trains, self._gpu, reply)
            self.query_one(TaxFields).set_fields(fields)
        self.compute()

    @on(Fields.Highlighted)
    def explain(self, message: Fields.Highlighted) -> None:
        self.query_one("#money-help", Static).update(Content.styled(message.row.data.help, "$muted"))

    @on(TaxFields.Refused)
    def tell_refused(self, message: TaxFields.Refused) -> None:
        self.say(Content.assemble(("✖ ", "bold $bad"), f"{message.field.label} takes a number such as 0.15"))

    @on(Fields.Changed)
    def follow(self, message: Fields.Changed) -> None:
        values = message.fields.values
        if message.field == "gpu":
            self._draft = replace(self._draft, gpu=str(message.value))
            self._change(self._draft)
        elif message.field in ("dataset_tokens", "epochs"):
            tokens, epochs = int(values["dataset_tokens"]), float(values["epochs"])
            self._draft = replace(self._draft, dataset_tokens=tokens, epochs=epochs)
            self._change(self._draft)
        self.compute()

    @work(group="money", exclusive=True, exit_on_error=False)
    async def compute(self) -> None:
        """Ask for the cost, and for the break-even of answers."""
        values = self.query_one(Fields).values
        plan, gpu = plan_to_dict(self._draft.plan), str(values["gpu"])
        tokens = int(values["dataset_tokens"]) if self._draft.plan.trains else 0
        request = EstimateMemory(self._model, plan, [gpu], "", tokens, float(values["epochs"]), suggest=False)
        try:
            cost = (await self.link.ask(request, MemoryEstimated)).result.get("cost") or {}
        except (JobCancelled, WorkbenchError) as error:
            if isinstance(error, WorkbenchError):
                self.fail(error)
            return
        lines = [*cost_figures(cost, self._draft, gpu)]
        if not self._draft.plan.trains:
            lines += await self._break_even(values, plan, gpu)
        lines += price_lines(self._prices)
        self._figures = Content("\n").join(lines)
        self.query_one("#money-figures", Static).update(self._figures)

    async def _break_even(self, values: dict[str, Value], plan: dict[str, Any], gpu: str) -> list[Content]:
        named = str(values["api"]) if values["api"] != OWN_PRICE else ""
        head = [Content(""), Content.styled("RENT A GPU, OR AN API", "bold $muted")]
        request = BreakEvenWithApi(
            self._model, gpu, plan, int(values["answers"]), float(values["agent"]), named,
            float(values["price_in"]), float(values["price_out"]),
        )  # fmt: skip
        try:
            reply = await self.link.ask(request, BrokenEven)
        except JobCancelled:
            return head
        except WorkbenchError as error:
            return [*head, Content.assemble(error.message, (f" {error.remedy}", "$muted"))]
        return [*head, *even_lines(reply.result)]

    def action_copy_figures(self) -> None:
        self.copy(f"{self._model}, {self._draft.plan.job}\n{self._figures.plain}", "the figures")


def money_fields(trains: bool, gpu: str, prices: PricesListed) -> tuple[Field, ...]:
    """What the figures of a job depend on."""
    names = list(dict.fromkeys([gpu, *(str(row["name"]) for row in prices.gpus), *USUAL_GPUS]))
    chosen = Field("gpu", "GPU", tuple(names), "Those with a price come first; the plan follows.")
    if trains:
        return (
            chosen,
            Field("dataset_tokens", "data set", DATASETS, "Tokens once through; Tokens sends them.", typed=True,
                  least=0, most=10**15),
            Field("epochs", "epochs", (1, 2, 3, 5, 10), "Times through it.", typed=True, most=10_000, least=0.01,
                  fractions=True),
        )  # fmt: skip
    apis = (OWN_PRICE, *(str(row["name"]) for row in prices.apis))
    own = ("api", (OWN_PRICE,))
    return (
        chosen,
        Field("answers", "answers a day", ANSWERS, "As users ask for them.", typed=True, most=10**9),
        Decimal(
            "agent",
            "calls for each",
            ("1", "2", "5", "10", "20", "50"),
            "An agent calls the model so often.",
            typed=True,
        ),
        Field("api", "API", apis, "An entry of prices.toml, or the price stated here."),
        Decimal("price_in", "1 M tokens in", PER_MILLION, "What the API takes.", typed=True, unit="$", only_with=own),
        Decimal("price_out", "1 M tokens out", PER_MILLION, "What the API takes.", typed=True, unit="$", only_with=own),
    )


def _line(label: str, number: str, more: str = "", style: str = "bold") -> Content:
    return Content.assemble(left(label, 21), right(number, 20, style), (f"  {more}" if more else "", "$muted"))


def cost_figures(cost: dict[str, Any], draft: Draft, gpu: str) -> Iterator[Content]:
    """Work, time and money of the job."""
    trains = draft.plan.trains
    yield Content.styled("WORK", "bold $muted")
    yield _line(
        "FLOPs a token", format_count(cost.get("flops_per_token") or 0), "training step" if trains else "prefill"
    )
    yield _line("weights met", format_count(cost.get("matmul_parameters") or 0), "by each token")
    if cost.get("training_flops"):
        yield _line("in all", f"{cost['training_flops']:.2e} FLOPs")
    if cost.get("steps"):
        yield _line("steps", f"{cost['steps']:,}", f"of {cost.get('tokens_per_step') or 0:,} tokens")
    yield Content("")
    yield Content.styled("TIME", "bold $muted")
    for label, key, show, more in (
        ("tokens/s", "tokens_per_second", speed, "all GPUs together" if trains else "decoding, all sequences"),
        ("prefill", "prefill_seconds", duration, f"{draft.plan.sequence_length:,} tokens"),
        ("a step", "seconds_per_step", duration, ""),
        (
            "the data set" if trains else "an answer",
            "seconds",
            duration,
            "" if trains else f"{draft.plan.new_tokens:,} tokens",
        ),
    ):
        if cost.get(key):
            yield _line(label, range_words(cost[key], show), more)
    if trains and not draft.dataset_tokens:
        yield Content.styled("State the data set's tokens for the whole time; Tokens measures them.", "$muted")
    yield Content("")
    yield Content.styled("MONEY AND ENERGY", "bold $muted")
    if cost.get("usd"):
        yield _line("dollars", f"${range_words(cost['usd'], dollars)}", f"rent of {gpu}", "bold $accent")
    if cost.get("kwh"):
        yield _line("energy", f"{range_words(cost['kwh'], two_figures)} kWh")
    low, usual, high = cost.get("chinchilla_tokens") or (0, 0, 0)
    if usual and trains:
        yield _line(
            "pre-training wants",
            f"{format_count(usual)} tokens",
            f"{format_count(low)} – {format_count(high)}, Chinchilla",
        )
    for note in cost.get("notes") or ():
        yield Content.styled(str(note), "$muted")


def even_lines(found: dict[str, Any]) -> Iterator[Content]:
    """The GPU against the API, for the answers asked about."""
    words = {
        "api": ("the API is cheaper", "$accent"),
        "gpu": ("the GPU is cheaper", "$accent"),
        "depends": ("depends on the rent", "$warn"),
    }
    word, style = words.get(str(found["cheaper"]), (str(found["cheaper"]), ""))
    yield _line("asked", f"{found['tokens_asked_per_day']:,}", "generated tokens a day")
    yield _line("the API", f"${dollars(found['api_usd_per_day'])}", "a day")
    yield _line("the GPU", f"${range_words(found['gpu_usd_per_day'], dollars)}", "a day, rented all day")
    yield _line("breaks even at", range_words(found["tokens_per_day"], format_count), "generated tokens a day")
    yield _line("the GPU can make", range_words(found["gpu_capacity_per_day"], format_count), "a day with this batch")
    yield Content.assemble(left("so", 21), right(word, 20, f"bold {style}"))
    for note in found.get("notes") or ():
        yield Content.styled(str(note), "$muted")


def price_lines(prices: PricesListed) -> Iterator[Content]:
    """The table of rents, and where one's own go."""
    yield Content("")
    yield Content.styled("PRICES AN HOUR", "bold $muted")
    for row in prices.gpus:
        rent = f"${row['low']:g}" + (f" – {row['high']:g}" if row["high"] != row["low"] else "")
        yield Content.assemble(
            left(str(row["name"]), 21), right(rent, 14), (f"  {row['date']}, {row['source']}", "$muted")
        )
    for row in prices.apis:
        both = f"${row['input_per_million']:g} / ${row['output_per_million']:g}"
        yield Content.assemble(
            left(str(row["name"]), 21), right(both, 14), (f"  1 M in / out, {row['date']}", "$muted")
        )
    if prices.own_table:
        yield Content.styled(f"Your own go into {prices.own_table}; an entry there replaces the one here.", "$muted")
