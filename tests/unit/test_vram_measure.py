"""Measurement: real runs against the simulation to the byte, the process they run in, and the points that are kept."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.jobs import Recorder
from tests.unit.simulation_cases import FEW, sample
from workbench.architecture.build import build_skeleton
from workbench.errors import JobCancelled, WorkbenchError
from workbench.vram import measure as measuring
from workbench.vram.estimate import Estimator
from workbench.vram.measure import check_room, free_memory_bytes, measure
from workbench.vram.measured import (
    CATEGORIES,
    MeasuredPhase,
    MeasuredStore,
    Measurement,
    errors,
    measurement_from_dict,
    settled,
)
from workbench.vram.plan import Lora, Plan, changed

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "sample_models" / "tiny-llama")
MEASURED = Measurement(
    **{**dict.fromkeys(CATEGORIES, 0), "weights": 100, "activations": 50},
    **{"total": 150, "requested_bytes": 150, "allocated_bytes": 150, "reserved_bytes": 0, "process_bytes": 900},
    peak_phase="prefill",
    peak_step=1,
    phases=(MeasuredPhase("prefill", 1, 150, 0, 900, 0.5),),
    step_seconds=(0.5,),
    device_kind="cpu",
    device="CPU",
    weights_from="random",
    notes=("A note.",),
    versions={"torch": "2.13.0"},
    seconds=1.0,
)


# --- Runs --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(smollm2_dir: Path) -> dict[str, Any]:
    """What `measurement_cases` prints, made once."""
    for package in ("torch", "transformers", "bitsandbytes", "peft"):
        pytest.importorskip(package)
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.measurement_cases", str(smollm2_dir)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


@pytest.mark.model
@pytest.mark.timeout(400)
def test_what_was_measured_is_what_was_simulated_to_the_byte(found: dict[str, Any]) -> None:
    for name, case in found.items():
        # While it loads and is prepared, a real run makes other temporaries: threads read the checkpoint, peft
        # converts in place, bitsandbytes makes its table for 8-bit states. None of them is there at a peak.
        steps = [[phase for phase in case[rung] if phase[1]] for rung in ("measured", "simulated")]
        assert steps[0] == steps[1], name
        before = [[phase for phase in case[rung] if not phase[1]] for rung in ("measured", "simulated")]
        assert [phase[0] for phase in before[0]] == [phase[0] for phase in before[1]], name
        if name in ("full", "lora, checkpointed", "inference", "SmolLM2, inference"):
            assert before[0] == before[1], name
        for measured, simulated in zip(*before, strict=True):
            assert measured[2] == pytest.approx(simulated[2], rel=0.15), name


@pytest.mark.model
@pytest.mark.timeout(400)
def test_categories_add_up_and_are_those_of_the_job(found: dict[str, Any]) -> None:
    for name, case in found.items():
        measurement = measurement_from_dict(case["measurement"])
        sizes = {category: getattr(measurement, category) for category in CATEGORIES}
        assert sum(sizes.values()) == measurement.total == max(phase.peak_bytes for phase in measurement.phases), name
        assert min(sizes.values()) >= 0
        assert sizes["overhead"] == 0
        assert (sizes["kv_cache"] > 0) == name.startswith(("inference", "SmolLM2, inference")), name
        assert (sizes["adapters"] > 0) == ("lora" in name), name
        assert (sizes["optimizer"] > 0) == (sizes["kv_cache"] == 0), name
        assert measurement.weights_from == ("random" if "random" in name else "checkpoint")
        assert len(measurement.step_seconds) in (2, 3)
        assert all(seconds > 0 for seconds in measurement.step_seconds)
        assert measurement.process_bytes > measurement.total


@pytest.mark.model
@pytest.mark.timeout(400)
def test_a_plan_in_its_process_beside_its_estimate() -> None:
    pytest.importorskip("peft")
    config = sample("tiny-llama")
    plan = Plan(job="lora", **FEW)
    budget = Estimator(build_skeleton(config)).estimate(plan)
    recorder = Recorder()
    measurement = measure(config, plan, budget, TINY, "cpu", recorder)
    assert not measuring._process.is_running
    expected = ["load", "prepare", "forward", "backward", "optimizer", "compare"]
    assert [phase for phase in dict.fromkeys(recorder.phases) if phase in expected] == expected
    assert measurement.cpu_simulated_bytes == measurement.total
    off = errors({name: getattr(budget, name) for name in (*CATEGORIES, "total")}, budget.allocated, measurement)
    assert off["weights"] == off["adapters"] == off["optimizer"] == off["kv_cache"] == 0.0
    assert off["overhead"] is None
    assert off["total"] == off["allocated"] == pytest.approx(0.0, abs=0.5)
    assert measurement.versions["torch"]


@pytest.mark.model
@pytest.mark.timeout(400)
def test_a_run_that_is_stopped_or_out_of_memory_leaves_nothing() -> None:
    pytest.importorskip("peft")
    config = sample("tiny-llama")
    small = Plan(job="lora", **FEW)
    budget = Estimator(build_skeleton(config)).estimate(small)
    with pytest.raises(JobCancelled):
        measure(config, small, budget, None, "cpu", Recorder(stop_in="import"))
    assert not measuring._process.is_running
    # Its token ids alone are 512 GiB.
    huge = Plan(batch=2**24, sequence_length=2**12)
    with pytest.raises(WorkbenchError) as caught:
        measure(config, huge, budget, None, "cpu", guarded=False)
    assert caught.value.kind == "out-of-memory", caught.value.details
    assert "550 GB" in caught.value.message or "512 GiB" in caught.value.message
    assert not measuring._process.is_running


def test_what_cannot_run_is_refused_before_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_process", None)
    config = sample("tiny-llama")
    estimator = Estimator(build_skeleton(config))
    large = Plan(job="full", batch=2**20, sequence_length=2**12)
    for plan, device, kind in (
        (large, "cpu", "too-large"),
        (Plan(job="full", gpus=2, parallel="ddp"), "auto", "unsupported-plan"),
        (Plan(job="full", offload="optimizer"), "auto", "unsupported-plan"),
        (Plan(kv_dtype="int4"), "auto", "unsupported-plan"),
        (Plan(), "tpu", "bad-option"),
        (Plan(batch=0), "auto", "bad-plan"),
    ):
        with pytest.raises(WorkbenchError) as caught:
            measure(config, plan, estimator.estimate(large), None, device)
        assert caught.value.kind == kind, caught.value
        assert caught.value.remedy


def test_room_is_what_is_free() -> None:
    free = free_memory_bytes()
    assert free is None or 2**20 < free < 2**50
    check_room(100, None, "RAM")
    check_room(100, 100, "RAM")
    with pytest.raises(WorkbenchError, match=r"101 B.*100 B of RAM"):
        check_room(101, 100, "RAM")


# --- Errors and points -------------------------------------------------------------------------------------


def test_errors_are_in_per_cent_of_what_was_measured() -> None:
    predicted = {**dict.fromkeys(CATEGORIES, 0), "weights": 100, "activations": 75, "logits": 5, "overhead": 820}
    off = errors({**predicted, "total": 1000}, 180, MEASURED)
    assert off == {
        **dict.fromkeys(("adapters", "gradients", "optimizer", "kv_cache"), 0.0),
        **{"weights": 0.0, "activations": pytest.approx(50.0), "logits": None, "overhead": None},
        **{"allocated": pytest.approx(20.0), "total": pytest.approx(20.0)},
    }
    on_gpu = replace(MEASURED, device_kind="cuda", overhead=850, total=1000)
    off = errors({**predicted, "total": 1000}, 180, on_gpu)
    assert off["total"] == 0.0
    assert off["overhead"] == pytest.approx(-3.529, abs=0.001)


def test_what_a_job_ignores_makes_no_other_plan() -> None:
    assert settled(Plan()) == settled(Plan(optimizer="sgd", lora=Lora(r=64), accumulation=4, kv_dtype="bfloat16"))
    assert settled(Plan(job="full")) == settled(Plan(job="full", new_tokens=9, cache="static", lora=Lora(r=2)))
    assert settled(Plan(job="lora")) == settled(Plan(job="lora", kbit_prepare=False))
    for plan in (Plan(job="full"), Plan(quant="nf4"), Plan(batch=2), Plan(cache="static"), Plan(kv_dtype="float32")):
        assert settled(plan) != settled(Plan())
    lora = Plan(job="lora")
    assert settled(changed(lora, lora_r=8)) != settled(lora) != settled(changed(lora, fused=False))


def test_points_are_kept_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "state" / "points.sqlite3"
    store = MeasuredStore(path)
    config = {"model_type": "llama", "hidden_size": 8}
    assert store.find(config, Plan()) is None
    assert store.points() == []
    assert not path.exists(), "looking writes nothing"
    kept = store.add("a", config, Plan(), MEASURED)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert kept.measured_at > 1.7e9
    gpu = replace(MEASURED, device_kind="cuda", device="NVIDIA L4", total=7)
    other = replace(gpu, device="Tesla T4", total=8)
    for measurement in (gpu, other, replace(MEASURED, total=9)):
        store.add("b", config, Plan(), measurement)
    store.add("c", {**config, "hidden_size": 9}, Plan(), MEASURED)
    store.close()
    again = MeasuredStore(path)
    point = again.find(config, Plan(optimizer="sgd"))
    assert point is not None
    assert point.measurement == other, "a GPU before the CPU, the newest first"
    for name in ("NVIDIA L4", "NVIDIA L4 #0"):
        point = again.find(config, Plan(), [name])
        assert point is not None
        assert point.measurement == gpu
    assert again.find(config, Plan(batch=2)) is None
    assert [point.model for point in again.points()] == ["c", "b", "b", "b", "a"]
    assert [point.measurement for point in again.points("a")] == [MEASURED]
    assert len(again.points(limit=2)) == 2


def test_a_newer_or_damaged_file_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "points.sqlite3"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    before = path.read_bytes()
    with pytest.raises(WorkbenchError) as caught:
        MeasuredStore(path).find({}, Plan())
    assert caught.value.kind == "store-newer"
    assert path.read_bytes() == before
    path.write_bytes(b"not a database, but some text that is long enough to be taken for one" * 20)
    store = MeasuredStore(path)
    assert store.points() == []
    assert "damaged" in store.note
    assert next(tmp_path.glob("*.damaged-*")).read_bytes().startswith(b"not a database")
    store.add("a", {}, Plan(), MEASURED)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE point SET body = ?", ("[1]",))
    db.close()
    assert store.points() == [], "a row that cannot be read is passed over"
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(WorkbenchError) as caught:
        MeasuredStore(folder).points()
    assert caught.value.kind == "cannot-write"
