"""Facts that follow from other facts: a capability from a GPU's name, a build from a version. Needs the tables."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Optional

from workbench.doctor.facts import ErrorFact, Facts, GpuFacts, TorchFacts
from workbench.doctor.parse.messages import find_messages
from workbench.doctor.tables import cuda_of, driver_cuda, gpu_capability, torch_release
from workbench.doctor.versions import at_least, local_tag, minor_name, release_of

# GPUs that exist only beside an Arm processor.
_SOLDERED = re.compile(r"\b(?:GB10|GH200|GB200|GB300|Orin|Thor|Xavier)\b")


# Systems whose glibc is older than some wheels want (https://github.com/mayeut/pep600_compliance).
_GLIBC_OF = (
    (re.compile(r"(?:CentOS|Red Hat|RHEL|Scientific|Oracle)\D{0,30}\b7(?:\.\d{1,2})?\b", re.IGNORECASE), "2.17"),
    (re.compile(r"Ubuntu 16\.04", re.IGNORECASE), "2.23"),
    (re.compile(r"Amazon Linux(?: release)? 2\b(?!0)", re.IGNORECASE), "2.26"),
    (re.compile(r"Ubuntu 18\.04", re.IGNORECASE), "2.27"),
)


def derive(facts: Facts) -> Facts:
    """`facts` with what can be concluded from them filled in; nothing known is changed."""
    facts = replace(facts, gpus=_gpus(facts), errors=(*facts.errors, *_probe_errors(facts)))
    if facts.platform.machine is None and any(_SOLDERED.search(gpu.name or "") for gpu in facts.gpus or ()):
        facts = replace(facts, platform=replace(facts.platform, machine="aarch64"))
    if facts.platform.libc is None and facts.platform.libc_version is None:
        libc = next((version for name, version in _GLIBC_OF if name.search(facts.platform.os or "")), None)
        if libc is not None:
            facts = replace(facts, platform=replace(facts.platform, libc="glibc", libc_version=libc))
    if facts.platform.wsl and facts.platform.wsl_version is None and facts.platform.kernel:
        # WSL 1 says 4.4.0-19041-Microsoft; WSL 2 has a kernel of its own, 5.15.146.1-microsoft-standard-WSL2.
        version = 1 if re.match(r"4\.4\.0-\d+-Microsoft", facts.platform.kernel) else 2
        facts = replace(facts, platform=replace(facts.platform, wsl_version=version))
    facts = replace(facts, torch=_torch(facts))
    driver = facts.driver
    found = found_cuda(facts)
    if driver.cuda is None and found:
        facts = replace(facts, driver=replace(driver, cuda=found))
    elif driver.cuda is None and driver.version and not facts.platform.wsl:
        facts = replace(facts, driver=replace(driver, cuda=driver_cuda(driver.version)))
    bitsandbytes = facts.bitsandbytes
    if bitsandbytes.version is None and facts.package("bitsandbytes"):
        library = replace(bitsandbytes, version=facts.package("bitsandbytes"), installed=True)
        facts = replace(facts, bitsandbytes=library)
    return facts


def found_cuda(facts: Facts) -> Optional[str]:
    """The CUDA version of the driver as torch names it where it is too old: 1000 * major + 10 * minor."""
    error = facts.error("driver-too-old")
    found = int(error.values["found"]) if error and error.values.get("found") else 0
    return f"{found // 1000}.{found % 1000 // 10}" if found else None


def _gpus(facts: Facts) -> Optional[tuple[GpuFacts, ...]]:
    if facts.gpus is None:
        named = facts.error("unsupported-capability", "gpu-too-old-for-torch", "capability-range")
        return (_gpu(_named(named)),) if named and named.values.get("gpu") else None
    return tuple(_gpu(gpu) for gpu in facts.gpus)


def _named(error: ErrorFact) -> GpuFacts:
    """The GPU that torch's own warning names."""
    digits = error.values.get("sm")
    capability = f"{digits[:-1]}.{digits[-1]}" if digits else error.values.get("cc")
    name = re.sub(r"^.*?(?=NVIDIA|GeForce|Tesla|Quadro)", "", error.values["gpu"], count=1)
    return GpuFacts(name=name, vendor="nvidia", compute_capability=capability)


def _gpu(gpu: GpuFacts) -> GpuFacts:
    capability = gpu.compute_capability or (gpu_capability(gpu.name) if gpu.name else None)
    vendor = gpu.vendor
    if vendor is None and capability:
        vendor = "amd" if capability.startswith("gfx") else "nvidia"
    bf16, fp8 = gpu.bf16, gpu.fp8
    if capability and not capability.startswith("gfx"):
        # Ampere brought bf16, Ada and Hopper fp8 (CUDA programming guide, features by compute capability).
        bf16 = at_least(capability, "8.0") if bf16 is None else bf16
        fp8 = at_least(capability, "8.9") if fp8 is None else fp8
    return replace(gpu, compute_capability=capability, vendor=vendor, bf16=bf16, fp8=fp8)


def _probe_errors(facts: Facts) -> list[ErrorFact]:
    known = {error.id for error in facts.errors}
    found: list[ErrorFact] = []
    for step in facts.probes:
        # A step that passed may still have warned; what CUDA said while torch went on without it is kept apart.
        said = [step.stderr] if step.status == "passed" else [step.detail, step.stderr]
        text = "\n".join(([facts.torch.cuda_error or ""] if step.step == "cuda" else []) + said)
        for error in find_messages(text.splitlines()):
            if error.id not in known and not (error.id in _OF_NO_GPU and _without_nvidia(facts)):
                known.add(error.id)
                found.append(error)
    if facts.driver.error and facts.origin == "live":
        found += [error for error in find_messages([facts.driver.error]) if error.id not in known]
    return found


_OF_NO_GPU = frozenset(("no-nvidia-driver", "no-cuda-gpus"))
"""What CUDA answers, when it is asked, on a machine that has no NVIDIA GPU."""


def _without_nvidia(facts: Facts) -> bool:
    """Whether the PCI bus was read and holds no NVIDIA GPU, nobody asked for one, and none can come another way."""
    asked = facts.environment.get("NVIDIA_VISIBLE_DEVICES") not in (None, "", "void", "none")
    other_ways = facts.platform.wsl or facts.platform.machine != "x86_64"  # Windows' own GPU; boards without a bus
    return facts.has_nvidia() is False and not asked and not other_ways


def _torch(facts: Facts) -> TorchFacts:
    torch = facts.torch
    version = torch.version or facts.package("torch") or facts.package("pytorch")
    if version is None:
        return torch
    torch = replace(torch, version=version, installed=True if torch.installed is None else torch.installed)
    if torch.build is not None:
        return torch
    if torch.cuda:
        return replace(torch, build="cuda")
    if torch.hip:
        return replace(torch, build="rocm")
    tag = local_tag(version) or ""
    if tag.startswith("cpu"):
        return replace(torch, build="cpu")
    if tag.startswith("cu") and cuda_of(tag[:5]):
        return replace(torch, build="cuda", cuda=cuda_of(tag[:5]))
    if tag.startswith("rocm"):
        return replace(torch, build="rocm", hip=tag[4:])
    if tag.startswith("xpu"):
        return replace(torch, build="xpu")
    toolkit = release_of(facts.package("cudatoolkit")) if "cudatoolkit" in facts.conda else None
    if toolkit and not tag and not facts.package("cpuonly"):
        return replace(torch, build="cuda", cuda=f"{toolkit[0]}.{toolkit[1]}")
    # conda-forge numbers its builds: 1xx and 2xx are for CPU, 3xx for CUDA.
    if re.search(r"\.post[12]\d\d$", version):
        return replace(torch, build="cpu")
    return _from_packages(facts, torch) if not tag else torch


def _from_packages(facts: Facts, torch: TorchFacts) -> TorchFacts:
    """The build of a version without a tag, which is what pip lists for a wheel from the package index."""
    for major in ("13", "12", "11"):
        for name in (f"nvidia-cuda-runtime-cu{major}", "nvidia-cuda-runtime"):
            runtime = facts.package(name)
            if runtime and runtime.split(".")[0] == major:
                numbers = release_of(runtime)
                return replace(torch, build="cuda", cuda=f"{numbers[0]}.{numbers[1]}" if numbers else None)
    machine, system = facts.platform.machine, facts.platform.system
    if system == "Windows" and at_least(torch.version, "1.13") and not _typed_by_hand(facts):
        return replace(torch, build="cpu")
    if system == "Darwin":
        return replace(torch, build="mps" if machine == "arm64" else "cpu")
    release = torch_release(torch.version)
    if system == "Linux" and machine == "x86_64" and release is not None:
        return replace(torch, build="cuda", cuda=cuda_of(release.index))
    if any(re.search(r"\b(?:Jetson|Orin|Xavier)\b", gpu.name or "") for gpu in facts.gpus or ()):
        return torch  # the builds for a Jetson have no tag either
    if system == "Linux" and machine == "aarch64" and release is not None:
        on_index = at_least(minor_name(torch.version), "2.11")
        return replace(torch, build="cuda", cuda=cuda_of(release.index)) if on_index else replace(torch, build="cpu")
    return torch


# What prints a version whole, with the tag of a build from PyTorch's own index.
_PRINTED_WHOLE = frozenset(("pip list", "pip freeze", "uv pip list", "conda list", "pip install", "collect_env"))


def _typed_by_hand(facts: Facts) -> bool:
    """Whether the versions of a paste are as somebody wrote them down, who leaves such a tag away."""
    return facts.origin == "report" and not _PRINTED_WHOLE & set(facts.formats)
