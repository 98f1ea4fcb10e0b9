"""Packages that bring CUDA code of their own, compiled where they are installed for the cards that were told then."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import Facts

# Those that any card of the last ten years runs, once they are compiled for it.
_COMPILED = re.compile(
    r"\b(mamba[-_]ssm|causal[-_]conv1d|apex|torch[-_](?:scatter|sparse|cluster)|diff[-_]gaussian[-_]rasterization|"
    r"simple[-_]knn|gsplat|nvdiffrast|pytorch3d|detectron2|mmcv|tiny-?cuda-?nn|spconv)\b",
    re.I,
)


def package_named(text: str) -> str:
    """The package of this kind that a sentence names, as pip calls it; ``""`` for none."""
    found = _COMPILED.search(text)
    return found[1].lower().replace("_", "-") if found else ""


def compiled_anew(facts: Facts, package: str, capability: Optional[str]) -> tuple[str, ...]:
    """The package compiled once more, for the card that is here."""
    number = capability or "<the card's, as nvidia-smi --query-gpu=compute_cap --format=csv shows it>"
    options = "--no-build-isolation --no-cache-dir --force-reinstall --no-deps --no-binary :all:"
    return (
        fixes.export(facts, "TORCH_CUDA_ARCH_LIST", number, "for the next command, which wants nvcc of torch's CUDA:"),
        f"{fixes.install(facts, package, options=options)}   # its repository's URL or folder in place of the name, "
        "where it came from there",
        'python -c "import torch; print(torch.cuda.get_device_capability(), torch.cuda.get_arch_list())"   # torch '
        "itself must have the first in its list, too",
    )


def newer_vllm(facts: Facts) -> tuple[str, ...]:
    """vLLM with the torch that it was compiled for: a newer torch alone leaves its own kernels without the GPU."""
    environment = "uv pip install -U vllm --torch-backend=auto   # in a fresh environment; 0.10 and newer know RTX 50"
    image = "docker pull vllm/vllm-openai:latest   # the image of today; pip on the host changes nothing in a container"
    steps = (image, f"or without it: {environment}") if facts.platform.container else (environment, f"or: {image}")
    return (*steps, "nvidia-smi   # its driver has to know the CUDA of that build: 570 for 12.8, 580 for 13")
