"""A trace's figures are those that plain PyTorch and transformers give, whatever the family, and it leaves no trace."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from workbench.architecture import figures
from workbench.architecture.attention import read_attention
from workbench.architecture.live import inspect_loaded
from workbench.architecture.trace import TraceOptions, trace_model
from workbench.architecture.traced import unpack_weights
from workbench.chat.generate import Generator
from workbench.chat.sampling import SamplingOptions
from workbench.errors import JobCancelled, WorkbenchError
from workbench.job import Job
from workbench.models.load import LoadedFacts, LoadedModel, LoadOptions, load_model, unload
from workbench.models.memory import storages
from workbench.paths import data_dir
from workbench.tokens.tokenizer import load_tokenizer

pytestmark = pytest.mark.model

IDS = [5 + (7 * n) % 120 for n in range(12)]
EVERYTHING = TraceOptions(lens=3, lens_positions=0)
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 160,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
OLD = {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 160}

# By model type: config, kinds of mixer, kinds of MLP, last step of the lens, whether parts sum up to the layer.
FAMILIES = {
    "llama": (SMALL, "attention", "mlp", "lm_head", True),
    "qwen3": ({**SMALL, "head_dim": 16}, "attention", "mlp", "lm_head", True),
    "olmo2": (SMALL, "attention", "mlp", "lm_head", True),
    "gemma2": ({**SMALL, "head_dim": 16}, "attention", "mlp", "soft cap 30", True),
    "cohere": (SMALL, "attention", "mlp", "times 0.0625", True),
    "granite": (
        {**SMALL, "logits_scaling": 8.0, "residual_multiplier": 0.2},
        "attention",
        "mlp",
        "divided by 8",
        True,
    ),
    "gpt2": (OLD, "attention", "mlp", "lm_head", True),
    "gpt_neox": (SMALL, "attention", "mlp", "lm_head", True),
    "gptj": ({**OLD, "rotary_dim": 8}, "attention", "mlp", "lm_head", True),
    "bloom": ({"hidden_size": 64, "n_layer": 3, "n_head": 4, "vocab_size": 160}, "attention", "mlp", "lm_head", True),
    "falcon": (SMALL, "attention", "mlp", "lm_head", True),
    "mpt": ({"d_model": 64, "n_heads": 4, "n_layers": 3, "vocab_size": 160}, "attention", "mlp", "lm_head", True),
    "opt": ({**SMALL, "ffn_dim": 96, "word_embed_proj_dim": 64}, "attention", "mlp", "lm_head", True),
    "mixtral": ({**SMALL, **EXPERTS}, "attention", "experts", "lm_head", True),
    "qwen3_moe": ({**SMALL, **EXPERTS, "head_dim": 16}, "attention", "experts", "lm_head", True),
    "gpt_oss": ({**SMALL, **EXPERTS, "head_dim": 16}, "attention", "experts", "lm_head", True),
    "mamba": ({**SMALL, "state_size": 8}, "state space", None, "lm_head", True),
    "jamba": (
        {**SMALL, **EXPERTS, "use_mamba_kernels": False, "attn_layer_period": 2, "attn_layer_offset": 1},
        "attention, state space",
        "experts, mlp",
        "lm_head",
        True,
    ),
    "rwkv": ({**SMALL, "attention_hidden_size": 64, "context_length": 128}, "linear attention", "mlp", "head", None),
    "bart": (
        {**SMALL, "d_model": 64, "decoder_layers": 3, "decoder_attention_heads": 4, "decoder_ffn_dim": 96},
        "attention",
        "mlp",
        "lm_head",
        False,
    ),
}


def wrapped(model) -> LoadedModel:
    """A model in memory as the worker holds it."""
    facts = LoadedFacts(
        directory="/nowhere",
        class_name=type(model).__name__,
        model_type=model.config.model_type,
        quant="none",
        double_quant=False,
        dtype="float32",
        device="cpu",
        attention="sdpa",
        weights_bytes=0,
        load_seconds=0.0,
        pickle=False,
        supports_generation=True,
        is_encoder_decoder=False,
        context_length=128,
    )
    return LoadedModel(model, LoadOptions(device="cpu"), facts)


def family(model_type: str, **changes) -> LoadedModel:
    """A random model of a few thousand values."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**FAMILIES[model_type][0], **changes})
    return wrapped(AutoModelForCausalLM.from_config(config).eval().float())


def load_tiny(name: str, quant: str = "none") -> LoadedModel:
    return load_model(data_dir("sample_models") / f"tiny-{name}", LoadOptions(quant, dtype="float32", device="cpu"))


def run(loaded: LoadedModel, **options):
    import torch

    with torch.inference_mode():
        return loaded.model(input_ids=torch.tensor([IDS]), use_cache=False, **options)


def hooks_of(model) -> list[list[int]]:
    names = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")
    return [list(getattr(module, name)) for module in model.modules() for name in names]


def kinds(trace, role: str) -> str | None:
    return ", ".join(sorted({getattr(x, role).kind for x in trace.layers if getattr(x, role)})) or None


class StopAt(Job):
    """Cancels at the first check after a phase has come so far, as a user does who watches."""

    def __init__(self, phase: str = "", done: int = 0) -> None:
        self.phase = phase
        self.done = done
        self.phases: dict[str, int] = {}

    def check(self) -> None:
        if self.phases.get(self.phase, -1) >= self.done:
            raise JobCancelled

    def progress(self, phase, done, total=None, unit="", detail=""):
        self.phases[phase] = done


@pytest.mark.parametrize("name", FAMILIES)
def test_figures_are_those_of_plain_outputs_and_the_model_is_left_as_it_was(name):
    import torch

    _config, mixers, mlps, last_step, sums_up = FAMILIES[name]
    loaded = family(name)
    before, hooks = run(loaded).logits, hooks_of(loaded.model)
    trace = trace_model(loaded, IDS, str, EVERYTHING)
    assert hooks_of(loaded.model) == hooks
    assert torch.equal(run(loaded).logits, before)

    streams = run(loaded, output_hidden_states=True).hidden_states
    # The last entry of transformers has gone through the final norm; these two leave out the embedding.
    streams = streams[:-1] if name in ("mamba", "rwkv") else streams[1:-1]
    assert len(streams) >= 2
    for layer, stream in zip(trace.layers, streams, strict=False):
        values = stream[0].double()
        assert layer.output.shape == (len(IDS), 64)
        assert layer.output.mean == pytest.approx(float(values.mean()), abs=1e-6)
        assert layer.output.std == pytest.approx(float(values.std(correction=0)), rel=1e-5)
        assert layer.output.absmax == pytest.approx(float(values.abs().max()))
        assert layer.output.nonfinite == 0
        assert layer.first_norm == pytest.approx(float(values[0].norm()), rel=1e-5)
        assert layer.residual_norm == pytest.approx(float(values[1:].norm(dim=-1).mean()), rel=1e-5)
    assert kinds(trace, "mixer") == mixers
    assert kinds(trace, "mlp") == mlps
    assert ("mlp" in trace.why) == (mlps is None)
    if sums_up is not None:
        assert ("contribution" in trace.why) != sums_up

    assert trace.lens is not None, trace.why
    assert trace.lens.steps[-1] == last_step
    assert trace.lens.layers == (-1, 0, 1, 2)
    expected = before[0].softmax(-1).topk(3, dim=-1)
    assert [list(cell) for cell in trace.lens.ids[-1]] == expected.indices.tolist()
    assert torch.tensor(trace.lens.probabilities[-1]).allclose(expected.values, atol=2e-6)
    assert set(trace.lens.final_rank[-1]) == {0}
    assert json.loads(json.dumps(dataclasses.asdict(trace), allow_nan=False))


def test_the_lens_of_every_layer_is_norm_and_head_on_its_stream():
    import torch

    loaded = family("llama", tie_word_embeddings=False)
    trace = trace_model(loaded, IDS, str, EVERYTHING)
    streams = run(loaded, output_hidden_states=True).hidden_states
    final = run(loaded).logits[0].argmax(-1)
    with torch.inference_mode():
        for row, stream in enumerate(streams[:-1]):
            logits = loaded.model.lm_head(loaded.model.model.norm(stream))[0]
            chances = logits.softmax(-1)
            assert [list(cell) for cell in trace.lens.ids[row]] == chances.topk(3, dim=-1).indices.tolist()
            entropy = torch.special.entr(chances).sum(-1) / math.log(2)
            assert torch.tensor(trace.lens.entropy[row]).allclose(entropy, atol=1e-3)
            rank = (logits > logits.gather(-1, final[:, None])).sum(-1)
            assert list(trace.lens.final_rank[row]) == rank.tolist()
    assert not trace.lens.tied
    assert trace.lens.texts[str(trace.lens.ids[0][0][0])] == str(trace.lens.ids[0][0][0])
    few = trace_model(loaded, IDS, str, TraceOptions(lens=2, lens_positions=4)).lens
    assert few.positions == (8, 9, 10, 11)
    assert few.ids == tuple(tuple(cell[:2] for cell in row[-4:]) for row in trace.lens.ids)
    assert trace_model(loaded, IDS, str, TraceOptions(lens=0)).why["lens"] == "It was not asked for."


def test_time_and_contributions_belong_to_their_parts():
    loaded = family("llama")
    given = {}
    layer = loaded.model.model.layers[1]
    handles = [
        layer.register_forward_pre_hook(lambda _m, args: given.update(x=args[0].clone())),
        layer.self_attn.register_forward_hook(lambda _m, _a, out: given.update(attention=out[0].clone())),
        layer.mlp.register_forward_hook(lambda _m, _a, out: given.update(mlp=out.clone())),
    ]
    run(loaded)
    for handle in handles:
        handle.remove()
    trace = trace_model(loaded, IDS, str, EVERYTHING)
    traced = trace.layers[1]
    norms = {key: float(values[0, 1:].norm(dim=-1).mean()) for key, values in given.items()}
    assert traced.mixer.contribution_norm == pytest.approx(norms["attention"], rel=1e-5)
    assert traced.mlp.contribution_norm == pytest.approx(norms["mlp"], rel=1e-5)
    assert traced.mlp.contribution_share == pytest.approx(norms["mlp"] / norms["x"], rel=1e-5)
    assert 0 < traced.mixer.seconds + traced.mlp.seconds < traced.seconds < trace.forward_seconds < trace.trace_seconds
    shares = (trace.mixer_time_share, trace.mlp_time_share, trace.head_time_share, trace.other_time_share)
    assert sum(shares) == pytest.approx(1.0)
    assert all(0 < share < 1 for share in shares)
    modules = {module.name: module for module in trace.modules}
    assert set(modules) == {name for name, _ in loaded.model.named_modules() if name}
    assert modules["model.layers.1.mlp.down_proj"].part == "mlp"
    assert modules["model.layers.1.mlp.down_proj"].output.shape == (12, 64)
    assert modules["model.layers.1.mlp.down_proj"].layer == 1
    inside = sum(modules[f"model.layers.1.mlp.{name}"].seconds for name in ("gate_proj", "up_proj", "down_proj"))
    assert modules["model.layers.1.mlp"].own_seconds < modules["model.layers.1.mlp"].seconds - inside * 0.9
    assert modules["model.norm"].part == "norm"
    assert modules["lm_head"].output.shape == (12, 160)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom", "falcon", "gemma2", "gpt_oss", "jamba", "opt", "mpt"])
def test_attention_weights_are_those_of_output_attentions(name):
    import torch

    loaded = family(name)
    before, hooks = run(loaded).logits, hooks_of(loaded.model)
    layer = 1
    maps = read_attention(loaded, IDS, layer, str)
    if name not in (
        "bloom",
        "falcon",
        "mpt",
    ):  # these are asked by output_attentions, for which transformers hooks itself
        assert hooks_of(loaded.model) == hooks
    assert torch.equal(run(loaded).logits, before)

    reference = family(name, attn_implementation="eager")
    weights = run(reference, output_attentions=True).attentions
    weights = (weights[layer] if len(weights) > 1 else weights[0])[0]
    assert (maps.num_attention_heads, maps.queries, maps.keys) == weights.shape
    for head in maps.heads:
        rows = torch.tensor(unpack_weights(head.data, maps.queries, maps.keys))
        assert rows.allclose(weights[head.head], atol=1 / 65_000)
    own = torch.stack([weights[:, n, n] for n in range(1, 12)]).mean(0)
    previous = torch.stack([weights[:, n, n - 1] for n in range(1, 12)]).mean(0)
    for figure in maps.figures:
        assert figure.itself == pytest.approx(float(own[figure.head]), abs=1e-5)
        assert figure.previous == pytest.approx(float(previous[figure.head]), abs=1e-5)
        assert figure.first == pytest.approx(float(weights[figure.head, 1:, 0].mean()), abs=1e-5)
        assert 0 < figure.entropy_share <= 1.00001
    assert read_attention(loaded, IDS, layer, str, heads=[2]).heads == (maps.heads[2],)


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "jamba"])
def test_routing_counts_are_those_of_output_router_logits(name):
    import torch

    loaded = family(name)
    trace = trace_model(loaded, IDS, str, EVERYTHING)
    logits = run(loaded, output_router_logits=True).router_logits
    assert len(trace.routing) == len(logits) > 0
    for routing, scores in zip(trace.routing, logits, strict=True):
        chosen = scores.topk(2, dim=-1).indices
        assert list(routing.counts) == torch.bincount(chosen.reshape(-1), minlength=routing.experts).tolist()
        assert sum(routing.counts) == routing.tokens * routing.per_token == 24
        assert routing.dead_share == routing.counts.count(0) / routing.experts
        assert 0.5 <= routing.confidence <= 1
        assert 0 < routing.entropy_share <= 1.00001


def test_outlier_channels_meet_the_criterion_of_llm_int8():
    import torch

    loaded = family("llama")
    assert trace_model(loaded, IDS, str).outliers.systematic == 0
    with torch.no_grad():
        for layer in loaded.model.model.layers[:2]:
            layer.input_layernorm.weight[17] = 50.0
        loaded.model.model.layers[2].input_layernorm.weight[3] = 50.0
    outliers = trace_model(loaded, IDS, str).outliers
    found = {item.channel: item for item in outliers.inputs}
    assert found[17].systematic
    assert found[17].layers == 2
    assert found[17].layer_share == pytest.approx(2 / 3)
    assert found[17].absmax > 6
    assert found[3].layers == 1
    assert outliers.width == 64


def test_values_that_are_not_finite_are_counted_and_stay_out_of_the_rest():
    import torch

    loaded = load_tiny("llama")
    with torch.no_grad():
        loaded.model.model.layers[1].mlp.down_proj.weight[3, 5] = float("inf")
    trace = trace_model(loaded, IDS, str, EVERYTHING)
    first, second = trace.layers[0].output, trace.layers[1].output
    assert first.nonfinite == 0
    assert 0 < second.nonfinite <= len(IDS)
    assert math.isfinite(second.mean)
    assert math.isfinite(second.absmax)
    json.dumps(dataclasses.asdict(trace), allow_nan=False)
    unload(loaded)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_figures_of_a_tensor_in_pieces(dtype, monkeypatch):
    import torch

    monkeypatch.setattr(figures, "_CHUNK", 1000)
    torch.manual_seed(1)
    values = (torch.randn(1, 30, 333) * 3 + 100).to(getattr(torch, dtype))
    values[0, 2, :5] = float("nan")
    values[0, 20, 7] = -float("inf")
    ledger = figures.Ledger()
    measured = figures.measure(values, ledger)
    empty = figures.measure(values[:, :0], ledger)
    ledger.fetch()
    found = figures.figures_of(measured, ledger)
    finite = values[values.isfinite()].double()
    assert found.nonfinite == 6
    assert found.shape == (30, 333)
    assert found.mean == pytest.approx(float(finite.mean()), rel=1e-6)
    assert found.std == pytest.approx(float(finite.std(correction=0)), rel=1e-5)
    assert found.absmax == float(finite.abs().max())
    assert figures.figures_of(empty, ledger).mean is None


def test_an_encoder_decoder_traces_both_stacks():
    loaded = load_tiny("t5")
    trace = trace_model(loaded, IDS, str, EVERYTHING)
    assert [layer.stack for layer in trace.layers] == ["encoder"] * 2 + ["decoder"] * 2
    assert trace.layers[2].others[0].kind == "cross-attention"
    assert trace.layers[0].output.shape == (12, 64)
    assert trace.layers[2].output.shape == (1, 64)
    assert trace.lens.positions == (0,)
    assert "contribution" not in trace.why
    assert read_attention(loaded, IDS, 1, str).queries == 12
    unload(loaded)


@pytest.mark.parametrize("quant", ["nf4", "fp4", "int8"])
def test_quantized_models_are_traced_and_answer_as_before(quant):
    import torch

    loaded = load_tiny("llama", quant)
    before = run(loaded).logits
    trace = trace_model(loaded, IDS, str, EVERYTHING)
    maps = read_attention(loaded, IDS, 1, str)
    assert torch.equal(run(loaded).logits, before)
    assert [cell[0] for cell in trace.lens.ids[-1]] == before[0].argmax(-1).tolist()
    assert {module.class_name for module in trace.modules} & {"Linear4bit", "Linear8bitLt"}
    assert len(maps.heads) == 4

    live = inspect_loaded(loaded)
    assert live.bytes == sum(storage.nbytes() for storage in storages(loaded.model))
    assert live.parameters == load_parameters()
    assert live.by_quantization[quant] > live.by_quantization.get("none", 0) * 0.2
    layers = next(node for node in live.tree.children[0].children if node.name == "layers").children
    assert [(node.name, node.repeat) for node in layers] == [("0-3", 4)]
    mlp = next(node for node in layers[0].children if node.name == "mlp")
    down = next(node for node in mlp.children if node.name == "down_proj")
    (weight,) = down.children
    assert weight.quantization == down.quantization == quant
    assert weight.shape == (64, 192)
    unload(loaded)


def load_parameters() -> int:
    loaded = load_tiny("llama")
    count = sum(parameter.numel() for parameter in loaded.model.parameters())
    live = inspect_loaded(loaded)
    assert live.parameters == count
    assert live.bytes == loaded.weights_bytes
    assert live.by_quantization == {"none": live.bytes}
    assert live.by_dtype == {"float32": live.bytes}
    unload(loaded)
    return count


@pytest.mark.parametrize(("phase", "done"), [("time", 0), ("time", 2), ("figures", 0), ("figures", 2)])
def test_a_cancelled_trace_stops_at_once_and_leaves_nothing_behind(phase, done):
    import torch

    loaded = family("llama")
    before, hooks = run(loaded).logits, hooks_of(loaded.model)
    job = StopAt(phase, done)
    with pytest.raises(JobCancelled) as caught:
        trace_model(loaded, IDS, str, EVERYTHING, job)
    assert job.phases[phase] == done
    assert caught.value.__context__ is None  # its frames would hold activations
    with pytest.raises(JobCancelled):
        read_attention(loaded, IDS, 2, str, job=StopAt("attention", 1))
    assert hooks_of(loaded.model) == hooks
    assert loaded.model.config._attn_implementation == "sdpa"
    assert torch.equal(run(loaded).logits, before)


def test_a_failure_inside_is_one_line_and_leaves_nothing_behind():
    import torch

    loaded = family("llama")
    before = run(loaded).logits

    def fail(*_):
        raise RuntimeError("mat1 and mat2\nshapes")

    handle = loaded.model.model.layers[1].mlp.register_forward_pre_hook(fail)
    hooks = hooks_of(loaded.model)
    for look in (lambda: trace_model(loaded, IDS, str), lambda: read_attention(loaded, IDS, 2, str)):
        with pytest.raises(
            WorkbenchError, match=r"LlamaForCausalLM failed .* RuntimeError: mat1 and mat2 shapes"
        ) as error:
            look()
        assert error.value.kind == "trace-failed"
        assert "Traceback" in error.value.details
    assert hooks_of(loaded.model) == hooks
    handle.remove()
    assert torch.equal(run(loaded).logits, before)


def test_bad_input_is_refused_in_one_line():
    loaded, mamba = family("llama"), family("mamba")
    for look, kind, words in (
        (lambda: trace_model(loaded, [], str), "bad-prompt", "empty"),
        (lambda: trace_model(loaded, [3] * 129, str), "prompt-too-long", "129 tokens.* context is 128"),
        (lambda: trace_model(mamba, [3] * 2049, str), "prompt-too-long", "context|2,048 at most"),
        (lambda: trace_model(loaded, [160], str), "bad-prompt", "token 160.* 160 rows"),
        (lambda: trace_model(loaded, IDS, str, TraceOptions(lens=51)), "bad-option", "51"),
        (lambda: trace_model(loaded, IDS, str, TraceOptions(lens_positions=-1)), "bad-option", "-1"),
        (lambda: read_attention(loaded, IDS, 3, str), "bad-layer", "no layer 3"),
        (lambda: read_attention(loaded, IDS, -1, str), "bad-layer", "no layer -1"),
        (lambda: read_attention(loaded, IDS, 0, str, heads=[4]), "bad-head", "no head 4"),
        (lambda: read_attention(mamba, IDS, 0, str), "no-attention", "mixes tokens by state space"),
    ):
        with pytest.raises(WorkbenchError, match=words) as error:
            look()
        assert error.value.kind == kind
        assert error.value.remedy


def test_one_token_is_enough():
    loaded = family("llama")
    trace = trace_model(loaded, IDS[:1], str, EVERYTHING)
    assert trace.layers[0].residual_norm == trace.layers[0].first_norm
    (head, *_) = read_attention(loaded, IDS[:1], 0, str).figures
    assert head.first == pytest.approx(1.0)
    assert head.entropy_share == pytest.approx(0.0)


def test_the_real_model_answers_the_same_before_and_after(smollm2_dir):
    import torch

    loaded = load_model(smollm2_dir, LoadOptions(dtype="float32", device="cpu"))
    tokenizer = load_tokenizer(str(smollm2_dir))
    generator = Generator(loaded, tokenizer)
    ids = tokenizer.encode("The capital of France is Paris, and the capital of Germany is")
    greedy = SamplingOptions(greedy=True, max_new_tokens=12)
    answer = generator.generate(ids, greedy, fresh=True).ids
    inputs = torch.tensor([ids])
    with torch.inference_mode():
        logits = loaded.model(input_ids=inputs, use_cache=False).logits
    hooks = hooks_of(loaded.model)

    job = StopAt()
    trace = trace_model(loaded, ids, lambda token: tokenizer.decode([token]), EVERYTHING, job)
    maps = read_attention(loaded, ids, 20, lambda token: tokenizer.decode([token]))
    assert job.phases == {"time": 30, "figures": 30}
    assert hooks_of(loaded.model) == hooks
    with torch.inference_mode():
        assert torch.equal(loaded.model(input_ids=inputs, use_cache=False).logits, logits)
    assert generator.generate(ids, greedy, fresh=True).ids == answer

    assert trace.lens.texts[str(trace.lens.ids[-1][-1][0])] == " Berlin"
    assert [cell[0] for cell in trace.lens.ids[-1]] == logits[0].argmax(-1).tolist()
    with torch.inference_mode():
        streams = loaded.model(input_ids=inputs, output_hidden_states=True, use_cache=False).hidden_states
        loaded.model.set_attn_implementation("eager")
        weights = loaded.model(input_ids=inputs, output_attentions=True, use_cache=False).attentions[20][0]
    for layer, stream in list(zip(trace.layers, streams[1:], strict=True))[:-1]:
        assert layer.output.absmax == float(stream.abs().max())
        assert layer.output.std == pytest.approx(float(stream.double().std(correction=0)), rel=1e-5)
    assert "contribution" not in trace.why
    for head in maps.heads:
        rows = torch.tensor(unpack_weights(head.data, maps.queries, maps.keys))
        assert rows.allclose(weights[head.head], atol=1 / 65_000)
    assert unload(loaded) == 0
