"""Which way a loaded model decodes fastest, found by a few tokens of each. Needs torch and transformers."""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable

from workbench.chat.fixed_steps import GRAPH, GROWING, Decoding, FixedSteps, refusal
from workbench.chat.kv_cache import cached_length, crop
from workbench.chat.model_facts import misfit, optimized_for_decode
from workbench.errors import JobCancelled
from workbench.job import SILENT, Job
from workbench.models.load import LoadedModel
from workbench.models.memory import release_memory
from workbench.text import one_line

PROMPT_TOKENS = 32
WARM_UP_STEPS = 4
STEPS = 16
WORTH_WITHIN = 64
"""A way that pays for its preparation only after more tokens than this is not taken."""
MOST_DIFFERENCE = 0.1
"""Between two ways, by the logits' standard deviation: rounding in 16 bits makes less, a wrong cache far more."""


@dataclass(frozen=True)
class Trial:
    """What a few tokens by one way took.

    Attributes:
        way: `GROWING`, `FIXED` or `GRAPH`.
        step_seconds: median of its passes, choosing the token included.
        prepare_seconds: once for each answer.
        refused: why it cannot be taken, or empty.
    """

    way: str
    step_seconds: float = 0.0
    prepare_seconds: float = 0.0
    refused: str = ""


def choose(growing: Trial, other: Trial) -> Decoding:
    """The faster of two ways, the growing cache where the other does not soon pay for its preparation."""
    plain = f"{1000 * growing.step_seconds:.1f} ms a token pass by pass"
    if other.refused:
        return Decoding(told=f"{plain}; no CUDA graph: {other.refused}")
    against = f"{1000 * other.step_seconds:.1f} ms as a CUDA graph"
    gained = growing.step_seconds - other.step_seconds
    if gained <= 0 or other.prepare_seconds > WORTH_WITHIN * gained:
        return Decoding(told=f"{plain}, not worth a CUDA graph: {against}")
    return Decoding(other.way, 1 + int(other.prepare_seconds / gained), f"{against}, {plain}")


def settle(loaded: LoadedModel, way: str = GRAPH, job: Job = SILENT) -> Decoding:
    """Find the fastest way to decode on this device by a few tokens of each.

    `way` is taken only if its logits agree with those of the growing cache and where it soon pays for its preparation.
    Without a GPU a graph is not to be had, and nothing is measured for it.

    Raises:
        JobCancelled: stopped.
    """
    if misfit(loaded) or (way == GRAPH and not loaded.facts.device.startswith("cuda")):
        return Decoding()
    try:
        found = _measured(way, loaded, job)
    except JobCancelled:
        raise
    except Exception as error:  # too little memory for a few tokens: the answer itself will tell
        traceback.clear_frames(error.__traceback__)
        found = Decoding()
    release_memory()
    return found


def _measured(way: str, loaded: LoadedModel, job: Job) -> Decoding:
    import torch

    model, device = loaded.model, loaded.facts.device
    rows = model.get_input_embeddings().weight.shape[0]
    ids = [(7919 * n) % rows for n in range(PROMPT_TOKENS + STEPS)]
    job.progress("warm-up", 0)
    with torch.inference_mode(), optimized_for_decode(model):
        cache = model(input_ids=torch.tensor([ids[:PROMPT_TOKENS]], device=device), use_cache=True).past_key_values
        if cached_length(cache) != PROMPT_TOKENS:
            return Decoding()

        def grow(token_id: int) -> Any:
            step = torch.tensor([[token_id]], device=device)
            return model(input_ids=step, past_key_values=cache, use_cache=True, return_dict=True).logits[0]

        timed(grow, ids[-WARM_UP_STEPS:])
        crop(cache, PROMPT_TOKENS, PROMPT_TOKENS + WARM_UP_STEPS)
        step_seconds, expected = timed(grow, ids[PROMPT_TOKENS:])
        job.check()
        crop(cache, PROMPT_TOKENS, len(ids))
        return choose(Trial(GROWING, step_seconds), _tried(way, loaded, cache, ids[PROMPT_TOKENS:], expected))


def _tried(way: str, loaded: LoadedModel, cache: Any, ids: Sequence[int], expected: Sequence[Any]) -> Trial:
    """The same tokens by another way."""
    refused = refusal(loaded, cache)
    if refused:
        return Trial(way, refused=refused)
    try:
        FixedSteps(loaded.model, cache, len(ids), way == GRAPH).finish()  # what libraries do but once
        begun = time.perf_counter()
        fixed = FixedSteps(loaded.model, cache, len(ids), way == GRAPH)
        prepare_seconds = time.perf_counter() - begun
        step_seconds, rows = timed(fixed.step, ids)
    except Exception as error:  # an operation that cannot be captured, or too little memory
        traceback.clear_frames(error.__traceback__)
        return Trial(way, refused=f"{type(error).__name__}: {one_line(str(error), 80)}")
    if not difference(expected, rows) < MOST_DIFFERENCE:
        return Trial(way, refused="its logits differ")
    return Trial(way, step_seconds, prepare_seconds)


def timed(step: Callable[[int], Any], ids: Sequence[int]) -> tuple[float, list[Any]]:
    """Median seconds of passes that each wait for their token, as decoding does, and their logits on the CPU."""
    seconds, rows = [], []
    for token_id in ids:
        begun = time.perf_counter()
        logits = step(token_id)[-1]
        logits.argmax().item()
        seconds.append(time.perf_counter() - begun)
        rows.append(logits.float().cpu())
    return statistics.median(seconds), rows


def difference(rows: Sequence[Any], others: Sequence[Any]) -> float:
    """Root mean square of what two ways' logits differ by, as a share of how the logits spread."""
    import torch

    left, right = (torch.stack(list(part)) for part in (rows, others))
    return float((left - right).square().mean().sqrt() / left.std())
