"""Rules about the C compiler and Python's headers, which Triton needs while a program runs."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes, system_packages
from workbench.doctor.facts import Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ISSUES, PASSED, Result, Rule, evidence, seen
from workbench.doctor.versions import minor_name

_INCLUDE_AND_LIBS = "https://github.com/woct0rdho/triton-windows/releases/tag/v3.0.0-windows.post1"


def compiler_missing(facts: Facts) -> Result:
    """Triton and torch.compile need a C compiler and Python's headers."""
    error = facts.error("python-h", "no-compiler")
    if error is None:
        return PASSED
    return [
        Finding(
            "missing-compiler-or-python-headers",
            "error",
            "There is no C compiler"
            if error.id != "python-h"
            else "Python's headers and libraries are missing, or of another Python"
            if re.search(r"while importing|tcc\.exe", error.text)
            else "Python's headers are missing",
            "pip found no ready wheel of a package and compiles it."
            if "error: command '" in error.text
            else "Triton (torch.compile, many kernels) compiles a small C file at run time.",
            {**evidence(c_compiler=facts.platform.c_compiler, headers=facts.python.headers), **seen(error)},
            _headers_on_windows(facts) if error.id == "python-h" and fixes.on_windows(facts) else _compiler_fix(facts),
            ISSUES + "sgl-project/sglang/pull/18644",
            affects=("chat",),
            observed=True,
        )
    ]


def _headers_on_windows(facts: Facts) -> tuple[str, ...]:
    """python.org's installer brings the headers; the embeddable Python, which portable programs carry, does not."""
    minor = minor_name(facts.python.version)
    version = f"Python {minor}" if minor else "Python of the same version (3.x)"
    return (
        f"Install the whole {version} from https://www.python.org/downloads/windows/ beside this one.",
        "Copy its folders include and libs next to the python.exe that the program uses: an embedded or portable "
        "Python comes without them.",
        f"or those two folders out of python_{minor or '3.x'}.…_include_libs.zip: {_INCLUDE_AND_LIBS}",
        "Then delete %USERPROFILE%\\.triton\\cache and run again.",
    )


def _compiler_fix(facts: Facts) -> tuple[str, ...]:
    minor = minor_name(facts.python.version)
    if fixes.on_windows(facts):
        return ("Install the Visual Studio Build Tools with the C++ workload.",)
    if facts.python.kind == "conda":
        return ("conda install -y -c conda-forge gxx_linux-64",)
    if facts.python.prefix == "/usr/local" and facts.platform.system != "Darwin":
        return (
            "apt-get update && apt-get install -y build-essential   # this Python was compiled, as in images called "
            "python: it has its headers; as root, in a Dockerfile with RUN",
        )
    of_image = _in_image(facts, minor)
    if of_image:
        return of_image
    if facts.python.kind == "uv" or re.search(r"/\.pyenv/|/uv/python/", facts.python.executable or ""):
        return (system_packages.install(facts, "build-essential", dnf="gcc gcc-c++", pacman="base-devel"),)
    step = system_packages.install(
        facts,
        apt=f"build-essential python{minor or '3'}-dev",
        dnf=f"gcc gcc-c++ python{minor or '3'}-devel",
        pacman="base-devel python",
    )
    return (step.replace("sudo apt install", "sudo apt update && sudo apt install", 1),)


def _in_image(facts: Facts, minor: Optional[str]) -> tuple[str, ...]:
    """Images and rented machines: root without sudo and lists of packages that are empty, often another Python too.

    Their Python may not be the distribution's (python3-dev is of that one), so that its own number is asked for.
    """
    container = facts.platform.container in ("docker", "kubernetes") or facts.error("rented-machine", "image-path")
    if not container or not system_packages.by_apt(facts) or facts.platform.system == "Darwin":
        return ()
    number = minor or """$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')"""
    step = f"apt-get update && apt-get install -y build-essential python{number}-dev"
    return (f"{step}   # in the container, as root; in a Dockerfile with RUN",)


RULES: tuple[Rule, ...] = (compiler_missing,)
