"""Which published build of torch this Python, driver, libc and these GPUs can run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from workbench.doctor.derive import found_cuda
from workbench.doctor.facts import Facts
from workbench.doctor.tables import (
    WHEELS,
    TorchRelease,
    cuda_of,
    driver_runs,
    minimum_driver,
    torch_kernels,
    torch_release,
    torch_releases,
    transformers_release,
)
from workbench.doctor.versions import at_least, local_tag, older, parse_version, release_of


@dataclass(frozen=True)
class Wheel:
    """A torch build to install."""

    release: TorchRelease
    version: str
    variant: str

    @property
    def index(self) -> str:
        """URL of the package index that has it."""
        return f"{WHEELS}/{self.variant}"


def choose_wheel(facts: Facts, keep_release: bool = True, assume_driver: Optional[str] = None) -> Optional[Wheel]:
    """The torch build that this Python, driver, libc and these GPUs can run.

    The installed release is kept if one of its builds fits; else it is the newest that has one. What is unknown
    restricts nothing.

    Args:
        facts: derived facts.
        keep_release: whether to prefer the release that is installed.
        assume_driver: a driver version to suppose in place of the one found.
    """
    driver = assume_driver or driver_of(facts)
    if driver:
        return choose_for_driver(facts, keep_release, driver)
    # Without a known driver the CUDA major that runs today is a preference, not a limit; with none known to run, a
    # build that both the drivers of the last years and the newest take.
    likely = _driver_that_runs_torch(facts) or minimum_driver(WIDELY_RUN, facts.platform.is_windows)[0]
    return choose_for_driver(facts, keep_release, likely) or choose_for_driver(facts, keep_release, None)


def choose_for_driver(facts: Facts, keep_release: bool, driver: Optional[str]) -> Optional[Wheel]:
    """As `choose_wheel`, for this driver and no other; None restricts nothing."""
    current = torch_release(facts.torch.version) if keep_release else None
    published = is_published(facts.torch.version)
    newest_first = list(reversed(torch_releases()))
    for release in ([current] if current else []) + newest_first:
        if not release_fits(facts, release):
            continue
        for variant in sorted(release.variants, key=lambda name: release_of(cuda_of(name)) or (0, 0), reverse=True):
            if variant_fits(facts, release, variant, driver):
                keeps = current is not None and release.name == current.name and published
                version = str(facts.torch.version).split("+")[0] if keeps else release.latest
                return Wheel(release, version, variant)
    return None


def is_published(torch_version: Optional[str]) -> bool:
    """Whether a torch version is one that stands on the stable index: no nightly, no build from source."""
    version = parse_version(torch_version)
    tag = local_tag(torch_version) or ""
    plain = re.fullmatch(r"(?:cu\d{2,3}|cpu|xpu|rocm[\d.]+)?(?:[._-]with[._-]pypi[._-]cudnn)?", tag)
    # The only stages besides a release are pre-releases and conda-forge's .post301: neither is on the index.
    return version is not None and version.key[1] == 0 and plain is not None


def python_fits(python: Optional[str], release: TorchRelease, everywhere: bool = False) -> Optional[bool]:
    """Whether `release` has wheels for a Python version; None when the version is unknown.

    `everywhere` leaves out a Python that has them on Linux x86-64 only.
    """
    newest = release.python_all if everywhere else release.python_max
    numbers, first, last = release_of(python), release_of(release.python_min), release_of(newest)
    return None if numbers is None or first is None or last is None else first <= numbers <= last


_LAST_PYTHON = (("1.11", "3.10"), ("1.8", "3.9"), ("1.4", "3.8"))
"""From which torch on there are wheels for a Python, before the table of releases begins."""


def last_python(version: Optional[str]) -> Optional[str]:
    """The newest Python that a torch of before 1.13 has wheels for; None before 1.4."""
    return next((python for first, python in _LAST_PYTHON if at_least(version, first)), None)


def release_fits(facts: Facts, release: TorchRelease) -> bool:
    """Whether a release has wheels for this Python and libc, and is new enough for the transformers here."""
    # A torch of the first line tells that Python is one of its time, where nothing else does.
    python = facts.python.version or ("3.9" if older(facts.torch.version, "2.0") else None)
    if python_fits(python, release, facts.platform.system in ("Windows", "Darwin")) is False:
        return False
    if facts.platform.libc == "glibc" and older(facts.platform.libc_version, release.glibc):
        return False
    needed = transformers_release(facts.package("transformers"))
    return not (needed and older(release.latest, needed["torch"]))


def variant_fits(facts: Facts, release: TorchRelease, variant: str, driver: Optional[str]) -> bool:
    """Whether a driver runs a build of a release, and the build has code for every GPU."""
    cuda = release_of(cuda_of(variant))
    if cuda is None:
        return False
    windows = facts.platform.is_windows
    if driver and driver_runs(driver, cuda[0], windows) is False:
        return False
    kernels = torch_kernels(release.latest, variant, facts.platform.machine)
    capabilities = [gpu.compute_capability for gpu in facts.nvidia_gpus() if gpu.compute_capability]
    if kernels is None:
        return not capabilities
    return all(kernels.cover(capability) is not False for capability in capabilities)


def _driver_that_runs_torch(facts: Facts) -> Optional[str]:
    """The oldest driver of the CUDA family that the installed torch needs, unless CUDA is known not to work."""
    numbers = release_of(facts.torch.cuda)
    if facts.torch.build != "cuda" or numbers is None or facts.torch.cuda_available is False:
        return None
    return minimum_driver(numbers[0], facts.platform.is_windows)[0]


def driver_of(facts: Facts) -> Optional[str]:
    """The driver, as told or as the CUDA that it offers tells: the oldest of that family."""
    # What torch itself found counts before what nvidia-smi prints: a container may hold another libcuda.
    if facts.driver.version and found_cuda(facts) is None:
        return facts.driver.version
    # A CUDA version offered by libcuda says as much: the oldest driver of that family is the least it can be.
    numbers = release_of(found_cuda(facts) or facts.driver.cuda)
    if numbers:
        return minimum_driver(numbers[0], facts.platform.is_windows)[0] if numbers >= (10, 2) else _NO_WHEELS_DRIVER
    built = release_of(facts.torch.cuda)
    if built and facts.error("driver-too-old", "driver-insufficient"):
        return minimum_driver(built[0] - 1, facts.platform.is_windows)[0]
    return None


WIDELY_RUN = 12
"""CUDA major whose builds run on every driver since 2022."""


_NO_WHEELS_DRIVER = "400.0"
"""A driver before those of CUDA 10.2, the oldest that builds in the tables were made for."""


def asks_driver(facts: Facts) -> bool:
    """Whether the choice of a build hangs on a driver that nothing tells of."""
    # No driver that knows a Blackwell GPU is older than CUDA 12.8.
    newest = any(at_least(gpu.compute_capability, "10.0") for gpu in facts.nvidia_gpus())
    known = newest or driver_of(facts) or _driver_that_runs_torch(facts) or facts.torch.cuda_available
    return not known and facts.has_nvidia() is not False and not facts.has_amd() and facts.platform.system != "Darwin"


def choose_for_least_driver(facts: Facts, keep_release: bool) -> Optional[Wheel]:
    """The build that asks for the oldest driver beyond the present one."""
    for major in (11, 12, 13):
        wheel = choose_for_driver(facts, keep_release, minimum_driver(major, facts.platform.is_windows)[0])
        if wheel is not None:
            return wheel
    return None
