"""Rules about libcuda: the driver's own library, out of sight, or without the memory to start."""

from __future__ import annotations

import re

from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import (
    ALL_GPU_BENCHES,
    ISSUES,
    PASSED,
    Result,
    Rule,
    cuda_works,
    evidence,
    from_message,
    gpu_names,
    no_gpu_told,
    seen,
)
from workbench.doctor.rules.wsl import hands_in_no_gpu


def wsl_libcuda(facts: Facts) -> Result:
    """WSL: a Linux driver inside, or libcuda not on the loader's path."""
    if facts.platform.wsl is not True:
        return None if facts.platform.wsl is None else PASSED
    if facts.torch.build == "rocm" or (facts.has_amd() and not facts.has_nvidia()):
        return PASSED  # ROCm calls its device cuda, and wants no libcuda
    linux_driver = next((name for name in facts.packages if name.startswith("nvidia-driver-")), None)
    broken = cuda_works(facts) is False
    error = None if facts.environment.get("CUDA_VISIBLE_DEVICES") is not None else facts.error("no-cuda-gpus")
    told = no_gpu_told(facts) and facts.torch.build != "cpu"
    signs = linux_driver or facts.driver.libcuda == "" or facts.error("no-lcuda") or error or told
    # Another program may find another libcuda than torch, for which all is well.
    works = cuda_works(facts) and not (error and "cuInit" in error.text)
    too_many = facts.error("fewer-gpus-work", "error-2-init")  # fewer of them do run
    if works or not (broken or linux_driver or error) or not signs or too_many:
        return PASSED
    return [
        Finding(
            "wsl-libcuda",
            "error",
            "Under WSL the Windows driver's libcuda is not found, or another one comes before it",
            "WSL takes the driver from Windows through /usr/lib/wsl/lib; a Linux driver installed inside hides it, and "
            "programs from Nix or with a library path of their own do not look there.",
            {
                **evidence(
                    libcuda=facts.driver.libcuda,
                    kernel=facts.platform.kernel,
                    wsl=facts.platform.wsl,
                    cuda_available=facts.torch.cuda_available,
                ),
                **seen(error),
            },
            (
                "export LD_LIBRARY_PATH=/usr/lib/wsl/lib:$LD_LIBRARY_PATH   # and into ~/.bashrc",
                "sudo apt purge 'nvidia-driver-*' 'libnvidia-compute-*'   # inside WSL no driver may be installed",
                "wsl --update   # in PowerShell; then install the newest driver on Windows",
            ),
            ISSUES + "microsoft/WSL/issues/8587",
            affects=ALL_GPU_BENCHES,
            observed=broken or error is not None,
        )
    ]


def libcuda_not_visible(facts: Facts) -> Result:
    """nvidia-smi speaks to the kernel module but finds no libcuda."""
    error = facts.error("smi-no-cuda", "libcuda-missing")
    if error is None:
        return PASSED
    wsl = facts.platform.wsl
    if error.id == "libcuda-missing":
        # torch looks in more places than others do, so this may fail where torch works.
        asked_by_another = re.search(r"ould not load library|lib under the names|dynamically load the", error.text)
        if wsl and hands_in_no_gpu(facts):
            return PASSED
        there = not cuda_works(facts) and (wsl or facts.driver.smi or facts.driver.version)
        return [_libcuda_missing(facts, error)] if asked_by_another or there else PASSED
    if cuda_works(facts):
        return PASSED
    return [
        Finding(
            "libcuda-not-visible",
            "error",
            "nvidia-smi finds the driver, but no libcuda",
            "The CUDA version in its banner is read from libcuda; without one no CUDA program can start. In a "
            "container the compute capability of the driver was not asked for; in WSL the files from Windows do not "
            "fit.",
            {**evidence(driver=facts.driver.version, container=facts.platform.container), **seen(error)},
            ("wsl --update   # in PowerShell, with the newest NVIDIA driver on Windows; then wsl --shutdown",)
            if wsl
            else (
                "In a container: docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility …",
                "ldconfig -p | grep libcuda   # on the machine itself; reinstall the driver when this is empty",
            ),
            ISSUES + "microsoft/WSL/issues/11589",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def _libcuda_missing(facts: Facts, error: ErrorFact) -> Finding:
    wsl = facts.platform.wsl
    return Finding(
        "libcuda-not-visible",
        "error",
        "libcuda, the driver's library, is on no path of the loader" + (" in this WSL" if wsl else ""),
        "WSL keeps it in /usr/lib/wsl/lib, where programs other than torch do not look."
        if wsl
        else "It comes with the driver; only its folder is not known to the loader, or only libcuda.so.1 is there.",
        {**evidence(driver=facts.driver.version, container=facts.platform.container), **seen(error)},
        (
            "export LD_LIBRARY_PATH=/usr/lib/wsl/lib:$LD_LIBRARY_PATH   # and into ~/.bashrc",
            "wsl --update   # in PowerShell, with the newest NVIDIA driver on Windows; then wsl --shutdown",
        )
        if wsl
        else (
            "ldconfig -p | grep libcuda; sudo ldconfig   # reinstall the driver when this is empty",
            "sudo ln -s libcuda.so.1 <folder of libcuda.so.1>/libcuda.so   # where only the first is there",
            "In a container: docker run --gpus all …",
        ),
        ISSUES + "microsoft/WSL/issues/8587",
        affects=ALL_GPU_BENCHES,
        observed=True,
    )


def wsl_error_2(facts: Facts) -> Result:
    """WSL with several GPUs runs out of pinned memory at start."""
    error = facts.error("error-2-init")
    if error is None and facts.platform.wsl:
        error = facts.error("fewer-gpus-work")
    if error is None:
        return PASSED
    if not facts.platform.wsl:
        return [_one_card_refuses(facts, error)]
    return [
        Finding(
            "wsl-error-2",
            "error",
            "CUDA cannot start for want of pinned memory (error 2)",
            "Under WSL every visible GPU takes pinned memory at start; with several of them it runs out.",
            {**evidence(gpus=gpu_names(facts), kernel=facts.platform.kernel), **seen(error)},
            (
                _as_many_as_run(error),
                "more memory= in %UserProfile%\\.wslconfig, then wsl --shutdown",
                "the newest Windows driver, or native Linux",
            ),
            ISSUES + "microsoft/WSL/issues/9092",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def _as_many_as_run(error: ErrorFact) -> str:
    """Fewer GPUs: as many of them as the text says run, or one."""
    found = re.search(r"\b(?:set to|with|when|using)\b[^.\n]{0,20}\b([2-7]|two|three)\b", error.text, re.IGNORECASE)
    count = {"two": 2, "three": 3}.get(found[1].lower()) or int(found[1]) if found else 1
    return f"export CUDA_VISIBLE_DEVICES={','.join(map(str, range(count)))}   # fewer GPUs"


def _one_card_refuses(facts: Facts, error: ErrorFact) -> Finding:
    return Finding(
        "cuda-start-out-of-memory",
        "error",
        "CUDA cannot start: one of the GPUs that it sees has no memory for it, or is faulty (error 2)",
        "CUDA touches every visible GPU when it starts; a card that is full, or that hangs, keeps it from all of them.",
        {**evidence(gpus=gpu_names(facts), kernel=facts.platform.kernel), **seen(error)},
        (
            "for i in 0 1 2 3; do CUDA_VISIBLE_DEVICES=$i python -c 'import torch; print(torch.cuda.is_available())'; "
            "done   # which card is it? Leave it out: export CUDA_VISIBLE_DEVICES=<the others>",
            "nvidia-smi; sudo dmesg | grep -i xid   # is it full (end what holds it), or faulty (reset it, or reboot)?",
            "under WSL with several GPUs: more memory= in %UserProfile%\\.wslconfig, then wsl --shutdown",
        ),
        "https://docs.nvidia.com/deploy/xid-errors/index.html",
        affects=ALL_GPU_BENCHES,
        observed=True,
    )


def wsl_symlink_warning(facts: Facts) -> Result:
    """A harmless complaint of ldconfig."""
    return from_message(
        facts,
        ("wsl-symlink",),
        lambda error: Finding(
            "wsl-libcuda-symlink",
            "info",
            "'libcuda.so.1 is not a symbolic link' is harmless",
            "ldconfig says so of the files that WSL mounts; CUDA works all the same.",
            seen(error),
            (),
            ISSUES + "microsoft/WSL/issues/5663",
            observed=True,
        ),
    )


RULES: tuple[Rule, ...] = (
    wsl_libcuda,
    libcuda_not_visible,
    wsl_error_2,
    wsl_symlink_warning,
)
