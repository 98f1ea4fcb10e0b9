"""What a person should know about a plan before trusting its budget, and what a GPU cannot do of it. Stdlib only."""

from __future__ import annotations

from typing import Optional

from workbench.architecture import config as reading
from workbench.architecture.describe import describe
from workbench.architecture.skeleton import Skeleton
from workbench.text import format_bytes
from workbench.vram.activations import EAGER_ONLY, Moments
from workbench.vram.gpus import Gpu
from workbench.vram.kv_cache import KvCacheBytes
from workbench.vram.plan import FOUR_BIT, Plan
from workbench.vram.repeated import SCORES_HELD
from workbench.vram.saved import BROADCAST_KEYS
from workbench.vram.stored import StoredWeights
from workbench.vram.weights import WeightBytes

_WORTH_SAYING = 256 * 2**20
"""Effects smaller than this need no line."""
INT8_CAPABILITY = (7, 5)
FLASH_CAPABILITY = (8, 0)


def plan_warnings(
    plan: Plan,
    skeleton: Skeleton,
    weights: WeightBytes,
    cache: KvCacheBytes,
    found: Moments,
    holds_scores: bool = False,
    stored: Optional[StoredWeights] = None,
    unseen: int = 0,
) -> tuple[str, ...]:
    """One sentence for each; `unseen` are bytes of adapters that text alone does not train."""
    return (
        *_of_the_checkpoint(plan, stored),
        *_of_quantization(plan, skeleton, weights),
        *_of_length(plan, skeleton, cache),
        *_of_attention(plan, skeleton, holds_scores),
        *_of_training(plan, skeleton, unseen),
        *_of_knowledge(plan, skeleton, cache, found),
    )


def _of_the_checkpoint(plan: Plan, stored: Optional[StoredWeights]) -> list[str]:
    if stored is None:
        return []
    what = "The checkpoint" if stored.from_header else "The published checkpoint"
    found = [f"{what} is quantized ({stored.method}, {format_bytes(stored.bytes)}): {stored.note}."]
    if stored.stays_packed and plan.quant != "none":
        found.append(f"quant {plan.quant} has no effect on it.")
    if stored.stays_packed and plan.job == "full":
        found.append("Its packed weights cannot be trained: choose adapters, or the unquantized checkpoint.")
    return found


def _of_quantization(plan: Plan, skeleton: Skeleton, weights: WeightBytes) -> list[str]:
    found = []
    if weights.unquantized_experts:
        found.append(
            f"The fused experts ({format_bytes(weights.unquantized_experts)}) are not quantized by bitsandbytes: "
            f'"{plan.quant}" means {weights.total / 1e9:.1f} GB of weights.'
        )
    if plan.quant != "none" and not weights.quantized_parameters:
        found.append(f"bitsandbytes converts no layer of {skeleton.architecture}: it loads unquantized.")
    if weights.prepared > _WORTH_SAYING:
        found.append(
            f"peft's k-bit preparation turns embeddings, head and norms to float32: "
            f"{format_bytes(weights.prepared)} more. Leaving it out (kbit_prepare off) saves that."
        )
    return found


def _of_length(plan: Plan, skeleton: Skeleton, cache: KvCacheBytes) -> list[str]:
    found = []
    context = reading.context_length(reading.text_config(skeleton.config))
    tokens = plan.sequence_length + (0 if plan.trains else plan.new_tokens)
    if context and tokens > context and describe(skeleton).position == "learned":
        found.append(
            f"{tokens:,} tokens are beyond the {context:,} positions that the model has learned: it cannot run."
        )
    elif context and tokens > context:
        found.append(
            f"{tokens:,} tokens are beyond the model's context of {context:,}: "
            "it needs RoPE scaling or a longer-context variant, and quality is not assured."
        )
    if not plan.trains and cache.after_prefill - cache.at_end > _WORTH_SAYING:
        found.append(
            f"Sliding layers keep the whole prompt until the first new token: {format_bytes(cache.after_prefill)} of "
            f"KV cache after prefill, {format_bytes(cache.at_end)} later."
        )
    return found


def _of_attention(plan: Plan, skeleton: Skeleton, holds_scores: bool) -> list[str]:
    if skeleton.model_type in EAGER_ONLY:
        changes = "" if plan.attention == "eager" else f": {plan.attention} changes nothing"
        return [f"The code of {skeleton.model_type} knows eager attention only, which holds all scores{changes}."]
    if not holds_scores or plan.attention != "sdpa":
        return []
    unfused = f"has no fused kernel in torch to 2.13: {SCORES_HELD}."
    if skeleton.model_type in BROADCAST_KEYS:
        return [f"sdpa with one key head for all queries, as {skeleton.model_type} calls it, {unfused} Choose flash."]
    if plan.prepares_kbit and plan.dtype != "float32":
        return [
            "sdpa with fewer key than query heads in float32, which k-bit preparation makes the stream, "
            f"{unfused} Choose flash, or leave k-bit preparation out."
        ]
    return [f"sdpa with fewer key than query heads in float32 {unfused} Choose 16 bit."]


def _of_training(plan: Plan, skeleton: Skeleton, unseen: int) -> list[str]:
    found = []
    if plan.job == "full" and plan.dtype != "float32" and plan.optimizer in ("adamw", "sgd"):
        found.append(
            f"Pure {plan.dtype} training keeps weights and optimizer state in 16 bit: small updates are rounded away. "
            "With float32 master weights it takes 16 bytes a parameter."
        )
    if plan.job == "full" and plan.dtype == "float16":
        found.append("Pure float16 training overflows easily, and gradient scaling needs float32 weights.")
    if unseen > _WORTH_SAYING // 16:
        found.append(
            f"{format_bytes(unseen)} of the adapters are in the vision or audio tower: trained on text alone they get "
            "no gradient and no optimizer state, which are counted here."
        )
    if plan.trains and skeleton.config.get("is_encoder_decoder"):
        found.append("Training of an encoder-decoder: decoder lengths are taken to be those of the encoder.")
    return found


def _of_knowledge(plan: Plan, skeleton: Skeleton, cache: KvCacheBytes, found: Moments) -> list[str]:
    notes = []
    if cache.uncovered_kinds:
        notes.append(f"The state of {', '.join(cache.uncovered_kinds)} layers is not counted.")
    if plan.trains and found.known != "table":
        notes.append(
            f"Activations of {skeleton.model_type} with these options are by rule: run the simulation for exact ones."
        )
    if plan.parallel != "none":
        notes.append(f"What each GPU holds under {plan.parallel} follows documented rules that were not measured here.")
    return notes


def gpu_notes(plan: Plan, gpu: Gpu) -> tuple[str, ...]:
    """What `gpu` cannot do of `plan`, or does slowly."""
    notes = []
    capability = _capability(gpu)
    if plan.dtype == "bfloat16" and gpu.bf16 is False:
        notes.append("No bf16 in hardware: choose float16.")
    if capability is None:
        if gpu.compute_capability and plan.optimizer.startswith("paged") and plan.trains:
            notes.append("Paged optimizers need CUDA's unified memory.")
        return tuple(notes)
    if plan.quant == "int8" and capability < INT8_CAPABILITY:
        notes.append("No int8 tensor cores (compute capability 7.5): LLM.int8() is slow or refused.")
    if plan.quant in FOUR_BIT and capability < (6, 0):
        notes.append("bitsandbytes' 4-bit kernels need compute capability 6.0.")
    if plan.attention == "flash" and capability < FLASH_CAPABILITY:
        notes.append("FlashAttention needs compute capability 8.0: torch takes the memory-efficient kernel.")
    return tuple(notes)


def _capability(gpu: Gpu) -> Optional[tuple[int, int]]:
    major, dot, minor = (gpu.compute_capability or "").partition(".")
    return (int(major), int(minor)) if dot and major.isdigit() and minor.isdigit() else None
