"""Gathering the facts of an interpreter: what files tell first, what trying tells after. Stdlib only."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Optional

from workbench.doctor import installed, nvidia, system
from workbench.doctor.amd import amd_gpus
from workbench.doctor.child import Limits
from workbench.doctor.commands import Command, Output
from workbench.doctor.environment import child_environment, mask_text, relevant_environment
from workbench.doctor.environments import old_interpreter, package_folders
from workbench.doctor.facts import Facts, GpuFacts, ProbeStep, PythonFacts
from workbench.doctor.interpreter import module_path, python_facts
from workbench.doctor.live import apply_step
from workbench.doctor.probing import run_probe
from workbench.job import SILENT, Job

COMMAND_LIMIT_SECONDS = 5.0
POLL_SECONDS = 0.01
LIMITS = Limits(total_seconds=60.0, idle_seconds=15.0)
"""A cold torch on a slow disk keeps reading for most of a minute; one that does nothing for 15 s does not come."""


def gather_light(job: Job = SILENT, environ: Optional[Mapping[str, str]] = None) -> Facts:
    """Facts from files and quick commands; imports nothing of the environment under examination.

    Takes well under a second unless nvidia-smi itself is slow; it is given `COMMAND_LIMIT_SECONDS`.

    Args:
        job: progress and cancellation.
        environ: the client's environment as `workbench.doctor.environment.carried_environment` gives it; this
            process's own if None.

    Raises:
        JobCancelled: if the caller asked to stop.
    """
    return _gather(job, environ, module_path(environ), python_facts)


def gather_files(python: str, job: Job = SILENT, environ: Optional[Mapping[str, str]] = None) -> Facts:
    """The same of an interpreter too old to run the workbench: what the files beside it tell, with nothing run.

    Args:
        python: path of the interpreter.
        job: progress and cancellation.
        environ: as for `gather_light`.

    Raises:
        JobCancelled: if the caller asked to stop.
    """
    prefix, facts = old_interpreter(python)
    found = _gather(job, environ, package_folders(prefix, python), lambda packages: facts(packages.get("pip", "")))
    # What a package requires may hang on the version of Python, and that of this process is another one.
    return replace(found, conflicts=None)


def _gather(
    job: Job,
    environ: Optional[Mapping[str, str]],
    path: list[str],
    python: Callable[[dict[str, str]], PythonFacts],
) -> Facts:
    surroundings = dict(os.environ) if environ is None else child_environment(environ)
    nvcc_path = shutil.which("nvcc", path=surroundings.get("PATH"))
    commands = _commands(nvcc_path, surroundings)
    deadline = time.monotonic() + COMMAND_LIMIT_SECONDS
    job.progress("files", 0, 2, "steps")
    machine = system.platform_facts(surroundings)
    found = installed.distributions(path)
    packages = installed.packages_of(found)
    torch = installed.torch_facts(path, found)
    job.check()
    job.progress("commands", 1, 2, "steps")
    outputs = _collected(commands, deadline, job)
    driver = nvidia.driver_from(outputs["plain"], outputs["ldconfig"])
    gpus = nvidia.gpus_from(outputs["query"], outputs["capability"], outputs["processes"])
    if gpus is None and "nvidia" not in (machine.gpu_vendors or ()):
        gpus = amd_gpus() or None
    job.check()
    absent = [name for name in installed.NOTABLE if name not in packages]
    return Facts(
        platform=replace(machine, xids=system.xids_in(outputs["dmesg"].text) if outputs["dmesg"].ok else None),
        python=python(packages),
        torch=torch,
        driver=driver,
        toolkit=nvidia.toolkit_facts(outputs["nvcc"], nvcc_path, surroundings),
        bitsandbytes=installed.bitsandbytes_facts(path, found),
        gpus=gpus if gpus is not None else _no_gpus(machine.devices, driver.error),
        packages=packages,
        absent=tuple(name for name in absent if not (name == "torch" and torch.installed)),
        duplicates=installed.duplicates_of(found),
        conflicts=installed.conflicts_of(found),
        environment=relevant_environment(os.environ if environ is None else environ),
    )


def _commands(nvcc_path: Optional[str], environ: Mapping[str, str]) -> dict[str, Command]:
    ldconfig_path = shutil.which("ldconfig", path=environ.get("PATH")) or "/sbin/ldconfig"
    arguments: dict[str, tuple[str, ...]] = {
        "plain": ("nvidia-smi",),
        "query": nvidia.QUERY,
        "capability": nvidia.CAPABILITY,
        "processes": nvidia.PROCESSES,
        "ldconfig": (ldconfig_path, "-p"),
        "nvcc": (nvcc_path or "nvcc", "--version"),
        "dmesg": ("dmesg",),
    }
    return {name: Command(*words, environ=environ) for name, words in arguments.items()}


def _collected(commands: dict[str, Command], deadline: float, job: Job) -> dict[str, Output]:
    while any(command.running for command in commands.values()) and time.monotonic() < deadline:
        job.check()
        time.sleep(POLL_SECONDS)
    return {name: command.finish(deadline) for name, command in commands.items()}


def _no_gpus(devices: object, error: object) -> Optional[tuple[GpuFacts, ...]]:
    # Device nodes or a complaint mean there may be GPUs that we failed to list: that is "unknown", not "none".
    return None if devices or error else ()


def gather_live(
    facts: Facts,
    job: Job = SILENT,
    on_update: Callable[[Facts], None] = lambda facts: None,
    limits: Limits = LIMITS,
    environ: Optional[Mapping[str, str]] = None,
) -> Facts:
    """`facts` completed by really importing and running things in child processes.

    A child that crashes or hangs costs at most `limits` a step and is itself a fact.

    Args:
        facts: what `gather_light` found.
        job: progress and cancellation.
        on_update: called with the completed facts after every step.
        limits: time that one step may take.
        environ: as for `gather_light`.

    Raises:
        JobCancelled: if the caller asked to stop; the child is gone by then.
    """
    current = facts

    def take(step: ProbeStep, data: dict[str, object]) -> None:
        nonlocal current
        masked = replace(step, detail=mask_text(step.detail), stderr=mask_text(step.stderr))
        current = apply_step(current, masked, data)
        on_update(current)

    run_probe(facts, job, take, limits, None if environ is None else child_environment(environ))
    return current


def gather(
    job: Job = SILENT,
    on_update: Callable[[Facts], None] = lambda facts: None,
    limits: Limits = LIMITS,
    environ: Optional[Mapping[str, str]] = None,
) -> Facts:
    """`gather_light`, then `gather_live`."""
    facts = gather_light(job, environ)
    on_update(facts)
    return gather_live(facts, job, on_update, limits, environ)
