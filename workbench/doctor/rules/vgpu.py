"""Rules about virtual GPUs (vGPU, GRID), which compute only with a licence."""

from __future__ import annotations

from workbench.doctor.facts import Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ALL_GPU_BENCHES, PASSED, Result, Rule, evidence, gpu_names, seen


def vgpu_without_licence(facts: Facts) -> Result:
    """A virtual GPU that says it has no licence, or refuses every process as one does."""
    unlicensed = facts.error("vgpu-unlicensed")
    guest = facts.error("vgpu-guest")
    refused = facts.error("devices-busy") if guest else None
    error = unlicensed or refused
    if error is None:
        return PASSED
    return [
        Finding(
            "vgpu-without-licence",
            "error",
            "The virtual GPU (vGPU) has no licence" + ("" if unlicensed else ", most likely"),
            "Without one, or when it has run out, a vGPU slows down after some minutes and then refuses CUDA with "
            "'busy or "
            "unavailable', while nvidia-smi still shows it idle. The driver asks a licence server through "
            "nvidia-gridd.",
            {**evidence(gpus=gpu_names(facts), vgpu=guest.text[:120] if guest else None), **seen(error)},
            (
                "nvidia-smi -q | grep -i -A 2 licen   # in the virtual machine, not the container: 'Licensed' is what "
                "it must say",
                "sudo systemctl restart nvidia-gridd; sudo journalctl -u nvidia-gridd | tail   # names what is "
                "missing: the "
                "token in /etc/nvidia/ClientConfigToken, FeatureType in /etc/nvidia/gridd.conf, the way to the server",
                "Azure (NVads A10 v5): the GRID driver of Azure's own extension, which brings its licence; elsewhere "
                "ask who "
                "runs the machine",
            ),
            "https://docs.nvidia.com/vgpu/latest/grid-licensing-user-guide/",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


RULES: tuple[Rule, ...] = (vgpu_without_licence,)
