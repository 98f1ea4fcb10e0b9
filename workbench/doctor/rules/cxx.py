"""A rule about the C++ library: the one that is loaded is older than a compiled package wants."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ISSUES, Result, Rule, evidence, from_message, seen
from workbench.doctor.versions import at_least

# GCC whose libstdc++ first had a version of the symbols: https://gcc.gnu.org/onlinedocs/libstdc++/manual/abi.html
_GCC = {
    **{"GLIBCXX_3.4.20": "4.9", "GLIBCXX_3.4.21": "5", "GLIBCXX_3.4.22": "6", "GLIBCXX_3.4.23": "7"},
    **{"GLIBCXX_3.4.24": "7.2", "GLIBCXX_3.4.25": "8", "GLIBCXX_3.4.26": "9", "GLIBCXX_3.4.27": "9.2"},
    **{"GLIBCXX_3.4.28": "9.3", "GLIBCXX_3.4.29": "11", "GLIBCXX_3.4.30": "12", "GLIBCXX_3.4.31": "13"},
    **{"GLIBCXX_3.4.32": "13.2", "GLIBCXX_3.4.33": "14", "GLIBCXX_3.4.34": "15", "CXXABI_1.3.8": "4.9"},
    **{"CXXABI_1.3.9": "5", "CXXABI_1.3.10": "6", "CXXABI_1.3.11": "7", "CXXABI_1.3.12": "9", "CXXABI_1.3.13": "11"},
    **{"CXXABI_1.3.14": "13", "CXXABI_1.3.15": "14", "CXXABI_1.3.16": "15"},
}


# A library in conda's own lib folder, which a compiled module has led to.
_OF_CONDA = re.compile(
    r"required by [^)\n]{0,300}(?:/\.{2}/\.{1,2}/|conda\d?/lib/|/envs/[^/)\n]{1,60}/lib/)lib[\w+-]{1,40}\.so"
)


def libstdcxx_too_old(facts: Facts) -> Result:
    """A compiled package wants a newer libstdc++ than the one that the loader finds first."""

    def make(error: ErrorFact) -> Finding:
        symbol = error.values.get("symbol", "")
        gcc = _GCC.get(symbol)
        return Finding(
            "libstdcxx-too-old",
            "error",
            f"The C++ library that is loaded is too old ({symbol})",
            "A compiled package wants a newer libstdc++ than the one found first: conda's own in its lib directory, or "
            "an old system's."
            + (f" {symbol} came with GCC {gcc}; installing a compiler alone changes nothing." if gcc else ""),
            {**evidence(found=error.values.get("found"), needed_by=error.values.get("asker")), **seen(error)},
            _steps(facts, error, gcc),
            ISSUES + "pytorch/pytorch/issues/111202",
            affects=("chat", "architecture", "vram"),
            observed=True,
        )

    return from_message(facts, ("libstdcxx",), make)


def _steps(facts: Facts, error: ErrorFact, gcc: Optional[str]) -> tuple[str, ...]:
    found = error.values.get("found", "")
    conda = (
        facts.python.kind == "conda"
        or facts.error("conda-environment-told")
        or any(mark in error.text for mark in ("conda", "/envs/"))
    )
    told = facts.error("conda-environment-told") is not None
    own = any(mark in found for mark in ("conda", "/envs/", "mamba")) or (told and not found.startswith("/"))
    newer = "conda install -y -c conda-forge 'libstdcxx-ng>=13'"
    if own:
        return (newer, "or the system's, where it is newer: export LD_PRELOAD=/usr/lib/x86_64-linux-gnu/libstdc++.so.6")
    if conda:
        first = "export LD_LIBRARY_PATH=$CONDA_PREFIX/lib:$LD_LIBRARY_PATH"
        # Conda's own is there, and newer than the symbol, or what asks came with it: the loader has to meet it first.
        if (gcc and at_least("9.2", gcc)) or _OF_CONDA.search(error.text):
            return (f"{first}   # conda's own, which is newer, before the system's", f"it stays: {newer}")
        return (newer, f"{first}   # so that it comes before the system's")
    wanted = f"libstdc++ of GCC {gcc} or newer" if gcc else "a newer libstdc++"
    asker = error.values.get("asker", "")
    by_conda = (
        "conda create -y -p ~/libstdcxx -c conda-forge 'libstdcxx-ng>=13' && export "
        "LD_LIBRARY_PATH=~/libstdcxx/lib:$LD_LIBRARY_PATH"
    )
    of_a_module = "on a cluster: module avail gcc, and module load of one that is new enough, in the job too"
    if re.search(r"centos|red hat|rhel|rocky|alma|scientific|suse", facts.platform.os or "", re.I):
        return (*_rebuilt(facts, asker, error.values.get("symbol", "")), by_conda, of_a_module)
    return (
        *_rebuilt(facts, asker, error.values.get("symbol", "")),
        "Ubuntu: sudo add-apt-repository -y ppa:ubuntu-toolchain-r/test && sudo apt update && sudo apt install -y "
        f"--only-upgrade libstdc++6   # {wanted}, beside the compiler that is here",
        f"elsewhere, and without root: {by_conda}",
        f"or a release of {asker or 'the package'} that was built on an older system, or a newer system or container.",
    )


def _rebuilt(facts: Facts, asker: str, symbol: str) -> tuple[str, ...]:
    """The release that was built anew because of this."""
    if (asker, symbol) == ("bitsandbytes", "GLIBCXX_3.4.32") and facts.bitsandbytes.version in (None, "0.46.0"):
        # https://github.com/bitsandbytes-foundation/bitsandbytes/releases/tag/0.46.1
        return (
            fixes.install(facts, "bitsandbytes!=0.46.0", upgrade=True) + "   # 0.46.1 was built anew for older systems",
        )
    return ()


RULES: tuple[Rule, ...] = (libstdcxx_too_old,)
