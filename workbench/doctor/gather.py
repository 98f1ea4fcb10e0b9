"""Gathering the facts of the interpreter we run in: what files tell first, what trying tells after. Stdlib only."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Optional

from workbench.doctor import installed, nvidia, system
from workbench.doctor.commands import Command
from workbench.doctor.environment import mask_text, relevant_environment
from workbench.doctor.facts import Facts, GpuFacts, ProbeStep
from workbench.doctor.interpreter import python_facts
from workbench.doctor.live import apply_step
from workbench.doctor.probing import run_probe
from workbench.job import SILENT, Job

COMMAND_LIMIT_SECONDS = 5.0
POLL_SECONDS = 0.01


def gather_light(job: Job = SILENT) -> Facts:
    """Facts from files and quick commands; imports nothing of the environment under examination.

    Takes well under a second unless nvidia-smi itself is slow; it is given `COMMAND_LIMIT_SECONDS`.

    Raises:
        JobCancelled: if the caller asked to stop.
    """
    environ = dict(os.environ)
    nvcc_path = shutil.which("nvcc")
    ldconfig_path = shutil.which("ldconfig") or "/sbin/ldconfig"
    commands = {
        "plain": Command("nvidia-smi"),
        "query": Command(*nvidia.QUERY),
        "capability": Command(*nvidia.CAPABILITY),
        "processes": Command(*nvidia.PROCESSES),
        "ldconfig": Command(ldconfig_path, "-p"),
        "nvcc": Command(nvcc_path or "nvcc", "--version"),
        "dmesg": Command("dmesg"),
    }
    deadline = time.monotonic() + COMMAND_LIMIT_SECONDS
    job.progress("files", 0, 2, "steps")
    machine = system.platform_facts(environ)
    path = list(sys.path)
    found = installed.distributions(path)
    packages = installed.packages_of(found)
    torch = installed.torch_facts(path, found)
    job.check()
    job.progress("commands", 1, 2, "steps")
    while any(command.running for command in commands.values()) and time.monotonic() < deadline:
        job.check()
        time.sleep(POLL_SECONDS)
    outputs = {name: command.finish(deadline) for name, command in commands.items()}
    driver = nvidia.driver_from(outputs["plain"], outputs["ldconfig"])
    gpus = nvidia.gpus_from(outputs["query"], outputs["capability"], outputs["processes"])
    job.check()
    bitsandbytes = installed.bitsandbytes_facts(path, found)
    absent = [name for name in installed.NOTABLE if name not in packages]
    return Facts(
        platform=replace(machine, xids=system.xids_in(outputs["dmesg"].text) if outputs["dmesg"].ok else None),
        python=python_facts(packages),
        torch=torch,
        driver=driver,
        toolkit=nvidia.toolkit_facts(outputs["nvcc"], nvcc_path, environ),
        bitsandbytes=bitsandbytes,
        gpus=gpus if gpus is not None else _no_gpus(machine.devices, driver.error),
        packages=packages,
        absent=tuple(name for name in absent if not (name == "torch" and torch.installed)),
        duplicates=installed.duplicates_of(found),
        conflicts=installed.conflicts_of(found),
        environment=relevant_environment(environ),
    )


def _no_gpus(devices: object, error: object) -> Optional[tuple[GpuFacts, ...]]:
    # Device nodes or a complaint mean there may be GPUs that we failed to list: that is "unknown", not "none".
    return None if devices or error else ()


def gather_live(
    facts: Facts,
    job: Job = SILENT,
    on_update: Callable[[Facts], None] = lambda facts: None,
    limit_seconds: float = 90.0,
) -> Facts:
    """`facts` completed by really importing and running things in child processes.

    A child that crashes or hangs costs at most `limit_seconds` a step and is itself a fact.

    Args:
        facts: what `gather_light` found.
        job: progress and cancellation.
        on_update: called with the completed facts after every step.
        limit_seconds: time that one step may take.

    Raises:
        JobCancelled: if the caller asked to stop; the child is gone by then.
    """
    current = facts

    def take(step: ProbeStep, data: dict[str, object]) -> None:
        nonlocal current
        masked = replace(step, detail=mask_text(step.detail), stderr=mask_text(step.stderr))
        current = apply_step(current, masked, data)
        on_update(current)

    run_probe(facts, job, take, limit_seconds)
    return current


def gather(
    job: Job = SILENT, on_update: Callable[[Facts], None] = lambda facts: None, limit_seconds: float = 90.0
) -> Facts:
    """`gather_light`, then `gather_live`."""
    facts = gather_light(job)
    on_update(facts)
    return gather_live(facts, job, on_update, limit_seconds)
