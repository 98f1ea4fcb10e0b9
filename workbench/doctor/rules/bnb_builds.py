"""Rules about builds of bitsandbytes that are not its project's own."""

from __future__ import annotations

from workbench.doctor import fixes
from workbench.doctor.facts import Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.bnb_library import QUANTIZED
from workbench.doctor.rules.common import PASSED, Result, Rule, evidence, seen

_FORK = "bitsandbytes-windows"
_FAILED = (
    "bnb-setup-failed",
    "bnb-no-gpu-support",
    "bnb-str2optimizer",
    "bnb-library-not-found",
    "bnb-required-cpu",
)


def hidden_by_fork(facts: Facts) -> Result:
    """bitsandbytes-windows, which unpacks its old files into the folder of bitsandbytes itself."""
    version, told = facts.package(_FORK), facts.error("bnb-unofficial-build")
    failed = facts.error(*_FAILED)
    if failed is None and facts.probe("bitsandbytes") is None:
        return None if version is None else PASSED
    if (version is None and told is None) or facts.bitsandbytes.works or (failed is None and facts.origin == "report"):
        return PASSED
    own = facts.bitsandbytes.version
    return [
        Finding(
            "bnb-hidden-by-fork",
            "error",
            f"{_FORK}{f' {version}' if version else ''} lies over bitsandbytes{f' {own}' if own and version else ''}: "
            "what is imported are its old files, with libraries for Windows and CUDA 11 only",
            "It is somebody's build from before bitsandbytes had wheels for Windows (0.43), and unpacks into the same "
            "folder. Some programs and managers of plug-ins install it on every system.",
            {**evidence(bitsandbytes=own, **{"bitsandbytes_windows": version}), **seen(told or failed)},
            (
                f"{fixes.uninstall(facts, _FORK, 'bitsandbytes')} && "
                + fixes.install(facts, "bitsandbytes", upgrade=True),
                "bitsandbytes-windows out of the requirements of the program and its plug-ins, or they bring it back",
            ),
            "https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1918",
            affects=QUANTIZED,
            observed=True,
        )
    ]


RULES: tuple[Rule, ...] = (hidden_by_fork,)
