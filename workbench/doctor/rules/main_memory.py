"""What to do first where main memory ran out: it depends on who limits it, and on who fills it."""

from __future__ import annotations

from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import Facts

_OFFLOAD = (
    "In DeepSpeed's config take out offload_param and offload_optimizer, or set their device to nvme with an nvme_path "
    "  # in main memory they need about 16 bytes for each parameter: 110 GB for 7 billion",
    "Where the GPUs are then too small: LoRA, or an 8-bit optimizer; fewer processes on a machine, as each of them "
    "loads the weights",
)
_BY_PLACE = {
    "colab": (
        "Runtime, Change runtime type: High-RAM (Pro), or a smaller model or a part of the data at a time   # the free "
        "one has 12.7 GB",
    ),
    "kaggle": ("Settings, Accelerator: GPU T4 x2   # 30 GB of main memory; or a smaller model, a part of the data",),
    "slurm": ("#SBATCH --mem=64G   # or --mem-per-cpu: without it a job gets a small default, and is killed above it",),
    "kubernetes": ("In the pod: resources: {requests: {memory: 64Gi}, limits: {memory: 64Gi}}",),
    "docker": ("docker run --memory=<more> …   # in compose mem_limit; without one, more swap on the host:",),
}
_SWAP = (
    "sudo fallocate -l 64G /swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile && sudo swapon /swapfile   # "
    "more main memory, slower, on the disk"
)


_WORKERS = (
    "DataLoader(num_workers=2, or 0; persistent_workers=False, a smaller prefetch_factor)   # each worker has its own "
    "copy of the data set; what it holds as lists of Python objects is copied as it is read: take arrays, or a memory "
    "map",
)


def _of_a_loader(facts: Facts) -> bool:
    killed = facts.error("killed-worker")
    return killed is not None and "DataLoader worker" in killed.text


def title(facts: Facts) -> Optional[str]:
    """Whose memory ran out, where it is not the machine's."""
    if facts.error("memory-for-offload-missing", "process-pool-broke"):
        return None
    if facts.platform.service == "slurm":
        return "The job took more main memory than it had asked the batch system for, and was ended"
    if facts.platform.container == "kubernetes":
        return "The container took more main memory than its limit allows, and was ended"
    return None


def steps(facts: Facts) -> tuple[str, ...]:
    """What gives the process more main memory here, or makes it need less."""
    if fixes.on_windows(facts) or facts.platform.wsl or facts.platform.system == "Darwin":
        return ()
    machine = facts.platform
    place = next((_BY_PLACE[name] for name in (machine.service, machine.container) if name in _BY_PLACE), ())
    fills = _OFFLOAD if facts.error("offload-to-memory") else _WORKERS if _of_a_loader(facts) else ()
    bound = machine.service or machine.container == "kubernetes" or facts.error("rented-machine")
    return (*fills, *place) if bound else (*fills, *place, _SWAP)
