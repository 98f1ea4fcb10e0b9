"""Rules about nvcc and the C++ compiler that it calls: the two know each other and the GPU only up to a version.

Needs the tables.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Callable, Optional

from workbench.doctor import fixes, system_packages
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.building import wheel_of
from workbench.doctor.rules.common import PASSED, Result, Rule, capabilities, evidence, from_message, seen
from workbench.doctor.rules.matching_builds import is_cuda_extension
from workbench.doctor.tables import table
from workbench.doctor.versions import at_least, older

_HOST_COMPILERS = "https://docs.nvidia.com/cuda/cuda-installation-guide-linux/#host-compiler-support-policy"
_ARCHITECTURES = "https://docs.nvidia.com/cuda/cuda-compiler-driver-nvcc/#gpu-feature-list"


def host_compiler(facts: Facts) -> Result:
    """The C++ compiler is newer than what this nvcc takes."""

    def make(error: ErrorFact) -> Finding:
        nvcc, limit = _toolkit(facts, error), _newest_gcc(facts, error)
        msvc = error.values.get("msvc")
        windows = fixes.on_windows(facts) or "Visual Studio" in error.text
        return Finding(
            "host-compiler-too-new-for-nvcc",
            "error",
            "The C++ compiler is too new for " + (f"CUDA {nvcc}'s nvcc" if nvcc else "this CUDA toolkit"),
            "nvcc calls the system's C++ compiler, and each toolkit takes compilers up to a certain version"
            + (f": this one GCC {limit}." if limit and not windows else "."),
            {**evidence(nvcc=nvcc, newest_gcc=limit, msvc=msvc), **seen(error)},
            (*wheel_of(facts), *(_visual_studio(facts, nvcc, msvc) if windows else _gcc(facts, limit))),
            _HOST_COMPILERS,
            affects=("chat",),
            observed=True,
        )

    return from_message(facts, ("host-compiler-too-new",), make) or _by_versions(facts, make)


def _by_versions(facts: Facts, make: Callable[[ErrorFact], Finding]) -> Result:
    """Where the paste ends before the compiler's own words: a build of CUDA code that failed, and both versions."""
    told, failed, nvcc = facts.error("host-compiler-version"), facts.error("build-failed"), facts.toolkit.nvcc
    if told is None or failed is None or nvcc is None or failed.values.get("module"):
        return PASSED
    if not (is_cuda_extension(failed.values.get("package", ""), "") or facts.error("cmake-missing")):
        return PASSED
    msvc = _msvc(told)
    if msvc is not None and older(nvcc, "12.4") and at_least(msvc, "14.40"):
        return [make(replace(told, values={"msvc": msvc, "toolkit": nvcc}))]
    gcc = told.values.get("gnu") or told.values.get("gcc")
    limit = _newest_gcc(facts, told)
    if gcc and limit and int(gcc) > int(limit) and not fixes.on_windows(facts):
        return [make(replace(told, values={"toolkit": nvcc, "limit": limit}))]
    return PASSED


def _msvc(told: ErrorFact) -> Optional[str]:
    """The version of Microsoft's compiler: that of Visual Studio 17.x is 14.3x, of cl 19.3x too."""
    values = told.values
    if values.get("msvc"):
        return values["msvc"]
    if values.get("cl"):
        return f"14.{values['cl']}"
    major, _, minor = values.get("vs", "").partition(".")
    return f"14.{30 + int(minor)}" if major == "17" else "14.50" if major == "18" else None


def _toolkit(facts: Facts, error: ErrorFact) -> Optional[str]:
    return error.values.get("toolkit") or facts.toolkit.nvcc


def _newest_gcc(facts: Facts, error: ErrorFact) -> Optional[str]:
    """The newest GCC that the toolkit takes: as the message says it, else as the table does."""
    if error.values.get("limit"):
        return error.values["limit"]
    if error.values.get("below"):  # "gcc 4.9 and up are not supported!": the one before it is the newest
        old, _, number = error.values["below"].rpartition(".")
        return f"{old}.{int(number) - 1}" if old else str(int(number) - 1)
    if re.search(r"c\+\+/11/", error.text):
        return "10"  # every nvcc that says this of GCC 11's headers does so in spite of what it is documented to take
    nvcc = _toolkit(facts, error)
    rows = [row for row in table("compilers")["gcc"] if nvcc and at_least(nvcc, row["cuda"])]
    if rows:
        return str(rows[-1]["gcc"])
    return None


def _gcc(facts: Facts, limit: Optional[str]) -> tuple[str, ...]:
    newest = limit or "11"
    conda = f"conda install -y -c conda-forge gxx_linux-64={newest}"
    after = 'export NVCC_PREPEND_FLAGS="-ccbin $CXX" CUDAHOSTCXX=$CXX   # in a new shell, where conda has set CXX'
    check = (
        () if limit else ("nvcc --version   # 11.8 takes GCC up to 11, 12.4 up to 13, 12.8 up to 14, 13.0 up to 15",)
    )
    other = "or a newer toolkit" + (f" of torch's CUDA {facts.torch.cuda}" if facts.torch.cuda else "")
    if facts.python.kind == "conda":
        return (*check, conda, after, f"{other}: it takes a newer compiler")
    installs = system_packages.install(facts, apt=f"gcc-{newest} g++-{newest}", dnf="", pacman="", zypper="")
    if not installs.startswith("sudo apt"):
        # Other distributions have one GCC at a time.
        return (
            *check,
            f"{conda.replace(' -y', ' -y -n gcc')}".replace("install", "create"),
            "conda activate gcc",
            after,
        )
    return (
        *check,
        installs,
        f"export CC=gcc-{newest} CXX=g++-{newest} CUDAHOSTCXX=g++-{newest} NVCC_PREPEND_FLAGS='-ccbin g++-{newest}'",
        f"Delete the build folder, and run the same command again in this shell; {other}: it takes a newer compiler",
    )


def _visual_studio(facts: Facts, nvcc: Optional[str], msvc: Optional[str]) -> tuple[str, ...]:
    """MSVC 14.40, which came with Visual Studio 2022 17.10, is known from CUDA 12.4 on; 14.50 is Visual Studio 2026."""
    if at_least(msvc, "14.50") or at_least(nvcc, "12.4"):
        return (
            "Visual Studio Installer, Modify, Individual components: MSVC v143 (Visual Studio 2022) C++ build tools",
            "Then run the build in a prompt with that compiler: vcvarsall.bat x64 -vcvars_ver=14.4",
        )
    older_tools = (
        "Visual Studio Installer, Modify, Individual components: MSVC v143 - VS 2022 C++ x64/x86 build tools "
        "(v14.39-17.9)",
        '"C:\\Program Files (x86)\\Microsoft Visual Studio\\2022\\BuildTools\\VC\\Auxiliary\\Build\\vcvarsall.bat" x64 '
        "-vcvars_ver=14.39   # in cmd; then run the build in this prompt",
    )
    failed = facts.error("build-failed")
    for_torch = failed is not None and is_cuda_extension(failed.values.get("package", ""), "")
    if older(facts.torch.cuda or (nvcc if for_torch else None), "12.0"):
        return older_tools  # a newer toolkit would not fit torch
    newer = "Install CUDA 12.4 or newer, which knows today's Visual Studio 2022, and set CUDA_PATH and CUDA_HOME to it."
    return (
        newer,
        *(f"or, to keep the toolkit: {step}" if not number else step for number, step in enumerate(older_tools)),
    )


def nvcc_architecture(facts: Facts) -> Result:
    """nvcc does not know the GPU for which it shall compile, or no longer."""

    def make(error: ErrorFact) -> Finding:
        target = error.values.get("target", "")
        capability, nvcc = _capability(target), _toolkit(facts, error)
        dropped = _dropped(capability, nvcc)
        return Finding(
            "nvcc-too-old-for-gpu",
            "error",
            f"nvcc no longer knows {target}: CUDA {dropped} dropped it"
            if dropped
            else f"nvcc is older than the GPU ({target})",
            "The build names an old GPU, or one that only older toolkits compile for."
            if dropped
            else "The toolkit that compiles does not know this compute capability"
            + (f", which came with CUDA {_needed(target)}." if _needed(target) else "."),
            {**evidence(nvcc=nvcc, target=target, torch__cuda=facts.torch.cuda), **seen(error)},
            _compile_for(facts, capability, dropped) if dropped else _newer_nvcc(facts, _needed(target)),
            _ARCHITECTURES,
            affects=("chat",),
            observed=True,
        )

    return from_message(facts, ("nvcc-architecture",), make)


def _capability(target: str) -> Optional[str]:
    digits = re.search(r"_(\d{2,3})[af]?$", target)
    return f"{digits[1][:-1]}.{digits[1][-1]}" if digits else None


def _needed(target: str) -> Optional[str]:
    """The toolkit that first compiled for a target; 90a, for one GPU alone, and 100f, for a family, came later."""
    capability, kind = _capability(target), target[-1:]
    rows = [row for row in table("compilers")["architecture"] if capability and at_least(capability, row["capability"])]
    cuda = str(rows[-1]["cuda"]) if rows else None
    least = {"a": "12.0", "f": "12.9"}.get(kind)
    return least if cuda and least and older(cuda, least) else cuda


def _dropped(capability: Optional[str], nvcc: Optional[str]) -> Optional[str]:
    """The toolkit major that no longer compiles for a capability, where nvcc is of it or nothing newer can be meant."""
    for row in table("compilers")["dropped"]:
        if capability and older(capability, row["below"]) and (nvcc is None or at_least(nvcc, row["cuda"])):
            return str(row["cuda"])
    return None


def _newer_nvcc(facts: Facts, needed: Optional[str]) -> tuple[str, ...]:
    cuda = facts.torch.cuda if facts.torch.cuda and needed and at_least(facts.torch.cuda, needed) else needed
    name = f"CUDA toolkit {cuda}" if facts.torch.cuda else f"CUDA toolkit {cuda} or newer"
    if not cuda:
        name = "newer CUDA toolkit"
    if fixes.on_windows(facts):
        return (
            f"Install the {name} from https://developer.nvidia.com/cuda-downloads, and open a new terminal.",
            "nvcc --version   # must show it; else set CUDA_PATH and CUDA_HOME to its folder, delete the build folder",
        )
    if facts.python.kind == "conda" and cuda:
        return (
            f"conda install -y -c nvidia cuda-toolkit={cuda}",
            "export CUDA_HOME=$CONDA_PREFIX PATH=$CONDA_PREFIX/bin:$PATH; nvcc --version",
        )
    folder = f"/usr/local/cuda-{cuda}" if cuda else "/usr/local/cuda"
    return (
        "ls -d /usr/local/cuda*; nvcc --version   # a newer toolkit may be there, behind an older one on PATH",
        *_toolkit_install(facts, cuda, name),
        f"export CUDA_HOME={folder} PATH={folder}/bin:$PATH CUDACXX={folder}/bin/nvcc   # then delete the build folder "
        "and build again",
    )


def _toolkit_install(facts: Facts, cuda: Optional[str], name: str) -> tuple[str, ...]:
    page = "https://developer.nvidia.com/cuda-downloads"
    if not cuda:
        return (f"else install a {name} from {page}",)
    command = system_packages.install(facts, apt=f"cuda-toolkit-{cuda.replace('.', '-')}", pacman="cuda")
    return (f"{command}   # the {name}, from NVIDIA's repository: {page}",)


def _compile_for(facts: Facts, capability: Optional[str], dropped: str) -> tuple[str, ...]:
    """Leave out the old GPU where another one is here; else the last toolkit that knows it."""
    mine = [own for _, own in capabilities(facts)]
    old = not mine or any(own == capability for own in mine)
    last = {"11.0": "10.2", "12.0": "11.8", "13.0": "12.9"}.get(dropped, "an older one")
    arch = mine[0] if mine and not old else "<compute capability of the GPU: nvidia-smi --query-gpu=compute_cap>"
    return (
        fixes.export(facts, "TORCH_CUDA_ARCH_LIST", arch, "the GPU that is here, in place of the list of old ones"),
        f"with CMake: -DCMAKE_CUDA_ARCHITECTURES={arch.replace('.', '') if mine and not old else 'native'}; then "
        "delete the build folder and build again",
        f"where the GPU itself is the old one: a toolkit of CUDA {last} or older",
    )


def wrong_compiler(facts: Facts) -> Result:
    """On Windows CMake took MinGW's GCC, with which neither nvcc nor Python's own builds work."""

    def make(error: ErrorFact) -> Finding:
        return Finding(
            "mingw-in-place-of-msvc",
            "error",
            "CMake took MinGW's GCC"
            + (f" {error.values['gcc']}" if error.values.get("gcc") else "")
            + ": on Windows this is built with Visual C++",
            "MinGW comes first on PATH, or there is no Visual C++. nvcc calls Microsoft's compiler only, and old MinGW "
            "is 32-bit and does not know today's C++.",
            seen(error),
            (
                *wheel_of(facts),
                'winget install Microsoft.VisualStudio.2022.BuildTools --override "--wait --passive --add '
                'Microsoft.VisualStudio.Workload.VCTools --includeRecommended"',
                "Then build in the 'x64 Native Tools Command Prompt', with MinGW and MSYS2 taken off PATH and CC, CXX "
                "and CMAKE_GENERATOR unset.",
            ),
            "https://docs.nvidia.com/cuda/cuda-installation-guide-microsoft-windows/",
            affects=("chat",),
            observed=True,
        )

    return from_message(facts, ("mingw-compiler",), make)


RULES: tuple[Rule, ...] = (host_compiler, nvcc_architecture, wrong_compiler)
