"""The plan as it is edited: which fields matter for a job, what they step through, what follows when one changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from workbench.errors import WorkbenchError
from workbench.models.gpus import parse_gpu
from workbench.ui.widgets.fields import Field, Value
from workbench.vram.plan import (
    ALL_LINEAR,
    ATTENTIONS,
    CACHES,
    DTYPES,
    FOUR_BIT,
    JOBS,
    KV_DTYPES,
    MAX_GPUS,
    MAX_RANK,
    OPTIMIZERS,
    PARALLELS,
    QUANTS,
    Plan,
    changed,
    check_plan,
    plan_from_dict,
    plan_to_dict,
)

THIS_BOX = "this box"
MOST_TOKENS = 10_000_000
DATASETS = (0, 10**5, 10**6, 10**7, 10**8, 10**9)
SIZES = (1, 2, 4, 8, 16, 32, 64)
LENGTHS = (256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 16384, 32768, 65536, 131072)
NEW_TOKENS = (0, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
DROPOUTS = (0.0, 0.05, 0.1, 0.2)
USUAL_GPUS = (
    *("T4", "RTX 3060 12GB", "A10G", "L4", "RTX 3090", "RTX 4090", "RTX 5090", "A100 SXM/PCIe 40GB", "L40S"),
    *("A100 SXM 80GB", "H100 SXM 80GB", "H200", "B200", "MI300X"),
)
KV_WORDS = ("as dtype", *KV_DTYPES[1:])
TARGETS = (ALL_LINEAR, "q_proj, v_proj", "q_proj, k_proj, v_proj, o_proj")
WHOLE_MODULES = ("none", "lm_head", "embed_tokens, lm_head")
LISTS = ("lora_targets", "lora_modules_to_save")
"""Fields that hold names, typed with commas."""
DEFAULT_PARALLEL = {"inference": "tp", "full": "fsdp", "lora": "ddp", "qlora": "ddp"}


@dataclass(frozen=True)
class Draft:
    """Everything that is edited."""

    plan: Plan = field(default_factory=Plan)
    gpu: str = THIS_BOX
    """Name or size of what it is held against."""
    dataset_tokens: int = 0
    """Tokens of the data set once through; 0 for none."""
    epochs: float = 1.0


@dataclass(frozen=True)
class Item:
    """A field, and the plans for which it means anything."""

    field: Field
    matters: Callable[[Plan], bool] = lambda plan: True


def _number(id: str, label: str, choices: tuple[int, ...], help: str, most: int = MOST_TOKENS, least: int = 1) -> Field:
    return Field(id, label, choices, help, typed=True, most=most, least=least)


def _length(id: str, label: str, choices: tuple[int, ...], help: str, least: int = 1) -> Field:
    """Lengths are powers of two: 128k of them is 131,072, as a model's context is written."""
    return Field(id, label, choices, help, typed=True, most=MOST_TOKENS, least=least, kilo=1024)


def _trains(plan: Plan) -> bool:
    return plan.trains


def _adapts(plan: Plan) -> bool:
    return plan.has_adapters


def _answers(plan: Plan) -> bool:
    return not plan.trains


ITEMS = (
    Item(Field("job", "job", JOBS, "lora trains adapters, qlora on quantized weights.")),
    Item(
        Field("quant", "quantize", QUANTS, "What bitsandbytes turns the linear layers into on load."),
        lambda plan: plan.job in ("inference", "qlora"),
    ),
    Item(
        Field("double_quant", "double quant", (False, True), "Quantizes the constants of the 4-bit blocks too."),
        lambda plan: plan.quant in FOUR_BIT,
    ),
    Item(
        Field("kbit_prepare", "k-bit prep", (True, False), "peft turns embeddings, head and norms to float32."),
        lambda plan: plan.job == "qlora",
    ),
    Item(Field("dtype", "dtype", DTYPES, "Of everything that is not quantized, and of the computation.")),
    Item(_number("batch", "batch", SIZES, "Sequences at once on one GPU.", 65_536)),
    Item(_number("accumulation", "accumulation", SIZES, "Batches summed before each step.", 65_536), _trains),
    Item(_length("sequence_length", "sequence", LENGTHS, "Tokens of each prompt, or of each training text.")),
    Item(_length("new_tokens", "new tokens", NEW_TOKENS, "Generated after each prompt.", least=0), _answers),
    Item(
        Field("kv_dtype", "KV dtype", KV_DTYPES, "Of the KV cache; below 16 bit it is quantized.", KV_WORDS),
        _answers,
    ),
    Item(Field("cache", "KV cache", CACHES, "dynamic grows with the text; static is allocated whole."), _answers),
    Item(
        Field("gradient_checkpointing", "checkpoint", (False, True), "Computes layers again in backward."),
        _trains,
    ),
    Item(Field("attention", "attention", ATTENTIONS, "sdpa lets torch choose; eager holds all the scores.")),
    Item(Field("optimizer", "optimizer", OPTIMIZERS, "adamw is torch's; the 8-bit ones are bitsandbytes'."), _trains),
    Item(
        Field("fused", "fused step", (True, False), "Off: foreach, with one more list of temporaries."),
        lambda plan: plan.trains and plan.optimizer in ("adamw", "sgd"),
    ),
    Item(
        Field("offload", "offload", ("none", "optimizer"), "The optimizer's state in CPU memory."),
        _trains,
    ),
    Item(_number("lora_r", "LoRA rank", RANKS, "Width of the adapters' two matrices.", MAX_RANK), _adapts),
    Item(
        Field("lora_targets", "LoRA targets", TARGETS, "Modules that get an adapter; names with commas.", typed=True),
        _adapts,
    ),
    Item(Field("lora_dtype", "LoRA dtype", DTYPES, "peft makes adapters float32 by itself."), _adapts),
    Item(_number("lora_alpha", "LoRA alpha", RANKS, "Scale of the adapters: alpha / rank. Takes no memory."), _adapts),
    Item(
        Field("lora_dropout", "LoRA dropout", DROPOUTS, "Of what the adapters read.", typed=True, least=0, most=0.9,
              fractions=True),
        _adapts,
    ),
    Item(
        Field("lora_modules_to_save", "train whole", WHOLE_MODULES, "Modules trained beside the adapters.", typed=True),
        _adapts,
    ),
    Item(Field("lora_rslora", "rsLoRA", (False, True), "Scale by alpha / √rank. Takes no memory."), _adapts),
    Item(Field("lora_dora", "DoRA", (False, True), "Trains a magnitude for each output too."), _adapts),
    Item(Field("padded", "padding", (False, True), "A mask rules out the flash kernel."), _trains),
    Item(Field("chunked_loss", "chunked loss", (False, True), "Never all logits at once (TRL, Liger)."), _trains),
    Item(Field("keep_outputs", "keep outputs", (False, True), "The loop holds the logits through backward."), _trains),
    Item(Field("gpu", "GPU", (THIS_BOX, *USUAL_GPUS), "By name or by its memory; t lists all.", typed=True)),
    Item(_number("gpus", "number", (1, 2, 4, 8, 16, 32, 64), "GPUs that share the job.", MAX_GPUS)),
    Item(
        Field("parallel", "parallel", PARALLELS[1:], "ddp copies, fsdp and zero shard, tp and pp split the model."),
        lambda plan: plan.gpus > 1,
    ),
    Item(
        _number("dataset_tokens", "data set", DATASETS, "Its tokens once through, for time and money.", 10**15, 0),
        _trains,
    ),
    Item(
        Field("epochs", "epochs", (1, 2, 3, 5, 10), "Times through the data set.", typed=True, most=10_000, least=0.01,
              fractions=True),
        _trains,
    ),
)  # fmt: skip
LABEL_OF = {item.field.id: item.field.label for item in ITEMS}


def fields_of(draft: Draft) -> list[Field]:
    """The fields that matter for the plan as it stands, with the choices that its job has."""
    found = []
    for item in ITEMS:
        if item.matters(draft.plan):
            choices = item.field.choices
            if item.field.id == "quant" and draft.plan.job == "qlora":
                choices = QUANTS[1:]
            if item.field.id == "parallel" and not draft.plan.trains:
                choices = ("tp", "pp", "ddp", "fsdp", "zero3")
            found.append(replace(item.field, choices=choices))
    return found


def values_of(draft: Draft) -> dict[str, Value]:
    """Every field's value."""
    plan = draft.plan
    values: dict[str, Any] = {item.field.id: getattr(plan, item.field.id, None) for item in ITEMS}
    values |= {
        f"lora_{name}": getattr(plan.lora, name) for name in ("r", "alpha", "dropout", "dtype", "rslora", "dora")
    }
    values |= {key: ", ".join(getattr(plan.lora, key[len("lora_") :])) or "none" for key in LISTS}
    epochs = int(draft.epochs) if float(draft.epochs).is_integer() else draft.epochs
    return values | {"gpu": draft.gpu, "dataset_tokens": draft.dataset_tokens, "epochs": epochs}


def edited(draft: Draft, key: str, value: Value) -> Draft:
    """The draft with another value, and with whatever must follow from it.

    Raises:
        WorkbenchError: ``bad-plan``, ``unknown-gpu``, ``ambiguous-gpu`` or ``bad-size``, saying what is possible.
    """
    if key == "gpu":
        if value != THIS_BOX:
            parse_gpu(str(value))
        return replace(draft, gpu=str(value))
    if key == "dataset_tokens":
        return replace(draft, dataset_tokens=int(value))
    if key == "epochs":
        return replace(draft, epochs=float(value))
    if key in LISTS:
        names = tuple(name.strip() for name in str(value).split(",") if name.strip() and value != "none")
        plan = changed(draft.plan, **{key: names})
    else:
        plan = _followed(changed(draft.plan, **{key: value}), key)
    check_plan(plan)
    return replace(draft, plan=plan)


def _followed(plan: Plan, key: str) -> Plan:
    """Other fields that cannot stay as they are once `key` has changed."""
    if key == "job":
        if plan.job in ("full", "lora"):
            plan = changed(plan, quant="none", double_quant=False)
        elif plan.job == "qlora" and plan.quant == "none":
            plan = changed(plan, quant="nf4", double_quant=True)
        if plan.gpus > 1 and not plan.trains and plan.parallel in ("zero1", "zero2"):
            plan = changed(plan, parallel=DEFAULT_PARALLEL["inference"])
    if key == "quant" and plan.quant not in FOUR_BIT:
        plan = changed(plan, double_quant=False)
    if key == "gpus":
        if plan.gpus == 1:
            plan = changed(plan, parallel="none")
        elif plan.parallel == "none":
            plan = changed(plan, parallel=DEFAULT_PARALLEL[plan.job])
    return plan


def reason_of(error: WorkbenchError) -> str:
    """Why a value is refused, in one line."""
    return f"{error.message} {error.remedy}".strip()


def with_changes(plan: Plan, change: Mapping[str, Any]) -> Plan:
    """The plan with the change that a suggestion names."""
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in change.items()}
    return changed(plan, **values)


def notes_of(draft: Draft, sent_length: int, context: int | None) -> dict[str, str]:
    """A few words beside values: where the length comes from, how far the model's context reaches."""
    length, notes = draft.plan.sequence_length, {}
    if sent_length and length == sent_length:
        notes["sequence_length"] = "p95"
    if context:
        reach = f"{context // 1024}k" if context % 1024 == 0 else f"{context:,}"
        words = f"of {reach}" if length <= context else f"✖ beyond {reach}"
        notes["sequence_length"] = " ".join(filter(None, (notes.get("sequence_length"), words)))
    return notes


def in_words(draft: Draft) -> Iterator[str]:
    """The fields that matter, one a line, as text."""
    values = values_of(draft)
    for one in fields_of(draft):
        yield f"{one.label}: {one.show(values[one.id])}"


def draft_as_text(draft: Draft) -> str:
    """A draft as JSON, to be kept."""
    return json.dumps(
        {
            "plan": plan_to_dict(draft.plan),
            "gpu": draft.gpu,
            "dataset_tokens": draft.dataset_tokens,
            "epochs": draft.epochs,
        }
    )


def draft_from(text: str) -> Draft:
    """A draft that was kept; the defaults where it is none, or one of another version."""
    try:
        kept = json.loads(text)
        plan = plan_from_dict(kept["plan"])
        check_plan(plan)
        return Draft(plan, str(kept["gpu"]), int(kept["dataset_tokens"]), float(kept["epochs"]))
    except (ValueError, KeyError, TypeError, WorkbenchError):
        return Draft()
