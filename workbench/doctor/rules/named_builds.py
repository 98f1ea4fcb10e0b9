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
