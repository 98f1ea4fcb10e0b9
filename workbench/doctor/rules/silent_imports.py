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
            f"The compiled part {name} is not there: its import failed before, and the program went on without a word",
            "Programs import such parts inside try: … except: …, so that the reason is lost: not installed in this "
            "environment, or compiled for another torch, CUDA or Python.",
            {**evidence(torch__version=facts.torch.version, python=facts.python.version), **seen(error)},
            (
                *_steps(facts, name),
                f'python -c "import torch, {_module(name)}"   # no error: it is there; else the reason',
            ),
            "https://github.com/MzeroMiko/VMamba/issues/313",
            affects=("chat", "architecture"),
            observed=True,
        )

    return from_message(facts, ("compiled-name-undefined",), make)


def _package(name: str) -> str:
    return next((package for start, package in _PACKAGES if name.startswith(start)), package_of(name) or "")


def _module(name: str) -> str:
    package = next((package for start, package in _PACKAGES if name.startswith(start)), "")
    return package.replace("-", "_") or name


def _steps(facts: Facts, name: str) -> tuple[str, ...]:
    package = _package(name)
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
    return (
        "In the program's folder, where its setup.py or kernels are: "
        + fixes.install(facts, ".", options="--no-build-isolation")
        + "   # with the nvcc of torch's CUDA; its README names the folder",
    )


RULES: tuple[Rule, ...] = (name_undefined,)
