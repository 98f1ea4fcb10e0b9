"""Folding what a probe step has seen into the facts. Stdlib only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Optional

from workbench.doctor.facts import Facts, GpuFacts, ProbeStep

Data = dict[str, Any]


def apply_step(facts: Facts, step: ProbeStep, data: Data) -> Facts:
    """`facts` with one more probe step and what it found."""
    facts = replace(facts, probes=(*(p for p in facts.probes if p.step != step.step), step))
    fold = _FOLDS.get(step.step)
    return fold(facts, step, data) if fold else facts


def _trouble(step: ProbeStep) -> Optional[str]:
    return None if step.status in ("passed", "skipped") else step.detail or step.status


def _torch(facts: Facts, step: ProbeStep, data: Data) -> Facts:
    torch = replace(facts.torch, import_error=_trouble(step))
    if step.status == "passed":
        build = "cuda" if data.get("cuda") else "rocm" if data.get("hip") else "mps" if data.get("mps") else None
        torch = replace(
            torch,
            version=data.get("version") or torch.version,
            location=data.get("location") or torch.location,
            cuda=data.get("cuda"),
            hip=data.get("hip"),
            build=build or torch.build or "cpu",
            arch_list=tuple(data.get("arch_list") or ()),
            cxx11_abi=data.get("cxx11_abi"),
            import_seconds=data.get("import_seconds"),
        )
    return replace(facts, torch=torch)


def _cuda(facts: Facts, step: ProbeStep, data: Data) -> Facts:
    torch = replace(
        facts.torch,
        cuda_available=data.get("cuda_available", False if _trouble(step) else None),
        device_count=data.get("device_count"),
        cuda_error=data.get("cuda_error") or _trouble(step),
        cudnn=data.get("cudnn"),
    )
    return replace(facts, torch=torch, gpus=_merge_gpus(facts, list(data.get("devices") or ())))


def _merge_gpus(facts: Facts, devices: list[Data]) -> Optional[tuple[GpuFacts, ...]]:
    """Add what torch saw to the GPUs that nvidia-smi listed, matched by UUID, then by name."""
    if not devices:
        return facts.gpus
    vendor = "amd" if facts.torch.hip else "nvidia"
    if not facts.gpus:
        return tuple(
            GpuFacts(
                index=index,
                name=device.get("name"),
                vendor=vendor,
                compute_capability=device.get("compute_capability"),
                memory_bytes=device.get("memory_bytes"),
                uuid=device.get("uuid") or None,
            )
            for index, device in enumerate(devices)
        )
    if len(facts.gpus) == len(devices) and not any(gpu.name for gpu in facts.gpus):
        # The kernel's list for ROCm has no names; it stands in torch's order.
        return tuple(replace(gpu, name=device.get("name")) for gpu, device in zip(facts.gpus, devices))
    return tuple(_with_capability(gpu, devices) for gpu in facts.gpus)


def _with_capability(gpu: GpuFacts, devices: list[Data]) -> GpuFacts:
    for device in devices:
        same = device.get("uuid") and gpu.uuid and gpu.uuid.endswith(str(device["uuid"]))
        if same or device.get("name") == gpu.name:
            return replace(gpu, compute_capability=device.get("compute_capability") or gpu.compute_capability)
    return gpu


def _kernel(facts: Facts, step: ProbeStep, data: Data) -> Facts:
    # Without a GPU the step only checks the CPU, which says nothing about kernels.
    on_gpu = data.get("device") == "cuda" or bool(facts.torch.cuda_available)
    ok = data.get("kernel_ok", False if _trouble(step) else None) if on_gpu else None
    return replace(facts, torch=replace(facts.torch, kernel_ok=ok))


def _bitsandbytes(facts: Facts, step: ProbeStep, data: Data) -> Facts:
    found = replace(
        facts.bitsandbytes,
        version=data.get("version") or facts.bitsandbytes.version,
        backend=data.get("backend"),
        library=data.get("library"),
        load_error=data.get("load_error") or _trouble(step),
        works=data.get("works", False if _trouble(step) else None),
    )
    return replace(facts, bitsandbytes=found)


_FOLDS: dict[str, Callable[[Facts, ProbeStep, Data], Facts]] = {
    "torch": _torch,
    "cuda": _cuda,
    "kernel": _kernel,
    "bitsandbytes": _bitsandbytes,
}
