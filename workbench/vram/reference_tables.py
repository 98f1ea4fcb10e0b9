"""Well-known teaching tables beside the right numbers, and why the two differ. Stdlib only.

The rules of thumb are those that books, courses and model cards repeat; the right numbers come from the estimator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workbench.architecture.skeleton import Skeleton
from workbench.job import SILENT, Job
from workbench.vram.estimate import Estimator
from workbench.vram.plan import Plan, changed, plan_to_dict
from workbench.vram.shares import CATEGORIES

GPT3 = {
    **{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 50257, "n_positions": 2048},
    **{"n_embd": 12288, "n_layer": 96, "n_head": 96},
}


@dataclass(frozen=True)
class Rule:
    """One line of a teaching table."""

    title: str
    model: str
    """A catalogue name; or ``gpt3``, built here."""
    thumb: str
    """The rule as it is taught."""
    thumb_bytes: int
    plan: Plan
    why: str
    """Why the right number is another."""


@dataclass(frozen=True)
class Comparison:
    """A rule of thumb beside the right number."""

    title: str
    model: str
    thumb: str
    thumb_bytes: int
    right_bytes: int
    estimate: dict[str, int]
    plan: dict[str, Any]
    ratio: float
    """The right number over the rule's."""
    why: str


_SHORT = Plan(sequence_length=512, gradient_checkpointing=True)
_LONG = changed(_SHORT, sequence_length=2048)
_QLORA = {"job": "qlora", "quant": "nf4", "double_quant": True}

RULES = (
    Rule(
        "7B, full fine-tuning",
        "llama-2-7b",
        "12 bytes a parameter: 7 x 12 = 84 GB",
        84 * 10**9,
        changed(_LONG, job="full"),
        "12 bytes means 16-bit weights and gradients with two float32 moments. torch's AdamW on a bf16 model keeps its "
        "moments in bf16: 8 bytes. With float32 master weights it is 16 bytes, 108 GB before activations. The table "
        "names neither recipe nor sequence length.",
    ),
    Rule(
        "7B, LoRA",
        "llama-2-7b",
        "weights 14 GB + 1 GB adapters + 2 GB activations = 17 GB",
        17 * 10**9,
        changed(_LONG, job="lora"),
        "The 2 GB of activations hold with gradient checkpointing only.",
    ),
    Rule(
        "7B, LoRA without checkpointing",
        "llama-2-7b",
        "weights 14 GB + 1 GB adapters + 2 GB activations = 17 GB",
        17 * 10**9,
        changed(_LONG, job="lora", gradient_checkpointing=False),
        "Without checkpointing 2,048 tokens keep many GB of activations: float32 adapters save float32 copies of "
        "their inputs too.",
    ),
    Rule(
        "7B, QLoRA",
        "llama-2-7b",
        "weights 3.5 GB + adapters and activations = 7 GB",
        7 * 10**9,
        changed(_LONG, **_QLORA),
        "About right for a vocabulary of 32,000: NF4 weights are 3.9 GB, 4.4 after k-bit preparation, as embeddings, "
        "head and norms stay in 16 bit or become float32.",
    ),
    Rule(
        "Llama-3-8B, QLoRA on a T4, 512 tokens",
        "meta-llama-3-8b",
        "5 + 0.1 + 0.3 + 4 = 9.4 GB: fits a 15 GB T4",
        9_400_000_000,
        changed(_SHORT, dtype="float16", attention="efficient", **_QLORA),
        "Right by luck at this length: the weights alone are 5.7 GB, 7.8 after k-bit preparation.",
    ),
    Rule(
        "Llama-3-8B, QLoRA on a T4, 2,048 tokens",
        "meta-llama-3-8b",
        "5 + 0.1 + 0.3 + 4 = 9.4 GB: fits a 15 GB T4",
        9_400_000_000,
        changed(_LONG, dtype="float16", attention="efficient", **_QLORA),
        "A vocabulary of 128,256 makes the loss the peak: logits, their float32 copy, log-softmax and gradient take "
        "about 14 bytes for each token and word.",
    ),
    Rule(
        "70B, QLoRA",
        "llama-3.1-70b",
        "70 / 2 + 5 = 40 GB",
        40 * 10**9,
        changed(_SHORT, **_QLORA),
        "40 GB is the weights alone: 39.5 GB in NF4 with double quantization, 43.7 after k-bit preparation.",
    ),
    Rule(
        "Mixtral-8x7B in 4 bit",
        "mixtral-8x7b-v0.1",
        "46.7 / 2 = 23 GB",
        23_350_000_000,
        Plan(quant="nf4", double_quant=True, sequence_length=512, new_tokens=256),
        "Current transformers keeps the experts in fused tensors that bitsandbytes does not quantize: nearly all of "
        "the model stays in 16 bit.",
    ),
    Rule(
        "GPT-3, float16 inference",
        "gpt3",
        "175 x 2 = 325 GiB of weights + 24.6 of KV cache + 32.5 (10 %) of activations",
        round(382.1 * 2**30),
        Plan(dtype="float16", sequence_length=2047, new_tokens=1),
        "The weights are right. The KV cache is 4.7 MB a token: 9 GiB for one full context, and 24.6 stands for no "
        "stated batch. The 10 % are no activations: one prompt needs a few GiB for a moment.",
    ),
)


def reference_tables(skeleton_of: Callable[[str], Skeleton], job: Job = SILENT) -> tuple[Comparison, ...]:
    """Every rule beside the right number.

    Args:
        skeleton_of: the skeleton of a catalogue name, or of ``gpt3`` (config `GPT3`).
        job: reports the lines done.
    """
    estimators: dict[str, Estimator] = {}
    found = []
    for done, rule in enumerate(RULES):
        job.check()
        job.progress("tables", done, len(RULES), "rows", rule.title)
        if rule.model not in estimators:
            estimators[rule.model] = Estimator(skeleton_of(rule.model))
        budget = estimators[rule.model].estimate(rule.plan)
        found.append(
            Comparison(
                title=rule.title,
                model=rule.model,
                thumb=rule.thumb,
                thumb_bytes=rule.thumb_bytes,
                right_bytes=budget.total,
                estimate={name: getattr(budget, name) for name in (*CATEGORIES, "total")},
                plan=plan_to_dict(rule.plan),
                ratio=budget.total / rule.thumb_bytes,
                why=rule.why,
            )
        )
    return tuple(found)


WHY_TABLES_MISLEAD = (
    "GB (10^9) and GiB (2^30) mixed: 7 % apart.",
    "Embeddings and LM head stay in 16 bit under 4-bit quantization, and become float32 under k-bit preparation.",
    "Block constants of the quantization are left out.",
    "The loss of a large vocabulary is left out.",
    "The dtype of adapters and of the optimizer's state is not stated.",
    "Gradient checkpointing, batch and sequence length are not stated.",
    "Fused experts of mixtures are not quantized.",
    "The CUDA context and the allocator's reserve (0.2 to 2 GB) are left out.",
)
