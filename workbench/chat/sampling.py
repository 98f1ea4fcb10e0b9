"""How the next token is chosen from a model's logits. Needs torch.

The filters, their formulas and their order are those of ``transformers.generation``: repetition penalty and
no-repeat n-grams first (also for greedy decoding), then temperature, top-k, top-p and min-p. The work is
ordered otherwise: top-k comes first, so that softmax, sorting and sums run over k values and not over the
vocabulary.
"""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from workbench.chat.options import SamplingOptions

# Values next to the k-th that may tie with it and then stay, as in TopKLogitsWarper.
_TIE_MARGIN = 32
# Beyond this many candidates a mask over the vocabulary is as fast as picking them out.
_MAX_PICKED = 1024
_RESOLUTION = 2**23


@dataclass(frozen=True)
class Choice:
    """One chosen token, under the model's own distribution before any filter.

    Attributes:
        id: the token.
        logprob: natural logarithm of its probability.
        alternatives: the most probable ids with their log-probabilities, best first.
        entropy_bits: of the distribution; None unless alternatives are asked for.
        finite: False if the logits held a NaN or an infinity; nothing was chosen then.
    """

    id: int
    logprob: float
    alternatives: tuple[tuple[int, float], ...] = ()
    entropy_bits: Optional[float] = None
    finite: bool = True


class Sampler:
    """Chooses tokens for one answer; holds its random state and what the penalties must remember.

    Args:
        options: valid `SamplingOptions`.
        prompt_ids: the context; penalties count it, as transformers does.
        alternatives: how many of the most probable tokens to report with each choice.
    """

    def __init__(self, options: SamplingOptions, prompt_ids: Sequence[int], alternatives: int = 0) -> None:
        self.seed = secrets.randbits(32) if options.seed is None else options.seed
        self._options = options
        self._alternatives = alternatives
        self._random = random.Random(self.seed)
        self._seen: set[int] = set()
        self._newly_seen: list[int] = []
        self._seen_tensor: Any = None
        self._ngrams = _NGrams(options.no_repeat_ngram_size) if options.no_repeat_ngram_size else None
        for token_id in prompt_ids:
            self.accept(token_id)

    def accept(self, token_id: int) -> None:
        """Take note that `token_id` is now part of the context."""
        if self._options.repetition_penalty != 1.0 and token_id not in self._seen:
            self._seen.add(token_id)
            self._newly_seen.append(token_id)
        if self._ngrams is not None:
            self._ngrams.accept(token_id)

    def choose(self, logits: Any) -> Choice:
        """Choose a token; one transfer from the device in all but the rarest cases.

        Args:
            logits: shape [vocabulary], any floating dtype.
        """
        import torch

        raw = logits.float()
        scores = self._penalize(raw)
        if self._options.is_greedy:
            chosen = scores.argmax()
        else:
            probabilities, ids = self.distribution(raw, scores)
            cumulative = probabilities.cumsum(0)
            # 23 bits, so that the product is below the sum in float32 too.
            point = self._random.randrange(_RESOLUTION) / _RESOLUTION
            index = torch.searchsorted(cumulative, cumulative[-1:] * point, right=True)
            chosen = index[0] if ids is None else ids[index[0].clamp(max=ids.shape[0] - 1)]
            chosen = chosen.clamp(max=raw.shape[0] - 1)
        norm = raw.logsumexp(0)
        parts = [chosen.double().reshape(1), raw[chosen].double().reshape(1), norm.double().reshape(1)]
        count = min(self._alternatives, raw.shape[0])
        if count:
            best = raw.topk(count)
            parts += [best.values.double(), best.indices.double(), entropy_bits(raw, norm).double().reshape(1)]
        token_id, value, total, *rest = torch.cat(parts).tolist()
        if not math.isfinite(total):
            return Choice(-1, math.nan, finite=False)
        alternatives = tuple((int(rest[count + n]), rest[n] - total) for n in range(count))
        return Choice(int(token_id), value - total, alternatives, rest[-1] if count else None)

    def distribution(self, raw: Any, scores: Any = None) -> tuple[Any, Any]:
        """The distribution that is sampled from.

        Args:
            raw: logits, shape [vocabulary], float32.
            scores: the same after `_penalize`, if that was done already.

        Returns:
            Probabilities, and the ids they belong to, or None if they cover the vocabulary in its order.
        """
        options = self._options
        scores = self._penalize(raw) if scores is None else scores
        if options.temperature != 1.0:
            scores = scores / options.temperature
        size = scores.shape[0]
        if 0 < options.top_k < size:
            picked = self._pick(scores, min(options.top_k, size))
            if picked is not None:
                values, ids = picked
                return self._nucleus(values).softmax(0), ids
            scores = scores.masked_fill(scores < scores.topk(options.top_k).values[-1], -math.inf)
        if options.top_p < 1.0:
            values, ids = scores.sort(descending=True)
            return self._nucleus(values).softmax(0), ids
        return self._min_p(scores).softmax(0), None

    def _penalize(self, raw: Any) -> Any:
        """Repetition penalty and banned n-grams, as in transformers' processors of these names."""
        import torch

        options = self._options
        scores = raw
        if self._seen:
            index = self._seen_index(raw)
            seen = raw[index]
            penalty = options.repetition_penalty
            scores = raw.index_put((index,), torch.where(seen < 0, seen * penalty, seen / penalty))
        banned = self._ngrams.banned() if self._ngrams is not None else ()
        if banned:
            index = torch.tensor([item for item in banned if item < raw.shape[0]], device=raw.device)
            scores = scores.index_fill(0, index.long(), -math.inf)
        return scores

    def _seen_index(self, raw: Any) -> Any:
        import torch

        if self._newly_seen:
            # An embedding may have more rows than the head has outputs; such ids cannot be penalised.
            known = [token_id for token_id in self._newly_seen if token_id < raw.shape[0]]
            new = torch.tensor(known, dtype=torch.long, device=raw.device)
            self._seen_tensor = new if self._seen_tensor is None else torch.cat((self._seen_tensor, new))
            self._newly_seen.clear()
        return self._seen_tensor

    def _pick(self, scores: Any, top_k: int) -> Any:
        """The top-k values and ids in descending order, tokens that tie with the k-th included.

        None if there are too many candidates to pick them out.
        """
        count = min(top_k + _TIE_MARGIN, scores.shape[0])
        if count > _MAX_PICKED:
            return None
        values, ids = scores.topk(count)
        threshold = values[top_k - 1]
        if count < scores.shape[0] and bool(values[-1] >= threshold):
            return None
        return values.masked_fill(values < threshold, -math.inf), ids

    def _nucleus(self, values: Any) -> Any:
        """Top-p and min-p over values in descending order."""
        top_p = self._options.top_p
        if top_p < 1.0:
            # Summed from the smallest, as TopPLogitsWarper does, so that rounding falls the same way.
            below = values.softmax(0).flip(0).cumsum(0).flip(0)
            remove = below <= 1 - top_p
            remove[0] = False
            values = values.masked_fill(remove, -math.inf)
        return self._min_p(values)

    def _min_p(self, values: Any) -> Any:
        if not self._options.min_p:
            return values
        probabilities = values.softmax(0)
        return values.masked_fill(probabilities < self._options.min_p * probabilities.amax(), -math.inf)


def entropy_bits(logits: Any, norm: Any = None) -> Any:
    """Shannon entropy in bits of the distributions that `logits` stand for, over the last dimension.

    Args:
        logits: float32, shape [..., vocabulary]; minus infinity has probability zero.
        norm: their ``logsumexp`` over the last dimension, if known.
    """
    norm = logits.logsumexp(-1) if norm is None else norm
    # H = log Z - sum p x; a token of probability zero adds nothing, while 0 times infinity would be no number.
    terms = (logits - norm[..., None]).exp() * logits.clamp(min=-1e30)
    return (norm - terms.sum(-1)) / math.log(2)


class _NGrams:
    """Which tokens would complete a run of n tokens that was there before."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._tail: list[int] = []
        self._followers: dict[tuple[int, ...], dict[int, None]] = {}

    def accept(self, token_id: int) -> None:
        self._tail.append(token_id)
        if len(self._tail) >= self._size:
            prefix = tuple(self._tail[-self._size : -1])
            self._followers.setdefault(prefix, {})[token_id] = None
        if len(self._tail) >= self._size:
            del self._tail[: len(self._tail) - self._size + 1]

    def banned(self) -> Sequence[int]:
        if len(self._tail) < self._size - 1:
            return ()
        return tuple(self._followers.get(tuple(self._tail), ()))
