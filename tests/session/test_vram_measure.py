"""Measuring through a real worker: a plan in a child process, the loaded model, and what the estimate then says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Opener
from workbench.errors import WorkbenchError
from workbench.session import protocol
from workbench.vram.measured import measurement_from_dict
from workbench.vram.shares import CATEGORIES

for package in ("torch", "transformers", "peft"):
    pytest.importorskip(package)

pytestmark = pytest.mark.model
MODEL = str(Path(__file__).parents[2] / "sample_models" / "tiny-llama")
PLAN = {"job": "lora", "sequence_length": 24, "batch": 2}


async def test_a_measured_plan_is_kept_and_shown_beside_its_estimate(session_opener: Opener) -> None:
    client = await session_opener()
    asked = protocol.EstimateMemory(MODEL, PLAN, suggest=False)
    result = (await client.ask(asked, protocol.MemoryEstimated)).result
    assert (result["measurement"], result["errors"]) == (None, {})
    nothing = await client.ask(protocol.MeasureMemory(MODEL, PLAN, only_kept=True), protocol.MemoryMeasured)
    assert nothing.measurement is None

    reply = await client.ask(protocol.MeasureMemory(MODEL, PLAN, device="cpu"), protocol.MemoryMeasured)
    assert reply.measurement is not None
    sizes = {name: reply.measurement[name] for name in CATEGORIES}
    assert sum(sizes.values()) == reply.measurement["total"]
    assert reply.measurement["weights_from"] == "checkpoint"
    assert abs(reply.errors["estimate"]["allocated"] or 0.0) < 0.5
    assert reply.errors["cpu_simulation"]["total"] == 0.0
    assert "simulation" not in reply.errors

    result = (await client.ask(asked, protocol.MemoryEstimated)).result
    assert result["measurement"] == reply.measurement
    assert result["errors"] == reply.errors
    other = protocol.EstimateMemory(MODEL, {**PLAN, "batch": 3}, suggest=False)
    assert (await client.ask(other, protocol.MemoryEstimated)).result["measurement"] is None
    kept = await client.ask(protocol.MeasureMemory(MODEL, PLAN, only_kept=True), protocol.MemoryMeasured)
    assert kept.measurement == reply.measurement
    listed = await client.ask(protocol.ListMeasurements(), protocol.MeasurementsListed)
    assert [point["plan"]["batch"] for point in listed.points] == [2]
    assert measurement_from_dict(listed.points[0]["measurement"]).total == reply.measurement["total"]
    page = await client.ask(protocol.WritePlan(MODEL, PLAN, [], "markdown"), protocol.PlanWritten)
    assert page.text.startswith("# VRAM of")
    json.dumps(result)


async def test_the_loaded_model_is_held_against_its_estimate(session_opener: Opener) -> None:
    client = await session_opener()
    with pytest.raises(WorkbenchError) as caught:
        await client.ask(protocol.MeasureLoaded(), protocol.MemoryMeasured)
    assert caught.value.kind == "no-model"
    await client.ask(protocol.LoadModel(MODEL, dtype="float32", device="cpu"), protocol.ModelLoaded)
    answer = protocol.Generate("Once upon a time", raw=True, sampling={"max_new_tokens": 5, "temperature": 0.0})
    memory = (await client.ask(answer, protocol.Generated)).result["memory"]
    # A look at another prompt takes the KV cache; what is measured is the answer's all the same.
    await client.ask(protocol.ReadDistribution(prompt="Something else", raw=True), protocol.DistributionRead)
    reply = await client.ask(protocol.MeasureLoaded(), protocol.MemoryMeasured)
    assert reply.measurement is not None
    assert reply.plan["dtype"] == "float32"
    assert reply.plan["sequence_length"] == reply.measurement["cached_tokens"] == memory["kv_cache_tokens"] > 5
    assert reply.measurement["kv_cache"] == memory["kv_cache_bytes"]
    assert reply.measurement["total"] == reply.measurement["weights"] + reply.measurement["kv_cache"]
    assert reply.errors == {"estimate": {"weights": 0.0, "kv_cache": 0.0}}
