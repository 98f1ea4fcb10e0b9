"""What quantizing costs: the figures against the libraries' own."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from workbench.chat.compare import Task, VariantComparer, check_variants, compare_variants
from workbench.chat.divergence import LogitsFile, windows
from workbench.errors import JobCancelled, WorkbenchError
from workbench.job import Job
from workbench.models.load import LoadOptions, load_model, unload
from workbench.paths import data_dir
from workbench.tokens.tokenizer import load_tokenizer

pytestmark = [pytest.mark.model, pytest.mark.usefixtures("libraries")]

TEXT = "The quick brown fox jumps over the lazy dog. def add(a, b): return a + b. Numbers: 1, 2, 3 and 4.5."


@pytest.fixture
def tiny() -> Path:
    return data_dir("sample_models") / "tiny-llama"


def logits_of(directory: Path, options: LoadOptions, ids: list[int]):
    import torch

    loaded = load_model(directory, options)
    try:
        with torch.inference_mode():
            return loaded.model(torch.tensor([ids])).logits[0, :-1].float()
    finally:
        unload(loaded)


def test_figures_are_those_of_the_plain_formulas(tiny):
    import torch

    comparer = VariantComparer(tiny, Task(prompt="Hello", text=TEXT, max_new_tokens=8, device="cpu", layers=True))
    try:
        result = compare_variants("tiny", comparer, ["fp32", "bf16", "nf4"], "Hello")
    finally:
        comparer.close()
    tokenizer = load_tokenizer(str(tiny))
    ids = tokenizer.encode(TEXT, add_special_tokens=True)
    assert result.text_tokens == len(ids) - 1
    reference = logits_of(tiny, LoadOptions(dtype="float32", device="cpu"), ids)
    likelihood = torch.nn.functional.cross_entropy(reference, torch.tensor(ids[1:]))
    first, second, third = result.variants
    assert first.perplexity == pytest.approx(math.exp(float(likelihood)), rel=1e-4)
    assert first.divergence is None
    for report, options in (
        (second, LoadOptions(dtype="bfloat16", device="cpu")),
        (third, LoadOptions(quant="nf4", device="cpu")),
    ):
        found = logits_of(tiny, options, ids)
        each = torch.nn.functional.kl_div(
            found.log_softmax(-1), reference.log_softmax(-1), log_target=True, reduction="none"
        ).sum(-1)
        assert report.divergence.mean_kl == pytest.approx(float(each.mean()), rel=0.05, abs=1e-7)
        assert report.divergence.max_kl == pytest.approx(float(each.max()), rel=0.05, abs=1e-7)
        agreed = (found.argmax(-1) == reference.argmax(-1)).float().mean()
        assert report.divergence.top1_agreement == pytest.approx(float(agreed), abs=0.021)
    assert third.divergence.mean_kl > second.divergence.mean_kl > 0
    assert third.weights_bytes < second.weights_bytes < first.weights_bytes
    worst = third.divergence.places[0]
    assert worst.kl_divergence == third.divergence.max_kl
    assert TEXT.startswith(tokenizer.decode(ids[: worst.position]))
    others = (found.argmax(-1) != reference.argmax(-1)).nonzero()
    assert (third.divergence.first_other is None) == (third.divergence.top1_agreement == 1)
    if len(others) and third.divergence.first_other is not None:
        first_other = third.divergence.first_other
        assert first_other.position == int(others[0]) + 1
        assert first_other.reference != first_other.variant
    assert first.layers == second.layers == ()
    assert len(third.answer_ids) == 8 or third.answer_ids[-1] in (0, 1, 2)


@pytest.mark.parametrize("quant", ["nf4", "int8"])
def test_layer_errors_are_those_of_the_loaded_weights(tiny, quant):
    import bitsandbytes.functional as functional

    comparer = VariantComparer(tiny, Task(text=TEXT, layers=True, device="cpu"))
    try:
        report = comparer.measure(quant)
    finally:
        comparer.close()
    plain = load_model(tiny, LoadOptions(dtype=report.dtype, device="cpu"))
    held = load_model(tiny, LoadOptions(quant=quant, device="cpu"))
    try:
        weights = dict(plain.model.named_modules())
        assert report.layers
        for layer in report.layers:
            module = dict(held.model.named_modules())[layer.name]
            if quant == "int8":
                back = module.weight.CB.float() * module.weight.SCB[:, None].float() / 127.0
            else:
                back = functional.dequantize_4bit(module.weight.data, module.weight.quant_state).float()
            weight = weights[layer.name].weight.detach().float()
            assert layer.relative_error == pytest.approx(float((back - weight).norm() / weight.norm()), rel=1e-3)
            assert layer.worst_error == pytest.approx(float((back - weight).abs().max()), rel=1e-2)
        assert list(report.layers) == sorted(report.layers, key=lambda item: -item.relative_error)
    finally:
        unload(plain)
        unload(held)


class StopAtSecondLoad(Job):
    def __init__(self) -> None:
        self.loads = 0

    def progress(self, phase, done, total=None, unit="", detail=""):
        self.loads += phase == "config"

    def check(self) -> None:
        if self.loads > 1:
            raise JobCancelled("enough")


def test_what_was_measured_before_a_stop_is_kept(tiny):
    comparer = VariantComparer(tiny, Task(text=TEXT, device="cpu"))
    try:
        result = compare_variants("tiny", comparer, ["fp32", "bf16"], job=StopAtSecondLoad())
    finally:
        comparer.close()
    assert result.cancelled
    assert [report.name for report in result.variants] == ["fp32"]


def test_quantizing_the_real_model_costs_what_it_should(smollm2_dir):
    comparer = VariantComparer(smollm2_dir, Task(prompt="What is rain?", text=TEXT * 2, max_new_tokens=6))
    try:
        result = compare_variants("smollm2", comparer, ["bf16", "nf4"], "What is rain?")
    finally:
        comparer.close()
    plain, nf4 = result.variants
    assert (plain.weights_bytes, nf4.weights_bytes) == (269_030_272, 116_426_752)
    assert 1 < plain.perplexity < nf4.perplexity * 1.2
    assert 0.01 < nf4.divergence.mean_kl < 1
    assert nf4.divergence.mean_kl < nf4.divergence.p99_kl <= nf4.divergence.max_kl
    assert 0.5 < nf4.divergence.top1_agreement < 1
    assert plain.answer
    if plain.answer_ids != nf4.answer_ids:
        assert plain.answer_ids[: nf4.differs_at] == nf4.answer_ids[: nf4.differs_at]


@pytest.mark.parametrize("names", [["bf16"], ["bf16", "bf16"], ["bf16", "q4"], []])
def test_variants_are_two_different_known_ones(names):
    with pytest.raises(WorkbenchError, match="variant"):
        check_variants(names)


def test_a_long_text_is_read_in_windows():
    assert windows(list(range(10, 20)), 1, 5) == [[1, 10, 11, 12, 13], [1, 14, 15, 16, 17], [1, 18, 19]]
    assert windows(list(range(9)), None, 4) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_logits_come_back_from_the_file_as_they_were():
    import torch

    file = LogitsFile()
    blocks = [torch.randn(3, 7, dtype=torch.bfloat16), torch.randn(1, 7, dtype=torch.bfloat16)]
    for block in blocks:
        file.write(block)
    assert all(torch.equal(back, block) for back, block in zip(file.read(), blocks, strict=True))
    file.close()
