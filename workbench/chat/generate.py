"""The decode loop: streams an answer, keeps the KV cache between turns, stops within a token. Needs torch.

``model.generate`` is the reference it is tested against, and the fallback for classes it does not fit.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

from workbench.chat.sampling import Choice, Sampler, SamplingOptions
from workbench.errors import JobCancelled, WorkbenchError
from workbench.job import SILENT, Job
from workbench.models.load import LoadedModel
from workbench.models.memory import memory_shortage, release_memory
from workbench.text import format_bytes, one_line
from workbench.tokens.tokenizer import TextTokenizer

# Cancelling takes effect between two chunks; smaller ones cost more in sum (512: +3 %, 256: +12 %, 64: 2.7 times
# on a CPU). A GPU needs larger ones to be busy and runs them faster.
_CHUNK_CPU = 256
_CHUNK_ACCELERATOR = 1024
# An encoder reads a few times what it was trained on, T5's 512 tokens where its config does not say.
_ENCODER_STRETCH = 4
_ENCODER_LENGTH = 512


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
        logprob: of the token in the model's own distribution, before any filter.
        alternatives: the most probable tokens of that distribution, if asked for.
    """

    id: int
    text: str
    logprob: float
    alternatives: tuple[Alternative, ...] = ()


@dataclass(frozen=True)
class MemoryUse:
    """Memory at the end of an answer.

    Attributes:
        weights_bytes: parameters, buffers, quantization state.
        kv_cache_bytes: what the kept KV cache occupies.
        peak_bytes: highest allocation on the device during this answer; on the CPU the process' highest
            resident size so far.
        peak_of: ``device`` or ``process``, saying which of the two it is.
    """

    weights_bytes: int
    kv_cache_bytes: int
    peak_bytes: int
    peak_of: str


@dataclass(frozen=True)
class GenerationResult:
    """An answer and what it took.

    Attributes:
        text: without end token and stop string.
        ids: every token chosen, the end token included.
        finish_reason: ``stop`` (end token or stop string), ``length``, ``cancelled`` or ``failed``.
        stopped_by: ``end-token``, ``stop-string``, ``max-new-tokens``, ``context``, ``cancelled`` or ``failed``.
        prompt_tokens: length of the prompt.
        new_tokens: ``len(ids)``.
        reused_tokens: tokens of the prompt that were still in the KV cache.
        time_to_first_token_seconds: from the call to the first chosen token; 0 if there is none.
        tokens_per_second: of decoding: tokens after the first, by the time since the first; 0 below two tokens.
        prefill_seconds: time spent on the part of the prompt that was not in the cache.
        decode_seconds: from the first to the last token.
        seed: the random seed used; meaningless if `greedy`.
        greedy: whether no chance was involved.
        method: ``own`` for this loop, ``generate`` for the fallback.
        note: why the fallback was used, or empty.
        memory: see `MemoryUse`.
    """

    text: str
    ids: list[int]
    finish_reason: str
    stopped_by: str
    prompt_tokens: int
    new_tokens: int
    reused_tokens: int
    time_to_first_token_seconds: float
    tokens_per_second: float
    prefill_seconds: float
    decode_seconds: float
    seed: int
    greedy: bool
    method: str
    note: str
    memory: MemoryUse


class GenerationFailed(WorkbenchError):
    """A failure in the middle of an answer; `partial` is what was there by then."""

    def __init__(self, error: WorkbenchError, partial: GenerationResult) -> None:
        super().__init__(error.kind, error.message, error.remedy, error.details)
        self.partial = partial


@dataclass
class _Run:
    """The state of one answer."""

    prompt_ids: list[int]
    options: SamplingOptions
    sampler: Sampler
    text: _AnswerText
    on_token: Optional[Callable[[TokenStep], None]]
    end_ids: frozenset[int]
    limit: int
    stopped_at_limit: str
    started: float
    ids: list[int] = field(default_factory=list)
    reused: int = 0
    prefill_seconds: float = 0.0
    first_at: float = 0.0
    last_at: float = 0.0
    stopped_by: str = ""
    note: str = ""


class Generator:
    """Writes answers with one loaded model. Use it from one thread.

    Args:
        loaded: the model; after `unload` of it the generator is of no more use.
        tokenizer: turns the answer's ids into text.
        prefill_chunk: prompt tokens per forward pass; 0 chooses by device.
    """

    def __init__(self, loaded: LoadedModel, tokenizer: TextTokenizer, prefill_chunk: int = 0) -> None:
        if not loaded.supports_generation:
            raise WorkbenchError(
                "unsupported",
                f"{loaded.facts.class_name} in {loaded.directory} cannot generate text.",
                "Choose a causal language model.",
            )
        self._loaded = loaded
        self._tokenizer = tokenizer
        on_cpu = loaded.facts.device == "cpu"
        self._chunk = prefill_chunk or (_CHUNK_CPU if on_cpu else _CHUNK_ACCELERATOR)
        self._cache: Any = None
        self._cached_ids: list[int] = []
        self._misfit = _misfit(loaded)
        self._keywords = _forward_keywords(loaded.model)
        self.end_ids = _end_ids(loaded.model)

    @property
    def cached_tokens(self) -> int:
        """How many tokens the KV cache holds now."""
        return len(self._cached_ids)

    @property
    def context_length(self) -> Optional[int]:
        """The longest sequence the model's positions cover, or None if its config does not say."""
        return self._loaded.facts.context_length

    def reset(self) -> None:
        """Drop the KV cache, so that the next prompt is prefilled anew."""
        self._cache = None
        self._cached_ids = []

    def close(self) -> None:
        """Drop the KV cache and give its memory back."""
        self.reset()
        release_memory()

    def generate(
        self,
        prompt_ids: Sequence[int],
        options: SamplingOptions,
        job: Job = SILENT,
        on_token: Optional[Callable[[TokenStep], None]] = None,
        alternatives: int = 0,
        extra_end_ids: Sequence[int] = (),
        fresh: bool = False,
    ) -> GenerationResult:
        """Answer a prompt.

        A cancel is felt within one token, or one prefill chunk, and returns what is there with the finish
        reason ``cancelled``. The KV cache of the longest prefix shared with the previous call is used again;
        results with and without that can differ by rounding.

        Args:
            prompt_ids: the tokens the model sees, special tokens included.
            options: sampling and stopping.
            job: progress of the prefill in tokens; cancelling.
            on_token: called for every token as it is chosen.
            alternatives: how many of the most probable tokens each `TokenStep` names.
            extra_end_ids: tokens that end the answer besides those of the model's configuration.
            fresh: use nothing of the KV cache.

        Raises:
            WorkbenchError: ``bad-option``, ``bad-prompt``, ``prompt-too-long``, ``unsupported``.
            GenerationFailed: ``out-of-memory``, ``non-finite-logits`` or ``generation-failed``, with the
                partial answer.
        """
        options.validate()
        model = self._loaded.model
        if model is None:
            raise WorkbenchError("no-model", "The model was unloaded.", "Load it again.")
        run = self._start(list(prompt_ids), options, on_token, alternatives, extra_end_ids)
        if fresh:
            self.reset()
        failure: Optional[WorkbenchError] = None
        _reset_peak(self._loaded.facts.device)
        try:
            self._answer(model, run, job)
        except JobCancelled:
            run.stopped_by = "cancelled"
        except WorkbenchError as error:
            failure = WorkbenchError(error.kind, error.message, error.remedy, error.details)
        except Exception as error:
            failure = self._explain(error, run)
            # Its frames hold the activations of the failed step.
            traceback.clear_frames(error.__traceback__)
            error.__traceback__ = None
        if failure is None:
            return self._result(run)
        run.stopped_by = "failed"
        partial = self._result(run)
        self.reset()
        release_memory()
        raise GenerationFailed(failure, partial)

    def _start(
        self,
        prompt_ids: list[int],
        options: SamplingOptions,
        on_token: Optional[Callable[[TokenStep], None]],
        alternatives: int,
        extra_end_ids: Sequence[int],
    ) -> _Run:
        if not prompt_ids:
            raise WorkbenchError("bad-prompt", "The prompt is empty.", "Type something.")
        rows = self._loaded.model.get_input_embeddings().weight.shape[0]
        if not 0 <= min(prompt_ids) <= max(prompt_ids) < rows:
            raise WorkbenchError(
                "bad-prompt",
                f"The prompt holds token {max(prompt_ids)}, but the model's embedding has {rows} rows.",
                "Tokenizer and model do not belong together: load the tokenizer of this model.",
            )
        limit, stopped_at_limit = options.max_new_tokens, "max-new-tokens"
        length = self.context_length
        if self._loaded.facts.is_encoder_decoder:
            # Relative positions have no end, but the encoder's attention grows with the square of the prompt, all of
            # it in one pass that cannot be stopped.
            most = _ENCODER_STRETCH * (length or _ENCODER_LENGTH)
            if len(prompt_ids) > most:
                raise WorkbenchError(
                    "prompt-too-long",
                    f"The prompt has {len(prompt_ids):,} tokens; the encoder of this model takes {most:,} at most.",
                    "Shorten it.",
                )
        elif length is not None:
            if len(prompt_ids) >= length:
                raise WorkbenchError(
                    "prompt-too-long",
                    f"The prompt has {len(prompt_ids):,} tokens; the model's context is {length:,}.",
                    "Shorten it or drop earlier messages.",
                )
            if length - len(prompt_ids) < limit:
                limit, stopped_at_limit = length - len(prompt_ids), "context"
        return _Run(
            prompt_ids=prompt_ids,
            options=options,
            sampler=Sampler(options, prompt_ids, alternatives),
            text=_AnswerText(self._tokenizer, options.stop),
            on_token=on_token,
            end_ids=self.end_ids | frozenset(extra_end_ids),
            limit=limit,
            stopped_at_limit=stopped_at_limit,
            started=time.perf_counter(),
        )

    def _answer(self, model: Any, run: _Run, job: Job) -> None:
        import torch

        with torch.inference_mode():
            if not self._misfit:
                logits = self._prefill(model, run, job)
                if not self._misfit:
                    self._decode(model, run, job, logits)
                    return
            run.note = self._misfit
            _generate_by_library(model, run, job, self._step)

    def _prefill(self, model: Any, run: _Run, job: Job) -> Any:
        """Bring the cache to the whole prompt; returns the logits after it, shape [vocabulary]."""
        import torch

        begun = time.perf_counter()
        done = run.reused = self._reuse(run.prompt_ids)
        total = len(run.prompt_ids)
        prompt = torch.tensor([run.prompt_ids[done:]], device=self._loaded.facts.device)
        logits: Any = None
        for chunk in prompt.split(self._chunk, dim=1):
            job.check()
            job.progress("prefill", done, total, "tokens")
            logits = self._forward(model, chunk)
            done += chunk.shape[1]
            self._cached_ids = run.prompt_ids[:done]
            if _cached_length(self._cache) != done:
                self._misfit = f"the cache of {self._loaded.facts.class_name} is not counted in tokens"
                self.reset()
                return None
        job.progress("prefill", done, total, "tokens")
        run.prefill_seconds = time.perf_counter() - begun
        return logits

    def _forward(self, model: Any, ids: Any) -> Any:
        """One pass over `ids`, shape [1, tokens], with the cache; returns the last position's logits."""
        cache, self._cache = self._cache, None  # a pass that fails leaves no half-written cache behind
        output = model(input_ids=ids, past_key_values=cache, use_cache=True, **self._keywords)
        self._cache = output.past_key_values
        return output.logits[0, -1]

    def _reuse(self, prompt_ids: list[int]) -> int:
        """Shorten the cache to the prefix it shares with the prompt; returns that prefix's length."""
        have = len(self._cached_ids)
        # At least one token must go through the model, for it is the last one's logits that are wanted.
        keep = min(_common_prefix(self._cached_ids, prompt_ids), len(prompt_ids) - 1)
        if self._cache is None or not keep:
            self.reset()
            return 0
        if keep < have:
            try:
                # A negative count is the one form that both old and new versions of transformers take.
                self._cache.crop(keep - have)
            except Exception:  # sliding windows and recurrent states cannot go back
                self.reset()
                return 0
            if _cached_length(self._cache) != keep:
                self.reset()
                return 0
            self._cached_ids = self._cached_ids[:keep]
        return keep

    def _decode(self, model: Any, run: _Run, job: Job, logits: Any) -> None:
        import torch

        device = self._loaded.facts.device
        with _optimized_for_decode(model):
            while True:
                job.check()
                choice = run.sampler.choose(logits)
                token_id = choice.id
                if self._step(run, choice):
                    return
                logits = self._forward(model, torch.tensor([[token_id]], device=device))
                self._cached_ids.append(token_id)

    def _step(self, run: _Run, choice: Choice) -> bool:
        """Book one chosen token and tell about it; returns whether the answer ends with it."""
        if not choice.finite:
            raise WorkbenchError(
                "non-finite-logits",
                f"{self._loaded.facts.class_name} in {self._loaded.facts.dtype} gave logits that are not finite "
                f"at token {len(run.ids) + 1}.",
                "Load it in bfloat16 or float32; float16 overflows in some models.",
            )
        run.last_at = time.perf_counter()
        if not run.ids:
            run.first_at = run.last_at
        run.ids.append(choice.id)
        run.sampler.accept(choice.id)
        if choice.id in run.end_ids:
            run.stopped_by = "end-token"
            text = run.text.finish()
        else:
            text = run.text.push(choice.id)
            if run.text.stopped:
                run.stopped_by = "stop-string"
            elif len(run.ids) >= run.limit:
                run.stopped_by = run.stopped_at_limit
                text += run.text.finish()
        if run.on_token is not None:
            alternatives = tuple(
                Alternative(item, _token_text(self._tokenizer, item), logprob) for item, logprob in choice.alternatives
            )
            run.on_token(TokenStep(choice.id, text, choice.logprob, alternatives))
        return bool(run.stopped_by)

    def _result(self, run: _Run) -> GenerationResult:
        run.text.finish()
        decode_seconds = run.last_at - run.first_at if run.ids else 0.0
        reasons = {"end-token": "stop", "stop-string": "stop", "cancelled": "cancelled", "failed": "failed"}
        return GenerationResult(
            text=run.text.text,
            ids=list(run.ids),
            finish_reason=reasons.get(run.stopped_by, "length"),
            stopped_by=run.stopped_by,
            prompt_tokens=len(run.prompt_ids),
            new_tokens=len(run.ids),
            reused_tokens=run.reused,
            time_to_first_token_seconds=run.first_at - run.started if run.ids else 0.0,
            tokens_per_second=(len(run.ids) - 1) / decode_seconds if decode_seconds > 0 else 0.0,
            prefill_seconds=run.prefill_seconds,
            decode_seconds=decode_seconds,
            seed=run.sampler.seed,
            greedy=run.options.is_greedy,
            method="generate" if run.note else "own",
            note=run.note,
            memory=self._memory(),
        )

    def _memory(self) -> MemoryUse:
        device = self._loaded.facts.device
        peak_bytes, peak_of = _peak(device)
        return MemoryUse(self._loaded.weights_bytes, cache_bytes(self._cache), peak_bytes, peak_of)

    def _explain(self, error: Exception, run: _Run) -> WorkbenchError:
        details = "".join(traceback.format_exception(type(error), error, error.__traceback__))[-8000:]
        memory = memory_shortage(error)
        tokens = f"{len(run.prompt_ids):,} prompt and {len(run.ids):,} new tokens"
        if memory is not None:
            held = format_bytes(cache_bytes(self._cache))
            return WorkbenchError(
                "out-of-memory",
                f"Out of memory on {self._loaded.facts.device} at {tokens} "
                f"(weights {format_bytes(self._loaded.weights_bytes)}, KV cache {held}): {memory}",
                "Shorten the conversation, or load the model in nf4; the VRAM bench tells what fits.",
                details,
            )
        return WorkbenchError(
            "generation-failed",
            f"{self._loaded.facts.class_name} failed at {tokens}: {type(error).__name__}: {one_line(str(error), 200)}",
            "See the details; after a CUDA error restart the session.",
            details,
        )


class _AnswerText:
    """The answer's text as it grows: whole characters only, ended by the first stop string."""

    def __init__(self, tokenizer: TextTokenizer, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._decoder = tokenizer.stream_decoder(skip_special_tokens=True)
        self._stop = tuple(stop)
        self._held = ""
        self._shown: list[str] = []
        self._finished = False
        self.stopped = False

    @property
    def text(self) -> str:
        """Everything shown so far."""
        return "".join(self._shown)

    def push(self, token_id: int) -> str:
        """Add a token; returns what can be shown now: text that may begin a stop string waits."""
        piece = self._decoder.push(token_id) if _in_vocabulary(self._tokenizer, token_id) else ""
        if not self._stop:
            self._shown.append(piece)
            return piece
        self._held += piece
        found = [position for position in map(self._held.find, self._stop) if position >= 0]
        if found:
            self.stopped = self._finished = True
            return self._show(min(found))
        return self._show(len(self._held) - self._possible_start())

    def finish(self) -> str:
        """No more tokens come: the rest of the text."""
        if self._finished:
            return ""
        self._finished = True
        self._held += self._decoder.flush()
        return self._show(len(self._held))

    def _show(self, count: int) -> str:
        piece, self._held = self._held[:count], self._held[count:]
        self._shown.append(piece)
        return piece

    def _possible_start(self) -> int:
        """Length of the longest end of the held text that is the beginning of a stop string."""
        longest = min(len(self._held), max(map(len, self._stop)) - 1)
        for count in range(longest, 0, -1):
            end = self._held[-count:]
            if any(item.startswith(end) for item in self._stop):
                return count
        return 0


def _in_vocabulary(tokenizer: TextTokenizer, token_id: int) -> bool:
    """Embeddings are often padded to more rows than the tokenizer has tokens; a model may choose such a row."""
    try:
        tokenizer.id_token(token_id)
    except WorkbenchError:
        return False
    return True


def _token_text(tokenizer: TextTokenizer, token_id: int) -> str:
    return tokenizer.decode([token_id]) if _in_vocabulary(tokenizer, token_id) else ""


def cache_bytes(cache: Any) -> int:
    """Bytes of the storages behind a transformers cache, each once; views keep their whole storage."""
    import torch

    found: dict[int, int] = {}
    for layer in getattr(cache, "layers", None) or ():
        for value in vars(layer).values():
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                found[storage._cdata] = storage.nbytes()
    for name in ("key_cache", "value_cache"):  # before transformers 4.56
        for value in getattr(cache, name, None) or ():
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                found[storage._cdata] = storage.nbytes()
    return sum(found.values())


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    count = min(len(left), len(right))
    if left[:count] == right[:count]:
        return count
    return next(index for index in range(count) if left[index] != right[index])


def _cached_length(cache: Any) -> Optional[int]:
    try:
        return int(cache.get_seq_length())
    except Exception:
        return None


def _misfit(loaded: LoadedModel) -> str:
    """Why the own loop does not fit this class, or an empty string.

    The loop feeds plain ids and the cache. A class that prepares its inputs in its own way, or whose state is
    recurrent (fed in several chunks, some classes silently start from nothing), goes through ``generate``.
    """
    from transformers import GenerationMixin

    model = loaded.model
    name = loaded.facts.class_name
    if loaded.facts.is_encoder_decoder:
        return f"{name} is an encoder-decoder model"
    if getattr(model, "_is_stateful", False):
        return f"{name} has a recurrent state"
    if type(model).prepare_inputs_for_generation is not GenerationMixin.prepare_inputs_for_generation:
        return f"{name} prepares its inputs in its own way"
    parameters = inspect.signature(model.forward).parameters
    if not {"input_ids", "past_key_values", "use_cache"} <= set(parameters):
        return f"{name} takes no cache"
    return ""


def _forward_keywords(model: Any) -> dict[str, Any]:
    """Keep the logits of the last position only: the others are vocabulary × prompt floats for nothing."""
    parameters = inspect.signature(model.forward).parameters
    for name in ("logits_to_keep", "num_logits_to_keep"):
        if name in parameters:
            return {name: 1, "return_dict": True}
    return {"return_dict": True}


def _end_ids(model: Any) -> frozenset[int]:
    """End tokens as ``generate`` finds them: of the generation config, else of the config."""
    for source in (getattr(model, "generation_config", None), model.config.get_text_config(decoder=True)):
        value = getattr(source, "eos_token_id", None)
        if isinstance(value, int):
            return frozenset({value})
        if value:
            return frozenset(int(item) for item in value)
    return frozenset()


@contextlib.contextmanager
def _optimized_for_decode(model: Any) -> Iterator[None]:
    """``generate``'s own switch of the experts' kernel for one-token steps, where transformers has it."""
    switch = getattr(model, "_optimize_model_for_decode", None)
    if switch is None:
        yield
        return
    with switch():
        yield


def _generate_by_library(model: Any, run: _Run, job: Job, step: Callable[[_Run, Choice], bool]) -> None:
    """The same answer through ``model.generate``: tokens are chosen by our sampler inside of it."""
    import torch
    import transformers

    class Choose(transformers.LogitsProcessor):  # type: ignore[misc]
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            if not run.ids:
                run.prefill_seconds = time.perf_counter() - run.started
            choice = run.sampler.choose(scores[0])
            step(run, choice)
            forced = torch.full_like(scores, -math.inf)
            forced[0, choice.id] = 0.0
            return forced

    class Stop(transformers.StoppingCriteria):  # type: ignore[misc]
        def __call__(self, input_ids: Any, scores: Any, **_keywords: Any) -> Any:
            job.check()
            return torch.full((input_ids.shape[0],), bool(run.stopped_by), device=input_ids.device)

    job.check()
    ids = torch.tensor([run.prompt_ids], device=model.device)
    model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        generation_config=_neutral_config(model, run.limit),
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


def _reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: str) -> tuple[int, str]:
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device)), "device"
    try:
        text = Path("/proc/self/status").read_text("ascii")
        return int(text.split("VmHWM:")[1].split()[0]) * 1024, "process"
    except (OSError, IndexError, ValueError):
        import resource

        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss), "process"
