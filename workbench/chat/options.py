"""The sampling options: what they mean, their bounds, and what a model's own config says. Stdlib only."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Optional

from workbench.errors import WorkbenchError


@dataclass(frozen=True)
class SamplingOptions:
    """How to choose tokens and when to stop.

    Attributes:
        temperature: divides the logits; 0 is greedy.
        top_p: keep the most probable tokens whose probabilities add up to this; 1 keeps all.
        top_k: keep this many of the most probable tokens; 0 keeps all.
        min_p: drop tokens less probable than this share of the most probable one; 0 keeps all.
        repetition_penalty: divides the positive and multiplies the negative logits of tokens already in the
            context; 1 changes nothing.
        no_repeat_ngram_size: never repeat a run of this many tokens; 0 allows it.
        max_new_tokens: stop after this many.
        stop: strings that end the answer; they are not part of it.
        seed: the same seed gives the same text; None draws one, which the result names.
        greedy: always take the most probable token.
        prompt_lookup: guess this many tokens at once from what was said before, and keep those that would have been
            chosen; 0 guesses nothing. It saves time where text is copied or edited. Passes of several tokens
            round otherwise than passes of one, so below float32 a rare near-tie may fall the other way.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 50
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    max_new_tokens: int = 512
    stop: tuple[str, ...] = ()
    seed: Optional[int] = None
    greedy: bool = False
    prompt_lookup: int = 0

    @property
    def is_greedy(self) -> bool:
        """Whether no chance is involved."""
        return self.greedy or self.temperature == 0

    def validate(self) -> None:
        """Raise `WorkbenchError` ``bad-option`` for the first value out of range."""
        _number("temperature", self.temperature, 0, 100)
        _number("top-p", self.top_p, 0, 1, excluded_low=True)
        _number("min-p", self.min_p, 0, 1)
        _number("repetition-penalty", self.repetition_penalty, 0, 100, excluded_low=True)
        _integer("top-k", self.top_k, 0, 10**7)
        _integer("no-repeat-ngram-size", self.no_repeat_ngram_size, 0, 10**6)
        _integer("max-new-tokens", self.max_new_tokens, 1, 10**7)
        _integer("prompt-lookup", self.prompt_lookup, 0, 64)
        if self.seed is not None:
            _integer("seed", self.seed, 0, 2**63 - 1)
        if len(self.stop) > 64 or any(not isinstance(item, str) or not item for item in self.stop):
            raise WorkbenchError(
                "bad-option", "Stop strings must be at most 64 texts, none empty.", "Correct the stop strings."
            )


@dataclass(frozen=True)
class SamplingField:
    """One option for an editor: what it does and what values it takes; None where there is no bound."""

    name: str
    line: str
    low: Optional[float]
    high: Optional[float]


SAMPLING_FIELDS = (
    SamplingField("temperature", "Below 1 sharpens, above 1 flattens the distribution; 0 is greedy.", 0, 100),
    SamplingField("top_p", "Keeps the most probable tokens that together have this probability; 1 keeps all.", 0, 1),
    SamplingField("top_k", "Keeps this many of the most probable tokens; 0 keeps all.", 0, 10**7),
    SamplingField("min_p", "Drops tokens below this share of the most probable one; 0 keeps all.", 0, 1),
    SamplingField("repetition_penalty", "Above 1 makes tokens that are in the context already less likely.", 0, 100),
    SamplingField("no_repeat_ngram_size", "Never repeats a run of this many tokens; 0 allows it.", 0, 10**6),
    SamplingField("max_new_tokens", "Ends the answer after this many tokens.", 1, 10**7),
    SamplingField("stop", "Texts that end the answer; they are not part of it.", None, None),
    SamplingField("seed", "The same seed gives the same text; none draws a new one.", 0, 2**63 - 1),
    SamplingField("greedy", "Always takes the most probable token.", None, None),
    SamplingField("prompt_lookup", "Guesses this many tokens from what was said, to copy faster; 0 is off.", 0, 64),
)


def options_of(generation_config: Any) -> SamplingOptions:
    """What a model's own ``generation_config.json`` asks for, as options; unset values are neutral."""

    def value(name: str, neutral: Any) -> Any:
        found = getattr(generation_config, name, None)
        return neutral if found is None else found

    return SamplingOptions(
        temperature=float(value("temperature", 1.0)),
        top_p=float(value("top_p", 1.0)),
        top_k=int(value("top_k", 50)),  # transformers' default where the file says nothing
        min_p=float(value("min_p", 0.0)),
        repetition_penalty=float(value("repetition_penalty", 1.0)),
        no_repeat_ngram_size=int(value("no_repeat_ngram_size", 0)),
        greedy=not value("do_sample", False),
    )


def effective_options(given: dict[str, Any], generation_config: Any) -> SamplingOptions:
    """What the user gives, else what the model's own generation config says, else our defaults.

    Raises:
        WorkbenchError: ``bad-option`` for an option that does not exist.
    """
    known = {item.name for item in fields(SamplingOptions)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise WorkbenchError(
            "bad-option", f"There is no sampling option {unknown[0]!r:.60}.", f"Known: {', '.join(sorted(known))}."
        )
    own = stated_options(generation_config)
    own.pop("max_new_tokens", None)
    if own.get("greedy") and given.keys() & {"temperature", "top_p", "top_k"}:
        del own["greedy"]
    asked = dict(given)
    if isinstance(asked.get("stop"), list):
        asked["stop"] = tuple(asked["stop"])
    return replace(SamplingOptions(), **{**own, **asked})


def stated_options(generation_config: Any) -> dict[str, Any]:
    """The options that a model's generation config states; ``greedy`` if it says not to sample."""
    stated = options_of(generation_config)
    own = {
        item.name: getattr(stated, item.name)
        for item in fields(SamplingOptions)
        if getattr(generation_config, item.name, None) is not None
    }
    if getattr(generation_config, "do_sample", None) is False:
        own["greedy"] = True
    return own


def _number(name: str, value: Any, low: float, high: float, excluded_low: bool = False) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if number and low <= value <= high and not (excluded_low and value == low):
        return
    above = f"above {low:g}" if excluded_low else f"from {low:g}"
    raise WorkbenchError("bad-option", f"{name} is {value!r}.", f"It must be a number {above} to {high:g}.")


def _integer(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
        return
    raise WorkbenchError("bad-option", f"{name} is {value!r}.", f"It must be a whole number from {low} to {high}.")
