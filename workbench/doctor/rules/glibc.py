"""Rules about a C library of the system that is older than what was installed on it."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes, torch_builds
from workbench.doctor.changes import pip_name
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ISSUES, PASSED, Result, Rule, evidence, seen
from workbench.doctor.tables import WHEELS, torch_release
from workbench.doctor.versions import at_least, older

EVERYTHING = ("chat", "vram", "architecture")
# The glibc of the systems in use (https://github.com/mayeut/pep600_compliance).
_SYSTEMS = (
    ("2.17", "RHEL 7"),
    ("2.27", "Ubuntu 18.04"),
    ("2.28", "RHEL 8, Debian 10"),
    ("2.31", "Ubuntu 20.04, Debian 11"),
    ("2.34", "RHEL 9"),
    ("2.35", "Ubuntu 22.04"),
    ("2.36", "Debian 12"),
    ("2.39", "Ubuntu 24.04"),
    ("2.41", "Debian 13"),
)
_NEWER = "Use a newer system, or a container: docker run --gpus all -it ubuntu:24.04"


def glibc_too_old(facts: Facts) -> Result:
    """The system's glibc is older than what the wheels need."""
    error = facts.error("glibc")
    version = facts.platform.libc_version if facts.platform.libc == "glibc" else None
    # platform.libc_ver() reads the interpreter's own file: a Python built on an old system says 2.2.5 or 2.9 anywhere.
    # No wheel of torch was ever made for a glibc below 2.17, so beside a torch that is there such a number is none.
    if older(version, "2.17") and facts.torch.installed:
        version = None
    if error is None and version is None:
        return None
    release = torch_release(facts.torch.version)
    failed = facts.torch.import_error is not None or facts.error("pip-no-torch") is not None
    if error is None and not (failed and older(version, release.glibc if release else "2.28")):
        return PASSED
    asker = _asker(error)
    return [
        Finding(
            "glibc-too-old",
            "error",
            f"The system's glibc is too old for {asker or 'these wheels'}",
            _why(facts, error),
            {**evidence(glibc=version, torch__version=facts.torch.version), **seen(error)},
            _fix(facts, error),
            ISSUES + "pytorch/pytorch/issues/156215",
            affects=EVERYTHING,
            observed=error is not None,
        )
    ]


def _module(error: Optional[ErrorFact]) -> str:
    """The library or program that asks for the newer glibc, without the ending of its file."""
    values = error.values if error else {}
    file = values.get("file", "")
    return (file.split(".")[0] if ".so" in file else file) or values.get("cut", "")


def _asker(error: Optional[ErrorFact]) -> str:
    values = error.values if error else {}
    module, folder = _module(error), values.get("folder", "")
    if not module:
        return ""
    if ".so" not in values.get("file", ".so"):
        return f"this program ({module})"
    return f"this wheel ({f'{folder}, {module}' if folder and folder not in module else module})"


def _why(facts: Facts, error: Optional[ErrorFact]) -> str:
    needed = (error.values.get("symbol") or "").removeprefix("GLIBC_") if error else ""
    brings = [f"{name} ({version})" for version, name in _SYSTEMS if at_least(version, needed)][:2] if needed else []
    asked = (
        f"It was built for glibc {needed} or newer, which {' and '.join(brings)} bring; neither pip nor conda replaces "
        "this library of the system."
        if brings
        else ""
    )
    general = (
        "torch 2.7 and newer need glibc 2.28 (RHEL 8, Ubuntu 20.04, Debian 10); bitsandbytes 0.43 and newer 2.24. With "
        "an older one pip takes ancient releases, or the library does not load."
    )
    about_torch = not asked or (_of_torch(error) and not older(facts.torch.version, "2.7"))
    return " ".join(filter(None, (asked, general if about_torch else "")))


def _of_torch(error: Optional[ErrorFact]) -> bool:
    """Whether it is torch itself that asks, or nothing tells who."""
    values = error.values if error else {}
    module = _module(error)
    return not module or (values.get("folder") == "torch" or module.startswith(("libtorch", "libc10")))


# CUDA's own libraries, which conda packs for newer systems than the wheels of NVIDIA (manylinux2014, glibc 2.17).
_OF_CUDA = re.compile(r"lib(?:cu(?:rand|blas|blasLt|fft|sparse|solver|dart|dnn|pti|file)|nvrtc|nvJitLink|nccl)\b")


def _fix(facts: Facts, error: Optional[ErrorFact]) -> tuple[str, ...]:
    module = _module(error)
    values = error.values if error else {}
    if error is not None and ".so" not in values.get("file", ".so"):
        return (_NEWER,)
    if _OF_CUDA.match(module):
        return (*_torch_of_pip(facts), _or(_NEWER))
    folder = values.get("folder") or ""
    if folder not in ("", "torch", "nvidia") or (module and not _of_torch(error) and not module.startswith("lib")):
        package = pip_name(folder or re.sub(r"_(?:\d_)?cuda$", "", module))
        return _anew(facts, package.replace("_", "-"), module, values.get("symbol") or "")
    return (_NEWER, *_last_for_2_17(facts, error))


def _anew(facts: Facts, package: str, module: str, symbol: str) -> tuple[str, ...]:
    """What puts another build in the place of a wheel that somebody made on a newer system."""
    if package == "bitsandbytes":
        # Its libraries for CUDA 12.6 and 12.8 were built for glibc 2.34 before 0.46, and for 2.24 since
        # (bitsandbytes#1610, and the tag of its wheels).
        newer = fixes.install(facts, "bitsandbytes>=0.46", upgrade=True)
        return (f"{newer}   # made for glibc 2.24 and newer", _or(_NEWER))
    if package.startswith("torch"):
        options = "--force-reinstall --no-deps --no-cache-dir"
        here = f"{fixes.install(facts, package, options=options)}   # on this very machine: pip takes a wheel that fits"
        return (here, _or(_NEWER))
    version = facts.package(package)
    force = "FLASH_ATTENTION_FORCE_BUILD=TRUE " if package == "flash-attn" else ""
    options = f"--no-build-isolation --no-cache-dir --force-reinstall --no-deps --no-binary {package}"
    build = fixes.install(facts, f"{package}=={version}" if version else package, options=options)
    steps = [f"{force}{build}   # compiles it here, for the glibc that is here; needs nvcc; MAX_JOBS=2"]
    # The project built its wheels on Ubuntu 20.04 up to that release (its .github/workflows/publish.yml).
    if package == "flash-attn" and symbol == "GLIBC_2.32" and not at_least(facts.torch.version, "2.7"):
        last = fixes.install(facts, "flash-attn==2.7.4.post1", options="--no-build-isolation --no-cache-dir")
        steps.append(f"or, with a torch before 2.7: {last}   # the last whose wheels were built on Ubuntu 20.04")
    return (*steps, f"or take a wheel of {package} that was built for an older system", _or(_NEWER))


def _torch_of_pip(facts: Facts) -> tuple[str, ...]:
    """pip's own torch, whose CUDA libraries were made for glibc 2.17, in place of conda's."""
    known = at_least(facts.torch.version, "2.0") and older(facts.torch.version, "2.7")
    version = str(facts.torch.version).split("+")[0] if known else "2.6.0"
    # Of all builds of these releases that for CUDA 11.8 runs on the oldest driver.
    options = f"--force-reinstall --index-url {WHEELS}/cu118"
    command = fixes.install(facts, f"torch=={version}", options=options)
    return (f"{command}   # with CUDA libraries of its own, made for glibc 2.17, in place of conda's",)


def _last_for_2_17(facts: Facts, error: Optional[ErrorFact]) -> tuple[str, ...]:
    """The last torch for glibc 2.17, where it is a newer one that asks for more and this Python takes it."""
    release = torch_release("2.6")
    old = facts.platform.libc == "glibc" and older(facts.platform.libc_version, "2.17")
    fits = not old and release is not None and torch_builds.python_fits(facts.python.version, release) is not False
    symbol = (error.values.get("symbol") or "").removeprefix("GLIBC_") if error else ""
    if not fits or older(facts.torch.version, "2.7") or (symbol and not older("2.17", symbol)):
        return ()
    return (fixes.install(facts, "torch==2.6.0") + "   # the last for glibc 2.17",)


def _or(step: str) -> str:
    return f"or: {step[0].lower()}{step[1:]}"


RULES: tuple[Rule, ...] = (glibc_too_old,)
