"""Macs whose Python is one for Intel's processors, for which torch ended with 2.2.2."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes, torch_builds
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ISSUES, PASSED, Result, evidence, seen
from workbench.doctor.tables import torch_release
from workbench.doctor.versions import at_least, minor_name, older

_LAST = "2.2.2"


def python_of_one(facts: Facts) -> bool:
    """Whether this Python is one for Intel Macs, as itself, its owner or what pip offers it tells."""
    mac = facts.platform.system == "Darwin"
    if _offered_up_to_the_last(facts):
        return mac or (facts.platform.system is None and not fixes.on_windows(facts))
    if not mac or facts.platform.container:
        return False
    told = (facts.error("intel-mac-told") is not None or _left_out(facts)) and not _apple_chip(facts)
    return facts.platform.machine == "x86_64" or (facts.platform.machine is None and told)


def _refused(facts: Facts) -> Optional[ErrorFact]:
    """What uv or Poetry says of a torch newer than the last for Intel Macs, that it has no file for this platform."""
    error = facts.error("no-wheel-for-this-platform", "poetry-finds-no-wheel")
    values = error.values if error else {}
    return error if values.get("package") == "torch" and at_least(values.get("version"), "2.3") else None


def _left_out(facts: Facts) -> bool:
    """Whether only the processor is left as the reason: the release has wheels for this Python on every system."""
    error = _refused(facts)
    release = torch_release(error.values["version"]) if error else None
    return release is not None and torch_builds.python_fits(facts.python.version, release, everywhere=True) is True


def _offered_up_to_the_last(facts: Facts) -> bool:
    """Whether pip offers what it offers to no other Python: all up to 2.2.2, and what was asked for is newer."""
    error = facts.error("pip-offers")
    if error is None or error.values.get("package") != "torch" or error.values.get("newest") != _LAST:
        return False
    asked = re.search(r"(?:==|~=|>=?)\s?(\d[\w.]{0,30})", error.values.get("spec", ""))
    several = error.values.get("oldest") != _LAST
    return several and (asked is None or at_least(asked[1], _LAST) is True)


def _apple_chip(facts: Facts) -> bool:
    told = facts.error("apple-chip-told") is not None or "apple" in (facts.platform.gpu_vendors or ())
    return told and facts.error("intel-mac-told") is None


def _not_found(facts: Facts) -> Optional[ErrorFact]:
    """What pip or uv says that finds no torch as new as the one asked for."""
    newer, told = _refused(facts), facts.error("mac-torch-ends-told")
    known = facts.error("intel-mac-told") or _left_out(facts) or facts.platform.machine == "x86_64"
    return facts.error("pip-no-torch") or (newer or told if known else None)


def no_wheel(facts: Facts) -> Result:
    """Intel Macs ended with torch 2.2.2."""
    machine = facts.platform
    if not python_of_one(facts):
        return None if machine.system is None or machine.machine is None else PASSED
    error = _not_found(facts)
    if error is None and not facts.lacks("torch"):
        return PASSED
    rosetta = _apple_chip(facts)
    return [
        Finding(
            "no-torch-wheel-for-platform",
            "error",
            "This Python is one for Intel Macs, for which torch ended with 2.2.2; the Mac has Apple's processor"
            if rosetta
            else "torch ended for Intel Macs with 2.2.2",
            "No newer wheels are made for macOS on x86-64, so pip offers nothing or an old release"
            + (" to a Python that runs under Rosetta." if rosetta else "."),
            {**evidence(os=machine.os, machine=machine.machine), **seen(facts.error("pip-offers") or error)},
            (*_arm64_python(facts), *_the_last(facts, "or, to keep this Python: "))
            if rosetta
            else (
                *_the_last(facts),
                *(
                    ()
                    if facts.error("intel-mac-told")
                    else (
                        'python -c "import platform; print(platform.machine())"   # x86_64 on an M processor: an '
                        f"Intel Python under Rosetta; then an arm64 one: {_arm64_python(facts)[0]}",
                    )
                ),
            ),
            ISSUES + "pytorch/pytorch/issues/161614",
            affects=("chat", "vram", "architecture"),
            observed=error is not None,
        )
    ]


def _arm64_python(facts: Facts) -> tuple[str, ...]:
    have = minor_name(facts.python.version)
    python = have if at_least(have, "3.10") and older(have, "3.15") else "3.12"
    made = fixes.new_environment(f"cpython-{python}-macos-aarch64")
    return (
        f"{made} && source .venv/bin/activate   # in a terminal without Rosetta; or a conda for arm64 (Miniforge)",
        "then the same install again, in it",
    )


def _the_last(facts: Facts, before: str = "") -> tuple[str, ...]:
    """What installs the last release, which needs Python 3.8 to 3.12."""
    pinned = "torch==2.2.2 'numpy<2' 'transformers<4.58'"
    if facts.error("poetry-finds-no-wheel") is not None:
        return (f"{before}poetry env use 3.11 && poetry add {pinned}   # poetry lock, where another package pins it",)
    if facts.error("no-wheel-for-this-platform") is not None:
        return (f"{before}uv python pin 3.12 && uv add {pinned}   # without a project: uv pip install {pinned}",)
    if at_least(facts.python.version, "3.13"):
        return (f"{before}{fixes.new_environment('3.12')} && source .venv/bin/activate && uv pip install {pinned}",)
    return (f"{before}python -m pip install {pinned}   # needs Python 3.8 to 3.12",)
