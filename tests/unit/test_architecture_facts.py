"""Facts, figures, diagrams, files and comparisons of known models."""

from __future__ import annotations

import json
import struct
import subprocess
import sys

import pytest

from workbench.architecture import files
from workbench.architecture.build import build_skeleton
from workbench.architecture.compare import Side, compare_models
from workbench.architecture.compute import compute_figures
from workbench.architecture.count import count_parameters
from workbench.architecture.describe import describe
from workbench.architecture.diagram import diagram
from workbench.architecture.facts import _FACTS, Subject, _texts, explain
from workbench.errors import WorkbenchError
from workbench.models import catalogue, gguf, samples
from workbench.models.gguf_config import config_from_gguf

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def built():
    kept = {}

    def get(name):
        if name not in kept:
            kept[name] = build_skeleton(catalogue.find(name).config, dtype="bfloat16")
        return kept[name]

    return get


def facts_of(skeleton, **arguments):
    counts = count_parameters(skeleton)
    figures = compute_figures(skeleton, counts, **arguments)
    subject = Subject(skeleton, counts, describe(skeleton), figures, tuple(diagram(skeleton)))
    return {fact.key: fact for fact in explain(subject)}


CHIPS = {
    "llama-3.1-8b": {"attention": "GQA 32:8", "kv_cache": "128 KiB/token", "norm": "RMSNorm before", "tying": "untied"},
    "gemma-3-4b": {"window": "29 of 34 sliding 1,024", "norm": "RMSNorm before and after", "stabilisers": "QK-norm"},
    "deepseek-r1": {"attention": "MLA 128 heads", "experts": "8 of 256 experts", "parameters": "671 B, 37.6 B active"},
    "gpt-oss-120b": {"window": "18 of 36 sliding 128", "stabilisers": "attention sinks"},
    "gpt2": {"attention": "MHA 12", "position": "learned", "context": "1k context", "tying": "tied"},
    "olmo-2-7b": {"norm": "RMSNorm on outputs"},
    "falcon-7b": {"attention": "MQA 71:1", "norm": "LayerNorm parallel"},
    "pythia-1b": {"norm": "LayerNorm parallel"},
    "mamba-130m": {"recurrence": "state space"},
    "t5-small": {"cross_attention": "cross-attention", "kind": "encoder-decoder", "norm": "RMSNorm before"},
    "bert-base-uncased": {"kind": "encoder", "norm": "LayerNorm after"},
    "mixtral-8x7b-v0.1": {"experts": "2 of 8 experts"},
    "llama-4-scout-17b-16e": {"window": "36 of 48 chunked 8,192", "context": "10M context"},
}


@pytest.mark.parametrize("name", CHIPS)
def test_chips_and_lines(built, name):
    facts = facts_of(built(name))
    assert {key: facts[key].chip for key in CHIPS[name]} == CHIPS[name]
    for fact in facts.values():
        assert fact.line.endswith("."), fact
        assert "None" not in fact.line
        assert len(fact.chip) <= 40
        assert len(fact.text) > 200
        assert fact.sources
    json.dumps([fact.value for fact in facts.values()])


def test_every_fact_has_a_text_and_every_text_a_fact():
    assert set(_texts()) == set(_FACTS)


def test_lines_say_what_it_means_for_this_model(built):
    facts = facts_of(built("llama-3.1-8b"))
    assert "4× smaller" in facts["attention"].line
    assert "16.0 GiB at the full 131,072" in facts["kv_cache"].line
    assert "from 8,192 to 131,072" in facts["position"].line
    assert "4,096 → 14,336 → 4,096" in facts["feed_forward"].line
    assert "85× smaller" in facts_of(built("deepseek-r1"))["attention"].line
    assert "58 of 61 layers" in facts_of(built("deepseek-r1"))["experts"].line
    assert "layers 5, 11 … 29" in facts_of(built("gemma-3-4b"))["window"].line
    assert "bandwidth" not in facts_of(built("bert-base-uncased"))


def test_arithmetic_and_traffic_by_hand(built):
    skeleton = built("llama-3.1-8b")
    counts = count_parameters(skeleton)
    figures = compute_figures(skeleton, counts, 4096, "RTX 4090")
    matrices = 8_030_261_248 - 128_256 * 4096
    # 32 layers, 4096 wide queries; a token of the prompt sees half of it on average.
    assert figures.prefill_flops_per_token == pytest.approx(2 * matrices + 32 * 4 * 4096 * 2048.5, rel=5e-3)
    assert figures.decode_flops_per_token == pytest.approx(2 * matrices + 32 * 4 * 4096 * 4096, rel=5e-3)
    assert figures.weights_bytes_per_token == 2 * matrices
    assert figures.kv_bytes == 4096 * 32 * 2 * 8 * 128 * 2
    assert figures.kv_bytes_without_sharing == 4 * figures.kv_bytes
    (bound,) = figures.bounds
    assert bound.tokens_per_second == pytest.approx(1008e9 / (2 * matrices + figures.kv_bytes), rel=0.05)
    assert figures.training_tokens == (120_000_000_000, 160_000_000_000, 200_000_000_000)
    assert figures.training_flops == pytest.approx(6 * 8.03e9 * 1.6e11, rel=0.05)
    # A window bounds both; latent attention keeps 576 numbers a layer.
    gemma = compute_figures(built("gemma-3-4b"), count_parameters(built("gemma-3-4b")), 100_000)
    assert gemma.kv_bytes == 2 * (29 * 1024 + 5 * 100_000) * 2 * 4 * 256
    deepseek = compute_figures(built("deepseek-r1"), count_parameters(built("deepseek-r1")), 1000)
    assert deepseek.kv_bytes_per_token == 61 * 576 * 2
    assert compute_figures(built("mamba-130m"), count_parameters(built("mamba-130m"))).kv_bytes == 0
    # The head is tied: the same matrix is looked up and multiplied with.
    gpt2 = compute_figures(built("gpt2"), count_parameters(built("gpt2")), 1)
    assert gpt2.weights_bytes_per_token == 2 * (124_439_808)
    with pytest.raises(WorkbenchError, match="GPU"):
        compute_figures(skeleton, counts, gpu="no such")


ORDERS = {
    "llama-3.1-8b": ["norm", "attention", "add", "norm", "mlp", "add"],
    "gemma-3-4b": ["norm", "attention", "norm", "add", "norm", "mlp", "norm", "add"],
    "olmo-2-7b": ["attention", "norm", "add", "mlp", "norm", "add"],
    "bert-base-uncased": ["attention", "add", "norm", "mlp", "add", "norm"],
    "gpt-j-6b": ["norm", "attention", "mlp", "add"],
    "falcon-40b": ["norm", "norm", "attention", "mlp", "add"],
    "mixtral-8x7b-v0.1": ["norm", "attention", "add", "norm", "experts", "add"],
    "mamba-130m": ["norm", "state_space", "add"],
    "dbrx": ["norm", "attention", "add", "norm", "experts", "add"],
}


@pytest.mark.parametrize("name", ORDERS)
def test_the_diagram_has_the_order_of_the_code(built, name):
    stages = diagram(built(name))
    layers = [stage for stage in stages if stage.path]
    assert [block.kind for block in layers[-1].blocks] == ORDERS[name]
    assert stages[0].blocks[0].kind == "embedding"
    assert (
        sum(stage.repeat for stage in layers if "vision" not in stage.path) == describe(built(name)).num_hidden_layers
    )


def test_a_first_dense_layer_is_a_stage_of_its_own(built):
    repeats = [(stage.repeat, stage.blocks[4].kind) for stage in diagram(built("deepseek-r1")) if stage.path]
    assert repeats == [(3, "mlp"), (58, "experts")]


def side(name, skeleton):
    return Side(name, skeleton, count_parameters(skeleton), describe(skeleton))


def test_two_models_side_by_side(built):
    compared = compare_models(side("a", built("llama-3.1-8b")), side("b", built("qwen3-8b")))
    assert compared.only_second == ("model.layers.0-35.self_attn.q_norm", "model.layers.0-35.self_attn.k_norm")
    assert compared.only_first == ()
    different = {row.key: (row.first, row.second) for row in compared.config}
    assert different["num_hidden_layers"] == (32, 36)
    assert not compared.same
    assert compare_models(side("a", built("gpt2")), side("b", built("gpt2"))).same
    # Families with other names for the same thing are compared under the common ones.
    unlike = {
        row.key: (row.first, row.second)
        for row in compare_models(side("a", built("gpt2")), side("b", built("llama-3.1-8b"))).config
    }
    assert unlike["hidden_size"] == (768, 4096)
    assert "n_embd" not in unlike


def safetensors_file(path, tensors):
    header, data = {}, b""
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + size]}
        data += bytes(size)
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)


TINY = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 4,
    "tie_word_embeddings": True,
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    skeleton = build_skeleton(TINY)
    tensors = {entry.name: ("F16", list(entry.shape), 2 * entry.numel) for entry in skeleton.unique_parameters}
    tensors.pop("model.norm.weight")
    tensors["model.embed_tokens.weight"] = ("F16", [5, 8], 80)
    tensors["evil\x1b[31m\n.weight"] = ("F32", [2], 8)
    safetensors_file(tmp_path / "model.safetensors", tensors)
    (tmp_path / "optimizer.pt").write_bytes(b"PK")
    (tmp_path / "modeling_x.py").write_text("raise SystemExit")
    return tmp_path


def test_a_checkpoint_that_disagrees_is_told_by_name(folder):
    stored = files.read_tensors(str(folder), TINY)
    compared = files.compare_files(build_skeleton(TINY), stored)
    assert compared.missing == ("model.norm.weight",)
    assert compared.extra == ("evil\x1b[31m\n.weight",)
    assert [(row.name, row.in_model, row.in_checkpoint) for row in compared.shapes] == [
        ("model.embed_tokens.weight", "[4, 8]", "[5, 8]")
    ]
    assert {row.in_checkpoint for row in compared.dtypes} == {"float16"}
    listed = files.read_files(str(folder))
    assert {file.name: file.kind for file in listed.files} == {
        "model.safetensors": "safetensors",
        "optimizer.pt": "pickle",
        "modeling_x.py": "code",
    }
    assert not listed.pickle
    assert any("run code" in note for note in listed.notes)
    assert any("never run" in note for note in listed.notes)
    assert {share.type: share.tensors for share in listed.types} == {"F16": 10, "F32": 1}


def test_a_pickle_is_flagged_and_not_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n")
    assert files.read_tensors(str(tmp_path), TINY) is None
    listed = files.read_files(str(tmp_path))
    assert listed.pickle
    assert "weights_only" in listed.notes[0]


def test_headers_are_read_without_torch(folder):
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from workbench.architecture import files\n"
        "from workbench.architecture.count import count_parameters\n"
        "from workbench.architecture.tree import flatten, module_tree\n"
        f"config = {TINY!r}\n"
        f"skeleton = files.header_skeleton(config, files.read_tensors({str(folder)!r}, config))\n"
        "print(count_parameters(skeleton).total, len(flatten(module_tree(skeleton))))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    total, nodes = map(int, done.stdout.split())
    assert total == sum(tensor.elements for tensor in files.read_tensors(str(folder), TINY).tensors)
    assert nodes > 10


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-mixtral", "tiny-gemma3", "tiny-t5", "tiny-gpt2", "tiny-bert"])
def test_the_shipped_models_agree_with_their_configs(name):
    place = samples.shipped_folder(samples.find(name).sources[0])
    config = json.loads((place / "config.json").read_text())
    assert files.compare_files(build_skeleton(config), files.read_tensors(str(place), config)).agrees


def gguf_tensors(left_out=()):
    """Names and shapes of the tiny model as llama.cpp has them, rows last."""
    layer = {"attn_norm": [8], "attn_q": [8, 8], "attn_k": [8, 8], "attn_v": [8, 8], "attn_output": [8, 8]}
    layer.update({"ffn_norm": [8], "ffn_gate": [8, 8], "ffn_up": [8, 8], "ffn_down": [8, 8]})
    named = {"token_embd.weight": [8, 4], "output_norm.weight": [8]}
    named.update({f"blk.0.{part}.weight": shape for part, shape in layer.items()})
    return {name: shape for name, shape in named.items() if name not in left_out}


def test_a_gguf_file_is_compared_under_transformers_names(tmp_path):
    from tests.unit.test_models_gguf import build, pair, tensor, text

    numbers = {"block_count": 1, "embedding_length": 8, "feed_forward_length": 8, "context_length": 64}
    numbers["attention.head_count"] = 2
    pairs = [pair("general.architecture", 8, text("llama"))]
    pairs += [pair(f"llama.{key}", 4, struct.pack("<I", value)) for key, value in numbers.items()]
    shapes = {**gguf_tensors(left_out=("blk.0.ffn_up.weight",)), "blk.0.odd.weight": [8]}
    records, offset = [], 0
    for name, shape in shapes.items():
        records.append(tensor(name, shape, 0, offset))
        size = 4 * (shape[0] * (shape[1] if len(shape) > 1 else 1))
        offset += -(-size // 32) * 32
    path = tmp_path / "tiny.gguf"
    path.write_bytes(build(pairs, records, bytes(offset + 64)))
    config = config_from_gguf(gguf.read_gguf(path))
    stored = files.read_tensors(str(path), config)
    compared = files.compare_files(build_skeleton(config), stored)
    assert compared.missing == ("model.layers.0.mlp.up_proj.weight",)
    assert compared.extra == ("blk.0.odd.weight",)
    assert not compared.shapes
    assert [(share.type, share.tensors, share.bits_per_weight) for share in stored.types] == [("F32", 11, 32.0)]


@pytest.mark.parametrize(
    ("name", "key", "words"),
    [
        ("gpt-j-6b", "position", "only 25% of each head turns"),
        ("mamba-130m", "norm", "before each layer's mixing"),
        ("qwen1.5-moe-a2.7b", "experts", "and 1 that always works"),
        ("dbrx", "feed_forward", "6,144 → 10,752"),
        ("dbrx", "position", "the config states 500,000"),
        ("bloom-560m", "feed_forward", "1,024 → 4,096"),
        ("mpt-7b", "feed_forward", "4,096 → 16,384"),
        ("falcon-7b", "feed_forward", "4,544 → 18,176"),
    ],
)
def test_facts_that_a_family_states_in_its_own_way(name, key, words):
    skeleton = build_skeleton(catalogue.find(name).config)
    counts = count_parameters(skeleton)
    figures = compute_figures(skeleton, counts)
    subject = Subject(skeleton, counts, describe(skeleton), figures, tuple(diagram(skeleton)))
    assert words in next(fact.line for fact in explain(subject) if fact.key == key)


def test_a_norm_of_the_embedding_stands_before_the_layers(built):
    labels = [[block.kind for block in stage.blocks] for stage in diagram(built("bart-base"))]
    assert labels[0] == ["embedding", "position", "norm"]
    assert labels[2] == ["position", "norm"]
    assert labels[-1] == ["head"]
