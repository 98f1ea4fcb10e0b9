"""AMD's GPUs as the kernel lists them for ROCm, with no tool of ROCm run. Stdlib only."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Optional

from workbench.doctor.facts import GpuFacts
from workbench.doctor.system import read_text

NODES = "/sys/class/kfd/kfd/topology/nodes"
_HEAPS_OF_VRAM = (1, 2)
"""Heap types of memory banks: visible and invisible frame buffer (kernel, ``include/uapi/linux/kfd_sysfs.h``)."""


def amd_gpus(nodes: str = NODES) -> tuple[GpuFacts, ...]:
    """The GPUs of the kernel's ROCm driver in its order, which is that of torch; processors are left out.

    Args:
        nodes: folder of the topology; each node has ``properties`` of one name and number a line.
    """
    found: list[GpuFacts] = []
    for number in sorted(int(name) for name in _names(nodes) if name.isdigit()):
        folder = Path(nodes, str(number))
        target = gfx_name(_properties(folder / "properties").get("gfx_target_version", 0))
        if target:
            found.append(GpuFacts(len(found), None, "amd", target, _vram_bytes(folder / "mem_banks")))
    return tuple(found)


def gfx_name(version: int) -> Optional[str]:
    """``gfx942`` from 90402: two decimal digits each for major, minor and stepping, the latter two as hexadecimal."""
    major, minor, stepping = version // 10000, version // 100 % 100, version % 100
    return f"gfx{major}{minor:x}{stepping:x}" if major else None


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _properties(path: Path) -> dict[str, int]:
    return {
        name: int(value) for name, value in re.findall(r"^(\w{1,60}) (\d{1,20})$", read_text(str(path)) or "", re.M)
    }


def _vram_bytes(banks: Path) -> Optional[int]:
    sizes = []
    for name in _names(str(banks)):
        bank = _properties(banks / name / "properties")
        if bank.get("heap_type") in _HEAPS_OF_VRAM:
            sizes.append(bank.get("size_in_bytes", 0))
    return sum(sizes) or None
