"""Builds of torch with a name behind the version, +cu121 or +cpu, asked for where no wheel carries one."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import evidence, seen


def not_for_this_system(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """A build for one CUDA, or for the CPU of a PC, asked for on a Mac or in a container on one."""
    if facts.platform.system == "Darwin" and facts.torch.asked_cuda and "+" not in error.text:
        return _index_of_cuda(facts, error)
    asked = re.search(r"torch==(\d{1,2}\.\d{1,2}\.\d)\+(cu\d{2,3}|cpu|rocm[\d.]{1,5})\b", error.text)
    offers = facts.error("pip-offers")
    offered = error.values.get("offered") or (offers.text if offers else "")
    there = asked is not None and re.search(rf"[\s(:,]{re.escape(asked[1])}(?=[,)\s]|$)", offered) is not None
    named = re.search(r"\d\+(?:cu|cpu|rocm)", offered.partition("from versions")[2] or offered)
    arm = facts.platform.system == "Darwin" or facts.platform.machine in ("aarch64", "arm64")
    if asked is None or not arm or not there or named:
        return None
    inside = " a container on a Mac" if facts.platform.container else " a Mac"
    where = inside if facts.platform.system == "Darwin" else " this processor"
    return Finding(
        "no-torch-wheel-for-platform",
        "error",
        f"torch {asked[1]} is offered here, but wheels named +{asked[2]} are made for PCs (x86-64), not for{where}",
        "PyTorch's wheels for macOS, and its older ones for Linux on arm64, have no name behind their version; what "
        "the program asks for was written on a PC.",
        {**evidence(asked=f"{asked[1]}+{asked[2]}", system=facts.platform.system), **seen(error)},
        (
            fixes.install(facts, f"torch=={asked[1]}") + f"   # without +{asked[2]}",
            f"In the program's requirements: torch=={asked[1]} in place of torch=={asked[1]}+{asked[2]}, and so for "
            "torchvision and torchaudio",
        ),
        "https://pytorch.org/get-started/previous-versions/",
        affects=("chat", "vram", "architecture"),
        observed=True,
    )


def _index_of_cuda(facts: Facts, error: ErrorFact) -> Finding:
    """An index that has nothing for macOS at all."""
    return Finding(
        "no-torch-wheel-for-platform",
        "error",
        f"PyTorch's index for CUDA {facts.torch.asked_cuda} has no builds for a Mac, which has no CUDA",
        "On macOS the one build of PyPI serves Apple's GPU as well, as the device mps.",
        {**evidence(asked=facts.torch.asked_cuda, system=facts.platform.system), **seen(error)},
        (
            fixes.install(facts, "torch", "torchvision", "torchaudio") + "   # without --index-url",
            "and the program on Apple's GPU: device 'mps' in place of 'cuda' (insanely-fast-whisper: --device-id mps)",
        ),
        "https://docs.pytorch.org/docs/stable/notes/mps.html",
        affects=("chat", "vram", "architecture"),
        observed=True,
    )
