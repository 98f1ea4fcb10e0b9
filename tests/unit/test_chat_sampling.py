"""The sampler against transformers' own processors, and its promises about seeds."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from workbench.chat.options import SamplingOptions, options_of
from workbench.chat.sampling import Sampler
from workbench.errors import WorkbenchError

NEUTRAL = SamplingOptions(temperature=1.0, top_p=1.0, top_k=0)


def reference(logits, prompt, options):
    """Probabilities after transformers' processors, in the order of ``_get_logits_processor``."""
    import torch
    import transformers as hf

    chain = []
    if options.repetition_penalty != 1.0:
        chain.append(hf.RepetitionPenaltyLogitsProcessor(options.repetition_penalty))
    if options.no_repeat_ngram_size:
        chain.append(hf.NoRepeatNGramLogitsProcessor(options.no_repeat_ngram_size))
    if options.temperature != 1.0:
        chain.append(hf.TemperatureLogitsWarper(options.temperature))
    if options.top_k:
        chain.append(hf.TopKLogitsWarper(options.top_k))
    if options.top_p < 1.0:
        chain.append(hf.TopPLogitsWarper(options.top_p))
    if options.min_p:
        chain.append(hf.MinPLogitsWarper(options.min_p))
    return hf.LogitsProcessorList(chain)(torch.tensor([prompt]), logits[None].clone()).softmax(-1)[0]


def ours(logits, prompt, options):
    import torch

    probabilities, ids = Sampler(options, prompt).distribution(logits)
    if ids is None:
        return probabilities
    return torch.zeros_like(logits).index_put((ids,), probabilities)


CASES = [
    NEUTRAL,
    replace(NEUTRAL, temperature=0.7),
    replace(NEUTRAL, top_k=40),
    replace(NEUTRAL, top_k=5000),
    replace(NEUTRAL, top_p=0.9),
    replace(NEUTRAL, top_p=0.01),
    replace(NEUTRAL, min_p=0.05),
    replace(NEUTRAL, temperature=1.7, top_k=50, top_p=0.8),
    replace(NEUTRAL, temperature=0.6, top_k=20, top_p=0.95, min_p=0.1),
    replace(NEUTRAL, temperature=0.6, top_p=0.95, min_p=0.1),
    replace(NEUTRAL, repetition_penalty=1.3),
    replace(NEUTRAL, repetition_penalty=0.8, top_k=10),
    replace(NEUTRAL, no_repeat_ngram_size=1),
    replace(NEUTRAL, no_repeat_ngram_size=2),
    replace(NEUTRAL, no_repeat_ngram_size=3, top_k=30),
    SamplingOptions(0.8, 0.9, 40, 0.02, 1.15, 3),
]


@pytest.mark.model
@pytest.mark.parametrize("options", CASES, ids=str)
def test_distributions_equal_transformers(options):
    import torch

    rng = torch.Generator().manual_seed(1)
    for size, spread in ((500, 1.0), (6000, 3.0), (49152, 4.0)):
        prompt = torch.randint(0, 12, (60,), generator=rng).tolist()
        logits = torch.randn(size, generator=rng) * spread
        logits[:12] += 4 * spread  # so that penalties and bans meet probable tokens
        torch.testing.assert_close(ours(logits, prompt, options), reference(logits, prompt, options))


@pytest.mark.model
@pytest.mark.parametrize("options", CASES[:11], ids=str)
def test_distributions_equal_transformers_with_ties(options):
    """bfloat16 logits tie often; which of equals goes is open, how much probability is left is not."""
    import torch

    logits = torch.randn(20_000, generator=torch.Generator().manual_seed(3)).mul(3).bfloat16().float()
    mine, theirs = ours(logits, [1, 2, 3], options), reference(logits, [1, 2, 3], options)
    assert int((mine > 0).sum()) == int((theirs > 0).sum())
    torch.testing.assert_close(mine.sort().values, theirs.sort().values)


@pytest.mark.model
def test_penalties_remember_what_was_generated():
    import torch

    options = replace(NEUTRAL, repetition_penalty=1.5, no_repeat_ngram_size=3)
    rng = torch.Generator().manual_seed(5)
    context = [3, 4, 5, 3, 4]
    sampler = Sampler(options, context)
    for _ in range(60):
        logits = torch.randn(8, generator=rng) * 3
        got = sampler.distribution(logits)[0]
        torch.testing.assert_close(got, reference(logits, context, options))
        if not math.isfinite(float(got.sum())):
            break
        context.append(int(torch.randint(0, 8, (1,), generator=rng)))
        sampler.accept(context[-1])


@pytest.mark.model
@pytest.mark.parametrize("options", [NEUTRAL, replace(NEUTRAL, top_k=6), replace(NEUTRAL, top_p=0.8)], ids=str)
def test_tokens_come_as_often_as_the_distribution_says(options):
    import torch

    logits = torch.tensor([0.0, 2.0, 1.0, -1.0, 1.5, -math.inf, 0.5, 3.0])
    sampler = Sampler(replace(options, seed=7), [])
    counts = torch.zeros(8)
    for _ in range(4000):
        counts[sampler.choose(logits).id] += 1
    expected = ours(logits, [], options)
    assert set(counts.nonzero().flatten().tolist()) == set(expected.nonzero().flatten().tolist())
    torch.testing.assert_close(counts / 4000, expected, atol=0.03, rtol=0)


@pytest.mark.model
def test_the_same_seed_makes_the_same_choices():
    import torch

    logits = torch.randn(200, 1000, generator=torch.Generator().manual_seed(2))
    draws = [
        [sampler.choose(row).id for row in logits]
        for sampler in (Sampler(SamplingOptions(seed=seed), []) for seed in (11, 11, 12))
    ]
    assert draws[0] == draws[1] != draws[2]
    unseeded = Sampler(SamplingOptions(), [])
    again = Sampler(SamplingOptions(seed=unseeded.seed), [])
    assert [unseeded.choose(row).id for row in logits] == [again.choose(row).id for row in logits]


@pytest.mark.model
def test_choice_reports_the_models_own_probabilities():
    import torch

    logits = torch.randn(5000, generator=torch.Generator().manual_seed(4)).bfloat16()
    choice = Sampler(SamplingOptions(greedy=True, repetition_penalty=2.0), [1], alternatives=5).choose(logits)
    logprobs = logits.float().log_softmax(0)
    best = logprobs.topk(5)
    assert choice.id == int(best.indices[0])
    assert choice.logprob == pytest.approx(float(best.values[0]), abs=1e-4)
    assert [item for item, _ in choice.alternatives] == best.indices.tolist()
    assert [value for _, value in choice.alternatives] == pytest.approx(best.values.tolist(), abs=1e-4)


@pytest.mark.model
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("greedy", [True, False])
def test_non_finite_logits_are_told(bad, greedy):
    import torch

    logits = torch.zeros(100)
    logits[17] = bad
    assert not Sampler(SamplingOptions(greedy=greedy, seed=1), []).choose(logits).finite
    logits[17] = -math.inf  # a masked token is no defect
    choice = Sampler(SamplingOptions(greedy=greedy, seed=1), []).choose(logits)
    assert choice.finite
    assert choice.id != 17


@pytest.mark.parametrize(
    "options",
    [
        SamplingOptions(temperature=-1),
        SamplingOptions(temperature=math.nan),
        SamplingOptions(top_p=0),
        SamplingOptions(top_p=1.1),
        SamplingOptions(top_k=-1),
        SamplingOptions(top_k=2.5),
        SamplingOptions(min_p=2),
        SamplingOptions(repetition_penalty=0),
        SamplingOptions(no_repeat_ngram_size=-2),
        SamplingOptions(max_new_tokens=0),
        SamplingOptions(max_new_tokens=True),
        SamplingOptions(seed=-5),
        SamplingOptions(stop=("",)),
        SamplingOptions(temperature="hot"),
    ],
    ids=str,
)
def test_values_out_of_range_are_one_line(options):
    with pytest.raises(WorkbenchError) as caught:
        options.validate()
    assert caught.value.kind == "bad-option"
    assert "\n" not in str(caught.value)


def test_edges_are_valid():
    SamplingOptions(temperature=0, top_p=1, top_k=0, min_p=1, stop=("a", "\n"), seed=0).validate()
    assert SamplingOptions(temperature=0).is_greedy


@pytest.mark.model
def test_options_of_a_generation_config():
    import transformers

    config = transformers.GenerationConfig(do_sample=True, temperature=0.6, top_k=20, top_p=0.95)
    assert options_of(config) == SamplingOptions(0.6, 0.95, 20)
    assert options_of(transformers.GenerationConfig()).is_greedy
