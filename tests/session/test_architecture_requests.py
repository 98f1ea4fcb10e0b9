"""The requests of the architecture bench and command, answered by one real worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Opener
from workbench.errors import WorkbenchError
from workbench.session import protocol

pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = pytest.mark.model

SAMPLES = Path(__file__).parents[2] / "sample_models"
NOT_HERE = {"model_type": "evil\x1b[31m", "auto_map": {"AutoModelForCausalLM": "some-org/repo--modeling_evil.Evil"}}


async def test_a_worker_inspects_designs_compares_and_adapts(session_opener: Opener, tmp_path: Path) -> None:
    client = await session_opener()
    request = protocol.InspectModel("llama-3.1-405b", lora={"r": 8, "targets": ["q_proj"]}, gpu="H200", context=8192)
    result = (await client.ask(request, protocol.ModelInspected)).result
    assert result["parameters"]["total"] == 405_853_388_800
    assert result["parameters"]["trainable"] == result["lora"]["trainable"] == 126 * 8 * (16384 + 16384)
    assert [bound["gpu"] for bound in result["compute"]["bounds"]] == ["H200"]
    assert {"attention", "kv_cache", "training"} <= {fact["key"] for fact in result["explained"]}
    assert [stage["repeat"] for stage in result["diagram"]] == [1, 126, 1]
    assert result["tree"]["parameters"] == 405_853_388_800

    families = (await client.ask(protocol.ListFamilies(), protocol.FamiliesListed)).families
    assert {"family:llama", "family:bert", "family:t5", "family:mamba"} <= {family["name"] for family in families}
    await design(client, tmp_path)
    await compare_and_adapt(client)
    await refuse(client, tmp_path)


async def design(client: object, folder: Path) -> None:
    async def check(changes: dict[str, object]) -> protocol.DesignChecked:
        request = protocol.CheckDesign("family:llama", changes)
        return await client.ask(request, protocol.DesignChecked)  # type: ignore[attr-defined,no-any-return]

    refused = await check({"num_key_value_heads": 3})
    assert [(problem["key"], problem["nearest"]) for problem in refused.problems] == [("num_key_value_heads", [2, 4])]
    accepted = await check({"num_hidden_layers": 3})
    assert accepted.problems == []
    shown = {field["key"]: (field["value"], field["original"]) for field in accepted.fields}
    assert shown["num_hidden_layers"] == (3, 8)
    save = protocol.SaveDesign("family:llama", {"num_hidden_layers": 3}, str(folder / "mine"))
    saved = await client.ask(save, protocol.DesignSaved)  # type: ignore[attr-defined]
    assert json.loads(Path(saved.path).read_text(encoding="utf-8"))["num_hidden_layers"] == 3
    again = protocol.InspectModel(str(folder / "mine"))
    inspected = await client.ask(again, protocol.ModelInspected)  # type: ignore[attr-defined]
    assert inspected.result["facts"]["num_hidden_layers"] == 3


async def compare_and_adapt(client: object) -> None:
    request = protocol.CompareModels("family:llama", "family:llama", {}, {"hidden_act": "gelu"})
    compared = (await client.ask(request, protocol.ModelsCompared)).result  # type: ignore[attr-defined]
    assert [(row["key"], row["second"]) for row in compared["config"]] == [("hidden_act", "gelu")]
    assert not compared["same"]
    adapter = protocol.CountAdapter(str(SAMPLES / "tiny-mixtral"), {"targets": ["attention"], "r": 4})
    counted = await client.ask(adapter, protocol.AdapterCounted)  # type: ignore[attr-defined]
    assert counted.result["by_component"]["experts"] == 0 < counted.result["by_component"]["attention"]
    trained = {preset["name"]: preset["trainable"] for preset in counted.presets}
    assert trained["attention"] == counted.result["trainable"] < trained["all-linear"]
    local = protocol.InspectModel(str(SAMPLES / "tiny-mixtral"))
    inspected = (await client.ask(local, protocol.ModelInspected)).result  # type: ignore[attr-defined]
    assert inspected["checkpoint"]["agrees"]
    assert inspected["files"]["types"][0]["type"] == "BF16"


async def refuse(client: object, folder: Path) -> None:
    (folder / "evil").mkdir()
    (folder / "evil" / "config.json").write_text(json.dumps(NOT_HERE), encoding="utf-8")
    for request, kind, words in (
        (protocol.InspectModel(str(folder / "evil")), "remote-code", "modeling_evil.py of some-org/repo"),
        (protocol.InspectModel("family:llama", {"num_hidden_layers": 10_000}), "bad-config", "Nearest: 2000"),
        (protocol.InspectModel("family:llama", {"hidden_sise": 64}), "bad-config", "hidden_size"),
        (protocol.InspectModel("family:lama"), "unknown-family", "llama"),
        (protocol.InspectModel("family:llama", lora={"targets": ["q"]}), "bad-lora", "q_proj"),
        (protocol.InspectModel("family:llama", gpu="no such"), "unknown-gpu", "memory"),
    ):
        with pytest.raises(WorkbenchError) as caught:
            await client.ask(request, protocol.ModelInspected)  # type: ignore[attr-defined]
        assert caught.value.kind == kind
        assert words in str(caught.value)
        assert "\x1b" not in str(caught.value)
