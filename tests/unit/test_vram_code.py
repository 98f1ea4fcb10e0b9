"""The code for a plan does what the plan says: it is run on a tiny model, and the bytes it ends with are the plan's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench.architecture.build import build_skeleton
from workbench.errors import WorkbenchError
from workbench.vram.adapters import trained_tensors
from workbench.vram.code import code_for
from workbench.vram.plan import Lora, Plan

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

TINY = Path(__file__).parents[2] / "sample_models" / "tiny-llama"
SHORT = {"sequence_length": 16, "batch": 2}


def run(plan, folder, monkeypatch, style="trainer"):
    monkeypatch.chdir(folder)
    texts = [{"text": "the quick brown fox jumps over the lazy dog " * 3}] * 8
    (folder / "train.jsonl").write_text("\n".join(json.dumps(text) for text in texts))
    code = code_for(plan, str(TINY), style)
    namespace: dict = {"__name__": "__main__"}
    exec(compile(code, "planned.py", "exec"), namespace)
    return namespace


@pytest.mark.parametrize(
    "plan",
    [
        Plan(job="full", **SHORT, padded=True, optimizer="adafactor"),
        Plan(
            job="lora", **SHORT, gradient_checkpointing=True, lora=Lora(r=4, targets=("q_proj", "v_proj"), rslora=True)
        ),
        Plan(job="qlora", quant="nf4", double_quant=True, **SHORT, accumulation=2, attention="eager"),
        Plan(job="qlora", quant="nf4", kbit_prepare=False, **SHORT, lora=Lora(dtype="bfloat16", dora=True)),
    ],
    ids=lambda plan: plan.job + (" prepared" if plan.prepares_kbit else ""),
)
def test_training_code_trains_what_the_plan_trains(tmp_path, monkeypatch, capsys, plan):
    pytest.importorskip("accelerate")
    if plan.has_adapters:
        pytest.importorskip("peft")
    if plan.quant != "none":
        pytest.importorskip("bitsandbytes")
    namespace = run(plan, tmp_path, monkeypatch)
    trainer = namespace["trainer"]
    assert trainer.state.global_step > 0
    assert trainer.args.per_device_train_batch_size == plan.batch
    assert trainer.args.gradient_checkpointing == plan.gradient_checkpointing
    trained = trained_tensors(build_skeleton(json.loads((TINY / "config.json").read_text())), plan)
    held = [parameter for parameter in namespace["model"].parameters() if parameter.requires_grad]
    assert sum(tensor.bytes for tensor in trained) == sum(p.numel() * p.element_size() for p in held)
    assert list((tmp_path / "output").glob("*.safetensors"))


def test_trl_code(tmp_path, monkeypatch, capsys):
    pytest.importorskip("trl")
    namespace = run(Plan(job="lora", **SHORT), tmp_path, monkeypatch, "trl")
    assert namespace["trainer"].state.global_step > 0


@pytest.mark.parametrize("plan", [Plan(new_tokens=3), Plan(new_tokens=3, cache="static", batch=2)])
def test_inference_code_answers(tmp_path, monkeypatch, capsys, plan):
    namespace = run(plan, tmp_path, monkeypatch)
    assert namespace["output"].shape[0] == plan.batch
    assert namespace["model"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("plan", "parts"),
    [
        (Plan(kv_dtype="int4"), ['"backend": "quanto", "nbits": 4']),
        (Plan(gpus=2, parallel="tp"), ['tp_plan="auto"']),
        (Plan(quant="int8", dtype="float16"), ["load_in_8bit=True"]),
        (Plan(job="full", gpus=2, parallel="zero2", offload="optimizer"), ["'stage': 2", "'device': 'cpu'"]),
        (Plan(job="full", gpus=2, parallel="fsdp", attention="flash"), ["full_shard", "flash_attention_2"]),
        (Plan(job="full", attention="efficient", chunked_loss=True), ["EFFICIENT_ATTENTION", "use_liger_kernel=True"]),
        (Plan(job="qlora", quant="nf4", gpus=2, parallel="fsdp"), ["bnb_4bit_quant_storage=torch.bfloat16"]),
        (Plan(job="full", optimizer="paged-adamw-8bit"), ['optim="paged_adamw_8bit"']),
    ],
)
def test_options_end_up_in_the_code(plan, parts):
    code = code_for(plan, "some/model")
    compile(code, "planned.py", "exec")
    for part in parts:
        assert part in code


def test_a_model_name_cannot_become_code():
    name = 'x"""\nimport os; os.system("true")\n'
    code = code_for(Plan(), name)
    import ast

    values = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
    assert name in values
    assert not any(isinstance(node, ast.Import) and node.names[0].name == "os" for node in ast.walk(ast.parse(code)))


def test_what_no_trainer_does_is_refused():
    with pytest.raises(WorkbenchError, match="does not split"):
        code_for(Plan(job="full", gpus=2, parallel="tp"), "some/model")
    with pytest.raises(WorkbenchError, match="style"):
        code_for(Plan(), "some/model", "axolotl")
