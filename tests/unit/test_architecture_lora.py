"""Adapters counted from the skeleton against what peft really makes and saves."""

from __future__ import annotations

import os

import pytest

from workbench.architecture.build import build_skeleton
from workbench.architecture.lora import LoraPlan, count_adapter, plan_from_dict
from workbench.architecture.lora_targets import presets
from workbench.cli.lora_option import parse_lora
from workbench.errors import WorkbenchError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

SIZES = {"vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
GQA = {**SIZES, "num_key_value_heads": 2, "intermediate_size": 48}
MOE = {**GQA, "moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2}
FAMILIES = {
    "llama": GQA,
    "gpt2": {"vocab_size": 120, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64},
    "mixtral": {**GQA, "num_local_experts": 4},
    "qwen3_moe": {**MOE, "head_dim": 8},
    "qwen2_moe": {**MOE, "shared_expert_intermediate_size": 40},
    "gpt_oss": {**GQA, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gemma3_text": {**GQA, "head_dim": 8},
    "t5": {"vocab_size": 120, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    "bert": {**SIZES, "intermediate_size": 48},
    "bloom": {"vocab_size": 120, "hidden_size": 32, "n_layer": 3, "n_head": 4},
    "mamba": {"vocab_size": 120, "hidden_size": 32, "num_hidden_layers": 3, "state_size": 4},
    "phi3": {**GQA, "pad_token_id": 0},
}
PLANS = {
    "all-linear": LoraPlan(),
    "by name": LoraPlan(targets=("q_proj", "c_attn", "query", "q", "query_key_value"), r=8),
    "some layers": LoraPlan(targets=("q_proj", "c_attn", "query", "in_proj"), layers=(0, 2)),
    "regex": LoraPlan(regex=r".*\.(q_proj|c_attn|query|SelfAttention\.q)", rslora=True),
    "dora": LoraPlan(dora=True, r=4),
    "embedding": LoraPlan(targets=("embed_tokens", "wte", "shared", "word_embeddings", "embeddings")),
    "whole modules": LoraPlan(targets=("q_proj", "c_attn", "x_proj"), modules_to_save=("embed_tokens", "ln_f", "norm")),
    "experts": LoraPlan(targets=(), target_parameters=("experts.gate_up_proj", "experts.down_proj")),
    "old expert names": LoraPlan(targets=("w1", "w2", "w3", "gate_proj", "up_proj", "down_proj", "gate")),
    "half a fused tensor": LoraPlan(targets=("gate_proj", "q_proj")),
    "biases": LoraPlan(bias="all"),
    "ranks": LoraPlan(targets=("q_proj", "v_proj", "c_proj"), rank_pattern={"q_proj": 3, r"layers\.0\..*v_proj": 5}),
    "left out": LoraPlan(exclude=("o_proj", "out_proj"), dtype="model"),
    "no such": LoraPlan(targets=("no_such",)),
    "a container": LoraPlan(targets=("layers", "h", "block", "layer")),
}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_counts_and_file_equal_pefts(model_type, tmp_path):
    config = transformers.CONFIG_MAPPING[model_type](**FAMILIES[model_type])
    skeleton = build_skeleton(config.to_dict(), dtype="bfloat16")
    model_class = getattr(transformers, skeleton.architecture)
    compared = 0
    plans = dict(PLANS)
    for preset in presets(skeleton):
        plans[f"preset {preset.name}"] = LoraPlan(targets=preset.targets, target_parameters=preset.target_parameters)
    for name, plan in plans.items():
        ours, refusal = None, None
        try:
            ours = count_adapter(skeleton, plan)
        except WorkbenchError as error:
            refusal = error
        theirs = made_by_peft(model_class._from_config(config, dtype=torch.bfloat16), plan, tmp_path)
        if theirs is None or ours is None:
            assert theirs is None and refusal is not None, (name, refusal, theirs)  # noqa: PT018
            assert refusal.kind == "bad-lora"
            continue
        assert (ours.trainable, ours.adapter_bytes) == theirs[:2], name
        assert ours.share == pytest.approx(theirs[2]), name
        assert sum(ours.by_component.values()) == ours.trainable, name
        compared += 1
    assert compared >= 3


def made_by_peft(model, plan, folder):
    targets = plan.regex or ("all-linear" if plan.targets == ("all-linear",) else list(plan.targets))
    try:
        config = peft.LoraConfig(
            r=plan.r,
            lora_alpha=plan.alpha,
            use_rslora=plan.rslora,
            use_dora=plan.dora,
            bias=plan.bias,
            target_modules=targets,
            exclude_modules=list(plan.exclude) or None,
            layers_to_transform=list(plan.layers) or None,
            modules_to_save=list(plan.modules_to_save) or None,
            target_parameters=list(plan.target_parameters) or None,
            rank_pattern=dict(plan.rank_pattern),
        )
        adapted = peft.get_peft_model(model, config, autocast_adapter_dtype=plan.dtype == "float32")
    except (ValueError, NotImplementedError):
        return None
    trainable, everything = adapted.get_nb_trainable_parameters()
    adapted.save_pretrained(folder)
    return trainable, os.path.getsize(folder / "adapter_model.safetensors"), trainable / everything


@pytest.fixture(scope="module")
def llama():
    return build_skeleton({"model_type": "llama", **GQA})


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (LoraPlan(targets=("q_prj",)), "q_proj"),
        (LoraPlan(regex="q_proj"), ".*"),
        (LoraPlan(regex="("), "regular expression"),
        (LoraPlan(targets=("mlp", "q_proj")), "LlamaMLP"),
        (LoraPlan(r=0), "rank"),
        (LoraPlan(bias="some"), "lora_only"),
        (LoraPlan(targets=()), "Nothing"),
        (LoraPlan(layers=(1,)), "names"),
        (LoraPlan(targets=("\x1b[31m",)), "␛"),
    ],
)
def test_a_choice_that_means_nothing_gives_one_line(llama, plan, words):
    with pytest.raises(WorkbenchError) as caught:
        count_adapter(llama, plan)
    assert caught.value.kind == "bad-lora"
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_presets_are_named_and_mean_what_they_say(llama):
    by_name = {preset.name: preset for preset in presets(llama)}
    assert by_name["query-value"].targets == ("q_proj", "v_proj")
    gpt2 = build_skeleton({"model_type": "gpt2", **FAMILIES["gpt2"]})
    # Both parts of GPT-2 call a layer c_proj.
    assert {preset.name: preset.targets for preset in presets(gpt2)}["mlp"] == ("c_fc", "mlp.c_proj")
    chosen = count_adapter(llama, LoraPlan(targets=("attention",)))
    assert chosen == count_adapter(llama, LoraPlan(targets=("q_proj", "k_proj", "v_proj", "o_proj")))
    assert chosen.by_component["mlp"] == 0
    assert [layer.parameters for layer in chosen.per_layer] == [chosen.trainable // 3] * 3


def test_untouched_experts_are_said():
    skeleton = build_skeleton({"model_type": "gpt_oss", **FAMILIES["gpt_oss"]})
    (note,) = count_adapter(skeleton, LoraPlan()).notes
    assert "experts.gate_up_proj" in note


def test_the_option_of_the_command_line():
    assert parse_lora("r=8,targets=q_proj+v_proj,dora,layers=0-2+5") == {
        "r": 8,
        "targets": ["q_proj", "v_proj"],
        "dora": True,
        "layers": [0, 1, 2, 5],
        "alpha": 16,
    }
    assert parse_lora(r"regex=.*\.(q|k){1,2}_proj,r=4,alpha=4")["regex"] == r".*\.(q|k){1,2}_proj"
    assert plan_from_dict(parse_lora("r=4,targets=all-linear,save=lm_head")).modules_to_save == ("lm_head",)
    for bad in ("targets", "r=many", "layers=x", "=1"):
        with pytest.raises(WorkbenchError, match="--lora"):
            parse_lora(bad)
    for fields in ({"rank": 3}, {"targets": 3}, {"layers": ["1"]}, {"alpha": "x"}, {"r": True}):
        with pytest.raises(WorkbenchError) as caught:
            plan_from_dict(fields)
        assert caught.value.kind == "bad-lora"
