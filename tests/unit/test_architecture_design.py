"""Designs: what is refused before building and why, what is suggested, and that transformers takes what is saved."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.architecture.build import build_skeleton
from workbench.architecture.count import count_parameters
from workbench.architecture.design import (
    apply_changes,
    design_fields,
    design_problems,
    families,
    family_config,
    save_design,
)
from workbench.architecture.validate import continued, find_problems
from workbench.errors import WorkbenchError
from workbench.models import catalogue

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

NAMES = [family.name for family in families()]


@pytest.fixture(scope="module")
def originals():
    kept = {}

    def get(name):
        if name not in kept:
            base = family_config(name)
            kept[name] = (base, build_skeleton(base))
        return kept[name]

    return get


@pytest.mark.parametrize("name", NAMES)
def test_each_family_builds_and_what_is_saved_is_the_same_model_to_transformers(name, originals, tmp_path):
    base, original = originals(name)
    assert design_problems(base, {}, original) == []
    assert original.architecture == base["architectures"][0]
    fields = {field.key: field for field in design_fields(base, original)}
    layers = next(key for key in ("num_hidden_layers", "n_layer", "num_layers") if key in fields)
    changes = {layers: 4, "vocab_size": fields["vocab_size"].value + 64}
    assert design_problems(base, changes, original) == []
    config = apply_changes(base, changes, original)
    changed = build_skeleton(config)
    path = save_design(config, changed.architecture, str(tmp_path / "mine"))
    parsed = transformers.AutoConfig.from_pretrained(tmp_path / "mine")
    auto = transformers.AutoModelForSeq2SeqLM if parsed.is_encoder_decoder else transformers.AutoModelForCausalLM
    if changed.architecture.endswith("ForMaskedLM"):
        auto = transformers.AutoModelForMaskedLM
    with torch.device("meta"):
        model = auto.from_config(parsed)
        model.tie_weights()
    assert sum(parameter.numel() for parameter in model.parameters()) == count_parameters(changed).total
    assert json.loads(Path(path).read_text(encoding="utf-8"))["architectures"] == [changed.architecture]


@pytest.mark.parametrize(
    ("family", "changes", "key", "words", "nearest"),
    [
        ("llama", {"num_key_value_heads": 3}, "num_key_value_heads", "divisor", (2, 4)),
        ("llama", {"num_attention_heads": 7, "num_key_value_heads": 7}, "hidden_size", "multiple", (518, 504)),
        ("llama", {"hidden_size": 8 * 63}, "hidden_size", "pairs", (496, 512)),
        ("llama", {"hidden_size": 513}, "hidden_size", "multiple", (512, 528)),
        ("llama", {"hidden_size": "512"}, "hidden_size", "whole number", (512,)),
        ("llama", {"num_hidden_layers": 10_000}, "num_hidden_layers", "2,000", (2000,)),
        ("llama", {"num_hidden_layers": -8}, "num_hidden_layers", "positive", (1,)),
        ("llama", {"num_hidden_layers": 8.4}, "num_hidden_layers", "whole", (8,)),
        ("llama", {"tie_word_embeddings": "yes"}, "tie_word_embeddings", "true or false", (False, True)),
        ("llama", {"hidden_act": "gelo"}, "hidden_act", "activation", ("gelu",)),
        ("llama", {"num_atention_heads": 4}, "num_atention_heads", "no value", ("num_attention_heads",)),
        ("llama", {"attention_dropout": 1.5}, "attention_dropout", "0 to 1", (1.0,)),
        ("llama", {"rms_norm_eps": 0.0}, "rms_norm_eps", "positive", ()),
        ("llama", {"pad_token_id": 32000}, "pad_token_id", "tokens", (31999, None)),
        ("llama", {"vocab_size": 10**18}, "vocab_size", "at most", ()),
        ("llama", {"hidden_size": float("nan")}, "hidden_size", "finite", None),
        ("llama", {"hidden_size": float("inf")}, "hidden_size", "finite", None),
        ("llama", {"hidden_size": 4096.0}, "hidden_size", "whole number", (4096,)),
        ("llama", {"hidden_size": 10**400}, "hidden_size", "at most", ()),
        ("llama", {"rope_scaling.factor": 16}, "rope_scaling.factor", "rope_scaling.rope_type", ()),
        ("llama", {"rope_scaling.facto": 16}, "rope_scaling.facto", "no value", ("rope_scaling.factor",)),
        ("llama", {"rope_scalling.factor": 16}, "rope_scalling.factor", "no value", ("rope_scaling.factor",)),
        ("mixtral", {"num_experts_per_tok": 9}, "num_experts_per_tok", "8 experts", (8,)),
        ("deepseek_v3", {"n_group": 3}, "n_group", "divisor", (2, 4)),
        ("deepseek_v3", {"qk_rope_head_dim": 31}, "qk_rope_head_dim", "even", (32, 30)),
        ("qwen3", {"head_dim": 65}, "head_dim", "even", (66, 64)),
        ("mistral", {"sliding_window": -1}, "sliding_window", "null", (1, None)),
        ("gpt2", {"hidden_size": 400}, "n_embd", "multiple", (402, 396)),
        ("gemma3_text", {"layer_types": ["full_attention"]}, "layer_types", "12 layers", None),
    ],
)
def test_an_impossible_value_is_refused_with_what_would_do(originals, family, changes, key, words, nearest):
    base, original = originals(f"family:{family}")
    problems = design_problems(base, changes, original)
    problem = next((problem for problem in problems if problem.key == key), None)
    assert problem is not None, problems
    assert words in problem.reason
    assert "\n" not in problem.reason + problem.remedy
    if nearest is not None:
        assert problem.nearest[: len(nearest)] == nearest
    # What is suggested would indeed do.
    for value in problem.nearest:
        fixed = {**{k: v for k, v in changes.items() if k != "hidden_size"}, key: value}
        if words != "no value":
            assert not any(p.key == key for p in design_problems(base, fixed, original)), value


SIZES = st.sampled_from([-1, 0, 1, 2, 3, 4, 6, 8, 12, 16, 30, 32, 48, 64, 65, 96, 128, 512])
KEYS = ("hidden_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers", "intermediate_size")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    family=st.sampled_from(["llama", "olmo2", "gemma3_text", "qwen3"]),
    values=st.dictionaries(st.sampled_from(KEYS), SIZES),
)
def test_what_is_not_refused_builds_and_gives_a_forward_pass_its_shapes(originals, family, values):
    base, original = originals(f"family:{family}")
    small = {"vocab_size": 64, "num_hidden_layers": 2, **values}
    problems = design_problems(base, small, original)
    config = apply_changes(base, small, original)
    if problems:
        assert all(problem.reason.endswith(".") for problem in problems)
        return
    if config["num_hidden_layers"] > 4:
        return
    parsed = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(config)
    model = transformers.AutoModelForCausalLM.from_config(parsed, dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.arange(5)[None]).logits
    assert logits.shape == (1, 5, 64)
    assert sum(p.numel() for p in model.parameters()) == count_parameters(build_skeleton(config)).total


@pytest.mark.parametrize("section", ["rope_scaling", "rope_parameters"])
def test_rope_is_changed_under_either_name(originals, section):
    base, original = originals("family:llama")
    changes = {f"{section}.factor": 4.0, f"{section}.rope_type": "yarn"}
    assert design_problems(base, changes, original) == []
    for spelt in ("rope_scaling", "rope_parameters"):
        stretched = {**base, spelt: {"rope_type": "yarn", "factor": 2.0, "rope_theta": 5000.0}}
        made = build_skeleton(apply_changes(stretched, changes, original)).config["rope_parameters"]
        assert (made["factor"], made["rope_type"], made["rope_theta"]) == (4.0, "yarn", 5000.0)


@pytest.mark.parametrize("stated", ["dtype", "torch_dtype"])
def test_a_bad_dtype_is_mended_under_either_name(originals, stated):
    base, original = originals("family:llama")
    bad = {**{key: value for key, value in base.items() if "dtype" not in key}, stated: "bf17"}
    for key in ("dtype", "torch_dtype"):
        assert design_problems(bad, {key: "float16"}, original) == []
        assert build_skeleton(apply_changes(bad, {key: "float16"})).dtype == "float16"


@pytest.mark.parametrize(
    ("config", "key", "nearest"),
    [
        ({"model_type": "llama", "vocab_size": 0}, "vocab_size", 1),
        ({"model_type": "llama", "rope_scaling": {"rope_type": "yarn", "factor": 0.5}}, "rope_scaling.factor", 1.0),
        ({"model_type": "llama", "rope_scaling": {"rope_type": "linear", "factor": -3}}, "rope_scaling.factor", 1.0),
        ({"model_type": "llama", "bos_token_id": -1}, "bos_token_id", 0),
        ({"model_type": "llama", "head_dim": 0, "hidden_size": 64, "num_attention_heads": 4}, "head_dim", 16),
        ({"model_type": "mixtral", "num_experts_per_tok": 0, "num_local_experts": 8}, "num_experts_per_tok", 1),
        ({"model_type": "mixtral", "num_local_experts": 0}, "num_local_experts", 1),
        ({"model_type": "jamba", "num_experts": 5000, "num_hidden_layers": 32}, "num_experts", 1562),
        ({"model_type": "mistral", "sliding_window": 0}, "sliding_window", 1),
        ({"model_type": "mamba", "expand": 0}, "expand", 1),
        ({"model_type": "deepseek_v3", "first_k_dense_replace": -1}, "first_k_dense_replace", 0),
        (
            {"model_type": "deepseek_v3", "first_k_dense_replace": 99, "num_hidden_layers": 61},
            "first_k_dense_replace",
            61,
        ),
        ({"model_type": "t5", "relative_attention_num_buckets": 0}, "relative_attention_num_buckets", 1),
        ({"model_type": "bert", "type_vocab_size": 0}, "type_vocab_size", 1),
    ],
)
def test_a_number_too_small_for_any_code_is_refused(config, key, nearest):
    problem = next(iter(find_problems(config)))
    assert (problem.key, problem.nearest[0]) == (key, nearest)


def test_numbers_that_switch_something_off_are_taken():
    for config in (
        {"model_type": "granitemoehybrid", "num_local_experts": 0, "num_experts_per_tok": 0},
        {"model_type": "qwen2", "sliding_window": 0, "use_sliding_window": False},
        {"model_type": "deberta-v2", "type_vocab_size": 0},
        {"model_type": "deepseek_v3", "first_k_dense_replace": 0, "num_hidden_layers": 4},
    ):
        assert list(find_problems(config)) == []


def test_saving_makes_one_folder_and_no_more(tmp_path):
    assert save_design({"model_type": "llama"}, "M", str(tmp_path / "new")) == str(tmp_path / "new" / "config.json")
    with pytest.raises(WorkbenchError, match="does not exist"):
        save_design({"model_type": "llama"}, "M", str(tmp_path / "typo" / "deep" / "config.json"))
    assert not (tmp_path / "typo").exists()


def test_a_value_of_another_kind_is_named_with_what_it_must_be(originals):
    base, _ = originals("family:llama")
    with pytest.raises(WorkbenchError, match="rms_norm_eps is null; transformers takes a number") as caught:
        build_skeleton({**base, "rms_norm_eps": None})
    assert "missing" not in str(caught.value)


def test_a_list_of_layers_follows_their_number():
    entry = catalogue.find("gemma-3-4b")
    original = build_skeleton(entry.config)
    base = {**entry.config, "text_config": original.config["text_config"]}
    config = apply_changes(base, {"text_config.num_hidden_layers": 8}, original)
    kinds = config["text_config"]["layer_types"]
    assert kinds == original.config["text_config"]["layer_types"][:8]
    assert continued(["a", "a", "b"], 7) == ["a", "a", "b", "a", "a", "b", "a"]
    assert design_problems(base, {"text_config.num_hidden_layers": 40}, original) == []
    assert base["text_config"]["num_hidden_layers"] == 34
    assert any(field.key == "text_config.hidden_size" for field in design_fields(config, original))


def test_absurd_configs_are_answered_at_once():
    started = time.process_time()
    for absurd in (
        {"model_type": "llama", "num_hidden_layers": 10_000},
        {"model_type": "llama", "hidden_size": 10**12, "vocab_size": 10**12},
        {"model_type": "llama", "num_attention_heads": 10**14, "num_key_value_heads": 3},
        {"model_type": "llama", "layer_types": ["full_attention"] * 300_000},
        {"model_type": "llama", "x": [[[[[[[[[[1]]]]]]]]]]},
        {"model_type": "llama", "hidden_size": float("inf")},
        {"model_type": "llama", "hidden_size": [64, "x", None, {}]},
        {"model_type": {"a": 1}},
        [],
        None,
    ):
        problems = list(find_problems(absurd))
        assert problems, absurd
        assert all("\n" not in problem.reason and len(problem.reason) < 400 for problem in problems)
    # Counting is our own arithmetic here: no library, no allocation.
    assert time.process_time() - started < 20


def test_every_catalogue_config_is_a_possible_one():
    assert {name for name, entry in catalogue.entries().items() if list(find_problems(entry.config))} == set()


def test_saving_loses_nothing(originals, tmp_path):
    base, original = originals("family:llama")
    path = save_design({**base, "auto_map": {"AutoModel": "x.Y"}}, original.architecture, str(tmp_path / "a.json"))
    assert "auto_map" not in json.loads(Path(path).read_text(encoding="utf-8"))
    with pytest.raises(WorkbenchError, match="already"):
        save_design(base, original.architecture, path)
    save_design(base, original.architecture, path, overwrite=True)
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(WorkbenchError, match="weights"):
        save_design(base, original.architecture, str(tmp_path), overwrite=True)
    with pytest.raises(WorkbenchError) as caught:
        save_design(base, original.architecture, "/proc/no/such/config.json")
    assert caught.value.kind == "cannot-write"


def test_an_unknown_family_names_the_nearest():
    with pytest.raises(WorkbenchError, match="Nearest: llama"):
        family_config("family:lama")
