"""Rules about programs that die without a Python error, where the GPU tells why. Needs the tables."""

from __future__ import annotations

from workbench.doctor import fixes
from workbench.doctor.facts import Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ALL_GPU_BENCHES, ISSUES, PASSED, Result, Rule, capabilities, evidence, seen
from workbench.doctor.versions import older


def crash_on_new_gpu(facts: Facts) -> Result:
    """A crash on a card that only newer builds of torch have code for, where the build is not known."""
    error = facts.error("crash-in-compiled-code", "child-died-on-windows")
    known = capabilities(facts)
    if error is None or not known or facts.torch.version is not None:
        return PASSED
    if any(older(capability, "12.0") for _, capability in known):
        return PASSED
    return [
        Finding(
            "torch-wheel-lacks-gpu-arch",
            "warning",
            f"Likely: the program's torch has no code for this GPU (compute capability {known[0][1]}), and crashes",
            "Cards of the RTX 50 series need torch 2.7 or newer, built with CUDA 12.8 or newer; ready-made packages of "
            "programs often bring an older one.",
            {**evidence(gpu=known[0][0].name, compute_capability=known[0][1]), **seen(error)},
            (
                "The program's own package for the RTX 50 series (often named nvidia50 or cu128), where there is one",
                'python -c "import torch; print(torch.__version__, torch.cuda.get_arch_list())"   # with the '
                "program's own Python; sm_120 must stand in it",
                fixes.install(
                    facts,
                    "torch",
                    "torchvision",
                    "torchaudio",
                    options="--index-url https://download.pytorch.org/whl/cu128",
                    upgrade=True,
                ),
            ),
            ISSUES + "pytorch/pytorch/issues/164342",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def cuda_10_build_fails(facts: Facts) -> Result:
    """cuDNN or cuBLAS of a build for CUDA 10, which starts on a newer card after minutes, and fails; none is told."""
    error, told = facts.error("cublas-does-not-start"), facts.error("cuda-10-told")
    built = facts.torch.cuda
    ten = older(built, "11.0") if built else told is not None
    if error is None or not ten or facts.gpus is not None or facts.error("oom"):
        return PASSED
    return [
        Finding(
            "torch-wheel-lacks-gpu-arch",
            "error",
            "torch was built for CUDA 10; most likely the GPU is newer than that (RTX 30, A100 and later)",
            "For such a card it has no code of its own: what it can translate takes minutes at the start, and cuDNN "
            "and cuBLAS fail. On a card of CUDA 10's time (V100, RTX 20, GTX) it is memory that has run out.",
            {**evidence(torch__version=facts.torch.version, torch__cuda=built), **seen(error)},
            (
                "nvidia-smi   # the card, and is its memory full? An RTX 30, A-series or newer card needs:",
                fixes.install(
                    facts,
                    "torch==1.10.2+cu113",
                    "torchvision",
                    options="-f https://download.pytorch.org/whl/torch_stable.html",
                )
                + "   # or the release nearest to the program's own that has a build for CUDA 11: 1.7.1+cu110, "
                "1.8.1+cu111",
                "On an older card: a smaller batch, or end the other processes on it.",
            ),
            ISSUES + "d62lu/3DCTN/issues/2",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


RULES: tuple[Rule, ...] = (crash_on_new_gpu, cuda_10_build_fails)
