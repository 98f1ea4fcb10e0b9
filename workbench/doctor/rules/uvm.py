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
    capabilities,
    cuda_works,
    evidence,
    seen,
)
from workbench.doctor.versions import at_least

# What a program, torch or Ollama, says where it finds no GPU.
_SEES_NONE = re.compile(r"no-cuda-gpus|(?:symptom )?ollama-(?:gpu-not-used|finds-no-gpu)")
# What a program says whose GPU was taken away under it; after suspend it is no fault of its kernels.
_LOST_BY_SLEEP = ("gpu-driver-lost-its-way", "gpu-memory-fault")
_RELOAD = "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm"


_WHY = (
    "nvidia-smi asks the module nvidia, and CUDA nvidia_uvm besides. After suspend and resume, or when it was never "
    "loaded, CUDA finds no device although nvidia-smi works. Changing CUDA_VISIBLE_DEVICES inside the program does "
    "the same."
)
_WHY_ON_WINDOWS = (
    "The driver answers CUDA with its 'unknown error': after sleep, after an update without a restart, or where "
    "CUDA_VISIBLE_DEVICES was changed once the program had started."
)


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
            else "CUDA does not start: the driver is stuck, or the program hid its GPUs after it had started"
            if facts.platform.system == "Windows"
            else "CUDA does not start: the nvidia_uvm module is missing or stuck",
            _WHY_ON_WINDOWS if facts.platform.system == "Windows" else _WHY,
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
    slept = facts.error("after-suspend")
    if slept is not None and facts.error(*_LOST_BY_SLEEP):
        return slept
    other = facts.platform.system in ("Windows", "Darwin") or facts.platform.wsl or facts.torch.build in ("cpu", "rocm")
    if not blind or other or facts.driver.error or facts.error("smi-cannot-communicate", "driver-lists-no-gpu"):
        return None
    return facts.error("after-suspend", "after-kernel-change")


def _for_lxc() -> tuple[str, ...]:
    """A container of LXC has the device files of its host, made before it starts and by the numbers of this boot."""
    return (
        "sudo nvidia-modprobe -u -c=0 && ls -l /dev/nvidia*   # on the host (Proxmox itself): loads nvidia_uvm and "
        "makes /dev/nvidia-uvm; the number before its comma is another one after many boots",
        "In /etc/pve/lxc/<id>.conf: dev0: /dev/nvidia0, dev1: /dev/nvidiactl, dev2: /dev/nvidia-uvm, dev3: "
        "/dev/nvidia-uvm-tools   # follows the number by itself; with lxc.cgroup2.devices.allow: c <that number>:* rwm "
        "and lxc.mount.entry it has to be changed by hand; then: pct reboot <id>",
        "On the host, for every boot: (sudo crontab -l; echo '@reboot /usr/bin/nvidia-modprobe -u -c=0') | sudo "
        "crontab -   # the container must not start before it: startup: up=60 in its options",
        _RELOAD + "   # on the host, where it stays: with nothing using the GPU",
    )


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
    if kind == "lxc" and not suspended:
        return _for_lxc()
    fresh = facts.error("driver-just-installed") is not None and not facts.error("rebooted-in-vain")
    rebooted_first = fresh and not kind and not suspended
    first = "sudo reboot   # a driver that was installed or updated just now is whole only after it; if it stays:"
    return (
        *((first,) if rebooted_first else ()),
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
        *(() if rebooted_first else ("sudo reboot",)),
    )


def kaslr_hmm_uvm(facts: Facts) -> Result:
    """A known clash of new kernels with nvidia_uvm's heterogeneous memory."""
    error = facts.error("hmm-uvm")
    likely = _hmm_likely(facts) if error is None else None
    if error is None and likely is None:
        return PASSED
    return [
        Finding(
            "kaslr-hmm-uvm",
            "error",
            "nvidia_uvm cannot reserve its memory range on this kernel"
            if error
            else "CUDA does not start with NVIDIA's open kernel modules: most likely nvidia_uvm's HMM does not come up",
            "With address randomisation the kernel leaves no range for heterogeneous memory, and CUDA does not start, "
            "though nvidia-smi lists the GPU. Only the open modules have it.",
            {**evidence(kernel=facts.platform.kernel, driver=facts.driver.version), **seen(error or likely)},
            (
                "echo 'options nvidia_uvm uvm_disable_hmm=1' | sudo tee /etc/modprobe.d/nvidia-uvm.conf && sudo "
                "update-initramfs -u && sudo reboot",
                "sudo dmesg | grep -iE 'uvm|request_free_mem_region'   # err -34 is this; nokaslr for the kernel does "
                "the same",
            ),
            "https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/index.html"
            if error
            else ISSUES + "NVIDIA/open-gpu-kernel-modules/issues/947",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def _hmm_likely(facts: Facts) -> Optional[ErrorFact]:
    """That CUDA's own start fails at once, outside any fork, on a machine with the open modules, which have HMM."""
    error = facts.error("cuinit-not-initialized") or facts.error("cuda-in-forked-process", *_OLLAMA)
    blackwell = any(at_least(capability, "10.0") for _, capability in capabilities(facts))
    is_open = facts.error("open-modules-told", "needs-open-modules") is not None or blackwell
    elsewhere = facts.platform.wsl or facts.platform.system == "Windows" or facts.error("after-suspend")
    if error is None or not is_open or elsewhere:
        return None
    if error.id in _OLLAMA and error.values.get("code") != "3":
        return None
    forked = error.id == "cuda-in-forked-process" and _FORKS.search(error.text)
    return None if forked or facts.torch.version else error


_OLLAMA = ("ollama-driver-does-not-start",)
_FORKS = re.compile(r"fork|worker|Triton Error", re.IGNORECASE)


RULES: tuple[Rule, ...] = (kaslr_hmm_uvm, cuda_unknown_error)
