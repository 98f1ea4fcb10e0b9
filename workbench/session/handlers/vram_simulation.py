"""Simulating a plan."""

from __future__ import annotations

from dataclasses import asdict

from workbench.models.resolve import resolve
from workbench.session.handlers.architecture import config_of
from workbench.session.handlers.vram import checked_plan, estimator_of
from workbench.session.protocol import MemorySimulated, Request, SimulateMemory
from workbench.session.runtime import Context, Handler, Stage
from workbench.vram.plan import plan_from_dict, plan_to_dict
from workbench.vram.simulate.run import cached_simulation, simulate


def _simulate(request: SimulateMemory, context: Context) -> MemorySimulated:
    plan = plan_from_dict(request.plan)
    resolved = resolve(request.model, context.job)
    config = config_of(resolved, {})
    if request.only_kept:
        found = cached_simulation(config, plan)
    else:
        # What the model cannot have is refused in words before a library does it in its own.
        _resolved, estimator = estimator_of(request.model, context)
        estimator.estimate(checked_plan(request.plan, estimator.skeleton))
        found = simulate(config, plan, context.job)
    return MemorySimulated(resolved.name, plan_to_dict(plan), None if found is None else asdict(found))


HANDLERS: dict[type[Request], Handler] = {SimulateMemory: Handler((Stage("children", _simulate),))}
