"""`simulate`: a plan's memory, simulated in a child process and kept on disk. Stdlib only.

A simulation changes the whole process (a device is registered, functions of torch are replaced), so it has one of
its own. That process stays for a while, as most of the time goes into importing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any, Optional, Union

from workbench import paths
from workbench.architecture.skeleton import Skeleton
from workbench.architecture.validate import check_config
from workbench.errors import WorkbenchError
from workbench.job import SILENT, Job
from workbench.packages import missing
from workbench.vram.child_process import ChildProcess
from workbench.vram.plan import Plan, check_plan, plan_to_dict
from workbench.vram.simulate.result import FORMAT_VERSION, Simulation, simulation_from_dict

MAX_ENTRIES = 300
"""Simulations kept; the oldest beyond this number are removed."""
LIBRARIES = ("torch", "transformers", "bitsandbytes", "peft")
"""Whose versions change what a plan takes."""


def simulate(source: Union[dict[str, Any], Skeleton], plan: Plan, job: Job = SILENT) -> Simulation:
    """The memory of `plan`, from a run of the real model classes on tensors without data.

    Args:
        source: the content of a ``config.json``, or a skeleton, whose config is taken.
        plan: what to run.
        job: phases and steps; cancelling kills the process at once.

    Raises:
        WorkbenchError: ``bad-plan``, ``unsupported-plan`` (sharded over GPUs), ``missing-package``,
            ``simulation-failed``, and as for a skeleton.
        JobCancelled: if the caller asked to stop.
    """
    config = source.config if isinstance(source, Skeleton) else source
    if isinstance(source, Skeleton):
        config = {**config, "architectures": [source.architecture]}
    check_config(config)
    check_plan(plan)
    _refuse_unsupported(plan)
    _refuse_token_loops(str(config.get("model_type")), plan)
    versions = library_versions()
    needed = ["torch", "transformers"]
    needed += ["bitsandbytes"] if plan.quant != "none" or "8bit" in plan.optimizer else []
    needed += ["peft"] if plan.has_adapters else []
    for library in needed:
        if library not in versions:
            raise missing(library, "Simulating this plan")
    entry = _entry_path(config, plan, versions)
    kept = _read(entry)
    if kept is not None:
        return kept
    request = {"config": config, "plan": plan_to_dict(plan), "versions": versions}
    found = simulation_from_dict(_process.ask(request, job))
    with contextlib.suppress(OSError):
        paths.write_atomic(entry, json.dumps(dataclasses.asdict(found)).encode("utf-8"))
        _prune(entry.parent)
    return found


def cached_simulation(
    source: Union[dict[str, Any], Skeleton], plan: Plan, versions: Optional[dict[str, str]] = None
) -> Optional[Simulation]:
    """The simulation of `plan` if it was made before with these libraries.

    Args:
        source: as for `simulate`.
        plan: what was run.
        versions: as `library_versions` says; for who asks of many plans.
    """
    config = source.config if isinstance(source, Skeleton) else source
    if isinstance(source, Skeleton):
        config = {**config, "architectures": [source.architecture]}
    return _read(_entry_path(config, plan, library_versions() if versions is None else versions))


def library_versions() -> dict[str, str]:
    """Versions of what is installed of `LIBRARIES`, without importing it."""
    found = {}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


_WHY_NOT = {
    **dict.fromkeys(("fsdp", "zero3"), "weights that are gathered and let go take several processes that talk"),
    **dict.fromkeys(("zero1", "zero2"), "state that is shared out takes several processes that talk"),
    "tp": "transformers cuts the layers while it loads them, on real devices",
    "pp": "stages that wait for each other take several processes that talk",
}


def _refuse_unsupported(plan: Plan) -> None:
    if plan.parallel in _WHY_NOT:
        raise WorkbenchError(
            "unsupported-plan",
            f"A job under {plan.parallel} is not simulated: {_WHY_NOT[plan.parallel]}.",
            "The estimate covers it by documented rules; or simulate one GPU that holds everything.",
        )


_LOOPS_OVER_TOKENS = frozenset({"falcon_mamba", "jamba", "mamba", "rwkv", "xlstm", "zamba"})
"""Models whose code, without kernels of its own, goes through the prompt token by token in Python."""
MOST_LOOPED = 1024
"""Tokens that such a loop simulates in about a minute; a training job has four times the steps."""


def _refuse_token_loops(model_type: str, plan: Plan) -> None:
    longest = MOST_LOOPED // 4 if plan.trains else MOST_LOOPED
    if model_type in _LOOPS_OVER_TOKENS and plan.sequence_length > longest:
        raise WorkbenchError(
            "unsupported-plan",
            f"{plan.sequence_length:,} tokens of {model_type} are not simulated: its code goes through them one by one "
            "in Python, which would take minutes.",
            f"The estimate stands; or simulate at most {longest:,}: activations and state of its layers grow in "
            "proportion.",
        )


def _entry_path(config: dict[str, Any], plan: Plan, versions: dict[str, str]) -> Path:
    subject = {"config": config, "plan": plan_to_dict(plan), "versions": versions, "format": FORMAT_VERSION}
    canonical = json.dumps(subject, sort_keys=True, separators=(",", ":"), default=str)
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
    return paths.cache_dir() / "simulations" / f"{digest}.json"


def _read(entry: Path) -> Optional[Simulation]:
    try:
        return simulation_from_dict(json.loads(entry.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _prune(folder: Path) -> None:
    entries = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in entries[:-MAX_ENTRIES]:
        path.unlink()


_process = ChildProcess(
    "workbench.vram.simulate.child",
    "simulation",
    "The estimate stands; the details are what the process wrote last.",
    {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
)
