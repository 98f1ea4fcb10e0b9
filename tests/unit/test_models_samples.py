"""The tiny models that ship: each loads whole, with the tokenizer that its files say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench import paths
from workbench.models import samples
from workbench.models.resolve import resolve
from workbench.models.safetensors_header import read_checkpoint

pytestmark = pytest.mark.model

TINY = ["tiny-llama", "tiny-gpt2", "tiny-mixtral", "tiny-gemma3", "tiny-t5", "tiny-bert"]
AUTO = {"tiny-t5": "AutoModelForSeq2SeqLM", "tiny-bert": "AutoModelForMaskedLM"}


def folder(name: str) -> Path:
    return paths.data_dir("sample_models") / name


@pytest.mark.parametrize("name", TINY)
def test_loads_whole_and_has_the_count_of_the_manifest(name: str) -> None:
    import transformers

    auto = getattr(transformers, AUTO.get(name, "AutoModelForCausalLM"))
    model, report = auto.from_pretrained(folder(name), dtype="auto", output_loading_info=True)
    assert not any(report.values())
    assert str(model.dtype) == "torch.bfloat16"
    sample = samples.find(name)
    assert sample is not None
    assert sum(parameter.numel() for parameter in model.parameters()) == sample.parameters
    config = resolve(name).config
    assert config is not None
    assert type(model).__name__ == config["architectures"][0]
    assert config["vocab_size"] == model.config.vocab_size


@pytest.mark.parametrize("name", TINY)
def test_tokenizer_file_and_transformers_agree(name: str) -> None:
    import transformers
    from tokenizers import Tokenizer

    automatic = transformers.AutoTokenizer.from_pretrained(folder(name))
    own = Tokenizer.from_file(str(folder(name) / "tokenizer.json"))
    config = json.loads((folder(name) / "config.json").read_text())
    assert own.get_vocab_size() == config["vocab_size"]
    for text in (
        "Hello world 2024, it's  fine\n\n  x",
        "Ünïcödé 港 🎉 \t end",
        " lead",
        "<|im_start|>user",
        "</s><eos>",
    ):
        assert automatic(text)["input_ids"] == own.encode(text).ids
    if name not in ("tiny-gpt2", "tiny-t5", "tiny-bert"):
        prompt = automatic.apply_chat_template(
            [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
        )
        assert "Hi" in prompt


def test_each_has_the_shape_it_is_there_for() -> None:
    shapes = {name: {tensor.name: tensor.shape for tensor in read_checkpoint(folder(name))} for name in TINY}
    assert shapes["tiny-llama"]["model.layers.0.self_attn.k_proj.weight"] == (32, 64)
    assert shapes["tiny-gpt2"]["transformer.h.0.attn.c_attn.weight"] == (64, 192)
    assert "model.layers.0.block_sparse_moe.experts.3.w1.weight" in shapes["tiny-mixtral"]
    assert "model.layers.0.self_attn.q_norm.weight" in shapes["tiny-gemma3"]
    assert "decoder.block.1.layer.1.EncDecAttention.k.weight" in shapes["tiny-t5"]
    assert "cls.predictions.transform.dense.weight" in shapes["tiny-bert"]
