"""A library that torch does not find when it is imported, and whose it is. Needs the tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from workbench.doctor import fixes, system_packages
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.tables import table

_OF_NVIDIA = re.compile(
    r"lib(?:cudart|cublas|cufft|curand|cusolver|cusparse|cudnn|nvrtc|nvJitLink|cupti|nvToolsExt|nccl|cufile|nvshmem)"
)


@dataclass(frozen=True)
class Lacking:
    """Why a library is not found, as it stands behind "import torch fails:", and what brings it."""

    what: str
    why: str
    steps: tuple[str, ...]
    source: str


def lacking(facts: Facts, error: Optional[ErrorFact]) -> Optional[Lacking]:
    """What is known of the library that `error` says torch does not find; None where it is none in particular."""
    library = error.values.get("library", "") if error is not None else ""
    if not library:
        return None
    if _OF_NVIDIA.match(library):
        return _nvidia_packages_left_out(facts, library) or _two_folders(facts, library)
    return _of_the_table(facts, library)


def _nvidia_packages_left_out(facts: Facts, library: str) -> Optional[Lacking]:
    """torch has looked through the whole path of Python for the packages that it pins."""
    if facts.error("nvidia-wheels-not-found") is None:
        return None
    return Lacking(
        f"the NVIDIA packages that this torch pins are not in its environment ({library} is not found)",
        "The wheels of torch since 1.13 bring CUDA as packages of their own; they were left out (--no-deps, a lock "
        "file, an install that broke off) or lie in another environment.",
        fixes.repair_torch(facts) or fixes.repair_in_words(facts),
        "https://github.com/pytorch/pytorch/blob/main/torch/__init__.py",
    )


def _two_folders(facts: Facts, library: str) -> Optional[Lacking]:
    """Fedora, Red Hat and Amazon put compiled packages into lib64, and NVIDIA's, which count as none, into lib."""
    error = facts.error("torch-in-lib64")
    if error is None:
        return None
    packages = f"{error.values['prefix']}/lib/{error.values['python']}/site-packages"
    return Lacking(
        f"{library} is not found: torch lies in lib64, NVIDIA's packages in lib, where it does not look",
        "torch looks for CUDA's libraries beside its own folder. pip of this system puts compiled packages into lib64 "
        "and all others into lib, and NVIDIA's are marked as such; in a venv both are one folder.",
        (
            f"export LD_LIBRARY_PATH=$(ls -d {packages}/nvidia/*/lib | paste -sd:):$LD_LIBRARY_PATH",
            f"or, for good, everything in a venv, whose lib64 is its lib: {error.values['python']} -m venv ~/venv && "
            "source ~/venv/bin/activate && python -m pip install torch",
        ),
        "https://github.com/pytorch/pytorch/blob/main/torch/__init__.py",
    )


def _of_the_table(facts: Facts, library: str) -> Optional[Lacking]:
    found = ((row, re.match(row["match"], library)) for row in table("libraries")["torch"])
    row, match = next(((row, match) for row, match in found if match), (None, None))
    if row is None or match is None:
        return None
    apt = row.get("apt", {}).get(match.groupdict().get("name"))
    return Lacking(
        f"{library} {row['whose']} is not found",
        row["why"],
        tuple(_step(facts, step, library, apt) for step in row["fix"]),
        row["source"],
    )


def _step(facts: Facts, step: str, library: str, apt: Optional[str]) -> str:
    if step == "{rocm}":
        options = f"--force-reinstall --index-url {fixes.rocm_index(facts)}"
        return fixes.install(facts, "torch", options=options)
    if step != "system {apt}":
        return step
    if apt is None:
        return f"apt-file search {library}   # then install the package that has it"
    found_by = f"apt-file search {library}, or dnf provides '*/{library}'"
    return f"{system_packages.install(facts, apt)}   # where that is not its name: {found_by}"
