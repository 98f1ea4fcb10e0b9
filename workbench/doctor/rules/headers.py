"""Rules about header files that a compiler does not find: whose they are, and what brings them. Needs the tables."""

from __future__ import annotations

import re
from typing import Any, Optional

from workbench.doctor import fixes, system_packages, torch_builds
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.building import newest_wheel
from workbench.doctor.rules.common import PASSED, Result, Rule, evidence, seen
from workbench.doctor.tables import build_of, table
from workbench.doctor.versions import minor_name, older

_OF_CUDA = re.compile(r"cu(?!dnn|rl|te|tlass)\w{2,30}\.(?:h|hpp)|cuda/|cub/|thrust/|nv/|nvtx3?/|nvToolsExt\.h")
_LAUNCHER = re.compile(r"(?:main|cuda_utils|hip_utils|__triton_launcher|launcher)\.c\b")
_TRITON = "https://triton-lang.org/main/getting-started/installation.html"


def header_missing(facts: Facts) -> Result:
    """A header that is neither Python's nor a part of CUDA."""
    error = facts.error("header-missing")
    if error is None:
        return PASSED
    told = (error.values.get(name) for name in ("header", "header2", "header3"))
    header = next(filter(None, told), "a header").replace("\\", "/")
    if re.match(r"(?:Python|pyconfig|patchlevel)\.h", header):
        return PASSED  # told of by the rule about compilers
    if _OF_CUDA.match(header):
        return _of_cuda(facts, error, header)
    row = next((row for row in table("headers")["header"] if re.match(row["match"], header)), None)
    own = "" if row else _whose(header)
    if own:
        return [_of_its_own(facts, error, header, own)]
    return [
        Finding(
            "header-missing",
            "error",
            (row or {})
            .get("title", "A compiler does not find {header}, which a package of the system brings")
            .replace("{header}", header),
            (row or {}).get("why", "What is compiled uses a library of the system, and its headers are packed apart."),
            {**evidence(header=header, package=_package(facts)), **seen(error)},
            _steps(facts, row, header),
            (row or {}).get("source", table("headers")["source"]),
            affects=("chat",),
            observed=True,
        )
    ]


def _whose(header: str) -> str:
    """The package that a header is called after, where its releases come as wheels; ``""`` for any other."""
    first = re.match(r"[a-z]{3,20}", header)
    row = build_of(first[0]) if first else None
    return first[0] if first and row and row["needs"] != "cuda" else ""


_COMPILES_NOTHING = "   # a release with a wheel, so that nothing is compiled; else:"


def _of_its_own(facts: Facts, error: ErrorFact, header: str, package: str) -> Finding:
    python = minor_name(facts.python.version)
    return Finding(
        "build-failed",
        "error",
        f"pip found no ready wheel of {package} for {f'Python {python}' if python else 'this Python'}, and its "
        f"source "
        "does not compile by itself",
        f"{header} belongs to the C++ library of {package}, which the source on the index leaves out. Older releases "
        "have wheels only for the Pythons of their time, and none for a 32-bit one.",
        {**evidence(package=package, python=facts.python.version, header=header), **seen(error)},
        (
            *newest_wheel(facts, package),
            f"or an environment with a 64-bit Python that has wheels of it: {fixes.new_environment()}",
        ),
        f"https://pypi.org/project/{package}/#files",
        affects=("chat",),
        observed=True,
    )


def _package(facts: Facts) -> Optional[str]:
    failed = facts.error("build-failed")
    return failed.values.get("package") if failed else None


def _steps(facts: Facts, row: Optional[dict[str, Any]], header: str) -> tuple[str, ...]:
    if row is None:
        package = _package(facts)
        return (
            *(newest_wheel(facts, package, _COMPILES_NOTHING) if package else ()),
            f"apt-file search {header}   # which package has it (sudo apt install apt-file && sudo apt-file update); "
            f"Fedora: dnf provides '*/{header}'",
            "Install that package, whose name mostly ends in -dev; or a release with a ready wheel of what is built.",
        )
    return steps_of_row(facts, row)


def steps_of_row(facts: Facts, row: dict[str, Any]) -> tuple[str, ...]:
    """What a row of the tables of headers and of CMake's names says for the system at hand."""
    if fixes.on_windows(facts) and "windows" in row:
        return tuple(row["windows"])
    if facts.platform.system == "Darwin" and ("mac" in row or "brew" in row):
        return (
            tuple(row["mac"]) if "mac" in row else (f"brew install {row['brew']}", "Then run the same command again.")
        )
    told = tuple(_filled(facts, step) for step in row.get("fix", ()))
    if "apt" not in row:
        return told
    names = {name: row.get(name, "") for name in ("apt", "dnf", "pacman")}
    return (*told, system_packages.install(facts, **names), "Then run the same command again.")


def _filled(facts: Facts, step: str) -> str:
    command, mark, note = step.partition("   # ")
    package = _package(facts)
    if "{package}" in command and not package:
        return f"Install the newest release of the package whose source this is.{mark}{note}"
    word, _, rest = command.replace("{package}", package or "").partition(" ")
    if word in ("install", "upgrade"):
        return fixes.install(facts, *rest.split(), upgrade=word == "upgrade") + mark + note
    return command.replace("{package}", package or "") + mark + note


def _of_cuda(facts: Facts, error: ErrorFact, header: str) -> Result:
    """CUDA's own headers, where the paste tells more than that they are missing."""
    image = facts.platform.image or ""
    devel = re.sub(r"-(?:runtime|base)\b", "-devel", image)
    if devel != image:
        steps: tuple[str, ...] = (
            f"Take the image {devel}, which has the toolkit: the runtime and base images have none.",
        )
    elif _LAUNCHER.search(error.text):
        steps = (
            fixes.install(facts, "triton", upgrade=True)
            + "   # triton brings cuda.h itself since 2.0, with torch 2.0 and newer",
            *_toolkit(facts),
        )
    elif facts.error("cuda-headers-missing"):
        return PASSED  # told of by its own words
    else:
        steps = _newer_toolkit(facts, header) if _came_with(facts, header) else _toolkit(facts, "")
    since = _came_with(facts, header)
    return [
        Finding(
            "cuda-headers-missing",
            "error",
            f"The CUDA toolkit that compiles, {facts.toolkit.nvcc}, is too old: {header} came with CUDA {since}"
            if since
            else f"A compiler does not find CUDA's headers ({header})",
            "torch's wheels bring libraries, not all headers; they come with the toolkit, and are looked for below "
            "CUDA_HOME.",
            {**evidence(header=header, image=image or None), **seen(error)},
            steps,
            "https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/"
            if since
            else _TRITON
            if devel == image
            else "https://hub.docker.com/r/nvidia/cuda",
            affects=("chat",),
            observed=True,
        )
    ]


# CUDA's release notes, "new features" of each.
_CAME_WITH = ((r"cuda_fp[46]\.h", "12.8"), (r"cuda_fp8\.h", "11.8"), (r"cuda_bf16\.h|cub/|cuda/std/", "11.0"))


def _came_with(facts: Facts, header: str) -> str:
    """The release of CUDA that brought a header, where the compiler that is here is older; ``""`` else."""
    since = next((release for pattern, release in _CAME_WITH if re.match(pattern, header)), "")
    return since if since and older(facts.toolkit.nvcc, since) else ""


def _newer_toolkit(facts: Facts, header: str) -> tuple[str, ...]:
    own = facts.torch.cuda if facts.torch.cuda and not older(facts.torch.cuda, _came_with(facts, header)) else None
    wanted = own or _came_with(facts, header)
    return (
        f"ls -d /usr/local/cuda*   # a newer one may be there: export CUDA_HOME=/usr/local/cuda-{wanted} "
        f"PATH=/usr/local/cuda-{wanted}/bin:$PATH",
        f"else: conda install -y -c nvidia/label/cuda-{wanted}.0 cuda-toolkit && export CUDA_HOME=$CONDA_PREFIX",
        "Then delete the build folder (~/.cache/torch_extensions, ~/.cache/flashinfer), and run the same again.",
    )


def _toolkit(facts: Facts, lead: str = "or ") -> tuple[str, ...]:
    if facts.torch.version and not torch_builds.is_published(facts.torch.version):
        return ("This torch is a nightly or a build of its own: " + fixes.fresh_torch(facts, upgrade=True),)
    return (
        f"{lead}conda install -y -c nvidia cuda-toolkit && export CUDA_HOME=$CONDA_PREFIX"
        "   # the headers, of torch's CUDA: cuda-toolkit=<its version>",
    )


RULES: tuple[Rule, ...] = (header_missing,)
