"""The budget of a plan, by category, with how each number is known. Stdlib only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.architecture import config as reading
from workbench.architecture.skeleton import DTYPE_BYTES, Skeleton
from workbench.errors import WorkbenchError
from workbench.text import format_bytes
from workbench.vram.gpus import Gpu
from workbench.vram.kv_cache import KvCacheBytes, kv_cache_bytes
from workbench.vram.plan import Plan, check_plan
from workbench.vram.weights import WeightBytes, weight_bytes

CATEGORIES = (
    *("weights", "adapters", "gradients", "optimizer"),
    *("activations", "kv_cache", "logits", "overhead"),
)
# Measured: 141 MiB on a T4. Since CUDA loads kernels lazily (11.7), PyTorch's maintainers give 300 to 400 MB,
# on data-centre cards 0.4 to 0.6 GB.
CUDA_CONTEXT_BYTES = 512 * 2**20
# cuBLAS keeps one workspace for each handle and stream; this is its size up to Ada.
CUBLAS_WORKSPACE_BYTES = 8_519_680
TIGHT_SHARE = 0.05
"""A plan that leaves less of the capacity free than this is called tight."""


@dataclass(frozen=True)
class Category:
    """One part of the budget."""

    name: str
    bytes: int
    known: str
    """``exact`` to the byte, by a stated ``rule``, or ``not covered``."""
    why: str
    """One line: the rule, or what is exact about it."""


@dataclass(frozen=True)
class Estimate:
    """Bytes on one device at the peak, by category."""

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    kv_cache: int
    logits: int
    overhead: int
    total: int
    categories: tuple[Category, ...]
    """The same numbers, each with how it is known."""
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Fit:
    """Whether an estimate fits one GPU."""

    name: str
    capacity_bytes: int
    fits: bool
    free_bytes: int
    """Negative if it does not fit."""
    verdict: str
    """``fits``, ``tight`` (it fits with less than a twentieth to spare) or ``no``."""


def estimate(plan: Plan, skeleton: Skeleton) -> Estimate:
    """The budget of `plan` on the model `skeleton`.

    Raises:
        WorkbenchError: ``bad-plan``, ``unsupported-plan``.
    """
    check_plan(plan)
    if plan.trains:
        raise WorkbenchError(
            "unsupported-plan",
            f"The job {plan.job} is not estimated yet.",
            "Estimate inference, which the weights of every job start from.",
        )
    weights = weight_bytes(skeleton, plan)
    cache = kv_cache_bytes(skeleton, plan)
    categories = (
        Category("weights", weights.total, "exact", "parameters, buffers and quantization state as loaded"),
        Category("adapters", 0, "exact", "none in this job"),
        Category("gradients", 0, "exact", "none in this job"),
        Category("optimizer", 0, "exact", "none in this job"),
        _activations(plan, skeleton),
        _kv_cache(cache),
        _logits(plan, skeleton),
        Category(
            "overhead",
            CUDA_CONTEXT_BYTES + CUBLAS_WORKSPACE_BYTES,
            "rule",
            "CUDA context 0.5 GiB (141 MiB measured on a T4, to 0.6 GB on data-centre cards), one cuBLAS workspace",
        ),
    )
    sizes = {category.name: category.bytes for category in categories}
    return Estimate(
        **sizes,
        total=sum(sizes.values()),
        categories=categories,
        warnings=tuple(_warnings(plan, skeleton, weights, cache)),
    )


def fits(budget: Estimate, gpus: Sequence[Gpu]) -> tuple[Fit, ...]:
    """Hold `budget` against each of `gpus`."""
    found = []
    for gpu in gpus:
        free = gpu.capacity_bytes - budget.total
        verdict = "no" if free < 0 else "tight" if free < TIGHT_SHARE * gpu.capacity_bytes else "fits"
        found.append(Fit(gpu.name, gpu.capacity_bytes, free >= 0, free, verdict))
    return tuple(found)


def _activations(plan: Plan, skeleton: Skeleton) -> Category:
    """The largest moment of a forward pass, the prefill's feed-forward layer.

    Alive at once, for each token: gate, up and their product, and four tensors of the residual stream's
    width. Against a simulated prefill of Llama-3-8B (2,048 tokens: 0.23 GiB in bf16) the rule gives 0.23.
    """
    config = reading.text_config(skeleton.config)
    width = reading.hidden_size(config) or 0
    inner = (
        reading.first_int(config, ("intermediate_size", "n_inner", "ffn_dim", "decoder_ffn_dim", "d_ff")) or 4 * width
    )
    chosen = reading.experts_per_token(config)
    if chosen:
        inner = max(inner, chosen * (reading.first_int(config, ("moe_intermediate_size",)) or inner))
    tokens = plan.batch * plan.sequence_length
    size = tokens * DTYPE_BYTES[plan.dtype] * (3 * inner + 4 * width)
    why = f"prefill, {tokens:,} tokens x (3 x {inner:,} feed-forward + 4 x {width:,} hidden) x {plan.dtype}"
    return Category("activations", size, "rule", why)


def _kv_cache(cache: KvCacheBytes) -> Category:
    if cache.uncovered_kinds:
        kinds = ", ".join(cache.uncovered_kinds)
        return Category("kv_cache", cache.peak, "not covered", f"without the state of its {kinds} layers")
    why = f"{cache.per_token:,} bytes a token; {cache.after_prefill:,} after prefill, {cache.at_end:,} at the end"
    return Category("kv_cache", cache.peak, "exact", why)


def _logits(plan: Plan, skeleton: Skeleton) -> Category:
    vocab = _head_rows(skeleton)
    size = plan.batch * vocab * (DTYPE_BYTES[plan.dtype] + 4)
    why = f"{plan.batch} x {vocab:,} of the last position, and their float32 copy for sampling"
    return Category("logits", size, "rule", why)


def _head_rows(skeleton: Skeleton) -> int:
    head = skeleton.output_embeddings
    rows = next((entry.shape[0] for entry in skeleton.parameters if head and entry.name == f"{head}.weight"), 0)
    return rows or reading.first_int(reading.text_config(skeleton.config), ("vocab_size",)) or 0


def _warnings(plan: Plan, skeleton: Skeleton, weights: WeightBytes, cache: KvCacheBytes) -> list[str]:
    found = []
    if weights.unquantized_experts:
        found.append(
            f"The fused experts ({format_bytes(weights.unquantized_experts)}) are not quantized by bitsandbytes "
            f"and stay in {plan.dtype}."
        )
    if plan.quant != "none" and not weights.quantized_parameters:
        found.append(f"bitsandbytes converts no layer of {skeleton.architecture}: it loads unquantized.")
    context = reading.context_length(reading.text_config(skeleton.config))
    tokens = plan.sequence_length + plan.new_tokens
    if context and tokens > context:
        found.append(f"{tokens:,} tokens are beyond the model's context of {context:,}.")
    if cache.uncovered_kinds:
        found.append(f"The state of {', '.join(cache.uncovered_kinds)} layers is not counted.")
    return found
