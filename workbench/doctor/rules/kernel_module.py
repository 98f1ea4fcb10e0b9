"""Rules about NVIDIA's kernel module that does not run: not built for this kernel, not let in, or not there."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import system_packages
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ALL_GPU_BENCHES, ISSUES, PASSED, Result, cuda_works, evidence, seen
from workbench.doctor.rules.hand_in import ask_batch_system, wsl_steps


def kernel_module_not_loaded(facts: Facts) -> Result:
    """The card is there, the driver's kernel module is not."""
    error = facts.error("smi-cannot-communicate", "nvidia-module-missing")
    machine = facts.platform
    bare = machine.container == "" and machine.wsl is False
    missing = bool(
        bare
        and "nvidia" in (machine.gpu_vendors or ())
        and machine.modules is not None
        and "nvidia" not in machine.modules
    )
    if error is None and not missing:
        return None if machine.modules is None or machine.gpu_vendors is None else PASSED
    if cuda_works(facts) or (machine.wsl and machine.wsl_version != 1):
        return PASSED
    installed = facts.driver.smi or error is not None
    fix = _module_steps(facts, error)
    return [
        Finding(
            "kernel-module-not-loaded",
            "error",
            _not_loaded(facts) if installed else "No NVIDIA driver is installed for the NVIDIA GPU",
            "The GPU is on the bus but the driver's kernel module does not run: it was not built for this kernel, "
            "Secure Boot refuses it, or the driver is not installed.",
            {
                **evidence(kernel=machine.kernel, modules=machine.modules, secure_boot=machine.secure_boot),
                **seen(error),
            },
            wsl_steps(facts)
            if machine.wsl
            else (*ask_batch_system(facts), *fix)
            if installed
            else ("sudo ubuntu-drivers install   # or your distribution's driver package", "sudo reboot"),
            ISSUES + "GoogleCloudPlatform/compute-gpu-installation/pull/18",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def _finds_no_card(facts: Facts) -> bool:
    """Whether the module itself was there, and found no card that it drives."""
    module = facts.error("nvidia-module-missing")
    return module is not None and "insert" in module.text and "No such device" in module.text


def _not_loaded(facts: Facts) -> str:
    if facts.platform.wsl_version == 1:
        return "WSL 1 has no GPU, and no NVIDIA module can be loaded in it"
    if _finds_no_card(facts):
        return (
            "The NVIDIA module finds no GPU that it drives: nouveau still holds the card, or the driver is not for it"
        )
    other = facts.error("nvidia-module-not-of-this-kernel")
    failed = facts.error("nvidia-module-does-not-compile")
    if failed is not None:
        return "The NVIDIA kernel module cannot be compiled for this kernel" + (
            f" ({failed.values['kernel']})" if failed.values.get("kernel") else ""
        )
    if facts.platform.secure_boot:
        return "The NVIDIA kernel module is not loaded, which Secure Boot asks a signature of"
    if other is None:
        return "The NVIDIA kernel module is not loaded"
    if "unknown symbol" in other.text.lower():
        return "The NVIDIA kernel module does not fit this kernel: functions that it calls are missing there"
    kernel = f" ({other.values['kernel']})" if other.values.get("kernel") else ""
    return f"The NVIDIA kernel module was not built for the kernel that runs{kernel}"


def _module_steps(facts: Facts, error: Optional[ErrorFact]) -> tuple[str, ...]:
    """How the module comes to be built for this kernel, and to be let in."""
    signed = (
        f"{_enrol(facts)}   # then reboot, and choose 'Enroll MOK' in the blue menu; mokutil --sb-state shows whether "
        "Secure Boot is on",
        "or switch Secure Boot off in the firmware's settings",
    )
    built = (
        build_module(facts),
        "sudo reboot   # when a new kernel was installed, the module must be built for it first",
    )
    if facts.platform.secure_boot or (error is not None and "Key was rejected" in error.text):
        return (*signed, *built)
    if _finds_no_card(facts):
        return (
            "sudo reboot   # nouveau, which was loaded before the driver was installed, gives the card up",
            "lspci -nnk | grep -A 3 -i nvidia   # after it: no card, and this machine or instance has none; vfio-pci "
            "or nouveau in use: that has to leave it",
            "sudo ubuntu-drivers install   # the branch for this card: old ones need an old branch, RTX 50 and newer "
            "the one named -open",
        )
    renewed = (
        "sudo apt purge -y '^nvidia-.*' '^libnvidia-.*' && sudo ubuntu-drivers install && sudo reboot   # the driver "
        "of the old release stayed behind: the new release's own in its place",
    )
    failed = facts.error("nvidia-module-does-not-compile")
    if failed is not None:
        return _other_pair(facts, failed.values.get("kernel", ""), failed.values.get("driver", ""))
    by_apt = facts.error("release-upgraded") and build_module(facts).startswith("sudo apt")
    return (
        *(renewed if by_apt else ()),
        *_modules_left_out(facts),
        *_without_dkms(facts),
        built[0],
        "If modprobe says 'Key was rejected', Secure Boot refuses the module: enrol its key with "
        f"{_enrol(facts)}, then reboot.",
        built[1],
    )


def _enrol(facts: Facts) -> str:
    """The command that gives the firmware the key which this distribution signs its modules with."""
    system = " ".join(filter(None, (facts.platform.os, facts.platform.kernel))).lower()
    if re.search(r"fedora|\.fc\d", system):  # https://rpmfusion.org/Howto/Secure%20Boot
        return "sudo kmodgenca -a; sudo mokutil --import /etc/pki/akmods/certs/public_key.der"
    if "suse" in system:
        return "sudo mokutil --import /usr/share/nvidia-pubkeys/MOK-nvidia-driver-*.der"
    if "debian" in system or re.search(r"red hat|rocky|alma|centos|\.el\d", system):  # dkms makes its own
        return "sudo mokutil --import /var/lib/dkms/mok.pub"
    return "sudo mokutil --import /var/lib/shim-signed/mok/MOK.der"


_OWN_KERNEL = re.compile(
    r"-(?:generic|lowlatency|aws|gcp|azure|oracle|oem|nvidia|hwe|amd64)\b|\.(?:el\d|fc\d)|-arch|lts"
)


def _other_pair(facts: Facts, kernel: str, branch: str) -> tuple[str, ...]:
    """A driver and a kernel that do not compile together: one of them has to be another."""
    newer = (
        "sudo ubuntu-drivers install && sudo reboot   # a newer driver, whose code knows this kernel",
        "tail -30 /var/lib/dkms/nvidia/*/build/make.log   # what did not compile: headers or the compiler missing, or "
        "the driver's own code",
    )
    older = system_packages.install(facts, "linux-generic", "kernel", "linux-lts linux-lts-headers", "kernel-default")
    stock = f"{older} && sudo reboot   # the distribution's own kernel, in the boot menu"
    if kernel and not _OWN_KERNEL.search(kernel):
        return (f"{stock}: this one ({kernel}) is none that NVIDIA's driver was made for", *newer)
    # Arch's kernel runs ahead of what a branch for old cards still learns, and no newer branch drives those.
    if branch in ("340", "390", "470") and older.startswith("sudo pacman"):
        return (f"{stock}: the branch {branch}, the last for its cards, knows that one", *newer[1:])
    return (*newer, f"{stock}: an older one, which the driver knows")


def _without_dkms(facts: Facts) -> tuple[str, ...]:
    """A driver of NVIDIA's .run file, without dkms, is built for the kernel of its day only."""
    if facts.error("dkms-missing") is None or not build_module(facts).startswith("sudo apt"):
        return ()
    return (
        "sudo nvidia-uninstall; sudo apt install linux-headers-$(uname -r) dkms && sudo ubuntu-drivers install && sudo "
        "reboot   # dkms is not there: the driver of a .run file is built for one kernel; the packages' for each",
    )


def _modules_left_out(facts: Facts) -> tuple[str, ...]:
    """A cloud's kernel comes without the modules for graphics, whose functions the driver calls."""
    other = facts.error("nvidia-module-not-of-this-kernel")
    if other is None or "unknown symbol" not in other.text.lower():
        return ()
    return (
        "sudo apt install linux-modules-extra-$(uname -r) && sudo modprobe nvidia nvidia_uvm   # what a kernel for the "
        "cloud leaves out; on Ubuntu 16.04 and older: linux-image-extra-virtual",
    )


# Arch has a package of headers for each of its kernels, and nvidia-dkms for all of them.
_ARCH_HEADERS = "linux$(uname -r | grep -oE -e '-(cachyos|zen|lts|hardened)' | tail -1)-headers"


def build_module(facts: Facts) -> str:
    """The command that builds the module for the kernel that runs, and loads it."""
    system = " ".join(filter(None, (facts.platform.os, facts.platform.kernel))).lower()
    headers = system_packages.install(
        facts,
        apt="linux-headers-$(uname -r)",
        dnf="kernel-devel-$(uname -r) akmod-nvidia" if "fedora" in system else "kernel-devel-$(uname -r) dkms",
        pacman=_ARCH_HEADERS + " nvidia-dkms",
    )
    if "amazon" in system or ".amzn2023" in system:
        repository = "https://developer.download.nvidia.com/compute/cuda/repos/amzn2023/$(uname -m)/cuda-amzn2023.repo"
        return (
            f"sudo rm -f /etc/yum.repos.d/cuda-rhel*.repo; sudo dnf config-manager --add-repo {repository} && sudo dnf "
            "install -y kernel-devel-$(uname -r) kernel-modules-extra-$(uname -r) && sudo dnf -y module install "
            "nvidia-driver:open-dkms && sudo modprobe nvidia   # Amazon Linux has a repository of its own at NVIDIA; "
            "nvidia-driver:latest-dkms for cards before Turing"
        )
    if headers.startswith("sudo emerge"):
        # https://wiki.gentoo.org/wiki/NVIDIA/nvidia-drivers
        return (
            "sudo emerge @module-rebuild && sudo modprobe nvidia   # for the kernel that /usr/src/linux names, which "
            "must be the one that runs: eselect kernel list; uname -r"
        )
    how = "akmods --force" if "akmod" in headers else "dkms autoinstall"
    return f"{headers} && sudo {how} && sudo modprobe nvidia   # the headers of the very kernel that runs (uname -r)"
