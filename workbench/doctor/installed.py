"""What is installed on a module search path, read from files without importing anything. Stdlib only."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

from workbench.doctor.facts import BitsandbytesFacts, Conflict, Install, TorchFacts
from workbench.doctor.system import read_text
from workbench.doctor.versions import marker_holds, normalize, parse_requirement, satisfies

NOTABLE = (
    "torch",
    "torchvision",
    "torchaudio",
    "triton",
    "bitsandbytes",
    "transformers",
    "tokenizers",
    "huggingface-hub",
    "accelerate",
    "peft",
    "trl",
    "safetensors",
    "sentencepiece",
    "protobuf",
    "numpy",
    "flash-attn",
    "xformers",
    "torchao",
    "vllm",
    "deepspeed",
    "datasets",
    "gguf",
    "nvidia-ml-py",
    "pynvml",
)
NAMED = frozenset(
    (
        *NOTABLE,
        *("auto-gptq", "autoawq", "autoawq-kernels", "compressed-tensors", "ctranslate2", "diffusers", "exllamav2"),
        *("faster-whisper", "fsspec", "gptqmodel", "gradio", "gradio-client", "intel-extension-for-pytorch", "jax"),
        *("llama-cpp-python", "llamafactory", "lmdeploy", "numba", "open-clip-torch", "optimum", "pandas", "pyarrow"),
        *("pydantic", "pytorch-lightning", "scikit-learn", "scipy", "sentence-transformers", "setuptools", "sglang"),
        *("tensorflow", "timm", "torchmetrics", "unsloth", "unsloth-zoo"),
    )
)
"""Packages that a line of a paste may name with a version, without a list around it."""
_DIST_INFO = re.compile(r"(?P<name>.+?)-(?P<version>[^-]+)\.(?:dist-info|egg-info|egg)")
_LIBRARY = re.compile(r"libbitsandbytes_([A-Za-z0-9_]{1,40})\.(?:so|dll|dylib)")


@dataclass(frozen=True)
class Distribution:
    """One installed distribution."""

    name: str
    version: str
    folder: str
    """The path entry that holds it."""
    metadata: str
    """Path of its METADATA or PKG-INFO."""


def distributions(path: Iterable[str]) -> list[Distribution]:
    """Every distribution on `path`, in the order in which imports would meet them."""
    found: list[Distribution] = []
    for folder in dict.fromkeys(os.path.realpath(entry) for entry in path if entry and os.path.isdir(entry)):
        with contextlib.suppress(OSError):
            for entry in sorted(os.listdir(folder)):
                match = _DIST_INFO.fullmatch(entry)
                if match:
                    inner = "METADATA" if entry.endswith(".dist-info") else "PKG-INFO"
                    metadata = os.path.join(folder, entry, inner)
                    if entry.endswith(".egg"):
                        metadata = os.path.join(folder, entry, "EGG-INFO", inner)
                    version = re.sub(r"-py\d.*$", "", match["version"])
                    found.append(Distribution(normalize(match["name"]), version, folder, metadata))
    return found


def packages_of(found: Iterable[Distribution]) -> dict[str, str]:
    """Name to version of the copy that is imported."""
    versions: dict[str, str] = {}
    for item in found:
        versions.setdefault(item.name, item.version)
    return dict(sorted(versions.items()))


def duplicates_of(found: Iterable[Distribution]) -> dict[str, tuple[Install, ...]]:
    """Distributions that are there more than once, each with all its copies."""
    copies: dict[str, list[Install]] = {}
    for item in found:
        copies.setdefault(item.name, []).append(Install(item.version, item.folder))
    return {name: tuple(installs) for name, installs in sorted(copies.items()) if len(installs) > 1}


def requirements_of(item: Distribution) -> list[str]:
    """The ``Requires-Dist`` lines of a distribution."""
    header = (read_text(item.metadata, 2**18) or "").split("\n\n", 1)[0]
    return re.findall(r"^Requires-Dist:[ \t]*(.{1,800})", header, re.M)


def conflicts_of(found: list[Distribution]) -> tuple[Conflict, ...]:
    """Declared requirements that are not met, as ``pip check`` would find them."""
    versions = packages_of(found)
    values = marker_values()
    conflicts: list[Conflict] = []
    seen: set[str] = set()
    for item in found:
        if item.name in seen:
            continue
        seen.add(item.name)
        for line in requirements_of(item):
            requirement = parse_requirement(line)
            if requirement is None or marker_holds(requirement.marker, values) is not True:
                continue
            present = versions.get(requirement.name)
            wanted = requirement.name + requirement.specifier
            if present is None:
                conflicts.append(Conflict(item.name, item.version, wanted, None))
            elif satisfies(present, requirement.specifier) is False:
                conflicts.append(Conflict(item.name, item.version, wanted, present))
    return tuple(conflicts)


def marker_values() -> dict[str, str]:
    """The environment that markers are evaluated in (PEP 508), without any extra."""
    info = sys.implementation
    version = info.version
    implementation = f"{version.major}.{version.minor}.{version.micro}"
    return {
        "implementation_name": info.name,
        "implementation_version": implementation,
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_release": platform.release(),
        "platform_system": platform.system(),
        "platform_version": platform.version(),
        "platform_python_implementation": platform.python_implementation(),
        "python_full_version": platform.python_version(),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "sys_platform": sys.platform,
        "extra": "",
    }


def _package_folders(path: Iterable[str], name: str) -> list[str]:
    folders = []
    for entry in dict.fromkeys(path):
        folder = os.path.join(entry or ".", name)
        if os.path.isfile(os.path.join(folder, "__init__.py")):
            folders.append(os.path.abspath(folder))
    return folders


def _assigned(text: str, name: str) -> Optional[str]:
    match = re.search(rf"^{name}\s*(?::[^=\n]{{0,60}})?=\s*['\"]([^'\"\n]{{1,100}})['\"]", text, re.M)
    return match[1] if match else None


def torch_facts(path: list[str], found: list[Distribution]) -> TorchFacts:
    """What PyTorch's own files say, without importing it (``torch/version.py`` is written by its build)."""
    folders = _package_folders(path, "torch")
    listed = {item.folder: item.version for item in found if item.name == "torch"}
    if not folders and not listed:
        return TorchFacts(installed=False, installs=())
    if not folders:
        folder, version = next(iter(listed.items()))
        return TorchFacts(installed=False, version=version, installs=(Install(version, folder),))
    installs = []
    for folder in folders:
        text = read_text(os.path.join(folder, "version.py")) or ""
        version_here = _assigned(text, "__version__") or listed.get(os.path.dirname(os.path.realpath(folder)))
        installs.append(Install(version_here, folder))
    text = read_text(os.path.join(folders[0], "version.py")) or ""
    cuda, hip, xpu = _assigned(text, "cuda"), _assigned(text, "hip"), _assigned(text, "xpu")
    build: Optional[str] = "cuda" if cuda else "rocm" if hip else "xpu" if xpu else None
    if build is None and re.search(r"^cuda\s*(?::[^=\n]{0,60})?=\s*None", text, re.M):
        build = "mps" if sys.platform == "darwin" and platform.machine() == "arm64" else "cpu"
    return TorchFacts(
        installed=True,
        version=installs[0].version,
        build=build,
        cuda=cuda,
        hip=hip,
        location=folders[0],
        installs=tuple(installs),
        arch_list=() if build in ("cpu", "mps") else None,
    )


def bitsandbytes_facts(path: list[str], found: list[Distribution]) -> BitsandbytesFacts:
    """What the bitsandbytes package on `path` ships."""
    folders = _package_folders(path, "bitsandbytes")
    version = packages_of(found).get("bitsandbytes")
    if not folders:
        return BitsandbytesFacts(installed=False, version=version)
    libraries: list[str] = []
    with contextlib.suppress(OSError):
        libraries = [match[1] for match in map(_LIBRARY.fullmatch, os.listdir(folders[0])) if match]
    return BitsandbytesFacts(True, version, tuple(sorted(libraries)), location=folders[0])
