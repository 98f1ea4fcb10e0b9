"""Rules about Huawei's Ascend NPUs."""

from __future__ import annotations

from workbench.doctor import fixes
from workbench.doctor.facts import Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ALL_GPU_BENCHES, PASSED, Result, Rule, evidence, seen
from workbench.doctor.versions import minor_name

_ASKS_CUDA = ("torch-not-compiled-with-cuda", "no-nvidia-driver", "no-cuda-gpus", "needs-gpu", "no-nvml")


def cuda_asked_on_ascend(facts: Facts) -> Result:
    """A program asks for CUDA on a machine of which an Ascend NPU is told."""
    error = facts.error(*_ASKS_CUDA)
    if error is None or facts.error("ascend-told") is None or facts.has_nvidia():
        return PASSED
    there = facts.package("torch-npu")
    torch = minor_name(facts.torch.version)
    if facts.torch.version:
        paired = fixes.install(facts, f"torch-npu=={facts.torch.version}", "numpy", "pyyaml", "decorator")
    else:
        paired = "python -m pip install torch-npu==<the version of torch> numpy pyyaml decorator"
    return [
        Finding(
            "cuda-asked-on-ascend",
            "error",
            "The program asks for CUDA, and the accelerator here is an Ascend NPU",
            "torch reaches an NPU through torch_npu only, as device npu; transformers, accelerate and LLaMA-Factory "
            "take it by themselves once it can be imported.",
            {**evidence(torch__version=facts.torch.version, torch_npu=there), **seen(error)},
            (
                *fixes.preparation(facts),
                *(
                    ()
                    if there
                    else (f"{paired}   # the torch_npu of torch's own release{f' ({torch})' if torch else ''}",)
                ),
                "source /usr/local/Ascend/ascend-toolkit/set_env.sh && npu-smi info   # CANN, and the NPUs",
                'python -c "import torch, torch_npu; print(torch.npu.is_available())"   # must say True',
                "In the program: import torch_npu; 'npu' in place of 'cuda' (or from torch_npu.contrib import "
                "transfer_to_npu); ASCEND_RT_VISIBLE_DEVICES in place of CUDA_VISIBLE_DEVICES",
            ),
            "https://gitcode.com/Ascend/pytorch",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def vllm_steps(facts: Facts) -> tuple[str, ...]:
    """vLLM beside the vllm-ascend of its own release, which brings the torch and torch_npu that both were made for.

    Not in one command: each pins another torch, by their metadata.
    """
    release = "0.23.0"  # the newest of vllm-ascend, November 2026
    return (
        f"{fixes.install(facts, f'vllm=={release}')} && {fixes.install(facts, f'vllm-ascend=={release}')}   # in a "
        "fresh environment, one after the other: the second brings the torch and torch_npu that both run on",
        f"or the image in which all of them are: quay.io/ascend/vllm-ascend:v{release}",
    )


RULES: tuple[Rule, ...] = (cuda_asked_on_ascend,)
