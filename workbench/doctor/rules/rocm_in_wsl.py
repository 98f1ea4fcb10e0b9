"""AMD GPUs inside WSL: what ROCm needs there, where no /dev/kfd is, and which cards it takes. Needs the tables."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules import amd_windows
from workbench.doctor.rules.common import ALL_GPU_BENCHES, evidence, gpu_names, no_gpu_told, seen

_GUIDE = "https://rocm.docs.amd.com/projects/radeon-ryzen/en/latest/docs/install/installrad/wsl/install-radeon.html"
# AMD's table of cards for WSL has begun with RDNA 3.
_TAKEN = re.compile(r"gfx1[12]\d\w")
_LIB = "$(python -c 'import os, torch; print(os.path.dirname(torch.__file__))')/lib"
# https://rocm.docs.amd.com/projects/radeon/en/docs-6.3/docs/install/wsl/install-pytorch.html
_WHEELS_OWN = (
    f"rm {_LIB}/libhsa-runtime64.so*   # in its environment: the wheel's own HSA runtime knows no /dev/dxg, and that "
    "of ROCm for WSL in /opt/rocm/lib is taken then"
)
_SYSTEM = (
    "Install the newest AMD Adrenalin driver in Windows 11, and run: wsl --update; wsl --shutdown   # in PowerShell",
    f"sudo amdgpu-install -y --usecase=wsl,rocm --no-dkms   # in Ubuntu 22.04 or 24.04, of the release that names this "
    f"card: {_GUIDE}",
    "sudo apt remove libhsa-runtime64-1 libhsakmt1   # Ubuntu's own, older ones, which hide those of /opt/rocm",
    "ls -l /dev/dxg   # WSL's GPU; there is no /dev/kfd in it. Supported are RX 7900, RX 9000 and some Radeon Pro",
)


def silent(facts: Facts) -> Optional[ErrorFact]:
    """What tells without an error that ROCm has no GPU: torch by its answer; in WSL rocminfo by its list."""
    if facts.has_nvidia() or not facts.has_amd() or facts.error("works-as-root", "gpu-device-not-allowed"):
        return None
    wsl = bool(facts.platform.wsl)
    answered = no_gpu_told(facts) or (wsl and facts.torch.cuda_available is False)
    if facts.torch.build == "rocm" and answered:
        return ErrorFact("hip-no-gpus", "torch.cuda.is_available(): False")
    return facts.error("rocminfo-lists-no-gpu") if wsl else None


def no_device(facts: Facts, error: ErrorFact, gfx: Optional[str]) -> Finding:
    """ROCm finds no GPU in this WSL."""
    left_out = gfx is not None and not _TAKEN.fullmatch(gfx)
    return Finding(
        "rocm-no-device",
        "error",
        f"ROCm in WSL does not take this card ({gfx})" if left_out else "ROCm finds no GPU in this WSL",
        "In WSL the GPU comes from Windows through /dev/dxg, which ROCm's own libraries for WSL speak to; AMD has them "
        "for RX 7000 and newer and some Radeon Pro.",
        {**evidence(gpus=gpu_names(facts), gfx=gfx, torch__version=facts.torch.version), **seen(error)},
        _elsewhere(facts) if left_out else (*((_WHEELS_OWN,) if _asked_by_torch(facts, error) else ()), *_SYSTEM),
        _GUIDE,
        affects=ALL_GPU_BENCHES,
        observed=True,
    )


def _asked_by_torch(facts: Facts, error: ErrorFact) -> bool:
    told = facts.torch.build == "rocm" or "rocm" in (facts.torch.version or "")
    return told or "no hip gpus are available" in error.text.lower()


def _elsewhere(facts: Facts) -> tuple[str, ...]:
    return (
        "Linux on the machine itself (dual boot), with ROCm and a ROCm build of torch: there RX 6000 runs, as gfx1030 "
        "or with HSA_OVERRIDE_GFX_VERSION=10.3.0",
        f"or Windows itself, without WSL: {fixes.install(facts, 'torch-directml')}, or the program's version for "
        "DirectML or ZLUDA",
        f"Cards of RX 7000 and newer have builds for Windows: {amd_windows.BUILDS}",
    )
