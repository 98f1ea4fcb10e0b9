"""Rules about laptops with two GPUs, of which the NVIDIA one is switched off until it is asked for."""

from __future__ import annotations

from workbench.doctor import fixes
from workbench.doctor.facts import Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ALL_GPU_BENCHES, PASSED, Result, Rule, evidence, gpu_names, seen

_BLIND = (
    "cuda-unknown-error",
    "no-cuda-gpus",
    "no-nvidia-driver",
    "smi-cannot-communicate",
    "driver-lists-no-gpu",
    "nvidia-module-missing",
    "needs-gpu",
    "gpu-driver-lost-its-way",
    "cuinit-not-initialized",
)
# https://wiki.archlinux.org/title/NVIDIA_Optimus
_SWITCH = {
    "optirun": "optirun python -c 'import torch; print(torch.cuda.is_available())'   # True: put optirun before the "
    "program's own command; Bumblebee switches the GPU on for that command alone",
    "prime-select": "sudo prime-select nvidia && sudo reboot   # on-demand does too: sudo prime-select on-demand",
    "system76-power": "sudo system76-power graphics nvidia && sudo reboot   # or: graphics hybrid",
    "envycontrol": "sudo envycontrol -s hybrid && sudo reboot   # or: -s nvidia",
    "supergfxctl": "supergfxctl --mode Hybrid   # then log out and in",
    "optimus-manager": "optimus-manager --switch hybrid   # then log out and in",
}
_SAME = {"primusrun": "optirun", "bumblebee": "optirun", "bbswitch": "optirun", "prime select": "prime-select"}


def gpu_asleep(facts: Facts) -> Result:
    """CUDA finds no GPU on a laptop whose switch is told to stand at the other one."""
    told = facts.error("optimus-told")
    blind = facts.error(*_BLIND)
    if told is None or (blind is None and facts.torch.cuda_available is not False):
        return PASSED
    if fixes.on_windows(facts) or facts.platform.wsl or facts.platform.container:
        return PASSED
    tool = next((told.values[name].lower() for name in ("tool", "set") if told.values.get(name)), "")
    return [
        Finding(
            "optimus-gpu-asleep",
            "error",
            "The laptop's NVIDIA GPU is switched off: CUDA starts only where it is asked for",
            "With Bumblebee, or with the switch at the processor's graphics, the NVIDIA card has no power and its "
            "module no device.",
            {**evidence(gpus=gpu_names(facts)), **seen(told)},
            (
                _SWITCH.get(_SAME.get(tool, tool), _SWITCH["prime-select"]),
                "nvidia-smi   # must list the card then; cat /proc/driver/nvidia/version",
            ),
            "https://wiki.archlinux.org/title/NVIDIA_Optimus",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


RULES: tuple[Rule, ...] = (gpu_asleep,)
