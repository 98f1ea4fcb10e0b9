"""The parts of a model make the whole, in each kind of job."""

from __future__ import annotations

import dataclasses

import pytest

from workbench.architecture.cache import load_skeleton
from workbench.architecture.skeleton import Skeleton
from workbench.models.resolve import resolve
from workbench.session.handlers.architecture import config_of
from workbench.vram.estimate import Estimator
from workbench.vram.module_bytes import ModuleBytes, module_bytes
from workbench.vram.plan import Lora, Plan

pytestmark = pytest.mark.model

PLANS = (
    Plan(new_tokens=64),
    Plan(quant="nf4", double_quant=True),
    Plan(job="full"),
    Plan(job="qlora", quant="nf4"),
)


@pytest.fixture(scope="module", params=["tiny-llama", "tiny-gpt2", "tiny-mixtral", "tiny-gemma3"])
def skeleton(request: pytest.FixtureRequest) -> Skeleton:
    return load_skeleton(config_of(resolve(request.param), {}))


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.job}-{plan.quant}")
def test_the_modules_add_up_to_what_the_estimate_says(skeleton: Skeleton, plan: Plan) -> None:
    static = Estimator(skeleton).estimate(plan).static
    whole = module_bytes(skeleton, plan, [""])
    for name in ("parameters", "weights", "adapters", "gradients", "optimizer", "kv_cache"):
        assert getattr(whole, name) == static[name], name
    leaves = [module.name for module in skeleton.modules if module.name.count(".") <= 2]
    parts = [name for name in leaves if name and not any(other.startswith(f"{name}.") for other in leaves)]
    each = [module_bytes(skeleton, plan, [name]) for name in parts]
    for field in dataclasses.fields(ModuleBytes):
        assert sum(getattr(part, field.name) for part in each) == getattr(whole, field.name), field.name
    assert module_bytes(skeleton, plan, parts) == whole


def test_a_cache_belongs_to_the_attention_and_adapters_to_their_targets() -> None:
    skeleton = load_skeleton(config_of(resolve("tiny-llama"), {}))
    attention, mlp = "model.layers.0.self_attn", "model.layers.0.mlp"
    plan = Plan(new_tokens=64)
    assert module_bytes(skeleton, plan, [attention]).kv_cache > 0
    assert module_bytes(skeleton, plan, [mlp]).kv_cache == 0
    trained = Plan(job="lora", lora=Lora(targets=("q_proj",)))
    assert module_bytes(skeleton, trained, [attention]).adapters > 0
    assert module_bytes(skeleton, trained, [mlp]).adapters == 0
