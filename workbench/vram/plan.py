"""A plan: what is to be run, in which precision, on how much text, on how many GPUs. Stdlib only."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from workbench.errors import WorkbenchError

JOBS = ("inference", "full", "lora", "qlora")
QUANTS = ("none", "nf4", "fp4", "int8")
FOUR_BIT = ("nf4", "fp4")
DTYPES = ("bfloat16", "float16", "float32")
QUANTIZED_KV_DTYPES = ("fp8", "int8", "int4", "int2")
KV_DTYPES = ("auto", *DTYPES, *QUANTIZED_KV_DTYPES)
CACHES = ("dynamic", "static")
OPTIMIZERS = ("adamw", "adamw-8bit", "paged-adamw-8bit", "adafactor", "sgd")
ATTENTIONS = ("sdpa", "flash", "efficient", "eager")
PARALLELS = ("none", "ddp", "fsdp", "zero1", "zero2", "zero3", "tp", "pp")
SHARDS_WEIGHTS = ("fsdp", "zero3")
SPLITS_MODEL = ("tp", "pp")
OFFLOADS = ("none", "optimizer")
ALL_LINEAR = "all-linear"
MAX_TOKENS = 10**9
MAX_GPUS = 65_536
MAX_RANK = 65_536


@dataclass(frozen=True)
class Lora:
    """The adapters of a ``lora`` or ``qlora`` job, as peft's ``LoraConfig`` takes them."""

    r: int = 16
    """Rank."""
    alpha: int = 32
    """Scale: outputs are multiplied by alpha / r, or alpha / sqrt(r) under `rslora`. Takes no memory."""
    targets: tuple[str, ...] = (ALL_LINEAR,)
    """Names of modules as peft matches them, or ``all-linear`` alone."""
    dtype: str = "float32"
    """dtype of the adapters; peft makes them float32 by itself (``autocast_adapter_dtype``)."""
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False
    modules_to_save: tuple[str, ...] = ()
    """Modules trained whole beside the adapters, such as ``lm_head``."""


@dataclass(frozen=True)
class Plan:
    """One job on one model. What does not concern the job (LoRA in inference, new tokens in training) is ignored."""

    job: str = "inference"
    """``inference``, or training: ``full``, ``lora``, ``qlora`` (LoRA on quantized weights)."""
    quant: str = "none"
    """bitsandbytes' quantization on load: ``none``, ``nf4``, ``fp4`` or ``int8``."""
    double_quant: bool = False
    """Whether 4-bit block constants are quantized too."""
    dtype: str = "bfloat16"
    """Load dtype of everything that is not quantized, and of the computation."""
    batch: int = 1
    """Sequences at once on one GPU."""
    sequence_length: int = 2048
    """Prompt tokens of each sequence, or its training tokens; of an encoder-decoder, those the encoder reads."""
    new_tokens: int = 256
    """Tokens generated for each sequence (inference)."""
    kv_dtype: str = "auto"
    """dtype of the KV cache; ``auto`` is `dtype`; ``fp8``, ``int8``, ``int4``, ``int2`` are quantized caches."""
    cache: str = "dynamic"
    """``dynamic`` grows with the text, ``static`` is allocated whole at first use."""
    optimizer: str = "adamw"
    """``adamw`` is torch's, fused, as transformers' Trainer has it; the 8-bit ones are bitsandbytes'."""
    fused: bool = True
    """Whether torch's AdamW and SGD run fused; else foreach, which makes one more list of temporaries."""
    gradient_checkpointing: bool = False
    """Keep each layer's input only and compute the layer again in the backward pass."""
    attention: str = "sdpa"
    """``sdpa`` lets torch choose, ``flash`` and ``efficient`` name its kernel, ``eager`` holds all scores."""
    lora: Lora = field(default_factory=Lora)
    kbit_prepare: bool = True
    """Whether peft's ``prepare_model_for_kbit_training`` runs (qlora): all that is not quantized to float32."""
    keep_outputs: bool = False
    """Whether the loop keeps the output object with the logits through backward; Trainer drops it."""
    padded: bool = False
    """Whether batches hold padding: the mask rules out the flash kernel and repeats keys and values."""
    chunked_loss: bool = False
    """Whether the loss is computed on pieces of the sequence, never holding all logits at once."""
    accumulation: int = 1
    """Batches whose gradients are summed before a step of the optimizer."""
    offload: str = "none"
    """``optimizer`` keeps the optimizer's state in CPU memory."""
    gpus: int = 1
    """GPUs that share the job."""
    parallel: str = "none"
    """How they share it: ``ddp``, ``fsdp``, ``zero1``, ``zero2``, ``zero3``, ``tp`` or ``pp``."""

    @property
    def trains(self) -> bool:
        """Whether there is a backward pass."""
        return self.job != "inference"

    @property
    def has_adapters(self) -> bool:
        """Whether LoRA adapters are trained."""
        return self.job in ("lora", "qlora")

    @property
    def prepares_kbit(self) -> bool:
        """Whether everything that is not quantized becomes float32 before the adapters are added."""
        return self.job == "qlora" and self.kbit_prepare


def plan_from_dict(given: dict[str, Any]) -> Plan:
    """A plan from its JSON or TOML form; fields left out have their defaults.

    ``auto`` as dtype is what the model loader chooses on a GPU that has bf16.

    Raises:
        WorkbenchError: ``bad-plan`` for a field that does not exist or a value of the wrong kind.
    """
    values = _known_fields(Plan, given, "A plan")
    if values.get("dtype") == "auto":
        values["dtype"] = "float16" if values.get("quant") == "int8" else "bfloat16"
    lora = values.get("lora", {})
    if isinstance(lora, dict):
        inner = _known_fields(Lora, lora, "The lora section of a plan")
        for key in ("targets", "modules_to_save"):
            if key in inner:
                inner[key] = _names(key, inner[key])
        values["lora"] = Lora(**inner)
    return Plan(**values)


def plan_to_dict(plan: Plan) -> dict[str, Any]:
    """The JSON form, which `plan_from_dict` reads back."""
    values = asdict(plan)
    for key in ("targets", "modules_to_save"):
        values["lora"][key] = list(values["lora"][key])
    return values


def changed(plan: Plan, **changes: Any) -> Plan:
    """`plan` with other values; ``lora_…`` reaches into the adapters, such as ``lora_r=8``."""
    inner = {key[len("lora_") :]: value for key, value in changes.items() if key.startswith("lora_")}
    outer = {key: value for key, value in changes.items() if not key.startswith("lora_")}
    if inner:
        outer["lora"] = replace(plan.lora, **inner)
    return replace(plan, **outer)


def check_plan(plan: Plan) -> None:
    """Refuse a plan that means nothing or contradicts itself.

    Raises:
        WorkbenchError: ``bad-plan`` naming field, value and what is possible.
    """
    _check_choices(plan)
    _check_numbers(plan)
    _check_switches(plan)
    if plan.has_adapters:
        _check_lora(plan.lora)
    _check_quantization(plan)
    _check_attention(plan)
    _check_parallel(plan)


def _check_choices(plan: Plan) -> None:
    for name, choices in (
        ("job", JOBS),
        ("quant", QUANTS),
        ("dtype", DTYPES),
        ("kv_dtype", KV_DTYPES),
        ("cache", CACHES),
        ("optimizer", OPTIMIZERS),
        ("attention", ATTENTIONS),
        ("offload", OFFLOADS),
        ("parallel", PARALLELS),
    ):
        value = getattr(plan, name)
        if value not in choices:
            raise _refused(f"{name} is {value!r:.60}.", f"Choose one of {', '.join(choices)}.")


def _check_numbers(plan: Plan) -> None:
    for name, least, most in (
        ("batch", 1, MAX_TOKENS),
        ("sequence_length", 1, MAX_TOKENS),
        ("new_tokens", 0, MAX_TOKENS),
        ("accumulation", 1, MAX_TOKENS),
        ("gpus", 1, MAX_GPUS),
    ):
        _check_whole(name, getattr(plan, name), least, most)


def _check_whole(name: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _refused(f"{name} is {value!r:.60}.", f"Give a whole number from {least} to {most:,}.")


def _check_switches(plan: Plan) -> None:
    for item in fields(Plan):
        if item.type == "bool" and not isinstance(getattr(plan, item.name), bool):
            raise _refused(f"{item.name} is {getattr(plan, item.name)!r:.60}.", "It is either true or false.")
    if not isinstance(plan.lora, Lora):
        raise _refused(f"lora is {plan.lora!r:.60}.", "Give r, targets and the rest as a section.")


def _check_lora(lora: Lora) -> None:
    _check_whole("lora r", lora.r, 1, MAX_RANK)
    _check_whole("lora alpha", lora.alpha, 1, MAX_TOKENS)
    if lora.dtype not in DTYPES:
        raise _refused(f"lora dtype is {lora.dtype!r:.60}.", f"Choose one of {', '.join(DTYPES)}.")
    number = isinstance(lora.dropout, (int, float)) and not isinstance(lora.dropout, bool)
    if not number or not math.isfinite(lora.dropout) or not 0 <= lora.dropout < 1:
        raise _refused(f"lora dropout is {lora.dropout!r:.60}.", "Give a number from 0 to below 1.")
    if not lora.targets:
        raise _refused("LoRA has no targets.", f"Name modules, such as q_proj and v_proj, or {ALL_LINEAR}.")
    if ALL_LINEAR in lora.targets and len(lora.targets) > 1:
        raise _refused(f"LoRA targets name {ALL_LINEAR} and others.", f"{ALL_LINEAR} stands alone.")


def _check_quantization(plan: Plan) -> None:
    if plan.double_quant and plan.quant not in FOUR_BIT:
        raise _refused(
            f"Double quantization does not go with quant {plan.quant}.",
            "It compresses the block constants of nf4 and fp4.",
        )
    if plan.job == "qlora" and plan.quant == "none":
        raise _refused("qlora with quant none.", "It trains adapters on quantized weights: choose nf4, or job lora.")
    if plan.job == "lora" and plan.quant != "none":
        raise _refused(f"lora with quant {plan.quant}.", "Adapters on quantized weights are the job qlora.")
    if plan.job == "full" and plan.quant != "none":
        raise _refused(
            f"full with quant {plan.quant}.", "Quantized weights cannot be trained: choose quant none, or job qlora."
        )


def _check_attention(plan: Plan) -> None:
    if plan.attention == "flash" and plan.dtype == "float32":
        raise _refused("flash attention in float32.", "Its kernels are for 16 bit: choose sdpa or a 16-bit dtype.")
    if plan.attention == "flash" and plan.padded:
        raise _refused(
            "flash attention on padded batches.", "torch's flash kernel takes no mask: choose sdpa, or no padding."
        )
    if not plan.trains and plan.cache == "static" and plan.kv_dtype in QUANTIZED_KV_DTYPES:
        raise _refused(
            f"A static cache in {plan.kv_dtype}.", "A quantized cache grows with the text: choose cache dynamic."
        )


def _check_parallel(plan: Plan) -> None:
    if plan.gpus > 1 and plan.parallel == "none":
        raise _refused(f"{plan.gpus} GPUs without parallel.", f"Choose one of {', '.join(PARALLELS[1:])}.")
    if plan.parallel != "none" and plan.gpus == 1:
        raise _refused(f"{plan.parallel} on one GPU.", "Give 2 GPUs or more, or parallel none.")
    if not plan.trains and plan.parallel in ("zero1", "zero2"):
        raise _refused(
            f"{plan.parallel} in inference.",
            "There is no optimizer state or gradient to shard: choose tp, pp, fsdp or zero3.",
        )
    if plan.quant == "int8" and plan.parallel in SHARDS_WEIGHTS:
        raise _refused(f"int8 weights under {plan.parallel}.", "Only 4-bit weights can be sharded: choose nf4 or ddp.")
    if plan.offload == "optimizer" and plan.trains and plan.optimizer not in ("adamw", "adafactor", "sgd"):
        raise _refused(
            f"{plan.optimizer} offloaded to the CPU.", "bitsandbytes steps on the GPU: choose adamw, or no offload."
        )


def _known_fields(kind: Any, given: dict[str, Any], what: str) -> dict[str, Any]:
    known = {item.name for item in fields(kind)}
    unknown = sorted(str(key) for key in set(given) - known)
    if unknown:
        raise _refused(f"{what} has no field {unknown[0]!r:.60}.", f"It has {', '.join(sorted(known))}.")
    return dict(given)


def _names(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) and name for name in value):
        raise _refused(f"lora {key} is {value!r:.60}.", "Give a list of names.")
    return tuple(value)


def _refused(message: str, remedy: str) -> WorkbenchError:
    return WorkbenchError("bad-plan", message, remedy)
