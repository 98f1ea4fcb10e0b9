"""Reading a text with the model: how probable each of its tokens was, and what else could have stood there.

Needs torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from workbench.chat.answer_text import token_text
from workbench.chat.answers import Alternative, TokenStep
from workbench.chat.generate import Generator
from workbench.chat.sampling import entropy_bits
from workbench.job import SILENT, Job
from workbench.tokens.tokenizer import TextTokenizer

BLOCK = 64
"""Positions read at once: their float32 copies are vocabulary × this × 4 bytes each."""


def score_tokens(
    generator: Generator,
    tokenizer: TextTokenizer,
    prompt_ids: Sequence[int],
    answer_ids: Sequence[int],
    alternatives: int,
    job: Job = SILENT,
) -> list[TokenStep]:
    """The answer's tokens as if the model had just chosen them, one forward pass for all.

    Raises:
        WorkbenchError: as `Generator.position_logits`.
    """
    import torch

    ids = [*prompt_ids, *answer_ids]
    decoder = tokenizer.stream_decoder(skip_special_tokens=True)
    steps: list[TokenStep] = []
    # The logits at a position tell what comes after it, so the last token's own are of no use.
    for first, logits in generator.position_logits(ids[:-1], len(prompt_ids) - 1, job):
        for block in logits.split(BLOCK):
            following = ids[first + 1 : first + 1 + block.shape[0]]
            first += block.shape[0]
            for token_id, logprob, entropy, others in _read(block.float(), torch.tensor(following), alternatives):
                named = tuple(Alternative(item, token_text(tokenizer, item), value) for item, value in others)
                text = decoder.push(token_id)
                alone = "" if text else token_text(tokenizer, token_id)
                steps.append(TokenStep(token_id, text, logprob, entropy, named, alone=alone))
    return steps


def _read(raw: Any, following: Any, count: int) -> Iterator[tuple[int, float, float, list[tuple[int, float]]]]:
    """Each token that follows, its log-probability, the entropy there, and the most probable tokens."""
    norm = raw.logsumexp(-1)
    best = raw.topk(min(count, raw.shape[1]))
    chosen = raw.gather(1, following.to(raw.device)[:, None])[:, 0] - norm
    values, indices = (best.values - norm[:, None]).tolist(), best.indices.tolist()
    rows = zip(following.tolist(), chosen.tolist(), entropy_bits(raw, norm).tolist(), indices, values)
    for token_id, logprob, entropy, ids, logprobs in rows:
        yield token_id, logprob, entropy, list(zip(ids, logprobs))
