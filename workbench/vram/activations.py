"""What is live beside the model when memory may peak: activations, logits, gradients so far. Stdlib only.

For the families in ``activations.json`` each moment is a sum of products of sizes, read off the simulation by
``docs/make_activation_tables.py``. For others a structural rule stands in, and the estimate says so.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from workbench.architecture import config as reading
from workbench.architecture.skeleton import DTYPE_BYTES, Skeleton
from workbench.vram.dimensions import Dimensions, dimensions
from workbench.vram.plan import ALL_LINEAR, Plan, changed

TABLE = Path(__file__).with_name("activations.json")
LOSS_CHUNK_TOKENS = 1024
"""Tokens whose logits exist at once under a chunked loss."""
PARTS = ("activations", "logits", "gradients")


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


def moments(skeleton: Skeleton, plan: Plan) -> Moments:
    """Candidates for the peak of `plan` without its optimizer step."""
    sizes = dimensions(skeleton, plan)
    forms = _forms(skeleton, plan, sizes)
    known, why = "table", _table_reason(skeleton)
    if forms is None and plan.dtype == "float16":
        forms = _forms(skeleton, changed(plan, dtype="bfloat16"), sizes)
        known, why = "rule", "at most: as in bfloat16, where eager softmax makes one more copy"
    if forms is None and plan.has_adapters:
        # More adapters save more: those on all linear layers bound what other choices take.
        forms = _forms(skeleton, changed(plan, lora_targets=(ALL_LINEAR,)), sizes)
        known, why = "rule", "at most: as with adapters on all linear layers; the simulation runs these very ones"
    if forms is None:
        found = _training_by_rule(skeleton, plan, sizes) if plan.trains else _inference_by_rule(plan, sizes)
        return Moments(_adjusted(found, plan, sizes), "rule", _rule_reason(skeleton, plan))
    found = [_evaluate(phase, form, sizes) for phase, several in forms.items() for form in several]
    if not plan.trains:
        # Of decoding nothing but the cache is large: a rule is enough.
        found += [moment for moment in _inference_by_rule(plan, sizes) if moment.phase == "decode"]
    return Moments(_adjusted(found, plan, sizes), known, why)


def mode(plan: Plan, every_head_has_keys: bool = False) -> str:
    """The key of a plan's forms in the table: everything that changes which tensors there are, but not their sizes.

    Args:
        plan: any plan.
        every_head_has_keys: multi-head attention; with fewer key/value heads other kernels run.
    """
    attention = "sdpa" if plan.attention == "flash" else plan.attention
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


def _evaluate(phase: str, form: Mapping[str, Any], sizes: Dimensions) -> Moment:
    """Each part of a form maps monomials to two coefficients: once, and for each layer."""
    parts = {
        part: round(
            sum(
                (once + each * sizes.layers) * sizes.product(monomial)
                for monomial, (once, each) in form.get(part, {}).items()
            )
        )
        for part in PARTS
    }
    return Moment(phase, **parts)


def _adjusted(found: list[Moment], plan: Plan, sizes: Dimensions) -> tuple[Moment, ...]:
    """Apply what does not change the layers: a chunked loss, and a loop that keeps the outputs."""
    adjusted = []
    tokens, vocab = sizes.product("bs"), sizes.values["v"]
    kept = tokens * vocab * _head_bytes(plan) if plan.trains and plan.keep_outputs and not plan.chunked_loss else 0
    chunk = min(tokens, LOSS_CHUNK_TOKENS) * vocab
    for moment in found:
        logits = moment.logits + (kept if moment.phase == "backward" else 0)
        if plan.trains and plan.chunked_loss and logits:
            # Float32 logits and log-softmax of a piece; backward their gradients and the 16-bit ones.
            logits = chunk * (8 if moment.phase == "forward" else 14)
        adjusted.append(Moment(moment.phase, moment.activations, logits, moment.gradients))
    return tuple(adjusted)


def kept_logits_bytes(skeleton: Skeleton, plan: Plan) -> int:
    """Logits that a loop keeps alive until its next step, because it keeps the model's output."""
    if not plan.trains or not plan.keep_outputs or plan.chunked_loss:
        return 0
    sizes = dimensions(skeleton, plan)
    return sizes.product("bsv") * _head_bytes(plan)


def _head_bytes(plan: Plan) -> int:
    return 4 if plan.prepares_kbit else DTYPE_BYTES[plan.dtype]


def _training_by_rule(skeleton: Skeleton, plan: Plan, sizes: Dimensions) -> list[Moment]:
    """What a pre-norm transformer saves, for each token and layer, and what its loss holds.

    Under checkpointing each layer keeps its input only, and one layer at a time is there whole. Of every logit the loss
    holds the model's own, a float32 copy, the log-softmax and its gradient, never all at once: at most 12 bytes.
    """
    tokens = sizes.product("bs")
    layer = tokens * _saved_per_token(skeleton, plan, sizes)
    stream = 4 if plan.prepares_kbit else DTYPE_BYTES[plan.dtype]
    if plan.gradient_checkpointing:
        inputs = tokens * sizes.values["h"] * stream * sizes.layers
        saved, in_backward = inputs, inputs + layer
    else:
        saved = in_backward = layer * sizes.layers
    logits = tokens * sizes.values["v"]
    gradients = _head_gradient(skeleton, plan, sizes)
    return [
        Moment("forward", saved, logits * (10 if stream == 2 else 8)),
        Moment("backward", saved, logits * 12),
        Moment("backward", in_backward, 0, gradients),
    ]


def _saved_per_token(skeleton: Skeleton, plan: Plan, sizes: Dimensions) -> int:
    """Bytes for one token of one layer, by what is in it; coefficients as read off the table's families.

    Norms: torch's LayerNorm saves its input, those written in Python (RMSNorm) float32 copies too, also of queries and
    keys. Attention saves query, key, value and output; the math kernel and eager attention the scores. Feed-forward: a
    gated one saves gate, up, activation and product, another what its activation function needs.
    """
    h, q, k, i, a, r, s = (sizes.values[letter] for letter in "hqkiars")
    wide = plan.prepares_kbit or plan.dtype == "float32"
    is_gated = any(module.name.endswith(("gate_proj", "gate_up_proj")) for module in skeleton.modules)
    in_python = not any(module.class_name == "LayerNorm" for module in skeleton.modules)
    inner = 8 if is_gated else _ACTIVATION_BYTES.get(_activation(skeleton), 4)
    if wide:
        saved = (24 if in_python and plan.job == "full" else 16) * h + 8 * q + 8 * max(q, k) + 2 * inner * i
    else:
        saved = (16 if in_python else 8) * h + 4 * q + 4 * k + inner * i
    if in_python and any(module.name.endswith(".q_norm") for module in skeleton.modules):
        saved += 12 * q + 12 * k
    if plan.has_adapters:
        # Float32 adapters make float32 copies of their inputs.
        copies = DTYPE_BYTES[plan.lora.dtype] == 4 and not wide
        saved += copies * ((12 if is_gated else 8) * h + 4 * q + 2 * i) + (28 if is_gated else 16) * r
    scores = 6 if plan.attention == "eager" else 4 if wide and k < q and plan.attention != "efficient" else 0
    # Each expert that works on a token gets a copy of it.
    copies_of_tokens = 4 * h * sizes.values["x"]
    return saved + copies_of_tokens + scores * a * s + 4 * a + 8


_ACTIVATION_BYTES = {"relu": 2, "gelu_new": 10, "gelu_fast": 10, "gelu_pytorch_tanh": 4}
"""What is saved of each element of a feed-forward layer that has no gate, by the name of its activation function."""


def _activation(skeleton: Skeleton) -> str:
    config = reading.text_config(skeleton.config)
    return next((str(config[key]) for key in ("activation_function", "hidden_act", "activation") if key in config), "")


def _head_gradient(skeleton: Skeleton, plan: Plan, sizes: Dimensions) -> int:
    if plan.job != "full":
        return 0
    return sizes.product("hv") * DTYPE_BYTES[plan.dtype]


def _inference_by_rule(plan: Plan, sizes: Dimensions) -> list[Moment]:
    """The largest moment of a forward pass, the feed-forward layer: gate, up and their product, and four more tensors.

    Of the logits only the last position's are made, and a float32 copy of them for sampling. Eager attention holds
    the scores, their float32 softmax and its copy.
    """
    size = DTYPE_BYTES[plan.dtype]
    logits = plan.batch * sizes.values["v"] * (size + 4)
    moments = []
    for phase, length in (("prefill", plan.sequence_length), ("decode", 1)):
        tokens = plan.batch * length
        live = tokens * size * (3 * sizes.values["i"] + 4 * sizes.values["h"])
        if plan.attention == "eager":
            reach = plan.sequence_length + (plan.new_tokens if phase == "decode" else 0)
            live = max(live, tokens * reach * sizes.values["a"] * (2 * size + 4))
        if plan.quant != "none" and phase == "prefill":
            # Above a few dozen rows bitsandbytes unpacks a whole weight before it multiplies by it.
            live += size * sizes.product("hi")
        moments.append(Moment(phase, live, logits))
    return moments


def _rule_reason(skeleton: Skeleton, plan: Plan) -> str:
    if not plan.trains:
        return "by rule: the prefill's feed-forward layer; the simulation runs the model's own code"
    return (
        f"by the structure of a pre-norm decoder: no generated table for {skeleton.model_type} with these options; "
        "the simulation runs the model's own code"
    )


def _table_reason(skeleton: Skeleton) -> str:
    versions = table()["versions"]
    return f"generated from the simulation of {skeleton.architecture} (transformers {versions.get('transformers')})"
