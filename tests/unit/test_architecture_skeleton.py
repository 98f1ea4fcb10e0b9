"""The skeleton, its counts, facts and tree against published figures and against transformers itself."""

from __future__ import annotations

import dataclasses
import json
import threading

import pytest

from workbench.architecture.build import build_skeleton
from workbench.architecture.cache import load_skeleton
from workbench.architecture.checkpoint import compare_checkpoint
from workbench.architecture.compute import compute_figures
from workbench.architecture.count import COMPONENTS, count_parameters
from workbench.architecture.describe import describe
from workbench.architecture.skeleton import skeleton_from_dict
from workbench.architecture.tree import flatten, module_tree
from workbench.errors import JobCancelled, WorkbenchError
from workbench.job import Job
from workbench.models import catalogue

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

FACTS = {
    "llama-65b": {"attention_kind": "MHA", "norm": "RMSNorm", "activation": "SwiGLU", "tied_embeddings": False},
    "gpt2": {"attention_kind": "MHA", "position": "learned", "activation": "GELU (tanh)", "tied_embeddings": True},
    "gemma-2b": {"attention_kind": "MQA", "head_dim": 256, "activation": "GeGLU (tanh)"},
    "gemma-3-4b": {"sliding_window": 1024, "layer_types": {"sliding_attention": 29, "full_attention": 5}},
    "mixtral-8x7b-v0.1": {"experts": 8, "experts_per_token": 2, "num_key_value_heads": 8},
    "deepseek-r1": {"attention_kind": "MLA", "experts": 256, "experts_per_token": 8, "shared_experts": 1},
    "gpt-oss-120b": {
        "position": "RoPE θ 150,000 yarn ×32",
        "layer_types": {"sliding_attention": 18, "full_attention": 18},
    },
    "t5-small": {"kind": "encoder-decoder", "position": "relative bias, 32 buckets", "norm": "RMSNorm"},
    "bert-base-uncased": {"kind": "encoder", "position": "learned", "norm": "LayerNorm", "context_length": 512},
    "bloom-560m": {"position": "ALiBi"},
    "falcon-7b": {"attention_kind": "MQA"},
    "mamba-130m": {"attention_kind": "none", "layer_types": {"linear_attention": 24}},
    "dbrx": {"experts": 16, "experts_per_token": 4},
    "qwen3-0.6b": {"head_dim": 128, "vocab_size": 151936, "context_length": 40960},
}


@pytest.fixture(scope="module")
def built():
    kept = {}

    def get(name):
        if name not in kept:
            entry = catalogue.find(name)
            assert entry is not None, name
            kept[name] = build_skeleton(entry.config)
        return kept[name]

    return get


@pytest.mark.parametrize("part", range(4))
def test_every_catalogue_model_counts_to_the_unit(part):
    wrong = []
    for index, (name, entry) in enumerate(catalogue.entries().items()):
        if index % 4 != part:
            continue
        counts = count_parameters(build_skeleton(entry.config))
        dense = counts.by_component["experts"] == 0
        active = entry.active_parameters or (entry.parameters if dense else counts.active)
        found = (counts.total, counts.active, sum(counts.by_component.values()))
        if found != (entry.parameters, active, entry.parameters):
            wrong.append((name, found, entry.parameters, entry.active_parameters))
    assert not wrong


def test_routing_bias_buffers_complete_the_published_count(built):
    entry = catalogue.find("deepseek-r1")
    counts = count_parameters(built("deepseek-r1"))
    assert counts.persistent_buffers == 14_848
    assert counts.total + counts.persistent_buffers == entry.published_parameters
    assert counts.active_without_input_embedding == 36_625_603_584


def test_experts_stacked_in_one_matrix_are_told_apart():
    skeleton = build_skeleton(catalogue.find("dbrx").config)
    counts = count_parameters(skeleton)
    assert (counts.total, counts.active) == (131_596_523_520, 36_469_708_800)
    assert 2 * counts.active < compute_figures(skeleton, counts).prefill_flops_per_token * 1.02


@pytest.mark.parametrize("name", FACTS)
def test_facts(built, name):
    facts = dataclasses.asdict(describe(built(name)))
    assert {key: facts[key] for key in FACTS[name]} == FACTS[name]


@pytest.mark.parametrize("name", FACTS)
def test_tree_adds_up_and_components_are_the_contract(built, name):
    counts = count_parameters(built(name))
    tree = module_tree(built(name))
    assert tree.parameters == counts.total
    assert tuple(counts.by_component) == COMPONENTS
    assert counts.by_component["other"] <= 0.12 * counts.total or name == "mamba-130m"
    assert sum(layer.parameters for layer in counts.per_layer) < counts.total
    json.dumps(dataclasses.asdict(tree))


def test_deep_models_fold_to_a_small_tree(built):
    nodes = flatten(module_tree(built("llama-65b")))
    layers = [node for node in nodes if node.path == "model.layers.0-79"]
    assert [node.repeat for node in layers] == [80]
    assert layers[0].parameters == sum(layer.parameters for layer in count_parameters(built("llama-65b")).per_layer)
    assert len(nodes) < 50
    assert len(flatten(module_tree(built("llama-65b")), depth=1)) == 2
    kinds = flatten(module_tree(built("gemma-3-4b")), depth=5)
    assert len(kinds) < 120


def test_tied_head_is_counted_once_and_named(built):
    skeleton = built("gpt2")
    tied = [entry for entry in skeleton.parameters if entry.tied_to]
    assert [(entry.name, entry.tied_to) for entry in tied] == [("lm_head.weight", "transformer.wte.weight")]
    assert count_parameters(skeleton).by_component["lm_head"] == 0


SMALL = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}


def with_values(**values):
    return {**SMALL, **values}


@pytest.mark.parametrize(
    "model_type", ["llama", "gemma3_text", "deepseek_v3", "jamba", "t5", "gpt2", "minimax", "bert"]
)
def test_dtypes_equal_a_model_built_under_a_default_dtype(model_type):
    parsed = transformers.CONFIG_MAPPING[model_type]()
    skeleton = build_skeleton(parsed.to_dict(), dtype="bfloat16")
    with torch.device("meta"):
        reference = getattr(transformers, skeleton.architecture)._from_config(parsed, dtype=torch.bfloat16)
        reference.tie_weights()
    for tensors, entries in (
        (reference.named_parameters(), skeleton.unique_parameters),
        (reference.named_buffers(), skeleton.buffers),
    ):
        expected = {name: (tuple(tensor.shape), str(tensor.dtype)) for name, tensor in tensors}
        assert {entry.name: (entry.shape, f"torch.{entry.dtype}") for entry in entries} == expected
    assert torch.get_default_dtype() == torch.float32


def test_a_dtype_is_taken_from_the_config_or_given():
    assert build_skeleton(SMALL).dtype == "float32"
    assert build_skeleton(with_values(torch_dtype="bfloat16")).parameters[0].dtype == "bfloat16"
    assert build_skeleton(with_values(dtype="float16"), dtype="bfloat16").dtype == "bfloat16"
    rotary = [buffer for buffer in build_skeleton(SMALL, dtype="bfloat16").buffers if "inv_freq" in buffer.name]
    assert rotary
    assert all(buffer.dtype == "float32" and not buffer.follows_load_dtype for buffer in rotary)


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ({"num_key_value_heads": 3}, "bad-config", "divisor of the 4"),
        ({"num_attention_heads": 0}, "bad-config", "positive"),
        ({"hidden_size": -64}, "bad-config", "positive"),
        ({"hidden_size": 66}, "bad-config", "multiple"),
        ({"hidden_size": "64"}, "bad-config", "whole number"),
        ({"hidden_size": float("nan")}, "bad-config", "nan"),
        ({"num_hidden_layers": 10_000}, "bad-config", "at most 2,000"),
        ({"vocab_size": 10**15, "hidden_size": 10**6}, "bad-config", "more than"),
        ({"vocab_size": 10**30}, "bad-config", "at most"),
        ({"layer_types": ["full_attention"]}, "bad-config", "2 layers"),
        ({"num_local_experts": 4, "num_experts_per_tok": 5, "model_type": "mixtral"}, "bad-config", "4 experts"),
        ({"hidden_act": "no-such"}, "bad-config", "no-such"),
        ({"dtype": "gelu"}, "bad-config", "bfloat16"),
        ({"sliding_window": "x", "model_type": "mistral"}, "bad-config", "whole number"),
        ({"model_type": "no_such_type"}, "unknown-architecture", "no_such_type"),
        ({"model_type": "no_such", "auto_map": {"AutoModel": "x.Y"}}, "remote-code", "never run"),
        ({"model_type": None}, "bad-config", "model_type"),
        ({"model_type": "\x1b[31mred"}, "unknown-architecture", "␛[31mred"),
    ],
)
def test_an_impossible_config_gives_one_line(values, kind, words):
    with pytest.raises(WorkbenchError) as caught:
        build_skeleton(with_values(**values))
    assert caught.value.kind == kind
    assert words in str(caught.value)
    assert "\n" not in caught.value.message
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_code_of_a_repository_is_not_asked_for():
    config = with_values(auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"}, architectures=["Evil"])
    assert build_skeleton(config).architecture == "LlamaForCausalLM"


def test_nested_configs_are_checked_too():
    with pytest.raises(WorkbenchError, match=r"text_config\.num_hidden_layers"):
        build_skeleton({"model_type": "gemma3", "text_config": {"num_hidden_layers": 10**9}})


def test_building_reports_progress_can_be_cancelled_and_leaves_other_threads_alone():
    class Stopping(Job):
        def __init__(self):
            self.seen = []

        def progress(self, phase, done, total=None, unit="", detail=""):
            self.seen.append(done)

        def check(self):
            if self.seen and self.seen[-1] > 100:
                raise JobCancelled

    dtypes = []
    running = threading.Event()

    def other_thread():
        while not running.is_set():
            dtypes.append(torch.zeros(1).dtype)
            dtypes.append(torch.nn.Linear(1, 1).weight.device.type)

    thread = threading.Thread(target=other_thread)
    thread.start()
    job = Stopping()
    try:
        with pytest.raises(JobCancelled):
            build_skeleton(with_values(num_hidden_layers=200), job)
    finally:
        running.set()
        thread.join()
    assert 0 < job.seen[-1] < 300
    assert set(dtypes) == {torch.float32, "cpu"}


def test_the_cache_answers_without_building_and_mends_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = load_skeleton(SMALL)
    (entry,) = (tmp_path / "workbench" / "skeletons").iterdir()
    monkeypatch.setattr("workbench.architecture.cache.build_skeleton", lambda *_: pytest.fail("built again"))
    assert load_skeleton(SMALL) == first
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for damage in (b"", b"{", b"[]", b'{"format_version": 0}', entry.read_bytes()[:-20]):
        entry.write_bytes(damage)
        assert load_skeleton(SMALL) == first
    assert load_skeleton(SMALL, dtype="float16") != first
    assert len(list(entry.parent.iterdir())) == 2
    assert skeleton_from_dict(json.loads(json.dumps(dataclasses.asdict(first)))) == first


@dataclasses.dataclass(frozen=True)
class Stored:
    name: str
    dtype: str
    shape: tuple[int, ...]


def test_a_checkpoint_is_compared_by_name():
    skeleton = build_skeleton(with_values(tie_word_embeddings=True))
    tensors = [Stored(entry.name, "F32", entry.shape) for entry in skeleton.unique_parameters]
    assert compare_checkpoint(skeleton, tensors).agrees
    head_too = [*tensors, Stored("lm_head.weight", "F32", (100, 64))]
    assert compare_checkpoint(skeleton, head_too).agrees
    base_only = [Stored(tensor.name.replace("model.", "", 1), "F32", tensor.shape) for tensor in tensors]
    assert compare_checkpoint(skeleton, base_only).agrees
    other = [Stored("model.layers.9.extra", "F32", (3,)), Stored(tensors[1].name, "BF16", (7,)), *tensors[2:]]
    compared = compare_checkpoint(skeleton, other)
    assert compared.missing == (tensors[0].name,)
    assert compared.extra == ("model.layers.9.extra",)
    assert [difference.name for difference in compared.shapes] == [tensors[1].name]
    assert [(difference.in_model, difference.in_checkpoint) for difference in compared.dtypes] == [
        ("float32", "bfloat16")
    ]


@pytest.mark.parametrize("model_type", ["llama", "mixtral", "gpt2", "t5"])
def test_a_checkpoint_that_transformers_saved_agrees(tmp_path, model_type):
    from workbench.models.safetensors_header import read_checkpoint

    common = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 8}
    config = transformers.CONFIG_MAPPING[model_type](
        **common, **({"d_model": 32, "d_ff": 64, "d_kv": 8} if model_type == "t5" else {"intermediate_size": 48})
    )
    skeleton = build_skeleton(config.to_dict())
    getattr(transformers, skeleton.architecture)(config).save_pretrained(tmp_path)
    assert compare_checkpoint(skeleton, read_checkpoint(tmp_path)).agrees
