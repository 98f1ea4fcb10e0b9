"""Holding a plan against GPUs."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Optional

from workbench.architecture.cache import load_skeleton
from workbench.doctor import nvidia
from workbench.doctor.commands import Command, Output
from workbench.models.resolve import resolve
from workbench.session.handlers.architecture import config_of
from workbench.session.protocol import EstimateMemory, MemoryEstimated, Request
from workbench.session.runtime import Context, Handler, Runtime, quick
from workbench.vram.estimate import CATEGORIES, estimate, fits
from workbench.vram.gpus import Gpu, parse_gpu
from workbench.vram.plan import plan_from_dict, plan_to_dict

NVIDIA_SMI_SECONDS = 5.0


def _present_gpus(runtime: Runtime) -> list[Gpu]:
    """The NVIDIA GPUs of this box, asked for once per worker: they do not change, and nvidia-smi takes its time."""
    found: Optional[list[Gpu]] = runtime.services.get("gpus")
    if found is None:
        query = Command(*nvidia.QUERY).finish(time.monotonic() + NVIDIA_SMI_SECONDS)
        nothing = Output(None, "")
        found = [
            Gpu(name=f"{gpu.name} #{gpu.index}", capacity_bytes=gpu.memory_bytes, source="nvidia-smi")
            for gpu in nvidia.gpus_from(query, nothing, nothing) or ()
            if gpu.name and gpu.memory_bytes
        ]
        runtime.services["gpus"] = found
    return found


def _estimate(request: EstimateMemory, context: Context) -> MemoryEstimated:
    plan = plan_from_dict(request.plan)
    gpus = [parse_gpu(name) for name in request.gpus] or _present_gpus(context.runtime)
    resolved = resolve(request.model, context.job)
    budget = estimate(plan, load_skeleton(config_of(resolved, {}), context.job))
    return MemoryEstimated(
        {
            "model": resolved.name,
            "plan": plan_to_dict(plan),
            "estimate": {name: getattr(budget, name) for name in (*CATEGORIES, "total")},
            "known": {category.name: category.known for category in budget.categories},
            "why": {category.name: category.why for category in budget.categories},
            "warnings": list(budget.warnings),
            "suggestions": [],
            "cost": {"flops_per_token": None, "training_flops": None, "seconds": None, "usd": None},
            "simulation": None,
            "measurement": None,
            "gpus": [asdict(fit) for fit in fits(budget, gpus)],
        }
    )


HANDLERS: dict[type[Request], Handler] = {EstimateMemory: quick(_estimate)}
