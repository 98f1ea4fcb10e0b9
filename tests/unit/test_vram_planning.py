"""What follows from a budget: largest that fits, changes, several GPUs, time and money, files and pages."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import toml
from workbench.architecture.build import build_skeleton
from workbench.errors import WorkbenchError
from workbench.vram.cost import break_even, cost, forward_flops, matmul_parameters, training_flops_per_token
from workbench.vram.curves import curve, overtakes
from workbench.vram.estimate import CUDA_CONTEXT_BYTES, Estimator, estimate, fits
from workbench.vram.gpus import catalogue, parse_gpu
from workbench.vram.markdown import to_markdown
from workbench.vram.parallel import launch_commands
from workbench.vram.plan import Lora, Plan, changed, check_plan, plan_from_dict, plan_to_dict
from workbench.vram.plan_file import PlanFile, from_toml, open_plan, save_plan, to_toml
from workbench.vram.prices import TABLE, ApiPrice, Price, copy_for_editing, load_prices
from workbench.vram.reference_tables import GPT3, RULES, reference_tables
from workbench.vram.rungs import Need
from workbench.vram.shares import CATEGORIES
from workbench.vram.solve import Solver, gpu_table
from workbench.vram.suggestions import make_it_fit, suggestions

pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

LLAMA3_8B = {
    **{"model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336},
    **{"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192},
}
MIXTRAL = {
    **{"model_type": "mixtral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336},
    **{"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 8},
}
QLORA = Plan(job="qlora", quant="nf4", double_quant=True, gradient_checkpointing=True)
TINY = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY["num_key_value_heads"] = 2
GIB = 2**30


@pytest.fixture(scope="module")
def llama():
    return build_skeleton(LLAMA3_8B)


@pytest.fixture(scope="module")
def mixtral():
    return build_skeleton(MIXTRAL)


@pytest.mark.parametrize("field", ["batch", "sequence_length"])
@pytest.mark.parametrize("plan", [Plan(), QLORA], ids=["inference", "qlora"])
def test_the_largest_that_fits_fits_and_one_more_does_not(llama, plan, field):
    solver = Solver(llama, plan)
    found = solver.largest(field, 24 * GIB)
    assert found.value is not None
    assert solver.total(field, found.value) == found.total_bytes <= 24 * GIB
    assert solver.total(field, found.value + 1) > 24 * GIB
    assert found.beyond_context == (
        field == "sequence_length" and found.value + (plan.new_tokens * (not plan.trains)) > 8192
    )


def test_what_never_fits_has_no_largest(llama):
    assert Solver(llama, Plan(job="full")).largest("batch", 24 * GIB).value is None
    with pytest.raises(WorkbenchError, match="batch or seq"):
        Solver(llama, Plan()).largest("colour", GIB)


def test_every_gpu_of_the_catalogue_is_judged(llama):
    rows = gpu_table(llama, QLORA, catalogue())
    by_name = {row.name: row for row in rows}
    assert len(rows) == len(catalogue())
    assert not by_name["GTX 1650"].fits
    assert by_name["H100 SXM 80GB"].fits
    assert (by_name["H100 SXM 80GB"].largest_batch or 0) > (by_name["RTX 4090"].largest_batch or 0) >= 1
    assert "bf16" in " ".join(by_name["T4"].notes)
    for row in rows:
        assert row.fits == (row.free_bytes >= 0) == (row.largest_batch is not None)


def test_suggestions_save_what_they_say_and_come_cheapest_first(llama):
    plan = changed(QLORA, gradient_checkpointing=False, batch=4, keep_outputs=True)
    total = estimate(plan, llama).total
    found = suggestions(llama, plan, 16 * GIB)
    assert [item.price for item in found] == sorted(item.price for item in found)
    assert {"gradient checkpointing", "no k-bit preparation", "batch 2, accumulated"} <= {i.title for i in found}
    for item in found:
        after = estimate(changed(plan, **item.change), llama).total
        assert (item.total_bytes, item.saves_bytes) == (after, total - after)
        assert item.fits == (after <= 16 * GIB)


@pytest.mark.parametrize("plan", [Plan(job="full"), Plan(job="lora", batch=2), Plan(batch=16), Plan(dtype="float32")])
@pytest.mark.parametrize("capacity", [12 * GIB, 40 * GIB])
def test_made_to_fit_it_fits_and_nothing_made_was_needless(llama, plan, capacity):
    found = make_it_fit(llama, plan, capacity)
    assert found.fits
    check_plan(found.plan)
    assert estimate(found.plan, llama).total == found.total_bytes <= capacity
    for left_out in found.changes:
        rest = plan
        for change in found.changes:
            if change is not left_out:
                rest = changed(rest, **change.change)
        try:
            check_plan(rest)
        except WorkbenchError:
            continue
        assert estimate(rest, llama).total > capacity, left_out.title


def test_what_fits_is_left_as_it_is(llama):
    found = make_it_fit(llama, QLORA, 80 * GIB)
    assert (found.changes, found.plan, found.fits) == ((), QLORA, True)


def test_the_best_rung_decides_what_fits(llama):
    """A plan that its simulation refuses is changed further, one that it takes with memory given back is not."""
    plan = dataclasses.replace(QLORA, sequence_length=1024)
    total = estimate(plan, llama).total
    gpu = parse_gpu(f"{total // 2**20 + 512}MiB")
    runs = {plan: Need("simulation", gpu.capacity_bytes + 2 * GIB, gpu.capacity_bytes + GIB)}
    known = lambda asked: [runs[asked]] if asked in runs else []  # noqa: E731
    fit = fits(estimate(plan, llama), [gpu], plan, known(plan))[0]
    assert (fit.fits, fit.by, fit.verdict, fit.free_bytes) == (False, "simulation", "no", -GIB)
    assert fit.rungs["estimate"].fits
    found = make_it_fit(llama, plan, gpu.capacity_bytes, known=known)
    assert (found.fits, found.by) == (True, "estimate")
    assert found.plan != plan
    assert not gpu_table(llama, plan, [gpu], known=known(plan))[0].fits
    runs[plan] = Need("simulation", gpu.capacity_bytes + 2 * GIB, gpu.capacity_bytes - GIB)
    fit = fits(estimate(plan, llama), [gpu], plan, known(plan))[0]
    assert (fit.fits, fit.verdict, fit.free_bytes) == (True, "tight", GIB)
    assert "gives memory back and asks again" in fit.notes[-1]
    assert make_it_fit(llama, plan, gpu.capacity_bytes, known=known).plan == plan


@pytest.mark.parametrize(
    ("plan", "reserved_gib"),
    [
        # Reserved of steps simulated whole: scores and logits of unlike sizes, of like ones, no scores.
        ({"sequence_length": 4096}, 23.81),
        ({"sequence_length": 2048, "batch": 4}, 29.60),
        ({"sequence_length": 4096, "kbit_prepare": False}, 14.96),
        ({"job": "lora", "quant": "none", "double_quant": False, "sequence_length": 2048}, 20.15),
        ({"job": "full", "quant": "none", "double_quant": False, "sequence_length": 2048}, 61.24),
    ],
)
def test_what_the_allocator_keeps_of_a_checkpointed_step(llama, plan, reserved_gib):
    budget = estimate(dataclasses.replace(QLORA, gradient_checkpointing=True, **plan), llama)
    assert (budget.total - CUDA_CONTEXT_BYTES) / GIB == pytest.approx(reserved_gib, rel=0.08)


def test_fused_experts_are_warned_of_with_the_real_size(mixtral):
    budget = estimate(Plan(quant="nf4", double_quant=True), mixtral)
    assert 91.3e9 < budget.weights < 91.5e9
    assert any("91.4 GB" in warning for warning in budget.warnings)


def test_warnings_name_what_they_cost(llama):
    assert any("1.96 GiB" in warning for warning in estimate(QLORA, llama).warnings)
    assert not any("k-bit" in w for w in estimate(changed(QLORA, kbit_prepare=False), llama).warnings)
    assert any("8,192" in warning for warning in estimate(Plan(sequence_length=9000), llama).warnings)


@pytest.mark.parametrize(
    ("gpu", "plan", "word"),
    [
        ("T4", Plan(), "float16"),
        ("T4", Plan(dtype="float16", attention="flash"), "8.0"),
        ("V100 SXM 32GB", Plan(quant="int8", dtype="float16"), "7.5"),
        ("RX 7900 XTX", Plan(job="full", optimizer="paged-adamw-8bit"), "unified"),
        ("A100 SXM 80GB", Plan(attention="flash"), ""),
    ],
)
def test_what_a_gpu_cannot_do_is_said(llama, gpu, plan, word):
    notes = " ".join(fits(estimate(plan, llama), [parse_gpu(gpu)], plan)[0].notes)
    assert word in notes
    assert bool(word) == bool(notes)


def test_sharding_shrinks_what_it_shards(llama):
    plan = Plan(job="full", gradient_checkpointing=True)
    alone = estimate(plan, llama)
    parts = {}
    for parallel in ("ddp", "zero1", "zero2", "zero3", "fsdp", "tp", "pp"):
        parts[parallel] = estimate(changed(plan, gpus=8, parallel=parallel), llama).static
    assert parts["ddp"] == {**alone.static}
    assert parts["fsdp"]["weights"] == -(-alone.static["weights"] // 8)
    assert parts["fsdp"]["optimizer"] == -(-alone.static["optimizer"] // 8)
    # DeepSpeed keeps float32 master weights and moments: 12 bytes a parameter, shared.
    assert parts["zero1"]["optimizer"] == pytest.approx(12 * 8_030_261_248 / 8, rel=0.001)
    assert parts["zero1"]["gradients"] == alone.static["gradients"] == 8 * parts["zero2"]["gradients"]
    assert parts["zero2"]["weights"] == alone.static["weights"] == pytest.approx(8 * parts["zero3"]["weights"], abs=8)
    assert parts["tp"]["weights"] == pytest.approx(alone.static["weights"] / 8, rel=0.01)
    assert alone.static["weights"] / 8 < parts["pp"]["weights"] < alone.static["weights"] / 4


def test_tensor_parallel_inference_cuts_the_cache_until_heads_run_out(llama):
    plan = Plan(batch=8, sequence_length=4096)
    whole = estimate(plan, llama).static["kv_cache"]
    assert estimate(changed(plan, gpus=4, parallel="tp"), llama).static["kv_cache"] == whole // 4
    # Eight key/value heads on sixteen GPUs: each GPU has one.
    assert estimate(changed(plan, gpus=16, parallel="tp"), llama).static["kv_cache"] == whole // 8


@pytest.mark.parametrize(("gpus", "parallel"), [(3, "tp"), (33, "pp")])
def test_splits_that_the_model_does_not_allow_are_refused(llama, gpus, parallel):
    with pytest.raises(WorkbenchError) as caught:
        estimate(Plan(gpus=gpus, parallel=parallel), llama)
    assert caught.value.kind == "bad-plan"


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan(gpus=4, parallel="tp"), ["vllm serve org/m", "--tensor-parallel-size 4"]),
        (Plan(quant="nf4", kv_dtype="fp8"), ["--quantization bitsandbytes", "--kv-cache-dtype fp8"]),
        (Plan(job="full", gpus=8, parallel="zero3"), ["--zero_stage 3", "deepspeed --num_gpus 8"]),
        (Plan(job="full", gpus=2, parallel="fsdp"), ["--use_fsdp"]),
        (Plan(job="lora", gpus=2, parallel="ddp"), ["torchrun --nproc-per-node 2", "accelerate launch"]),
        (Plan(job="lora"), ["python train.py"]),
    ],
)
def test_launch_commands(plan, words):
    commands = "\n".join(launch_commands(plan, "org/m"))
    assert all(word in commands for word in words)


def test_no_command_starts_something_else_than_the_plan():
    assert launch_commands(Plan(quant="int8", gpus=2, parallel="tp"), "org/m") == (
        "torchrun --nproc-per-node 2 run.py",
    )
    assert launch_commands(Plan(kv_dtype="int4"), "org/m") == ("python run.py",)


def test_a_stage_of_a_pipeline_holds_the_embedding_or_the_head(llama):
    layer = 218_112_000 * 2
    embedding = 128256 * 4096 * 2
    found = estimate(Plan(gpus=4, parallel="pp"), llama).weights
    assert found == pytest.approx(8 * layer + embedding, rel=1e-4)


def test_flops_count_what_a_token_meets(llama, mixtral):
    # All but the input embedding and the norms.
    assert matmul_parameters(llama) == 8_030_261_248 - 128256 * 4096 - 65 * 4096
    # 12.9 B active parameters less the embedding, and a little for the router.
    assert matmul_parameters(mixtral) == pytest.approx(12.75e9, rel=0.005)
    assert forward_flops(llama, 2048) == 2 * matmul_parameters(llama) + 2 * 4096 * 2048 * 32
    full = training_flops_per_token(llama, Plan(job="full"))
    assert full == 3 * forward_flops(llama, 2048)
    assert training_flops_per_token(llama, Plan(job="full", gradient_checkpointing=True)) == full * 4 // 3
    assert 2 / 3 < training_flops_per_token(llama, Plan(job="lora")) / full < 0.7


def test_time_and_money_are_ranges_in_proportion(llama):
    gpu, price = parse_gpu("A100 SXM 80GB"), Price(1.0, 2.0, "2026-05", "a page")
    once = cost(llama, Plan(job="full"), gpu, price, dataset_tokens=10**7)
    thrice = cost(llama, Plan(job="full"), gpu, price, dataset_tokens=10**7, epochs=3)
    assert once.seconds
    assert once.usd
    assert thrice.seconds
    assert thrice.seconds.low == pytest.approx(3 * once.seconds.low)
    assert 0 < once.seconds.low < once.seconds.high
    assert once.usd.low == pytest.approx(once.seconds.low / 3600)
    assert once.usd.high == pytest.approx(2 * once.seconds.high / 3600)
    assert once.steps == -(-(10**7) // 2048)
    # 35 to 55 % of 312 TFLOP/s.
    assert once.seconds.low == pytest.approx(once.flops_per_token * 1e7 / (0.55 * 312e12))
    bare = cost(llama, Plan(job="full"))
    assert (bare.seconds, bare.usd, bare.flops_per_token) == (None, None, once.flops_per_token)


def test_decoding_is_bound_by_what_it_reads(llama):
    gpu = parse_gpu("RTX 4090")
    full, four_bit = cost(llama, Plan(), gpu), cost(llama, Plan(quant="nf4", double_quant=True), gpu)
    assert full.tokens_per_second
    assert four_bit.tokens_per_second
    # 15 GB of weights but the embedding at 1,008 GB/s: 67 tokens a second at the very most.
    assert 30 < full.tokens_per_second.low < full.tokens_per_second.high < 67
    assert 2.5 < four_bit.tokens_per_second.high / full.tokens_per_second.high < 4


def test_break_even(llama):
    gpu, price, api = parse_gpu("A100 SXM 80GB"), Price(1.0, 2.0, "", ""), ApiPrice(0.1, 0.4, "", "")
    plan = Plan(batch=16, sequence_length=1000, new_tokens=500)
    found = cost(llama, plan, gpu, price)
    few = break_even(found, plan, price, api, 100)
    assert few.cheaper == "api"
    assert few.api_usd_per_day == pytest.approx(100 * (1000 * 0.1 + 500 * 0.4) / 1e6)
    many = break_even(found, plan, price, api, 100, agent_multiplier=20)
    assert many.api_usd_per_day == pytest.approx(20 * few.api_usd_per_day)
    assert few.tokens_per_day.low == pytest.approx(24.0 / (0.0003) * 500)
    assert break_even(found, plan, price, api, 10**7).notes[-1].startswith("One such GPU cannot")
    with pytest.raises(WorkbenchError):
        break_even(found, QLORA, price, api, 100)


def test_prices_are_dated_and_can_be_replaced(tmp_path):
    prices = load_prices(tmp_path / "none.toml")
    names = {gpu.name for gpu in catalogue()}
    for name, price in prices.gpus.items():
        assert name in names
        assert 0 < price.low <= price.high
        assert price.date
        assert price.source
    own = copy_for_editing(tmp_path / "prices.toml")
    assert own.read_text() == TABLE.read_text()
    own.write_text("[gpu.T4]\nlow = 0.1\nhigh = 0.2\n[api.mine]\ninput_per_million = 1\noutput_per_million = 2\n")
    replaced = load_prices(own)
    assert replaced.of(parse_gpu("T4")) == Price(0.1, 0.2, "", "")
    assert replaced.gpus["H200"] == prices.gpus["H200"]
    assert replaced.apis["mine"].output_per_million == 2
    for text in ("[gpu.T4]\nlow = 3\nhigh = 1", "[gpu.T4]\nlow = -1\nhigh = 1", "gpu = 3", "[gpu.T4]\nlow = true"):
        own.write_text(text)
        with pytest.raises(WorkbenchError) as caught:
            load_prices(own)
        assert caught.value.kind == "bad-prices"


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
loras = st.builds(
    Lora,
    r=st.integers(1, 512),
    alpha=st.integers(1, 512),
    targets=st.lists(names, min_size=1, max_size=3).map(tuple),
    dropout=st.floats(0, 0.9),
    dora=st.booleans(),
    modules_to_save=st.lists(names, max_size=2).map(tuple),
)


@settings(max_examples=60, deadline=None)
@given(
    model=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    gpus=st.lists(names, max_size=3),
    lora=loras,
    batch=st.integers(1, 99),
)
def test_a_plan_file_opens_the_same(model, gpus, lora, batch):
    file = PlanFile(model, Plan(job="lora", batch=batch, lora=lora), tuple(gpus), 123, 2.5)
    try:
        check_plan(file.plan)
    except WorkbenchError:
        return
    assert from_toml(to_toml(file)) == file


def test_plan_files_on_disk(tmp_path):
    file = PlanFile("org/model", changed(QLORA, lora_r=8), ("T4", "24GiB"))
    path = save_plan(file, tmp_path / "plan.toml")
    assert open_plan(path) == file
    with pytest.raises(WorkbenchError) as caught:
        save_plan(file, path)
    assert caught.value.kind == "file-exists"
    save_plan(file, path, overwrite=True)
    path.write_text("[plan]\nbatch = 0", encoding="utf-8")
    with pytest.raises(WorkbenchError, match=r"plan\.toml: batch is 0"):
        open_plan(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(WorkbenchError, match="UTF-8"):
        open_plan(path)
    with pytest.raises(WorkbenchError, match="No such file"):
        open_plan(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "text",
    [
        "schema = 2",
        "plan = 3",
        "[plan]\njob = 'dream'",
        "[plan]\nbatch = 'two'",
        "[plan]\ncolour = 'red'",
        "[plan.lora]\nr = 'x'\n[plan]\njob = 'lora'",
        "gpus = 'T4'",
        "epochs = 0",
        "dataset_tokens = -1",
        "model = 3",
        "= broken",
    ],
)
def test_damaged_plan_files_are_refused_in_one_line(text):
    with pytest.raises(WorkbenchError) as caught:
        from_toml(text)
    assert caught.value.kind in ("bad-plan", "bad-toml")
    assert "\n" not in str(caught.value).strip()


def test_curves_follow_the_plan_and_say_where_categories_overtake(llama):
    estimator = Estimator(llama)
    points = curve(estimator, Plan(job="lora"), "sequence_length", [256, 1024, 4096, 16384])
    assert [point.value for point in points] == [256, 1024, 4096, 16384]
    assert [point.bytes["total"] for point in points] == sorted(point.bytes["total"] for point in points)
    for point in points:
        assert sum(point.bytes[name] for name in CATEGORIES) == point.bytes["total"]
    assert [(one.before, one.category) for one in overtakes(points)] == [("weights", "activations")]
    with pytest.raises(WorkbenchError, match="Choose one of"):
        curve(estimator, Plan(), "colour", [1])
    with pytest.raises(WorkbenchError):
        curve(estimator, Plan(), "batch", [0])


def test_markdown_keeps_foreign_text_in_its_cells(llama):
    budget = estimate(QLORA, llama)
    page = to_markdown(
        {
            "model": "a|b\n# x",
            "plan": plan_to_dict(QLORA),
            "estimate": {name: getattr(budget, name) for name in (*CATEGORIES, "total")},
            "known": {category.name: category.known for category in budget.categories},
            "why": {category.name: category.why for category in budget.categories},
            "gpus": [dataclasses.asdict(fit) for fit in fits(budget, [parse_gpu("T4")], QLORA)],
            "suggestions": [dataclasses.asdict(item) for item in suggestions(llama, QLORA, 10 * GIB)],
            "warnings": list(budget.warnings),
        }
    )
    assert page.splitlines()[0] == "# VRAM of a\\|b # x"
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert "| weights | 7.268 | exact |" in page
    assert all(row.endswith(" |") for row in rows)
    assert "T4" in page


def test_rules_of_thumb_beside_the_right_numbers(llama, mixtral):
    small = build_skeleton({**LLAMA3_8B, "vocab_size": 32000, "intermediate_size": 11008, "num_key_value_heads": 32})
    large = build_skeleton(
        {
            **LLAMA3_8B,
            "hidden_size": 8192,
            "intermediate_size": 28672,
            "num_hidden_layers": 80,
            "num_attention_heads": 64,
        }
    )
    models = {"llama-2-7b": small, "meta-llama-3-8b": llama, "mixtral-8x7b-v0.1": mixtral, "llama-3.1-70b": large}
    models["gpt3"] = build_skeleton(GPT3)
    rows = {row.title: row for row in reference_tables(models.__getitem__)}
    assert len(rows) == len(RULES)
    json.dumps([dataclasses.asdict(row) for row in rows.values()])
    assert rows["7B, full fine-tuning"].ratio < 0.8
    assert rows["7B, LoRA without checkpointing"].ratio > 1.8
    assert 0.9 < rows["7B, QLoRA"].ratio < 1.25
    assert rows["Mixtral-8x7B in 4 bit"].ratio > 3.5
    assert rows["GPT-3, float16 inference"].estimate["kv_cache"] == 2047 * 2 * 96 * 12288 * 2
    t4 = parse_gpu("T4").capacity_bytes
    assert rows["Llama-3-8B, QLoRA on a T4, 512 tokens"].right_bytes < t4


def test_plans_are_read_from_toml_as_from_json():
    text = '[plan]\njob = "lora"\ndtype = "auto"\n[plan.lora]\ntargets = ["q_proj"]\n'
    assert plan_from_dict(toml.loads(text)["plan"]) == Plan(job="lora", lora=Lora(targets=("q_proj",)))
    assert plan_from_dict({"quant": "int8", "dtype": "auto"}).dtype == "float16"


def test_a_quantized_checkpoint_counts_by_its_own_header(tmp_path, llama):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    from workbench.vram.stored import stored_weights

    tensors = {"a.qweight": torch.zeros(8, 16, dtype=torch.int32), "a.scales": torch.zeros(2, 16, dtype=torch.float16)}
    save_file(tensors, tmp_path / "model.safetensors")
    config = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    found = stored_weights(str(tmp_path), config)
    assert (found.method, found.bytes, found.stays_packed) == ("gptq", 8 * 16 * 4 + 2 * 16 * 2, True)
    budget = Estimator(llama, found).estimate(Plan())
    assert budget.weights == found.bytes + 2 * 64 * 4
    assert any("gptq" in warning for warning in budget.warnings)
    packed = Estimator(llama, dataclasses.replace(found, bytes=5_000_000_000))
    for parallel, most in (("tp", 1.26e9), ("pp", 1.6e9), ("fsdp", 1.26e9)):
        assert 1.25e9 <= packed.estimate(Plan(gpus=4, parallel=parallel)).weights < most
    assert stored_weights(str(tmp_path), {}) is None
    assert stored_weights(None, config) is None
    mxfp4 = stored_weights(str(tmp_path), {"quantization_config": {"quant_method": "mxfp4"}})
    assert mxfp4 is not None
    assert Estimator(llama, mxfp4).estimate(Plan()).weights == estimate(Plan(), llama).weights


def test_a_model_published_quantized_counts_by_that_layout(llama):
    from workbench.models.resolve import resolve
    from workbench.vram.stored import published_weights

    # The file of gpt-oss, and that of DeepSeek-R1 without the extra layer that transformers does not build.
    for name, published, packed in (("gpt-oss-120b", 65.25e9, False), ("deepseek-r1", 673e9, True)):
        resolved = resolve(name)
        assert resolved.config is not None
        skeleton = build_skeleton(resolved.config)
        found = published_weights(resolved.hub_id, skeleton)
        assert found is not None
        assert found.bytes == pytest.approx(published, rel=0.01)
        budget = Estimator(skeleton, found).estimate(Plan())
        assert (budget.weights < 1.01 * published) is packed
        assert any("The published checkpoint is quantized" in warning for warning in budget.warnings)
        assert budget.categories[0].known == ("rule" if packed else "exact")
    assert published_weights("meta-llama/Llama-3.1-8B", llama) is None


def test_adapters_of_a_vision_tower_are_told():
    from workbench.models.resolve import resolve

    config = resolve("gemma-3-4b").config
    assert config is not None
    skeleton = build_skeleton(config)
    # 27 layers of SigLIP, width 1,152: four square projections and two of 1,152 x 4,304, rank 16, float32.
    expected = 27 * 4 * 16 * (4 * 2 * 1152 + 2 * (1152 + 4304)) / 2**20
    found = [line for line in estimate(Plan(job="lora"), skeleton).warnings if "vision" in line]
    assert len(found) == 1
    assert found[0].startswith(f"{expected:.1f} MiB of the adapters")
    assert not any("vision" in line for line in estimate(Plan(), skeleton).warnings)


def test_ranges_are_told_to_two_figures():
    from workbench.vram.ranges import dollars, duration, range_words

    assert range_words({"low": 2_716_500.0, "high": 6_338_520.0}, duration) == "31 – 73 days"
    assert range_words({"low": 1501.63, "high": 8803.51}, dollars) == "1,500 – 8,800"
    assert (duration(0.012), duration(1.89), duration(1e10)) == ("12 ms", "1.9 s", "320 years")


def test_a_checkpoint_that_cannot_be_read_is_told(tmp_path, llama):
    from workbench.vram.stored import disagreement

    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    assert disagreement(str(tmp_path), llama).startswith("The checkpoint cannot be read: ")


def test_a_gguf_file_is_sized_by_its_blocks(tmp_path):
    gguf = pytest.importorskip("gguf")
    numpy = pytest.importorskip("numpy")

    from workbench.vram.stored import stored_weights

    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    writer.add_tensor("token_embd.weight", numpy.zeros((4, 256), dtype=numpy.float16))
    packed = gguf.quants.quantize(numpy.ones((8, 256), dtype=numpy.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("blk.0.attn_q.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = stored_weights(str(tmp_path / "m.gguf"), None)
    assert (found.method, found.bytes, found.stays_packed) == ("Q8_0", 4 * 256 * 2 + 8 * 256 * 34 // 32, False)


def test_weights_of_another_model_than_the_config_are_told(tmp_path):
    import torch
    from safetensors.torch import save_file

    from workbench.vram.stored import disagreement

    skeleton = build_skeleton({**LLAMA3_8B, **TINY})
    fitting = {entry.name: torch.zeros(entry.shape) for entry in skeleton.unique_parameters}
    save_file(fitting, tmp_path / "model.safetensors")
    assert disagreement(str(tmp_path), skeleton) == ""
    save_file({**fitting, "model.embed_tokens.weight": torch.zeros(5, 3)}, tmp_path / "model.safetensors")
    told = disagreement(str(tmp_path), skeleton)
    assert "in 1 tensor:" in told
    assert "[5, 3]" in told
    assert told in Estimator(skeleton, None, told).estimate(Plan()).warnings


def test_scores_that_sdpa_holds_are_told_with_what_would_not(llama):
    plan = Plan(job="qlora", quant="nf4", sequence_length=4096)
    budget = Estimator(llama).estimate(plan)
    assert any("no fused kernel" in warning for warning in budget.warnings)
    proposed = {tuple(one.change): one.saves_bytes for one in suggestions(llama, plan)}
    scores = 32 * 32 * 4096 * 4096 * 4
    assert proposed["attention",] > scores
    assert proposed["kbit_prepare",] > scores
    for fused in (changed(plan, attention="flash"), changed(plan, kbit_prepare=False)):
        assert not any("no fused kernel" in one for one in Estimator(llama).estimate(fused).warnings)
