"""One token's distribution before and after each sampling filter: what each knob does. Needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Callable

from workbench.chat.options import SamplingOptions
from workbench.chat.sampling import Sampler, entropy_bits

_NEUTRAL = SamplingOptions(temperature=1.0, top_p=1.0, top_k=0)
_FILTERS = (
    ("repetition_penalty", "repetition penalty"),
    ("no_repeat_ngram_size", "no-repeat n-gram"),
    ("temperature", "temperature"),
    ("top_k", "top-k"),
    ("top_p", "top-p"),
    ("min_p", "min-p"),
)
"""In the order in which they act."""


@dataclass(frozen=True)
class FilterStage:
    """The distribution after a filter and all before it.

    Attributes:
        name: ``model`` for the model's own distribution, else the filter's.
        setting: its value; None for the model's own.
        kept: tokens with any probability left.
        entropy_bits: of the distribution.
    """

    name: str
    setting: Any
    kept: int
    entropy_bits: float


@dataclass(frozen=True)
class TokenChance:
    """A token and its probability after each stage, in the order of the stages."""

    id: int
    text: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Distribution:
    """What one token was, or will be, chosen from.

    Attributes:
        stages: the model's own distribution, then the filters that are on.
        tokens: the most probable ones of the model's own distribution, best first.
        greedy: whether the most probable token after the penalties is taken without any chance.
        vocab_size: how many tokens there are in all.
    """

    stages: tuple[FilterStage, ...]
    tokens: tuple[TokenChance, ...]
    greedy: bool
    vocab_size: int


def explain_distribution(
    logits: Any, options: SamplingOptions, context_ids: Sequence[int], count: int, text_of: Callable[[int], str]
) -> Distribution:
    """Apply the filters of `options` one by one.

    Args:
        logits: of the place looked at, float32, shape [vocabulary].
        options: valid ones.
        context_ids: all tokens before that place.
        count: how many tokens to follow through the stages.
        text_of: the text of one token.
    """
    best = logits.topk(min(count, logits.shape[0])).indices
    stages, columns = [], []
    for name, setting, upto in _cumulative(options):
        probabilities = _probabilities(Sampler(upto, context_ids), logits)
        kept = int((probabilities > 0).sum())
        stages.append(FilterStage(name, setting, kept, float(entropy_bits(probabilities.log()))))
        columns.append(probabilities[best].tolist())
    tokens = tuple(
        TokenChance(token_id, text_of(token_id), tuple(column[row] for column in columns))
        for row, token_id in enumerate(best.tolist())
    )
    return Distribution(tuple(stages), tokens, options.is_greedy, int(logits.shape[0]))


def _cumulative(options: SamplingOptions) -> list[tuple[str, Any, SamplingOptions]]:
    """Name and value of each filter that is on, with the options that have it and those before it."""
    upto = _NEUTRAL
    found: list[tuple[str, Any, SamplingOptions]] = [("model", None, upto)]
    for attribute, name in _FILTERS:
        value = getattr(options, attribute)
        chance_alone = attribute in ("temperature", "top_k", "top_p", "min_p")
        if value == getattr(_NEUTRAL, attribute) or (options.is_greedy and chance_alone):
            continue
        upto = replace(upto, **{attribute: value})
        found.append((name, value, upto))
    return found


def _probabilities(sampler: Sampler, logits: Any) -> Any:
    """The distribution sampled from, over the whole vocabulary."""
    import torch

    probabilities, ids = sampler.distribution(logits)
    return probabilities if ids is None else torch.zeros_like(logits).scatter(0, ids, probabilities)
