"""Simulation against the same steps really run, few layers against all, weights against the static rules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workbench.architecture.build import build_skeleton
from workbench.errors import JobCancelled, WorkbenchError
from workbench.vram.plan import Lora, Plan
from workbench.vram.shares import CATEGORIES
from workbench.vram.simulate import run as running
from workbench.vram.simulate.result import MAX_TIMELINE_POINTS, Simulation
from workbench.vram.simulate.run import cached_simulation, simulate
from workbench.vram.weights import weight_bytes

for package in ("torch", "transformers", "bitsandbytes", "peft"):
    pytest.importorskip(package)

from tests.unit import simulation_cases as cases  # noqa: E402
from tests.unit.jobs import Recorder  # noqa: E402

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(400)]

MEASURED = Path(__file__).parents[1] / "data" / "vram" / "measured_t4.jsonl"


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What `simulation_cases` prints, made once."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.simulation_cases"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def test_this_torch_can_have_the_simulated_device(found: dict[str, Any]) -> None:
    # The canary: if this fails after an upgrade, simulations fall back to the CPU's choices and say so.
    assert found["device"] == "simgpu"


def test_a_torch_without_the_interface_falls_back_and_says_so(found: dict[str, Any]) -> None:
    assert len(found["broken"]) == 2
    for label, warnings, allocated in found["broken"].values():
        assert label == "cpu"
        assert "simulated as CPU" in warnings[0]
        assert allocated > 0


def test_few_layers_stand_for_all_to_the_byte(found: dict[str, Any]) -> None:
    for name, (few, every) in found["shortened"].items():
        assert few["peaks"] == every["peaks"], name
        assert (few["allocated"], few["reserved"]) == (every["allocated"], every["reserved"]), name
        shorter = few["layers_run"] < every["layers_run"]
        assert shorter != (name == "embeddings for each layer"), name


def test_simulated_equals_really_run_to_the_byte(found: dict[str, Any]) -> None:
    for name, (simulated, real) in found["real"].items():
        assert simulated["peaks"] == real["peaks"], name


def test_weights_equal_the_static_rules(found: dict[str, Any]) -> None:
    for name in ("tiny-llama", "tiny-gemma3", "tiny-gpt2", "tiny-mixtral"):
        skeleton = build_skeleton(cases.sample(name))
        for way, plan in cases.STATIC.items():
            assert found["static"][f"{name} {way}"] == weight_bytes(skeleton, plan).total, f"{name} {way}"


def test_the_simulated_device_runs_the_same_operators_as_the_cpu(found: dict[str, Any]) -> None:
    operators = found["operators"]
    assert operators["simgpu"] == operators["cpu"]
    assert operators["warnings on simgpu"] == []
    assert "simulated as CPU" in operators["warnings on cpu"][0]


def measured(number: int) -> dict[str, Any]:
    """One measured row."""
    rows = [json.loads(line) for line in MEASURED.read_text(encoding="utf-8").splitlines()[1:]]
    return next(row for row in rows if row["id"].endswith(f"-{number}"))


TINY_LLAMA_1B = {
    **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 2048, "intermediate_size": 5632},
    **{"num_hidden_layers": 22, "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 32000},
    **{"tie_word_embeddings": False, "max_position_embeddings": 2048},
}


@pytest.mark.parametrize(("number", "allocated", "reserved"), [(55, 0.0001, 0.0), (24, 0.003, 0.03)])
def test_peaks_measured_on_a_gpu(number: int, allocated: float, reserved: float) -> None:
    row = measured(number)
    plan = Plan(
        job=row["job"],
        quant="nf4" if row["job"] == "qlora" else "none",
        dtype="float16",
        batch=row["batch"],
        sequence_length=row["sequence_length"],
        fused=False,
        gradient_checkpointing=True,
        keep_outputs=True,
        attention=row["attention"],
        lora=Lora(r=row["rank"], alpha=2 * row["rank"], targets=tuple(row["targets"])),
    )
    recorder = Recorder()
    simulation = simulate(TINY_LLAMA_1B, plan, recorder)
    assert simulation.allocated_bytes / 2**20 == pytest.approx(row["peak_allocated_mib"], rel=allocated)
    assert simulation.reserved_bytes / 2**20 == pytest.approx(row["peak_reserved_mib"], rel=reserved)
    assert recorder.phases[-2:] == ["optimizer", "allocator"]
    check_whole(simulation)
    assert (simulation.layers, simulation.layers_run) == (22, 4)
    kept = cached_simulation(TINY_LLAMA_1B, plan)
    assert kept == simulation
    again = Recorder()
    assert simulate(TINY_LLAMA_1B, plan, again) == simulation
    assert again.phases == []


def check_whole(simulation: Simulation) -> None:
    parts = [getattr(simulation, name) for name in CATEGORIES]
    assert sum(parts) == simulation.total == simulation.reserved_bytes + simulation.context_bytes
    assert min(parts) >= 0
    assert sum(parts[:-1]) + simulation.workspace_bytes == simulation.requested_bytes
    assert simulation.requested_bytes <= simulation.allocated_bytes <= simulation.reserved_bytes
    assert len(simulation.timeline) <= MAX_TIMELINE_POINTS
    assert max(point.live_bytes for point in simulation.timeline) == simulation.requested_bytes
    assert max(phase.peak_bytes for phase in simulation.phases) == simulation.allocated_bytes
    owners = [owner.bytes for owner in simulation.owners]
    assert owners == sorted(owners, reverse=True)
    assert sum(owners) <= simulation.requested_bytes


def test_prefill_and_decode_apart() -> None:
    simulation = simulate(cases.LLAMA, Plan(sequence_length=64, new_tokens=20))
    check_whole(simulation)
    assert [phase.name for phase in simulation.phases] == ["load", "prefill", "decode", "between", "decode"]
    assert [phase.step for phase in simulation.phases if phase.name == "decode"] == [1, 19]


def test_cancelling_kills_the_process() -> None:
    with pytest.raises(JobCancelled):
        simulate(TINY_LLAMA_1B, Plan(job="full", sequence_length=128), Recorder(stop_in="load"))
    assert not running._process.is_running
    assert simulate(cases.LLAMA, Plan(sequence_length=8, new_tokens=1)).total > 0


def test_code_that_loops_over_tokens_is_refused_where_it_would_take_minutes() -> None:
    for plan in (Plan(sequence_length=1025), Plan(job="full", sequence_length=257)):
        with pytest.raises(WorkbenchError, match="one by one in Python") as caught:
            simulate({"model_type": "mamba", "num_hidden_layers": 64}, plan)
        assert "simulate at most" in caught.value.remedy


def test_what_cannot_be_simulated_is_refused_in_words() -> None:
    for plan, kind in (
        (Plan(gpus=2, parallel="tp"), "unsupported-plan"),
        (Plan(job="full", gpus=2, parallel="zero3"), "unsupported-plan"),
        (Plan(kv_dtype="float16"), "unsupported-plan"),
        (Plan(job="lora", lora=Lora(targets=("nothing",))), "bad-plan"),
        (Plan(batch=0), "bad-plan"),
    ):
        with pytest.raises(WorkbenchError) as caught:
            simulate(cases.LLAMA, plan)
        assert caught.value.kind == kind, caught.value
        assert caught.value.remedy
