"""Which modules and parameters peft adapts for a choice of targets. Stdlib only."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Optional, Union

from workbench.architecture.count import Classifier
from workbench.architecture.patterns import Matcher
from workbench.architecture.skeleton import ParameterEntry, Skeleton
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from workbench.architecture.lora import LoraPlan

ALL_LINEAR = "all-linear"

# Old names of projections that transformers 5 keeps in fused tensors, as peft maps them
# (``utils/transformers_weight_conversion.py``): by the family whose conversion rules a model shares.
_EXPERT_NAMES = {
    "mixtral": {"gate": "gate.weight", "w1": "gate_up_proj", "w3": "gate_up_proj", "w2": "down_proj"},
    "qwen2_moe": {
        "gate": "gate.weight",
        "gate_proj": "gate_up_proj",
        "up_proj": "gate_up_proj",
        "down_proj": "down_proj",
    },
}
_FUSED = {"mixtral": ("w1", "w3"), "qwen2_moe": ("gate_proj", "up_proj")}
_FIRST_NUMBER = re.compile(r".*?\.[^.]*\.(\d+)\.")


@dataclass(frozen=True)
class Targets:
    """A choice with everything filled in that peft fills in."""

    modules: Union[str, tuple[str, ...]]
    """A regular expression, or names."""
    parameters: tuple[str, ...] = ()
    ranks: dict[str, int] = field(default_factory=dict)
    """Ranks of fused tensors by regular expression."""
    notes: tuple[str, ...] = ()
    matcher: Matcher = field(default_factory=Matcher, compare=False)
    """For all expressions of one count, so that they share one bound of time."""


def resolve_targets(skeleton: Skeleton, plan: LoraPlan) -> Targets:
    """What `plan` names, with ``all-linear`` spelt out and old names of fused experts translated.

    Raises:
        WorkbenchError: ``bad-lora`` where only a part of a fused tensor is named.
    """
    all_linear = not plan.regex and tuple(name.lower() for name in plan.targets) == (ALL_LINEAR,)
    modules: Union[str, tuple[str, ...]] = plan.regex or plan.targets
    if all_linear:
        modules = tuple(_linear_names(skeleton))
    targets = Targets(modules, plan.target_parameters)
    if skeleton.expert_pattern:
        return _with_fused_experts(skeleton, plan, targets, all_linear)
    return targets


def matches(targets: Targets, plan: LoraPlan, name: str) -> bool:
    """Whether the module `name` gets an adapter.

    Raises:
        WorkbenchError: ``pattern-timeout``.
    """
    if any(name == left_out or name.endswith(f".{left_out}") for left_out in plan.exclude):
        return False
    if any(targets.matcher.match(rf"(^|.*\.){saved}($|\..*)", name, saved) for saved in plan.modules_to_save):
        return False
    if isinstance(targets.modules, str):
        return targets.matcher.fullmatch(targets.modules, name)
    if name in targets.modules:
        return True
    last = name.rpartition(".")[2]
    # Most names have no dot, so that most modules are decided by one look-up.
    found = last in targets.modules or any(name.endswith(f".{end}") for end in targets.modules if "." in end)
    if found and plan.layers:
        number = _FIRST_NUMBER.match(name)
        return number is not None and int(number.group(1)) in plan.layers
    return found


def _linear_names(skeleton: Skeleton) -> list[str]:
    return [
        module.name
        for module in skeleton.modules
        if module.layer_kind in ("linear", "conv1d") and module.name != skeleton.output_embeddings
    ]


def _with_fused_experts(skeleton: Skeleton, plan: LoraPlan, targets: Targets, all_linear: bool) -> Targets:
    names = _EXPERT_NAMES[skeleton.expert_pattern]
    fused = _FUSED[skeleton.expert_pattern]
    chosen = _leaf_names(skeleton, plan, targets, names, all_linear)
    if chosen is None:
        return targets
    kept, parameters, parts = [], set(targets.parameters), set()
    for target in chosen:
        old = next((old for old in names if target == old or target.endswith(f".{old}")), None)
        if old is None:
            kept.append(target)
            continue
        parameters.add(names[old])
        parts.update({old} & set(fused))
    if len(parts) == 1:
        missing = next(name for name in fused if name not in parts)
        raise WorkbenchError(
            "bad-lora",
            f"{parts.pop()} and {missing} are one fused tensor of the experts, so peft adapts both or neither.",
            f"Target {missing} too.",
        )
    ranks = {rf".*\.{names[fused[0]]}": 2 * plan.r} if parts else {}
    return replace(targets, modules=tuple(kept), parameters=tuple(sorted(parameters)), ranks=ranks)


def _leaf_names(
    skeleton: Skeleton, plan: LoraPlan, targets: Targets, names: dict[str, str], all_linear: bool
) -> Optional[list[str]]:
    """The targets as names, the ends of what a regular expression or ``all-linear`` takes; None if nothing matches."""
    if all_linear:
        return list(dict.fromkeys([*(name.rpartition(".")[2] for name in targets.modules), *names]))
    if not isinstance(targets.modules, str):
        return list(targets.modules)
    keys = [module.name for module in skeleton.modules] + [entry.name for entry in skeleton.unique_parameters]
    found = {key.rpartition(".")[2] for key in keys if key and matches(targets, plan, key)}
    for old, new in names.items():
        holders = [entry.name[: -len(new)] for entry in skeleton.unique_parameters if entry.name.endswith(f".{new}")]
        if old not in found and any(matches(targets, plan, holder + old) for holder in holders):
            found.add(old)
    return sorted(found) or None


@dataclass(frozen=True)
class Preset:
    """A usual choice of targets for one model."""

    name: str
    line: str
    targets: tuple[str, ...]
    target_parameters: tuple[str, ...] = ()


def presets(skeleton: Skeleton) -> list[Preset]:
    """The usual choices, by the names that this model's modules have; those that mean nothing here are left out."""
    by_component = _names_by_component(skeleton)
    attention, mlp = by_component.get("attention", set()), by_component.get("mlp", set())
    query_value = _query_and_value(attention)
    experts = sorted({".".join(entry.name.split(".")[-2:]) for entry in _fused_experts(skeleton, Classifier(skeleton))})
    found = [
        Preset(ALL_LINEAR, "Every linear layer but the head; what QLoRA recommends.", (ALL_LINEAR,)),
        Preset("attention", "All projections of attention.", _ends(skeleton, attention)),
        Preset("query-value", "Query and value projections only, as in the LoRA paper.", _ends(skeleton, query_value)),
        Preset("mlp", "The feed-forward layers.", _ends(skeleton, mlp)),
        Preset(
            "experts",
            "The routed experts' fused tensors, an adapter for each expert.",
            (),
            tuple(experts),
        ),
    ]
    return [preset for preset in found if preset.targets or preset.target_parameters]


def _fused_experts(skeleton: Skeleton, classify: Classifier) -> list[ParameterEntry]:
    return [
        entry
        for entry in skeleton.unique_parameters
        if len(entry.shape) == 3 and classify.component(entry) == "experts"
    ]


def _names_by_component(skeleton: Skeleton) -> dict[str, set[str]]:
    classify = Classifier(skeleton)
    entries = {entry.name: entry for entry in skeleton.parameters}
    found: dict[str, set[str]] = {}
    for module in skeleton.modules:
        weight = entries.get(f"{module.name}.weight")
        if module.layer_kind in ("linear", "conv1d") and weight is not None:
            found.setdefault(classify.component(weight), set()).add(module.name)
    return found


_QUERY_VALUE = re.compile(
    r"(q|v|query|value|q_proj|v_proj|query_proj|value_proj|q_lin|v_lin|q_a_proj|q_b_proj|kv_b_proj"
    r"|Wqkv|query_key_value|c_attn|qkv_proj|att_proj|in_proj)"
)


def _query_and_value(attention: set[str]) -> set[str]:
    return {name for name in attention if _QUERY_VALUE.fullmatch(name.rpartition(".")[2])}


def _ends(skeleton: Skeleton, wanted: set[str]) -> tuple[str, ...]:
    """The shortest ends of names that match the modules `wanted` and no other module."""
    others = [module.name for module in skeleton.modules if module.name not in wanted]
    ends: dict[str, None] = {}
    for name in sorted(wanted):
        segments = name.split(".")
        for length in range(1, len(segments) + 1):
            end = ".".join(segments[-length:])
            if end in ends:
                break
            if segments[-length].isdigit():
                continue
            if not any(other == end or other.endswith(f".{end}") for other in others):
                ends[end] = None
                break
    return tuple(sorted(ends))
