"""Measured points held against the estimate and the simulation of the same plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Optional

from workbench.errors import WorkbenchError
from workbench.session.runtime import Runtime
from workbench.vram.estimate import Estimate
from workbench.vram.measured import MeasuredStore, Measurement, Point, cpu_errors, errors
from workbench.vram.plan import Plan
from workbench.vram.shares import CATEGORIES
from workbench.vram.simulate.run import cached_simulation


@dataclass(frozen=True)
class Beside:
    """What was measured of a plan, and how far the predictions lie from it."""

    measurement: Optional[dict[str, Any]] = None
    errors: dict[str, dict[str, Optional[float]]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def store_of(runtime: Runtime) -> MeasuredStore:
    """The points of this box."""
    store: MeasuredStore = runtime.services.setdefault("measured", MeasuredStore())
    return store


def measured_beside(
    config: dict[str, Any], plan: Plan, budget: Estimate, gpus: Sequence[str], runtime: Runtime
) -> Beside:
    """The point of exactly this model and plan, if there is one; a store that cannot be read is a warning."""
    try:
        point = store_of(runtime).find(config, plan, gpus)
    except WorkbenchError as error:
        return Beside(warnings=(error.message,))
    return compared(config, plan, budget, point)


def compared(config: dict[str, Any], plan: Plan, budget: Estimate, point: Optional[Point]) -> Beside:
    """A point with the errors of the estimate and of the simulation that was made before."""
    if point is None:
        return Beside()
    measurement = point.measurement
    sizes = {name: getattr(budget, name) for name in (*CATEGORIES, "total")}
    found = {"estimate": errors(sizes, budget.allocated, measurement)}
    if measurement.cpu_simulated_bytes is not None:
        found["cpu_simulation"] = cpu_errors(measurement)
    simulation = cached_simulation(config, plan)
    if simulation is not None:
        found["simulation"] = errors(asdict(simulation), _allocated(simulation, measurement), measurement)
    return Beside({**asdict(measurement), "measured_at": point.measured_at}, found)


def _allocated(simulation: Any, measurement: Measurement) -> int:
    """What the simulation says of the same count: the allocator's, or the tensors' alone."""
    if measurement.device_kind == "cuda":
        return int(simulation.allocated_bytes)
    return int(simulation.requested_bytes - simulation.workspace_bytes)
