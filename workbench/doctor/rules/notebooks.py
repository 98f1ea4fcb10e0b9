"""Rules about rented notebooks (Colab, Kaggle), which have a GPU only where one was chosen."""

from __future__ import annotations

from workbench.doctor.facts import Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import PASSED, Result, Rule, cuda_works, evidence, seen

_FAQ = "https://research.google.com/colaboratory/faq.html#usage-limits"


def notebook_without_gpu(facts: Facts) -> Result:
    """The notebook's machine has no GPU, as it says itself or as torch finds."""
    told = facts.error("colab-without-gpu")
    service = facts.platform.service if facts.origin == "report" else None
    blind = facts.error(
        "no-cuda-gpus",
        "no-nvidia-driver",
        "needs-gpu",
        "driver-lists-no-gpu",
        "smi-cannot-communicate",
        "libcuda-missing",
    )
    missed = service in ("colab", "kaggle") and (blind is not None or facts.torch.cuda_available is False)
    elsewhere = facts.platform.system in ("Windows", "Darwin") or facts.platform.wsl or bool(facts.platform.container)
    if told is None and (
        not missed or elsewhere or facts.torch.build == "cpu" or cuda_works(facts) or facts.driver.version
    ):
        return PASSED
    kaggle = service == "kaggle"
    return [
        Finding(
            "colab-without-gpu",
            "error",
            "This notebook's machine has no GPU",
            "Colab and Kaggle give a GPU only where it was chosen, and not after their limit of use.",
            {**evidence(service=service, cuda_available=facts.torch.cuda_available), **seen(told or blind)},
            (
                "Kaggle: Settings, Accelerator, GPU T4 x2 (the account's phone number must be verified)"
                if kaggle
                else "Runtime, Change runtime type, T4 GPU, Save; then !nvidia-smi must list it (Kaggle: Settings, "
                "Accelerator)",
                "With a GPU chosen already: Runtime, Disconnect and delete runtime, and run again without installing "
                "another torch, which may be a build without CUDA: !pip list | grep -i torch",
                "After the limit: wait, take a paid plan, or another service.",
            ),
            _FAQ,
            affects=("chat", "vram"),
            observed=True,
        )
    ]


RULES: tuple[Rule, ...] = (notebook_without_gpu,)
