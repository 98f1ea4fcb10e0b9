"""The same answer through ``model.generate``, for classes that the own loop does not fit. Needs torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Callable

from workbench.chat.sampling import Choice, Sampler
from workbench.job import Job


def generate_by_library(
    model: Any, ids: Sequence[int], limit: int, sampler: Sampler, take: Callable[[Choice], bool], job: Job
) -> None:
    """Let ``generate`` run the model; tokens are chosen by our sampler inside of it.

    Args:
        model: a transformers model.
        ids: what it sees first.
        limit: the most tokens to make.
        sampler: chooses each token.
        take: books one chosen token; returns whether the answer ends with it.
        job: cancelling.
    """
    import torch
    import transformers

    ended = False

    class Choose(transformers.LogitsProcessor):  # type: ignore[misc]
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            nonlocal ended
            choice = sampler.choose(scores[0])
            ended = take(choice)
            forced = torch.full_like(scores, -math.inf)
            forced[0, choice.id] = 0.0
            return forced

    class Stop(transformers.StoppingCriteria):  # type: ignore[misc]
        def __call__(self, input_ids: Any, scores: Any, **_keywords: Any) -> Any:
            job.check()
            return torch.full((input_ids.shape[0],), ended, device=input_ids.device)

    job.check()
    prompt = torch.tensor([list(ids)], device=model.device)
    model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        generation_config=_neutral_config(model, limit),
        logits_processor=transformers.LogitsProcessorList([Choose()]),
        stopping_criteria=transformers.StoppingCriteriaList([Stop()]),
    )


def _neutral_config(model: Any, limit: int) -> Any:
    """A greedy generation config with the model's token ids and none of its sampling settings."""
    import transformers

    source = model.generation_config
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id")
    kept = {name: value for name in names if (value := getattr(source, name, None)) is not None}
    return transformers.GenerationConfig(max_new_tokens=limit, do_sample=False, num_beams=1, use_cache=True, **kept)
