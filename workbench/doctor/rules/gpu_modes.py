"""Rules about modes of the GPU itself: MIG, and exclusive use."""

from __future__ import annotations

from workbench.doctor.facts import Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import (
    ALL_GPU_BENCHES,
    ISSUES,
    PASSED,
    Result,
    Rule,
    cuda_works,
    evidence,
    gpu_names,
    seen,
)


def compute_mode_exclusive(facts: Facts) -> Result:
    """Exclusive compute mode lets one process in."""
    error = facts.error("devices-busy")
    modes = [gpu.compute_mode for gpu in facts.nvidia_gpus() if gpu.compute_mode]
    limited = next((mode for mode in modes if mode.lower().replace("_", " ")[:2] in ("e.", "ex", "pr")), None)
    if error is None and (limited is None or cuda_works(facts) is not False):
        return None if not modes else PASSED
    return [
        Finding(
            "compute-mode-exclusive",
            "error",
            "Several ranks meet on one GPU, which is in exclusive mode and accepts one process"
            if facts.error("jsrun-set-of-several-ranks")
            else "The GPU accepts one process only, or none"
            if limited
            else "The GPU is busy or unavailable",
            "In exclusive compute mode a second process is refused with 'all CUDA-capable devices are busy or "
            "unavailable'. A vGPU guest without a licence and a half-installed driver say the same.",
            {**evidence(compute_mode=limited), **seen(error)},
            (
                *_on_a_cluster(facts),
                "sudo nvidia-smi -c 0   # default mode: several processes"
                + ("; on a cluster for its administrators" if _on_a_cluster(facts) else ""),
                "nvidia-smi   # which process holds it",
            ),
            ISSUES + "NVIDIA/DIGITS/issues/2005",
            affects=ALL_GPU_BENCHES,
            observed=error is not None,
        )
    ]


def _on_a_cluster(facts: Facts) -> tuple[str, ...]:
    """In a batch job nobody changes the mode: each process has to go to a GPU of its own."""
    if facts.origin != "report":
        return ()
    jsrun = facts.error("jsrun-set-of-several-ranks")
    if jsrun is not None:
        ranks = int(jsrun.values.get("ranks") or 1)
        return (
            f"jsrun -n {ranks} -g 1 -a 1 -c 7 …   # {ranks} resource sets with a rank and a GPU each: on Summit and "
            "its kin the GPUs are in exclusive mode, and a second rank is refused",
            "#BSUB -alloc_flags gpudefault   # in the job script, where several ranks are to share a GPU",
        )
    if facts.platform.service == "slurm":
        return (
            "nvidia-smi; echo $CUDA_VISIBLE_DEVICES   # in the job: it must be the GPU that Slurm gave, not one "
            "set by hand; in a container pass it on",
            "#SBATCH --exclusive, or ask the administrators: without ConstrainDevices=yes in cgroup.conf jobs meet on "
            "one GPU",
        )
    if facts.error("batch-job-told"):
        return (
            "nvidia-smi --query-compute-apps=gpu_uuid,pid,used_memory --format=csv; echo $CUDA_VISIBLE_DEVICES   # in "
            "the job, before the program: is the GPU that it was given held by another job? Then hand the job in again "
            "and tell the administrators its node and GPU",
            "export CUDA_VISIBLE_DEVICES=$(nvidia-smi --query-gpu=index,memory.used --format=csv,noheader,nounits | "
            "sort -t, -nk2 | head -1 | cut -d, -f1)   # only where the whole node is this job's: its emptiest GPU",
        )
    return ()


def mig(facts: Facts) -> Result:
    """MIG: a process sees one instance only."""
    error = facts.error("mig-parse")
    if error and "num_gpus" in error.text and not facts.error("mig-told"):
        error = None
    value = facts.environment.get("CUDA_VISIBLE_DEVICES", "")
    several = value.count("MIG-") > 1
    enabled = [gpu for gpu in facts.nvidia_gpus() if gpu.mig]
    if error is None and not several:
        if enabled and not facts.error("mig-no-devices"):
            return [_mig_note(facts)]
        return None if not any(gpu.mig is not None for gpu in facts.gpus or ()) else PASSED
    by_number = error is not None and not several and "num_gpus" not in error.text
    return [
        Finding(
            "mig-uuid-in-cuda-visible-devices",
            "error",
            "A MIG instance is named in a way that this program does not understand",
            "One process sees one MIG instance; several UUIDs, or code that expects plain numbers, fail.",
            {**evidence(CUDA_VISIBLE_DEVICES=value), **seen(error)},
            _by_number()
            if by_number
            else (
                "export CUDA_VISIBLE_DEVICES=MIG-<UUID>   # one of those that nvidia-smi -L lists, in each process",
                "or in docker: --gpus '\"device=0:0\"'; or sudo nvidia-smi -mig 0 to switch MIG off",
            ),
            ISSUES + "pytorch/pytorch/issues/130181",
            affects=ALL_GPU_BENCHES,
            observed=error is not None,
        )
    ]


def _by_number() -> tuple[str, ...]:
    """A program that turns the variable into a number takes no UUID; CUDA takes a number for MIG too."""
    return (
        "export CUDA_VISIBLE_DEVICES=0   # a number in place of the UUID: CUDA takes the first instance of that GPU; "
        "in a Slurm job or a pod it is the one that was given",
        "docker run --gpus '\"device=0:1\"' …   # another instance, the second of GPU 0: alone in a container, where "
        "its number is 0 too",
        "sudo nvidia-smi -mig 0   # where one program is to have the whole card",
    )


def gpu_uuid(facts: Facts) -> Result:
    """A program that turns each entry of CUDA_VISIBLE_DEVICES into a number, where a UUID stands."""
    error = facts.error("gpu-uuid-parse")
    if error is None:
        return PASSED
    index = (
        "export CUDA_VISIBLE_DEVICES=$(nvidia-smi --query-gpu=index,uuid --format=csv,noheader | grep -F -e "
        "\"${CUDA_VISIBLE_DEVICES//,/$'\\n'}\" | cut -d, -f1 | paste -sd,)   # the numbers of the same GPUs"
    )
    return [
        Finding(
            "gpu-uuid-in-cuda-visible-devices",
            "error",
            "CUDA_VISIBLE_DEVICES names GPUs by UUID, and this program takes numbers only",
            "CUDA knows both; vLLM and others compute with the number, and older releases of them know nothing else. "
            "Clusters and schedulers write the UUID.",
            {**evidence(gpus=gpu_names(facts)), **seen(error)},
            (
                index,
                "export CUDA_VISIBLE_DEVICES=0   # in a job or a container that is shown its own GPUs only: they count "
                "from 0",
            ),
            ISSUES + "vllm-project/vllm/issues/13815",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def _mig_note(facts: Facts) -> Finding:
    return Finding(
        "mig-mode",
        "info",
        "MIG is on: a process sees one instance with a part of the memory",
        "Memory and speed are those of the instance, not of the whole card.",
        evidence(gpus=gpu_names(facts)),
        (),
        "https://docs.nvidia.com/datacenter/tesla/mig-user-guide/",
        affects=("vram",),
        observed=True,
    )


RULES: tuple[Rule, ...] = (
    mig,
    gpu_uuid,
    compute_mode_exclusive,
)
