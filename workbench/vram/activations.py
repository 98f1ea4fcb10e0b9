"""What is live beside the model when memory may peak: activations, logits, gradients so far. Stdlib only.

For the families in ``activations.json`` each moment is a sum of products of sizes, read off the simulation by
``docs/make_activation_tables.py``. For others a structural rule stands in, and the estimate says so.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

from workbench.architecture.skeleton import DTYPE_BYTES, Skeleton
from workbench.vram.dimensions import Dimensions, dimensions
from workbench.vram.plan import ALL_LINEAR, FOUR_BIT, Plan, changed
from workbench.vram.saved import Structure, stream_bytes

TABLE = Path(__file__).with_name("activations.json")
LOSS_CHUNK_TOKENS = 1024
"""Tokens whose logits exist at once under a chunked loss."""
_Values = dict[str, Any]
"""Fields of a plan with other values."""
PARTS = ("activations", "logits", "gradients")
EAGER_ONLY = ("bloom", "gptj", "gpt_neo", "gpt_oss", "mpt")
"""Families whose code knows no other attention (``_supports_sdpa`` of transformers 5.23)."""


@dataclass(frozen=True)
class Moment:
    """One candidate for the peak."""

    phase: str
    """``forward``, ``backward``, ``optimizer``, ``prefill`` or ``decode``."""
    activations: int
    logits: int
    gradients: int = 0


@dataclass(frozen=True)
class Moments:
    """All candidates, and how they are known."""

    moments: tuple[Moment, ...]
    known: str
    """``table`` (generated from the simulation, for these very layers) or ``rule`` (by structure)."""
    why: str


def moments(skeleton: Skeleton, plan: Plan, structure: Optional[Structure] = None) -> Moments:
    """Candidates for the peak of `plan` without its optimizer step.

    Args:
        skeleton: the model.
        plan: what it runs.
        structure: of `skeleton`, where the caller keeps it.
    """
    sizes = dimensions(skeleton, plan)
    structure = structure or Structure(skeleton)
    if skeleton.model_type in EAGER_ONLY:
        plan = changed(plan, attention="eager")
    forms = _forms(skeleton, plan, sizes)
    known, why = "table", _table_reason(skeleton)
    more = more_working = 0
    if forms is None:
        known, why = "rule", _rule_reason(skeleton, plan)
        near = _nearest(skeleton, plan, sizes)
        if near is not None:
            forms, why = _forms(skeleton, near, sizes), _near_reason(skeleton, plan, near)
            if plan.trains:
                more = structure.saved(plan, sizes) - structure.saved(near, sizes)
                more_working = structure.working(plan, sizes) - structure.working(near, sizes)
                if structure.holds_scores(plan, sizes) or not structure.holds_scores(near, sizes):
                    # Only scores are certain to be what the form's largest moment holds.
                    more_working = max(0, more_working)
    if forms is None:
        found = (_training_by_rule if plan.trains else _inference_by_rule)(structure, plan, sizes)
        return Moments(_adjusted(found, plan, sizes), known, why)
    found = [
        _evaluate(phase, form, sizes, more, more_working, _more_gradients(skeleton, plan, form))
        for phase, several in forms.items()
        for form in several
    ]
    if not plan.trains:
        # Of decoding nothing but the cache is large: a rule is enough.
        found += [moment for moment in _inference_by_rule(structure, plan, sizes) if moment.phase == "decode"]
    return Moments(_adjusted(found, plan, sizes), known, why)


def mode(plan: Plan, every_head_has_keys: bool = False) -> str:
    """The key of a plan's forms in the table: everything that changes which tensors there are, but not their sizes.

    Args:
        plan: any plan.
        every_head_has_keys: multi-head attention; with fewer key/value heads other kernels run.
    """
    # In 16 bit torch chooses flash by itself; float32 is cast for it.
    attention = "sdpa" if plan.attention == "flash" and stream_bytes(plan) == 2 else plan.attention
    if attention == "eager" and plan.dtype == "float16" and not plan.prepares_kbit:
        # CUDA's softmax reads float16 as it is, and bfloat16 through a float32 copy.
        attention = "eager-fp16"
    parts = [plan.job, str(8 * DTYPE_BYTES[plan.dtype]), attention]
    if plan.quant != "none":
        parts.append("int8" if plan.quant == "int8" else "4-bit")
    if plan.has_adapters:
        parts += ["+".join(sorted(plan.lora.targets)), f"adapters{8 * DTYPE_BYTES[plan.lora.dtype]}"]
        parts += ["dora"] * plan.lora.dora + ["dropout"] * bool(plan.lora.dropout)
    parts += ["prepared"] * plan.prepares_kbit
    parts += ["padded"] * plan.padded
    if plan.trains:
        parts += ["checkpointed"] * plan.gradient_checkpointing
    parts += ["mha"] * every_head_has_keys
    return " ".join(parts)


@functools.lru_cache(maxsize=1)
def table() -> dict[str, Any]:
    """The generated table: versions, and forms by family and mode."""
    if not TABLE.exists():
        return {"versions": {}, "families": {}}
    found: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return found


def covers(skeleton: Skeleton, plan: Plan) -> bool:
    """Whether the table has forms for this family and kind of plan."""
    return _forms(skeleton, plan, dimensions(skeleton, plan)) is not None


def _forms(skeleton: Skeleton, plan: Plan, sizes: Dimensions) -> Optional[Mapping[str, Any]]:
    family = table()["families"].get(skeleton.model_type)
    if family is None or skeleton.architecture != family["architecture"]:
        return None
    number = family["modes"].get(mode(plan, sizes.values["q"] == sizes.values["k"]))
    return None if number is None else table()["forms"][number]


def _nearest(skeleton: Skeleton, plan: Plan, sizes: Dimensions) -> Optional[Plan]:
    """The plan most like `plan` that the family's table has; None if the family has none or nothing like it."""
    if skeleton.model_type not in table()["families"]:
        return None
    what_matters = changed(
        Plan(job=plan.job, quant=plan.quant, dtype=plan.dtype, lora=plan.lora, kbit_prepare=plan.kbit_prepare),
        attention=plan.attention,
        padded=plan.padded,
        gradient_checkpointing=plan.gradient_checkpointing,
        double_quant=plan.double_quant,
        lora_r=1,
    )
    every_head = sizes.values["q"] == sizes.values["k"]
    return _nearest_of(skeleton.model_type, skeleton.architecture, what_matters, every_head)


@functools.lru_cache(maxsize=4096)
def _nearest_of(family: str, architecture: str, plan: Plan, every_head: bool) -> Optional[Plan]:
    entry = table()["families"][family]
    if entry["architecture"] != architecture:
        return None
    ways = itertools.product(*map(enumerate, _alternatives(plan)))
    for way in sorted(ways, key=lambda way: sum(cost * place for cost, (place, _values) in zip(_COSTS, way))):
        other = plan
        for _place, values in way:
            other = changed(other, **values)
        if mode(other, every_head) in entry["modes"]:
            return other
    return None


_COSTS = (1, 3, 1, 1, 1)
"""How far it is from one alternative to the next, for each part: attention is what tells plans apart most."""


def _alternatives(plan: Plan) -> list[list[_Values]]:
    """For each part of a plan what may stand in for it, the nearest first."""
    attentions: list[_Values] = [{}, {"attention": "sdpa"}, {"attention": "efficient"}, {"attention": "eager"}]
    if not plan.trains:
        if plan.attention == "eager" or plan.dtype == "float32":
            return [[{}], [{}], [{}, {"padded": False}]]
        return [[{}, {"dtype": "bfloat16"}], attentions[:2], [{}, {"padded": False}]]
    if not plan.has_adapters:
        bases: list[_Values] = [{}, {"dtype": "bfloat16"}] if plan.dtype == "float16" else [{}]
        return [bases, attentions, [{}, {"padded": False}]]
    quantized: _Values = {"job": "qlora", "quant": "nf4", "double_quant": True, "dtype": "bfloat16"}
    if stream_bytes(plan) == 4:
        # A frozen weight keeps nothing of its input, in whatever form it is.
        bases = [{}, {**quantized, "kbit_prepare": True}]
    else:
        plain: _Values = {"job": "lora", "quant": "none", "double_quant": False, "dtype": "bfloat16"}
        bases = [{}, plain, {**quantized, "kbit_prepare": False}]
    targets: list[_Values] = [{}, *({"lora_targets": names} for names in _TABLED_TARGETS)]
    plain_adapters: _Values = {"lora_dropout": 0.0, "lora_dora": False}
    adapters: list[_Values] = [{}, plain_adapters, {**plain_adapters, "lora_dtype": "float32"}]
    return [bases, attentions, targets, adapters, [{}, {"padded": False}]]


_TABLED_TARGETS = ((ALL_LINEAR,), ("q_proj", "k_proj", "v_proj", "o_proj"), ("q_proj", "v_proj"))


def _more_gradients(skeleton: Skeleton, plan: Plan, form: Mapping[str, Any]) -> int:
    """Bytes for each element of the embedding that a form has too few, or too many if negative.

    At the end of the backward pass there are the gradients of head and embedding; if both are one tensor, also their
    sum.
    """
    if plan.job != "full":
        return 0
    size = DTYPE_BYTES[plan.dtype]
    held = sum(form.get(part, {}).get("hv", (0, 0))[0] for part in PARTS) // size
    is_tied = f"{skeleton.output_embeddings}.weight" in skeleton.tied_names
    if held == 2 and is_tied:
        return size
    return -size if held == 3 and not is_tied else 0


def _evaluate(
    phase: str, form: Mapping[str, Any], sizes: Dimensions, more: int, more_working: int, more_gradients: int
) -> Moment:
    """Each part of a form maps monomials to two coefficients: once, and for each layer.

    Args:
        phase: in which the moment is.
        form: of the table.
        sizes: values of its letters.
        more: bytes that each layer keeps beyond the form's.
        more_working: bytes that a layer's backward pass holds for a moment beyond the form's.
        more_gradients: bytes for each element of the embedding beyond the form's.
    """
    parts = {
        part: round(
            sum(
                (once + each * sizes.layers) * sizes.product(monomial)
                for monomial, (once, each) in form.get(part, {}).items()
            )
        )
        for part in PARTS
    }
    held = _layers_held(form, sizes)
    parts["activations"] += more * held
    if held and phase == "backward" and not parts["logits"]:
        parts["activations"] += more_working
    parts["activations"] += more_gradients * sizes.product("hv")
    return Moment(phase, **parts)


_INSIDE_LAYERS = ("bsi", "bsq", "bsk", "bsas", "bsr", "bshx")
"""What is there only as long as the backward pass of a layer needs it."""


def _layers_held(form: Mapping[str, Any], sizes: Dimensions) -> int:
    """How many layers are there with all that they keep: all, the one at work, or none."""
    coefficients = [form.get("activations", {}).get(monomial, (0, 0)) for monomial in _INSIDE_LAYERS]
    if any(each > 0 for _once, each in coefficients):
        return sizes.layers
    return 1 if any(once > 0 for once, _each in coefficients) else 0


def _adjusted(found: list[Moment], plan: Plan, sizes: Dimensions) -> tuple[Moment, ...]:
    """Apply what does not change the layers: a chunked loss, and a loop that keeps the outputs."""
    if plan.trains and plan.chunked_loss:
        return tuple(chunked for moment in found for chunked in _chunked(moment, plan, sizes))
    kept = sizes.product("bsv") * _head_bytes(plan) if plan.trains and plan.keep_outputs else 0
    return tuple(
        replace(moment, logits=moment.logits + kept) if moment.phase == "backward" else moment for moment in found
    )


def _chunked(moment: Moment, plan: Plan, sizes: Dimensions) -> Iterator[Moment]:
    """A moment of the loss with the logits of one piece of the sequence.

    Of a piece there are float32 logits and their log-softmax; backward the latter and two gradients. From the second
    piece on there is the head's gradient, for a moment with the piece's own and their sum.
    """
    if not moment.logits:
        yield moment
        return
    tokens = sizes.product("bs")
    piece = min(tokens, LOSS_CHUNK_TOKENS) * sizes.values["v"]
    copies = min(8 if moment.phase == "forward" else 12, moment.logits // (tokens * sizes.values["v"]))
    moment = replace(moment, logits=copies * piece)
    if moment.phase == "forward":
        yield moment
        return
    head = sizes.product("hv") * DTYPE_BYTES[plan.dtype] if plan.job == "full" and tokens > LOSS_CHUNK_TOKENS else 0
    yield replace(moment, activations=moment.activations + head)
    if head:
        yield replace(moment, logits=0, activations=moment.activations + 3 * head)


def kept_logits_bytes(skeleton: Skeleton, plan: Plan) -> int:
    """Logits that a loop keeps alive until its next step, because it keeps the model's output."""
    if not plan.trains or not plan.keep_outputs or plan.chunked_loss:
        return 0
    sizes = dimensions(skeleton, plan)
    return sizes.product("bsv") * _head_bytes(plan)


def _head_bytes(plan: Plan) -> int:
    return 4 if plan.prepares_kbit else DTYPE_BYTES[plan.dtype]


def _training_by_rule(structure: Structure, plan: Plan, sizes: Dimensions) -> list[Moment]:
    """The largest moments of a decoder: its loss, the last layer's backward pass, the first layer's, and the end.

    Under checkpointing each layer keeps its input only, and one layer at a time is there whole. Of every logit the loss
    holds the model's own, a float32 copy, the log-softmax and its gradient, never all at once: at most 12 bytes.
    """
    tokens, layers = sizes.product("bs"), sizes.layers
    size, h = stream_bytes(plan), sizes.values["h"]
    layer = structure.saved(plan, sizes)
    inputs = tokens * h * size * layers
    saved = inputs if plan.gradient_checkpointing else layer * layers
    working = structure.working(plan, sizes)
    logits, around = tokens * sizes.values["v"], 8 * tokens * h
    head, in_layers, sums = structure.gradient_bytes(plan, sizes)
    last = saved + working + (layer if plan.gradient_checkpointing else 0)
    return [
        Moment("forward", saved + around, logits * (10 if size == 2 else 8)),
        Moment("backward", saved + around, logits * 12),
        Moment("backward", last, 0, head + in_layers // max(1, layers)),
        Moment("backward", layer + working, 0, head + in_layers),
        Moment("backward", around + sums, 0, 2 * head + in_layers),
    ]


def _inference_by_rule(structure: Structure, plan: Plan, sizes: Dimensions) -> list[Moment]:
    """The largest moment of a forward pass: in the feed-forward layer or, where all scores are held, in attention.

    Of the logits only the last position's are made, and a float32 copy of them for sampling. Coefficients are those of
    the generated tables.
    """
    size = DTYPE_BYTES[plan.dtype]
    h, q, i, a = (sizes.values[letter] for letter in "hqia")
    logits = plan.batch * sizes.values["v"] * (size + 4)
    moments = []
    for phase, length in (("prefill", plan.sequence_length), ("decode", 1)):
        tokens = plan.batch * length
        grows = phase == "decode" or plan.cache == "static"
        reach = plan.sequence_length + (max(plan.new_tokens - 1, 0) if grows else 0)
        inner = tokens * size * (4 * h + 3 * i)
        if plan.quant in FOUR_BIT and phase == "prefill":
            # Above a few dozen rows bitsandbytes unpacks a whole weight before it multiplies by it.
            inner = max(inner, tokens * size * (4 * h + 2 * i) + size * h * i)
        if plan.quant == "int8":
            # The input in int8, and the product in int32 before it is scaled.
            inner = tokens * (size * (4 * h + 2 * i) + h + 4 * i)
        around = tokens * size * (3 * h + 5 * q)
        if structure.holds_scores(plan, sizes):
            copies = 10 if plan.dtype == "bfloat16" else 8
            around = tokens * (copies * a * reach + size * 3 * (h + q)) + plan.batch * length * reach * size
            if sizes.values["k"] < q and phase == "decode" and plan.cache == "dynamic":
                # Keys and values for every query head.
                around += 2 * plan.batch * reach * q * size
        moments.append(Moment(phase, max(inner, around), logits))
    return moments


def _rule_reason(skeleton: Skeleton, plan: Plan) -> str:
    if not plan.trains:
        return "by rule: the prefill's feed-forward layer; the simulation runs the model's own code"
    return (
        f"by the structure of a pre-norm decoder: no generated table for {skeleton.model_type}; "
        "the simulation runs the model's own code"
    )


def _near_reason(skeleton: Skeleton, plan: Plan, near: Plan) -> str:
    differs = [name for name, value in _told(plan).items() if value != _told(near)[name]]
    return (
        f"by rule: the table of {skeleton.model_type} has no such {', '.join(differs)}, so its nearest plan and by how "
        "much a layer's structure differs from it; the simulation runs these very ones"
    )


def _told(plan: Plan) -> dict[str, Any]:
    adapters = {"dropout": plan.lora.dropout, "dora": plan.lora.dora, "adapter dtype": plan.lora.dtype}
    return {
        **{"job": plan.job, "quantization": plan.quant, "dtype": plan.dtype, "attention": plan.attention},
        **{"padding": plan.padded, "LoRA targets": plan.lora.targets, **adapters},
    }


def _table_reason(skeleton: Skeleton) -> str:
    versions = table()["versions"]
    return f"generated from the simulation of {skeleton.architecture} (transformers {versions.get('transformers')})"
