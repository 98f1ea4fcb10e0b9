"""Rules about the kernel, its modules and the NVIDIA driver."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
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
    seen,
)
from workbench.doctor.rules.hand_in import WSL_GUIDE, ask_batch_system, hand_in_gpu, wsl_steps
from workbench.doctor.rules.kernel_module import build_module, kernel_module_not_loaded
from workbench.doctor.versions import older, parse_version

_OF_TENSORFLOW = re.compile(r"tensorflow|StreamExecutor|cuda_(?:driver|diagnostics)\.cc")
_NOT_BY_REBOOT = (
    "sudo apt update && sudo apt --fix-broken install && sudo apt install --reinstall nvidia-driver-<branch> "
    "nvidia-dkms-<branch>   # both "
    "of one version; dkms status must list the module for this kernel",
    "sudo update-initramfs -u && sudo reboot   # else the old module is loaded from there again",
    "cat /proc/driver/nvidia/version; modinfo nvidia | grep ^version; dpkg -l | grep -i nvidia   # which part is old",
    "Where a driver was once installed from a .run file: sudo nvidia-uninstall, then the packages of the distribution",
)


def driver_library_version_mismatch(facts: Facts) -> Result:
    """The user-space driver library is of another version than the loaded kernel module."""
    error = facts.error("nvml-mismatch")
    kernel, library = facts.driver.kernel_module, facts.driver.library
    differ = bool(kernel and library and parse_version(kernel) != parse_version(library))
    if error is None and not differ:
        return None if kernel is None or library is None else PASSED
    if error is None and cuda_works(facts):
        return PASSED
    # A table of nvidia-smi in the same paste is that of a place where it works, mostly the host.
    # What the container toolkit says, it says on the host.
    # So does the distribution's own update tell of the host.
    on_host = bool(error and re.search(r"nvidia-container-cli|nvidia-docker\b", error.text))
    on_host = on_host or facts.error("system-updated-told") is not None
    listed = bool(error and facts.origin == "report" and facts.driver.version)
    inside = not on_host and (bool(facts.platform.container) or listed)
    fix = (
        _libraries_inside(facts, error)
        if inside
        else _same_release(facts)
        or (
            _NOT_BY_REBOOT
            if facts.error("rebooted-in-vain")
            else _by_one_way(facts)
            if facts.error("driver-from-run-file")
            else _REBOOT
        )
    )
    return [
        Finding(
            "driver-library-version-mismatch",
            "error",
            "The NVIDIA libraries here are not of the host's driver"
            if inside
            else "The NVIDIA kernel module and the driver's libraries were installed in two versions"
            if _same_release(facts)
            else "The NVIDIA kernel module and the driver's libraries are of two versions, even after a reboot"
            if facts.error("rebooted-in-vain")
            else "The NVIDIA driver was updated under a running kernel module",
            "The kernel module is the host's, and the libraries that ask it, in a container mostly, are of another "
            "version: they were left from before an update, or came with the image."
            if inside
            else "The kernel still runs the old driver module while the libraries on disk are already new; every CUDA "
            "call fails until both are of one version.",
            {**evidence(kernel_module=kernel, library=library), **seen(error)},
            fix,
            ISSUES + "NVIDIA/ubuntu-packaging-nvidia-driver/issues/3",
            affects=ALL_GPU_BENCHES,
            observed=error is not None,
        )
    ]


def _libraries_inside(facts: Facts, error: Optional[ErrorFact]) -> tuple[str, ...]:
    """A container has the host's libraries of the day it was made, or newer ones that came with its image."""
    own = (
        "apt-get purge -y 'nvidia-driver-*' 'nvidia-utils-*' 'libnvidia-*' && ldconfig   # in the container, or as RUN "
        "in its Dockerfile: an image may bring no driver of its own; then docker rm, docker run --gpus all"
    )
    anew = (
        "Make the container anew (docker rm, docker run), so that the host's present driver libraries are mounted "
        "into it; a restart of the host changes nothing where nvidia-smi works there."
    )
    library = error.values.get("library") if error else None
    newer = library is not None and older(facts.driver.version, library)
    return (
        *((own, anew) if newer else (anew, own)),
        "find / -name 'libnvidia-ml.so*' -not -path '/proc/*'   # in the container: the version of the host's?",
        "nvidia-smi   # fails on the host too: sudo reboot there",
    )


_REBOOT = (
    "sudo reboot",
    "or, with nothing using the GPU: sudo rmmod nvidia_drm nvidia_modeset nvidia_uvm nvidia && sudo modprobe nvidia",
    "sudo apt-mark hold 'nvidia-driver-*'   # keeps an unattended upgrade from doing it again",
)


def _by_one_way(facts: Facts) -> tuple[str, ...]:
    """A driver of NVIDIA's own installer beside that of packages: a reboot loads one of them, and not for good."""
    return (
        "sudo reboot   # enough where the driver was only updated; nvidia-smi fails again after it: the .run file's "
        "driver lies beside that of the packages, then:",
        "sudo nvidia-uninstall; sudo ubuntu-drivers install && sudo reboot   # the packages' alone",
        *_NOT_BY_REBOOT[2:3],
    )


def _same_release(facts: Facts) -> tuple[str, ...]:
    """A module compiled from its source takes the libraries of the very same release."""
    source, file = facts.error("module-from-source"), facts.error("driver-from-run-file")
    module, libraries = (
        (source.values.get("module") if source else None),
        (file.values.get("version") if file else None),
    )
    if not module or not libraries or module == libraries:
        return ()
    return (
        f"curl -O https://us.download.nvidia.com/XFree86/Linux-x86_64/{module}/NVIDIA-Linux-x86_64-{module}.run && "
        f"sudo sh NVIDIA-Linux-x86_64-{module}.run --no-kernel-modules && sudo reboot   # the module was compiled from "
        f"{module}, the libraries are of {libraries}; data-centre releases: https://us.download.nvidia.com/tesla/",
        "cat /proc/driver/nvidia/version; ls /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.*   # both of one release",
    )


# https://wiki.nixos.org/wiki/NVIDIA: the module alone, as an extra one, is built and never loaded.
_NIXOS_DRIVER = (
    'services.xserver.videoDrivers = [ "nvidia" ];   # in /etc/nixos/configuration.nix, in place of the module in '
    "boot.extraModulePackages: it loads NVIDIA's driver and blacklists nouveau, without a desktop too",
    "hardware.nvidia.open = true;   # false for cards before Turing (GTX 16xx, RTX 20xx)",
    "sudo nixos-rebuild switch && sudo reboot",
)


def nouveau_loaded(facts: Facts) -> Result:
    """The open nouveau driver holds the card."""
    error = facts.error("nouveau", "nouveau-loaded")
    loaded = "nouveau" in (facts.platform.modules or ())
    if error is None and not loaded:
        return None if facts.platform.modules is None else PASSED
    if cuda_works(facts) or (facts.driver.version and facts.driver.error is None and error is None):
        return PASSED
    return [
        Finding(
            "nouveau-loaded",
            "error",
            "The nouveau driver holds the GPU, so NVIDIA's cannot",
            "nouveau was loaded first and took the device; CUDA needs NVIDIA's own module.",
            {**evidence(modules=facts.platform.modules), **seen(error)},
            _NIXOS_DRIVER
            if "nixos" in (facts.platform.os or "").lower() or facts.error("nixos-told")
            else (
                *_rebuilt_by_akmods(facts),
                "printf 'blacklist nouveau\\noptions nouveau modeset=0\\n' | sudo tee "
                "/etc/modprobe.d/blacklist-nouveau.conf && sudo update-initramfs -u && sudo reboot",
            ),
            ISSUES + "Oneflow-Inc/oneflow/issues/3106",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def _rebuilt_by_akmods(facts: Facts) -> tuple[str, ...]:
    """Fedora falls back to nouveau where NVIDIA's module was not built for the kernel: https://rpmfusion.org/Howto/NVIDIA"""
    by_akmods = "akmods" in build_module(facts) and facts.error("calls-dnf", "nouveau-loaded") is not None
    return (f"{build_module(facts)}",) if by_akmods else ()


def gpu_fallen_off_the_bus(facts: Facts) -> Result:
    """The hardware reported a fault that no software setting mends."""
    error = facts.error("fallen-off-bus", "gpu-figures-lost", "xid")
    numbers = list(facts.platform.xids or ())
    if error and error.values.get("xid"):
        numbers.append(int(error.values["xid"]))
    # NVIDIA's Xid catalogue: 79 off the bus; 48, 63, 64, 94, 95 memory errors; 13, 31, 43, 45 come from programs.
    serious = [number for number in numbers if number in (48, 61, 62, 63, 64, 74, 79, 94, 95, 119, 120)]
    silent = facts.error("gsp-timeout")
    if (silent or serious) and not set(serious) - {119, 120} and not (error and error.id == "fallen-off-bus"):
        return [_gsp_silent(facts, silent or error, serious)]
    if not serious and (error is None or error.id == "xid"):
        return None if facts.platform.xids is None and error is None else PASSED
    off_bus = 79 in serious or (error is not None and error.id == "fallen-off-bus")
    return [
        Finding(
            "gpu-fallen-off-the-bus",
            "error",
            "A GPU has fallen off the bus"
            if off_bus
            else "A GPU no longer answers the driver: nvidia-smi shows ERR! in place of its figures"
            if not serious
            else f"The GPU reported hardware errors (Xid {serious[0]})",
            "The driver lost the card, or the card reported memory or link errors. This is power, seating, heat or a "
            "failing board, not a version mismatch.",
            {**evidence(xids=", ".join(map(str, serious))), **seen(error)},
            (
                "sudo reboot; check power cables, seating, riser and temperature   # it stays away until then",
                "sudo dmesg | grep -iE 'xid|AER|pcie'   # which GPU, and when",
                "sudo nvidia-smi -lgc 300,1500   # lower clocks; if it then stays, suspect the power supply",
            ),
            ISSUES + "NVIDIA/open-gpu-kernel-modules/issues/507",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def _gsp_silent(facts: Facts, error: Optional[ErrorFact], xids: list[int]) -> Finding:
    return Finding(
        "gsp-does-not-answer",
        "error",
        "The GPU's own processor (GSP) no longer answers the driver",
        "Newer drivers let firmware on the card do part of their work, and this firmware hangs: in single releases of "
        "the driver, after suspend, or on a failing board. Programs and nvidia-smi then hang too.",
        {**evidence(xids=", ".join(map(str, xids)), driver=facts.driver.version), **seen(error)},
        (
            "sudo reboot   # the card answers again only after a reset",
            "sudo ubuntu-drivers install   # another, newer release of the driver: most of these hangs were mended "
            "there",
            "echo 'options nvidia NVreg_EnableGpuFirmware=0' | sudo tee /etc/modprobe.d/nvidia-gsp.conf && sudo "
            "update-initramfs -u && sudo reboot   # without GSP; with the proprietary modules only, not on Blackwell",
            "It comes back with every driver: test the card in another machine, or have it replaced",
        ),
        ISSUES + "NVIDIA/open-gpu-kernel-modules/issues/446",
        affects=ALL_GPU_BENCHES,
        observed=True,
    )


def no_nvidia_driver(facts: Facts) -> Result:
    """torch found no driver at all, and nothing more precise is known."""
    error = facts.error("no-nvidia-driver", "no-nvml", "driver-init-failed")
    if facts.driver.version or cuda_works(facts) or facts.platform.system == "Darwin":
        return PASSED
    # A CUDA build on a box that has no GPU is what the package index gives everyone; that is no fault.
    fails = facts.torch.build == "cuda" and facts.torch.cuda_available is False
    unseen = fails and (facts.driver.smi is False or facts.platform.wsl_version == 1)
    if error is None and (not unseen or facts.platform.gpu_vendors == ()):
        return None if facts.driver.smi is None else PASSED
    return [
        Finding(
            "no-nvidia-driver",
            "error" if error or facts.has_nvidia() or facts.platform.wsl_version == 1 else "warning",
            _no_driver_title(facts),
            "WSL has the GPU of Windows through the driver of Windows; WSL 1 has none, and a Linux driver must not be "
            "installed inside."
            if facts.platform.wsl
            else "libcuda did not answer: the driver is not installed, its module is not loaded, or the container was "
            "started without GPU access.",
            {
                **evidence(
                    torch__version=facts.torch.version,
                    nvidia_smi="not found" if facts.driver.smi is False else facts.driver.error,
                    container=facts.platform.container,
                ),
                **seen(error),
            },
            _driver_steps(facts),
            WSL_GUIDE if facts.platform.wsl else "https://docs.nvidia.com/cuda/cuda-installation-guide-linux/",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def _no_driver_title(facts: Facts) -> str:
    if facts.platform.wsl_version == 1:
        return "WSL 1 has no GPU"
    error = facts.error("no-nvidia-driver", "no-nvml", "driver-init-failed")
    by_tensorflow = facts.torch.version is None and error is not None and _OF_TENSORFLOW.search(error.text)
    program = "TensorFlow" if by_tensorflow else "torch"
    return f"{program} finds no NVIDIA driver" + (" under WSL" if facts.platform.wsl else "")


def _driver_steps(facts: Facts) -> tuple[str, ...]:
    """How this machine gets a driver."""
    if facts.platform.wsl:
        return wsl_steps(facts)
    if facts.error("rented-machine"):
        return (
            "Stop this machine and take another one, with a GPU   # its driver is the owner's: what is broken there "
            "cannot be mended from inside",
            "nvidia-smi   # must list the card before anything is started",
        )
    if fixes.on_windows(facts):
        return ("nvidia-smi   # if this fails: install the driver from https://www.nvidia.com/drivers, then reboot",)
    if facts.platform.container:
        return (
            *(
                ("docker run --gpus all … tensorflow/tensorflow:latest-gpu …   # an image without -gpu has no CUDA",)
                if facts.error("image-without-cuda")
                else ()
            ),
            *hand_in_gpu(facts),
            "nvidia-smi   # on the host: if it fails there, sudo ubuntu-drivers install first",
        )
    return (
        *ask_batch_system(facts),
        "nvidia-smi   # if this fails on the host: sudo ubuntu-drivers install, then reboot",
        "In a container: docker run --gpus all …",
    )


def nvidia_smi_hangs(facts: Facts) -> Result:
    """nvidia-smi does not answer."""
    if facts.driver.error is None or "did not answer" not in facts.driver.error:
        return PASSED if facts.driver.smi else None
    return [
        Finding(
            "driver-does-not-answer",
            "error",
            "The NVIDIA driver does not answer",
            "nvidia-smi hangs, so the kernel module is stuck; programs that touch the GPU will hang as well.",
            evidence(nvidia_smi=facts.driver.error),
            ("sudo dmesg | grep -iE 'nvrm|xid' | tail", "sudo reboot"),
            "https://docs.nvidia.com/deploy/xid-errors/",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


RULES: tuple[Rule, ...] = (
    gpu_fallen_off_the_bus,
    nvidia_smi_hangs,
    driver_library_version_mismatch,
    nouveau_loaded,
    kernel_module_not_loaded,
    no_nvidia_driver,
)
