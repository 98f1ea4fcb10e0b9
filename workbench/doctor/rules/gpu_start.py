"""Rules about a GPU that the driver's kernel module does not bring up, as nvidia-smi and the kernel's log tell it."""

from __future__ import annotations

import re

from workbench.doctor import fixes
from workbench.doctor.facts import Facts
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
    gpu_names,
    seen,
)
from workbench.doctor.rules.hand_in import ask_batch_system
from workbench.doctor.versions import at_least

_GUIDE = "https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/"
_CURRENT_BRANCH = "580"
_PACMAN = re.compile(r"\b(?:arch|manjaro|endeavour\w*|cachyos|garuda)\b", re.IGNORECASE)
_DNF = re.compile(r"\b(?:fedora|nobara|bazzite)\b", re.IGNORECASE)
_RHEL = re.compile(r"\b(?:rocky|red hat|rhel|alma\w*|centos|oracle|amazon linux)\b", re.IGNORECASE)
_NIX = re.compile(r"\bnix ?os\b", re.IGNORECASE)


def needs_open_modules(facts: Facts) -> Result:
    """Blackwell runs with NVIDIA's open kernel modules only."""
    error = facts.error("needs-open-modules")
    listed = facts.error("driver-lists-no-gpu")
    blackwell = any(at_least(capability, "10.0") for _, capability in capabilities(facts))
    if error is None and not (listed and blackwell):
        return PASSED
    if error is None and (cuda_works(facts) or facts.platform.container or facts.platform.wsl):
        return PASSED
    return [
        Finding(
            "gpu-needs-open-kernel-modules",
            "error",
            ("" if error else "Most likely: ")
            + f"{gpu_names(facts) or 'This GPU'} needs NVIDIA's open kernel modules, and the proprietary ones are "
            "installed",
            "From Blackwell on there is only the open kind, and the driver's packages come in both; with the other one "
            "nvidia-smi finds no device."
            + ("" if error else " Where the open ones are there, the firmware's settings are next."),
            {**evidence(gpus=gpu_names(facts), driver=facts.driver.version), **seen(error or listed)},
            (
                *_open_modules(facts),
                "sudo dmesg | grep -i nvrm   # still no device: in the firmware switch on 'Above 4G decoding' and "
                "'Resizable BAR', and update it",
            ),
            ISSUES + "NVIDIA/open-gpu-kernel-modules/issues/862",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def _open_modules(facts: Facts) -> tuple[str, ...]:
    named = " ".join(filter(None, (facts.platform.os, facts.platform.kernel)))
    by_file = (
        "A driver from a .run file: sudo sh NVIDIA-Linux-….run --kernel-module-type=open   # before 560: -m=kernel-open"
    )
    if _PACMAN.search(named):
        return ("sudo pacman -S nvidia-open-dkms && sudo reboot   # in place of nvidia or nvidia-dkms", by_file)
    if _NIX.search(named):
        return ("hardware.nvidia.open = true;   # in configuration.nix; then sudo nixos-rebuild boot && sudo reboot",)
    if _DNF.search(named):
        return (
            "sudo sh -c 'echo \"%_with_kmod_nvidia_open 1\" > /etc/rpm/macros.nvidia-kmod' && sudo akmods --force "
            "--rebuild && sudo reboot   # RPM Fusion's driver",
            by_file,
        )
    if _RHEL.search(named):
        return ("sudo dnf module install nvidia-driver:open-dkms && sudo reboot   # NVIDIA's repository", by_file)
    branch = (facts.driver.version or _CURRENT_BRANCH).split(".")[0]
    return (
        "sudo apt purge 'nvidia-driver-*' 'nvidia-dkms-*' && sudo apt install "
        f"nvidia-driver-{branch if int(branch) >= 570 else _CURRENT_BRANCH}-open && sudo reboot   # NVIDIA's own "
        "repository calls it nvidia-open",
        by_file,
    )


def card_left_by_driver(facts: Facts) -> Result:
    """The driver says that the card belongs to an older branch."""
    error = facts.error("needs-legacy-driver")
    if error is None:
        return PASSED
    branch = error.values.get("branch", "470")
    return [
        Finding(
            "gpu-too-old-for-driver",
            "error",
            f"This NVIDIA driver does not know the GPU any more: its last branch is {branch}",
            "The kernel's log says so; nvidia-smi then finds no device. Each card has a last driver branch, which "
            "limits the CUDA that runs on it.",
            {**evidence(gpus=gpu_names(facts), driver=facts.driver.version), **seen(error)},
            (
                f"sudo apt purge 'nvidia-driver-*' && sudo apt install nvidia-driver-{branch} && sudo reboot   # Arch: "
                f"nvidia-{branch}xx-dkms from the AUR",
                "Then a torch for the CUDA that nvidia-smi shows: 470 runs CUDA 11 (torch up to 2.x+cu118), 390 runs "
                "none that torch still has",
            ),
            "https://www.nvidia.com/en-us/drivers/unix/legacy-gpu/",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def driver_older_than_card(facts: Facts) -> Result:
    """The driver says that it does not support a card, which came after it."""
    error = facts.error("card-unknown-to-driver")
    if error is None:
        return PASSED
    return [
        Finding(
            "driver-too-old-for-gpu",
            "error",
            "This NVIDIA driver is older than the GPU",
            "The kernel's log says that the card is not supported by this release of the driver.",
            {**evidence(gpus=gpu_names(facts), driver=error.values.get("driver")), **seen(error)},
            (
                "sudo ubuntu-drivers install && sudo reboot   # or the newest branch by name: sudo apt install "
                f"nvidia-driver-{_CURRENT_BRANCH}-open",
                "https://www.nvidia.com/drivers names the first branch for a card",
            ),
            _GUIDE,
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def no_room_on_the_bus(facts: Facts) -> Result:
    """The firmware gave the card no address range."""
    error = facts.error("pci-region-invalid")
    if error is None:
        return PASSED
    return [
        Finding(
            "gpu-without-address-range",
            "error",
            "The firmware gave the GPU no address range on the PCI bus",
            "Cards with much memory, and several of them, need more addresses than a firmware hands out below 4 GiB; "
            "in a virtual machine its own firmware decides.",
            seen(error),
            (
                "Firmware: switch on 'Above 4G decoding' (and 'Resizable BAR'), switch off CSM; update the firmware",
                "or add pci=realloc to GRUB_CMDLINE_LINUX in /etc/default/grub; sudo update-grub && sudo reboot",
                "In a virtual machine: UEFI (OVMF) and machine type q35, with a 64-bit PCI range that holds the card",
            ),
            ISSUES + "NVIDIA/open-gpu-kernel-modules/issues/862",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def driver_lists_no_gpu(facts: Facts) -> Result:
    """nvidia-smi runs and finds no device, and nothing more precise is known."""
    error = facts.error("driver-lists-no-gpu") or facts.error("adapter-does-not-start")
    if error is None or cuda_works(facts):
        return PASSED
    inside = bool(facts.platform.container)
    return [
        Finding(
            "driver-lists-no-gpu",
            "error",
            "The NVIDIA driver runs, and finds no GPU that it can use",
            "The kernel's part of the driver did not take the card: it is too old or too new for this driver, its "
            "firmware (GSP) did not start, it has no power or is not plugged in well, or this machine or job has no "
            "GPU.",
            {**evidence(gpus=gpu_names(facts), driver=facts.driver.version), **seen(error)},
            (
                *ask_batch_system(facts),
                *(
                    ("nvidia-smi   # on the host: the same there? else hand the GPU in: docker run --gpus all",)
                    if inside
                    else ()
                ),
                "sudo dmesg | grep -iE 'nvrm|nvidia' | tail -30   # 'requires use of the open kernel modules', "
                "'legacy', 'GSP', 'fallen off the bus'",
                "Switch the machine off, take its power cable out for a minute, and start it again; then reseat the "
                "card and its power cables",
                "Firmware: switch on 'Above 4G decoding' and 'Resizable BAR'; a virtual machine needs UEFI (OVMF)",
                "Install the driver that names this card; Blackwell takes the open kernel modules only "
                "(nvidia-driver-…-open), Maxwell and older the proprietary ones.",
                "On a cluster: ask for a GPU in the job (--gres=gpu:1); a login node has none.",
            )
            if not fixes.on_windows(facts)
            else (
                "Device Manager, Display adapters: is the card there, and without a warning sign?",
                "Install the newest NVIDIA driver: https://www.nvidia.com/drivers, then restart",
            ),
            _GUIDE,
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


RULES: tuple[Rule, ...] = (
    needs_open_modules,
    card_left_by_driver,
    driver_older_than_card,
    no_room_on_the_bus,
    driver_lists_no_gpu,
)
