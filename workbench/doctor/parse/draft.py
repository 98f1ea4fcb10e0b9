"""Facts under construction: several readers add what they find, the first to say something wins. Stdlib only."""

from __future__ import annotations

import dataclasses
from typing import Any, Optional, TypeVar

from workbench.doctor.facts import (
    BitsandbytesFacts,
    Conflict,
    DriverFacts,
    ErrorFact,
    Facts,
    GpuFacts,
    PlatformFacts,
    PythonFacts,
    ToolkitFacts,
    TorchFacts,
)
from workbench.doctor.versions import normalize

T = TypeVar("T")

# Messages that tell of no failure; they say more of one.
REMARKS = frozenset(
    (
        "asks-quantized",
        "bf16-refused-told",
        "bnb-wheel-of-x86",
        "calls-apt",
        "calls-dnf",
        "calls-pacman",
        "calls-zypper",
        "calls-emerge",
        "driver-from-run-file",
        "module-from-source",
        "devices-set-in-program",
        "devices-set-on-command",
        "compiled-package-told",
        "openmmlab-told",
        "ext-imported-bare",
        "apex-of-nvidia",
        "conda-environment-told",
        "blackwell-told",
        "driver-just-installed",
        "smi-fails-told",
        "fewer-gpus-work",
        "optimus-told",
        "open-modules-told",
        "other-graphics-told",
        "companion-load-cut",
        "cache-shared-told",
        "served-by-vllm",
        "installed-in-vain",
        "install-fails-told",
        "toolkit-installed-told",
        "rocm-installed-told",
        "jetpack-told",
        "override-in-vain",
        "rocminfo-lists-no-gpu",
        "root-at-localhost",
        "cuda-only-package",
        "makes-pictures",
        "triton-optional",
        "of-vllm",
        "of-tensorflow",
        "of-ctranslate2",
        "pipenv-told",
        "mmcv-1-told",
        "raspberry-pi",
        "system-updated-told",
        "integrated-gfx-listed",
        "wheel-of-torch-named",
        "ascend-told",
        "bnb-library-loaded",
        "ggml-devices",
        "cpu-asked",
        "no-gpu-in-machine",
        "for-gpu-told",
        "adapter-told",
        "llm-tool-told",
        "in-ray-actor",
        "sd-webui-told",
        "cuda-10-told",
        "cuda-answered",
        "device-is-cpu",
        "memory-grows",
        "several-sycl-devices",
        "works-as-root",
        "rebooted-in-vain",
        "virtual-machine",
        "host-compiler-version",
        "torch-replaced",
        "nix",
        "driver-in-usr-local-nvidia",
        "after-suspend",
        "after-kernel-change",
        "one-rank-alone",
        "gpus-handed-in",
        "vgpu-guest",
        "rented-machine",
        "remote-code",
        "modelscope-told",
        "tmpfs-told",
        "docker-desktop",
        "appliance",
        "mig-told",
        "memory-at-saving",
        "cloud-machine",
        "clocks-changed",
        "l4t-image",
        "apple-chip-told",
        "intel-mac-told",
        "cpu-wanted",
        "memory-in-validation",
        "offload-to-memory",
        "one-gpu-for-each-task",
        "several-ranks",
        "several-machines",
        "cluster-files",
        "gpu-is-shared",
        "diffusers-pipeline",
        "in-dataloader-worker",
        "image-without-cuda",
        "release-upgraded",
        "server-kernels-asked",
        "web-ui-starts",
        "ollama-told",
        "modelfile-of-two-files",
        "llama-cpp-python-told",
        "lm-studio-told",
        "llama-cpp-image-told",
        "llama-cpp-of-brew",
        "llama-cpp-built-here",
        "deepspeed-compiles-told",
    )
)

MAX_GPUS = 256
MAX_PACKAGES = 5000


class Draft:
    """What a paste has told so far."""

    def __init__(self) -> None:
        self.formats: list[str] = []
        self.platform: dict[str, Any] = {}
        self.python: dict[str, Any] = {}
        self.torch: dict[str, Any] = {}
        self.driver: dict[str, Any] = {}
        self.toolkit: dict[str, Any] = {}
        self.bitsandbytes: dict[str, Any] = {}
        self.gpus: dict[int, dict[str, Any]] = {}
        self.no_gpus = False
        self.packages: dict[str, str] = {}
        self.copies: dict[str, list[tuple[str, str]]] = {}
        self.conda: set[str] = set()
        self.absent: list[str] = []
        self.conflicts: list[Conflict] = []
        self.environment: dict[str, str] = {}
        self.errors: list[ErrorFact] = []

    @property
    def complaints(self) -> list[ErrorFact]:
        """The messages that tell of a failure."""
        return [error for error in self.errors if error.id not in REMARKS]

    def saw(self, name: str) -> None:
        """Note that a kind of report was recognised."""
        if name not in self.formats:
            self.formats.append(name)

    def put(self, section: dict[str, Any], **values: Any) -> None:
        """Keep each value that is known and not said before."""
        for name, value in values.items():
            if value is not None and section.get(name) is None:
                section[name] = value

    def gpu(self, index: int) -> dict[str, Any]:
        """The GPU of this index, made on first mention; beyond any real machine, a throw-away."""
        if index not in self.gpus and len(self.gpus) >= MAX_GPUS:
            return {}
        return self.gpus.setdefault(index, {"index": index})

    def package(self, name: str, version: str, source: str = "") -> None:
        """A package and its version; a second, different version from another source is remembered as a copy."""
        key, version = normalize(name), version.rstrip(".,;:")
        if len(self.packages) < MAX_PACKAGES or key in self.packages:
            self.packages.setdefault(key, version)
            copies = self.copies.setdefault(key, [])
            if len(copies) < 8 and (version, source) not in copies:
                copies.append((version, source))

    def missing(self, name: str) -> None:
        """A package that a report says is not installed."""
        if normalize(name) not in self.absent:
            self.absent.append(normalize(name))

    def facts(self) -> Facts:
        """The finished facts."""
        return Facts(
            origin="report",
            formats=tuple(self.formats),
            platform=_make(PlatformFacts, self.platform),
            python=_make(PythonFacts, self.python),
            torch=_make(TorchFacts, self.torch),
            driver=_make(DriverFacts, self.driver),
            toolkit=_make(ToolkitFacts, self.toolkit),
            bitsandbytes=_make(BitsandbytesFacts, self.bitsandbytes),
            gpus=self._gpus(),
            packages=dict(sorted(self.packages.items())),
            conda=tuple(sorted(self.conda)),
            absent=tuple(name for name in self.absent if name not in self.packages),
            conflicts=tuple(self.conflicts) or None,
            environment=dict(sorted(self.environment.items())),
            errors=tuple(sorted(self.errors, key=lambda error: error.line)),
        )

    def _gpus(self) -> Optional[tuple[GpuFacts, ...]]:
        if self.gpus:
            return tuple(_make(GpuFacts, self.gpus[index]) for index in sorted(self.gpus))
        return () if self.no_gpus else None


def _make(kind: type[T], values: dict[str, Any]) -> T:
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in known})
