"""The loaded model on a GPU: what stands, how fast it answers, and what an answer too long leaves. Not yet run."""

from __future__ import annotations

import dataclasses

import pytest

from tests.conftest import SAMPLE, Opener
from workbench.errors import WorkbenchError
from workbench.session import protocol

pytestmark = pytest.mark.usefixtures("shared_cache")


@pytest.mark.parametrize("quant", ["none", "nf4", "int8"])
async def test_weights_and_cache_are_as_estimated(session_opener: Opener, quant: str) -> None:
    if quant != "none":
        pytest.importorskip("bitsandbytes")
    client = await session_opener()
    await client.ask(protocol.LoadModel(SAMPLE, quant=quant, device="cuda"), protocol.ModelLoaded)
    sampling = {"temperature": 0.0, "max_new_tokens": 64}
    answer = await client.ask(protocol.Generate("Once upon a time", raw=True, sampling=sampling), protocol.Generated)
    assert answer.result["tokens_per_second"] > 0
    reply = await client.ask(protocol.MeasureLoaded(), protocol.MemoryMeasured)
    found = reply.measurement
    assert found is not None
    assert found["device_kind"] == "cuda"
    assert reply.errors["estimate"]["weights"] == 0.0
    assert reply.errors["estimate"]["kv_cache"] == 0.0
    assert found["weights"] + found["kv_cache"] <= found["allocated_bytes"] <= found["reserved_bytes"] <= found["total"]
    assert found["segments"] > 0
    assert found["largest_free_bytes"] <= found["reserved_bytes"]


async def test_a_model_stays_usable_after_it_ran_out_of_memory(session_opener: Opener) -> None:
    import torch

    client = await session_opener()
    await client.ask(protocol.LoadModel(SAMPLE, device="cuda"), protocol.ModelLoaded)
    # All but a little of the GPU is taken by this process, so that a long prompt cannot be read.
    free, _total = torch.cuda.mem_get_info()
    taken = torch.empty(max(0, free - 96 * 2**20), dtype=torch.uint8, device="cuda")
    try:
        long = protocol.Generate("word " * 7500, raw=True, sampling={"max_new_tokens": 4}, save=False)
        with pytest.raises(WorkbenchError) as caught:
            await client.ask(long, protocol.Generated)
        assert caught.value.kind == "out-of-memory", caught.value.details
    finally:
        del taken
        torch.cuda.empty_cache()
    short = protocol.Generate("Once", raw=True, sampling={"max_new_tokens": 4}, save=False)
    assert await client.ask(short, protocol.Generated)


async def test_the_fastest_way_to_decode_is_taken_and_told(session_opener: Opener) -> None:
    """A graph answers as the growing cache does: a guessing answer, which keeps to the latter, has the same tokens."""
    client = await session_opener()
    loaded = await client.ask(protocol.LoadModel(SAMPLE, dtype="float32", device="cuda"), protocol.ModelLoaded)
    assert "ms a token pass by pass" in loaded.model.decoding
    sampling = {"greedy": True, "max_new_tokens": 200}
    ask = protocol.Generate("Once upon a time", raw=True, sampling=sampling, save=False)
    fast = (await client.ask(ask, protocol.Generated)).result
    assert fast["method"] == ("graph" if "as a CUDA graph, " in loaded.model.decoding else "own")
    guessing = dataclasses.replace(ask, sampling={**sampling, "prompt_lookup": 4})
    plain = (await client.ask(guessing, protocol.Generated)).result
    assert plain["method"] == "own"
    assert plain["ids"] == fast["ids"]
