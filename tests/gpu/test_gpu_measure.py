"""Real runs on a GPU against estimate and simulation, and what running out of memory leaves. Not yet run on a GPU."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gpu.plans import QUICK, TINY_LLAMA_1B
from workbench.architecture.build import build_skeleton
from workbench.errors import WorkbenchError
from workbench.vram.estimate import Estimator
from workbench.vram.measure import measure
from workbench.vram.measured import Measurement, errors
from workbench.vram.plan import Plan
from workbench.vram.shares import CATEGORIES
from workbench.vram.simulate.run import simulate

CONFIG: dict[str, Any] = TINY_LLAMA_1B


@pytest.fixture(scope="module")
def estimator() -> Estimator:
    """Of the model that all tests use, with random weights."""
    return Estimator(build_skeleton(CONFIG))


def check_whole(measurement: Measurement) -> None:
    sizes = [getattr(measurement, name) for name in CATEGORIES]
    assert sum(sizes) == measurement.total
    assert min(sizes) >= 0, dict(zip(CATEGORIES, sizes, strict=True))
    assert measurement.requested_bytes <= measurement.allocated_bytes <= measurement.reserved_bytes <= measurement.total
    assert measurement.device_kind == "cuda"
    assert not [note for note in measurement.notes if note.startswith("Tracking failed")]
    assert len(measurement.step_seconds) in (2, 3)
    assert 50 * 2**20 < measurement.total - measurement.reserved_bytes < 2 * 2**30, "the CUDA context"


@pytest.mark.parametrize("plan", QUICK, ids=lambda plan: f"{plan.job} {plan.quant}")
def test_predictions_beside_a_real_run(estimator: Estimator, plan: Plan) -> None:
    for package in ("bitsandbytes", "peft"):
        pytest.importorskip(package)
    budget = estimator.estimate(plan)
    measurement = measure(CONFIG, plan, budget, None, "cuda")
    check_whole(measurement)
    sizes = {name: getattr(budget, name) for name in (*CATEGORIES, "total")}
    off = errors(sizes, budget.allocated, measurement)
    for name in ("weights", "adapters", "optimizer", "kv_cache"):
        assert abs(off[name] or 0.0) < 0.1, off
    assert abs(off["allocated"] or 0.0) < 8.0, off
    simulation = simulate(CONFIG, plan)
    found = {name: getattr(simulation, name) for name in (*CATEGORIES, "total")}
    off = errors(found, simulation.allocated_bytes, measurement)
    assert abs(off["allocated"] or 0.0) < 1.5, off


def test_what_does_not_fit_is_refused_and_what_runs_out_leaves_the_gpu_free(estimator: Estimator) -> None:
    small = Plan(sequence_length=64, new_tokens=4)
    huge = Plan(job="full", batch=4096, sequence_length=2048, attention="eager")
    with pytest.raises(WorkbenchError) as caught:
        measure(CONFIG, huge, estimator.estimate(huge), None, "cuda")
    assert caught.value.kind == "too-large"
    with pytest.raises(WorkbenchError) as caught:
        measure(CONFIG, huge, estimator.estimate(huge), None, "cuda", guarded=False)
    assert caught.value.kind == "out-of-memory", caught.value.details
    assert "more were needed" in caught.value.message
    check_whole(measure(CONFIG, small, estimator.estimate(small), None, "cuda"))
