"""Conversion of GGUF files, held against the models they were made from and against transformers' own loader."""

from __future__ import annotations

import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import pytest

from workbench import paths
from workbench.errors import JobCancelled, WorkbenchError
from workbench.job import Job
from workbench.models.gguf import read_gguf
from workbench.models.gguf_config import config_from_gguf
from workbench.models.gguf_convert import CONVERTER_VERSION, conversion_note, convert_gguf, converted_directory
from workbench.models.gguf_tokenizer import convert_tokenizer
from workbench.models.resolve import resolve
from workbench.models.weights import check_weights

pytestmark = pytest.mark.model
SAMPLES = paths.data_dir("sample_models")

SHAPE = {
    "vocab_size": 640,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **SHAPE, "head_dim": 16, "rms_norm_eps": 1e-5},
    "llama-3.1": {"model_type": "llama", **SHAPE, "rope_theta": 500000.0, "rope_scaling": LLAMA3_ROPE},
    "mixtral": {"model_type": "mixtral", **SHAPE, "num_local_experts": 3, "num_experts_per_tok": 2},
    "qwen2": {"model_type": "qwen2", **SHAPE, "rope_theta": 1000000.0},
    "qwen3": {"model_type": "qwen3", **SHAPE, "head_dim": 32, "tie_word_embeddings": True},
    "qwen3_moe": {
        "model_type": "qwen3_moe",
        **SHAPE,
        "head_dim": 16,
        "num_experts": 3,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "norm_topk_prob": True,
    },
    "gemma": {"model_type": "gemma", **SHAPE, "head_dim": 16, "tie_word_embeddings": True},
    "gemma2": {
        "model_type": "gemma2",
        **SHAPE,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 4,
        "tie_word_embeddings": True,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        **SHAPE,
        "num_hidden_layers": 6,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 4,
        "tie_word_embeddings": True,
    },
    "phi3": {"model_type": "phi3", **SHAPE, "pad_token_id": 0, "sliding_window": 4},
    "gpt2": {"model_type": "gpt2", "vocab_size": 640, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64},
}
# The names of gguf-py for what transformers calls otherwise.
ARCHITECTURES = {"mixtral": "llama", "qwen3_moe": "qwen3moe", "gemma3_text": "gemma3"}


def make_model(settings: dict[str, Any]) -> Any:
    import torch
    import transformers

    torch.manual_seed(7)
    config = transformers.AutoConfig.for_model(**settings)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                # Multiples of 1/64 survive the one that is added to Gemma's norms.
                parameter.copy_(torch.randint(-32, 33, parameter.shape) / 64 + ("norm" in name or "ln" in name))
            parameter.copy_(parameter.to(torch.bfloat16).float())
    return model


def write_gguf(path: Path, model: Any, tokenizer: Path = SAMPLES / "tiny-llama") -> Path:
    """Write `model` as llama.cpp's converter does, in 32-bit floats, with the vocabulary of a tokenizer.json."""
    import gguf

    config = model.config.to_dict()
    model_type = config["model_type"]
    architecture = ARCHITECTURES.get(model_type, model_type)
    writer = gguf.GGUFWriter(path, architecture)
    write_header(writer, model.config, model_type)
    write_vocabulary(writer, json.loads((tokenizer / "tokenizer.json").read_text()))
    arch = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
    names = gguf.get_tensor_name_map(arch, model.config.num_hidden_layers)
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(rope, model.config.head_dim))
    for name, values in stacked_experts(model).items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        stem, _, kind = name.rpartition(".")
        values = forward_transform(name, values, model.config, model_type)
        target = names.get_name(stem)
        assert target is not None, name
        writer.add_tensor(f"{target}.{kind}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_header(writer: Any, config: Any, model_type: str) -> None:
    values = config.to_dict()
    rope = values.get("rope_parameters") or {}
    writer.add_context_length(values.get("max_position_embeddings") or values["n_positions"])
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    if model_type == "gpt2":
        writer.add_feed_forward_length(4 * config.hidden_size)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    full = rope.get("full_attention", rope)
    writer.add_rope_freq_base(full["rope_theta"])
    if values.get("head_dim"):
        writer.add_key_length(values["head_dim"])
        writer.add_value_length(values["head_dim"])
    if "num_local_experts" in values or "num_experts" in values:
        writer.add_expert_count(values.get("num_experts") or values["num_local_experts"])
        writer.add_expert_used_count(config.num_experts_per_tok)
        if model_type == "qwen3_moe":
            writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if values.get("sliding_window"):
        writer.add_sliding_window(config.sliding_window)
    if model_type == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if model_type == "phi3":
        writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)


def write_vocabulary(writer: Any, tokenizer: dict[str, Any]) -> None:
    vocab = tokenizer["model"]["vocab"]
    control = {token["content"] for token in tokenizer["added_tokens"]}
    tokens = sorted(vocab, key=vocab.get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in control else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template("{{ messages[0]['content'] }}")


def llama3_factors(rope: dict[str, Any], head_dim: int) -> Any:
    """The division of each inverse frequency that transformers' own function makes, as llama.cpp stores it."""
    import torch
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(hidden_size=64, num_attention_heads=4, head_dim=head_dim, rope_parameters=rope)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1.0 / rope["rope_theta"] ** (torch.arange(0, head_dim, 2).float() / head_dim)
    return (plain / scaled).numpy()


def stacked_experts(model: Any) -> dict[str, Any]:
    """Tensors under their checkpoint names, experts stacked as GGUF has them."""
    result = {}
    for name, tensor in model.state_dict().items():
        if name.endswith("experts.gate_up_proj"):
            gate, up = tensor.chunk(2, dim=1)
            base = name.removesuffix("gate_up_proj")
            result[base + "gate_proj.weight"], result[base + "up_proj.weight"] = gate, up
        elif name.endswith("experts.down_proj"):
            result[name + ".weight"] = tensor
        else:
            result[name] = tensor
    return {name: tensor.numpy() for name, tensor in result.items()}


def forward_transform(name: str, values: Any, config: Any, model_type: str) -> Any:
    import numpy

    if model_type in ("llama", "mixtral") and ("q_proj" in name or "k_proj" in name):
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
        values = halves.swapaxes(1, 2).reshape(values.shape)
    if model_type.startswith("gemma") and name.endswith("norm.weight"):
        values = values + numpy.float32(1)
    if model_type == "gpt2" and values.ndim == 2 and ".h." in name:
        values = values.T
    return numpy.ascontiguousarray(values)


@pytest.mark.parametrize("name", SETTINGS)
def test_converted_model_computes_what_its_original_does(name: str, tmp_path: Path) -> None:
    import torch
    import transformers

    model = make_model(SETTINGS[name])
    directory = convert_gguf(write_gguf(tmp_path / "model.gguf", model))
    check_weights(directory)
    converted, report = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values())
    assert type(converted) is type(model)
    ours, theirs = converted.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    for key in theirs:
        assert torch.equal(ours[key], theirs[key]), key
    ids = torch.arange(3, 35)[None]
    with torch.no_grad():
        torch.testing.assert_close(converted(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-6)


# Without qwen3: transformers takes its head_dim from the class default, not from the file.
@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma2", "gemma3", "phi3"])
def test_weights_equal_those_of_the_loader_of_transformers(name: str, tmp_path: Path) -> None:
    import torch
    import transformers

    path = write_gguf(tmp_path / "model.gguf", make_model(SETTINGS[name]))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=path.name, dtype=torch.float32
    ).state_dict()
    ours = transformers.AutoModelForCausalLM.from_pretrained(convert_gguf(path), dtype=torch.float32).state_dict()
    assert ours.keys() == theirs.keys()
    for key in theirs:
        assert torch.equal(ours[key], theirs[key].to(torch.bfloat16).float()), key


def test_large_checkpoint_is_sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    import transformers

    monkeypatch.setattr("workbench.models.gguf_convert.SHARD_BYTES", 100_000)
    monkeypatch.setattr("workbench.models.gguf_convert.CHUNK_ELEMENTS", 1000)
    model = make_model(SETTINGS["llama"])
    directory = convert_gguf(write_gguf(tmp_path / "model.gguf", model))
    assert len(list(directory.glob("model-*-of-*.safetensors"))) > 1
    check_weights(directory)
    converted = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    for key, tensor in model.state_dict().items():
        assert torch.equal(converted.state_dict()[key], tensor), key


def test_quantized_blocks_are_the_values_of_gguf_py(tmp_path: Path) -> None:
    import gguf
    import numpy

    from workbench.models.gguf_convert import to_bfloat16

    source = write_gguf(tmp_path / "full.gguf", make_model(SETTINGS["llama"]))
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(tmp_path / "small.gguf", "llama")
    write_header(writer, make_model(SETTINGS["llama"]).config, "llama")
    write_vocabulary(writer, json.loads((SAMPLES / "tiny-llama" / "tokenizer.json").read_text()))
    expected = {}
    for tensor, kind in zip(reader.tensors, ["Q4_0", "Q8_0", "Q5_1", "F16", "BF16"] * 99, strict=False):
        quantization = gguf.GGMLQuantizationType[kind if len(tensor.shape) > 1 else "F32"]
        blocks = gguf.quantize(tensor.data, quantization)
        expected[tensor.name] = gguf.dequantize(blocks, quantization)
        writer.add_tensor(tensor.name, blocks, raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    stored = (convert_gguf(tmp_path / "small.gguf") / "model.safetensors").read_bytes()
    # Attention output and MLP are stored as they are; q and k are reordered and tested elsewhere.
    for name in ("blk.0.attn_output.weight", "blk.1.ffn_up.weight", "token_embd.weight", "blk.1.ffn_down.weight"):
        assert to_bfloat16(numpy.ascontiguousarray(expected[name])).tobytes() in stored


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q6_K"])
def test_any_bytes_decode_to_the_values_of_gguf_py(kind: str) -> None:
    import gguf
    import numpy

    from workbench.models.gguf import GgufTensor
    from workbench.models.gguf_blocks import decode_rows

    number = gguf.GGMLQuantizationType[kind]
    elements, size = gguf.GGML_QUANT_SIZES[number]
    row_bytes = 512 // elements * size
    raw = numpy.random.default_rng(5).integers(0, 256, (40, row_bytes), dtype=numpy.uint8)
    tensor = GgufTensor("x", (40, 512), kind, int(number), 0, raw.size)
    with numpy.errstate(all="ignore"):
        theirs = gguf.dequantize(raw, number).astype(numpy.float32).reshape(-1)
        ours = decode_rows(raw.reshape(-1), tensor)
    assert numpy.array_equal(ours, theirs, equal_nan=True)


def test_common_blocks_need_no_gguf_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(tmp_path / "model.gguf", make_model(SETTINGS["llama"]))
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert (convert_gguf(path) / "model.safetensors").is_file()


def test_bfloat16_rounding_is_that_of_torch() -> None:
    import numpy
    import torch

    from workbench.models.gguf_convert import to_bfloat16

    bits = numpy.random.default_rng(3).integers(0, 2**32, 200_000, dtype=numpy.uint32)
    edge = numpy.array([0, 1 << 31, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x3F808000, 0x3F818000, 1], numpy.uint32)
    values = numpy.concatenate([bits, edge]).view(numpy.float32)
    theirs = torch.from_numpy(values).to(torch.bfloat16)
    ours = torch.from_numpy(to_bfloat16(values).view(numpy.int16)).view(torch.bfloat16)
    assert torch.equal(torch.isnan(ours), torch.isnan(theirs))
    kept = ~torch.isnan(theirs)
    assert torch.equal(ours[kept].view(torch.int16), theirs[kept].view(torch.int16))


class StopAt(Job):
    def __init__(self, tensors: int) -> None:
        self.tensors, self.done, self.totals = tensors, 0, set()

    def progress(self, phase: str, done: int, total: int | None = None, unit: str = "", detail: str = "") -> None:
        assert (phase, unit) == ("convert", "tensors")
        self.done = done
        self.totals.add(total)

    def check(self) -> None:
        if self.done >= self.tensors:
            raise JobCancelled


def test_cancelled_conversion_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", make_model(SETTINGS["llama"]))
    job = StopAt(5)
    with pytest.raises(JobCancelled):
        convert_gguf(path, job)
    assert job.totals == {21}
    base = paths.cache_dir() / "converted"
    assert [entry.name for entry in base.iterdir() if not entry.name.endswith(".lock")] == []
    assert (convert_gguf(path) / "model.safetensors").is_file()


def convert_and_stat(path: Path, queue: Any) -> None:
    queue.put((convert_gguf(path) / "model.safetensors").stat().st_ino)


def test_two_processes_make_one_directory(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", make_model(SETTINGS["qwen2"]))
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    children = [context.Process(target=convert_and_stat, args=(path, queue)) for _ in range(2)]
    for child in children:
        child.start()
    inodes = {queue.get(timeout=90) for _ in children}
    for child in children:
        child.join()
    assert len(inodes) == 1
    check_weights(converted_directory(read_gguf(path)))


def test_unknown_architecture_and_tensor_are_named(tmp_path: Path) -> None:
    import gguf
    import numpy

    writer = gguf.GGUFWriter(tmp_path / "odd.gguf", "mamba")
    writer.add_tensor("token_embd.weight", numpy.zeros((4, 4), numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(WorkbenchError, match=r"mamba.*gemma3.*llama.*qwen3") as caught:
        convert_gguf(tmp_path / "odd.gguf")
    assert caught.value.kind == "unsupported"
    found = resolve(str(tmp_path / "odd.gguf"))
    assert found.config is None
    assert "mamba" in found.note


def test_missing_tensor_is_corrupt(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", make_model(SETTINGS["llama"]))
    data = path.read_bytes().replace(b"token_embd", b"token_embx")
    path.write_bytes(data)
    with pytest.raises(WorkbenchError, match="token_embd"):
        convert_gguf(path)


def test_layer_without_a_tensor_is_not_converted(tmp_path: Path) -> None:
    import gguf

    source = gguf.GGUFReader(write_gguf(tmp_path / "whole.gguf", make_model(SETTINGS["llama"])))
    model = make_model(SETTINGS["llama"])
    writer = gguf.GGUFWriter(tmp_path / "part.gguf", "llama")
    write_header(writer, model.config, "llama")
    write_vocabulary(writer, json.loads((SAMPLES / "tiny-llama" / "tokenizer.json").read_text()))
    for tensor in source.tensors:
        if tensor.name != "blk.1.ffn_up.weight":
            writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(WorkbenchError, match="every tensor of its 2 layers") as caught:
        convert_gguf(tmp_path / "part.gguf")
    assert caught.value.kind == "corrupt-file"


def test_unknown_pre_tokenizer_is_said(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", make_model(SETTINGS["llama"]))
    path.write_bytes(path.read_bytes().replace(b"smollm", b"smollx"))
    assert "smollx" in conversion_note(convert_gguf(path))
    assert "smollx" in convert_tokenizer(read_gguf(path)).note


@pytest.fixture(scope="module")
def smollm2_gguf(smollm2_dir: Path) -> Path:
    note = json.loads((smollm2_dir / "workbench.json").read_text())
    assert note["converter"] == CONVERTER_VERSION
    return Path(note["source"])


def test_smollm2_weights_and_config_equal_the_loader_of_transformers(smollm2_dir: Path, smollm2_gguf: Path) -> None:
    import torch
    import transformers
    from safetensors.torch import load_file

    reference = transformers.AutoModelForCausalLM.from_pretrained(
        smollm2_gguf.parent, gguf_file=smollm2_gguf.name, dtype=torch.bfloat16
    )
    ours = load_file(smollm2_dir / "model.safetensors")
    theirs = reference.state_dict()
    assert set(theirs) - set(ours) == {"lm_head.weight"}
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    config = config_from_gguf(read_gguf(smollm2_gguf))
    config.pop("architectures")
    config.pop("torch_dtype")
    assert config.pop("rms_norm_eps") == pytest.approx(reference.config.rms_norm_eps)
    assert config.pop("rope_theta") == reference.config.rope_parameters["rope_theta"]
    for key, value in config.items():
        assert getattr(reference.config, key) == value, key


def test_smollm2_tokenizer_splits_digits_and_knows_its_specials(smollm2_dir: Path) -> None:
    import transformers
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(smollm2_dir / "tokenizer.json"))
    assert tokenizer.encode("12345").tokens == ["1", "2", "3", "4", "5"]
    assert tokenizer.encode("<|im_start|>a<|im_end|>").ids[0::2] == [1, 2]
    automatic = transformers.AutoTokenizer.from_pretrained(smollm2_dir)
    for text in ("In 2024, 12345 ships", "  x\n\n\ty don't ½", "港🎉 ünï", "<|im_start|>user\nhi<|im_end|>\n"):
        ids = tokenizer.encode(text).ids
        assert automatic(text)["input_ids"] == ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_smollm2_answers_paris(smollm2_dir: Path) -> None:
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(smollm2_dir, dtype=torch.bfloat16)
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2_dir)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    answer = model.generate(**prompt, max_new_tokens=16, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
    assert int(answer[-1]) == 2
