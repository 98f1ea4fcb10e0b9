"""Looking into a loaded model through a real worker."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import Opener
from tests.e2e.test_commands import as_json, refused, workbench
from workbench.architecture.traced import unpack_weights
from workbench.errors import JobCancelled, WorkbenchError
from workbench.paths import data_dir
from workbench.session import protocol
from workbench.session.client import SessionClient

pytestmark = pytest.mark.model

PROMPT = "The harbour is four miles long."


def tiny(name: str, **options: Any) -> protocol.LoadModel:
    return protocol.LoadModel(str(data_dir("sample_models") / f"tiny-{name}"), dtype="float32", device="cpu", **options)


async def answer(client: SessionClient) -> list[int]:
    request = protocol.Generate(PROMPT, raw=True, sampling={"greedy": True, "max_new_tokens": 8}, save=False)
    ids: list[int] = (await client.ask(request, protocol.Generated)).result["ids"]
    return ids


async def test_one_worker_answers_every_look_and_its_answers_stay_the_same(
    session_opener: Opener, shared_cache: object
) -> None:
    client = await session_opener()
    with pytest.raises(WorkbenchError, match="No model is loaded"):
        await client.ask(protocol.TraceModel(PROMPT), protocol.ModelTraced)
    with pytest.raises(WorkbenchError, match="prompt is empty"):
        await client.ask(protocol.TraceModel("", load=tiny("mixtral")), protocol.ModelTraced)

    live = await client.ask(protocol.InspectLoaded(tiny("mixtral")), protocol.LoadedInspected)
    assert live.result["bytes"] == live.model.weights_bytes
    assert live.result["tree"]["class"] == "MixtralForCausalLM"
    inspected = await client.ask(protocol.InspectModel(live.model.name), protocol.ModelInspected)
    assert live.result["parameters"] == inspected.result["parameters"]["total"]
    assert set(inspected.result["tree"]) <= set(live.result["tree"])
    before = await answer(client)

    traced = await client.ask(protocol.TraceModel(PROMPT, lens=3), protocol.ModelTraced)
    result = traced.result
    assert traced.model == live.model
    assert result["prompt"] == PROMPT
    assert "".join(token["text"] for token in result["tokens"]).strip().endswith("long.")
    assert [layer["index"] for layer in result["layers"]] == list(range(len(result["routing"])))
    assert result["lens"]["ids"][-1][-1][0] == before[0]
    chat = await client.ask(protocol.TraceModel(PROMPT, chat=True, lens=0), protocol.ModelTraced)
    assert "[INST]" in chat.result["prompt"]

    request = protocol.ReadAttention(PROMPT, 1, heads=[0, 3])
    maps = (await client.ask(request, protocol.AttentionRead)).result
    assert [head["head"] for head in maps["heads"]] == [0, 3]
    rows = unpack_weights(maps["heads"][1]["data"], maps["queries"], maps["keys"])
    assert len(rows) == len(maps["tokens"]) == len(result["tokens"])
    assert [sum(row) for row in rows] == pytest.approx([1.0] * len(rows), abs=1e-3)
    with pytest.raises(WorkbenchError, match="no layer 99"):
        await client.ask(protocol.ReadAttention(PROMPT, 99), protocol.AttentionRead)

    near = await client.ask(protocol.NearestTokens("four", count=4), protocol.NearestTokensFound)
    assert len(near.result["neighbours"]) == 4
    cosines = (await client.ask(protocol.CompareTokens(["four", "long"]), protocol.TokensCompared)).result["cosine"]
    assert cosines[0][1] == cosines[1][0]
    norms = await client.ask(protocol.EmbeddingNorms("output", 3), protocol.EmbeddingNormsRead)
    assert [len(norms.result[key]) for key in ("smallest", "greatest")] == [3, 3]
    words = await client.ask(protocol.MapWords(["four", "long", "miles"]), protocol.WordsMapped)
    assert sum(words.result["explained"]) + words.result["hidden"] == pytest.approx(1.0)
    assert await answer(client) == before

    check_the_command()
    await client.ask(protocol.LoadModel("smollm2-135m-instruct", device="cpu"), protocol.ModelLoaded)
    before = await answer(client)
    call = client.start(protocol.TraceModel(PROMPT * 8))
    async for event in call.events():
        if isinstance(event, protocol.JobProgressed) and event.phase == "figures":
            call.cancel()
    with pytest.raises(JobCancelled):
        await call.reply()
    assert await answer(client) == before


def check_the_command() -> None:
    """``workbench trace`` in the worker that stands, one object and readable tables."""
    name = str(data_dir("sample_models") / "tiny-mixtral")
    common = ("--device", "cpu", "--dtype", "fp32", "--session", "test")
    found = as_json("trace", name, "--prompt", PROMPT, "--layer", "1", "--lens", "2", *common)
    assert found["architecture"] == "MixtralForCausalLM"
    assert found["layers"][0]["output"]["shape"] == [len(found["tokens"]), 64]
    assert [len(layer["lens"]) for layer in found["layers"]] == [2] * len(found["layers"])
    weights = found["attention"]["heads"][0]["weights"]
    assert len(weights) == len(weights[0]) == len(found["tokens"])
    assert weights[0][1:] == [0.0] * (len(weights) - 1)

    printed = workbench("trace", name, "--prompt", "-", "--layer", "0", "--head", "2", *common, stdin=PROMPT)
    for words in ("MixtralForCausalLM", "would say next", "logit lens after", "routing: 2 of 4", "head 2: a row"):
        assert words in printed.stdout
    assert "\x1b" not in printed.stdout
    assert "no layer 9" in refused("trace", name, "--prompt", PROMPT, "--layer", "9", *common)
    assert "context is" in refused("trace", name, "--prompt", PROMPT * 400, *common)
    assert "prompt is empty" in refused("trace", name, "--prompt", "")
    assert "--head needs --layer" in refused("trace", name, "--prompt", PROMPT, "--head", "1")
    assert json.loads(workbench("trace", name, "--prompt", "x", "--lens", "99", "--json", expect=2).stdout)["error"]
