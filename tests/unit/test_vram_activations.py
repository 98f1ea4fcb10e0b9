"""Activations: the generated table against the simulation it was made from, on models it has not seen."""

from __future__ import annotations

from importlib import metadata

import pytest

from workbench.architecture.build import build_skeleton
from workbench.vram.activations import Moment, covers, mode, moments, table
from workbench.vram.dimensions import LETTERS, dimensions
from workbench.vram.estimate import CUBLAS_WORKSPACE_BYTES, Estimator, estimate
from workbench.vram.plan import Lora, Plan, changed

pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

SMALL = {
    **{"vocab_size": 32000, "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 6},
    **{"num_attention_heads": 12, "num_key_value_heads": 4, "max_position_embeddings": 4096},
}
UNSEEN = {
    "llama": SMALL,
    "qwen2": {**SMALL, "tie_word_embeddings": True},
    "mistral": {**SMALL, "head_dim": 128, "sliding_window": None},
}
NF4 = {"job": "qlora", "quant": "nf4", "double_quant": True}
PLANS = [
    ("llama", Plan(job="full", batch=3, sequence_length=512)),
    ("llama", Plan(job="lora", batch=2, sequence_length=640, gradient_checkpointing=True, lora=Lora(r=10))),
    ("llama", Plan(batch=2, sequence_length=512, new_tokens=2)),
    ("qwen2", Plan(job="full", batch=2, sequence_length=768)),
    ("mistral", Plan(**NF4, sequence_length=512, lora=Lora(r=8, targets=("q_proj", "v_proj")))),
    ("mistral", Plan(job="full", sequence_length=256, attention="eager", keep_outputs=True)),
]


def installed():
    return {name: metadata.version(name) for name in table()["versions"]}


@pytest.mark.parametrize(("family", "plan"), PLANS, ids=lambda value: mode(value) if isinstance(value, Plan) else value)
def test_estimates_equal_the_simulation(family, plan):
    if installed() != table()["versions"]:
        pytest.skip(f"the table was made with {table()['versions']}")
    from workbench.vram.simulate.engine import run
    from workbench.vram.simulate.trace import phase_peaks

    config = {"model_type": family, **UNSEEN[family]}
    skeleton = build_skeleton(config)
    assert covers(skeleton, plan)
    names = {"forward", "backward"} if plan.trains else {"prefill"}
    simulated: dict[str, int] = {}
    for peak in phase_peaks(run(config, plan).trace):
        simulated[peak.name] = max(simulated.get(peak.name, 0), peak.live_bytes)
    estimated = {phase.name: phase.total for phase in Estimator(skeleton).estimate(plan).phases}
    workspaces = CUBLAS_WORKSPACE_BYTES * (2 if plan.trains else 1)
    for name in names:
        assert estimated[name] == pytest.approx(simulated[name] - workspaces, rel=0.002), name


SAMPLED = {
    **UNSEEN,
    "qwen3": SMALL,
    "opt": {**SMALL, "ffn_dim": 3072, "word_embed_proj_dim": 768},
    "gpt_neox": {**SMALL, "intermediate_size": 3072},
}
QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")
SAMPLE = [
    ("llama", Plan(job="lora", dtype="float32", batch=2, sequence_length=512, lora=Lora(dropout=0.05))),
    ("llama", Plan(**NF4, batch=2, sequence_length=512, attention="flash", gradient_checkpointing=True)),
    ("llama", Plan(job="full", batch=2, sequence_length=1024, chunked_loss=True, optimizer="adamw-8bit")),
    ("llama", Plan(dtype="float32", sequence_length=2048, new_tokens=64)),
    ("llama", Plan(sequence_length=2048, new_tokens=200, batch=4, kv_dtype="fp8")),
    ("llama", Plan(sequence_length=2048, new_tokens=200, batch=4, kv_dtype="int4")),
    ("qwen2", Plan(job="full", sequence_length=128, accumulation=4, optimizer="sgd")),
    ("qwen3", Plan(job="lora", sequence_length=512, attention="eager", lora=Lora(targets=QKVO, dtype="bfloat16"))),
    ("mistral", Plan(job="lora", batch=4, sequence_length=256, padded=True, keep_outputs=True)),
    ("opt", Plan(job="full", batch=2, sequence_length=512)),
    ("gpt_neox", Plan(job="lora", batch=2, sequence_length=1024, gradient_checkpointing=True)),
]
"""Of what ``tests/benchmarks/bench_vram_estimate.py`` draws: most of it in no table."""


def test_a_sample_of_the_grid_keeps_its_aims(capsys):
    from workbench.vram.simulate.engine import run
    from workbench.vram.simulate.trace import phase_peaks

    found = []
    for family, plan in SAMPLE:
        config = {"model_type": family, **SAMPLED[family]}
        wanted = ("forward", "backward", "optimizer") if plan.trains else ("prefill", "decode")
        peak = max(one.live_bytes for one in phase_peaks(run(config, plan).trace) if one.name in wanted)
        simulated = peak - CUBLAS_WORKSPACE_BYTES * (2 if plan.trains else 1)
        estimated = estimate(plan, build_skeleton(config)).allocated
        found.append(
            (abs(estimated / simulated - 1), f"{family} {mode(plan)}: {100 * (estimated / simulated - 1):+.2f} %")
        )
    found.sort(reverse=True)
    with capsys.disabled():
        print("\nestimate beside simulation, worst three: " + "; ".join(line for _size, line in found[:3]))
    assert found[0][0] < 0.08, found
    assert found[len(found) // 2][0] < 0.03, found


def test_the_table_is_well_formed():
    found = table()
    assert found["families"]
    for family in found["families"].values():
        assert {found["forms"][number] is not None for number in family["modes"].values()} == {True}
    for phases in found["forms"]:
        for forms in phases.values():
            assert forms
            for form in forms:
                for polynomial in form.values():
                    assert all(set(monomial) <= set(LETTERS) for monomial in polynomial)


def test_the_closed_form_of_llamas_saved_activations():
    # bf16, full, flash, for each token and layer: 16h + 4q + 4k + 8i + 4a + 8 bytes.
    skeleton = build_skeleton({"model_type": "llama", **SMALL})
    deeper = build_skeleton({"model_type": "llama", **SMALL, "num_hidden_layers": 7})
    plan = Plan(job="full", batch=8, sequence_length=1024)
    forward = [
        max(m.activations for m in moments(one, plan).moments if m.phase == "forward") for one in (skeleton, deeper)
    ]
    tokens = 8 * 1024
    per_token = 16 * 768 + 4 * 768 + 4 * 256 + 8 * 2048 + 4 * 12 + 8
    assert forward[1] - forward[0] == pytest.approx(tokens * per_token, rel=1e-4)


def test_a_family_without_table_says_so():
    config = {"model_type": "bloom", "vocab_size": 512, "hidden_size": 64, "n_layer": 2, "n_head": 4}
    skeleton = build_skeleton(config)
    plan = Plan(job="full", sequence_length=64)
    assert not covers(skeleton, plan)
    budget = estimate(plan, skeleton)
    assert {category.name: category.known for category in budget.categories}["activations"] == "rule"
    assert any("simulation" in warning for warning in budget.warnings)
    assert budget.activations > 0


def test_unusual_adapters_are_no_mode_of_the_table():
    skeleton = build_skeleton({"model_type": "llama", **SMALL})
    assert covers(skeleton, Plan(job="lora"))
    assert not covers(skeleton, Plan(job="lora", lora=Lora(dora=True)))
    assert not covers(skeleton, Plan(job="lora", lora=Lora(targets=("down_proj",))))
    assert not covers(skeleton, Plan(job="full", padded=True))


def test_chunked_loss_and_kept_outputs_change_the_logits_only():
    skeleton = build_skeleton({"model_type": "llama", **SMALL})
    plan = Plan(job="full", batch=4, sequence_length=2048)
    whole, chunked, kept = (
        max(moments(skeleton, one).moments, key=lambda moment: moment.logits)
        for one in (plan, changed(plan, chunked_loss=True), changed(plan, keep_outputs=True))
    )
    assert chunked.logits == 1024 * 32000 * 12
    assert kept.logits - whole.logits == 4 * 2048 * 32000 * 2
    assert isinstance(whole, Moment)


def test_dimensions_are_those_of_one_gpu_under_tensor_parallelism():
    skeleton = build_skeleton({"model_type": "llama", **SMALL})
    whole = dimensions(skeleton, Plan()).values
    cut = dimensions(skeleton, Plan(gpus=4, parallel="tp")).values
    assert {letter: whole[letter] // cut[letter] for letter in "hqkaiv"} == {
        **{"h": 1, "q": 4, "k": 4, "a": 4, "i": 4, "v": 4}
    }
