"""Programs of the shell, in no Python, that the loader cannot start for want of a library of CUDA."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import PASSED, Result, Rule, evidence, seen
from workbench.doctor.rules.matching_builds import cuda_of_library

_LOADER = "https://man7.org/linux/man-pages/man8/ld.so.8.html"
# What conda-forge calls the packages that have them.
_OF_CONDA = {
    "cudart": "cuda-cudart",
    "cublas": "libcublas",
    "cublasLt": "libcublas",
    "cufft": "libcufft",
    "curand": "libcurand",
    "cusolver": "libcusolver",
    "cusparse": "libcusparse",
    "nvrtc": "cuda-nvrtc",
    "nvJitLink": "libnvjitlink",
    "nccl": "nccl",
    "cudnn": "cudnn",
}


def lacks_cuda_library(facts: Facts) -> Result:
    """The loader names the program and the library of CUDA that it does not find for it."""
    error = facts.error("program-lacks-cuda-library")
    if error is None:
        return PASSED
    program, library = error.values["program"].split("/")[-1], error.values["library"]
    cuda = cuda_of_library(library)
    return [
        Finding(
            "program-lacks-cuda-library",
            "error",
            f"The program {program} does not find {library}" + (f", a library of CUDA {cuda}" if cuda else ""),
            "It was built with that library, and the loader looks for it only in the system's folders, in those of "
            "LD_LIBRARY_PATH and in those named inside the program. What torch's wheels bring lies in none of them.",
            {**evidence(program=error.values["program"], library=library), **seen(error)},
            _steps(facts, error, cuda),
            _LOADER,
            affects=("chat",),
            observed=True,
        )
    ]


def _steps(facts: Facts, error: ErrorFact, cuda: Optional[str]) -> tuple[str, ...]:
    folder = re.fullmatch(
        r"(?P<prefix>.*/(?:envs|conda-envs|miniconda3|anaconda3|miniforge3)(?:/[^/]+)?)/bin/[^/]+",
        error.values["program"],
    )
    prefix = folder["prefix"] if folder else "$CONDA_PREFIX"
    of_conda = (
        f"export LD_LIBRARY_PATH={prefix}/lib:$LD_LIBRARY_PATH   # what was built or installed into a conda "
        "environment finds its libraries there"
    )
    toolkit = (
        f"export LD_LIBRARY_PATH=$(ls -d /usr/local/cuda-{cuda or '1'}*/lib64 | tail -1):$LD_LIBRARY_PATH   # the "
        "toolkit of that CUDA"
    )
    name = re.match(r"lib([A-Za-z]+)", error.values["library"])
    package = _OF_CONDA.get(name[1] if name else "", "cuda-libraries")
    release = f" cuda-version={cuda}" if cuda else ""
    anew = f"where neither is there: conda install -y -c conda-forge {package}{release}, or a build of the program for "
    anew += "the CUDA that is here"
    first, second = (of_conda, toolkit) if folder or facts.python.kind == "conda" else (toolkit, of_conda)
    return first, f"or: {second}", anew


RULES: tuple[Rule, ...] = (lacks_cuda_library,)
