"""From facts to a diagnosis: every rule, root causes first, consequences named as such."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Optional

from workbench.doctor.causes import CAUSES, ENDS_BEFORE_THE_GPU, ONLY_WARNED_OF, SILENCED_BY
from workbench.doctor.derive import derive
from workbench.doctor.facts import Facts
from workbench.doctor.findings import SEVERITIES, Finding
from workbench.doctor.rules import (
    accelerate,
    amd_overrides,
    amd_windows,
    ascend,
    bitsandbytes,
    bnb_builds,
    bnb_library,
    bnb_platforms,
    bnb_runtime,
    build_tools,
    building,
    c_compiler,
    cmake,
    commands,
    compilers,
    containers,
    crashes,
    cxx,
    device_numbers,
    distributed,
    driver,
    extensions,
    flash_attn,
    glibc,
    gpu_kernels,
    gpu_modes,
    gpu_start,
    hanging,
    headers,
    held_memory,
    hidden_gpus,
    hub,
    hub_network,
    huggingface,
    intel,
    interpreter,
    libcuda,
    libcuda_refused,
    library_imports,
    llama_cpp,
    model_files,
    model_types,
    notebooks,
    numpy_abi,
    numpy_files,
    nvidia_wheels,
    offered,
    ollama,
    optimus,
    other_runtimes,
    outside_copies,
    own_files,
    pairs,
    pins,
    plain,
    platforms,
    processor,
    programs,
    requirements,
    resolutions,
    runtime,
    silent_imports,
    successors,
    toolchain,
    torch_copies,
    torch_gpu,
    torch_install,
    torch_pairs,
    torch_vendor,
    uvm,
    vgpu,
    vllm,
    wheel_files,
    wsl,
    xformers,
)
from workbench.doctor.rules.last import unexplained
from workbench.doctor.typed_steps import in_environment

RULES = (
    *own_files.RULES,
    *outside_copies.RULES,
    *driver.RULES,
    *libcuda_refused.RULES,
    *gpu_start.RULES,
    *uvm.RULES,
    *optimus.RULES,
    *vgpu.RULES,
    *notebooks.RULES,
    *wsl.RULES,
    *containers.RULES,
    *libcuda.RULES,
    *gpu_modes.RULES,
    *hidden_gpus.RULES,
    *held_memory.RULES,
    *platforms.RULES,
    *wheel_files.RULES,
    *successors.RULES,
    *offered.RULES,
    *resolutions.RULES,
    *torch_install.RULES,
    *glibc.RULES,
    *torch_copies.RULES,
    *amd_windows.RULES,
    *ascend.RULES,
    *amd_overrides.RULES,
    *torch_vendor.RULES,
    *intel.RULES,
    *interpreter.RULES,
    *torch_gpu.RULES,
    *gpu_kernels.RULES,
    *crashes.RULES,
    *cxx.RULES,
    *nvidia_wheels.RULES,
    *numpy_abi.RULES,
    *torch_pairs.RULES,
    *flash_attn.RULES,
    *extensions.RULES,
    *vllm.RULES,
    *xformers.RULES,
    *programs.RULES,
    *silent_imports.RULES,
    *other_runtimes.RULES,
    *toolchain.RULES,
    *c_compiler.RULES,
    *build_tools.RULES,
    *headers.RULES,
    *cmake.RULES,
    *compilers.RULES,
    *processor.RULES,
    *building.RULES,
    *bnb_builds.RULES,
    *bnb_library.RULES,
    *bnb_runtime.RULES,
    *bnb_platforms.RULES,
    *bitsandbytes.RULES,
    *numpy_files.RULES,
    *huggingface.RULES,
    *pins.RULES,
    *accelerate.RULES,
    *library_imports.RULES,
    *requirements.RULES,
    *model_types.RULES,
    *hub_network.RULES,
    *hub.RULES,
    *model_files.RULES,
    *commands.RULES,
    *runtime.RULES,
    *distributed.RULES,
    *device_numbers.RULES,
    *llama_cpp.RULES,
    *ollama.RULES,
    *plain.RULES,
    *pairs.RULES,
    *hanging.RULES,
)


@dataclass(frozen=True)
class Report:
    """A diagnosis."""

    facts: Facts
    findings: tuple[Finding, ...]
    verdict: str
    """``healthy``, ``degraded`` (warnings) or ``broken`` (errors)."""
    passed: int
    """Rules that had their facts and found nothing wrong."""
    unknown: int
    """Rules that could not judge for want of facts."""


def diagnose(facts: Facts) -> Report:
    """Run every rule over the facts and order what they found.

    A rule never fires on an unknown fact; what was seen working outranks what versions say.

    Raises:
        WorkbenchError: ``missing-package`` where this interpreter cannot read the tables (TOML).
    """
    known = derive(facts)
    found: dict[str, Finding] = {}
    passed = unknown = 0
    for rule in RULES:
        result = rule(known)
        if result is None:
            unknown += 1
        elif not result:
            passed += 1
        for finding in result or ():
            found.setdefault(finding.id, replace(finding, fix=in_environment(known, finding.fix)))
    for finding in unexplained(known, found.values()):
        found.setdefault(finding.id, replace(finding, fix=in_environment(known, finding.fix)))
    findings = _ordered(_linked(list(found.values())), known)
    return Report(known, tuple(findings), verdict_of(findings), passed, unknown)


def verdict_of(findings: Sequence[Finding]) -> str:
    """``broken`` where something is an error, ``degraded`` where something is a warning, else ``healthy``."""
    severities = {finding.severity for finding in findings}
    return "broken" if "error" in severities else "degraded" if "warning" in severities else "healthy"


def _linked(findings: list[Finding]) -> list[Finding]:
    """Name the cause of each consequence; drop what only repeats its cause."""
    present = {finding.id: finding for finding in findings}
    kept = [
        finding
        for finding in findings
        if not any(_outweighs(present.get(cause), finding) for cause in SILENCED_BY.get(finding.id, ()))
    ]
    present = {finding.id: finding for finding in kept}
    return [replace(finding, caused_by=_cause(finding, present)) for finding in kept]


def _outweighs(cause: Optional[Finding], finding: Finding) -> bool:
    return cause is not None and SEVERITIES.index(cause.severity) <= SEVERITIES.index(finding.severity)


def _cause(finding: Finding, present: dict[str, Finding]) -> Optional[str]:
    for cause in CAUSES.get(finding.id, ()):
        if cause != finding.id and _outweighs(present.get(cause), finding):
            return cause
    return None


def _ordered(findings: list[Finding], facts: Facts) -> list[Finding]:
    """Most serious first; a root cause before what follows from it; what was seen before what was concluded."""
    depth = _depths(findings)
    rank = {finding.id: number for number, finding in enumerate(findings)}
    waiting = _only_warned_of(findings, facts)
    return sorted(
        findings,
        key=lambda item: (
            SEVERITIES.index(item.severity),
            depth[item.id],
            not item.observed,
            item.id in waiting,
            rank[item.id],
        ),
    )


def _only_warned_of(findings: list[Finding], facts: Facts) -> set[str]:
    """What is still to come where the program ended before it: mended first, the same end would be met again."""
    if not any(finding.id in ENDS_BEFORE_THE_GPU and finding.observed for finding in findings):
        return set()
    return {id for id, stops in ONLY_WARNED_OF.items() if facts.error(*stops) is None}


def _depths(findings: list[Finding]) -> dict[str, int]:
    causes = {finding.id: finding.caused_by for finding in findings}
    depths = {}
    for finding in findings:
        depth, current = 0, finding.caused_by
        while current is not None and depth < 10:
            depth, current = depth + 1, causes.get(current)
        depths[finding.id] = depth
    return depths
