"""nvidia-smi: the table with either banner, ``-L`` and ``-q``. Stdlib only.

Since the 610 branch the banner has "KMD Version" and "CUDA UMD Version" for the driver and its CUDA.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Optional

from workbench.doctor.facts import GpuProcess
from workbench.doctor.parse.draft import Draft

_SMI = re.compile(r"NVIDIA-SMI\s+([\d.]{3,20})")
_DRIVER = re.compile(r"(?:Driver|KMD) Version\s{0,40}:\s{0,10}([\d.]{3,20})")
_CUDA = re.compile(r"CUDA (?:UMD )?Version\s{0,40}:\s{0,10}(\d{1,2}\.\d{1,2})")
_ROW = re.compile(
    r"\|\s{1,6}(\d{1,3})\s{1,4}(\S.{2,48}?)\s{1,30}(?P<mode>On|Off|N/A|WDDM|TCC|MCDM)\s{0,4}\|\s{1,4}"
    r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.\d\s{1,8}(?:On|Off|N/A)\s{0,4}\|\s{0,30}(?P<ecc>\S{1,6})"
)
_USAGE = re.compile(
    r"\|\s{0,6}(?:\d{1,3}%|N/A|ERR!)\s{1,6}(?:(\d{1,3})C|\S{3,4})\s{1,6}\S{2,4}\s{1,30}(?:(\d{1,4})W|\S{3,7})\s{0,2}/\s{0,3}"
    r"(?:(\d{1,4})W|\S{3,7})\s{0,4}\|\s{0,20}(\d{1,8})MiB\s{0,2}/\s{0,4}(\d{1,8})MiB\s{0,4}\|"
    r"\s{0,10}(?:(\d{1,3})%|N/A)\s{1,8}(\S.{0,12}?)\s{0,4}\|"
)
_MIG_ROW = re.compile(r"\|\s{20,60}\|\s{10,40}\|\s{1,40}(Enabled\*?|Disabled\*?|N/A)\s{0,4}\|")
_PROCESS = re.compile(
    r"\|\s{1,8}(\d{1,3})\s{1,6}(?:\S{1,6}\s{1,6}\S{1,6}\s{1,10})?(\d{1,10})\s{1,8}(?:C\+G|M\+C|C|G)\s{1,6}"
    r"(\S.{0,120}?)\s{1,60}(?:(\d{1,8})MiB|N/A)\s{0,4}\|"
)
_LISTED = re.compile(r"GPU\s(\d{1,3}):\s(\S.{1,80}?)\s{0,3}\(UUID:\s{0,2}(GPU-[0-9A-Fa-f-]{8,40})\)")
_FABRIC_STATE = re.compile(r"\s{1,40}State\s{1,40}:\s(\S.{0,30})")
_FAILURES = (
    "NVIDIA-SMI has failed because",
    "Failed to initialize NVML",
    "Unable to determine the device handle",
    "No devices were found",
    "nvidia-smi: command not found",
    "nvidia-smi: not found",
)


def read(lines: Iterable[str], draft: Draft) -> None:
    """Take what nvidia-smi's lines tell."""
    current: Optional[int] = None
    in_processes = False
    for line in lines:
        if "nvidia-smi" in line or "NVML" in line or "devices were found" in line or "device handle" in line:
            _failure(line, draft)
        if "Version" in line:
            _banner(line, draft)
        if "(UUID: GPU-" in line:
            _listed(line, draft)
        if "|" not in line:
            continue
        row = _ROW.search(line)
        if row:
            current = int(row[1])
            _device(row, draft)
            continue
        if "GPU Memory" in line or "Processes:" in line:
            in_processes = True
        elif in_processes:
            _process(line, draft)
        if current is not None:
            current = _details(line, draft, current)


def _failure(line: str, draft: Draft) -> None:
    for failure in _FAILURES:
        if failure in line:
            draft.saw("nvidia-smi")
            missing = failure.endswith("found") and failure.startswith("nvidia-smi")
            told = failure if failure.startswith("No devices") else line.strip()[:300]
            draft.put(draft.driver, smi=not missing, error=told)
            if failure.startswith("No devices"):
                draft.no_gpus = True


def _banner(line: str, draft: Draft) -> None:
    smi, driver, cuda = _SMI.search(line), _DRIVER.search(line), _CUDA.search(line)
    if smi is None and not (line.startswith(("Driver Version", "CUDA Version")) and (driver or cuda)):
        return
    if smi:
        draft.saw("nvidia-smi")
        draft.put(draft.driver, smi=True)
    draft.put(draft.driver, version=driver[1] if driver else None, cuda=cuda[1] if cuda else None)


def _listed(line: str, draft: Draft) -> None:
    match = _LISTED.search(line)
    if match:
        draft.saw("nvidia-smi")
        draft.put(draft.gpu(int(match[1])), name=match[2], uuid=match[3], vendor="nvidia")


def _device(row: re.Match[str], draft: Draft) -> None:
    draft.saw("nvidia-smi")
    gpu = draft.gpu(int(row[1]))
    draft.put(gpu, vendor="nvidia", ecc_uncorrected=int(row["ecc"]) if row["ecc"].isdigit() else None)
    draft.put(gpu, driver_model=row["mode"] if row["mode"] in ("WDDM", "TCC", "MCDM") else None)
    # Old tables cut long names ("NVIDIA GeForce ..."); a whole name from elsewhere is worth more.
    known = gpu.get("name")
    if known is None or known.endswith("..."):
        gpu["name"] = row[2].strip()


def _details(line: str, draft: Draft, current: int) -> Optional[int]:
    gpu = draft.gpu(current)
    usage = _USAGE.search(line)
    if usage:
        draft.put(
            gpu,
            temperature_celsius=_number(usage[1]),
            power_watts=_number(usage[2]),
            power_limit_watts=_number(usage[3]),
            memory_used_bytes=int(usage[4]) * 2**20,
            memory_bytes=int(usage[5]) * 2**20,
            utilization_percent=_number(usage[6]),
            compute_mode=usage[7].strip(),
        )
        return current
    mig = _MIG_ROW.search(line)
    if mig:
        if mig[1] != "N/A":
            draft.put(gpu, mig=mig[1].startswith("Enabled"))
        return None
    return current


def _process(line: str, draft: Draft) -> None:
    if "No running processes found" in line:
        for gpu in draft.gpus.values():
            draft.put(gpu, processes=())
        return
    match = _PROCESS.search(line)
    if match and int(match[1]) in draft.gpus:
        gpu = draft.gpus[int(match[1])]
        known = gpu.get("processes") or ()
        if len(known) < 200:
            used = int(match[4]) * 2**20 if match[4] else None
            gpu["processes"] = (*known, GpuProcess(int(match[2]), match[3].strip(), used))


def _number(text: Optional[str]) -> Optional[float]:
    return float(text) if text else None
