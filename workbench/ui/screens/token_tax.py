"""What tokens cost over a year of use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from textual import on
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from workbench.errors import WorkbenchError
from workbench.text import format_count
from workbench.tokens.tax import FineTuned, OwnGpu, Usage, break_even, fine_tuning_saves, usage_cost
from workbench.ui.link import SessionLink
from workbench.ui.screens.token_screen import TokenScreen
from workbench.ui.widgets.bars import left, right
from workbench.ui.widgets.fields import Field, Fields, Value

CENTS = (0, 5, 10, 15, 25, 50, 100, 200, 300, 500, 1000, 1500, 3000)
TOKENS = (0, 50, 100, 250, 500, 1000, 2000, 4000, 8000, 16000)
USE = (
    Field("price_in", "¢ per M in", CENTS, typed=True, least=0),
    Field("price_out", "¢ per M out", CENTS, typed=True, least=0),
    Field("system", "system prompt", TOKENS, typed=True, least=0),
    Field("prompt", "request", TOKENS, typed=True, least=0),
    Field("output", "answer", TOKENS, typed=True, least=0),
    Field("calls", "calls/user/day", (1, 5, 10, 20, 50, 100), typed=True, least=0),
    Field("users", "users", (1, 10, 100, 1000, 10_000, 100_000), typed=True, least=0),
    Field("agent", "agent steps", (1, 2, 5, 10, 20, 50), typed=True),
    Field("tuned", "tuned: system", TOKENS, typed=True, least=0),
    Field("training", "training, $", (0, 50, 100, 500, 1000, 5000), typed=True, least=0),
    Field("gpu", "GPU, ¢/hour", (0, 35, 80, 150, 200, 300, 500), typed=True, least=0),
    Field("prefill", "prefill tok/s", (1000, 2000, 5000, 10_000, 20_000), typed=True),
    Field("decode", "decode tok/s", (50, 100, 500, 1000, 2000, 5000), typed=True),
)
START: dict[str, Value] = {
    "price_in": 15, "price_out": 50, "system": 1000, "prompt": 100, "output": 250, "calls": 10, "users": 100,
    "agent": 1, "tuned": 0, "training": 100, "gpu": 80, "prefill": 5000, "decode": 1000,
}  # fmt: skip


class TaxScreen(TokenScreen):
    """The stated use in money, what a fine-tuned model saves, where a GPU breaks even; and vocabulary against length.

    Args:
        text: of the bench; its tokens are taken for the system prompt.
        counts: of that text, as `workbench.session.protocol.TokensRecounted` has them.
    """

    KEYS = (("← →", "change"), ("enter", "type a number"), ("tab", "scroll"))

    def __init__(self, link: SessionLink, text: str, counts: list[dict[str, Any]]) -> None:
        super().__init__(link, "token-tax", "The token tax")
        self._text = text
        self._counts = [count for count in counts if "tokens" in count]

    def parts(self) -> Iterable[Widget]:
        values = dict(START)
        if self._counts:
            values["system"] = self._counts[0]["tokens"]
        with Horizontal(id="tax-body"):
            yield Fields(USE, values, id="tax-fields")
            with VerticalScroll(id="tax-scroll"):
                yield Static(id="tax-figures")

    def on_mount(self) -> None:
        self.query_one(Fields).focus()
        told = "the text of the bench is the system prompt" if self._counts else "every figure follows from these"
        self.say(Content.styled(f"Your prices, none built in; {told}.", "$muted"))
        self.compute()

    @on(Fields.Changed)
    def compute(self) -> None:
        """Show what follows from the fields."""
        values = {key: int(value) for key, value in self.query_one(Fields).values.items()}
        self.query_one("#tax-figures", Static).update(tax_content(values, self._text, self._counts))


def tax_content(values: dict[str, int], text: str, counts: list[dict[str, Any]]) -> Content:
    """All figures that follow from the stated use."""
    usage = Usage(
        price_in=values["price_in"] / 100,
        price_out=values["price_out"] / 100,
        system_tokens=values["system"],
        prompt_tokens=values["prompt"],
        output_tokens=values["output"],
        calls_per_user_per_day=values["calls"],
        users=values["users"],
        agent_multiplier=values["agent"],
    )
    cost = usage_cost(usage)
    saving = fine_tuning_saves(usage, FineTuned(system_tokens=values["tuned"], training_cost=values["training"]))
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
        *_gpu_lines(usage, values),
    ]
    if text:
        lines += [Content(""), *_granularity_lines(text, counts)]
    return Content("\n").join(lines)


def _line(name: str, number: str, style: str = "bold") -> Content:
    return Content.assemble(left(name, 24), right(number, 16, style))


def _days(days: float | None) -> str:
    return "never" if days is None else f"in {days:,.1f} days"


def _gpu_lines(usage: Usage, values: dict[str, int]) -> list[Content]:
    gpu = OwnGpu(values["gpu"] / 100, values["prefill"], values["decode"])
    try:
        even = break_even(usage, gpu)
    except WorkbenchError as error:
        return [Content.styled(error.message, "$muted")]
    cheaper = ("cheaper", "$good") if even.owning_is_cheaper else ("dearer", "")
    return [
        _line("GPUs needed", f"{even.gpus:,}"),
        _line("a year", f"${even.cost_per_year:,.0f}"),
        _line("than paying per token", *cheaper),
        _line("breaks even at", "never" if even.users is None else f"{even.users:,.0f} users"),
    ]


def _granularity_lines(text: str, counts: list[dict[str, Any]]) -> list[Content]:
    words = text.split()
    levels = [
        ("bytes", 256, len(text.encode("utf-8", "replace"))),
        ("characters", len(set(text)), len(text)),
        ("words", len(set(words)), len(words)),
        *((str(count["model"]), count["vocab_size"], count["tokens"]) for count in counts),
    ]
    heads = (right("vocabulary", 11, "$muted"), right("length", 10, "$muted"), right("n² pairs", 10, "$muted"))
    lines = [Content.assemble(left("VOCABULARY OR LENGTH", 20, "bold $muted"), *heads)]
    for name, vocabulary, length in levels:
        pairs = format_count(length * (length + 1) // 2)
        numbers = (right(format_count(vocabulary), 11), right(f"{length:,}", 10, "bold"), right(pairs, 10))
        lines.append(Content.assemble(left(name, 20), *numbers))
    return lines
