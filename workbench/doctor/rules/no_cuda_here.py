"""The answer to a build that wants CUDA's toolkit where it has no use: on a Mac, beside a torch for ROCm."""

from __future__ import annotations

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import evidence, seen


def beside_rocm(facts: Facts, error: ErrorFact) -> Finding:
    """torch.utils.cpp_extension builds for HIP only where torch is a ROCm build and it finds ROCM_HOME."""
    flash = any("flash_attn" in other.text or "flash-attn" in other.text for other in facts.errors)
    install = fixes.install(facts, "flash-attn", options="--no-build-isolation")
    triton = f"or its kernels in Triton, which compile nothing: FLASH_ATTENTION_TRITON_AMD_ENABLE=TRUE {install}"
    return Finding(
        "cuda-home-unset",
        "error",
        "A package's build goes CUDA's way beside a torch for ROCm: it finds no ROCm toolkit",
        "torch's extensions are built for HIP where ROCM_HOME, or hipcc on PATH, shows a ROCm; the wheel brings none.",
        {**evidence(torch__version=facts.torch.version, nvcc=facts.toolkit.nvcc), **seen(error)},
        (
            "export ROCM_HOME=/opt/rocm PATH=/opt/rocm/bin:$PATH   # where /opt/rocm/bin/hipcc is; then the same "
            "command with --no-build-isolation",
            "else ROCm's SDK first (rocm-hip-sdk): "
            "https://rocm.docs.amd.com/projects/install-on-linux/en/latest/install/quick-start.html",
            *((triton,) if flash else ()),
        ),
        "https://github.com/Dao-AILab/flash-attention#amd-rocm-support",
        observed=True,
    )


def on_a_mac(facts: Facts, error: ErrorFact) -> Finding:
    """Neither driver nor toolkit."""
    return Finding(
        "cuda-home-unset",
        "error",
        "A package wants to compile CUDA code, and a Mac has no CUDA",
        "CUDA is for NVIDIA GPUs; macOS has neither driver nor toolkit since 10.13. Whatever CUDA_HOME is set to, "
        "there is nothing to compile with.",
        {**evidence(system=facts.platform.system, nvcc=facts.toolkit.nvcc), **seen(error)},
        (
            "Leave the package out where the project has a way without it: a CPU or MPS option, attention without "
            "flash-attn, a branch for Apple silicon",
            "or run it on a machine with an NVIDIA GPU: a rented one, Colab, Kaggle",
        ),
        "https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/",
        observed=True,
    )
