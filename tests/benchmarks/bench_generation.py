"""Decode speed of our loop beside ``model.generate``: same process, taking turns, ratios printed.

    python -m tests.benchmarks.bench_generation MODEL_DIRECTORY [--tokens N] [--rounds N] [--threads N] [--device D]

Both get the same prompt and write the same number of tokens; the end token is switched off for both. "decode" is
tokens after the first by the time since the first; "turn" compares the time to the first token of a second turn
with and without the kept KV cache; "stop" is from the wish to stop to the answer's end, while it decodes and inside
the prefill of 2,000 tokens, the worst of several. On a GPU the fastest way to decode is found first, as a load does.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
import transformers

from tests.benchmarks.table import Row, tell
from workbench.chat.decode_trial import settle
from workbench.chat.generate import Generator
from workbench.chat.options import SamplingOptions
from workbench.errors import JobCancelled
from workbench.job import Job
from workbench.models.load import LoadedModel, LoadOptions, load_model, unload
from workbench.tokens.tokenizer import load_tokenizer

SAMPLED = SamplingOptions(
    temperature=0.8, top_p=0.95, top_k=50, min_p=0.02, repetition_penalty=1.1, no_repeat_ngram_size=4, seed=1
)
GREEDY = SamplingOptions(greedy=True)
AIMS = {"greedy": 1.3, "all samplers": 1.5}
SECOND_TURN_AIM, STOP_AIM_TOKENS, STOP_AIM_SECONDS = 5.0, 2.0, 0.5


class FirstToken(transformers.generation.streamers.BaseStreamer):
    """Notes when ``generate`` hands out its first new token."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.at.append(time.perf_counter())

    def end(self) -> None:
        pass


def library_rate(loaded: LoadedModel, ids: list[int], options: SamplingOptions, tokens: int) -> float:
    """Decode tokens/s of ``model.generate`` with the same filters."""
    prompt = torch.tensor([ids], device=loaded.model.device)
    streamer = FirstToken()
    sampling = (
        {}
        if options.is_greedy
        else {
            "temperature": options.temperature,
            "top_p": options.top_p,
            "top_k": options.top_k,
            "min_p": options.min_p,
        }
    )
    loaded.model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=not options.is_greedy,
        repetition_penalty=options.repetition_penalty,
        no_repeat_ngram_size=options.no_repeat_ngram_size,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        streamer=streamer,
        **sampling,
    )
    # The first call of the streamer carries the prompt.
    return (tokens - 1) / (streamer.at[-1] - streamer.at[1])


def own_rate(generator: Generator, ids: list[int], options: SamplingOptions, tokens: int) -> float:
    """Decode tokens/s of our loop."""
    result = generator.generate(ids, replace(options, max_new_tokens=tokens), fresh=True)
    return (result.new_tokens - 1) / result.decode_seconds


def compare(loaded: LoadedModel, generator: Generator, ids: list[int], arguments: argparse.Namespace) -> None:
    """Print both rates and their ratio, greedy and with every sampler on."""
    for name, options in (("greedy", GREEDY), ("all samplers", SAMPLED)):
        own, library = [], []
        own_rate(generator, ids, options, 4)
        library_rate(loaded, ids, options, 4)
        for _ in range(arguments.rounds):
            own.append(own_rate(generator, ids, options, arguments.tokens))
            library.append(library_rate(loaded, ids, options, arguments.tokens))
        ratios = [a / b for a, b in zip(own, library, strict=True)]
        print(
            f"{loaded.facts.quant:>5} {loaded.facts.dtype:<9} {name:<13} own {statistics.median(own):7.2f} tok/s   "
            f"generate {statistics.median(library):7.2f} tok/s   ratio {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f}-{max(ratios):.2f})"
        )
        what = f"decode, {name}, {_variant(loaded)}, against generate"
        tell(Row(what, statistics.median(own), statistics.median(library), "tok/s", AIMS[name], more_is_better=True))


def _variant(loaded: LoadedModel) -> str:
    return loaded.facts.dtype if loaded.facts.quant == "none" else loaded.facts.quant


def second_turn(loaded: LoadedModel, generator: Generator, ids: list[int]) -> None:
    """Print the time to the first token of a second turn, kept cache against fresh prefill."""
    long = (ids * (2000 // len(ids) + 1))[:2000]
    first = generator.generate(long, replace(GREEDY, max_new_tokens=8), fresh=True)
    second = [*long, *first.ids, *ids[:20]]
    kept = generator.generate(second, replace(GREEDY, max_new_tokens=1))
    fresh = generator.generate(second, replace(GREEDY, max_new_tokens=1), fresh=True)
    print(
        f"{loaded.facts.quant:>5} {loaded.facts.dtype:<9} second turn of {len(second)} tokens: reused "
        f"{kept.reused_tokens}, first token after {kept.time_to_first_token_seconds:.3f} s, fresh "
        f"{fresh.time_to_first_token_seconds:.3f} s, ratio "
        f"{fresh.time_to_first_token_seconds / kept.time_to_first_token_seconds:.1f}"
    )
    what = f"second turn of 2,000 tokens, {_variant(loaded)}, against prefilling it anew"
    tell(Row(what, kept.time_to_first_token_seconds, fresh.time_to_first_token_seconds, "s", 1 / SECOND_TURN_AIM))


class StopLater(Job):
    """Is wished to stop some seconds after its first check."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.wished_at = 0.0

    def check(self) -> None:
        now = time.perf_counter()
        self.wished_at = self.wished_at or now + self._seconds
        if now >= self.wished_at:
            raise JobCancelled


def stopping(loaded: LoadedModel, generator: Generator, ids: list[int], tokens: int) -> None:
    """Print how long after the wish an answer ends."""
    token_seconds = 1 / own_rate(generator, ids, GREEDY, tokens)
    long = (ids * (2000 // len(ids) + 1))[:2000]
    worst = []
    for prompt, fractions in ((ids, (3.1, 5.5, 7.9)), (long, (0.15, 0.4, 0.7))):
        begun = time.perf_counter()
        generator.generate(prompt, replace(GREEDY, max_new_tokens=1), fresh=True)
        unit = token_seconds if prompt is ids else time.perf_counter() - begun
        late = []
        for fraction in fractions:
            job = StopLater(fraction * unit)
            generator.generate(prompt, replace(GREEDY, max_new_tokens=tokens), job, fresh=True)
            late.append(time.perf_counter() - job.wished_at)
        worst.append(max(late))
    print(
        f"{loaded.facts.quant:>5} {loaded.facts.dtype:<9} stop: in decode {worst[0]:.3f} s = "
        f"{worst[0] / token_seconds:.2f} tokens, inside the prefill {worst[1]:.3f} s"
    )
    tell(Row(f"stop in decode, {_variant(loaded)}, against a token", worst[0], token_seconds, "s", STOP_AIM_TOKENS))
    tell(Row(f"stop inside a prefill, {_variant(loaded)}, against half a second", worst[1], STOP_AIM_SECONDS, "s", 1.0))


def main() -> None:
    """Measure bf16 (or what the device has) and NF4."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    tokenizer = load_tokenizer(str(arguments.directory))
    ids = tokenizer.encode(
        "<|im_start|>user\nTell me a long story about a fox and a crow.<|im_end|>\n<|im_start|>assistant\n"
    )
    for quant in ("none", "nf4"):
        loaded = load_model(arguments.directory, LoadOptions(quant, device=arguments.device))
        generator = Generator(loaded, tokenizer, decoding=settle(loaded))
        generator.end_ids = frozenset()
        compare(loaded, generator, ids, arguments)
        second_turn(loaded, generator, ids)
        stopping(loaded, generator, ids, arguments.tokens)
        unload(loaded)


if __name__ == "__main__":
    main()
