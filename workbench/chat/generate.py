"""The decode loop: streams an answer, keeps the KV cache between turns, stops within a token. Needs torch.

``model.generate`` is the reference it is tested against, and the fallback for classes it does not fit.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional

from workbench.chat.answer_text import AnswerText, token_text
from workbench.chat.answers import Alternative, GenerationFailed, GenerationResult, MemoryUse, TokenStep
from workbench.chat.fixed_steps import GRAPH, GROWING, ROOM, Decoding, FixedSteps
from workbench.chat.kv_cache import cache_bytes, cached_length, common_prefix, crop, rewind
from workbench.chat.library_loop import generate_by_library
from workbench.chat.lookup import PromptLookup
from workbench.chat.model_facts import end_ids, logits_keyword, misfit, optimized_for_decode
from workbench.chat.options import SamplingOptions
from workbench.chat.sampling import Choice, Sampler
from workbench.errors import JobCancelled, WorkbenchError
from workbench.job import SILENT, Job
from workbench.models.load import LoadedModel
from workbench.models.memory import memory_shortage, release_memory
from workbench.text import format_bytes, one_line
from workbench.tokens.tokenizer import TextTokenizer

# A chunk's activations need memory, and its end is a place to go on from. Smaller ones cost more in sum (512: +3 %,
# 256: +12 %, 64: 2.7 times on a CPU); a GPU needs larger ones to be busy and runs them faster.
_CHUNK_CPU = 256
_CHUNK_ACCELERATOR = 1024
# Tokens from which on a pass is worth leaving in the middle: a quantized model on a CPU needs seconds for a chunk.
_LONG_PASS = 64
# An encoder reads a few times what it was trained on, T5's 512 tokens where its config does not say.
_ENCODER_STRETCH = 4
_ENCODER_LENGTH = 512


@dataclass
class _Run:
    """The state of one answer."""

    prompt_ids: list[int]
    given_ids: list[int]
    options: SamplingOptions
    sampler: Sampler
    text: AnswerText
    lookup: PromptLookup
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
    way: str = GROWING

    @property
    def known_ids(self) -> list[int]:
        """What the model sees before it chooses anything."""
        return self.prompt_ids + self.given_ids

    @property
    def tokens_left(self) -> int:
        """How many tokens may still be chosen."""
        return self.limit + len(self.given_ids) - len(self.ids)


class Generator:
    """Writes answers with one loaded model. Use it from one thread.

    Args:
        loaded: the model; after `unload` of it the generator is of no more use.
        tokenizer: turns the answer's ids into text.
        prefill_chunk: prompt tokens per forward pass; 0 chooses by device.
        decoding: how tokens after the first are decoded, as `workbench.chat.decode_trial.settle` found; by default
            pass by pass.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        tokenizer: TextTokenizer,
        prefill_chunk: int = 0,
        decoding: Optional[Decoding] = None,
    ) -> None:
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
        self._answered_ids: list[int] = []
        """What the cache held when the last answer ended; a look at other tokens changes the cache."""
        self._lost_bytes = 0
        """What the cache held when a pass failed."""
        self._steps: Optional[FixedSteps] = None
        self.decoding = decoding or Decoding()
        self._misfit = misfit(loaded)
        self._logits_keyword = logits_keyword(loaded.model)
        self.end_ids = end_ids(loaded.model)

    @property
    def cached_tokens(self) -> int:
        """How many tokens the KV cache holds now."""
        return len(self._cached_ids)

    @property
    def cached_bytes(self) -> int:
        """What the KV cache holds now."""
        return cache_bytes(self._cache)

    @property
    def context_length(self) -> Optional[int]:
        """The longest sequence the model's positions cover, or None if its config does not say."""
        return self._loaded.facts.context_length

    def reset(self) -> None:
        """Drop the KV cache, so that the next prompt is prefilled anew."""
        self._cache = self._steps = None
        self._cached_ids = []

    def close(self) -> None:
        """Drop the KV cache and give its memory back."""
        self.reset()
        self._answered_ids = []
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
        given_ids: Sequence[int] = (),
    ) -> GenerationResult:
        """Answer a prompt.

        A cancel is felt within one token, or one layer of the prefill, and returns what is there with the finish
        reason ``cancelled``. The KV cache of the longest prefix shared with the previous call is used again;
        results with and without that can differ by rounding.

        Args:
            prompt_ids: the tokens the model sees, special tokens included.
            options: sampling and stopping.
            job: progress of the prefill in tokens; cancelling.
            on_token: called for every token as it is chosen, first for those given.
            alternatives: how many of the most probable tokens each `TokenStep` names.
            extra_end_ids: tokens that end the answer besides those of the model's configuration.
            fresh: use nothing of the KV cache.
            given_ids: tokens the answer begins with, as when it is continued or forked.

        Raises:
            WorkbenchError: ``bad-option``, ``bad-prompt``, ``prompt-too-long``, ``unsupported``.
            GenerationFailed: ``out-of-memory``, ``non-finite-logits`` or ``generation-failed``, with the
                partial answer.
        """
        options.validate()
        model = self._model()
        run = self._start(list(prompt_ids), list(given_ids), options, on_token, alternatives, extra_end_ids)
        if fresh:
            self.reset()
        failure: Optional[WorkbenchError] = None
        _reset_peak(_devices(self._loaded))
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
            self._answered_ids = list(self._cached_ids)
            return self._result(run)
        run.stopped_by = "failed"
        unfinished = self._result(run)
        self.close()
        raise GenerationFailed(failure, unfinished)

    def next_logits(self, ids: Sequence[int], job: Job = SILENT) -> Any:
        """The logits after `ids`, shape [vocabulary], float32, on the model's device; the cache is used and kept.

        Raises:
            WorkbenchError: ``bad-prompt``, ``prompt-too-long``; ``unsupported`` for a class that only
                ``generate`` runs.
        """
        import torch

        model = self._model()
        self._check_prompt(list(ids))
        with torch.inference_mode():
            logits = None if self._misfit else self._prefill(model, list(ids), job)[0]
        if logits is None:
            raise WorkbenchError("unsupported", f"Its next token cannot be looked at: {self._misfit}.")
        return logits.float()

    def return_to_answer(self, job: Job = SILENT) -> None:
        """Bring the KV cache back to where the last answer left it, if something else was looked at since."""
        import torch

        if self._answered_ids and self._answered_ids != self._cached_ids:
            with torch.inference_mode():
                self._prefill(self._model(), self._answered_ids, job)

    def position_logits(self, ids: Sequence[int], first: int, job: Job = SILENT) -> Iterator[tuple[int, Any]]:
        """The logits at every position of a text from `first` on, in chunks.

        Yields:
            The index of a chunk's first position, and logits of shape [positions, vocabulary] in the model's dtype;
            those at index i tell what may stand at i + 1.

        Raises:
            WorkbenchError: as `next_logits`.
        """
        import torch

        model = self._model()
        self._check_prompt(list(ids))
        if self._misfit:
            raise WorkbenchError("unsupported", f"Its logits cannot be read: {self._misfit}.")
        self.reset()
        with torch.inference_mode():
            at = 0
            for chunk in torch.tensor([list(ids)], device=self._loaded.facts.device).split(self._chunk, dim=1):
                job.check()
                job.progress("score", at, len(ids), "tokens")
                wanted = min(chunk.shape[1], max(0, at + chunk.shape[1] - first))
                logits = self._forward_unless_stopped(model, chunk, job, max(1, wanted))
                at += chunk.shape[1]
                if wanted:
                    yield at - wanted, logits
        self.reset()

    def _model(self) -> Any:
        model = self._loaded.model
        if model is None:
            raise WorkbenchError("no-model", "The model was unloaded.", "Load it again.")
        return model

    def _start(
        self,
        prompt_ids: list[int],
        given_ids: list[int],
        options: SamplingOptions,
        on_token: Optional[Callable[[TokenStep], None]],
        alternatives: int,
        extra_end_ids: Sequence[int],
    ) -> _Run:
        known = prompt_ids + given_ids
        self._check_prompt(known)
        if given_ids and self._loaded.facts.is_encoder_decoder:
            raise WorkbenchError(
                "unsupported",
                f"{self._loaded.facts.class_name} cannot go on with a given beginning.",
                "Ask it anew: its prompt and its answer are different sequences.",
            )
        limit, stopped_at_limit = options.max_new_tokens, "max-new-tokens"
        length = None if self._loaded.facts.is_encoder_decoder else self.context_length
        if length is not None and length - len(known) < limit:
            limit, stopped_at_limit = length - len(known), "context"
        run = _Run(
            prompt_ids=prompt_ids,
            given_ids=given_ids,
            options=options,
            sampler=Sampler(options, known, alternatives),
            text=AnswerText(self._tokenizer, options.stop),
            lookup=PromptLookup(options.prompt_lookup),
            on_token=on_token,
            end_ids=self.end_ids | frozenset(extra_end_ids),
            limit=limit,
            stopped_at_limit=stopped_at_limit,
            started=time.perf_counter(),
            way=self._way_of(options, limit),
        )
        run.lookup.extend(known)
        for token_id in given_ids:
            run.ids.append(token_id)
            text = run.text.push(token_id)
            if on_token is not None:
                on_token(TokenStep(token_id, text, None, given=True, alone=self._alone(token_id, text)))
        return run

    def _way_of(self, options: SamplingOptions, limit: int) -> str:
        """How this answer is decoded: guesses need passes of several tokens, a short answer no preparation."""
        short = limit <= self.decoding.worth_after
        return GROWING if options.prompt_lookup or short else self.decoding.way

    def _check_prompt(self, ids: list[int]) -> None:
        if not ids:
            raise WorkbenchError("bad-prompt", "The prompt is empty.", "Type something.")
        rows = self._loaded.model.get_input_embeddings().weight.shape[0]
        if not 0 <= min(ids) <= max(ids) < rows:
            raise WorkbenchError(
                "bad-prompt",
                f"The prompt holds token {max(ids)}, but the model's embedding has {rows} rows.",
                "Tokenizer and model do not belong together: load the tokenizer of this model.",
            )
        length = self.context_length
        if self._loaded.facts.is_encoder_decoder:
            # Relative positions have no end, but the encoder's attention grows with the square of the prompt, all of
            # it in one pass that cannot be stopped.
            most = _ENCODER_STRETCH * (length or _ENCODER_LENGTH)
            if len(ids) > most:
                raise WorkbenchError(
                    "prompt-too-long",
                    f"The prompt has {len(ids):,} tokens; the encoder of this model takes {most:,} at most.",
                    "Shorten it.",
                )
        elif length is not None and len(ids) >= length:
            raise WorkbenchError(
                "prompt-too-long",
                f"The prompt has {len(ids):,} tokens; the model's context is {length:,}.",
                "Shorten it or drop earlier messages.",
            )

    def _answer(self, model: Any, run: _Run, job: Job) -> None:
        import torch

        with torch.inference_mode():
            if not self._misfit:
                begun = time.perf_counter()
                logits, run.reused = self._prefill(model, run.known_ids, job)
                run.prefill_seconds = time.perf_counter() - begun
                if logits is not None:
                    self._decode(model, run, job, logits)
                    return
            run.note = self._misfit
            take = partial(self._step, run)
            generate_by_library(model, run.known_ids, run.limit, run.sampler, take, job)

    def _prefill(self, model: Any, ids: list[int], job: Job) -> tuple[Any, int]:
        """Bring the cache to `ids`.

        Returns:
            The logits after them, shape [vocabulary], None if the class turns out not to fit; and how many tokens the
            cache held already.
        """
        import torch

        done = reused = self._reuse(ids)
        total = len(ids)
        prompt = torch.tensor([ids[done:]], device=self._loaded.facts.device)
        logits: Any = None
        for chunk in prompt.split(self._chunk, dim=1):
            job.check()
            job.progress("prefill", done, total, "tokens")
            logits = self._forward_unless_stopped(model, chunk, job)[-1]
            done += chunk.shape[1]
            self._cached_ids = ids[:done]
            if cached_length(self._cache) != done:
                self._misfit = f"the cache of {self._loaded.facts.class_name} is not counted in tokens"
                self.reset()
                return None, 0
        job.progress("prefill", done, total, "tokens")
        return logits, reused

    def _forward_unless_stopped(self, model: Any, ids: Any, job: Job, positions: int = 1) -> Any:
        """As `_forward`, left in the middle of a long pass if the job is cancelled; the cache is then as before."""
        if ids.shape[1] < _LONG_PASS:
            return self._forward(model, ids, positions)
        from torch.nn.modules.module import register_module_forward_pre_hook

        cache = self._cache
        hook = register_module_forward_pre_hook(lambda _module, _inputs: job.check())
        try:
            return self._forward(model, ids, positions)
        except JobCancelled:
            if rewind(cache, len(self._cached_ids)):
                self._cache = cache
            else:
                self.reset()
            raise
        finally:
            hook.remove()

    def _forward(self, model: Any, ids: Any, positions: int = 1) -> Any:
        """One pass over `ids`, shape [1, tokens], with the cache; logits of the last ones, [positions, vocabulary]."""
        cache, self._cache = self._cache, None  # a pass that fails leaves no half-written cache behind
        keep = {self._logits_keyword: positions} if self._logits_keyword else {}
        try:
            output = model(input_ids=ids, past_key_values=cache, use_cache=True, return_dict=True, **keep)
        except BaseException:
            self._lost_bytes = cache_bytes(cache)
            raise
        self._cache = output.past_key_values
        return output.logits[0, -positions:]

    def _reuse(self, ids: list[int]) -> int:
        """Shorten the cache to the prefix it shares with `ids`; returns that prefix's length."""
        # At least one token must go through the model, for it is the last one's logits that are wanted.
        keep = min(common_prefix(self._cached_ids, ids), len(ids) - 1)
        if self._cache is None or not keep:
            self.reset()
            return 0
        self._crop(keep)
        return len(self._cached_ids)

    def _crop(self, keep: int) -> None:
        """Shorten the cache, or drop it where that cannot be."""
        if keep == len(self._cached_ids):
            return
        if crop(self._cache, keep, len(self._cached_ids)):
            self._cached_ids = self._cached_ids[:keep]
        else:
            self.reset()

    def _decode(self, model: Any, run: _Run, job: Job, logits: Any) -> None:
        """Choose tokens until the answer ends.

        `rows` are the logits after the last chosen token and after each token guessed to follow it. As long as what
        is chosen is what was guessed, the next row is ready and no forward pass is needed.
        """
        guess: list[int] = []
        rows, right = logits[None], 0
        with optimized_for_decode(model), contextlib.ExitStack() as ending:
            ending.callback(self._end_steps_or_drop)
            while True:
                job.check()
                choice = run.sampler.choose(rows[right])
                ended = self._step(run, choice)
                if not ended and guess[right : right + 1] == [choice.id]:
                    right += 1
                    continue
                self._forget_wrong(run, len(guess), right)
                if ended:
                    return
                guess, right = run.lookup.guess()[: run.tokens_left - 1], 0
                rows = self._advance(model, run, guess)

    def _forget_wrong(self, run: _Run, guessed: int, right: int) -> None:
        if guessed:
            run.lookup.told(right)
            self._crop(len(self._cached_ids) - guessed + right)

    def _advance(self, model: Any, run: _Run, guess: list[int]) -> Any:
        """The logits after the last chosen token and after each guessed one, shape [1 + guesses, vocabulary]."""
        import torch

        if not self._cached_ids:  # a cache that could not go back was dropped
            run.lookup = PromptLookup(0)
            return self._prefill(model, run.prompt_ids + run.ids, SILENT)[0][None]
        ids = [run.ids[-1], *guess]
        steps = self._fixed_steps(model, run)
        if steps is not None:
            rows = steps.step(ids[0])
        else:
            rows = self._forward(model, torch.tensor([ids], device=self._loaded.facts.device), len(ids))
        self._cached_ids += ids
        return rows

    def _fixed_steps(self, model: Any, run: _Run) -> Optional[FixedSteps]:
        """Where the next token is decoded in a cache of fixed size; None where that is not wanted or cannot be had."""
        if self._steps is not None and self._steps.full:
            self._end_steps()
        if self._steps is None and run.way != GROWING:
            try:
                self._steps = FixedSteps(model, self._cache, min(ROOM, run.tokens_left), run.way == GRAPH)
            except Exception as error:  # memory is short, or the capture failed: the growing cache is untouched
                traceback.clear_frames(error.__traceback__)
                run.way = GROWING
        return self._steps

    def _end_steps_or_drop(self) -> None:
        """As `_end_steps`; the answer is there, so that what fails now costs only the next turn a longer prefill."""
        try:
            self._end_steps()
        except Exception as error:
            traceback.clear_frames(error.__traceback__)
            self.reset()

    def _end_steps(self) -> None:
        """Bring what was decoded in a cache of fixed size back into the growing one."""
        steps, self._steps = self._steps, None
        if steps is not None:
            steps.finish()

    def _step(self, run: _Run, choice: Choice) -> bool:
        """Book one chosen token and tell about it; returns whether the answer ends with it."""
        made = len(run.ids) - len(run.given_ids) + 1
        if not choice.finite:
            raise WorkbenchError(
                "non-finite-logits",
                f"{self._loaded.facts.class_name} in {self._loaded.facts.dtype} gave logits that are not finite "
                f"at token {made}.",
                "Load it in bfloat16 or float32; float16 overflows in some models."
                if self._loaded.facts.dtype == "float16"
                else "Its weights may be damaged: a trace (Architecture) shows the first layer that gives them.",
            )
        run.last_at = time.perf_counter()
        if made == 1:
            run.first_at = run.last_at
            run.prefill_seconds = run.prefill_seconds or run.first_at - run.started
        run.ids.append(choice.id)
        run.sampler.accept(choice.id)
        run.lookup.extend((choice.id,))
        if choice.id in run.end_ids:
            run.stopped_by = "end-token"
            text = run.text.finish()
        else:
            text = run.text.push(choice.id)
            if run.text.stopped:
                run.stopped_by = "stop-string"
            elif made >= run.limit:
                run.stopped_by = run.stopped_at_limit
                text += run.text.finish()
        if run.on_token is not None:
            alternatives = tuple(
                Alternative(item, token_text(self._tokenizer, item), logprob) for item, logprob in choice.alternatives
            )
            alone = self._alone(choice.id, text)
            run.on_token(TokenStep(choice.id, text, choice.logprob, choice.entropy_bits, alternatives, alone=alone))
        return bool(run.stopped_by)

    def _alone(self, token_id: int, text: str) -> str:
        return "" if text else token_text(self._tokenizer, token_id)

    def _result(self, run: _Run) -> GenerationResult:
        run.text.finish()
        made = len(run.ids) - len(run.given_ids)
        decode_seconds = run.last_at - run.first_at if made else 0.0
        reasons = {"end-token": "stop", "stop-string": "stop", "cancelled": "cancelled", "failed": "failed"}
        return GenerationResult(
            text=run.text.text,
            ids=list(run.ids),
            finish_reason=reasons.get(run.stopped_by, "length"),
            stopped_by=run.stopped_by,
            prompt_tokens=len(run.prompt_ids),
            new_tokens=made,
            given_tokens=len(run.given_ids),
            reused_tokens=run.reused,
            time_to_first_token_seconds=run.first_at - run.started if made else 0.0,
            tokens_per_second=(made - 1) / decode_seconds if decode_seconds > 0 else 0.0,
            prefill_seconds=run.prefill_seconds,
            decode_seconds=decode_seconds,
            seed=run.sampler.seed,
            greedy=run.options.is_greedy,
            method="generate" if run.note else run.way if run.way == GRAPH else "own",
            guessed_tokens=run.lookup.right,
            note=run.note,
            memory=self._memory(),
        )

    def _memory(self) -> MemoryUse:
        peak_bytes, peak_of = _peak(_devices(self._loaded))
        held = len(self._cached_ids) or None
        return MemoryUse(self._loaded.weights_bytes, cache_bytes(self._cache), peak_bytes, peak_of, held)

    def _explain(self, error: Exception, run: _Run) -> WorkbenchError:
        details = "".join(traceback.format_exception(type(error), error, error.__traceback__))[-8000:]
        memory = memory_shortage(error)
        tokens = f"{len(run.prompt_ids):,} prompt and {len(run.ids):,} new tokens"
        if memory is not None:
            held = format_bytes(cache_bytes(self._cache) or self._lost_bytes)
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


def _devices(loaded: LoadedModel) -> tuple[str, ...]:
    return loaded.facts.devices or (loaded.facts.device,)


def _reset_peak(devices: Sequence[str]) -> None:
    for device in devices:
        if device.startswith("cuda"):
            import torch

            torch.cuda.reset_peak_memory_stats(device)


def _peak(devices: Sequence[str]) -> tuple[int, str]:
    if devices[0].startswith("cuda"):
        import torch

        return sum(int(torch.cuda.max_memory_allocated(device)) for device in devices), "device"
    try:
        text = Path("/proc/self/status").read_text("ascii")
        return int(text.split("VmHWM:")[1].split()[0]) * 1024, "process"
    except (OSError, IndexError, ValueError):
        import resource

        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss), "process"
