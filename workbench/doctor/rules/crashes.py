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


RULES: tuple[Rule, ...] = (crash_on_new_gpu,)
