"""The NVIDIA driver and its GPUs as nvidia-smi, the loader and /proc show them. Stdlib only."""

from __future__ import annotations

import contextlib
import csv
import glob
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Optional

from workbench.doctor.commands import Output
from workbench.doctor.facts import DriverFacts, GpuFacts, GpuProcess, ToolkitFacts
from workbench.doctor.parse import nvidia_smi
from workbench.doctor.parse.draft import Draft
from workbench.doctor.system import read_text

# Fields every driver since the 450 branch knows; compute_cap came with the 510 branch, so it is asked apart.
FIELDS = (
    "index,name,uuid,memory.total,memory.used,utilization.gpu,temperature.gpu,power.draw,power.limit,"
    "pcie.link.gen.current,pcie.link.width.current,mig.mode.current,compute_mode,"
    "ecc.errors.uncorrected.volatile.total,driver_version"
)
QUERY = ("nvidia-smi", f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits")
CAPABILITY = ("nvidia-smi", "--query-gpu=index,compute_cap", "--format=csv,noheader,nounits")
PROCESSES = (
    "nvidia-smi",
    "--query-compute-apps=gpu_uuid,pid,process_name,used_memory",
    "--format=csv,noheader,nounits",
)
_LIBRARY_VERSION = re.compile(r"\.so\.(\d{3}\.\d{2,3}(?:\.\d{2,3})?)$")
_KERNEL_MODULE = re.compile(r"Kernel Module\s+(?:for \S+\s+)?(\d{3}\.[\d.]+)")


def _rows(output: Output) -> list[list[str]]:
    if not output.ok:
        return []
    return [[cell.strip() for cell in row] for row in csv.reader(output.text.splitlines()) if row]


def _number(text: str) -> Optional[float]:
    try:
        return float(text)
    except ValueError:
        return None


def _whole(text: str) -> Optional[int]:
    number = _number(text)
    return None if number is None else int(number)


def _mib(text: str) -> Optional[int]:
    number = _whole(text)
    return None if number is None else number * 2**20


def gpus_from(query: Output, capability: Output, processes: Output) -> Optional[tuple[GpuFacts, ...]]:
    """The GPUs that nvidia-smi's queries list, or None when they gave nothing."""
    capabilities = {row[0]: row[1] for row in _rows(capability) if len(row) == 2}
    holders: dict[str, list[GpuProcess]] = {}
    for row in _rows(processes):
        if len(row) >= 4:
            name = ", ".join(row[2:-1])
            holders.setdefault(row[0], []).append(GpuProcess(_whole(row[1]), name, _mib(row[-1])))
    gpus = []
    for row in _rows(query):
        if len(row) != len(FIELDS.split(",")):
            continue
        found = capabilities.get(row[0], "")
        gpus.append(
            GpuFacts(
                index=_whole(row[0]),
                name=row[1],
                vendor="nvidia",
                uuid=row[2],
                memory_bytes=_mib(row[3]),
                memory_used_bytes=_mib(row[4]),
                utilization_percent=_number(row[5]),
                temperature_celsius=_number(row[6]),
                power_watts=_number(row[7]),
                power_limit_watts=_number(row[8]),
                pcie_generation=_whole(row[9]),
                pcie_width=_whole(row[10]),
                mig={"Enabled": True, "Disabled": False}.get(row[11]),
                compute_mode=row[12] or None,
                ecc_uncorrected=_whole(row[13]),
                compute_capability=found if re.fullmatch(r"\d{1,2}\.\d", found) else None,
                processes=tuple(holders.get(row[2], ())) if processes.ok else None,
            )
        )
    return tuple(gpus) or None


def driver_from(plain: Output, ldconfig: Output) -> DriverFacts:
    """Driver facts from nvidia-smi's banner or complaint, /proc, and the loader's cache."""
    kernel = _KERNEL_MODULE.search(read_text("/proc/driver/nvidia/version") or "")
    libcuda, library = library_from(ldconfig)
    facts = DriverFacts(
        kernel_module=kernel[1] if kernel else None,
        version=kernel[1] if kernel else None,
        library=library,
        libcuda=libcuda,
        smi=plain.code is not None or plain.timed_out,
    )
    if plain.timed_out:
        return replace(facts, error="nvidia-smi did not answer in time")
    if plain.ok:
        draft = Draft()
        nvidia_smi.read(plain.text.splitlines(), draft)
        said: dict[str, Any] = draft.driver
        return replace(
            facts, version=said.get("version") or facts.version, cuda=said.get("cuda"), error=said.get("error")
        )
    if plain.code is None:
        return facts
    complaint = " ".join(plain.text.split())[:300]
    return replace(facts, error=complaint or f"nvidia-smi ended with code {plain.code}")


def library_from(ldconfig: Output) -> tuple[Optional[str], Optional[str]]:
    """Path and version of the libcuda that the loader knows; path ``""`` when it knows none."""
    if not ldconfig.ok:
        return None, None
    match = re.search(r"libcuda\.so\.1 \([^)]*\) => (\S+)", ldconfig.text)
    if match is None:
        return "", None
    folder = os.path.dirname(os.path.realpath(match[1]))
    for path in (os.path.realpath(match[1]), *sorted(glob.glob(os.path.join(folder, "libnvidia-ml.so.*")))):
        version = _LIBRARY_VERSION.search(path)
        if version:
            return match[1], version[1]
    return match[1], None


def toolkit_facts(nvcc: Output, nvcc_path: Optional[str], environ: Mapping[str, str]) -> ToolkitFacts:
    """Toolkits on PATH, in CUDA_HOME and under /usr/local, and compatibility libraries on the library path."""
    release = re.search(r"release (\d+\.\d+)", nvcc.text) if nvcc.ok else None
    installed = []
    with contextlib.suppress(OSError):
        installed = sorted(path for path in glob.glob("/usr/local/cuda-*") if os.path.isdir(path))
    path_entries = [entry for entry in environ.get("LD_LIBRARY_PATH", "").split(":") if entry]
    compat = tuple(
        entry for entry in path_entries if "compat" in entry and glob.glob(os.path.join(entry, "libcuda.so*"))
    )
    return ToolkitFacts(
        nvcc=release[1] if release else ("" if nvcc_path is None else None),
        nvcc_path=nvcc_path,
        cuda_home=environ.get("CUDA_HOME") or environ.get("CUDA_PATH") or None,
        installed=tuple(installed),
        compat=compat,
    )
