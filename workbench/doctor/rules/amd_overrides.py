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


def hidden_twice(facts: Facts) -> Result:
    """HIP_VISIBLE_DEVICES asks for a number that ROCR_VISIBLE_DEVICES has not left."""
    rocr, hip = facts.error("rocr-devices-told"), facts.error("hip-devices-told")
    error = facts.error("hip-no-gpus")
    if error is None or rocr is None or hip is None:
        return PASSED
    left, asked = rocr.values["devices"].strip(","), hip.values["devices"].strip(",")
    if all(int(number) < len(left.split(",")) for number in asked.split(",")):
        return PASSED
    return [
        Finding(
            "rocm-devices-hidden-twice",
            "error",
            f"HIP_VISIBLE_DEVICES={asked} counts within what ROCR_VISIBLE_DEVICES={left} leaves, and asks for a GPU "
            "that is not left",
            "The two are no synonyms: the runtime below HIP first shows only the GPUs that ROCR_VISIBLE_DEVICES names "
            "and numbers them from 0; HIP_VISIBLE_DEVICES chooses among those.",
            {**evidence(ROCR_VISIBLE_DEVICES=left, HIP_VISIBLE_DEVICES=asked), **seen(error)},
            (
                "unset ROCR_VISIBLE_DEVICES   # one of them is enough; programs that copy one to the other (Ray, "
                "Slurm's scripts): set neither, and CUDA_VISIBLE_DEVICES=" + asked + " in their place",
                f"or: export HIP_VISIBLE_DEVICES={','.join(map(str, range(len(left.split(',')))))}",
            ),
            "https://rocm.docs.amd.com/en/latest/conceptual/gpu-isolation.html",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def of_another_family(facts: Facts) -> Result:
    """The override names a family whose code this GPU does not run; it holds for every card that ROCm sees."""
    value = facts.environment.get(_VARIABLE, "")
    gfx = amd_windows.target(facts)
    error = facts.error("hip-no-binary", "invalid-device-function", "no-kernel-image")
    found = re.fullmatch(r"gfx(\d{1,2})[0-9a-f]{2}", gfx or "")
    if error is None or found is None or not re.fullmatch(r"\d\d?\.\d\.\d", value):
        return PASSED
    if value.split(".")[0] == found[1]:
        return PASSED
    return [
        Finding(
            "amd-override-of-another-gpu",
            "error",
            f"{_VARIABLE}={value} holds for every AMD GPU that ROCm sees, and {gfx} runs no code of that family",
            "The variable has no card: with several of different families the kernels of one are sent to the others "
            "too.",
            {**evidence(gpus=gpu_names(facts), HSA_OVERRIDE_GFX_VERSION=value), **seen(error)},
            (
                "export ROCR_VISIBLE_DEVICES=<number of the card that the override is for>   # in rocminfo's order, "
                "from 0, processors left out; then HIP_VISIBLE_DEVICES=0: it is the only one left",
                f"unset {_VARIABLE}   # where {gfx} is the card to use",
            ),
            "https://rocm.docs.amd.com/en/latest/conceptual/gpu-isolation.html",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


RULES: tuple[Rule, ...] = (passed_off, of_another_family, hidden_twice)
