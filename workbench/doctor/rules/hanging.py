"""Rules about what does not come to an end, and about interpreters of which only the files could be read."""

from __future__ import annotations

import os

from workbench.doctor import fixes
from workbench.doctor.facts import Facts, ProbeStep
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ALL_GPU_BENCHES, PASSED, Result, evidence
from workbench.doctor.versions import older

OLDEST_PYTHON = "3.9"
IDLE_SECONDS = 2.0
"""Idle for less than this, a process was still working when its time was over."""

EVERYTHING = ("chat", "vram", "architecture", "tokens")
_DRIVER_MODULES = ("/torch/cuda/", "pynvml", "/amdsmi/")
_NETWORK_MODULES = ("socket.py", "ssl.py", "/http/", "/urllib", "/requests/", "/httpx/", "/httpcore/", "selectors.py")
_LOCK_WAITS = ("locks_lock", "flock", "fcntl", "posix_lock")
_FAULTHANDLER = "https://docs.python.org/3/library/faulthandler.html"
_NFS = "https://man7.org/linux/man-pages/man5/nfs.5.html"
_XID = "https://docs.nvidia.com/deploy/xid-errors/"
_PROC = "https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html"


def torch_import_hangs(facts: Facts) -> Result:
    """``import torch`` did not end within its time."""
    return _hanging(facts, ("torch",), "torch-import-hangs", "import torch", EVERYTHING)


def cuda_hangs(facts: Facts) -> Result:
    """CUDA did not start, or a kernel did not end, within its time."""
    return _hanging(facts, ("cuda", "kernel"), "cuda-hangs", "starting the GPU", ALL_GPU_BENCHES)


def import_hangs(facts: Facts) -> Result:
    """Another library did not load within its time."""
    names = {"flash-attn": "flash_attn", "numpy": "handing a tensor to numpy"}
    for step in ("bitsandbytes", "numpy", "transformers", "torchvision", "flash-attn", "xformers"):
        name = names.get(step, step)
        what = name if " " in name else f"import {name}"
        found = _hanging(facts, (step,), "import-hangs", what, EVERYTHING if step == "transformers" else ("chat",))
        if found:
            return found
    return PASSED if facts.probes else None


def _hanging(facts: Facts, steps: tuple[str, ...], finding_id: str, what: str, affects: tuple[str, ...]) -> Result:
    probes = [probe for probe in map(facts.probe, steps) if probe is not None]
    if not probes:
        return None
    step = next((probe for probe in probes if probe.status == "timeout"), None)
    if step is None:
        return PASSED
    hangs = step.idle_seconds is not None and step.idle_seconds >= IDLE_SECONDS
    likely, why, fix, source = _likely(facts, step)
    seen = {**step.stuck, "seconds": f"{step.seconds:.0f}", "torch.location": facts.torch.location or ""}
    if step.idle_seconds is not None:
        seen["idle seconds"] = f"{step.idle_seconds:.0f}"
    how = "hangs" if hangs else f"takes longer than {step.seconds:.0f} s"
    title = f"{what} {how}{': ' if likely else ''}{likely}"
    return [
        Finding(
            finding_id,
            "error",
            title,
            f"{_observed(step, hangs)} {why}",
            {name: value for name, value in seen.items() if value},
            fix,
            source,
            affects=affects,
            observed=True,
        )
    ]


def _observed(step: ProbeStep, hangs: bool) -> str:
    if hangs:
        return f"The process did nothing for {step.idle_seconds:.0f} s (no processor time, nothing read) and was ended."
    if step.idle_seconds is None:
        return f"The process was ended after {step.seconds:.0f} s."
    return f"The process was still working after {step.seconds:.0f} s when it was ended."


Likely = tuple[str, str, tuple[str, ...], str]


def _likely(facts: Facts, step: ProbeStep) -> Likely:
    """The likeliest cause with its reason, what to do, and a source; the strongest evidence first."""
    where, kernel = step.stuck.get("where", ""), step.stuck.get("waits in", "")
    location = facts.torch.location or "the environment"
    look = _look(facts, step.step)
    if step.stuck.get("file system") and not _in_driver(step):
        return _network_files(step.stuck["file system"], location)
    if _in_driver(step) or (step.step in ("cuda", "kernel") and not _line_of_user(where, location)):
        device = step.stuck.get("driver")
        return (
            "the GPU driver does not answer" if device or _uninterruptible(step) else "the GPU does not come up",
            "It waits for the driver" + (f" with {device} open." if device else "."),
            (
                "nvidia-smi   # must answer within a second or two" if facts.has_amd() is not True else "rocm-smi",
                "sudo dmesg | tail -50   # look for NVRM, Xid or amdgpu",
                "sudo reboot   # what clears a driver that does not answer",
            ),
            _XID,
        )
    if any(name in kernel for name in _LOCK_WAITS):
        return (
            "another process holds a lock it waits for",
            "It waits for a lock on a file; a process that died or stands still may hold it.",
            ("sudo lslocks   # who holds which file", *look),
            _FAULTHANDLER,
        )
    if any(name in where for name in _NETWORK_MODULES):
        return (
            "it waits for the network",
            f"It waits for an answer from the network, in {where}.",
            ("env | grep -i -E 'proxy|HF_'   # a proxy that does not answer?", *look),
            _FAULTHANDLER,
        )
    if step.stuck.get("scanner"):
        return (
            f"{step.stuck['scanner']} checks its files",
            "A security scanner runs on this box; it reads every one of torch's large libraries as they are opened.",
            (f"# ask for an exception for {os.path.dirname(location) or location}", *look),
            _PROC,
        )
    if _uninterruptible(step):
        return (
            "its disk does not answer",
            "It waits in the kernel for a device and cannot be interrupted, which is how a failing disk shows.",
            ("sudo dmesg | tail -50   # I/O errors, hung tasks", f"df -h {location}", *look),
            _PROC,
        )
    if where:
        return (
            f"it waits in {_short(where)}",
            f"The Python line that it is at: {where}.",
            look,
            _FAULTHANDLER,
        )
    return "", "Nothing more is known.", look, _FAULTHANDLER


def _network_files(file_system: str, location: str) -> Likely:
    mount = file_system.rpartition(" at ")[2]
    return (
        f"its files are on {file_system}",
        "Importing reads some gigabytes in thousands of files; over a network that is slow, and it stands still when "
        "the server does.",
        (
            f"time ls {location} > /dev/null   # does it answer?",
            f"nfsstat -m {mount}; sudo dmesg | grep -i 'not responding'   # what the kernel says of the server",
            "# else put the environment on a disk of this box and install it anew there",
        ),
        _NFS,
    )


def _in_driver(step: ProbeStep) -> bool:
    where, kernel = step.stuck.get("where", ""), step.stuck.get("waits in", "")
    return (
        bool(step.stuck.get("driver"))
        or any(name in where for name in _DRIVER_MODULES)
        or kernel.startswith(("nv", "uvm", "os_acquire", "rm_", "amdgpu", "kfd"))
    )


def _uninterruptible(step: ProbeStep) -> bool:
    return "cannot be interrupted" in step.stuck.get("state", "")


def _line_of_user(where: str, location: str) -> bool:
    """Whether it stands in Python code outside torch."""
    return bool(where) and not where.startswith(location)


def _short(where: str) -> str:
    path, _, rest = where.partition(" line ")
    parts = path.split("/")
    return f"{'/'.join(parts[-2:])} line {rest}" if rest else where


def _look(facts: Facts, step: str) -> tuple[str, ...]:
    module = {"flash-attn": "flash_attn", "kernel": "torch", "numpy": "torch"}.get(step, step)
    code = "import torch; torch.cuda.init()" if step == "cuda" else f"import {module}"
    return (
        f"{fixes.python_command(facts)} -c 'import faulthandler; faulthandler.dump_traceback_later(20); {code}'"
        "   # where it stands after 20 s",
    )


def only_files_read(facts: Facts) -> Result:
    """An interpreter too old for the workbench: nothing was run under it."""
    if facts.origin != "live" or facts.python.version is None:
        return None
    if not older(facts.python.version, OLDEST_PYTHON):
        return PASSED
    torch = facts.torch.version if facts.torch.installed else None
    paste = (f"{facts.python.executable} -m torch.utils.collect_env   # paste it: p in the app, doctor --from",)
    return [
        Finding(
            "python-too-old-to-run",
            "warning" if facts.torch.installed else "error",
            f"Python {facts.python.version}: only its files were read, nothing was run under it",
            f"The workbench runs its checks under Python {OLDEST_PYTHON} or newer. The packages, the driver and the "
            "GPUs are judged all the same; whether torch imports and a kernel runs is not known.",
            evidence(
                python__version=facts.python.version, python__executable=facts.python.executable, torch__version=torch
            ),
            (
                *(paste if torch else ()),
                "python3.12 -m venv NEW-FOLDER   # a new environment; current transformers needs Python 3.11 or newer",
            ),
            "https://devguide.python.org/versions/",
            observed=True,
        )
    ]


RULES = (torch_import_hangs, cuda_hangs, import_hangs, only_files_read)
