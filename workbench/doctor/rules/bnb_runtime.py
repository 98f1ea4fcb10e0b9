"""Rules about bitsandbytes' native library where a library of CUDA that it was linked with is not found."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.bnb_library import BNB, QUANTIZED, legacy_loader, overrides_away, upgrade
from workbench.doctor.rules.common import PASSED, Result, Rule, evidence, seen
from workbench.doctor.rules.matching_builds import cuda_of_library
from workbench.doctor.tables import bitsandbytes_release
from workbench.doctor.versions import at_least, older, release_of

# What the library for each CUDA is linked with, as pip calls NVIDIA's wheels: by readelf -d on those of bitsandbytes
# 0.44.1; in 0.50.2 it is no longer linked with cuSPARSE, which is what asks for nvJitLink.
_LINKED = ("cuda-runtime", "cublas", "cusparse")
_WITHOUT_CUSPARSE = "0.50"


def missing_runtime_library(facts: Facts) -> Result:
    """A library of CUDA that the chosen native library needs is not found."""
    error = facts.error("bnb-missing-dependency")
    if error is None:
        return PASSED
    library = error.values.get("library", "a CUDA library")
    major = _cuda_major_of(library)
    numbers = release_of(facts.torch.cuda)
    own = str(numbers[0]) if numbers else ""
    other = bool(major and own and major != own)
    if legacy_loader(facts) and (other or not own):
        return PASSED  # it guessed which CUDA there is, and a newer one asks torch
    return [
        Finding(
            "bnb-missing-runtime-lib",
            "error",
            f"bitsandbytes' library needs {library}{f', of CUDA {major},' if major else ','} which is not found",
            f"It was loaded for CUDA {major}, and torch brings CUDA {own}."
            if other
            else "bitsandbytes takes the library for the CUDA that torch was built with, and brings no CUDA itself: it "
            "lives on the libraries that torch has loaded. This torch came without them, or has them under other "
            "names, as builds for CUDA 11 have; a toolkit of another major does not help.",
            {**evidence(bitsandbytes=facts.bitsandbytes.version, torch__cuda=facts.torch.cuda), **seen(error)},
            _steps(facts, None if other else major),
            BNB + "issues/1518",
            affects=QUANTIZED,
            observed=True,
        )
    ]


def _cuda_major_of(library: str) -> Optional[str]:
    """The CUDA major that a library's file belongs to; cuSPARSE of CUDA 13 still calls itself 12."""
    found = re.match(r"libnvJitLink\.so\.(\d{1,2})", library)
    return found[1] if found else cuda_of_library(library)


def _steps(facts: Facts, major: Optional[str]) -> tuple[str, ...]:
    """What takes a forced choice back, and, where that is not it, brings the libraries of torch's CUDA.

    Args:
        facts: derived facts.
        major: of CUDA, where it is that of torch as far as one knows.
    """
    forced = overrides_away(facts)
    if forced or major is None or fixes.on_windows(facts):
        return (*forced, upgrade(facts), *(f"or, if it stays: {step}" for step in fixes.repair_torch(facts)[-1:]))
    here = (*_libraries(facts, major), *_newer_cuda(facts, major))
    return (*_no_longer_linked(facts, major), *here)


def _no_longer_linked(facts: Facts, major: str) -> tuple[str, ...]:
    """The release that does without the library that is missing, where it takes the torch and the Python at hand."""
    error = facts.error("bnb-missing-dependency")
    unneeded = error is not None and re.match(r"lib(?:cusparse|nvJitLink)\.", error.values.get("library", ""))
    row = bitsandbytes_release(f"{_WITHOUT_CUSPARSE}.0")
    if not unneeded or row is None or older(facts.python.version, row["python"]):
        return ()
    # Builds for CUDA 13 came with torch 2.9; an older torch would be replaced by pip without a word.
    if not at_least(facts.torch.version, row["torch"]) and int(major) < _IN_ONE_FOLDER:
        return ()
    command = fixes.install(facts, f"bitsandbytes>={_WITHOUT_CUSPARSE}", upgrade=True)
    return (f"{command}   # from {_WITHOUT_CUSPARSE} on it does without that library; if it stays:",)


_IN_ONE_FOLDER = 13
"""The CUDA from which on NVIDIA's wheels have no number in their names, and lie in one folder."""


# A notebook's Python has read LD_LIBRARY_PATH long ago; what it has loaded already, the loader finds by its name. In
# this order, for each may need those before it; up to CUDA 12 each wheel has a folder of its own.
_LOADED_FIRST = (
    "import ctypes, glob, nvidia; [ctypes.CDLL(f, mode=ctypes.RTLD_GLOBAL) for n in ('nvjitlink/lib/libnvJitLink', "
    "'cuda_runtime/lib/libcudart', 'cublas/lib/libcublasLt', 'cublas/lib/libcublas', 'cusparse/lib/libcusparse') "
    "for f in glob.glob(list(nvidia.__path__)[0] + '/' + n + '.so.{major}*')]   # in a cell, before bitsandbytes is "
    "imported; after an import that failed, restart the session first"
)


def _libraries(facts: Facts, major: str) -> tuple[str, ...]:
    names = (*_LINKED, *(("nvjitlink",) if major != "11" else ()))
    if int(major) >= _IN_ONE_FOLDER:
        packages = tuple(f"nvidia-{name}" for name in names)
        modules, folders = "nvidia.cu13", "nvidia.cu13.__path__[0] + '/lib'"
    else:
        packages = tuple(f"nvidia-{name}-cu{major}" for name in names)
        of_package = [f"nvidia.{name.replace('-', '_')}" for name in names]
        modules = ", ".join(of_package)
        folders = f"':'.join(m.__path__[0] + '/lib' for m in ({modules}))"
    if facts.platform.service in ("colab", "kaggle") and int(major) < _IN_ONE_FOLDER:
        return (fixes.install(facts, *packages), _LOADED_FIRST.format(major=major))
    return (
        fixes.install(facts, *packages),
        f'export LD_LIBRARY_PATH=$({fixes.python_command(facts)} -c "import {modules}; print({folders})")'
        ":$LD_LIBRARY_PATH   # in the shell that starts the program, before it",
    )


def _newer_cuda(facts: Facts, major: str) -> tuple[str, ...]:
    """From CUDA 12 on torch's wheels bring their libraries as packages, by their own names."""
    if major != "11":
        return ()
    install = next((step for step in fixes.reinstall_torch(facts, keep_release=False) if "--index-url" in step), "")
    return (f"or, for good, a torch for CUDA 12 or newer, which brings its own: {install}",) if install else ()


RULES: tuple[Rule, ...] = (missing_runtime_library,)
