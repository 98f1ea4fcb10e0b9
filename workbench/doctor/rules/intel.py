"""Rules about Intel's GPUs (xpu): torch's build, and the compute runtime below it. Needs the tables."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ALL_GPU_BENCHES, PASSED, Result, Rule, evidence, gpu_names, seen

_WHEELS = "--index-url https://download.pytorch.org/whl/xpu"
# Said only by code that was built for Intel's GPUs.
_FROM_XPU_CODE = re.compile(r"no xpu device|native api|device count is zero|result_error_|pi_error_|sycl device", re.I)
_RUNTIME = (
    (
        re.compile(r"fedora|rhel|red hat|rocky|alma|centos|nobara", re.I),
        "sudo dnf install intel-compute-runtime intel-level-zero oneapi-level-zero clinfo",
    ),
    (
        re.compile(r"arch|manjaro|cachyos|endeavour", re.I),
        "sudo pacman -S intel-compute-runtime level-zero-loader clinfo",
    ),
    (
        re.compile(r"suse", re.I),
        "sudo zypper install intel-opencl level-zero-gpu level-zero clinfo",
    ),
    (
        re.compile(r"", re.I),
        "sudo add-apt-repository -y ppa:kobuk-team/intel-graphics && sudo apt install -y libze-intel-gpu1 libze1 "
        "intel-opencl-icd clinfo   # Ubuntu 24.04 and newer; 22.04: https://dgpu-docs.intel.com/driver/client/overview.html",
    ),
)


def xpu_not_available(facts: Facts) -> Result:
    """torch's xpu device is not there: a build without it, or no runtime that answers."""
    built_without = facts.error("torch-without-xpu")
    error = built_without or facts.error("xpu-no-device") or _stays_on_cpu(facts)
    if error is None:
        return PASSED
    has_xpu = built_without is None and _has_xpu(facts, error)
    return [
        Finding(
            "xpu-not-available",
            "error",
            "torch has code for the Intel GPU, and Intel's compute runtime shows it none"
            if has_xpu
            else "The Intel GPU cannot be used: this torch has no XPU, or Intel's compute runtime does not answer",
            "torch's XPU build finds cards through Level Zero, a part of Intel's driver that a desktop does not need; "
            "the user has to be in the group render, and the kernel to know the card (Arc A: 6.2, Arc B: 6.12 or "
            "newer).",
            {**evidence(gpus=gpu_names(facts), torch__version=facts.torch.version), **seen(error)},
            _steps(facts, has_xpu, built_without is not None or facts.torch.build in ("cpu", "cuda")),
            "https://docs.pytorch.org/docs/stable/notes/get_start_xpu.html",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def _stays_on_cpu(facts: Facts) -> Optional[ErrorFact]:
    """A program names the CPU as its device beside a card of Intel's, which CUDA builds and CPU builds do not drive."""
    alone = facts.platform.gpu_vendors == ("intel",) and facts.platform.system != "Darwin"
    return facts.error("device-is-cpu") if alone and facts.torch.build in (None, "cpu", "cuda") else None


def _steps(facts: Facts, has_xpu: bool, built_without: bool) -> tuple[str, ...]:
    if has_xpu:
        return (*_runtime(facts), *wheel(facts))
    return (*wheel(facts)[1 if built_without else 0 :], *_runtime(facts))


def memory_full(facts: Facts) -> Result:
    """The Intel GPU gives no more memory; of several, the wrong one may be asked."""
    error = facts.error("intel-gpu-memory")
    if error is None:
        return PASSED
    several = facts.error("several-sycl-devices")
    choose = fixes.export(facts, "ONEAPI_DEVICE_SELECTOR", "level_zero:0", "the number of the card in the list above")
    return [
        Finding(
            "intel-gpu-memory-full",
            "error",
            "The Intel GPU's memory is full, or a piece is larger than it gives at once"
            + (": the integrated GPU takes part too" if several else ""),
            "Level Zero gives at most 4 GiB in a piece, unless it is told otherwise; layers, context and buffers "
            "together have to fit the card, and with several GPUs each takes a part.",
            {**evidence(gpus=gpu_names(facts)), **seen(several), **seen(error)},
            (
                *((choose,) if several else ()),
                "Less on the card: fewer layers (-ngl 20, OLLAMA_NUM_GPU=20), a shorter context, a smaller picture or "
                "batch, or a more strongly quantized model",
                fixes.export(facts, "UR_L0_ENABLE_RELAXED_ALLOCATION_LIMITS", "1", "pieces of more than 4 GiB"),
                *(() if several else (choose,)),
            ),
            "https://github.com/ggml-org/llama.cpp/blob/master/docs/backend/SYCL.md",
            affects=("chat", "vram"),
            observed=True,
        )
    ]


def _has_xpu(facts: Facts, error: ErrorFact) -> bool:
    tagged = [facts.torch.version or "", facts.package("intel-extension-for-pytorch") or ""]
    return any("xpu" in version for version in tagged) or bool(_FROM_XPU_CODE.search(error.text))


def wheel(facts: Facts) -> tuple[str, ...]:
    """Steps that put torch's own XPU build in place of any other."""
    return (
        'python -c "import torch; print(torch.__version__, torch.xpu.is_available())"   # +xpu must stand in the '
        "version; else:",
        fixes.uninstall(facts, "torch", "torchvision", "torchaudio", "intel-extension-for-pytorch"),
        fixes.install(facts, "torch", "torchvision", options=_WHEELS),
    )


def _runtime(facts: Facts) -> tuple[str, ...]:
    if fixes.on_windows(facts):
        return ("Install the newest Intel graphics driver, and restart Windows: https://www.intel.com/arc-drivers",)
    if facts.platform.container:
        return (
            "docker run --device /dev/dri --group-add $(getent group render | cut -d: -f3) …   # with Intel's compute "
            "runtime (libze-intel-gpu1, intel-opencl-icd) inside the image",
        )
    name = facts.platform.os or ""
    packages = next(command for pattern, command in _RUNTIME if pattern.search(name))
    return (
        packages,
        "sudo usermod -aG render,video $USER   # then log in anew",
        "clinfo -l; ls -l /dev/dri; uname -r   # must list the card; a kernel that knows it",
    )


RULES: tuple[Rule, ...] = (xpu_not_available, memory_full)
