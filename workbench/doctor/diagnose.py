"""From facts to a diagnosis: every rule, root causes first, consequences named as such."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Optional

from workbench.doctor.derive import derive
from workbench.doctor.facts import Facts
from workbench.doctor.findings import SEVERITIES, Finding
from workbench.doctor.fixes import in_environment
from workbench.doctor.rules import (
    amd_windows,
    ascend,
    bitsandbytes,
    build_tools,
    building,
    cmake,
    commands,
    compilers,
    containers,
    crashes,
    cxx,
    device_numbers,
    distributed,
    driver,
    extensions,
    gpu_start,
    hanging,
    headers,
    held_memory,
    hidden_gpus,
    hub,
    huggingface,
    intel,
    interpreter,
    model_files,
    model_types,
    notebooks,
    ollama,
    other_runtimes,
    pairs,
    plain,
    platforms,
    processor,
    runtime,
    toolchain,
    torch_gpu,
    torch_install,
    torch_vendor,
    uvm,
    vgpu,
    wsl,
)
from workbench.doctor.rules.last import unexplained

RULES = (
    *driver.RULES,
    *gpu_start.RULES,
    *uvm.RULES,
    *vgpu.RULES,
    *notebooks.RULES,
    *wsl.RULES,
    *containers.RULES,
    *hidden_gpus.RULES,
    *held_memory.RULES,
    *platforms.RULES,
    *torch_install.RULES,
    *amd_windows.RULES,
    *ascend.RULES,
    *torch_vendor.RULES,
    *intel.RULES,
    *interpreter.RULES,
    *torch_gpu.RULES,
    *crashes.RULES,
    *cxx.RULES,
    *extensions.RULES,
    *other_runtimes.RULES,
    *toolchain.RULES,
    *build_tools.RULES,
    *headers.RULES,
    *cmake.RULES,
    *compilers.RULES,
    *processor.RULES,
    *building.RULES,
    *bitsandbytes.RULES,
    *huggingface.RULES,
    *model_types.RULES,
    *hub.RULES,
    *model_files.RULES,
    *commands.RULES,
    *runtime.RULES,
    *distributed.RULES,
    *device_numbers.RULES,
    *ollama.RULES,
    *plain.RULES,
    *pairs.RULES,
    *hanging.RULES,
)

# What keeps torch itself from coming up.
_TORCH_DOWN = (
    "torch-missing",
    "python-32-bit",
    "musl-alpine",
    "glibc-too-old",
    "no-torch-wheel-for-python",
    "no-torch-wheel-for-platform",
    "ld-library-path-shadows-nvidia-wheels",
    "nvidia-wheel-version-mismatch",
    "mkl-too-new-for-torch",
    "torch-import-hangs",
    "torch-import-broken",
)
# What keeps the GPU from torch, nearest to the hardware first.
_GPU_DOWN = (
    "gpu-fallen-off-the-bus",
    "driver-does-not-answer",
    "driver-library-version-mismatch",
    "nouveau-loaded",
    "kernel-module-not-loaded",
    "gpu-needs-open-kernel-modules",
    "gpu-too-old-for-driver",
    "driver-too-old-for-gpu",
    "gpu-without-address-range",
    "driver-lists-no-gpu",
    "gpu-unknown-to-kfd",
    "gpu-device-not-allowed",
    "wsl-windows-too-old",
    "wsl-driver-too-old",
    "wsl-gpu-in-tcc-mode",
    "wsl-gpu-blocked",
    "engine-finds-no-driver",
    "device-rules-refused",
    "driver-libraries-missing",
    "driver-beside-the-path",
    "container-without-gpu-runtime",
    "fabric-manager-not-running",
    "cuda-compat-on-unsupported-gpu",
    "driver-userspace-mismatch",
    "wsl-libcuda",
    "libcuda-not-visible",
    "wsl-error-2",
    "kaslr-hmm-uvm",
    "mig-without-instances",
    "cuda-visible-devices-wrong",
    "mig-uuid-in-cuda-visible-devices",
    "no-nvidia-driver",
    "rocm-wheel-on-nvidia",
    "cuda-wheel-on-amd",
    "aarch64-cpu-only-wheel",
    "torch-cpu-only",
    "driver-too-old-for-wheel-cuda",
    "cuda-unknown-error",
    "compute-mode-exclusive",
    "no-cuda-gpus-available",
    "rocm-no-device",
    "torch-wheel-lacks-gpu-arch",
    "rocm-gfx-unsupported",
    "cuda-hangs",
    "cuda-does-not-start",
)
# Why the kernel's part of the driver did not take a card.
_NOT_BROUGHT_UP = (
    "gpu-needs-open-kernel-modules",
    "gpu-too-old-for-driver",
    "driver-too-old-for-gpu",
    "gpu-without-address-range",
)
_BNB_ROOTS = (
    "stale-notebook-kernel",
    "bnb-too-old-for-windows",
    "bnb-unsupported-on-macos",
    "bnb-source-install-not-compiled",
    "bnb-cuda-version-override",
    "bnb-legacy-loader",
    "bnb-wheel-without-rocm",
    "bnb-no-lib-for-rocm",
    "bnb-no-lib-for-cuda",
    "bnb-missing-runtime-lib",
    "bnb-jetson",
    "bnb-too-old-for-triton",
    "bitsandbytes-missing",
)
_FAMILY = tuple(f"{name}-import-broken" for name in ("safetensors", "tokenizers", "accelerate", "peft"))
_IMPORT_ROOTS = (
    "transformers-needs-newer-python",
    "duplicate-torch-installs",
    "transformers-too-new-for-torch",
    "huggingface-hub-pin-conflict",
    "tokenizers-pin-conflict",
    "transformers-pin-conflict",
    "transformers-import-error",
    "accelerate-import-error",
    "peft-import-error",
    "trl-import-error",
    "numpy2-with-old-torch",
    "torchvision-torch-mismatch",
    "flash-attn-built-for-other-torch",
    "extension-built-for-other-cuda",
)

# What a build fails for.
_BUILD_ROOTS = (
    "build-isolation-hides-torch",
    "mac-architectures-mixed",
    "python-32-bit",
    "musl-alpine",
    "package-too-old-for-python",
    "nvcc-torch-cuda-mismatch",
    "host-compiler-too-new-for-nvcc",
    "nvcc-too-old-for-gpu",
    "mingw-in-place-of-msvc",
    "toolkit-too-old-for-package",
    "cuda-home-malformed",
    "cuda-home-unset",
    "msvc-missing",
    "missing-compiler-or-python-headers",
    "rust-too-new-for-package",
    "rust-missing",
    "build-out-of-memory",
    "cmake-missing",
    "ninja-missing",
    "setuptools-mismatch",
    "git-missing",
    "windows-long-paths",
    "hf-cache-disk-full",
    "tls-interception",
    "host-memory-exhausted",
    "cuda-headers-missing",
    "build-library-not-found",
    "cuda-compiler-does-not-work",
    "header-missing",
    "triton-missing-or-wrong",
    "mpi-missing-for-build",
    "pyyaml-too-old-for-cython",
    "libaio-missing",
    "build-cache-on-other-disk",
)

# What may follow from what: a finding that stands here is a consequence of the first of its causes that is there too.
CAUSES: dict[str, tuple[str, ...]] = {
    "torch-import-broken": (
        *_TORCH_DOWN[:-1],
        "libstdcxx-too-old",
        "oneapi-of-other-release",
        "ipex-library-does-not-load",
        "directml-torch-mismatch",
        "numpy2-with-old-torch",
        "duplicate-torch-installs",
        "page-file-too-small",
    ),
    "torch-missing": (
        "python-too-old-to-run",
        "no-torch-wheel-for-python",
        "no-torch-wheel-for-platform",
        "musl-alpine",
        "glibc-too-old",
        "python-32-bit",
    ),
    "no-torch-wheel-for-python": ("python-32-bit", "musl-alpine", "glibc-too-old", "no-torch-wheel-for-platform"),
    "cuda-does-not-start": _TORCH_DOWN + _GPU_DOWN[:-1],
    "cuda-hangs": ("gpu-fallen-off-the-bus", "driver-does-not-answer", "fabric-manager-not-running"),
    "import-hangs": ("torch-import-hangs", "cuda-hangs"),
    "kernel-launch-failed": _GPU_DOWN,
    "no-kernel-image": (
        "torch-wheel-lacks-gpu-arch",
        "rocm-gfx-unsupported",
        "bf16-unsupported-gpu",
        "flash-attn-built-for-other-torch",
        "extension-built-for-other-torch",
        "xformers-torch-mismatch",
    ),
    "no-nvidia-driver": (*_GPU_DOWN[: _GPU_DOWN.index("cuda-visible-devices-wrong")], "vllm-unsupported-on-windows"),
    "no-cuda-gpus-available": _GPU_DOWN[: _GPU_DOWN.index("no-cuda-gpus-available")],
    "cuda-unknown-error": _GPU_DOWN[: _GPU_DOWN.index("mig-uuid-in-cuda-visible-devices")],
    "kernel-module-not-loaded": ("colab-without-gpu", "gpu-fallen-off-the-bus", "nouveau-loaded", *_NOT_BROUGHT_UP),
    "driver-library-version-mismatch": ("gpu-fallen-off-the-bus",),
    "wsl-libcuda": (
        "driver-library-version-mismatch",
        "wsl-windows-too-old",
        "wsl-driver-too-old",
        "wsl-gpu-in-tcc-mode",
        "wsl-gpu-blocked",
    ),
    "driver-too-old-for-wheel-cuda": ("wsl-windows-too-old", "wsl-driver-too-old", "cuda-unknown-error"),
    "driver-lists-no-gpu": ("gpu-fallen-off-the-bus", *_NOT_BROUGHT_UP),
    "wsl-gpu-blocked": ("wsl-windows-too-old", "wsl-driver-too-old", "wsl-gpu-in-tcc-mode"),
    "compute-mode-exclusive": ("gpu-fallen-off-the-bus", "vgpu-without-licence"),
    "container-lost-gpu": ("vgpu-without-licence",),
    "torch-cpu-only": ("duplicate-torch-installs", "vllm-unsupported-on-windows"),
    "torchvision-torch-mismatch": ("duplicate-torch-installs", "torch-cpu-only"),
    "bitsandbytes-unusable": _TORCH_DOWN + _GPU_DOWN + _BNB_ROOTS + ("numpy2-with-old-torch", "import-hangs"),
    "bitsandbytes-too-old": _TORCH_DOWN + _GPU_DOWN + _BNB_ROOTS,
    "bnb-no-lib-for-cuda": (
        "bnb-too-old-for-windows",
        "bnb-source-install-not-compiled",
        "bnb-cuda-version-override",
        "bnb-legacy-loader",
    ),
    "bnb-legacy-loader": (
        *_TORCH_DOWN,
        *_GPU_DOWN,
        "libstdcxx-too-old",
        "bnb-cuda-version-override",
        "bnb-source-install-not-compiled",
    ),
    "bnb-missing-runtime-lib": ("bnb-cuda-version-override",),
    "bnb-cuda-version-override": ("bnb-source-install-not-compiled",),
    "bnb-source-install-not-compiled": ("bnb-too-old-for-windows",),
    "bnb-wheel-without-rocm": ("rocm-wheel-on-nvidia",),
    "accelerate-message-without-cuda": (*_TORCH_DOWN, *_GPU_DOWN, "bnb-unsupported-on-macos"),
    "accelerate-missing": ("transformers-pin-conflict",),
    **{name: (*_IMPORT_ROOTS, *_FAMILY[: _FAMILY.index(name)], "import-hangs") for name in _FAMILY},
    "transformers-import-broken": (
        *_FAMILY[:3],
        *_IMPORT_ROOTS,
        *_TORCH_DOWN,
        "import-hangs",
        "libstdcxx-too-old",
        "torch-shadowed",
        "hf-home-unwritable",
    ),
    "transformers-too-new-for-torch": ("duplicate-torch-installs",),
    "transformers-pin-conflict": ("transformers-too-old-for-model",),
    "extension-built-for-other-cuda": (
        "bnb-missing-runtime-lib",
        "duplicate-torch-installs",
        "bnb-cuda-version-override",
    ),
    "xformers-torch-mismatch": ("duplicate-torch-installs", "torch-cpu-only"),
    "attention-kernel-missing": ("xformers-torch-mismatch", "xformers-older-than-gpu"),
    "vllm-no-device": (
        "cann-not-loaded",
        "ascend-driver-not-here",
        *_TORCH_DOWN,
        *_GPU_DOWN,
        "extension-built-for-other-cuda",
    ),
    "vllm-torch-mismatch": ("duplicate-torch-installs",),
    "flash-attn-built-for-other-torch": ("duplicate-torch-installs",),
    "triton-missing-or-wrong": ("duplicate-torch-installs", "torch-cpu-only"),
    "requirement-conflicts": (
        *_IMPORT_ROOTS,
        "xformers-torch-mismatch",
        "vllm-torch-mismatch",
        "triton-missing-or-wrong",
        "accelerate-missing",
        "peft-too-old",
        "torch-missing",
        "nvidia-wheel-version-mismatch",
    ),
    "out-of-memory": ("gpu-memory-held-by-other-process", "gpu-memory-refused-though-free"),
    "allocator-fragmentation": ("gpu-memory-held-by-other-process", "gpu-memory-refused-though-free"),
    "memlock-or-nccl": ("shm-too-small",),
    "host-memory-exhausted": (
        "quantization-not-known",
        "page-file-too-small",
    ),
    "app-needs-newer-compute-capability": ("torch-wheel-lacks-gpu-arch", "quantization-kernel-needs-newer-gpu"),
    "hf-gated-model": ("hf-token-invalid", "proxy-in-the-way", "hub-xet-fails", "hf-transfer-missing"),
    "weights-of-another-shape": ("checkpoint-of-sharded-parameters",),
    "transformers-too-old-for-model": ("tokenizer-class-misspelt",),
    "cublas-does-not-start": ("ctranslate2-int8-on-this-card", "cublas-without-bfloat16", "cublas-of-another-place"),
    "bnb-int8-old-gpu": (),
    "bitsandbytes-missing": ("python-too-old-to-run",),
    "transformers-missing": ("python-too-old-to-run",),
    "hf-offline": ("hf-home-unwritable", "tls-interception", "proxy-in-the-way", "hub-not-reachable"),
    "hub-not-reachable": ("tls-interception", "proxy-in-the-way"),
    "hf-no-such-repository": ("tls-interception", "proxy-in-the-way", "hub-not-reachable", "hf-offline"),
    "model-files-missing": ("tls-interception", "proxy-in-the-way", "hub-not-reachable", "hf-offline"),
}
# Remarks that only repeat, in other words, what a root cause already says.
# What a program says of bitsandbytes when it starts is nothing to a model that llama.cpp runs.
_LLAMA_CPP = ("llama-cpp-no-layers", "llama-cpp-built-for-cpu")
_SILENCED_BY: dict[str, tuple[str, ...]] = {
    "rocm-gfx-unsupported": ("integrated-gpu-taken",),
    "torch-missing": ("build-isolation-hides-torch",),
    "bnb-too-old-for-windows": _LLAMA_CPP,
    "bitsandbytes-unusable": _LLAMA_CPP,
    "torch-shadowed": ("duplicate-torch-installs",),
    "numpy-mixed": ("numpy2-with-old-torch", "numpy-older-than-file"),
    "build-failed": _BUILD_ROOTS,
    "extension-did-not-compile": _BUILD_ROOTS,
    "triton-helper-did-not-compile": (*_BUILD_ROOTS, "triton-cannot-link-libcuda"),
    "no-wheel-for-this-platform": ("intel-python-on-mac",),
    "requirements-contradict": ("project-allows-other-pythons", "no-wheel-for-this-platform", "intel-python-on-mac"),
    "cmake-missing": ("cuda-home-unset", "msvc-missing", "cuda-compiler-does-not-work"),
    "cuda-compiler-does-not-work": (
        "cuda-home-unset",
        "host-compiler-too-new-for-nvcc",
        "nvcc-too-old-for-gpu",
        "mingw-in-place-of-msvc",
        "build-library-not-found",
    ),
    "cuda-home-unset": ("cuda-home-malformed",),
    "no-cuda-gpus-available": (
        "cuda-asked-on-ascend",
        "uvm-device-missing",
        "zluda-finds-no-gpu",
        "gpu-device-not-allowed",
        "rocm-gfx-unsupported",
        "docker-desktop-too-old",
        "colab-without-gpu",
        *_GPU_DOWN[: _GPU_DOWN.index("no-cuda-gpus-available")],
    ),
    "packages-known-apart": _IMPORT_ROOTS,
    "cuda-does-not-start": _TORCH_DOWN + _GPU_DOWN[:-1],
    "out-of-memory": (
        "gpu-memory-not-free-at-start",
        "memory-grows",
        "validation-needs-more-memory",
        "saving-needs-more-memory",
        "weights-trained-in-float16",
    ),
    "allocator-fragmentation": (
        "memory-grows",
        "validation-needs-more-memory",
        "saving-needs-more-memory",
        "weights-trained-in-float16",
    ),
    "host-memory-exhausted": ("memory-grows",),
    "memlock-or-nccl": ("network-interface-not-found", "shm-too-small"),
    "model-files-missing": ("hf-gated-model", "hf-no-such-repository"),
    "hf-no-such-repository": ("hf-gated-model",),
    "hub-forbids": ("hf-gated-model",),
    "hub-not-reachable": ("tls-interception", "proxy-in-the-way"),
    "hub-xet-fails": ("hf-cache-disk-full",),
    "vllm-without-its-kernels": (
        "vllm-unsupported-on-windows",
        "vllm-torch-mismatch",
        "extension-built-for-other-cuda",
    ),
    "no-nvidia-driver": (
        "cuda-asked-on-ascend",
        "colab-without-gpu",
        "cuda-wheel-on-amd",
        "kernel-module-not-loaded",
        "container-without-gpu-runtime",
        "nouveau-loaded",
    ),
    "no-kernel-image": ("torch-wheel-lacks-gpu-arch", "rocm-gfx-unsupported"),
    "kernel-launch-failed": ("torch-wheel-lacks-gpu-arch", "rocm-gfx-unsupported", "cuda-hangs"),
    "torch-import-broken": (
        "torch-import-hangs",
        "oneapi-of-other-release",
        "ipex-library-does-not-load",
        "directml-torch-mismatch",
    ),
    "cuda-wheel-on-amd": ("zluda-finds-no-gpu", "directml-torch-mismatch", "directml-memory-full"),
    "bnb-legacy-loader": ("bnb-unsupported-on-macos",),
    "gpu-device-not-allowed": ("gpu-unknown-to-kfd",),
    "kfd-without-memory": ("gpu-unknown-to-kfd", "gpu-device-not-allowed"),
    "rocm-no-device": ("gpu-unknown-to-kfd",),
    "bf16-unsupported-gpu": ("torch-wheel-lacks-gpu-arch",),
}


@dataclass(frozen=True)
class Report:
    """A diagnosis."""

    facts: Facts
    findings: tuple[Finding, ...]
    verdict: str
    """``healthy``, ``degraded`` (warnings) or ``broken`` (errors)."""
    passed: int
    """Rules that had their facts and found nothing wrong."""
    unknown: int
    """Rules that could not judge for want of facts."""


def diagnose(facts: Facts) -> Report:
    """Run every rule over the facts and order what they found.

    A rule never fires on an unknown fact; what was seen working outranks what versions say.

    Raises:
        WorkbenchError: ``missing-package`` where this interpreter cannot read the tables (TOML).
    """
    known = derive(facts)
    found: dict[str, Finding] = {}
    passed = unknown = 0
    for rule in RULES:
        result = rule(known)
        if result is None:
            unknown += 1
        elif not result:
            passed += 1
        for finding in result or ():
            found.setdefault(finding.id, replace(finding, fix=in_environment(known, finding.fix)))
    for finding in unexplained(known, found.values()):
        found.setdefault(finding.id, replace(finding, fix=in_environment(known, finding.fix)))
    findings = _ordered(_linked(list(found.values())))
    return Report(known, tuple(findings), verdict_of(findings), passed, unknown)


def verdict_of(findings: Sequence[Finding]) -> str:
    """``broken`` where something is an error, ``degraded`` where something is a warning, else ``healthy``."""
    severities = {finding.severity for finding in findings}
    return "broken" if "error" in severities else "degraded" if "warning" in severities else "healthy"


def _linked(findings: list[Finding]) -> list[Finding]:
    """Name the cause of each consequence; drop what only repeats its cause."""
    present = {finding.id: finding for finding in findings}
    kept = [
        finding
        for finding in findings
        if not any(_outweighs(present.get(cause), finding) for cause in _SILENCED_BY.get(finding.id, ()))
    ]
    present = {finding.id: finding for finding in kept}
    return [replace(finding, caused_by=_cause(finding, present)) for finding in kept]


def _outweighs(cause: Optional[Finding], finding: Finding) -> bool:
    return cause is not None and SEVERITIES.index(cause.severity) <= SEVERITIES.index(finding.severity)


def _cause(finding: Finding, present: dict[str, Finding]) -> Optional[str]:
    for cause in CAUSES.get(finding.id, ()):
        if cause != finding.id and _outweighs(present.get(cause), finding):
            return cause
    return None


def _ordered(findings: list[Finding]) -> list[Finding]:
    """Most serious first; a root cause before what follows from it; what was seen before what was concluded."""
    depth = _depths(findings)
    rank = {finding.id: number for number, finding in enumerate(findings)}
    return sorted(
        findings,
        key=lambda item: (SEVERITIES.index(item.severity), depth[item.id], not item.observed, rank[item.id]),
    )


def _depths(findings: list[Finding]) -> dict[str, int]:
    causes = {finding.id: finding.caused_by for finding in findings}
    depths = {}
    for finding in findings:
        depth, current = 0, finding.caused_by
        while current is not None and depth < 10:
            depth, current = depth + 1, causes.get(current)
        depths[finding.id] = depth
    return depths
