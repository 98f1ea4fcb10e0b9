"""Decoding over a cache of fixed size, as a CUDA graph replays it, held against the growing cache on a CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.test_chat_generate import GREEDY, StopAfter, chat_ids, load_tiny
from workbench.chat import fixed_steps, generate
from workbench.chat.decode_trial import Trial, choose, settle
from workbench.chat.fixed_steps import FIXED, GRAPH, GROWING, Decoding, FixedSteps
from workbench.chat.generate import Generator
from workbench.models.load import LoadOptions, load_model, unload
from workbench.tokens.tokenizer import load_tokenizer

pytestmark = [pytest.mark.model, pytest.mark.usefixtures("libraries")]

FIXED_ALWAYS = Decoding(FIXED)


@pytest.fixture
def steps_made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The room of every fixed cache that a generator made."""
    made: list[int] = []

    class Counted(FixedSteps):
        def __init__(self, model, cache, room, graph):
            made.append(room)
            super().__init__(model, cache, room, graph)

    monkeypatch.setattr(generate, "FixedSteps", Counted)
    return made


@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral"])
def test_a_fixed_cache_gives_the_same_tokens_and_leaves_the_same_cache(name, monkeypatch, steps_made):
    """Answers longer than a fixed cache has room for, turns that go on from them, and an edit that goes back."""
    monkeypatch.setattr(generate, "ROOM", 7)
    loaded, tokenizer = load_tiny(name)
    growing, fixed = (Generator(loaded, tokenizer, decoding=way) for way in (Decoding(), FIXED_ALWAYS))
    prompt = [(11 * n) % 150 + 20 for n in range(40)]
    for options in (GREEDY, replace(GREEDY, greedy=False, seed=7, repetition_penalty=1.2)):
        first, same = growing.generate(prompt, options), fixed.generate(prompt, options)
        assert same.ids == first.ids
        assert (same.memory.kv_cache_bytes, same.reused_tokens) == (first.memory.kv_cache_bytes, first.reused_tokens)
        longer = prompt + first.ids + [30, 31]
        for turn in (longer, [*longer[:50], 99]):
            expected, result = growing.generate(turn, options), fixed.generate(turn, options)
            assert (result.ids, result.reused_tokens) == (expected.ids, expected.reused_tokens)
    assert len(steps_made) > 20
    assert set(steps_made) <= set(range(1, 8))


def test_the_real_model_answers_alike(smollm2_dir, steps_made):
    tokenizer = load_tokenizer(str(smollm2_dir))
    ids = chat_ids(tokenizer, "Write a Python function that sorts a list.")
    loaded = load_model(smollm2_dir, LoadOptions(dtype="float32", device="cpu"))
    options = replace(GREEDY, max_new_tokens=20)
    expected = Generator(loaded, tokenizer).generate(ids, options).ids
    assert Generator(loaded, tokenizer, decoding=FIXED_ALWAYS).generate(ids, options).ids == expected
    unload(loaded)
    assert steps_made == [19]


def test_a_stop_keeps_what_was_decoded(steps_made):
    loaded, tokenizer = load_tiny("llama")
    fixed = Generator(loaded, tokenizer, decoding=FIXED_ALWAYS)
    prompt = list(range(20, 50))
    stopped = fixed.generate(prompt, GREEDY, StopAfter(6))
    assert stopped.finish_reason == "cancelled"
    assert fixed.cached_tokens == len(prompt) + stopped.new_tokens
    whole = Generator(loaded, tokenizer).generate(prompt, GREEDY)
    again = fixed.generate(prompt, replace(GREEDY, max_new_tokens=40 - stopped.new_tokens), given_ids=stopped.ids)
    assert again.ids == whole.ids
    assert again.reused_tokens == len(prompt) + stopped.new_tokens - 1


def test_where_no_fixed_cache_can_be_had_the_answer_goes_on(monkeypatch):
    """A capture that fails, or too little memory, in the middle of an answer."""
    loaded, tokenizer = load_tiny("llama")
    expected = Generator(loaded, tokenizer).generate([20, 21, 22], GREEDY).ids
    tried = []

    def fails(self, *arguments):
        tried.append(arguments)
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(FixedSteps, "_captured", fails)
    result = Generator(loaded, tokenizer, decoding=Decoding(GRAPH)).generate([20, 21, 22], GREEDY)
    assert result.ids == expected
    assert result.method == "own"
    assert len(tried) == 1


def test_memory_that_ends_with_the_answer_costs_only_the_cache(monkeypatch):
    loaded, tokenizer = load_tiny("llama")
    fixed = Generator(loaded, tokenizer, decoding=FIXED_ALWAYS)
    expected = Generator(loaded, tokenizer).generate([20, 21, 22], GREEDY).ids

    def fails(self):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(FixedSteps, "finish", fails)
    assert fixed.generate([20, 21, 22], GREEDY).ids == expected
    assert fixed.cached_tokens == fixed.cached_bytes == 0
    monkeypatch.undo()
    assert fixed.generate([20, 21, 22], GREEDY).ids == expected


def test_prompt_lookup_and_short_answers_keep_the_growing_cache(steps_made):
    loaded, tokenizer = load_tiny("llama")
    fixed = Generator(loaded, tokenizer, decoding=Decoding(FIXED, worth_after=20))
    for options in (replace(GREEDY, prompt_lookup=4), replace(GREEDY, max_new_tokens=20)):
        fixed.generate(list(range(20, 40)), options, fresh=True)
    assert steps_made == []
    fixed.generate(list(range(20, 40)), replace(GREEDY, max_new_tokens=21), fresh=True)
    assert steps_made == [20]


def test_a_way_is_taken_only_if_it_is_faster_soon_and_gives_the_same(monkeypatch):
    slow = Trial(GROWING, step_seconds=0.010)
    taken = choose(slow, Trial(GRAPH, step_seconds=0.004, prepare_seconds=0.060))
    assert (taken.way, taken.worth_after) == (GRAPH, 11)
    assert taken.told == "4.0 ms as a CUDA graph, 10.0 ms a token pass by pass"
    assert choose(slow, Trial(GRAPH, step_seconds=0.010)).way == GROWING
    assert choose(slow, Trial(GRAPH, step_seconds=0.009, prepare_seconds=0.1)).way == GROWING
    refused = choose(slow, Trial(GRAPH, refused="its logits differ"))
    assert refused == Decoding(told="10.0 ms a token pass by pass; no CUDA graph: its logits differ")

    loaded, _ = load_tiny("llama")
    assert settle(loaded) == Decoding()  # nothing to measure on a CPU
    assert "ms a token pass by pass" in settle(loaded, FIXED).told
    step = FixedSteps.step
    monkeypatch.setattr(FixedSteps, "step", lambda self, token_id: step(self, token_id + 1))
    assert settle(loaded, FIXED).told.endswith("its logits differ")
    monkeypatch.setattr(loaded.model, "forward", lambda **_inputs: 1 / 0)
    assert settle(loaded, FIXED) == Decoding()  # a load does not fail by its trial


@pytest.mark.parametrize(
    ("name", "quant", "reason"),
    [("gemma3", "none", "windows or states"), ("llama", "int8", "outliers")],
)
def test_models_that_cannot_have_it(name, quant, reason):
    loaded, tokenizer = load_tiny(name)
    loaded.facts = replace(loaded.facts, quant=quant)
    generator = Generator(loaded, tokenizer)
    generator.generate(list(range(20, 40)), GREEDY)
    assert reason in fixed_steps.refusal(loaded, generator._cache)
