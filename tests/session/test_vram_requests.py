"""The requests of the VRAM bench, answered by a real worker; and the command that sends them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.conftest import Opener
from workbench.cli.vram import command, parse_lora, plan_of
from workbench.errors import WorkbenchError
from workbench.session import protocol

pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = pytest.mark.model

MODEL = "meta-llama-3-8b"
QLORA = {"job": "qlora", "quant": "nf4", "double_quant": True}


async def test_a_plan_from_estimate_to_file(session_opener: Opener, tmp_path: Path) -> None:
    client = await session_opener()
    asked = protocol.EstimateMemory(MODEL, QLORA, ["T4", "80GiB"], solve="seq", dataset_tokens=10**6)
    result = (await client.ask(asked, protocol.MemoryEstimated)).result
    sizes = dict(result["estimate"])
    assert sizes.pop("total") == sum(sizes.values())
    assert result["allocated_bytes"] == result["estimate"]["total"] - result["estimate"]["overhead"]
    assert result["peak_phase"] in {phase["name"] for phase in result["phases"]}
    assert [gpu["fits"] for gpu in result["gpus"]] == [False, True]
    assert [found["gpu"] for found in result["solved"]] == ["T4", "80GiB"]
    assert {"change", "saves_bytes", "costs", "total_bytes", "fits"} <= set(result["suggestions"][0])
    assert {"flops_per_token", "training_flops", "seconds", "usd"} <= set(result["cost"])
    assert result["plan"]["lora"]["targets"] == ["all-linear"]

    fitted = await client.ask(protocol.FitPlan(MODEL, "T4", QLORA), protocol.PlanFitted)
    assert fitted.fits
    assert [change["title"] for change in fitted.changes] == ["gradient checkpointing"]
    again = protocol.EstimateMemory(MODEL, fitted.plan, ["T4"], suggest=False)
    result = (await client.ask(again, protocol.MemoryEstimated)).result
    assert (result["gpus"][0]["fits"], result["suggestions"]) == (True, [])
    assert result["estimate"]["total"] == fitted.total_bytes

    path = str(tmp_path / "plan.toml")
    await client.ask(protocol.WritePlan(MODEL, fitted.plan, ["T4"], "toml", path), protocol.PlanWritten)
    opened = await client.ask(protocol.OpenPlan(path), protocol.PlanOpened)
    assert (opened.model, opened.plan, opened.gpus) == (MODEL, fitted.plan, ["T4"])
    nowhere = str(tmp_path / "none" / "plan.toml")
    with pytest.raises(WorkbenchError, match="There is no folder"):
        await client.ask(protocol.WritePlan(MODEL, fitted.plan, [], "toml", nowhere), protocol.PlanWritten)
    with pytest.raises(WorkbenchError, match="is there already"):
        await client.ask(protocol.WritePlan(MODEL, fitted.plan, [], "toml", path), protocol.PlanWritten)
    code = (await client.ask(protocol.WritePlan(MODEL, fitted.plan, [], "code"), protocol.PlanWritten)).text
    assert "gradient_checkpointing=True" in code
    page = (await client.ask(protocol.WritePlan(MODEL, QLORA, ["T4"], "markdown"), protocol.PlanWritten)).text
    assert page.startswith("# VRAM of")


async def test_surveys_curves_and_break_even(session_opener: Opener) -> None:
    client = await session_opener()
    rows = (await client.ask(protocol.SurveyGpus(MODEL, QLORA), protocol.GpusSurveyed)).rows
    assert len(rows) > 40
    named = (await client.ask(protocol.SurveyGpus(MODEL, QLORA, ["L4"]), protocol.GpusSurveyed)).rows
    assert len(named) == len(rows)
    assert [row["name"] for row in named if row["named"]] == [named[0]["name"]] == ["L4"]
    drawn = await client.ask(
        protocol.DrawCurve(MODEL, "sequence_length", [128, 1024, 8192], {"job": "lora"}), protocol.CurveDrawn
    )
    assert [point["value"] for point in drawn.points] == [128, 1024, 8192]
    assert drawn.overtakes
    asked = protocol.BreakEvenWithApi(
        MODEL, "A100 SXM 80GB", {"batch": 8}, input_per_million=0.1, output_per_million=0.4
    )
    assert (await client.ask(asked, protocol.BrokenEven)).result["cheaper"] in ("api", "gpu", "depends")
    for request, word in (
        (protocol.EstimateMemory(MODEL, {"colour": "red"}), "colour"),
        (protocol.EstimateMemory(MODEL, {"job": "lora", "lora": {"targets": ["no_proj"]}}), "no_proj"),
        (protocol.EstimateMemory(MODEL, {"gpus": 3, "parallel": "tp"}), "divide"),
        (protocol.EstimateMemory(MODEL, {}, ["Voodoo 2"]), "Voodoo"),
        (protocol.BreakEvenWithApi(MODEL, "GTX 1650", {}, api="", output_per_million=1.0), "No price"),
    ):
        with pytest.raises(WorkbenchError, match=word):
            await client.ask(request, protocol.MemoryEstimated)


def test_the_command_prints_contract_json_and_says_no_with_its_code(private_home: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    plan = tmp_path / "plan.toml"
    arguments = [MODEL, "--job", "qlora", "--gpu", "T4", "--session", "cli", "--save", str(plan), "--json"]
    answer = runner.invoke(command, arguments)
    assert answer.exit_code == 1, answer.output
    printed = json.loads(answer.stdout)
    assert (printed["schema"], printed["command"]) == (1, "vram")
    assert {"estimate", "simulation", "measurement", "gpus", "suggestions", "cost"} <= set(printed)
    assert printed["plan"]["quant"] == "nf4"
    answer = runner.invoke(command, ["--plan", str(plan), "--gradient-checkpointing", "--session", "cli"])
    assert answer.exit_code == 0, answer.output
    assert "T4, 14.6 GiB: fits" in answer.stdout
    assert "weights" in answer.stdout
    answer = runner.invoke(command, [MODEL, "--job", "lora", "--quant", "nf4", "--session", "cli"])
    assert answer.exit_code == 2
    assert "qlora" in answer.stderr
    assert runner.invoke(command, ["--session", "cli"]).exit_code == 2
    for lone, needed in ((["--overwrite"], "--save"), (["--code", "--markdown"], "--markdown")):
        answer = runner.invoke(command, [MODEL, *lone, "--session", "cli"])
        assert answer.exit_code == 2
        assert needed in answer.stderr


def test_adapters_on_the_command_line() -> None:
    assert parse_lora("r=8,targets=q_proj+v_proj,dtype=bf16,rslora,dropout=0.05,save=lm_head") == {
        **{"r": 8, "targets": ["q_proj", "v_proj"], "dtype": "bfloat16", "rslora": True, "dropout": 0.05},
        "modules_to_save": ["lm_head"],
    }
    for text in ("rank=8", "r=x", "r", "dropout=a"):
        with pytest.raises(WorkbenchError, match="cannot be read"):
            parse_lora(text)


def test_options_not_typed_leave_a_plan_file_as_it_is() -> None:
    context = command.make_context("vram", ["m", "--batch", "4"], resilient_parsing=True)
    assert plan_of(context.params, {"job": "qlora", "quant": "nf4"}) == {"batch": 4}
    assert plan_of(context.params, {}) == {"batch": 4, "dtype": "auto"}
