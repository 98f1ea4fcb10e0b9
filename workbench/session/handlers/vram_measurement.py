"""Measuring a plan, and what the loaded model holds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Optional

from workbench.models.gguf_convert import ensure_directory
from workbench.models.resolve import ResolvedModel
from workbench.session.handlers.architecture import config_of
from workbench.session.handlers.measured_points import compared, store_of
from workbench.session.handlers.vram import checked_plan, estimator_of
from workbench.session.protocol import (
    ListMeasurements,
    MeasureLoaded,
    MeasureMemory,
    MeasurementsListed,
    MemoryMeasured,
    Request,
)
from workbench.session.runtime import Context, Handler, Stage, quick
from workbench.vram.measure import measure
from workbench.vram.measure_loaded import corresponding_plan, standing, standing_errors
from workbench.vram.plan import plan_to_dict


def _measure(request: MeasureMemory, context: Context) -> MemoryMeasured:
    resolved, estimator = estimator_of(request.model, context)
    plan = checked_plan(request.plan, estimator.skeleton)
    config = config_of(resolved, {})
    store = store_of(context.runtime)
    budget = estimator.estimate(plan)
    if request.only_kept:
        point = store.find(config, plan)
    else:
        found = measure(config, plan, budget, _directory(resolved, context), request.device, context.job)
        point = store.add(resolved.name, config, plan, found)
    beside = compared(config, plan, budget, point)
    return MemoryMeasured(resolved.name, plan_to_dict(plan), beside.measurement, beside.errors)


def _directory(resolved: ResolvedModel, context: Context) -> Optional[str]:
    """Where the weights are, if they are on this box; a checkpoint that is quantized already is not a plan's model."""
    if not resolved.has_weights or (resolved.config or {}).get("quantization_config"):
        return None
    return str(ensure_directory(resolved, context.job))


def _measure_loaded(_request: MeasureLoaded, context: Context) -> MemoryMeasured:
    slot = context.runtime.require_slot()
    slot.generator.return_to_answer(context.job)
    found = standing(slot.loaded, slot.generator.cached_bytes, slot.generator.cached_tokens)
    plan = corresponding_plan(slot.loaded.facts, found.cached_tokens)
    _resolved, estimator = estimator_of(slot.status.name, context)
    budget = estimator.estimate(plan)
    return MemoryMeasured(
        slot.status.name, plan_to_dict(plan), asdict(found), {"estimate": standing_errors(found, budget)}
    )


def _list(request: ListMeasurements, context: Context) -> MeasurementsListed:
    store = store_of(context.runtime)
    points = store.points(request.model, request.limit)
    return MeasurementsListed([asdict(point) for point in points], store.note)


HANDLERS: dict[type[Request], Handler] = {
    MeasureMemory: Handler((Stage("children", _measure),)),
    MeasureLoaded: Handler((Stage("model", _measure_loaded),)),
    ListMeasurements: quick(_list),
}
