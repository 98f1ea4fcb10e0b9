"""What one part of a model takes of a plan's budget: the bytes that belong to modules, not to the step. Stdlib only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from workbench.architecture.skeleton import Skeleton
from workbench.errors import WorkbenchError
from workbench.vram.adapters import trained_tensors
from workbench.vram.kv_cache import kv_cache_by_layer
from workbench.vram.optimizer import Trained, optimizer_bytes
from workbench.vram.plan import Plan
from workbench.vram.weights import weight_bytes


@dataclass(frozen=True)
class ModuleBytes:
    """Modules with all below them. On one GPU: what sharing a job among several leaves on each is not told apart."""

    parameters: int
    """Tied tensors are counted where they stand first."""
    weights: int
    adapters: int
    gradients: int
    """When all are there, at the end of backward."""
    optimizer: int
    kv_cache: int
    """Of the layers whose attention is among the modules, at its largest."""


def module_bytes(skeleton: Skeleton, plan: Plan, modules: Sequence[str]) -> ModuleBytes:
    """What the named modules of `skeleton` take under `plan`.

    Args:
        skeleton: the whole model.
        plan: a plan that was checked.
        modules: dotted names of modules or tensors; the empty name is the model.

    Raises:
        WorkbenchError: ``bad-plan`` for a cache that this model cannot have.
    """
    wanted = frozenset(modules)

    def inside(name: str) -> bool:
        parts = name.split(".")
        return "" in wanted or any(".".join(parts[:depth]) in wanted for depth in range(1, len(parts) + 1))

    weights = weight_bytes(skeleton, plan, inside)
    trained = _trained(skeleton, plan, inside)
    size = sum(tensor.bytes for tensor in trained)
    return ModuleBytes(
        parameters=weights.total_parameters,
        weights=weights.total,
        adapters=size if plan.has_adapters else 0,
        gradients=size,
        optimizer=optimizer_bytes(trained, plan).state if trained else 0,
        kv_cache=0 if plan.trains else _kv_cache(skeleton, plan, inside),
    )


def _trained(skeleton: Skeleton, plan: Plan, inside: Callable[[str], bool]) -> tuple[Trained, ...]:
    part = replace(
        skeleton,
        modules=tuple(module for module in skeleton.modules if inside(module.name)),
        parameters=tuple(entry for entry in skeleton.parameters if inside(entry.name)),
    )
    try:
        return trained_tensors(part, plan)
    except WorkbenchError as error:
        if error.kind != "bad-lora":
            raise
        return ()  # no target is in this part


def _kv_cache(skeleton: Skeleton, plan: Plan, inside: Callable[[str], bool]) -> int:
    """By the attention modules, of which each layer with a cache has one; 0 where they cannot be told apart."""
    by_layer = kv_cache_by_layer(skeleton, plan)
    found: list[str] = []
    for module in skeleton.modules:
        # An attention module may hold another one (BertAttention); the outer one counts.
        if "Attention" in module.class_name and not (found and module.name.startswith(f"{found[-1]}.")):
            found.append(module.name)
    if len(found) != len(by_layer):
        return sum(by_layer) if inside("") else 0
    return sum(size for name, size in zip(found, by_layer) if inside(name))
