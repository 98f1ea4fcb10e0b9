"""A simulation through a real worker and its child process."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.conftest import Opener
from workbench.session import protocol
from workbench.vram.simulate.result import simulation_from_dict

pytestmark = pytest.mark.model
MODEL = str(Path(__file__).parents[2] / "sample_models" / "tiny-llama")
PLAN = {"job": "qlora", "quant": "nf4", "sequence_length": 32, "lora": {"r": 4}}


async def test_simulates_keeps_and_answers_again(session_opener: Opener) -> None:
    for package in ("torch", "transformers", "bitsandbytes", "peft"):
        # Not imported here: it is the session's child process that needs them.
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    client = await session_opener()
    nothing = await client.ask(protocol.SimulateMemory(MODEL, PLAN, only_kept=True), protocol.MemorySimulated)
    assert nothing.simulation is None
    reply = await client.ask(protocol.SimulateMemory(MODEL, PLAN), protocol.MemorySimulated)
    assert reply.plan["lora"]["r"] == 4
    assert reply.simulation is not None
    simulation = simulation_from_dict(reply.simulation)
    assert simulation.device == "simgpu"
    assert simulation.adapters > 0
    assert simulation.owners
    kept = await client.ask(protocol.SimulateMemory(MODEL, PLAN, only_kept=True), protocol.MemorySimulated)
    assert kept.simulation == reply.simulation

    # What fits follows the simulation from now on, for this very plan.
    need = simulation.least_bytes // 2**20 - 64
    asked = protocol.EstimateMemory(MODEL, PLAN, [f"{need}MiB"], suggest=False)
    result = (await client.ask(asked, protocol.MemoryEstimated)).result
    assert (result["gpus"][0]["by"], result["gpus"][0]["fits"]) == ("simulation", False)
    assert result["simulation"]["total"] == simulation.total
    fitted = await client.ask(protocol.FitPlan(MODEL, f"{need}MiB", PLAN), protocol.PlanFitted)
    assert not fitted.fits or fitted.plan != reply.plan
