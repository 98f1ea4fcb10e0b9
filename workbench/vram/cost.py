"""Work, time, energy and money of a plan, as ranges. Stdlib only.

FLOPs: 2 for each weight that a token meets, and the scores of attention; backward twice the forward (Kaplan 2020,
section 2.1). Shares of the peak (MFU) that training reaches: published runs, see `MFU`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Optional

from workbench.architecture import config as reading
from workbench.architecture.skeleton import DTYPE_BYTES, Skeleton
from workbench.errors import WorkbenchError
from workbench.vram.adapters import trained_tensors
from workbench.vram.dimensions import dimensions
from workbench.vram.gpus import Gpu
from workbench.vram.kv_cache import kv_cache_bytes
from workbench.vram.plan import Plan
from workbench.vram.prices import ApiPrice, Price
from workbench.vram.weights import weight_bytes

MFU = {"full": (0.35, 0.55), "lora": (0.15, 0.35), "qlora": (0.15, 0.35)}
"""Share of the peak reached: full training of about 7B with fused kernels on one data-centre card, and Hugging Face
LoRA or QLoRA with small batches."""
PREFILL_SHARE = (0.3, 0.6)
BANDWIDTH_SHARE = (0.5, 0.85)
"""Share of the memory bandwidth that decoding reaches."""
CHINCHILLA = (10, 20, 40)
"""Tokens for each parameter that pre-training is best spent on: about 20 (Hoffmann 2022), from 10 to 40 by the fit."""
POWER_SHARE = (0.6, 0.9)
PUE = (1.1, 1.5)
"""What a data centre takes for each watt of its computers."""
TDP_WATTS = {
    **{"T4": 70, "L4": 72, "A10G": 300, "RTX 4090": 450, "L40S": 350, "A100 SXM 80GB": 400},
    **{"H100 SXM 80GB": 700, "H200": 700, "B200": 1000},
}


@dataclass(frozen=True)
class Range:
    """From the best to the worst that is to be expected."""

    low: float
    high: float

    def times(self, low: float, high: float) -> Range:
        """The product with another range."""
        return Range(self.low * low, self.high * high)


@dataclass(frozen=True)
class Cost:
    """What a plan costs; None where the GPU, its price or the data set is not known."""

    flops_per_token: int
    """Of the job: training step or prefill, at the plan's sequence length."""
    matmul_parameters: int
    """Weights that one token meets."""
    training_flops: Optional[int]
    """For the whole data set and all epochs."""
    tokens_per_step: Optional[int]
    steps: Optional[int]
    seconds_per_step: Optional[Range]
    seconds: Optional[Range]
    """For training the whole data set; for inference one prompt and its answer."""
    prefill_seconds: Optional[Range]
    tokens_per_second: Optional[Range]
    """Decoding, all sequences together; training, all GPUs together."""
    usd: Optional[Range]
    kwh: Optional[Range]
    chinchilla_tokens: tuple[int, int, int]
    """Low, usual, high; for pre-training, not for fine-tuning."""
    notes: tuple[str, ...]


def matmul_parameters(skeleton: Skeleton) -> int:
    """Weights that one token is multiplied by: no input embedding, of experts only those that work on it.

    A head that shares its weights with the embedding counts, as it is multiplied by.
    """
    config = reading.text_config(skeleton.config)
    experts, chosen = reading.num_experts(config), reading.experts_per_token(config)
    share = chosen / experts if experts and chosen else 1.0
    embeddings = {module.name for module in skeleton.modules if module.layer_kind == "embedding"}
    total = 0.0
    for entry in skeleton.parameters:
        is_head = entry.module == skeleton.output_embeddings
        if len(entry.shape) < 2 or entry.module in embeddings or (entry.tied_to and not is_head):
            continue
        total += entry.numel * (share if ".experts." in f".{entry.name}" else 1.0)
    return round(total)


def forward_flops(skeleton: Skeleton, length: int, is_causal: bool = True) -> int:
    """FLOPs of one token in a forward pass over `length` tokens, on average."""
    sizes = dimensions(skeleton, Plan())
    scores = 4 * sizes.values["q"] * length * sizes.layers
    return 2 * matmul_parameters(skeleton) + (scores // 2 if is_causal else scores)


def training_flops_per_token(skeleton: Skeleton, plan: Plan, trained_parameters: Optional[int] = None) -> int:
    """Forward, backward, and what checkpointing computes again.

    Of frozen weights no gradient is computed: backward is then as much as forward, and the adapters' own comes on top.

    Args:
        skeleton: the model.
        plan: a training job.
        trained_parameters: those of the adapters, where they are known already.
    """
    forward = forward_flops(skeleton, plan.sequence_length)
    if plan.job == "full":
        passes = 3 * forward
    else:
        if trained_parameters is None:
            trained_parameters = sum(tensor.numel for tensor in trained_tensors(skeleton, plan))
        passes = 2 * forward + 6 * trained_parameters
    return passes + (forward if plan.gradient_checkpointing else 0)


def cost(
    skeleton: Skeleton,
    plan: Plan,
    gpu: Optional[Gpu] = None,
    price: Optional[Price] = None,
    dataset_tokens: int = 0,
    epochs: float = 1.0,
    trained_parameters: Optional[int] = None,
) -> Cost:
    """Work, time, money and energy of `plan`.

    Args:
        skeleton: the model.
        plan: the job.
        gpu: what it runs on; without it only FLOPs are known.
        price: rent of one such GPU.
        dataset_tokens: tokens of the data set once through, as the Tokens bench counts them.
        epochs: how often it is gone through.
        trained_parameters: as in `training_flops_per_token`.
    """
    parameters = matmul_parameters(skeleton)
    total = sum(entry.numel for entry in skeleton.unique_parameters)
    low, usual, high = (total * ratio for ratio in CHINCHILLA)
    if plan.trains:
        flops = training_flops_per_token(skeleton, plan, trained_parameters)
        found = _training(plan, gpu, flops, round(dataset_tokens * epochs))
    else:
        found = _inference(skeleton, plan, gpu)
    seconds = found.seconds
    usd = seconds.times(price.low * plan.gpus / 3600, price.high * plan.gpus / 3600) if seconds and price else None
    kwh = _energy(plan, gpu, seconds)
    notes = []
    if gpu is not None and gpu.dense_tflops is None and gpu.bandwidth_bytes_per_second is None:
        notes.append(f"Of {gpu.name} neither throughput nor bandwidth is known: name a GPU of the catalogue for times.")
    if gpu is not None and price is None:
        notes.append(f"No price for {gpu.name}: put one into prices.toml.")
    if price is not None:
        notes.append(f"Prices of {price.date}, {price.source}.")
    return Cost(
        flops_per_token=found.flops,
        matmul_parameters=parameters,
        training_flops=found.training_flops,
        tokens_per_step=found.tokens_per_step,
        steps=found.steps,
        seconds_per_step=found.seconds_per_step,
        seconds=seconds,
        prefill_seconds=found.prefill_seconds,
        tokens_per_second=found.tokens_per_second,
        usd=usd,
        kwh=kwh,
        chinchilla_tokens=(low, usual, high),
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class _Work:
    """The part of a cost that depends on the kind of job."""

    flops: int
    training_flops: Optional[int] = None
    tokens_per_step: Optional[int] = None
    steps: Optional[int] = None
    seconds_per_step: Optional[Range] = None
    seconds: Optional[Range] = None
    prefill_seconds: Optional[Range] = None
    tokens_per_second: Optional[Range] = None


def _training(plan: Plan, gpu: Optional[Gpu], flops: int, tokens: int) -> _Work:
    copies = plan.gpus if plan.parallel not in ("tp", "pp") else 1
    tokens_per_step = plan.batch * plan.sequence_length * plan.accumulation * copies
    work = _Work(
        flops,
        training_flops=flops * tokens or None,
        tokens_per_step=tokens_per_step,
        steps=-(-tokens // tokens_per_step) or None,
    )
    if gpu is None or not gpu.dense_tflops:
        return work
    worst, best = MFU[plan.job]
    peak = gpu.dense_tflops * 1e12 * plan.gpus * (0.5 if plan.dtype == "float32" else 1.0)
    per_token = Range(flops / (peak * best), flops / (peak * worst))
    return replace(
        work,
        seconds_per_step=per_token.times(tokens_per_step, tokens_per_step),
        tokens_per_second=Range(1 / per_token.high, 1 / per_token.low),
        seconds=per_token.times(tokens, tokens) if tokens else None,
    )


def _inference(skeleton: Skeleton, plan: Plan, gpu: Optional[Gpu]) -> _Work:
    flops = forward_flops(skeleton, plan.sequence_length)
    copies = plan.gpus if plan.parallel in ("tp", "ddp") else 1
    prefill = step = None
    if gpu is not None and gpu.dense_tflops:
        seconds = flops * plan.batch * plan.sequence_length / (gpu.dense_tflops * 1e12 * copies)
        prefill = Range(seconds / PREFILL_SHARE[1], seconds / PREFILL_SHARE[0])
    if gpu is not None and gpu.bandwidth_bytes_per_second:
        read = _bytes_per_step(skeleton, plan) / (gpu.bandwidth_bytes_per_second * copies)
        step = Range(read / BANDWIDTH_SHARE[1], read / BANDWIDTH_SHARE[0])
    whole = None
    if prefill is not None and step is not None:
        whole = Range(prefill.low + step.low * plan.new_tokens, prefill.high + step.high * plan.new_tokens)
    speed = Range(plan.batch / step.high, plan.batch / step.low) if step is not None else None
    return _Work(flops, prefill_seconds=prefill, tokens_per_second=speed, seconds=whole)


def _bytes_per_step(skeleton: Skeleton, plan: Plan) -> int:
    """What one decoding step reads: the weights but for the embedding's other rows and idle experts, and the cache."""
    held = weight_bytes(skeleton, plan)
    embedding = next(
        (
            entry.numel
            for entry in skeleton.unique_parameters
            if entry.module == skeleton.input_embeddings and skeleton.output_embeddings
        ),
        0,
    )
    tied = any(entry.tied_to for entry in skeleton.parameters if entry.module == skeleton.output_embeddings)
    config = reading.text_config(skeleton.config)
    experts, chosen = reading.num_experts(config), reading.experts_per_token(config)
    idle = 0
    if experts and chosen:
        used = min(1.0, chosen * plan.batch / experts)
        routed = sum(entry.numel for entry in skeleton.unique_parameters if ".experts." in entry.name)
        idle = round(routed * (1 - used) * DTYPE_BYTES[plan.dtype])
    unread = 0 if tied else embedding * DTYPE_BYTES[plan.dtype]
    cache = kv_cache_bytes(skeleton, plan)
    return held.total - unread - idle + (cache.after_prefill + cache.at_end) // 2


def _energy(plan: Plan, gpu: Optional[Gpu], seconds: Optional[Range]) -> Optional[Range]:
    watts = TDP_WATTS.get(gpu.name) if gpu is not None else None
    if watts is None or seconds is None:
        return None
    kilowatt_hours = watts * plan.gpus / 1000 / 3600
    return seconds.times(kilowatt_hours * POWER_SHARE[0] * PUE[0], kilowatt_hours * POWER_SHARE[1] * PUE[1])


@dataclass(frozen=True)
class BreakEven:
    """A GPU of one's own against an API."""

    tokens_per_day: Range
    """Generated tokens from which on the rented GPU is cheaper than the API, if it runs all day."""
    gpu_capacity_per_day: Range
    """Tokens the GPU can generate in a day with this plan."""
    api_usd_per_day: float
    """At the tokens asked about."""
    gpu_usd_per_day: Range
    tokens_asked_per_day: int
    cheaper: str
    """``api``, ``gpu`` or ``depends`` where the ranges overlap."""
    notes: tuple[str, ...]


def break_even(
    found: Cost,
    plan: Plan,
    price: Price,
    api: ApiPrice,
    answers_per_day: int,
    agent_multiplier: float = 1.0,
) -> BreakEven:
    """Whether `answers_per_day` answers of the plan's lengths are cheaper from an API or from a rented GPU.

    Args:
        found: the cost of the plan on the GPU.
        plan: an inference plan.
        price: rent of the GPU.
        api: the API's price.
        answers_per_day: what a user asks for.
        agent_multiplier: model calls that an agent makes for each of them; each resends its prompt.

    Raises:
        WorkbenchError: ``bad-option`` for a training plan, for a GPU without known bandwidth and for absurd numbers.
    """
    if plan.trains or found.tokens_per_second is None or not plan.new_tokens:
        raise WorkbenchError(
            "bad-option", "Break-even is for answers on a known GPU.", "Take an inference plan and a catalogue GPU."
        )
    if not 1 <= answers_per_day <= 10**12 or not 1 <= agent_multiplier <= 10**6:
        raise WorkbenchError(
            "bad-option",
            f"{answers_per_day} answers a day, {agent_multiplier} calls each.",
            "Give 1 answer or more, and 1 call or more for each.",
        )
    calls = answers_per_day * agent_multiplier
    per_call = (plan.sequence_length * api.input_per_million + plan.new_tokens * api.output_per_million) / 1e6
    rent = Range(price.low * 24 * plan.gpus, price.high * 24 * plan.gpus)
    speed = found.tokens_per_second
    capacity = Range(speed.low * 86400, speed.high * 86400)
    even = Range(rent.low / per_call * plan.new_tokens, rent.high / per_call * plan.new_tokens)
    api_usd = per_call * calls
    cheaper = "gpu" if api_usd > rent.high else "api" if api_usd < rent.low else "depends"
    notes = [f"API price of {api.date}, {api.source}.", f"GPU price of {price.date}, {price.source}."]
    if calls * plan.new_tokens > capacity.high:
        notes.append("One such GPU cannot generate that many tokens a day with this batch.")
        cheaper = "api" if cheaper == "api" else "depends"
    return BreakEven(even, capacity, api_usd, rent, round(calls * plan.new_tokens), cheaper, tuple(notes))
