"""A rule about compiled modules whose import failed in silence, so that only the name is missed. Needs the tables."""

from __future__ import annotations

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import Result, Rule, evidence, from_message, seen
from workbench.doctor.rules.fetched_wheels import without_nvcc
from workbench.doctor.rules.matching_builds import matching_build, package_of

# What of a name is no module's: functions that packages bring.
_PACKAGES = (("flash_attn_", "flash-attn"), ("causal_conv1d_", "causal-conv1d"), ("selective_scan_fn", "mamba-ssm"))
_IN_A_FOLDER = ("selective_scan_cuda_core", "selective_scan_cuda_oflex", "selective_scan_cuda_ndstate")
"""Modules of VMamba and of what is built on it, which come from a folder of the program itself."""


def name_undefined(facts: Facts) -> Result:
    """A NameError on a compiled module or what it brings: the program caught its import's error, and went on."""

    def make(error: ErrorFact) -> Finding:
        name = error.values["name"]
        return Finding(
            "compiled-part-missing",
            "error",
            f"The compiled part {_told(facts, name)} is not there: its import failed before, and the program went on "
            "without a word",
            "Programs import such parts inside try: … except: …, so that the reason is lost: not installed in this "
            "environment, or compiled for another torch, CUDA or Python.",
            {**evidence(torch__version=facts.torch.version, python=facts.python.version), **seen(error)},
            (
                *_steps(facts, name),
                f'python -c "import torch{_import(facts, name)}"   # no error: it is there; else the reason',
            ),
            "https://github.com/MzeroMiko/VMamba/issues/313",
            affects=("chat", "architecture"),
            observed=True,
        )

    return from_message(facts, ("compiled-name-undefined",), make)


def _told(facts: Facts, name: str) -> str:
    told = facts.error("compiled-package-told") if name in ("_C", "_ext") else None
    return f"{told.values['name']}.{name}" if told else name


def _package(name: str) -> str:
    return next((package for start, package in _PACKAGES if name.startswith(start)), package_of(name) or "")


def _import(facts: Facts, name: str) -> str:
    if name in ("_C", "_ext"):
        told = facts.error("compiled-package-told")
        return f"; from {told.values['name'] if told else '<the package>'} import {name}"
    return f", {_module(name)}"


def _module(name: str) -> str:
    package = next((package for start, package in _PACKAGES if name.startswith(start)), "")
    return package.replace("-", "_") or name


def _steps(facts: Facts, name: str) -> tuple[str, ...]:
    package = _package(name)
    if name in ("_C", "_ext"):
        return _of_the_program(facts)
    in_folder = (
        "cd kernels/selective_scan && "
        + fixes.install(facts, ".", options="--no-build-isolation")
        + "   # the program's own folder (VMamba's layout), with the nvcc of torch's CUDA",
    )
    if name in _IN_A_FOLDER:
        return in_folder
    if name.startswith("selective_scan"):
        return (f"where the program has a folder of that name: {in_folder[0]}", *matching_build(facts, "mamba-ssm"))
    if package:
        return without_nvcc(facts, package) or matching_build(facts, package) or (fixes.install(facts, package),)
    return (_in_its_folder(facts),)


def _of_the_program(facts: Facts) -> tuple[str, ...]:
    """GroundingDINO's setup and others leave the compiled part out where torch sees no GPU or CUDA_HOME names none."""
    return (
        'python -c "import torch.utils.cpp_extension as e; print(e.torch.version.cuda, e.torch.cuda.is_available(), '
        'e.CUDA_HOME)"   # None or False: its setup compiles nothing, and says so only among its output',
        fixes.export(
            facts,
            "CUDA_HOME",
            r"C:\Program Files\NVIDIA GPU Computing Toolkit\CUDA\v12.1"
            if fixes.on_windows(facts)
            else "/usr/local/cuda",
            "where CUDA_HOME is None: the toolkit of torch's CUDA",
        ),
        _in_its_folder(facts),
    )


def _in_its_folder(facts: Facts) -> str:
    return (
        "In the program's folder, where its setup.py or kernels are: "
        + fixes.install(facts, ".", options="--no-build-isolation")
        + "   # with the nvcc of torch's CUDA; its README names the folder"
    )


RULES: tuple[Rule, ...] = (name_undefined,)
