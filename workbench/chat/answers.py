"""An answer, its tokens and what it took. Stdlib only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from workbench.errors import WorkbenchError


@dataclass(frozen=True)
class Alternative:
    """A token that could have stood here, with the natural logarithm of its probability."""

    id: int
    text: str
    logprob: float


@dataclass(frozen=True)
class TokenStep:
    """One token of an answer, sent as soon as it is chosen.

    Attributes:
        id: the token.
        text: the text that became complete with it; may be empty, and may belong to earlier tokens.
        logprob: natural logarithm of the token's probability in the model's own distribution, before any filter;
            None for a token that was given.
        entropy_bits: of that distribution, if alternatives were asked for.
        alternatives: the most probable tokens of that distribution, if asked for.
        given: whether the answer was told to begin with this token.
        alone: the token by itself where no text became complete with it: an end token, or bytes as ``<0xE2>``.
    """

    id: int
    text: str
    logprob: Optional[float]
    entropy_bits: Optional[float] = None
    alternatives: tuple[Alternative, ...] = ()
    given: bool = False
    alone: str = ""


@dataclass(frozen=True)
class MemoryUse:
    """Memory at the end of an answer; None where it is not known, as of a server.

    Attributes:
        weights_bytes: parameters, buffers, quantization state.
        kv_cache_bytes: what the kept KV cache occupies.
        peak_bytes: highest allocation on the device during this answer; on the CPU the process' highest
            resident size so far.
        peak_of: ``device`` or ``process``, saying which of the two it is; ``server`` where a server answered, which
            tells none of this.
        kv_cache_tokens: how many tokens the KV cache holds: one less than prompt and answer have, for what is chosen
            last has not run through the model, but as many where the answer was stopped behind that run.
    """

    weights_bytes: Optional[int]
    kv_cache_bytes: Optional[int]
    peak_bytes: Optional[int]
    peak_of: str
    kv_cache_tokens: Optional[int] = None


@dataclass(frozen=True)
class GenerationResult:
    """An answer and what it took.

    Attributes:
        text: without end token and stop string.
        ids: every token of the answer, those given and the end token included.
        finish_reason: ``stop`` (end token or stop string), ``length``, ``cancelled`` or ``failed``.
        stopped_by: ``end-token``, ``stop-string``, ``max-new-tokens``, ``context``, ``cancelled`` or ``failed``.
        prompt_tokens: length of the prompt; None where a server does not tell.
        new_tokens: tokens chosen now.
        given_tokens: tokens that the answer was told to begin with.
        reused_tokens: tokens of the prompt that were still in the KV cache; None where a server does not tell.
        time_to_first_token_seconds: from the call to the first chosen token; 0 if there is none.
        tokens_per_second: of decoding: tokens after the first, by the time since the first; 0 below two tokens.
        prefill_seconds: time spent on the part of the prompt that was not in the cache.
        decode_seconds: from the first to the last token.
        seed: the random seed used; meaningless if `greedy`, None where a server drew its own.
        greedy: whether no chance was involved.
        method: ``own`` for this loop, ``graph`` where it replayed a CUDA graph, ``generate`` for the fallback,
            ``server`` where a server answered.
        guessed_tokens: tokens that prompt lookup guessed rightly, each a forward pass saved.
        note: why the fallback was used, what a server left undone, or empty.
        memory: see `MemoryUse`.
    """

    text: str
    ids: list[int]
    finish_reason: str
    stopped_by: str
    prompt_tokens: Optional[int]
    new_tokens: int
    given_tokens: int
    reused_tokens: Optional[int]
    time_to_first_token_seconds: float
    tokens_per_second: float
    prefill_seconds: float
    decode_seconds: float
    seed: Optional[int]
    greedy: bool
    method: str
    guessed_tokens: int
    note: str
    memory: MemoryUse


class GenerationFailed(WorkbenchError):
    """A failure in the middle of an answer; `partial` is what was there by then."""

    def __init__(self, error: WorkbenchError, partial: GenerationResult) -> None:
        super().__init__(error.kind, error.message, error.remedy, error.details)
        self.partial = partial
