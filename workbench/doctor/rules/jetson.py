"""How torch and torchvision come to a Jetson: as NVIDIA's own builds, each made for a JetPack. Needs the tables."""

from __future__ import annotations

from typing import Optional

from workbench.doctor.facts import Facts
from workbench.doctor.tables import table
from workbench.doctor.versions import minor_name, older, release_of

_JP6 = "https://pypi.jetson-ai-lab.io/jp6/cu126"
_JP7 = "https://pypi.jetson-ai-lab.io/sbsa/cu130"


def torch_steps() -> tuple[str, ...]:
    """What brings a torch that drives the GPU of a Jetson."""
    return (
        "Install NVIDIA's own build for your JetPack (6: Python 3.10; 5: Python 3.8 and no other): "
        "https://docs.nvidia.com/deeplearning/frameworks/install-pytorch-jetson-platform/ (JetPack 4, Python 3.6: "
        "https://forums.developer.nvidia.com/t/pytorch-for-jetson/72048)",
        f"JetPack 6: python3.10 -m pip install --force-reinstall --index-url {_JP6} torch torchvision   # JetPack 7 "
        f"(Thor): {_JP7}",
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
    number = f"{vision}.{numbers[2] if len(numbers) > 2 else 0}" if vision else "<number>"
    branch = f"v{number}" if vision else "v<number>"
    which = "" if vision else "   # the release that belongs to this torch: 0.16 to 2.1, 0.18 to 2.3, 0.20 to 2.5"
    return (
        "python3 -m pip uninstall -y torchvision",
        f"git clone --depth 1 --branch {branch} https://github.com/pytorch/vision && cd vision{which}",
        f"BUILD_VERSION={number} python3 setup.py install --user   # compiled beside NVIDIA's torch",
    )
