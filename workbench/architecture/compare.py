"""Two models side by side: what differs in config, facts, counts and modules. Stdlib only."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workbench.architecture.count import ParameterCounts
from workbench.architecture.describe import ArchitectureFacts
from workbench.architecture.skeleton import Skeleton
from workbench.architecture.tree import flatten, module_tree

# Of a config, what says nothing about the model.
_IGNORED = ("transformers_version", "_name_or_path", "architectures", "torch_dtype", "return_dict", "problem_type")
_LABELS = {
    "total": "parameters",
    "active": "active per token",
    "num_hidden_layers": "layers",
    "num_attention_heads": "query heads",
    "num_key_value_heads": "key/value heads",
    "attention_kind": "attention",
    "tied_embeddings": "tied embeddings",
}


@dataclass(frozen=True)
class Difference:
    """One value of both models."""

    key: str
    label: str
    first: Any
    second: Any
    same: bool


@dataclass(frozen=True)
class Side:
    """One of the models."""

    name: str
    skeleton: Skeleton
    counts: ParameterCounts
    facts: ArchitectureFacts


@dataclass(frozen=True)
class ModelComparison:
    """What two models have in common and what not."""

    first: str
    second: str
    first_architecture: str
    second_architecture: str
    counts: tuple[Difference, ...]
    """Totals, then by component."""
    facts: tuple[Difference, ...]
    config: tuple[Difference, ...]
    """Only what differs, defaults filled in; None for a key that one of them has not got."""
    only_first: tuple[str, ...]
    """Modules by class that only the first has, equal ones folded: ``model.layers.0-31.self_attn.q_norm``."""
    only_second: tuple[str, ...]
    shapes: tuple[Difference, ...]
    """Parameters that both have with another shape."""

    @property
    def same(self) -> bool:
        """Whether both are the same model as far as a config tells."""
        return not (self.config or self.only_first or self.only_second or self.shapes)


def compare_models(first: Side, second: Side) -> ModelComparison:
    """Compare two models part by part."""
    modules = [_modules(side.skeleton) for side in (first, second)]
    shapes = [_shapes(side.skeleton) for side in (first, second)]
    return ModelComparison(
        first=first.name,
        second=second.name,
        first_architecture=first.skeleton.architecture,
        second_architecture=second.skeleton.architecture,
        counts=tuple(_count_differences(first.counts, second.counts)),
        facts=tuple(_differences(dataclasses.asdict(first.facts), dataclasses.asdict(second.facts))),
        config=tuple(d for d in _differences(_own(first.skeleton), _own(second.skeleton)) if not d.same),
        only_first=tuple(path for name, path in modules[0].items() if name not in modules[1]),
        only_second=tuple(path for name, path in modules[1].items() if name not in modules[0]),
        shapes=tuple(d for d in _differences(*shapes) if not d.same and None not in (d.first, d.second)),
    )


def _count_differences(first: ParameterCounts, second: ParameterCounts) -> Iterator[Difference]:
    tables = [
        {"total": counts.total, "active": counts.active, **counts.by_component, "layers": len(counts.per_layer)}
        for counts in (first, second)
    ]
    yield from _differences(*tables)


def _differences(first: dict[str, Any], second: dict[str, Any]) -> Iterator[Difference]:
    for key in dict.fromkeys((*first, *second)):
        one, other = first.get(key), second.get(key)
        label = key if "." in key else _LABELS.get(key, key.replace("_", " "))
        yield Difference(key, label, _jsonable(one), _jsonable(other), one == other)


def _jsonable(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _own(skeleton: Skeleton) -> dict[str, Any]:
    """The config with common names where there are any, so that unlike families can be compared; sections dotted."""
    aliases = {own for _, own in skeleton.aliases}
    flat: dict[str, Any] = {}
    for key, value in skeleton.config.items():
        if key in _IGNORED or key in aliases:
            continue
        if isinstance(value, dict) and key.endswith("config"):
            inner = {f"{key}.{name}": one for name, one in value.items() if name not in _IGNORED}
            flat.update({name: one for name, one in inner.items() if name not in aliases})
        else:
            flat[key] = value
    return flat


def _modules(skeleton: Skeleton) -> dict[str, str]:
    """Folded paths by the path without numbers, so that models of different depth can be compared."""
    return {_unnumbered(node.path): node.path for node in flatten(module_tree(skeleton)) if node.class_name}


def _shapes(skeleton: Skeleton) -> dict[str, Any]:
    return {_unnumbered(node.path): node.shape for node in flatten(module_tree(skeleton)) if node.shape is not None}


def _unnumbered(path: str) -> str:
    return ".".join("*" if part.replace("-", "").isdigit() else part for part in path.split("."))
