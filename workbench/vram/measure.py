"""`measure`: a plan run for real, two steps, in a child process. Stdlib only.

The child does nothing else and ends with its answer, so that all memory is back whatever happened in it, and so that
running out of memory ends it alone.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Optional

from workbench.architecture.validate import check_config
from workbench.errors import WorkbenchError
from workbench.job import SILENT, Job
from workbench.packages import missing
from workbench.text import format_bytes
from workbench.vram.child_process import ChildProcess
from workbench.vram.estimate import Estimate
from workbench.vram.measured import Measurement, measurement_from_dict
from workbench.vram.plan import Plan, check_plan, plan_to_dict
from workbench.vram.simulate.run import library_versions

DEVICES = ("auto", "cpu", "cuda")
LIBRARIES_BYTES = 700 * 2**20
"""Resident after torch, transformers, peft and bitsandbytes were imported."""
CPU_MARGIN = 1.1
"""bitsandbytes' kernels for the CPU make temporaries that no rule covers: 7 % of a QLoRA step were seen."""


def measure(
    config: dict[str, Any],
    plan: Plan,
    budget: Estimate,
    directory: Optional[str] = None,
    device: str = "auto",
    job: Job = SILENT,
    guarded: bool = True,
) -> Measurement:
    """Run `plan` for real: load, then two training steps, or prefill and the first and last step of decoding.

    Between the two the KV cache is grown at once, as nothing but its length changes from step to step.

    Args:
        config: content of a ``config.json``.
        plan: what to run, on one device.
        budget: its estimate, held against the free memory before anything is loaded.
        directory: with weights that transformers loads; random ones take the same memory.
        device: ``auto`` takes the first GPU if there is one, else the CPU.
        job: phases ``load``, ``prepare``, ``forward`` and so on; cancelling kills the process at once.
        guarded: whether to refuse what does not fit the free memory.

    Raises:
        WorkbenchError: ``bad-plan``, ``bad-option``, ``unsupported-plan``, ``missing-package``, ``no-device``,
            ``too-large`` before anything was run, ``out-of-memory`` while it ran, ``measurement-failed``,
            ``measurement-died``.
        JobCancelled: if the caller asked to stop.
    """
    check_config(config)
    check_plan(plan)
    refuse_unsupported(plan)
    if device not in DEVICES:
        raise WorkbenchError("bad-option", f"Device {device!r:.40} is not known.", f"Choose {', '.join(DEVICES)}.")
    versions = library_versions()
    needed = ["torch", "transformers"]
    needed += ["bitsandbytes", "accelerate"] if plan.quant != "none" else []
    needed += ["bitsandbytes"] if "8bit" in plan.optimizer and plan.trains else []
    needed += ["peft"] if plan.has_adapters else []
    for library in needed:
        if library != "accelerate" and library not in versions:
            raise missing(library, "Measuring this plan")
    if guarded and (device == "cpu" or not _may_have_gpu()):
        check_room(cpu_needs(budget.allocated), free_memory_bytes(), "RAM")
    request = {
        "config": config,
        "plan": plan_to_dict(plan),
        "directory": directory,
        "device": device,
        "allocated_bytes": budget.allocated if guarded else 0,
        "total_bytes": budget.total if guarded else 0,
        "versions": versions,
    }
    return measurement_from_dict(_process.ask(request, job, once=True))


def refuse_unsupported(plan: Plan) -> None:
    """Refuse what is not run for real.

    Raises:
        WorkbenchError: ``unsupported-plan``.
    """
    reason = ""
    if plan.parallel != "none":
        reason = f"A job on {plan.gpus} GPUs ({plan.parallel})"
    elif plan.trains and plan.offload != "none":
        reason = "An optimizer in CPU memory"
    elif not plan.trains and plan.kv_dtype not in ("auto", plan.dtype):
        reason = f"A KV cache in {plan.kv_dtype}"
    if reason:
        raise WorkbenchError(
            "unsupported-plan",
            f"{reason} is not measured.",
            "The estimate covers it; or measure it with gpus 1, offload none and kv_dtype auto.",
        )


def cpu_needs(allocated: int) -> int:
    """Memory to have free for a run on the CPU whose tensors are estimated at `allocated` bytes."""
    return round(allocated * CPU_MARGIN) + LIBRARIES_BYTES if allocated else 0


def check_room(needed: int, free: Optional[int], what: str) -> None:
    """Refuse a run that would not fit.

    Raises:
        WorkbenchError: ``too-large``.
    """
    if free is not None and needed > free:
        raise WorkbenchError(
            "too-large",
            f"Not run: this plan needs about {format_bytes(needed)}, and {format_bytes(free)} of {what} are free.",
            "Take a smaller plan (batch, length, quantization), or unload what is loaded: workbench session unload.",
        )


def free_memory_bytes() -> Optional[int]:
    """RAM that a new process can have, under this control group's limit too; None where that is unknown.

    ``MemAvailable`` of proc(5); ``memory.max`` and ``memory.current`` of the kernel's cgroup-v2 document, less the file
    cache that would give way.
    """
    try:
        text = Path("/proc/meminfo").read_text("ascii")
        free = int(re.findall(r"MemAvailable:\s+(\d+) kB", text)[0]) * 1024
    except (OSError, IndexError, ValueError):
        return None
    left = _left_in_control_group()
    return free if left is None else min(free, left)


def _left_in_control_group() -> Optional[int]:
    try:
        path = re.findall(r"^0::(/.*)$", Path("/proc/self/cgroup").read_text("utf-8"), re.MULTILINE)[0]
        folder = Path("/sys/fs/cgroup") / path.lstrip("/")
        limit = int((folder / "memory.max").read_text("ascii"))
        used = int((folder / "memory.current").read_text("ascii"))
        cache = int(re.findall(r"^inactive_file (\d+)$", (folder / "memory.stat").read_text("ascii"), re.MULTILINE)[0])
    except (OSError, IndexError, ValueError):
        # No limit says "max", which is no number.
        return None
    return max(0, limit - used + cache)


def _may_have_gpu() -> bool:
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()


_process = ChildProcess(
    "workbench.vram.measure_child",
    "measurement",
    "Signal 9 means that the machine ran out of memory: take a smaller plan. The details are what it wrote last.",
    {"HF_HUB_OFFLINE": "1"},
)
