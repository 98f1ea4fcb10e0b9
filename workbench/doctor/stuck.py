"""What a process that does not come on is doing, as Linux and its own stack tell; elsewhere nothing. Stdlib only."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional

from workbench.doctor.inside_child import STACK_SIGNAL
from workbench.doctor.system import read_text

_STACK_SECONDS = 0.5
_POLL_SECONDS = 0.02
_ALIVE_TICKS = 3
_ALIVE_BYTES = 64 * 1024
_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|afs|9p|lustre|gpfs|beegfs|ceph|glusterfs|fuse\.(?!overlay|lxcfs|snap)\S+|virtiofs"
)
# Names of processes, as /proc/PID/comm cuts them: at fifteen characters.
_SCANNERS = {
    "falcon-sensor": "CrowdStrike Falcon",
    "falcon-sensor-b": "CrowdStrike Falcon",
    "wdavdaemon": "Microsoft Defender",
    "mdatp": "Microsoft Defender",
    "clamd": "ClamAV",
    "clamonacc": "ClamAV on access",
    "ds_agent": "Trend Micro Deep Security",
    "cbagentd": "Carbon Black",
    "cbdaemon": "Carbon Black",
    "s1-agent": "SentinelOne",
    "sentinelone-age": "SentinelOne",
    "savd": "Sophos",
    "sophos-spl-boot": "Sophos",
    "elastic-endpoin": "Elastic Endpoint",
    "esets_daemon": "ESET",
    "isectpd": "Trellix",
    "bdsecd": "Bitdefender",
    "xagt": "Trellix HX",
    "cortex-xdr-payl": "Cortex XDR",
}
_STATES = {"D": "waits in the kernel and cannot be interrupted", "S": "sleeps", "R": "runs", "T": "is stopped"}
_FRAME = re.compile(r'File "([^"\n]{1,400})", line (\d{1,7}) in (\S{1,100})')
_OWN = ("/doctor/probe.py", "/doctor/selftest_child.py", "<frozen ", "<string>")


@dataclass(frozen=True)
class Work:
    """What a process and its children have done so far."""

    cpu_ticks: int
    read_bytes: int
    major_faults: int


def work_of(pid: int) -> Optional[Work]:
    """What process `pid` and its direct children have done so far, or None where /proc tells nothing."""
    stat = _stat(pid)
    if stat is None:
        return None
    total = [0, 0, 0]
    children = (read_text(f"/proc/{pid}/task/{pid}/children") or "").split()
    for number in (pid, *map(int, children)):
        fields = stat if number == pid else _stat(number)
        if fields is None:
            continue
        # proc(5), counted from the state: majflt 9, cmajflt 10, utime, stime, cutime and cstime 11 to 14.
        total[0] += sum(int(fields[index]) for index in range(11, 15))
        total[1] += sum(
            int(found) for found in re.findall(r"^[rw]char: (\d+)", read_text(f"/proc/{number}/io") or "", re.M)
        )
        total[2] += int(fields[9]) + int(fields[10])
    return Work(*total)


def _stat(pid: int) -> Optional[list[str]]:
    fields = (read_text(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()
    return fields if len(fields) > 15 else None


class Watch:
    """Tells since when a process has done nothing: no processor time to speak of, nothing read, no page fetched."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.restart()

    def restart(self) -> None:
        """Count from now on."""
        self._since = time.monotonic()
        self._work = work_of(self._pid)

    def idle_seconds(self) -> Optional[float]:
        """For how long it has done nothing; None where that cannot be told."""
        now, before = work_of(self._pid), self._work
        if now is None or before is None:
            return None
        if (
            now.cpu_ticks - before.cpu_ticks >= _ALIVE_TICKS
            or now.read_bytes - before.read_bytes >= _ALIVE_BYTES
            or now.major_faults != before.major_faults
        ):
            self._since, self._work = time.monotonic(), now
        return time.monotonic() - self._since


def evidence_of(pid: int, stderr: Callable[[], str], location: Optional[str]) -> dict[str, str]:
    """What tells why process `pid` does not come on.

    Args:
        pid: a child that answers `STACK_SIGNAL` with its stacks.
        stderr: what it has written to standard error so far.
        location: folder of the package being imported.

    Returns:
        Any of ``where`` (line of Python), ``state``, ``waits in`` (kernel function), ``driver`` (an NVIDIA device it
        has open), ``file system`` (only a network one) and ``scanner``.
    """
    fields = _stat(pid)
    state = fields[0] if fields else ""
    kernel = (read_text(f"/proc/{pid}/wchan") or "").strip("\0\n 0")
    told = {
        "where": _where(pid, stderr) if state != "D" else "",
        "state": _STATES.get(state, ""),
        "waits in": kernel,
        "driver": _driver_node(pid),
        "file system": network_file_system(location),
        "scanner": _scanner(),
    }
    return {name: value for name, value in told.items() if value}


def _where(pid: int, stderr: Callable[[], str]) -> str:
    if STACK_SIGNAL is None:
        return ""
    before = len(stderr())
    with contextlib.suppress(OSError):
        os.kill(pid, STACK_SIGNAL)
    deadline = time.monotonic() + _STACK_SECONDS
    while time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        text = stderr()[before:]
        if _OWN[0] in text or _OWN[1] in text:
            break
    return innermost(stderr()[before:])


def innermost(stacks: str) -> str:
    """The line of Python that the main thread is at, from what faulthandler wrote: ``torch/x.py line 3 in f``."""
    for stack in re.split(r"\n\s*\n", stacks):
        if any(own in stack for own in _OWN[:2]):
            frame = next((match for match in _FRAME.finditer(stack) if not match[1].startswith(_OWN[2:])), None)
            if frame is not None and not frame[1].endswith(_OWN[:2]):
                return f"{frame[1]} line {frame[2]} in {frame[3]}"
    return ""


def _driver_node(pid: int) -> str:
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(f"/proc/{pid}/fd")):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{name}")
                if target.startswith(("/dev/nvidia", "/dev/kfd", "/dev/dri/", "/dev/dxg")):
                    return target
    return ""


def network_file_system(path: Optional[str], mounts: Optional[str] = None) -> str:
    """``nfs4 from server:/home at /home`` when `path` is on a network file system, else empty.

    Args:
        path: a file or folder.
        mounts: text of ``/proc/self/mountinfo`` (proc(5)); read here when None.
    """
    if not path:
        return ""
    best, found = "", ""
    for line in (mounts if mounts is not None else read_text("/proc/self/mountinfo", 2**20) or "").splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        if len(fields) < 5 or len(tail) < 2:
            continue
        point = fields[4].replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best = point
            found = f"{tail[0]} from {tail[1]} at {point}" if _NETWORK.fullmatch(tail[0]) else ""
    return found


def _scanner() -> str:
    with contextlib.suppress(OSError):
        for number in filter(str.isdigit, os.listdir("/proc")):
            name = (read_text(f"/proc/{number}/comm", 64) or "").strip()
            if name in _SCANNERS:
                return f"{_SCANNERS[name]} ({name})"
    return ""
