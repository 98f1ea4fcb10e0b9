"""Rules about nvidia_uvm, the kernel module that CUDA needs beside the one that nvidia-smi speaks to."""

from __future__ import annotations

import re
from typing import Optional

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
    seen,
)

# What a program, torch or Ollama, says where it finds no GPU.
_SEES_NONE = re.compile(r"no-cuda-gpus|(?:symptom )?ollama-(?:gpu-not-used|finds-no-gpu)")
_RELOAD = "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm"


def cuda_unknown_error(facts: Facts) -> Result:
    """CUDA fails to start for want of the unified-memory device."""
    error = facts.error("cuda-unknown-error")
    nodes = facts.platform.devices
    # The uvm node appears on first use, so its absence alone says nothing while CUDA has not been tried.
    no_uvm = bool(nodes and "/dev/nvidiactl" in nodes and "/dev/nvidia-uvm" not in nodes and cuda_works(facts) is False)
    told = _told_of(facts) if error is None and not no_uvm else facts.error("after-suspend", "after-kernel-change")
    if error is None and not no_uvm and told is None:
        return None if nodes is None or cuda_works(facts) is None else PASSED
    suspended = told is not None and told.id == "after-suspend"
    new_kernel = told is not None and not suspended and error is None
    return [
        Finding(
            "cuda-unknown-error",
            "error",
            "Likely: the driver is older than the kernel, for which its module nvidia_uvm does not load"
            if new_kernel
            else "CUDA does not start: the nvidia_uvm module is stuck since the machine was suspended"
            if suspended
            else "CUDA does not start: the nvidia_uvm module is missing or stuck",
            "nvidia-smi asks the module nvidia, and CUDA nvidia_uvm besides. After suspend and resume, or when it was "
            "never loaded, CUDA finds no device although nvidia-smi works. Changing CUDA_VISIBLE_DEVICES inside the "
            "program does the same.",
            {**evidence(devices=nodes), **seen(error or told)},
            _new_driver() if new_kernel else _reload(facts, suspended),
            ISSUES + "pytorch/pytorch/issues/100095",
            affects=ALL_GPU_BENCHES,
            observed=error is not None or told is not None,
        )
    ]


def _told_of(facts: Facts) -> Optional[ErrorFact]:
    """That the machine slept, or got another kernel, where CUDA finds no GPU since."""
    blind = facts.torch.cuda_available is False or any(_SEES_NONE.match(error.id) for error in facts.errors)
    other = facts.platform.system in ("Windows", "Darwin") or facts.platform.wsl or facts.torch.build in ("cpu", "rocm")
    if not blind or other or facts.driver.error or facts.error("smi-cannot-communicate", "driver-lists-no-gpu"):
        return None
    return facts.error("after-suspend", "after-kernel-change")


def _new_driver() -> tuple[str, ...]:
    return (
        "sudo modprobe nvidia_uvm; sudo dmesg | tail   # what the kernel says of it: 'Unknown symbol' is an old driver",
        "sudo ubuntu-drivers install && sudo reboot   # or your distribution's newest driver: one made for this kernel",
        "or boot the kernel before, from the boot menu, and keep it: sudo apt-mark hold linux-image-generic",
    )


def _reload(facts: Facts, suspended: bool) -> tuple[str, ...]:
    kind = facts.platform.container
    again = "start it anew" if kind in ("apptainer", "kubernetes") else f"{kind or 'docker'} restart <container>"
    inside = f"; then the container: {again.replace(' (snap)', '')}"
    where = f"   # on the host, with nothing using the GPU{inside if kind else ''}"
    return (
        _RELOAD + where,
        "sudo nvidia-modprobe -u -c=0   # makes /dev/nvidia-uvm where the module is loaded",
        *(
            (
                "echo 'options nvidia NVreg_PreserveVideoMemoryAllocations=1' | sudo tee "
                "/etc/modprobe.d/nvidia-suspend.conf; sudo systemctl enable nvidia-suspend nvidia-resume "
                "nvidia-hibernate"
                "   # keeps it from coming back",
            )
            if suspended
            else ()
        ),
        "sudo reboot",
    )


def kaslr_hmm_uvm(facts: Facts) -> Result:
    """A known clash of new kernels with nvidia_uvm's heterogeneous memory."""
    return from_message(
        facts,
        ("hmm-uvm",),
        lambda error: Finding(
            "kaslr-hmm-uvm",
            "error",
            "nvidia_uvm cannot reserve its memory range on this kernel",
            "With address randomisation the kernel leaves no range for heterogeneous memory, and CUDA does not start.",
            {**evidence(kernel=facts.platform.kernel), **seen(error)},
            (
                "echo 'options nvidia_uvm uvm_disable_hmm=1' | sudo tee /etc/modprobe.d/nvidia-uvm.conf",
                "sudo update-initramfs -u && sudo reboot",
            ),
            "https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/index.html",
            affects=ALL_GPU_BENCHES,
            observed=True,
        ),
    )


RULES: tuple[Rule, ...] = (kaslr_hmm_uvm, cuda_unknown_error)
