"""What conda and its kin find no solution for: a Python, a CUDA or a package that their channels do not have."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import Facts

Told = tuple[str, str, tuple[str, ...]]
"""Title, why, steps."""


def python_of_conda(values: dict[str, str]) -> Optional[Told]:
    told, name = values["told"], values.get("name", "")
    asked = re.search(r"\bpython (3\.\d{1,2})[\d.*]*[ ,]{0,3}(?:is requested|which can be installed)", told)
    wanted = values.get("python") or (asked and asked[1])
    found = {int(minor) for minor in re.findall(r"python >=3\.(\d{1,2})", told)}
    if not name or not found or (wanted is None and " would require" in told):
        return None
    built = [f"3.{minor}" for minor in sorted(found) if f"3.{minor}" != wanted]
    if not built:
        return None
    return (
        f"{name} has no build for {'Python ' + wanted if wanted else 'the Python that is asked for'} in these "
        f"channels: "
        f"those that are named are for {', '.join(built[-4:])}",
        "A conda package with compiled parts is built for each Python apart, and new ones come months later or never.",
        (
            f"conda create -y -n {name} -c conda-forge python={built[-1]} {name}   # with the channels of your "
            f"own command; "
            "the rest beside it",
            f"conda search -c conda-forge {name}   # its builds: py312 in the name is Python 3.12",
        ),
    )


_CUDA_ASKED = re.compile(r"\b(?P<name>cudatoolkit|pytorch-cuda)={1,2}(?P<version>\d{1,2}\.\d)\b")
# https://pytorch.org/get-started/previous-versions/: what conda packages of torch were built for, up to the last, 2.5.
_CUDA_OF_CONDA = frozenset(
    (
        "8.0",
        "9.0",
        "9.2",
        "10.0",
        "10.1",
        "10.2",
        "11.0",
        "11.1",
        "11.3",
        "11.5",
        "11.6",
        "11.7",
        "11.8",
        "12.1",
        "12.4",
    )
)


def _no_such_cuda(facts: Facts, name: str, version: str) -> Told:
    return (
        f"There is no {name}={version}: torch was never built for CUDA {version} in conda's packages",
        "nvidia-smi's heading shows the newest CUDA that the driver runs, and older ones run on it too; what is asked "
        "for has to be one that torch was built for. The pytorch channel ended with torch 2.5.",
        (
            fixes.fresh_torch(facts, "torchvision") + "   # in the environment; the wheels bring their CUDA along",
            "or conda install -y -c conda-forge pytorch-gpu torchvision",
            "conda install -y pytorch==1.12.1 torchvision==0.13.1 cudatoolkit=11.3 -c pytorch   # an old torch, where "
            "the program pins one",
        ),
    )


def absent_in_conda(facts: Facts, values: dict[str, str]) -> Optional[Told]:
    told = values["told"]
    names = list(
        dict.fromkeys(
            re.findall(
                r"([A-Za-z][\w.-]{1,60}) =?[^ ]{0,40} ?\*?,? ?(?:does not exist|, which does not exist) "
                r"\(perhaps",
                told,
            )
        )
    )
    names = names or [values["name"]]
    odd = _no_package(told, names[0])
    if odd is not None:
        return odd
    shown = ", ".join(names[:4]) + (" and others" if len(names) > 4 else "")
    if values.get("platform") == "osx-arm64":
        return (
            f"These channels have no {shown} for Macs with Apple's processor (osx-arm64)",
            "Bioconda, and older releases in general, are built for Intel's Macs; they run under Rosetta.",
            (
                "CONDA_SUBDIR=osx-64 conda env create -f <the same file>   # or conda create …: the environment "
                "takes the builds for Intel",
                "conda activate <it> && conda config --env --set subdir osx-64   # so that later installs do the same",
                "or releases that have builds for it: conda search --subdir osx-arm64 <package>",
            ),
        )
    listed = re.search(r"NotFound(?:Error)?: .{0,120}?- (.{1,600}?)(?: Current channels|$)", told)
    if listed:
        names = re.findall(r"(?:^|- )(?:\S{1,80}::)?([A-Za-z][\w.-]{0,60})", listed[1])[:20] or names
        shown = ", ".join(names[:4]) + (" and others" if len(names) > 4 else "")
    asked = _CUDA_ASKED.search(listed[1]) if listed else None
    if asked and asked["version"] not in _CUDA_OF_CONDA:
        return _no_such_cuda(facts, asked["name"], asked["version"])
    if re.search(r"torch|cuda|nvidia", shown) or "ResolvePackageNotFound" in told:
        return None  # what an environment.yml of another system asks for, and torch, have a row of their own
    if values.get("needed_by"):
        return _fell_back(values)
    return (
        f"The channels that were asked do not have {shown}"
        + (f" for {values['platform']}" if values.get("platform") else ""),
        "A channel that the package comes from is not among them, the version was taken back, or the name is "
        "another one there.",
        (
            f"conda install -y -c conda-forge -c bioconda {' '.join(names[:3])}   # conda-forge first; without "
            f"the version, where "
            "that one is gone",
            f"conda search -c conda-forge {names[0]}   # what there is",
            f"or by pip, inside the environment: python -m pip install {names[0]}",
        ),
    )


def _no_package(told: str, name: str) -> Optional[Told]:
    """What conda took for a package's name, and is a file, or a Python's number cut short."""
    if name.endswith((".yaml", ".yml")):
        return (
            f"{name} is the file of an environment, and conda took its name for a package's",
            "conda install and conda create want packages; a file in YAML is for conda env create.",
            (f"conda env create -f {name}   # conda env update -f {name}: into the environment that is active",),
        )
    if name.endswith(".txt"):
        return (
            f"{name} is a list of packages, and conda took its name for a package's",
            "Such a list is given with --file (conda's own), or to pip (pip's).",
            (f"conda install --file {name}", f"or, where pip wrote it: python -m pip install -r {name}"),
        )
    if re.search(r"- python=3\.1(?![\d.])", told):
        return (
            "This conda is too old for Python 3.10 and newer: it reads 3.10 as 3.1",
            "conda 4.11 was the first to read the number right.",
            (
                "conda update -n base -c conda-forge conda   # 4.11 or newer; then the same command again",
                "or an environment with an older Python: conda create -y -n py39 python=3.9",
            ),
        )
    return None


def _fell_back(values: dict[str, str]) -> Told:
    """A release that the solver tried for want of a better one asks for what the channels do not have."""
    asker = f"{values['needed_by']} {values['version']}"
    return (
        f"{asker} asks for {values['name']}, which is in none of the channels: one is missing, or the solver fell "
        f"back on an old "
        "release because newer ones do not fit what is there",
        "Bioconda's packages need conda-forge beside it, and before it; mixed with defaults, or with a Python "
        "that new releases "
        "do not have, only ancient builds remain.",
        (
            "conda create -y -n fresh --override-channels -c conda-forge -c bioconda python=3.12 <the packages "
            "that were asked for>   # "
            "a new environment, with the channels that have all of it",
            "for good: conda config --add channels bioconda; conda config --add channels conda-forge; conda "
            "config --set "
            "channel_priority strict",
        ),
    )
