"""A rule about instructions that the processor lacks, or that a virtual machine hides."""

from __future__ import annotations

from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ISSUES, Result, Rule, evidence, from_message, seen

_MACHINES = {
    "proxmox": "Proxmox: qm set <id> --cpu host, or Hardware, Processors, Type: host; then stop and start the machine",
    "qemu": "QEMU, KVM: the machine's processor as host-passthrough (virsh edit <machine>: <cpu mode="
    "'host-passthrough'/>; qemu -cpu host); then stop and start it",
    "vmware": "VMware, ESXi: raise the machine's hardware version and the cluster's EVC mode to Haswell or newer; then "
    "stop and start it",
    "virtualbox": "VirtualBox: switch Hyper-V off in Windows (bcdedit /set hypervisorlaunchtype off), so that AVX2 "
    "gets through; then restart",
    "hyper-v": "Hyper-V: the machine's settings, Processor, Compatibility: off; then start it again",
}
_LLAMA = "CMAKE_ARGS='-DGGML_NATIVE=ON' {}   # compiled for this very processor"


def hidden_instructions(facts: Facts) -> Result:
    """An illegal instruction, where the paste names the virtual machine or the program."""

    def make(error: ErrorFact) -> Finding:
        board = facts.error("raspberry-pi")
        if board is not None:
            return _small_arm(facts, error, board)
        if facts.platform.system == "Darwin":
            return _intel_code_on_a_mac(facts, error)
        machine = _machine(facts)
        steps = (*((_MACHINES[machine],) if machine else ()), *_program(facts))
        return Finding(
            "cpu-lacks-instructions",
            "error",
            "The virtual machine hides instructions of the processor that a program uses (AVX, AVX2)"
            if machine
            else "A program uses instructions that this processor does not have",
            "The wheel was compiled for a newer processor (AVX, AVX2), or a virtual machine hides what the processor "
            "can do: its standard processors have neither.",
            {**evidence(machine=machine), **seen(error)},
            (
                *steps,
                "grep -o -m1 -E 'avx512f|avx2|avx' /proc/cpuinfo   # what there is",
                "Where the processor itself lacks them: an older release of the package, or compile it here.",
            ),
            "https://github.com/pytorch/pytorch/issues/97352",
            affects=("chat", "architecture", "vram"),
            observed=True,
        )

    return from_message(facts, ("cpu-lacks-instructions",), make)


def _intel_code_on_a_mac(facts: Facts, error: ErrorFact) -> Finding:
    """Rosetta, which runs a Python for Intel on Apple's processors, has no AVX (before macOS 15)."""
    return Finding(
        "cpu-lacks-instructions",
        "error",
        "Most likely a Python for Intel runs on Apple's processor, and the package wants AVX, which Rosetta lacks",
        "conda, Homebrew and Python installed for Intel bring packages for Intel; those of TensorFlow, jaxlib and "
        "others are compiled with AVX. On a Mac with an Intel processor too old for AVX the same happens.",
        {**evidence(python=facts.python.version, machine=facts.platform.machine), **seen(error)},
        (
            f'{fixes.python_command(facts)} -c "import platform; print(platform.machine())"'
            "   # x86_64 on an M1 or newer: the wrong Python",
            "curl -L -O https://github.com/conda-forge/miniforge/releases/latest/download/Miniforge3-MacOSX-arm64.sh "
            "&& bash Miniforge3-MacOSX-arm64.sh   # a Python for arm64; then the packages anew in it",
            "on an Intel Mac: an older release of the package, or it compiled there",
        ),
        "https://developer.apple.com/documentation/apple-silicon/about-the-rosetta-translation-environment",
        affects=("chat", "architecture", "vram"),
        observed=True,
    )


def _small_arm(facts: Facts, error: ErrorFact, board: ErrorFact) -> Finding:
    """torch's wheels for aarch64 use instructions of ARMv8.2, which came with the Pi 5."""
    return Finding(
        "cpu-lacks-instructions",
        "error",
        "torch's wheel uses instructions that the Raspberry Pi's processor does not have",
        "The Cortex-A72 of a Pi 4 (A53 of a Pi 3) knows ARMv8.0; wheels for aarch64 from torch 2.4 on, and those with "
        "+cpu of 2.0, are compiled for newer ones. A Pi 5 runs them.",
        {**evidence(machine=board.values.get("machine"), torch__version=facts.torch.version), **seen(error)},
        (
            fixes.install(facts, "torch==2.3.1", "torchvision==0.18.1", "numpy<2")
            + "   # from PyPI, without an index of its own; Python 3.8 to 3.12, 64 bit (uname -m: aarch64)",
            "torch 1.9 to 1.13: export OPENBLAS_CORETYPE=ARMV8   # before the program",
            "or without torch at run time: the model as NCNN, TFLite or ONNX (yolo export format=ncnn, on another "
            "machine)",
        ),
        ISSUES + "pytorch/pytorch/issues/97226",
        affects=("chat", "architecture", "vram"),
        observed=True,
    )


def _machine(facts: Facts) -> Optional[str]:
    told = facts.error("virtual-machine")
    named = (told.values.get("machine") or "").lower() if told else ""
    kinds = {"esx": "vmware", "esxi": "vmware", "vsphere": "vmware", "kvm": "qemu", "kvm64": "qemu", "cpu64": "qemu"}
    return kinds.get(named, named if named in _MACHINES else None)


def _program(facts: Facts) -> tuple[str, ...]:
    if facts.package("llama-cpp-python") or facts.error("llama-cpp-crash"):
        options = "--force-reinstall --no-cache-dir --no-binary llama-cpp-python"
        return (_LLAMA.format(fixes.install(facts, "llama-cpp-python", options=options)),)
    return ()


RULES: tuple[Rule, ...] = (hidden_instructions,)
