"""What to change so that a plan takes less, cheapest first, and the cheapest set that makes it fit. Stdlib only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from workbench.architecture.skeleton import Skeleton
from workbench.errors import WorkbenchError
from workbench.vram.estimate import Estimator
from workbench.vram.plan import ALL_LINEAR, FOUR_BIT, QUANTIZED_KV_DTYPES, SHARDS_WEIGHTS, Plan, changed, check_plan
from workbench.vram.rungs import Known, best, held, nothing_known

LEAST_SAVING = 0.005
"""Changes that save less than this share of the total are left out."""
FEW_TARGETS = ("q_proj", "v_proj")


@dataclass(frozen=True)
class Change:
    """One thing to change, before it is known what it saves."""

    values: dict[str, Any]
    """Fields of the plan; ``lora_…`` reaches into the adapters."""
    title: str
    costs: str
    """What it costs in quality, speed or trouble."""
    price: int
    """Order of cost: 0 costs nothing, 9 changes what is done."""


@dataclass(frozen=True)
class Suggestion:
    """One change with what it saves."""

    change: dict[str, Any]
    title: str
    costs: str
    price: int
    saves_bytes: int
    total_bytes: int
    fits: Optional[bool]
    """Whether the plan then fits the GPU it is held against; None without one."""


@dataclass(frozen=True)
class FittingSet:
    """The cheapest changes with which a plan fits."""

    changes: tuple[Suggestion, ...]
    """In the order in which they are made; what each saves is counted after those before it."""
    plan: Plan
    total_bytes: int
    fits: bool
    by: str
    """The rung that says whether it fits: ``estimate``, ``simulation`` or ``measurement``."""


@dataclass(frozen=True)
class _Gpu:
    """What plans are held against, each by the best that is known of it."""

    capacity_bytes: int
    known: Known

    def fits(self, plan: Plan, total: int) -> bool:
        return held(best(total, self.known(plan)), self.capacity_bytes).fits


def suggestions(
    skeleton: Skeleton,
    plan: Plan,
    capacity_bytes: Optional[int] = None,
    estimator: Optional[Estimator] = None,
    known: Known = nothing_known,
) -> tuple[Suggestion, ...]:
    """Every change that saves something, cheapest first, each for itself."""
    estimator = estimator or Estimator(skeleton)
    gpu = _Gpu(capacity_bytes, known) if capacity_bytes is not None else None
    total = estimator.estimate(plan).total
    found = []
    for change in _changes(plan, estimator):
        after_plan = changed(plan, **change.values)
        after = _total(estimator, after_plan)
        if after is not None and total - after >= LEAST_SAVING * total:
            found.append(_suggestion(change, total, after, after_plan, gpu))
    return tuple(sorted(found, key=lambda item: (item.price, -item.saves_bytes)))


def make_it_fit(
    skeleton: Skeleton,
    plan: Plan,
    capacity_bytes: int,
    estimator: Optional[Estimator] = None,
    known: Known = nothing_known,
) -> FittingSet:
    """Changes are made from the cheapest on until the plan fits; those that turn out unneeded are taken back."""
    estimator = estimator or Estimator(skeleton)
    gpu = _Gpu(capacity_bytes, known)
    start = estimator.estimate(plan).total
    made: list[Change] = []
    current, total = plan, start
    while not gpu.fits(current, total):
        step = _cheapest_step(estimator, current, total)
        if step is None:
            break
        change, current, total = step
        made.append(change)
    if gpu.fits(current, total):
        made = _without_the_unneeded(estimator, plan, made, gpu)
    return _as_set(estimator, plan, made, start, gpu)


def _cheapest_step(estimator: Estimator, plan: Plan, total: int) -> Optional[tuple[Change, Plan, int]]:
    for change in sorted(_changes(plan, estimator), key=lambda item: item.price):
        after_plan = changed(plan, **change.values)
        after = _total(estimator, after_plan)
        if after is not None and total - after >= LEAST_SAVING * total:
            return change, after_plan, after
    return None


def _without_the_unneeded(estimator: Estimator, plan: Plan, made: list[Change], gpu: _Gpu) -> list[Change]:
    """Later changes may have made earlier ones needless; the dearest are tried first."""
    kept = list(made)
    for change in sorted(made, key=lambda item: -item.price):
        rest = [other for other in kept if other is not change]
        without = _applied(plan, rest)
        after = _total(estimator, without)
        if after is not None and gpu.fits(without, after):
            kept = rest
    return kept


def _as_set(estimator: Estimator, plan: Plan, made: list[Change], start: int, gpu: _Gpu) -> FittingSet:
    current, total = plan, start
    steps = []
    for change in made:
        current = changed(current, **change.values)
        after = _total(estimator, current)
        if after is None:
            continue
        steps.append(_suggestion(change, total, after, current, gpu))
        total = after
    by = best(total, gpu.known(current)).rung
    return FittingSet(tuple(steps), current, total, gpu.fits(current, total), by)


def _applied(plan: Plan, changes: list[Change]) -> Plan:
    for change in changes:
        plan = changed(plan, **change.values)
    return plan


def _suggestion(change: Change, before: int, after: int, plan: Plan, gpu: Optional[_Gpu]) -> Suggestion:
    fits = None if gpu is None else gpu.fits(plan, after)
    return Suggestion(change.values, change.title, change.costs, change.price, before - after, after, fits)


def _total(estimator: Estimator, plan: Plan) -> Optional[int]:
    """None for a plan that is none, such as targets that the model does not have."""
    try:
        check_plan(plan)
        return estimator.estimate(plan).total
    except WorkbenchError:
        return None


def _changes(plan: Plan, estimator: Estimator) -> Iterator[Change]:
    if plan.attention == "sdpa" and plan.dtype != "float32" and estimator.holds_scores(plan):
        costs = "needs the flash-attn package; attention itself in 16 bit, and faster"
        yield Change({"attention": "flash"}, "flash attention", costs, 1)
    yield from _training_changes(plan) if plan.trains else _inference_changes(plan)
    yield from _common_changes(plan)


def _training_changes(plan: Plan) -> Iterator[Change]:
    if plan.keep_outputs:
        yield Change({"keep_outputs": False}, "let go of the outputs", "nothing: keep the loss only in the loop", 0)
    if plan.optimizer == "adamw" and not plan.fused:
        yield Change({"fused": True}, "fused AdamW", "nothing: it is faster too", 0)
    if not plan.chunked_loss:
        yield Change({"chunked_loss": True}, "chunked loss", "nothing in quality; needs TRL's or Liger's loss", 1)
    if plan.padded:
        yield Change({"padded": False}, "packed sequences", "no padding: pack or group by length", 1)
    if plan.attention == "eager":
        yield Change({"attention": "sdpa"}, "fused attention", "nothing: it is faster too; no attention maps", 0)
    if not plan.gradient_checkpointing:
        yield Change({"gradient_checkpointing": True}, "gradient checkpointing", "about 30 % more time", 3)
    if plan.batch > 1:
        half = plan.batch // 2
        yield Change(
            {"batch": half, "accumulation": plan.accumulation * -(-plan.batch // half)},
            f"batch {half}, accumulated",
            "the same steps, somewhat slower",
            2,
        )
    if plan.prepares_kbit:
        yield Change({"kbit_prepare": False}, "no k-bit preparation", "norms and head stay in 16 bit", 2)
    if plan.has_adapters and plan.lora.dtype == "float32" and plan.dtype != "float32":
        yield Change({"lora_dtype": plan.dtype}, "adapters in 16 bit", "small updates may be rounded away", 4)
    yield from _optimizer_changes(plan)
    yield from _smaller_training(plan)


def _optimizer_changes(plan: Plan) -> Iterator[Change]:
    if plan.optimizer == "adamw" and plan.offload == "none":
        yield Change({"optimizer": "adamw-8bit"}, "8-bit AdamW", "about the same quality (Dettmers 2021)", 3)
        if plan.job == "full":
            yield Change({"offload": "optimizer"}, "optimizer on the CPU", "slower steps over PCIe", 5)
            yield Change({"optimizer": "adafactor"}, "Adafactor", "another optimizer: tune the learning rate", 6)
    if plan.optimizer == "adamw-8bit":
        yield Change({"optimizer": "paged-adamw-8bit"}, "paged AdamW", "slower when it must page out", 4)


def _smaller_training(plan: Plan) -> Iterator[Change]:
    if plan.job == "lora":
        yield Change(
            {"job": "qlora", "quant": "nf4", "double_quant": True, "kbit_prepare": False},
            "QLoRA in NF4",
            "a little quality; slower steps",
            5,
        )
    if plan.has_adapters and plan.lora.targets == (ALL_LINEAR,):
        yield Change({"lora_targets": FEW_TARGETS}, "adapters on q, v only", "less that can be learned", 6)
    if plan.has_adapters and plan.lora.r > 8:
        yield Change({"lora_r": plan.lora.r // 2}, f"rank {plan.lora.r // 2}", "less that can be learned", 6)
    if plan.job == "full":
        yield Change({"job": "lora"}, "LoRA instead of all weights", "trains about 1 % of the weights", 8)
    if plan.sequence_length >= 512:
        half = plan.sequence_length // 2
        yield Change({"sequence_length": half}, f"sequences of {half:,}", "longer texts are cut", 9)


def _inference_changes(plan: Plan) -> Iterator[Change]:
    if plan.attention == "eager":
        yield Change({"attention": "sdpa"}, "fused attention", "nothing: it is faster too; no attention maps", 0)
    if plan.cache == "static":
        yield Change({"cache": "dynamic"}, "growing KV cache", "no compiled decoding", 1)
    if plan.kv_dtype not in QUANTIZED_KV_DTYPES and plan.cache == "dynamic":
        yield Change({"kv_dtype": "fp8"}, "KV cache in fp8", "a little quality; slower decoding", 4)
        yield Change({"kv_dtype": "int4"}, "KV cache in 4 bit", "some quality; slower decoding", 6)
    if plan.dtype == "float32":
        yield Change({"dtype": "bfloat16"}, "bfloat16 weights", "nothing that is noticed", 1)
    if plan.quant == "none":
        yield Change({"quant": "int8", "dtype": "float16"}, "int8 weights", "little quality; slower decoding", 4)
        yield Change({"quant": "nf4", "double_quant": True}, "NF4 weights", "some quality; slower prefill", 5)
    if plan.batch > 1:
        yield Change({"batch": plan.batch // 2}, f"batch {plan.batch // 2}", "fewer answers at once", 5)
    if plan.sequence_length >= 512:
        half = plan.sequence_length // 2
        yield Change({"sequence_length": half}, f"prompts of {half:,}", "longer prompts are cut", 9)


def _common_changes(plan: Plan) -> Iterator[Change]:
    if plan.quant in FOUR_BIT and not plan.double_quant:
        yield Change({"double_quant": True}, "double quantization", "hardly anything", 1)
    if plan.quant == "int8":
        yield Change({"quant": "nf4", "double_quant": True, "dtype": "bfloat16"}, "NF4 weights", "some quality", 5)
    if plan.parallel == "none":
        way = "tp" if not plan.trains else "fsdp"
        if way in SHARDS_WEIGHTS and plan.quant == "int8":
            return
        yield Change({"gpus": 2, "parallel": way}, f"a second GPU, {way}", "another GPU", 7)
    elif plan.parallel != "ddp":
        yield Change({"gpus": plan.gpus * 2}, f"{plan.gpus * 2} GPUs", "more GPUs", 7)
    else:
        yield Change({"parallel": "fsdp"}, "sharded weights (fsdp)", "more communication", 4)
