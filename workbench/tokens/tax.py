"""What tokens cost over a year of use, and what would make them cheaper. Stdlib only.

Every figure is arithmetic on what the user states; prices are theirs, none is built in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from workbench.errors import WorkbenchError
from workbench.tokens.count import text_figures
from workbench.tokens.tokenizer import TextTokenizer

DAYS_PER_YEAR = 365


@dataclass(frozen=True)
class Usage:
    """How a model is used through a paid interface. Prices in any one currency."""

    price_in: float
    """Of a million input tokens."""
    price_out: float
    """Of a million output tokens."""
    system_tokens: int
    """Instructions, examples and tool descriptions repeated with each call."""
    prompt_tokens: int
    """What the user's request adds."""
    output_tokens: int
    calls_per_user_per_day: float
    users: int
    agent_multiplier: float = 1.0
    """Model calls behind one call of the user: an agent's steps."""
    price_cached_in: Optional[float] = None
    """Of a million input tokens that the provider keeps (the system prompt); None: full price each time."""


@dataclass(frozen=True)
class FineTuned:
    """A model that was trained to do without the instructions."""

    system_tokens: int = 0
    price_in: Optional[float] = None
    """None: as before."""
    price_out: Optional[float] = None
    training_cost: float = 0.0
    """Once."""


@dataclass(frozen=True)
class OwnGpu:
    """Machines of one's own, rented or bought."""

    cost_per_hour: float
    """Of one GPU, with everything around it."""
    prefill_tokens_per_second: float
    """Of one GPU under load."""
    decode_tokens_per_second: float
    """Of one GPU under load, all requests together."""
    hours_per_day: float = 24.0
    utilisation: float = 0.5
    """Share of the time that requests can be spread over; users do not come evenly."""


@dataclass(frozen=True)
class Cost:
    """Costs in the currency of the prices."""

    call: float
    """Of one call of a user, all of an agent's steps together."""
    day: float
    year: float
    input_tokens_per_day: int
    output_tokens_per_day: int
    system_share: float
    """Share of the cost that the repeated system prompt has."""


@dataclass(frozen=True)
class Saving:
    """What a fine-tuned model would save."""

    cost: Cost
    saved_per_day: float
    saved_per_year: float
    saved_share: float
    pays_back_days: Optional[float]
    """Days until the training is earned back; None if it never is."""


@dataclass(frozen=True)
class BreakEven:
    """Owning GPUs against paying per token."""

    gpus: int
    """Needed for this use."""
    cost_per_day: float
    cost_per_year: float
    calls_per_day: float
    """User calls a day from which one GPU is cheaper; 0.0 where a call costs nothing."""
    capacity_calls_per_day: float
    """User calls that one GPU can serve."""
    owning_is_cheaper: bool
    users: Optional[float]
    """Users from which one is cheaper, at the stated calls of each; None if no number of users is."""


@dataclass(frozen=True)
class Granularity:
    """One way to cut the same text: the finer, the smaller the vocabulary and the longer the sequence."""

    level: str
    """``bytes``, ``characters``, ``words`` or the name of a tokenizer."""
    vocabulary: int
    """Of bytes 256; of characters and words those that occur in the text (a real one is far larger); of a tokenizer its
    own."""
    length: int
    """Sequence length."""
    attention_pairs: int
    """Pairs of positions that causal attention looks at: n(n+1)/2."""
    embedding_parameters: int
    """Vocabulary times hidden size."""


def usage_cost(usage: Usage) -> Cost:
    """What the stated use costs.

    Raises:
        WorkbenchError: ``bad-usage`` for a negative or absurd number.
    """
    _require(usage)
    calls = usage.calls_per_user_per_day * usage.users
    steps = usage.agent_multiplier
    kept = usage.price_in if usage.price_cached_in is None else usage.price_cached_in
    system = usage.system_tokens * kept / 1e6 * steps
    rest = (usage.prompt_tokens * usage.price_in + usage.output_tokens * usage.price_out) / 1e6 * steps
    call = system + rest
    return Cost(
        call=call,
        day=call * calls,
        year=call * calls * DAYS_PER_YEAR,
        input_tokens_per_day=round((usage.system_tokens + usage.prompt_tokens) * steps * calls),
        output_tokens_per_day=round(usage.output_tokens * steps * calls),
        system_share=system / call if call else 0.0,
    )


def fine_tuning_saves(usage: Usage, tuned: FineTuned) -> Saving:
    """What the same use costs with a model that needs no instructions, and when its training is earned back.

    Raises:
        WorkbenchError: ``bad-usage``.
    """
    _require(tuned)
    before = usage_cost(usage)
    after = usage_cost(
        Usage(
            price_in=usage.price_in if tuned.price_in is None else tuned.price_in,
            price_out=usage.price_out if tuned.price_out is None else tuned.price_out,
            system_tokens=tuned.system_tokens,
            prompt_tokens=usage.prompt_tokens,
            output_tokens=usage.output_tokens,
            calls_per_user_per_day=usage.calls_per_user_per_day,
            users=usage.users,
            agent_multiplier=usage.agent_multiplier,
            # A price for kept tokens belongs to the price of the model it was stated with.
            price_cached_in=usage.price_cached_in if tuned.price_in is None else None,
        )
    )
    saved = before.day - after.day
    return Saving(
        cost=after,
        saved_per_day=saved,
        saved_per_year=saved * DAYS_PER_YEAR,
        saved_share=saved / before.day if before.day else 0.0,
        pays_back_days=tuned.training_cost / saved if saved > 0 else None,
    )


def break_even(usage: Usage, gpu: OwnGpu) -> BreakEven:
    """Where owning GPUs becomes cheaper than the stated prices.

    A call occupies a GPU for its input tokens at the prefill rate and its output tokens at the decode rate.

    Raises:
        WorkbenchError: ``bad-usage``.
    """
    _require(gpu)
    cost = usage_cost(usage)
    if not (gpu.prefill_tokens_per_second > 0 and gpu.decode_tokens_per_second > 0 and gpu.utilisation > 0):
        raise _bad_usage("the rates of the GPU")
    inputs = (usage.system_tokens + usage.prompt_tokens) * usage.agent_multiplier
    seconds = (
        inputs / gpu.prefill_tokens_per_second
        + usage.output_tokens * usage.agent_multiplier / gpu.decode_tokens_per_second
    )
    if seconds <= 0:
        raise _bad_usage("the tokens of a call")
    capacity = gpu.hours_per_day * 3600 * gpu.utilisation / seconds
    calls = usage.calls_per_user_per_day * usage.users
    gpus = max(1, math.ceil(calls / capacity)) if capacity else 1
    per_gpu = gpu.cost_per_hour * gpu.hours_per_day
    calls_to_even = per_gpu / cost.call if cost.call else 0.0
    possible = 0 < calls_to_even <= capacity and usage.calls_per_user_per_day > 0
    return BreakEven(
        gpus=gpus,
        cost_per_day=per_gpu * gpus,
        cost_per_year=per_gpu * gpus * DAYS_PER_YEAR,
        calls_per_day=calls_to_even,
        capacity_calls_per_day=capacity,
        owning_is_cheaper=per_gpu * gpus < cost.day and calls <= capacity * gpus,
        users=calls_to_even / usage.calls_per_user_per_day if possible else None,
    )


def granularities(text: str, tokenizers: Sequence[TextTokenizer], hidden_size: int = 4096) -> list[Granularity]:
    """The same text as bytes, characters, words and under each tokenizer.

    Args:
        text: any.
        tokenizers: in the order in which they shall come.
        hidden_size: of the model, for the size of the embedding.

    Raises:
        WorkbenchError: ``bad-text`` for a lone surrogate.
    """
    figures = text_figures(text)
    levels = [
        ("bytes", 256, figures.bytes),
        ("characters", len(set(text)), figures.characters),
        ("words", len(set(text.split())), figures.words),
        *((tokenizer.name, tokenizer.vocab_size, len(tokenizer.encode(text))) for tokenizer in tokenizers),
    ]
    return [
        Granularity(level, vocabulary, length, length * (length + 1) // 2, vocabulary * hidden_size)
        for level, vocabulary, length in levels
    ]


def _require(stated: object) -> None:
    for name, value in vars(stated).items():
        if value is not None and not 0 <= value < 1e15:  # NaN compares false
            raise _bad_usage(name.replace("_", " "))


def _bad_usage(what: str) -> WorkbenchError:
    return WorkbenchError("bad-usage", f"Nothing can be computed from {what} as stated.", "Give numbers from zero up.")
