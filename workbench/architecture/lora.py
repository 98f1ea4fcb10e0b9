"""What a LoRA adapter trains and weighs, as peft would make it. Stdlib only.

The rules are those of peft 0.21 (``tuners/tuners_utils.py``: `check_target_module_exists`,
`_maybe_include_all_linear_layers`, `_inject_parameters`; ``tuners/lora/layer.py``; ``utils/other.py``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Optional, Union

from workbench.architecture.count import COMPONENTS, Classifier, LayerCount
from workbench.architecture.lora_file import AdapterTensor, file_bytes
from workbench.architecture.lora_targets import ALL_LINEAR, Targets, matches, presets, resolve_targets
from workbench.architecture.skeleton import ModuleEntry, ParameterEntry, Skeleton
from workbench.errors import WorkbenchError
from workbench.models.reference import nearest
from workbench.text import one_line

BIASES = ("none", "all", "lora_only")
ADAPTER_DTYPES = ("float32", "model")
MAX_RANK = 100_000
MAX_PATTERN = 1_000
# peft refuses these there (`_check_lora_target_modules_mamba`).
_MAMBA_TYPES = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")
_MAMBA_REFUSED = ("out_proj", "conv1d")
_EMBEDDING_NAMES = ("embed_tokens", "lm_head")


@dataclass(frozen=True)
class LoraPlan:
    """What to adapt and how; peft's ``LoraConfig`` under the same names where they are good ones."""

    targets: tuple[str, ...] = (ALL_LINEAR,)
    """Module names or their ends (``q_proj``, ``mlp.c_proj``); ``all-linear`` alone takes every linear layer but the
    head, and another preset's name alone what it means in the model. Ignored where `regex` is given."""
    regex: str = ""
    """Matches whole module names."""
    r: int = 16
    alpha: float = 32
    rslora: bool = False
    """Scale by alpha/√r instead of alpha/r."""
    dora: bool = False
    """Train a magnitude for each output of a weight too."""
    bias: str = "none"
    """Biases that are trained: ``none``, ``all`` or ``lora_only``."""
    exclude: tuple[str, ...] = ()
    """Module names or their ends that are left out."""
    layers: tuple[int, ...] = ()
    """Numbers of the layers to adapt; empty for all."""
    modules_to_save: tuple[str, ...] = ()
    """Ends of module names that are trained whole and saved with the adapter."""
    target_parameters: tuple[str, ...] = ()
    """Parameter names or their ends, for tensors that are no module's weight: ``experts.gate_up_proj``."""
    rank_pattern: dict[str, int] = field(default_factory=dict)
    """Other ranks by regular expression of the end of a name."""
    dtype: str = "float32"
    """Of the adapter: ``float32`` as peft casts by default, or ``model`` for the base model's."""


@dataclass(frozen=True)
class TargetCount:
    """Equal adapted modules together."""

    name: str
    component: str
    modules: int
    in_features: int
    out_features: int
    rank: int
    experts: int
    """Experts that share each fused tensor, each with its own adapter; 1 for a module."""
    parameters: int
    """Of all of them."""


@dataclass(frozen=True)
class AdapterCount:
    """What the plan makes of a model."""

    trainable: int
    base: int
    """Parameters of the base model, tied weights counted once."""
    share: float
    """Trainable over all parameters there then are, as peft prints it."""
    adapter_bytes: int
    """Size of adapter_model.safetensors."""
    scaling: float
    """What the adapter's product is multiplied by, at rank `r`."""
    by_component: dict[str, int]
    """Trainable parameters by component of what they adapt."""
    per_layer: tuple[LayerCount, ...]
    """The adapter's own by layer of a stack."""
    targets: tuple[TargetCount, ...]
    saved: dict[str, int]
    """Modules trained whole, with their parameters."""
    biases: int
    matched: tuple[str, ...]
    """Names of the adapted modules and parameters."""
    notes: tuple[str, ...]


def plan_from_dict(value: dict[str, Any]) -> LoraPlan:
    """The plan that a request carries.

    Raises:
        WorkbenchError: ``bad-lora`` naming the field and what it may be.
    """
    known = LoraPlan.__dataclass_fields__
    fields: dict[str, Any] = {}
    for key, item in value.items():
        if key not in known:
            close = nearest(key, known)
            raise _bad(f"LoRA has no option {one_line(key, 40)}.", f"Nearest: {', '.join(close)}." if close else "")
        default = getattr(LoraPlan(), key)
        if isinstance(default, tuple):
            item = (item,) if isinstance(item, (str, int)) and not isinstance(item, bool) else item
            wanted: Any = int if key == "layers" else str
            if not isinstance(item, (list, tuple)) or not all(type(one) is wanted for one in item):
                raise _bad(f"{key} is not a list of {'numbers' if wanted is int else 'names'}.", "")
            item = tuple(item)
        fields[key] = item
    plan = LoraPlan(**fields)
    check_plan(plan)
    return plan


def check_plan(plan: LoraPlan) -> None:
    """Refuse a plan that peft could not read.

    Raises:
        WorkbenchError: ``bad-lora`` naming the field and what it may be.
    """
    ranks = {"r": plan.r, **{f"rank_pattern {key}": rank for key, rank in plan.rank_pattern.items()}}
    for name, rank in ranks.items():
        if type(rank) is not int or not 1 <= rank <= MAX_RANK:
            raise _bad(f"{one_line(name, 40)} is {one_line(str(rank), 30)}.", f"A rank is 1 to {MAX_RANK:,}.")
    alpha = plan.alpha
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha):
        raise _bad(f"alpha is {one_line(str(alpha), 30)}.", "Give a number, often twice the rank.")
    for name, choice, choices in (("bias", plan.bias, BIASES), ("dtype", plan.dtype, ADAPTER_DTYPES)):
        if choice not in choices:
            raise _bad(f"{name} is {one_line(str(choice), 30)}.", f"Choose one of {', '.join(choices)}.")
    for name in ("rslora", "dora"):
        if not isinstance(getattr(plan, name), bool):
            raise _bad(f"{name} is not true or false.", "")
    if not (plan.regex or plan.targets or plan.target_parameters):
        raise _bad("Nothing is targeted.", "Name modules, such as q_proj and v_proj, or all-linear.")
    if plan.layers and (plan.regex or plan.targets == (ALL_LINEAR,)):
        raise _bad("layers goes with names of modules only, as in peft.", "Name the modules, such as q_proj.")
    for pattern in (plan.regex, *plan.rank_pattern, *plan.modules_to_save):
        _check_pattern(pattern)


def with_preset(skeleton: Skeleton, plan: LoraPlan) -> LoraPlan:
    """`plan` with the name of a preset (``attention``, ``mlp`` …) replaced by the targets it means in this model.

    Such a name is never a target of its own: modules called so hold others, which peft cannot adapt.
    """
    if plan.regex or len(plan.targets) != 1 or plan.targets == (ALL_LINEAR,):
        return plan
    found = next((preset for preset in presets(skeleton) if preset.name == plan.targets[0]), None)
    if found is None:
        return plan
    parameters = (*plan.target_parameters, *found.target_parameters)
    return replace(plan, targets=found.targets, target_parameters=parameters)


def count_adapter(skeleton: Skeleton, plan: LoraPlan) -> AdapterCount:
    """Count what `plan` trains in the model of `skeleton`.

    Raises:
        WorkbenchError: ``bad-lora`` where nothing matches, or where peft refuses what matches; ``pattern-timeout``.
    """
    plan = with_preset(skeleton, plan)
    check_plan(plan)
    targets = resolve_targets(skeleton, plan)
    count = _Count(skeleton, plan, targets)
    for module in skeleton.modules:
        if module.name and matches(targets, plan, module.name):
            count.add_module(module)
    count.add_parameters()
    if not count.matched:
        raise _nothing_matches(skeleton, plan, targets)
    return count.result()


class _Count:
    def __init__(self, skeleton: Skeleton, plan: LoraPlan, targets: Targets) -> None:
        self.skeleton, self.plan, self.targets = skeleton, plan, targets
        self.classify = Classifier(skeleton)
        self.entries = {entry.name: entry for entry in skeleton.parameters}
        self.modules = {module.name: module for module in skeleton.modules}
        self.matched: list[str] = []
        self.tensors: list[AdapterTensor] = []
        self.groups: dict[tuple[Any, ...], TargetCount] = {}
        self.by_component = dict.fromkeys(COMPONENTS, 0)
        self.by_layer: dict[str, int] = {}
        self.adapter = 0

    def add_module(self, module: ModuleEntry) -> None:
        self._refuse_unsupported(module)
        weight = self.entries[f"{module.name}.weight"]
        rank = self._rank(module.name)
        prefix = f"base_model.model.{module.name}"
        dtype = self._dtype(weight)
        shape = weight.shape
        if module.layer_kind == "embedding":
            shapes: dict[str, tuple[int, ...]] = {
                "lora_embedding_A": (rank, shape[0]),
                "lora_embedding_B": (shape[1], rank),
            }
            width = shape[1]
        elif module.layer_kind == "convolution":
            if rank % module.groups:
                raise _bad(
                    f"The rank {rank} is not divisible by the {module.groups} groups of {module.name}.",
                    "Choose another rank, or leave it out.",
                )
            ones = (1,) * (len(shape) - 2)
            shapes = {
                "lora_A.weight": (rank, shape[1] * module.groups, *shape[2:]),
                "lora_B.weight": (shape[0], rank // module.groups, *ones),
            }
            width = shape[0]
        else:
            width, inner = (shape[1], shape[0]) if module.layer_kind == "conv1d" else (shape[0], shape[1])
            shapes = {"lora_A.weight": (rank, inner), "lora_B.weight": (width, rank)}
        if self.plan.dora:
            convolves = module.layer_kind == "convolution"
            shapes["lora_magnitude_vector"] = (1, width, *((1,) * (len(shape) - 2))) if convolves else (width,)
        made = [AdapterTensor(f"{prefix}.{name}", size, dtype) for name, size in shapes.items()]
        inner_features = shape[0] if module.layer_kind in ("conv1d", "embedding") else shape[1] * module.groups
        self._add(module.name, weight, made, (inner_features, width, rank, 1))

    def add_parameters(self) -> None:
        """Adapters of parameters that are no module's weight; several of one module are nested, the last outermost."""
        wanted = sorted(self.targets.parameters)
        by_module: dict[str, list[ParameterEntry]] = {}
        for entry in self.skeleton.parameters:
            if any(entry.name == name or entry.name.endswith(f".{name}") for name in wanted):
                by_module.setdefault(entry.module, []).append(entry)
        for module, entries in by_module.items():
            for position, entry in enumerate(entries):
                self._refuse_unwrappable(entry)
                depth = len(entries) - 1 - position
                self._add_parameter(module + ".base_layer" * depth, entry)

    def _add_parameter(self, holder: str, entry: ParameterEntry) -> None:
        rank = self._rank(entry.name)
        if len(entry.shape) == 3:
            experts, first, second = entry.shape
            transposed = self.modules[entry.module].is_transposed
            inner, width = (first, second) if transposed else (second, first)
        else:
            experts, (width, inner) = 1, entry.shape
        prefix, dtype = f"base_model.model.{holder}", self._dtype(entry)
        made = [
            AdapterTensor(f"{prefix}.lora_A.weight", (rank * experts, inner), dtype),
            AdapterTensor(f"{prefix}.lora_B.weight", (width, rank * experts), dtype),
        ]
        self._add(entry.name, entry, made, (inner, width, rank, experts))

    def _add(
        self, name: str, entry: ParameterEntry, made: list[AdapterTensor], sizes: tuple[int, int, int, int]
    ) -> None:
        component = self.classify.component(entry)
        parameters = sum(tensor.numel for tensor in made)
        self.matched.append(name)
        self.tensors += made
        self.adapter += parameters
        self.by_component[component] += parameters
        layer = self.classify.layer(entry.module)
        if layer is not None:
            self.by_layer[layer] = self.by_layer.get(layer, 0) + parameters
        # A parameter is named with its module, or every one would be called weight.
        last = ".".join(name.split(".")[-2:]) if name in self.entries else name.rpartition(".")[2]
        key = (last, component, *sizes)
        found = self.groups.get(key)
        modules = found.modules + 1 if found else 1
        before = found.parameters if found else 0
        self.groups[key] = TargetCount(last, component, modules, *sizes, parameters=before + parameters)

    def result(self) -> AdapterCount:
        saved = self._saved()
        biases = self._biases()
        copied = sum(saved.values())
        base = sum(entry.numel for entry in self.skeleton.unique_parameters)
        trainable = self.adapter + copied + biases
        rank = self.plan.r
        return AdapterCount(
            trainable=trainable,
            base=base,
            share=trainable / (base + self.adapter + copied),
            adapter_bytes=file_bytes([*self.tensors, *self._saved_embeddings()]),
            scaling=self.plan.alpha / (math.sqrt(rank) if self.plan.rslora else rank),
            by_component=self.by_component,
            per_layer=tuple(LayerCount(name, count) for name, count in self.by_layer.items()),
            targets=tuple(self.groups.values()),
            saved=saved,
            biases=biases,
            matched=tuple(self.matched),
            notes=tuple(self._notes()),
        )

    def _saved(self) -> dict[str, int]:
        """Modules whose whole copy is trained: every module whose name ends so, also in the middle of a word."""
        saved: dict[str, int] = {}
        if not self.plan.modules_to_save:
            return saved
        for module in self.skeleton.modules:
            if module.name and module.name.endswith(self.plan.modules_to_save):
                inside = [entry for entry in self.skeleton.parameters if _is_inside(entry.name, module.name)]
                saved[module.name] = sum(entry.numel for entry in inside)
                for entry in inside:
                    self.by_component[self.classify.component(entry)] += entry.numel
                    self.tensors.append(AdapterTensor(f"base_model.model.{entry.name}", entry.shape, entry.dtype))
        return saved

    def _biases(self) -> int:
        trained = 0
        if self.plan.bias == "none":
            return trained
        adapted = set(self.matched)
        for entry in self.skeleton.parameters:
            own = entry.module in adapted
            if entry.name.endswith(".bias") and (own or self.plan.bias == "all"):
                numel = 0 if entry.tied_to else entry.numel
                trained += numel
                self.by_component[self.classify.component(entry)] += numel
                name = f"{entry.module}.base_layer.bias" if own else entry.name
                self.tensors.append(AdapterTensor(f"base_model.model.{name}", entry.shape, entry.dtype))
        return trained

    def _saved_embeddings(self) -> list[AdapterTensor]:
        """Whole embeddings that peft saves beside their adapters, once the choice names one of them."""
        plan = self.plan
        if isinstance(self.targets.modules, str):
            named = any(name.rpartition(".")[2] in _EMBEDDING_NAMES for name in self.matched)
        else:
            named = any(name in self.targets.modules for name in _EMBEDDING_NAMES)
        if not named or (plan.targets == (ALL_LINEAR,) and not plan.regex):
            return []
        places = {self.skeleton.input_embeddings, self.skeleton.output_embeddings} & set(self.matched)
        return [
            AdapterTensor(f"base_model.model.{place}.base_layer.weight", entry.shape, entry.dtype)
            for place in sorted(filter(None, places))
            for entry in (self.entries[f"{place}.weight"],)
        ]

    def _rank(self, name: str) -> int:
        for pattern, rank in {**self.plan.rank_pattern, **self.targets.ranks}.items():
            if self.targets.matcher.match(rf"(.*\.)?({pattern})$", name, pattern):
                return rank
        return self.plan.r

    def _dtype(self, entry: ParameterEntry) -> str:
        return "float32" if self.plan.dtype == "float32" else entry.dtype

    def _refuse_unsupported(self, module: ModuleEntry) -> None:
        last = module.name.rpartition(".")[2]
        if self.skeleton.model_type in _MAMBA_TYPES and last in _MAMBA_REFUSED:
            raise _bad(
                f"peft refuses to adapt {last} of a {self.skeleton.model_type} model.",
                f"Leave it out: name other modules, or exclude {last}.",
            )
        if not module.layer_kind or f"{module.name}.weight" not in self.entries:
            raise _bad(
                f"{module.name} is a {module.class_name}, which LoRA cannot adapt.",
                "Target linear layers, embeddings or convolutions; train other modules whole with modules_to_save.",
            )

    def _refuse_unwrappable(self, entry: ParameterEntry) -> None:
        if self.plan.dora:
            raise _bad(f"DoRA does not work on the parameter {entry.name}.", "Leave DoRA off, or the parameter out.")
        if len(entry.shape) not in (2, 3):
            raise _bad(f"{entry.name} has {len(entry.shape)} dimensions.", "Parameters of two or three can be adapted.")
        if entry.module in self.matched:
            raise _bad(f"{entry.name} is targeted as a parameter and its module as a module.", "Choose one of the two.")

    def _notes(self) -> list[str]:
        notes = list(self.targets.notes)
        if not isinstance(self.targets.modules, str):
            unused = [
                name
                for name in self.targets.modules
                if not any(found == name or found.endswith(f".{name}") for found in self.matched)
            ]
            if unused and len(unused) < len(self.targets.modules):
                notes.append(f"No module is called {', '.join(sorted(unused)[:5])}.")
        experts = [
            entry
            for entry in self.skeleton.unique_parameters
            if len(entry.shape) == 3 and self.classify.component(entry) == "experts"
        ]
        if experts and not self.by_component["experts"]:
            names = sorted({".".join(entry.name.split(".")[-2:]) for entry in experts})
            share = sum(entry.numel for entry in experts) / sum(e.numel for e in self.skeleton.unique_parameters)
            notes.append(
                f"The experts ({share:.0%} of the parameters) are fused tensors, no linear layers, and stay as they "
                f"are; to adapt them set target_parameters to {' and '.join(names[:2])}."
            )
        tied = {entry.module for entry in self.skeleton.parameters if entry.tied_to} & {
            *self.matched,
            *self.plan.modules_to_save,
        }
        if tied:
            notes.append(
                f"{', '.join(sorted(tied))} shares its weights: they come apart once the adapter is merged, "
                "unless ensure_weight_tying is set."
            )
        return notes


def _is_inside(name: str, module: str) -> bool:
    return name.startswith(f"{module}.")


def _check_pattern(pattern: str) -> None:
    if len(pattern) > MAX_PATTERN:
        raise _bad(f"The regular expression has {len(pattern):,} characters.", f"At most {MAX_PATTERN:,} are taken.")
    try:
        re.compile(pattern)
    except (re.error, RecursionError) as error:
        raise _bad(f"{one_line(pattern, 60)} is no regular expression: {error}.", "Mend it.") from None


def _nothing_matches(skeleton: Skeleton, plan: LoraPlan, targets: Targets) -> WorkbenchError:
    names = {module.name.rpartition(".")[2] for module in skeleton.modules if module.layer_kind}
    if plan.regex:
        return _bad(
            f"The regular expression {one_line(plan.regex, 60)} matches no whole module name.",
            f"It must match the whole name, so begin with .* for any layer. Ends of names: {_listed(names)}.",
        )
    asked: Union[str, Iterable[str]] = targets.modules
    wanted = [asked] if isinstance(asked, str) else sorted({*asked, *targets.parameters})
    close: Optional[list[str]] = nearest(wanted[0], names) if wanted else None
    return _bad(
        f"No module of the model is called {one_line(', '.join(wanted), 80)}.",
        f"Nearest: {', '.join(close)}." if close else f"It has {_listed(names)}.",
    )


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(name for name in names if name and not name.isdigit())
    return ", ".join(ordered[:12]) + (" …" if len(ordered) > 12 else "")


def _bad(message: str, remedy: str) -> WorkbenchError:
    return WorkbenchError("bad-lora", message, remedy)
