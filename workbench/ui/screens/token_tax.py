"""What tokens cost over a year of use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from textual import on, work
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from workbench.errors import WorkbenchError
from workbench.session.protocol import ListPrices, PricesListed
from workbench.text import format_count
from workbench.tokens.tax import FineTuned, OwnGpu, Usage, break_even, fine_tuning_saves, usage_cost
from workbench.ui.link import SessionLink
from workbench.ui.screens.closer_look import CloserLook
from workbench.ui.widgets.bars import left, right
from workbench.ui.widgets.fields import Field, Fields, Value
from workbench.ui.widgets.row_list import Row

TOKENS = (0, 50, 100, 250, 500, 1000, 2000, 4000, 8000, 16000)
OWN_PRICE = "my price"
MOST = 1e9


@dataclass(frozen=True)
class Decimal(Field):
    """A number that may have a fraction; its value is its text.

    Attributes:
        unit: stands before the number.
    """

    unit: str = ""

    def show(self, value: Value) -> str:
        return f"{self.unit}{value}"

    def step(self, value: Value, direction: int) -> Value:
        if value in self.choices:
            return super().step(value, direction)
        beyond = [choice for choice in self.choices if (float(choice) - float(value)) * direction > 0]
        if not beyond:
            return self.choices[-1 if direction > 0 else 0]
        return beyond[0 if direction > 0 else -1]


class TaxFields(Fields):
    """A form that takes fractions."""

    @dataclass
    class Refused(Message):
        """What was typed is no number."""

        field: Field

    def set_fields(self, fields: Sequence[Field]) -> None:
        """Replace the fields; values and cursor stay."""
        self.fields = tuple(fields)
        self.set_rows(Row(field.id, self._line_of(field), field) for field in self.fields)

    def take(self, typed: str) -> None:
        field = self.field
        if not isinstance(field, Decimal):
            super().take(typed)
            return
        number = typed.removeprefix(field.unit).replace(",", ".")
        if _DECIMAL.fullmatch(number) and float(number) < MOST:
            self._assign(field, number)
        else:
            self.post_message(self.Refused(field))


_DECIMAL = re.compile(r"\d+(\.\d+)?")


def form(gpus: Sequence[dict[str, Any]]) -> tuple[Field, ...]:
    """The fields; `gpus` of the price table, as `workbench.session.protocol.PricesListed` has them."""
    prices = ("0", "0.05", "0.1", "0.15", "0.25", "0.5", "1", "2", "3", "5", "10", "15", "30")
    hourly = ("0", "0.35", "0.8", "1.5", "2", "3", "5")
    gpu_names = (OWN_PRICE, *(str(gpu["name"]) for gpu in gpus))
    return (
        Decimal("price_in", "1 M tokens in", prices, typed=True, unit="$"),
        Decimal("price_out", "1 M tokens out", prices, typed=True, unit="$"),
        Field("system", "system prompt", TOKENS, typed=True, least=0),
        Field("prompt", "request", TOKENS, typed=True, least=0),
        Field("output", "answer", TOKENS, typed=True, least=0),
        Decimal("calls", "calls/user/day", ("1", "5", "10", "20", "50", "100"), typed=True),
        Field("users", "users", (1, 10, 100, 1000, 10_000, 100_000), typed=True, least=0),
        Decimal("agent", "agent steps", ("1", "2", "5", "10", "20", "50"), typed=True),
        Field("tuned", "tuned: system", TOKENS, typed=True, least=0),
        Decimal("training", "training", ("0", "50", "100", "500", "1000", "5000"), typed=True, unit="$"),
        Field("gpu", "GPU", gpu_names),
        Decimal("hour", "GPU per hour", hourly, typed=True, unit="$", only_with=("gpu", (OWN_PRICE,))),
        Field("prefill", "prefill tok/s", (1000, 2000, 5000, 10_000, 20_000), typed=True),
        Field("decode", "decode tok/s", (50, 100, 500, 1000, 2000, 5000), typed=True),
    )


START: dict[str, Value] = {
    "price_in": "0.15", "price_out": "0.5", "system": 1000, "prompt": 100, "output": 250, "calls": "10", "users": 100,
    "agent": "1", "tuned": 0, "training": "100", "gpu": OWN_PRICE, "hour": "0.8", "prefill": 5000, "decode": 1000,
}  # fmt: skip


class TaxScreen(CloserLook):
    """The stated use in money, what a fine-tuned model saves, where a GPU breaks even; and vocabulary against length.

    Args:
        text: of the bench; its tokens are taken for the system prompt.
        counts: of that text, as `workbench.session.protocol.TokensRecounted` has them.
        price: of a million input tokens of the first model, where the user has stated one.
    """

    KEYS = (("← →", "change"), ("enter", "type a number"), ("tab", "scroll"))

    def __init__(self, link: SessionLink, text: str, counts: list[dict[str, Any]], price: float | None = None) -> None:
        super().__init__(link, "token-tax", "The token tax")
        self._text = text
        self._counts = [count for count in counts if "tokens" in count]
        self._price = price
        self._gpus: list[dict[str, Any]] = []

    def parts(self) -> Iterable[Widget]:
        values = dict(START)
        if self._counts:
            values["system"] = self._counts[0]["tokens"]
        if self._price is not None:
            values["price_in"] = f"{self._price:.10f}".rstrip("0").rstrip(".")
        with Horizontal(id="tax-body"):
            yield TaxFields(form(()), values, id="tax-fields")
            with VerticalScroll(id="tax-scroll"):
                yield Static(id="tax-figures")

    def on_mount(self) -> None:
        self.query_one(Fields).focus()
        self.compute()
        self.read_prices()

    @work(group="prices", exit_on_error=False)
    async def read_prices(self) -> None:
        """Offer the GPUs of the price table."""
        reply = await self.ask(ListPrices(), PricesListed)
        if reply is not None:
            self._gpus = reply.gpus
            self.query_one(TaxFields).set_fields(form(self._gpus))
            self.compute()

    @on(TaxFields.Refused)
    def tell_refused(self, message: TaxFields.Refused) -> None:
        self.say(Content.assemble(("✖ ", "bold $bad"), f"{message.field.label} takes a number such as 0.15"))

    @on(Fields.Changed)
    def compute(self) -> None:
        """Show what follows from the fields."""
        told = "the text of the bench is the system prompt" if self._counts else "every figure follows from these"
        self.say(f"Prices of tokens are yours; {told}.")
        values = self.query_one(Fields).values
        gpu = next((gpu for gpu in self._gpus if gpu["name"] == values["gpu"]), None)
        self.query_one("#tax-figures", Static).update(tax_content(values, self._text, self._counts, gpu))


def tax_content(
    values: dict[str, Value], text: str, counts: list[dict[str, Any]], gpu: dict[str, Any] | None = None
) -> Content:
    """All figures that follow from the stated use.

    Args:
        values: by field.
        text: whose lengths are compared.
        counts: of that text.
        gpu: an entry of the price table; None takes the price stated.
    """
    usage = Usage(
        price_in=float(values["price_in"]),
        price_out=float(values["price_out"]),
        system_tokens=int(values["system"]),
        prompt_tokens=int(values["prompt"]),
        output_tokens=int(values["output"]),
        calls_per_user_per_day=float(values["calls"]),
        users=int(values["users"]),
        agent_multiplier=float(values["agent"]),
    )
    cost = usage_cost(usage)
    tuned = FineTuned(system_tokens=int(values["tuned"]), training_cost=float(values["training"]))
    saving = fine_tuning_saves(usage, tuned)
    lines = [
        Content.styled("COST", "bold $muted"),
        _line("a call", f"${cost.call:,.6f}"),
        _line("a day", f"${cost.day:,.2f}"),
        _line("a year", f"${cost.year:,.0f}", "bold $accent"),
        _line("system prompt's share", f"{cost.system_share:.0%}"),
        Content(""),
        Content.styled("FINE-TUNED, WITHOUT THE INSTRUCTIONS", "bold $muted"),
        _line("a year", f"${saving.cost.year:,.0f}"),
        _line("saves", f"{saving.saved_share:.0%}", "$good" if saving.saved_share > 0 else ""),
        _line("training pays back", _days(saving.pays_back_days)),
        Content(""),
        Content.styled("A GPU OF ONE'S OWN", "bold $muted"),
        *_gpu_lines(usage, values, gpu),
    ]
    if text:
        lines += [Content(""), *_granularity_lines(text, counts)]
    return Content("\n").join(lines)


def _line(name: str, number: str, style: str = "bold") -> Content:
    return Content.assemble(left(name, 22), right(number, 18, style))


def _days(days: float | None) -> str:
    return "never" if days is None else f"in {days:,.1f} days"


def _gpu_lines(usage: Usage, values: dict[str, Value], gpu: dict[str, Any] | None) -> list[Content]:
    hourly = [float(values["hour"])] if gpu is None else sorted({gpu["low"], gpu["high"]})
    rates = float(values["prefill"]), float(values["decode"])
    try:
        evens = [break_even(usage, OwnGpu(price, *rates)) for price in hourly]
    except WorkbenchError as error:
        return [Content.assemble(("✖ ", "bold $bad"), error.message, (f" {error.remedy}", "$muted"))]
    words = {(True,): ("cheaper", "$good"), (False,): ("dearer", ""), (True, False): ("at the low price", "")}
    cheaper = words[tuple(dict.fromkeys(even.owning_is_cheaper for even in evens))]
    users = list(dict.fromkeys("never" if even.users is None else f"{even.users:,.0f}" for even in evens))
    lines = [
        _line("GPUs needed", f"{evens[0].gpus:,}"),
        _line("a year", " – ".join(f"${even.cost_per_year:,.0f}" for even in evens)),
        _line("cheaper than tokens", *cheaper) if len(evens) > 1 else _line("than paying per token", *cheaper),
        _line("breaks even at", " – ".join(users) + ("" if users == ["never"] else " users")),
        Content.styled("busy half of each day, at these rates", "$muted"),
    ]
    if gpu is not None:
        price = " – ".join(f"${price:g}" for price in hourly)
        lines.append(Content.styled(f"{price} an hour, {gpu['date']}:\n{gpu['source']}", "$muted"))
    return lines


def _granularity_lines(text: str, counts: list[dict[str, Any]]) -> list[Content]:
    words = text.split()
    levels = [
        ("bytes", 256, len(text.encode("utf-8", "replace"))),
        ("characters", len(set(text)), len(text)),
        ("words", len(set(words)), len(words)),
        *((str(count["model"]), count["vocab_size"], count["tokens"]) for count in counts),
    ]
    heads = (right("vocab", 8, "$muted"), right("length", 8, "$muted"), right("n² pairs", 9, "$muted"))
    lines = [
        Content.styled("VOCABULARY OR LENGTH OF THE TEXT", "bold $muted"),
        Content.assemble(left("cut into", 15, "$muted"), *heads),
    ]
    for name, vocabulary, length in levels:
        pairs = format_count(length * (length + 1) // 2)
        numbers = (right(format_count(vocabulary), 8), right(f"{length:,}", 8, "bold"), right(pairs, 9))
        lines.append(Content.assemble(left(name, 15), *numbers))
    return lines
