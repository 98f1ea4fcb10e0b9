"""Static bytes of training jobs against what torch, bitsandbytes and peft really hold after a step on the CPU."""

from __future__ import annotations

import contextlib

import pytest

from tests.unit.test_vram_estimate import DECODERS, LLAMA, held_by_model, made, quantization
from workbench.architecture.skeleton import DTYPE_BYTES
from workbench.errors import WorkbenchError
from workbench.vram.adapters import trained_tensors
from workbench.vram.optimizer import optimizer_bytes
from workbench.vram.plan import Lora, Plan, changed, check_plan, plan_from_dict, plan_to_dict
from workbench.vram.weights import weight_bytes

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.model, pytest.mark.filterwarnings("ignore")]

# Large enough that some tensors get 8-bit states (4,096 elements) and some pages (100,000).
WIDER = {**LLAMA, "vocab_size": 1700, "intermediate_size": 128, "num_hidden_layers": 2}
OPTIMIZERS = ["adamw", "adamw foreach", "adamw-8bit", "paged-adamw-8bit", "adafactor", "sgd"]


def bytes_of(tensors):
    return sum(
        storage.nbytes()
        for storage in {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}.values()
    )


def make_optimizer(name, model, trainable):
    if name.startswith("adamw") and "8bit" not in name:
        return torch.optim.AdamW(trainable, fused="foreach" not in name, foreach="foreach" in name or None)
    if name == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(trainable, lr=1e-3, scale_parameter=False, relative_step=False)
    if name == "sgd":
        return torch.optim.SGD(trainable, lr=1e-3)
    bnb = pytest.importorskip("bitsandbytes")
    optimizer = bnb.optim.AdamW(trainable, optim_bits=8, is_paged=name.startswith("paged"))
    # What transformers' Trainer does.
    manager = bnb.optim.GlobalOptimManager.get_instance()
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            manager.register_module_override(module, "weight", {"optim_bits": 32})
    return optimizer


def step(model, optimizer, vocab_size=64):
    tokens = torch.arange(6).reshape(1, 6) % vocab_size
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    optimizer.step()


def state_of(optimizer):
    return [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_gradients_and_optimizer_state_of_full_training(optimizer_name, dtype):
    skeleton, model_class, config = made("llama", WIDER)
    model = model_class(config).to(getattr(torch, dtype))
    optimizer = make_optimizer(optimizer_name, model, list(model.parameters()))
    step(model, optimizer)
    plan = Plan(job="full", dtype=dtype, optimizer=optimizer_name.split()[0], fused="foreach" not in optimizer_name)
    trained = trained_tensors(skeleton, plan)
    found = optimizer_bytes(trained, plan)
    assert sum(tensor.bytes for tensor in trained) == bytes_of([p.grad for p in model.parameters()])
    assert found.state + found.on_cpu == bytes_of(state_of(optimizer))
    assert (found.on_cpu > 0) == (optimizer_name == "adamw foreach")
    assert (found.paged > 0) == (optimizer_name == "paged-adamw-8bit")


def adapted(skeleton, model_class, config, plan, folder):
    peft = pytest.importorskip("peft")
    model_class(config).save_pretrained(folder)
    model = model_class.from_pretrained(
        folder, dtype=getattr(torch, plan.dtype), **quantization(plan.quant, plan.double_quant)
    )
    if plan.prepares_kbit:
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    base = held_by_model(model)
    targets = plan.lora.targets
    options = {} if plan.lora.dtype == "float32" else {"autocast_adapter_dtype": False}
    model = peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=plan.lora.r,
            lora_alpha=plan.lora.alpha,
            target_modules=targets[0] if targets == ("all-linear",) else list(targets),
            use_dora=plan.lora.dora,
            use_rslora=plan.lora.rslora,
            modules_to_save=list(plan.lora.modules_to_save) or None,
            task_type="CAUSAL_LM",
        ),
        **options,
    )
    return model, base


LORAS = {
    "all": Plan(job="lora"),
    "attention, rank 5": Plan(job="lora", lora=Lora(r=5, targets=("q_proj", "v_proj"), rslora=True)),
    "adapters in bf16": Plan(job="lora", lora=Lora(dtype="bfloat16")),
    "dora": Plan(job="lora", lora=Lora(dora=True)),
    "head and embedding": Plan(job="lora", lora=Lora(modules_to_save=("lm_head", "embed_tokens"))),
    "embedding adapted": Plan(job="lora", lora=Lora(targets=("embed_tokens", "o_proj"))),
    "float16": Plan(job="lora", dtype="float16", lora=Lora(targets=("down_proj",))),
    "nf4": Plan(job="qlora", quant="nf4", double_quant=True),
    "nf4, 16-bit rest": Plan(job="qlora", quant="nf4", kbit_prepare=False),
    "fp4 dora": Plan(job="qlora", quant="fp4", lora=Lora(dora=True, targets=("q_proj", "up_proj"))),
    "nf4, head": Plan(job="qlora", quant="nf4", lora=Lora(modules_to_save=("lm_head",))),
    "int8": Plan(job="qlora", quant="int8", dtype="float16"),
}


@pytest.mark.parametrize("name", LORAS)
def test_adapters_and_weights_beside_them(tmp_path, name):
    plan = LORAS[name]
    check_plan(plan)
    skeleton, model_class, config = made("llama", WIDER)
    model, base = adapted(skeleton, model_class, config, plan, tmp_path)
    trained = trained_tensors(skeleton, plan)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert base == weight_bytes(skeleton, plan).total
    assert sorted(tensor.shape for tensor in trained) == sorted(tuple(parameter.shape) for parameter in trainable)
    assert sum(tensor.bytes for tensor in trained) == bytes_of(trainable)
    for optimizer_name in ("adamw", "adamw-8bit"):
        if plan.quant == "int8" or plan.dtype == "float16":
            continue
        # bitsandbytes' manager of exceptions is one for the whole process.
        with contextlib.suppress(ImportError):
            import bitsandbytes

            bitsandbytes.optim.GlobalOptimManager.get_instance().initialize()
        optimizer = make_optimizer(optimizer_name, model, trainable)
        model.zero_grad()
        step(model, optimizer)
        assert optimizer_bytes(trained, changed(plan, optimizer=optimizer_name)).state == bytes_of(state_of(optimizer))


@pytest.mark.parametrize("model_type", [name for name in DECODERS if name not in ("gpt_oss",)])
def test_adapters_of_every_family(tmp_path, model_type):
    skeleton, model_class, config = made(model_type, DECODERS[model_type])
    for plan in (Plan(job="lora"), Plan(job="qlora", quant="nf4")):
        model, base = adapted(skeleton, model_class, config, plan, tmp_path)
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        assert base == weight_bytes(skeleton, plan).total, plan
        assert sum(tensor.bytes for tensor in trained_tensors(skeleton, plan)) == bytes_of(trainable), plan


def test_kbit_preparation_is_what_makes_the_rest_float32():
    skeleton, _, _ = made("llama", WIDER)
    prepared = weight_bytes(skeleton, Plan(job="qlora", quant="nf4"))
    kept = weight_bytes(skeleton, Plan(job="qlora", quant="nf4", kbit_prepare=False))
    assert prepared.total - kept.total == prepared.prepared > 0 == kept.prepared
    assert prepared.unquantized == 2 * kept.unquantized


def test_offloaded_state_is_on_the_cpu():
    skeleton, _, _ = made("llama", WIDER)
    trained = trained_tensors(skeleton, Plan(job="full"))
    here = optimizer_bytes(trained, Plan(job="full"))
    away = optimizer_bytes(trained, Plan(job="full", offload="optimizer"))
    assert (away.state, away.on_cpu) == (0, here.state)


def test_a_quantized_module_is_not_trained_whole():
    skeleton, _, _ = made("llama", WIDER)
    plan = Plan(job="qlora", quant="nf4", lora=Lora(targets=("v_proj",), modules_to_save=("q_proj",)))
    with pytest.raises(WorkbenchError, match="quantized"):
        trained_tensors(skeleton, plan)


@pytest.mark.parametrize(
    "values",
    [
        {"job": "qlora"},
        {"job": "lora", "quant": "nf4"},
        {"job": "full", "quant": "int8"},
        {"job": "lora", "lora": {"r": 0}},
        {"job": "lora", "lora": {"targets": []}},
        {"job": "lora", "lora": {"targets": ["all-linear", "q_proj"]}},
        {"job": "lora", "lora": {"dropout": 1.0}},
        {"job": "lora", "lora": {"rank": 8}},
        {"job": "lora", "lora": {"targets": "q_proj"}},
        {"gpus": 4},
        {"parallel": "ddp"},
        {"gpus": 2, "parallel": "zero2"},
        {"gpus": 2, "parallel": "fsdp", "quant": "int8"},
        {"attention": "flash", "dtype": "float32"},
        {"attention": "flash", "padded": True},
        {"cache": "static", "kv_dtype": "int4"},
        {"job": "full", "optimizer": "paged-adamw-8bit", "offload": "optimizer"},
        {"keep_outputs": 1},
        {"colour": "red"},
    ],
)
def test_contradictions_are_refused(values):
    with pytest.raises(WorkbenchError) as caught:
        check_plan(plan_from_dict(values))
    assert caught.value.kind == "bad-plan"
    assert caught.value.remedy


def test_a_plan_travels_as_json():
    plan = Plan(job="qlora", quant="nf4", lora=Lora(r=8, targets=("q_proj",), modules_to_save=("lm_head",)))
    assert plan_from_dict(plan_to_dict(plan)) == plan
    assert changed(plan, batch=2, lora_r=4) == Plan(
        job="qlora", quant="nf4", batch=2, lora=Lora(r=4, targets=("q_proj",), modules_to_save=("lm_head",))
    )
    assert DTYPE_BYTES[plan.dtype] == 2
