"""Which torch and toolkit a build of CUDA code takes, where the shell shows others. Needs the tables."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ISSUES, evidence, seen
from workbench.doctor.tables import cuda_of
from workbench.doctor.versions import release_of


def major(version: Optional[str]) -> Optional[int]:
    """The first number of a version; None where it is not known."""
    numbers = release_of(version)
    return numbers[0] if numbers else None


def home_of_another_toolkit(facts: Facts, error: ErrorFact, detected: str, built: Optional[str]) -> Finding:
    """The nvcc of the shell fits torch, and the build takes another one, which CUDA_HOME or /usr/local/cuda names."""
    return Finding(
        "nvcc-torch-cuda-mismatch",
        "error",
        f"The build takes the toolkit of CUDA {detected}, beside the nvcc of {facts.toolkit.nvcc} that fits torch",
        "torch looks for the toolkit in CUDA_HOME first, then beside the nvcc on PATH, then in /usr/local/cuda; "
        "another shell, sudo or an environment may have other values of these.",
        {**evidence(nvcc=facts.toolkit.nvcc, torch__cuda=built, CUDA_HOME=facts.toolkit.cuda_home), **seen(error)},
        _home_of_this_nvcc(facts),
        ISSUES + "oobabooga/textgen/issues/1440",
        observed=True,
    )


def _home_of_this_nvcc(facts: Facts) -> tuple[str, ...]:
    home = fixes.export(facts, "CUDA_HOME", "$(dirname $(dirname $(readlink -f $(which nvcc))))", "nvcc's own folder")
    if fixes.on_windows(facts):
        folder = rf"C:\Program Files\NVIDIA GPU Computing Toolkit\CUDA\v{facts.toolkit.nvcc}"
        home = fixes.export(facts, "CUDA_HOME", folder, "the nvcc's own folder")
    return (home, "Then the same command again, in this same shell.")


def older_toolkit_taken(facts: Facts, error: ErrorFact, needed: str) -> Finding:
    """The nvcc of the shell is new enough for a package's setup, which has found an older one."""
    return Finding(
        "toolkit-too-old-for-package",
        "error",
        f"The build takes an older toolkit than the nvcc of {facts.toolkit.nvcc} in this shell: it wants CUDA {needed}",
        "torch looks for the toolkit in CUDA_HOME first, then beside the nvcc on PATH, then in /usr/local/cuda; a "
        "newer one that conda brought lies in the environment's own folder.",
        {**evidence(nvcc=facts.toolkit.nvcc, CUDA_HOME=facts.toolkit.cuda_home), **seen(error)},
        _home_of_this_nvcc(facts),
        ISSUES + "Dao-AILab/flash-attention/issues/1140",
        affects=("chat",),
        observed=True,
    )


def fetched_for_the_build(facts: Facts, error: ErrorFact) -> bool:
    """Whether the torch that the message means is not the one that is installed, but one that pip fetched."""
    here, meant = _cuda_here(facts), error.values.get("torch")
    return facts.error("torch-of-the-build") is not None or bool(here and meant and here != meant)


def _cuda_here(facts: Facts) -> Optional[str]:
    """The CUDA of the installed torch, as it says itself or as the name of its build does."""
    return facts.torch.cuda or cuda_of(str(facts.torch.version).rpartition("+")[2])


def another_torch_in_the_build(
    facts: Facts, error: ErrorFact, nvcc: str, built: Optional[str], torch: Optional[str]
) -> Finding:
    """pip builds with a torch that it fetched for the purpose; `torch` is the step to one that fits `nvcc`."""
    torch = None if major(_cuda_here(facts)) == major(nvcc) else torch
    vllm = facts.error("of-vllm")
    published = vllm is not None and re.search(r"\bpip3? install (?:-U )?vllm\b", vllm.text) is not None
    return Finding(
        "nvcc-torch-cuda-mismatch",
        "error",
        f"nvcc is of CUDA {nvcc}, and the torch that pip fetched for the build alone of CUDA {built or '(another)'}",
        "pip builds in an environment of its own and installs there what the project's pyproject.toml asks for: its "
        "torch, not the one that is installed here.",
        {**evidence(nvcc=nvcc, torch_of_the_build=built), **seen(error)},
        (_VLLM_WHEEL,)
        if published
        else (
            *((torch,) if torch else ()),
            *((_VLLM_TORCH,) if vllm else ()),
            fixes.install(facts, "ninja", "packaging", "setuptools", "wheel", *(_VLLM_TOOLS if vllm else ())),
            fixes.install(facts, ".", options="--no-build-isolation -e")
            + "   # or the package's name in place of -e .",
            *((f"or {_VLLM_WHEEL}",) if vllm else ()),
        ),
        "https://pip.pypa.io/en/stable/reference/build-system/#build-isolation",
        observed=True,
    )


# vLLM's installation guide, "Use an existing PyTorch installation"; the script is there from 0.6 on.
_VLLM_WHEEL = (
    "uv venv vllm && uv pip install --python vllm vllm --torch-backend=auto   # vLLM's ready wheel, in an environment "
    "of its own: needs no nvcc at all, only a driver that knows its CUDA"
)
_VLLM_TORCH = "python use_existing_torch.py   # in vLLM's folder: takes its own torch out of what the build asks for"
_VLLM_TOOLS = ("setuptools_scm", "cmake")
