"""Rules about WSL: what Windows and its driver must be before a Linux inside sees the GPU."""

from __future__ import annotations

from typing import Optional

from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import (
    ALL_GPU_BENCHES,
    PASSED,
    Result,
    Rule,
    cuda_works,
    evidence,
    gpu_names,
    no_gpu_told,
    seen,
)
from workbench.doctor.rules.hand_in import FIRST_DRIVER, WSL_GUIDE
from workbench.doctor.versions import older

_FIRST_BUILD = 19044
"""Windows 10 21H2, the first release with CUDA in WSL
(https://learn.microsoft.com/windows/ai/directml/gpu-cuda-in-wsl)."""
_SERVER_2022 = 20348
_NO_GPU = (
    "wsl-gpu-blocked",
    "nvml-fails",
    "smi-cannot-communicate",
    "no-nvidia-driver",
    "no-nvml",
    "no-cuda-gpus",
    "driver-insufficient",
    "driver-too-old",
    "driver-init-failed",
    "devices-busy",
    "libcuda-missing",
    "needs-gpu",
    "smi-fails-told",
)


def _complaint(facts: Facts) -> tuple[bool, Optional[ErrorFact]]:
    """Whether a GPU is missed in this WSL, with the message that says so."""
    error = facts.error(*_NO_GPU)
    missed = bool(facts.platform.wsl) and not cuda_works(facts)
    return missed and (error is not None or facts.torch.cuda_available is False or no_gpu_told(facts)), error


def hands_in_no_gpu(facts: Facts) -> bool:
    """Whether this Windows is known to have no CUDA for WSL: then no libcuda lies there either."""
    build = facts.platform.windows_build
    return build is not None and (build < _FIRST_BUILD or build == _SERVER_2022)


def windows_too_old(facts: Facts) -> Result:
    """CUDA in WSL came with Windows 10 21H2."""
    build = facts.platform.windows_build
    missed, error = _complaint(facts)
    if build is None:
        return None
    if facts.error("fewer-gpus-work", "error-2-init"):
        return PASSED  # CUDA reaches the GPUs there
    if not missed or not hands_in_no_gpu(facts):
        return PASSED
    server = build == _SERVER_2022
    return [
        Finding(
            "wsl-windows-too-old",
            "error",
            "Windows Server 2022 hands no GPU to WSL"
            if server
            else f"This Windows (build {build}) is too old for CUDA in WSL",
            "The GPU reaches WSL through Windows' own driver model, which "
            + (
                "Server has from 2025 on."
                if server
                else "has CUDA from Windows 10 21H2 (build 19044) and Windows 11 on."
            ),
            {**evidence(windows_build=build, kernel=facts.platform.kernel), **seen(error)},
            (
                "Take Windows Server 2025 or Windows 11; or run the work in Windows itself, or in Linux on the machine."
                if server
                else "Settings, Update: Windows 10 22H2 or Windows 11; winver shows the build.",
                "Then the newest NVIDIA driver in Windows (https://www.nvidia.com/drivers), none inside WSL",
                "wsl --update; wsl --set-version <distribution> 2; wsl --shutdown   # in PowerShell; wsl -l -v names "
                "it and its version; after it nvidia-smi in WSL must list the GPU",
            ),
            WSL_GUIDE,
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def driver_too_old(facts: Facts) -> Result:
    """A driver of Windows from before CUDA in WSL."""
    missed, error = _complaint(facts)
    if facts.driver.version is None or facts.platform.wsl is not True:
        return None
    if not missed or not older(facts.driver.version, FIRST_DRIVER):
        return PASSED
    return [
        Finding(
            "wsl-driver-too-old",
            "error",
            f"The NVIDIA driver of Windows ({facts.driver.version}) is too old for CUDA in WSL",
            "WSL uses the driver of Windows, and only those from 471 on bring the part for Linux.",
            {**evidence(driver=facts.driver.version), **seen(error)},
            (
                "Install the newest NVIDIA driver in Windows, none inside WSL: https://www.nvidia.com/drivers",
                "wsl --update; wsl --shutdown   # in PowerShell, then open the distribution again",
            ),
            WSL_GUIDE,
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def card_in_tcc_mode(facts: Facts) -> Result:
    """WSL takes only cards that Windows drives as displays."""
    missed, error = _complaint(facts)
    in_tcc = [gpu for gpu in facts.nvidia_gpus() if gpu.driver_model == "TCC"]
    if facts.platform.wsl is not True or not in_tcc:
        return PASSED if facts.platform.wsl is False else None
    if not missed:
        return PASSED
    numbers = ", ".join(str(gpu.index or 0) for gpu in in_tcc)
    return [
        Finding(
            "wsl-gpu-in-tcc-mode",
            "error",
            f"GPU {numbers} runs in TCC mode, which WSL cannot use",
            "WSL shares only GPUs in WDDM mode; one in TCC mode beside them makes NVML fail for all of them.",
            {**evidence(gpus=gpu_names(facts), driver_model="TCC"), **seen(error)},
            (
                f"nvidia-smi -i {in_tcc[0].index or 0} -dm 0   # in Windows, as administrator: WDDM; then restart. "
                "Cards that have no WDDM mode cannot be used in WSL",
                "or hide it from WSL: disable the card in Windows' Device Manager",
                "wsl --update; wsl --shutdown",
            ),
            WSL_GUIDE,
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def gpu_blocked(facts: Facts) -> Result:
    """The NVIDIA tools inside WSL ask a Linux driver that is not there, or a Windows that lets nobody in."""
    error = facts.error("wsl-gpu-blocked")
    if error is None and facts.platform.wsl and facts.platform.wsl_version != 1 and not cuda_works(facts):
        error = facts.error("nvml-fails", "smi-cannot-communicate", "nvidia-module-missing")
    if error is None:
        return PASSED
    return [
        Finding(
            "wsl-gpu-blocked",
            "error",
            "The NVIDIA tools here do not reach the GPU: under WSL, a Linux driver was installed inside, or WSL is "
            "too old",
            "WSL takes libcuda, libnvidia-ml and nvidia-smi from the driver of Windows, in /usr/lib/wsl/lib. Packages "
            "of a Linux driver (nvidia-utils, libnvidia-compute, or the cuda package that pulls them in) put others "
            "before them, which ask a kernel module that is not there.",
            seen(error),
            (
                "sudo apt purge 'nvidia-utils-*' 'nvidia-driver-*' 'libnvidia-*' && sudo apt autoremove   # inside "
                "WSL no "
                "driver is installed; cuda-toolkit may stay",
                "wsl --update; wsl --shutdown   # in PowerShell, with the newest NVIDIA driver in Windows; then open "
                "the distribution again (wsl -l -v must show version 2)",
                "/usr/lib/wsl/lib/nvidia-smi   # must list the GPU",
                "In a container without WSL: run the container with the NVIDIA runtime, and with the right cgroup "
                "(--gpus all)",
            ),
            WSL_GUIDE,
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


RULES: tuple[Rule, ...] = (windows_too_old, driver_too_old, card_in_tcc_mode, gpu_blocked)
