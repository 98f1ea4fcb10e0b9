"""Rules about vLLM: the torch that it pins, and the device that it looks for."""

from __future__ import annotations

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import PASSED, Result, Rule, capabilities, evidence, from_message, seen
from workbench.doctor.rules.extensions import vllm_anew
from workbench.doctor.tables import companion
from workbench.doctor.versions import at_least, minor_name


def vllm_pin(facts: Facts) -> Result:
    """vLLM pins torch exactly."""
    version, torch = facts.package("vllm"), facts.torch.version
    pair = companion("vllm", version)
    if pair is None or torch is None:
        return None
    if minor_name(torch) == minor_name(pair[0]):
        return PASSED
    return [
        Finding(
            "vllm-torch-mismatch",
            "warning",
            f"vLLM {version} belongs to torch {pair[0]}, not {torch}",
            "Its kernels are compiled against exactly that torch.",
            evidence(vllm=version, torch__version=torch, needs=f"torch=={pair[0]}"),
            vllm_anew(facts),
            pair[1],
        )
    ]


def vllm_needs_newer_card(facts: Facts) -> Result:
    """vLLM beside nothing but cards that its wheels have no kernels for."""
    cards = capabilities(facts)
    if not cards or not (facts.package("vllm") or facts.error("of-vllm")):
        return None
    told = facts.error("no-kernel-image", "invalid-device-function", "capability-below-7", "capability-required")
    if told is not None or any(at_least(capability, "7.0") for _, capability in cards):
        return PASSED
    return [
        Finding(
            "app-needs-newer-compute-capability",
            "warning",
            f"vLLM has no kernels for {cards[0][0].name or 'this GPU'}: it starts at compute capability 7.0",
            "torch itself may run on the card; vLLM's own kernels are compiled for Volta and newer, and to launch one "
            "ends in 'no kernel image is available'.",
            evidence(vllm=facts.package("vllm"), compute_capability=cards[0][1]),
            (
                "curl -fsSL https://ollama.com/install.sh | sh   # or llama.cpp itself: it runs on 5.0 and newer",
                "or a card of 7.0 or newer for vLLM",
            ),
            "https://docs.vllm.ai/en/latest/getting_started/installation/gpu.html",
            affects=("chat",),
        )
    ]


def vllm_finds_no_device(facts: Facts) -> Result:
    """vLLM runs on no platform that it knows."""

    def make(error: ErrorFact) -> Finding:
        windows = fixes.on_windows(facts)
        if not windows and (facts.torch.build == "rocm" or facts.has_amd()):
            return _vllm_on_amd(facts, error)
        return Finding(
            "vllm-unsupported-on-windows" if windows else "vllm-no-device",
            "error",
            "vLLM does not run on Windows" if windows else "vLLM finds no device that it can use",
            "There are no wheels for Windows, and a checkout builds without its kernels."
            if windows
            else "Its CUDA wheel wants a GPU that torch sees and libcuda; for a machine without one there is another "
            "build.",
            {
                **evidence(vllm=facts.package("vllm"), torch__version=facts.torch.version, os=facts.platform.os),
                **seen(error),
            },
            ("wsl --install   # then install vLLM inside the Linux system",)
            if windows
            else (
                f'{fixes.python_command(facts)} -c "import torch; print(torch.cuda.device_count())"',
                "nvidia-smi",
            ),
            "https://docs.vllm.ai/en/latest/getting_started/installation/",
            affects=("chat",),
            observed=True,
        )

    return from_message(facts, ("vllm-no-device",), make)


def _vllm_on_amd(facts: Facts, error: ErrorFact) -> Finding:
    built = facts.torch.build in (None, "rocm")
    image = "docker run --device /dev/kfd --device /dev/dri --group-add video --ipc=host -it rocm/vllm:latest"
    return Finding(
        "vllm-no-device",
        "error",
        "vLLM does not recognise the AMD GPU: it asks for it through the Python package amdsmi, which comes with ROCm"
        if built
        else "vLLM does not recognise the AMD GPU: its wheel on PyPI is the one for CUDA",
        "pip does not bring amdsmi along; it lies in ROCm's own folder, and has to be of that ROCm's release."
        if built
        else "For ROCm there is an image, and a build from source with ROCm's torch and amdsmi beside it.",
        {
            **evidence(vllm=facts.package("vllm"), torch__version=facts.torch.version, os=facts.platform.os),
            **seen(error),
        },
        (
            *fixes.preparation(facts),
            *(("cd /opt/rocm/share/amd_smi && python -m pip install .",) if built else ()),
            f"{'or ' if built else ''}{image}",
            "rocm-smi   # must list the GPU; if not, the user has to be in the groups video and render",
        ),
        "https://docs.vllm.ai/en/latest/getting_started/installation/gpu.html",
        affects=("chat",),
        observed=True,
    )


RULES: tuple[Rule, ...] = (
    vllm_pin,
    vllm_needs_newer_card,
    vllm_finds_no_device,
)
