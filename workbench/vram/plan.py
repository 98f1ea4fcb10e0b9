"""A plan: what is to be run, in which precision, on how much text. Stdlib only."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.errors import WorkbenchError

JOBS = ("inference", "full", "lora", "qlora")
QUANTS = ("none", "nf4", "fp4", "int8")
DTYPES = ("bfloat16", "float16", "float32")
MAX_TOKENS = 10**9


@dataclass(frozen=True)
class Plan:
    """One job on one model."""

    job: str = "inference"
    """``inference``; the training jobs ``full``, ``lora`` and ``qlora`` are not estimated yet."""
    quant: str = "none"
    """bitsandbytes' quantization on load: ``none``, ``nf4``, ``fp4`` or ``int8``."""
    double_quant: bool = False
    """Whether 4-bit block constants are quantized too."""
    dtype: str = "bfloat16"
    """Load dtype of everything that is not quantized, and of the computation."""
    batch: int = 1
    """Sequences at once."""
    sequence_length: int = 2048
    """Prompt tokens of each sequence; of an encoder-decoder, those the encoder reads."""
    new_tokens: int = 256
    """Tokens generated for each sequence."""
    kv_dtype: str = "auto"
    """dtype of the KV cache; ``auto`` is `dtype`, as transformers does."""


def check_plan(plan: Plan) -> None:
    """Refuse a plan that means nothing.

    Raises:
        WorkbenchError: ``bad-plan`` naming field, value and what is possible.
    """
    for field, choices in (
        ("job", JOBS),
        ("quant", QUANTS),
        ("dtype", DTYPES),
        ("kv_dtype", ("auto", *DTYPES)),
    ):
        value = getattr(plan, field)
        if value not in choices:
            raise WorkbenchError("bad-plan", f"{field} is {value!r}.", f"Choose one of {', '.join(choices)}.")
    for field, least in (("batch", 1), ("sequence_length", 1), ("new_tokens", 0)):
        value = getattr(plan, field)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_TOKENS:
            raise WorkbenchError(
                "bad-plan", f"{field} is {value!r}.", f"Give a whole number from {least} to {MAX_TOKENS:,}."
            )
    if plan.double_quant and plan.quant not in ("nf4", "fp4"):
        raise WorkbenchError(
            "bad-plan",
            f"Double quantization does not go with quant {plan.quant}.",
            "It compresses the block constants of nf4 and fp4.",
        )
    if plan.job != "inference":
        raise WorkbenchError(
            "unsupported-plan",
            f"The job {plan.job} is not estimated yet.",
            "Estimate inference, which the weights of every job start from.",
        )
