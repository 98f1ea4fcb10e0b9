"""An AMD GPU that HSA_OVERRIDE_GFX_VERSION passes off as another one, though it has builds of its own."""

from __future__ import annotations

import re

from workbench.doctor import fixes
from workbench.doctor.facts import Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules import amd_windows
from workbench.doctor.rules.common import ALL_GPU_BENCHES, PASSED, Result, Rule, evidence, gpu_names, seen

_VARIABLE = "HSA_OVERRIDE_GFX_VERSION"
# Of these families the kernels of an older relative do not run, or run wrong.
_OF_THEIR_OWN = re.compile(r"gfx115[01]|gfx120[01]")
_BUILDS = "https://rocm.nightlies.amd.com/v2/"
_CRASHES = ("amd-gpu-memory-fault", "crash-in-compiled-code")


def passed_off(facts: Facts) -> Result:
    """The override names another family than that of the GPU, and the program crashes."""
    value = facts.environment.get(_VARIABLE, "")
    gfx = amd_windows.target(facts)
    error = facts.error(*_CRASHES)
    if error is None or gfx is None or not re.fullmatch(r"\d\d?\.\d\.\d", value) or not _OF_THEIR_OWN.fullmatch(gfx):
        return PASSED
    told = f"gfx{value.replace('.', '')}"
    if told[:-1] == gfx[:-1]:
        return PASSED
    index = f"--pre -U --index-url {_BUILDS}{amd_windows.index_of(gfx)}/"
    new = fixes.install(facts, "torch", "torchvision", "torchaudio", options=index)
    return [
        Finding(
            "amd-override-of-another-gpu",
            "error",
            f"{_VARIABLE}={value} makes the kernels of {told} run on {gfx}, which has builds of its own",
            "The variable is for cards without any build. The two differ in more than their names, and older releases "
            "of ROCm do not know this GPU at all.",
            {**evidence(gpus=gpu_names(facts), HSA_OVERRIDE_GFX_VERSION=value), **seen(error)},
            (
                f"unset {_VARIABLE}   # and out of ~/.bashrc, the compose file, the service",
                f"{new}   # brings its own ROCm, so that of the system plays no part",
                "Where it still faults: the system's updates, for the driver in the kernel and linux-firmware have to "
                "know this GPU too",
            ),
            "https://github.com/ROCm/TheRock/blob/main/RELEASES.md",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


RULES: tuple[Rule, ...] = (passed_off,)
