"""How conda is made to take the CUDA build of torch that it was asked for. Needs the tables."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.tables import conda_cudas
from workbench.doctor.versions import at_least, older

_ASKED = re.compile(r"\b(?:cudatoolkit|pytorch-cuda) ?={1,2} ?(\d{1,2}\.\d)")
_VERSION = re.compile(r"\bpytorch[ =-]{1,3}(\d\.\d{1,2}\.\d)")


def conda_steps(facts: Facts, error: ErrorFact) -> tuple[str, ...]:
    """The conda command that leaves its solver no CPU build to choose; empty where the channel has no CUDA build.

    Args:
        facts: derived facts.
        error: the message from which it is seen that conda took a CPU build.
    """
    named = _VERSION.search(error.text)
    version = facts.torch.version or (named[1] if named else None)
    built = _built_for(facts, version)
    asked = _ASKED.search(error.text)
    wanted = facts.torch.asked_cuda or (asked[1] if asked else None)
    if version is None or not built:
        return ()
    cuda = wanted if wanted in built else _nearest(facts, built)
    toolkit = "cudatoolkit" if older(version, "1.13") else "pytorch-cuda"
    channels = "-c pytorch" + (" -c nvidia" if toolkit == "pytorch-cuda" else " -c conda-forge")
    spec = f"'pytorch={version}=*cuda{cuda}*'"
    companions = [name for name in ("torchvision", "torchaudio") if facts.package(name)] or ["torchvision"]
    spec = spec.replace("'", '"') if fixes.on_windows(facts) else spec
    cpuonly = ("conda remove -y --force cpuonly   # where conda list has it",) if facts.package("cpuonly") else ()
    why = (
        "the build's name leaves the solver no CPU build"
        if cuda == wanted or wanted is None
        else f"with CUDA {wanted} the channel has no build of it for this system"
    )
    return (
        *cpuonly,
        f"conda install -y {spec} {' '.join(companions)} {toolkit}={cuda} {channels}   # {why}",
        f"in an environment.yml: pytorch={version}=*cuda{cuda}*; a package that cannot stand beside it, which conda "
        "then names, by pip",
    )


def _built_for(facts: Facts, version: Optional[str]) -> list[str]:
    """The CUDA versions with which the channel has a release."""
    row = [] if facts.platform.system == "Darwin" else conda_cudas(version)
    # On Windows the channel has nothing for CUDA 10 from 1.12 on.
    return [cuda for cuda in row if not (fixes.on_windows(facts) and at_least(version, "1.12") and older(cuda, "11.0"))]


def _nearest(facts: Facts, built: list[str]) -> str:
    driver = facts.driver.cuda
    fitting = [cuda for cuda in built if driver is None or not older(driver, cuda)]
    return (fitting or built)[-1] if driver else built[0] if older(built[-1], "11.0") else _first_of_11(built)


def _first_of_11(built: list[str]) -> str:
    """Of a driver that nothing tells of little is asked, and every GPU of the time is known from CUDA 11 on."""
    return next(cuda for cuda in built if at_least(cuda, "11.0"))
