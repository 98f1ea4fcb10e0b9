"""Static bytes and KV cache against what transformers and bitsandbytes really hold: no byte of difference."""

from __future__ import annotations

import dataclasses
import json

import pytest

from workbench.architecture.build import build_skeleton
from workbench.errors import WorkbenchError
from workbench.vram.estimate import estimate, fits
from workbench.vram.gpus import parse_gpu
from workbench.vram.kv_cache import kv_cache_bytes
from workbench.vram.plan import Plan, check_plan
from workbench.vram.shares import CATEGORIES
from workbench.vram.weights import quantized_modules, weight_bytes

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

LLAMA = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
LATENT = {
    **LLAMA,
    **{"num_key_value_heads": 4, "kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8},
    **{"qk_nope_head_dim": 16, "v_head_dim": 16, "n_routed_experts": 8, "num_experts_per_tok": 2},
    **{"n_group": 2, "topk_group": 1, "moe_intermediate_size": 32, "first_k_dense_replace": 1},
}
SLIDING = {
    **LLAMA,
    **{"num_hidden_layers": 4, "head_dim": 24, "sliding_window": 8},
    "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"],
}
DECODERS = {
    "llama": LLAMA,
    "qwen3": {**LLAMA, "head_dim": 32, "tie_word_embeddings": True},
    "mistral": {**LLAMA, "sliding_window": 8},
    "gemma3_text": SLIDING,
    "gpt2": {"vocab_size": 96, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 128},
    "gpt_bigcode": {"vocab_size": 96, "n_embd": 64, "n_layer": 3, "n_head": 4, "multi_query": True},
    "falcon": {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4},
    "bloom": {"vocab_size": 96, "hidden_size": 64, "n_layer": 3, "n_head": 4},
    "phi3": {**LLAMA, "pad_token_id": 0},
    "mixtral": {**LLAMA, "num_local_experts": 4},
    "qwen3_moe": {**LLAMA, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 32},
    "gpt_oss": {**LLAMA, "num_local_experts": 4, "head_dim": 16, "sliding_window": 8},
    "deepseek_v3": LATENT,
}
OTHERS = {
    "t5": {
        "vocab_size": 96,
        "d_model": 64,
        "d_kv": 8,
        "d_ff": 96,
        "num_layers": 2,
        "num_decoder_layers": 3,
        "num_heads": 4,
    },
    "bert": {
        **{"vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "max_position_embeddings": 64},
    },
    "mamba": {"vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2, "state_size": 8},
}
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
_GATED = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 16}
RECURRENT = {
    "mamba": OTHERS["mamba"],
    "mamba2": {**OTHERS["mamba"], "num_heads": 8, "head_dim": 16, "n_groups": 2},
    "jamba": {
        **{**LLAMA, "num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
        **{"num_experts": 2, "use_mamba_kernels": False, "mamba_d_state": 8},
    },
    "bamba": {**LLAMA, **_MAMBA, "attn_layer_indices": [1]},
    "falcon_h1": {**LLAMA, **_MAMBA, "mamba_d_ssm": 128},
    "qwen3_next": {
        **{**LLAMA, **_GATED, "num_hidden_layers": 4, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2},
        **{"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32},
    },
    "lfm2": {**LLAMA, "full_attn_idxs": [2], "block_multiple_of": 32},
    "zamba2": {
        **{**LLAMA, "num_hidden_layers": 4, "hybrid_layer_ids": [1], "mamba_ngroups": 1, "mamba_d_state": 8},
        **{"n_mamba_heads": 8, "layers_block_type": ["mamba", "hybrid", "mamba", "mamba"]},
    },
    "nemotron_h": {
        **{**LLAMA, "head_dim": 16, "mamba_num_heads": 8, "mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 1},
        "layers_block_type": ["mamba", "attention", "moe"],
    },
}
MODES = [
    *(("none", False), ("nf4", False), ("nf4", True), ("fp4", False), ("fp4", True), ("int8", False)),
]
SMOLLM2 = {
    **{"model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536},
    **{"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3},
    **{"max_position_embeddings": 8192, "tie_word_embeddings": True, "rope_theta": 100000.0},
}


def tensors_inside(value, found, seen=None):
    """Bytes by storage of every tensor that `value` holds, whatever holds it."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return found
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        found[value.untyped_storage()._cdata] = value.untyped_storage().nbytes()
        inner = vars(value)
    elif type(value).__module__.startswith(("transformers.cache", "bitsandbytes")):
        inner = getattr(value, "__dict__", {})
    else:
        inner = value
    if isinstance(inner, dict):
        inner = list(inner.values())
    if isinstance(inner, (list, tuple)):
        for item in inner:
            tensors_inside(item, found, seen)
    return found


def held_by_model(model):
    tensors = [*model.parameters(), *model.buffers()]
    states = [getattr(module, "state", None) for module in model.modules()]
    return sum(tensors_inside([tensors, states], {}).values())


def quantization(quant, double_quant):
    if quant == "none":
        return {}
    pytest.importorskip("bitsandbytes")
    if quant == "int8":
        config = transformers.BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type=quant, bnb_4bit_use_double_quant=double_quant
        )
    return {"quantization_config": config}


def made(model_type, values):
    skeleton = build_skeleton({**values, "model_type": model_type})
    config = transformers.CONFIG_MAPPING[model_type](**values)
    return skeleton, getattr(transformers, skeleton.architecture), config


@pytest.mark.parametrize("model_type", [*DECODERS, *OTHERS])
def test_static_bytes_equal_what_is_loaded(tmp_path, model_type):
    skeleton, model_class, config = made(model_type, {**DECODERS, **OTHERS}[model_type])
    model_class(config).save_pretrained(tmp_path)
    differences = []
    for dtype in ("float32", "bfloat16", "float16"):
        for quant, double_quant in MODES:
            loaded = model_class.from_pretrained(
                tmp_path, dtype=getattr(torch, dtype), **quantization(quant, double_quant)
            )
            expected = weight_bytes(skeleton, Plan(quant=quant, double_quant=double_quant, dtype=dtype)).total
            if held_by_model(loaded) != expected:
                differences.append((dtype, quant, double_quant, held_by_model(loaded), expected))
            converted = {
                name
                for name, module in loaded.named_modules()
                if type(module).__name__ in ("Linear4bit", "Linear8bitLt")
            }
            if quant != "none":
                assert converted == quantized_modules(skeleton)
    assert not differences


def test_static_bytes_of_smollm2():
    # Loaded and measured with transformers 5.23 and bitsandbytes 0.50.2.
    skeleton = build_skeleton(SMOLLM2)
    measured = {
        ("none", False, "bfloat16"): 269_030_272,
        ("none", False, "float32"): 538_060_288,
        ("nf4", True, "bfloat16"): 111_692_152,
        ("nf4", False, "bfloat16"): 116_426_752,
        ("nf4", True, "float32"): 168_385_528,
        ("int8", False, "bfloat16"): 163_484_032,
    }
    for (quant, double_quant, dtype), size in measured.items():
        plan = Plan(quant=quant, double_quant=double_quant, dtype=dtype)
        assert weight_bytes(skeleton, plan).total == size, plan


@pytest.mark.parametrize(("quant", "double_quant"), [("none", False), ("nf4", True), ("int8", False)])
def test_static_bytes_of_a_model_of_smollm2s_shape(tmp_path, quant, double_quant):
    values = {**SMOLLM2, "num_hidden_layers": 3}
    skeleton, model_class, config = made("llama", {key: value for key, value in values.items() if key != "model_type"})
    with torch.device("meta"):
        model = model_class(config)
    model.to_empty(device="cpu").to(torch.bfloat16)
    # Emptied separately, head and embedding would be saved as two tensors and loaded untied.
    model.tie_weights()
    model.save_pretrained(tmp_path)
    loaded = model_class.from_pretrained(tmp_path, dtype=torch.bfloat16, **quantization(quant, double_quant))
    plan = Plan(quant=quant, double_quant=double_quant)
    assert held_by_model(loaded) == weight_bytes(skeleton, plan).total


@pytest.mark.parametrize("model_type", DECODERS)
def test_kv_cache_equals_what_generation_holds(model_type):
    skeleton, model_class, config = made(model_type, DECODERS[model_type])
    model = model_class(config).eval().to(torch.bfloat16)
    for batch, prompt, new_tokens in ((1, 5, 1), (2, 20, 1), (2, 20, 3), (1, 6, 6), (1, 3, 12)):
        cache = transformers.DynamicCache(config=model.config)
        with torch.no_grad():
            model(torch.ones(batch, prompt, dtype=torch.long), past_key_values=cache)
            for _ in range(new_tokens - 1):
                model(torch.ones(batch, 1, dtype=torch.long), past_key_values=cache)
        plan = Plan(batch=batch, sequence_length=prompt, new_tokens=new_tokens)
        held = sum(tensors_inside(cache, {}).values())
        assert kv_cache_bytes(skeleton, plan).at_end == held, plan


@pytest.mark.parametrize("model_type", RECURRENT)
def test_recurrent_state_equals_what_generation_holds(model_type):
    skeleton, model_class, config = made(model_type, RECURRENT[model_type])
    model = model_class(config).eval().to(torch.bfloat16)
    name = "cache_params" if model_type.startswith("mamba") else "past_key_values"
    for batch, prompt, new_tokens in ((2, 7, 1), (1, 20, 4)):
        cache = transformers.DynamicCache(config=model.config)
        with torch.no_grad():
            for length in (prompt, *[1] * (new_tokens - 1)):
                model(torch.ones(batch, length, dtype=torch.long), use_cache=True, **{name: cache})
        found = kv_cache_bytes(skeleton, Plan(batch=batch, sequence_length=prompt, new_tokens=new_tokens))
        assert found.at_end == sum(tensors_inside(cache, {}).values())
        assert not found.uncovered_kinds


@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "deepseek_v3"])
def test_a_static_cache_is_there_from_the_start(model_type):
    skeleton, model_class, config = made(model_type, DECODERS[model_type])
    model = model_class(config).eval().to(torch.bfloat16)
    cache = transformers.StaticCache(config=model.config, max_cache_len=20 + 5 - 1)
    with torch.no_grad():
        model(torch.ones(2, 20, dtype=torch.long), past_key_values=cache)
    found = kv_cache_bytes(skeleton, Plan(batch=2, sequence_length=20, new_tokens=5, cache="static"))
    assert found.after_prefill == found.at_end == sum(tensors_inside(cache, {}).values())


def test_an_fp8_cache_equals_what_generation_holds():
    skeleton, model_class, config = made("llama", LLAMA)
    model = model_class(config).eval().to(torch.bfloat16)
    cache = transformers.QuantizedCache("fp8", model.config)
    with torch.no_grad():
        for length in (20, 1, 1):
            model(torch.ones(2, length, dtype=torch.long), past_key_values=cache)
    found = kv_cache_bytes(skeleton, Plan(batch=2, sequence_length=20, new_tokens=3, kv_dtype="fp8"))
    held = {key: size for key, size in tensors_inside(cache, {}).items() if size}
    assert found.at_end == sum(held.values())


def test_a_quantized_cache_keeps_the_latest_tokens_as_they_are():
    skeleton = build_skeleton({**LLAMA, "model_type": "llama"})
    width = 3 * 2 * 2 * 16
    after = kv_cache_bytes(skeleton, Plan(sequence_length=128, new_tokens=1, kv_dtype="int4")).at_end
    later = kv_cache_bytes(skeleton, Plan(sequence_length=128, new_tokens=101, kv_dtype="int4")).at_end
    assert after == 128 * width * 0.5625
    assert later - after == 100 * width * 2
    with pytest.raises(WorkbenchError, match="full attention"):
        kv_cache_bytes(build_skeleton({**SLIDING, "model_type": "gemma3_text"}), Plan(kv_dtype="int4"))


def test_kv_cache_of_an_encoder_decoder_and_of_an_encoder():
    skeleton, model_class, config = made("t5", OTHERS["t5"])
    model = model_class(config).eval()
    read = model.get_encoder()(torch.ones(2, 7, dtype=torch.long))
    cache = None
    with torch.no_grad():
        for _ in range(4):
            cache = model(
                encoder_outputs=read, decoder_input_ids=torch.ones(2, 1, dtype=torch.long), past_key_values=cache
            ).past_key_values
    plan = Plan(batch=2, sequence_length=7, new_tokens=4, dtype="float32")
    assert kv_cache_bytes(skeleton, plan).at_end == sum(tensors_inside(cache, {}).values())
    assert kv_cache_bytes(build_skeleton({**OTHERS["bert"], "model_type": "bert"}), plan).peak == 0


def test_a_long_prompt_peaks_as_if_nothing_slid():
    cache = kv_cache_bytes(build_skeleton({**SLIDING, "model_type": "gemma3_text"}), Plan(sequence_length=400))
    assert cache.peak == cache.after_prefill > cache.at_end


def test_estimate_adds_up_and_travels_as_json():
    budget = estimate(Plan(quant="nf4", double_quant=True, sequence_length=1000, batch=2), build_skeleton(SMOLLM2))
    sizes = dataclasses.asdict(budget)
    assert sum(sizes[name] for name in CATEGORIES) == budget.total
    assert tuple(category.name for category in budget.categories) == CATEGORIES
    assert {category.known for category in budget.categories} == {"exact", "rule", "table"}
    assert budget.weights == 111_692_152
    held = {phase.name: phase.kv_cache for phase in budget.phases}
    per_token = 2 * 30 * 2 * 3 * 64 * 2
    # While decoding, one layer's new key stands beside the old one.
    assert held == {"prefill": per_token * 1000, "decode": per_token * 1255}
    assert budget.total == budget.allocated + budget.overhead == max(p.total for p in budget.phases) + budget.overhead
    assert json.loads(json.dumps(sizes))["total"] == budget.total


def test_fits_is_a_matter_of_free_bytes():
    budget = estimate(Plan(), build_skeleton(SMOLLM2))
    exact = parse_gpu("1GiB")
    exact = dataclasses.replace(exact, capacity_bytes=budget.total)
    found = fits(budget, [parse_gpu("T4"), exact, dataclasses.replace(exact, capacity_bytes=budget.total - 1)])
    assert [(fit.fits, fit.verdict) for fit in found] == [(True, "fits"), (True, "tight"), (False, "no")]
    assert [fit.free_bytes for fit in found[1:]] == [0, -1]


def test_fused_experts_and_long_contexts_are_warned_of():
    skeleton = build_skeleton({**DECODERS["mixtral"], "model_type": "mixtral"})
    assert any("experts" in warning for warning in estimate(Plan(quant="nf4"), skeleton).warnings)
    assert not any("experts" in warning for warning in estimate(Plan(), skeleton).warnings)
    assert any("beyond" in warning for warning in estimate(Plan(sequence_length=512), skeleton).warnings)
    falcon = build_skeleton({**DECODERS["falcon"], "model_type": "falcon"})
    assert any("converts no layer" in warning for warning in estimate(Plan(quant="nf4"), falcon).warnings)


@pytest.mark.parametrize(
    "values",
    [
        {"quant": "q4"},
        {"dtype": "float8"},
        {"batch": 0},
        {"sequence_length": -1},
        {"new_tokens": 10**12},
        {"batch": True},
        {"double_quant": True},
        {"double_quant": True, "quant": "int8"},
        {"job": "dream"},
    ],
)
def test_a_plan_that_means_nothing_is_refused(values):
    with pytest.raises(WorkbenchError) as caught:
        check_plan(Plan(**values))
    assert caught.value.kind == "bad-plan"
