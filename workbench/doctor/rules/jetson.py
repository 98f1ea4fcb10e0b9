"""How torch and torchvision come to a Jetson: as NVIDIA's own builds, each made for a JetPack. Needs the tables."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor.facts import Facts
from workbench.doctor.tables import companion_of, table
from workbench.doctor.versions import minor_name, older, release_of

_JP6 = "https://pypi.jetson-ai-lab.io/jp6/cu126"
_JP7 = "https://pypi.jetson-ai-lab.io/sbsa/cu130"


# The wheels that NVIDIA made for one JetPack and its Python alone: https://forums.developer.nvidia.com/t/72048
_JP5 = (
    "https://developer.download.nvidia.com/compute/redist/jp/v512/pytorch/"
    "torch-2.1.0a0+41361538.nv23.06-cp38-cp38-linux_aarch64.whl"
)
_JP4 = "https://nvidia.box.com/shared/static/fjtbno0vpo676a25cgvuqc1wty0fkkg6.whl"
# What tells the JetPack: its name, the release of L4T, the kernel, a board that got no newer one; else its CUDA.
_JETPACKS = (
    ("4", re.compile(r"jetpack[ -]?4|\br?32\.\d|\b4\.9\.\d+|jetson nano|\btx[12]\b")),
    ("5", re.compile(r"jetpack[ -]?5|\br?35\.\d|\b5\.10\.\d+-?tegra")),
    ("6", re.compile(r"jetpack[ -]?6|\br?36\.\d|\b5\.15\.\d+-?tegra")),
    ("7", re.compile(r"jetpack[ -]?7|\br?38\.\d|\bthor\b")),
)
_CUDAS = {"10.2": "4", "11.4": "5", "12.2": "6", "12.6": "6", "13.0": "7"}


def jetpack(facts: Facts) -> Optional[str]:
    """The JetPack of this Jetson, where something tells it."""
    names = [gpu.name or "" for gpu in facts.gpus or ()]
    told = " ".join((facts.platform.os or "", facts.platform.kernel or "", *names)).lower()
    found = [number for number, pattern in _JETPACKS if pattern.search(told)]
    if found:
        return found[0] if len(found) == 1 else None
    prose = facts.error("jetpack-told")
    said = prose.values if prose else {}
    return said.get("release") or _CUDAS.get(minor_name(facts.toolkit.nvcc or said.get("cuda")) or "")


def torch_steps(facts: Facts) -> tuple[str, ...]:
    """What brings a torch that drives the GPU of a Jetson."""
    release = jetpack(facts)
    if release == "4":
        return (
            f"wget {_JP4} -O torch-1.10.0-cp36-cp36m-linux_aarch64.whl",
            "sudo apt install -y python3-pip libopenblas-base libopenmpi-dev && python3.6 -m pip install Cython numpy "
            "./torch-1.10.0-cp36-cp36m-linux_aarch64.whl   # JetPack 4: Python 3.6, and no newer wheel of NVIDIA's",
            "Another Python or a newer torch: a container, dustynv/l4t-pytorch:r32.7.1",
        )
    if release == "5":
        return (
            "sudo apt install -y python3.8-venv libopenblas-dev && python3.8 -m venv ~/torch && source "
            "~/torch/bin/activate   # JetPack 5: Python 3.8 and no other",
            f"python -m pip install {_JP5}",
            "Another Python: the container dustynv/l4t-pytorch:r35.4.1 has 3.8 as well: build torch from source, or "
            "take JetPack 6",
        )
    if release in ("6", "7"):
        index, python = (_JP6, "python3.10") if release == "6" else (_JP7, "python3.12")
        return (
            f"{python} -m pip install --force-reinstall --index-url {index} torch torchvision   # JetPack {release}",
            f"Another Python than {python[6:]}: a container, dustynv/l4t-pytorch, or build torch from source",
        )
    return (
        "cat /etc/nv_tegra_release   # R36 is JetPack 6, R35 is 5, R32 is 4; each has a build of NVIDIA's own:",
        f"JetPack 6: python3.10 -m pip install --force-reinstall --index-url {_JP6} torch torchvision   # JetPack 7 "
        f"(Thor): {_JP7}",
        f"JetPack 5: python3.8 -m pip install {_JP5}   # Python 3.8 and no other; JetPack 4: Python 3.6 and torch 1.10",
        "Another Python than those: a container, dustynv/l4t-pytorch, or build torch from source",
    )


def torchvision_steps(facts: Facts) -> tuple[str, ...]:
    """What brings a torchvision that belongs to NVIDIA's torch; that of the package index is made for another one."""
    compiled = _from_source(facts.torch.version)
    if older(facts.python.version, "3.10"):
        return compiled  # JetPack 5 and 4 have no such index
    return (
        f"JetPack 6 (Python 3.10): python3 -m pip install --force-reinstall --index-url {_JP6} torch torchvision   # "
        f"both from one place; JetPack 7 (Thor): {_JP7}",
        f"or, beside the torch that is here: {compiled[0]}",
        *compiled[1:],
    )


def onnxruntime_steps(facts: Facts) -> tuple[str, ...]:
    """What brings an ONNX Runtime with CUDA; the package index has wheels of it for x86-64 only."""
    zoo = (
        "Download the wheel of onnxruntime-gpu for this JetPack and Python from "
        "https://elinux.org/Jetson_Zoo#ONNX_Runtime, then: python3 -m pip install ./onnxruntime_gpu-*_aarch64.whl"
    )
    if older(facts.python.version, "3.10"):
        return (zoo,)
    served = f"python3 -m pip install onnxruntime-gpu --index-url {_JP6}   # JetPack 6; JetPack 7 (Thor): {_JP7}"
    return (served, f"JetPack 5 and 4: {zoo[0].lower()}{zoo[1:]}")


def _from_source(torch: Optional[str]) -> tuple[str, ...]:
    minor = minor_name(torch) or ""
    vision = next((name for name, wanted in table("companions")["torchvision"].items() if wanted == minor), None)
    numbers = release_of((torch or "").split("a")[0]) or ()
    exact = companion_of("torchvision", ".".join(map(str, numbers[:3])))
    exact = exact if exact and exact.count(".") > 1 else None
    number = exact or (f"{vision}.{numbers[2] if len(numbers) > 2 else 0}" if vision else "<number>")
    branch = f"v{number}" if vision else "v<number>"
    which = "" if vision else "   # the release that belongs to this torch: 0.16 to 2.1, 0.18 to 2.3, 0.20 to 2.5"
    return (
        "python3 -m pip uninstall -y torchvision",
        f"git clone --depth 1 --branch {branch} https://github.com/pytorch/vision && cd vision{which}",
        f"BUILD_VERSION={number} python3 setup.py install --user   # compiled beside NVIDIA's torch",
    )
