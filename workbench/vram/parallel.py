"""What each of several GPUs holds of a job, and how the job is started on them. Stdlib only.

Rules from the documentation and code of PyTorch DDP and FSDP2, DeepSpeed's ZeRO, and Megatron-style tensor and pipeline
parallelism; no rule here was measured on several GPUs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from workbench.architecture.skeleton import DTYPE_BYTES, ParameterEntry, Skeleton
from workbench.errors import WorkbenchError
from workbench.vram.activations import Moment
from workbench.vram.dimensions import dimensions
from workbench.vram.plan import SHARDS_WEIGHTS, Plan
from workbench.vram.weights import WeightBytes, fp32_patterns, quantized_modules, resting_dtype

NCCL_BYTES = 300 * 2**20
"""Buffers of one communicator: 0.2 to 1 GB and more are reported, by topology and version."""
ZERO_BUCKET_BYTES = 2 * 500_000_000
"""DeepSpeed's default bucket for reducing and gathering: 5e8 elements of 16 bit."""
WORKING_LAYERS = 2
"""Layers whose whole weights are there at once under FSDP and ZeRO-3: the one at work and the one fetched ahead."""
_LAYER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class Parts:
    """What one GPU holds, before activations."""

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    optimizer_step: int
    kv_cache: int
    communication: int = 0


def check_parallel(plan: Plan, skeleton: Skeleton) -> None:
    """Refuse a split that the model does not allow.

    Raises:
        WorkbenchError: ``bad-plan``.
    """
    sizes = dimensions(skeleton, replace(plan, gpus=1, parallel="none"))
    heads = sizes.values["a"]
    if plan.parallel == "tp" and heads and heads % plan.gpus:
        raise WorkbenchError(
            "bad-plan",
            f"{heads} attention heads do not divide among {plan.gpus} GPUs.",
            f"Choose a number of GPUs that divides {heads}.",
        )
    if plan.parallel == "pp" and sizes.layers and plan.gpus > sizes.layers:
        raise WorkbenchError(
            "bad-plan", f"{sizes.layers} layers on {plan.gpus} GPUs.", "A stage needs a layer: choose fewer GPUs."
        )


def on_each_gpu(
    plan: Plan, skeleton: Skeleton, weights: WeightBytes, whole: Parts, candidates: tuple[Moment, ...]
) -> tuple[Parts, tuple[Moment, ...]]:
    """The parts and moments of the GPU that holds most, and its communication buffers."""
    if plan.parallel == "none":
        return whole, candidates
    if plan.parallel == "tp":
        return _tensor_parallel(plan, skeleton, weights, whole), candidates
    if plan.parallel == "pp":
        return _pipeline(plan, skeleton, weights, whole, candidates)
    return _data_parallel(plan, skeleton, weights, whole), candidates


def _data_parallel(plan: Plan, skeleton: Skeleton, weights: WeightBytes, whole: Parts) -> Parts:
    count = plan.gpus
    trained = whole.gradients
    if plan.parallel == "ddp":
        # The reducer's buckets hold a second copy of all gradients (gradient_as_bucket_view is off by default).
        return replace(whole, communication=NCCL_BYTES + trained)
    if plan.parallel.startswith("zero"):
        whole = replace(whole, optimizer=_with_master_weights(plan, whole))
    sharded = {"optimizer": -(-whole.optimizer // count), "optimizer_step": -(-whole.optimizer_step // count)}
    if plan.parallel == "zero1":
        return replace(whole, **sharded, communication=NCCL_BYTES + min(trained, ZERO_BUCKET_BYTES))
    sharded["gradients"] = -(-whole.gradients // count)
    if plan.parallel == "zero2":
        return replace(whole, **sharded, communication=NCCL_BYTES + 2 * min(trained, ZERO_BUCKET_BYTES))
    layer = WORKING_LAYERS * max(_layer_bytes(_sized(skeleton, plan, weights)).values(), default=0)
    reduced = trained // max(1, dimensions(skeleton, plan).layers)
    return replace(
        whole,
        weights=-(-whole.weights // count),
        adapters=-(-whole.adapters // count),
        **sharded,
        communication=NCCL_BYTES + layer + reduced,
    )


def _with_master_weights(plan: Plan, whole: Parts) -> int:
    """DeepSpeed trains 16-bit parameters through float32 copies, with float32 states."""
    trainable = whole.adapters if plan.has_adapters else whole.weights
    dtype = plan.lora.dtype if plan.has_adapters else plan.dtype
    if DTYPE_BYTES[dtype] == 4 or not whole.optimizer:
        return whole.optimizer
    state = 2 * whole.optimizer if plan.optimizer == "adamw" else whole.optimizer
    return state + 2 * trainable


def _layer_bytes(sized: list[tuple[ParameterEntry, int]]) -> dict[int, int]:
    """Weights of each layer, unsharded."""
    found: dict[int, int] = {}
    for entry, size in sized:
        number = _LAYER.search(entry.name)
        if number:
            found[int(number.group(1))] = found.get(int(number.group(1)), 0) + size
    return found


def _sized(skeleton: Skeleton, plan: Plan, weights: WeightBytes) -> list[tuple[ParameterEntry, int]]:
    """Each parameter with its bytes, `weights` in all; what is not its own, such as block constants, is spread evenly.

    So is what a checkpoint that is packed already takes less than its parameters would.
    """
    quantized = quantized_modules(skeleton) if plan.quant != "none" else frozenset()
    per_weight = {"int8": 1.0, "nf4": 0.5 + 4 / 64, "fp4": 0.5 + 4 / 64}.get(plan.quant, 0.0)
    if plan.double_quant:
        per_weight = 0.5 + 1 / 64 + 4 / 64 / 256
    patterns = fp32_patterns(skeleton, plan.dtype)
    found = []
    for entry in skeleton.unique_parameters:
        if entry.module in quantized and entry.name.endswith(".weight"):
            found.append((entry, round(entry.numel * per_weight)))
        else:
            found.append((entry, entry.numel * DTYPE_BYTES[resting_dtype(entry, plan, patterns)]))
    counted, whole = sum(size for _, size in found), weights.total - weights.buffers
    if counted == whole or not counted:
        return found
    return [(entry, size * whole // counted) for entry, size in found]


def _tensor_parallel(plan: Plan, skeleton: Skeleton, weights: WeightBytes, whole: Parts) -> Parts:
    """Matrices and embeddings are cut, vectors are not; key/value heads are copied where there are too few to cut."""
    split = sum(size for entry, size in _sized(skeleton, plan, weights) if len(entry.shape) > 1)
    count = plan.gpus
    own = weights.total - split + -(-split // count)
    single = replace(plan, gpus=1, parallel="none")
    heads = dimensions(skeleton, single).values["k"] // max(1, dimensions(skeleton, single).values["d"])
    kv_share = max(1, -(-heads // count)) / max(1, heads)
    share = own / max(1, weights.total)
    return replace(
        whole,
        weights=own,
        adapters=-(-whole.adapters // count),
        gradients=round(whole.gradients * (share if not plan.has_adapters else 1 / count)),
        optimizer=round(whole.optimizer * (share if not plan.has_adapters else 1 / count)),
        optimizer_step=-(-whole.optimizer_step // count),
        kv_cache=round(whole.kv_cache * kv_share),
        communication=NCCL_BYTES + _stream_bytes(plan, skeleton),
    )


def _pipeline(
    plan: Plan, skeleton: Skeleton, weights: WeightBytes, whole: Parts, candidates: tuple[Moment, ...]
) -> tuple[Parts, tuple[Moment, ...]]:
    """The first stage holds the embedding and several batches in flight, the last one the head and the logits.

    A head that is tied to the embedding has no parameter of its own: both stages hold the one there is.
    """
    stages = plan.gpus
    sized = _sized(skeleton, plan, weights)
    layers = _layer_bytes(sized)
    deepest = -(-len(layers) // stages) if layers else 0
    body = max(layers.values(), default=0) * deepest
    outside = max(0, weights.total - sum(layers.values()))
    head = sum(size for entry, size in sized if entry.module == skeleton.output_embeddings)
    outside = max(outside - head, head) if head else outside
    share = body / max(1, sum(layers.values()))
    flights = min(stages, plan.accumulation) if plan.trains else 1
    first = tuple(
        Moment(m.phase, round(m.activations * share * flights), 0, round(m.gradients * share)) for m in candidates
    )
    last = tuple(
        Moment(m.phase, round(m.activations * share), m.logits, round(m.gradients * share)) for m in candidates
    )
    heavier = max((first, last), key=lambda several: max(m.activations + m.logits for m in several))
    parts = replace(
        whole,
        weights=body + outside,
        adapters=round(whole.adapters * share),
        gradients=round(whole.gradients * share),
        optimizer=round(whole.optimizer * share),
        optimizer_step=round(whole.optimizer_step * share),
        kv_cache=round(whole.kv_cache * share),
        communication=NCCL_BYTES + 2 * _stream_bytes(plan, skeleton),
    )
    return parts, heavier


def _stream_bytes(plan: Plan, skeleton: Skeleton) -> int:
    """One residual stream: what passes between GPUs at a time."""
    return dimensions(skeleton, plan).product("bsh") * DTYPE_BYTES[plan.dtype]


def launch_commands(plan: Plan, model: str) -> tuple[str, ...]:
    """How the job is started on the GPUs of the plan; several ways where there are several."""
    count = plan.gpus
    if not plan.trains:
        return _inference_commands(plan, model)
    precision = {"bfloat16": "bf16", "float16": "fp16", "float32": "no"}[plan.dtype]
    accelerate = f"accelerate launch --num_processes {count} --mixed_precision {precision}"
    if plan.parallel == "none":
        return ("python train.py",)
    if plan.parallel == "ddp":
        return (f"torchrun --nproc-per-node {count} train.py", f"{accelerate} --multi_gpu train.py")
    if plan.parallel == "fsdp":
        return (f"{accelerate} --use_fsdp --fsdp_version 2 --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP train.py",)
    if plan.parallel.startswith("zero"):
        stage = plan.parallel[-1]
        offload = " --offload_optimizer_device cpu" if plan.offload == "optimizer" else ""
        return (
            f"{accelerate} --use_deepspeed --zero_stage {stage}{offload} train.py",
            f"deepspeed --num_gpus {count} train.py --deepspeed zero{stage}.json",
        )
    return (f"torchrun --nproc-per-node {count} train.py",)


def _inference_commands(plan: Plan, model: str) -> tuple[str, ...]:
    """vLLM where it can hold what is planned, and transformers."""
    count = plan.gpus
    flag = {"tp": "--tensor-parallel-size", "pp": "--pipeline-parallel-size", "ddp": "--data-parallel-size"}
    commands = []
    # vLLM converts to NF4 while it loads, to fp4 or int8 it does not; its quantized caches are fp8.
    if plan.quant in ("none", "nf4") and plan.kv_dtype not in ("int8", "int4", "int2"):
        serve = f"vllm serve {model} --dtype {plan.dtype} --max-model-len {plan.sequence_length + plan.new_tokens}"
        serve += " --quantization bitsandbytes" if plan.quant == "nf4" else ""
        serve += " --kv-cache-dtype fp8" if plan.kv_dtype == "fp8" else ""
        if count == 1:
            commands.append(serve)
        elif plan.parallel in flag:
            commands.append(f"{serve} {flag[plan.parallel]} {count}")
    if plan.parallel == "tp":
        commands.append(f"torchrun --nproc-per-node {count} run.py")
    elif count > 1 and plan.parallel != "pp":
        commands.append(f"accelerate launch --num_processes {count} run.py")
    return tuple(commands) or ("python run.py",)


def shards_weights(plan: Plan) -> bool:
    """Whether each GPU holds a part of the weights only."""
    return plan.parallel in (*SHARDS_WEIGHTS, "tp", "pp")
