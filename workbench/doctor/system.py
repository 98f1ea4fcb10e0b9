"""Facts of the machine and its kernel, from files only. Stdlib only."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

from workbench.doctor.facts import DiskFacts, PlatformFacts

_PCI_VENDORS = {"0x10de": "nvidia", "0x1002": "amd", "0x8086": "intel"}
_GPU_MODULES = ("nvidia", "nvidia_uvm", "nvidia_modeset", "nvidia_drm", "nouveau", "nova_core", "amdgpu", "xe", "i915")
_XID = re.compile(r"NVRM: Xid \([^)\n]{1,60}\): (\d{1,4})")


def read_text(path: str, limit: int = 65536) -> Optional[str]:
    """The start of a file, or None when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return None


def platform_facts(environ: Mapping[str, str]) -> PlatformFacts:
    """Everything below Python that files tell."""
    kernel = platform.release()
    libc, libc_version = _libc()
    memory = _meminfo()
    shm_total, shm_free = _space("/dev/shm")
    memlock, open_files = _limits()
    return PlatformFacts(
        system=platform.system() or None,
        os=_os_name(),
        kernel=kernel or None,
        machine=platform.machine() or None,
        libc=libc,
        libc_version=libc_version,
        container=_container(environ),
        wsl="microsoft" in kernel.lower(),
        service=_service(environ),
        memory_total_bytes=memory.get("MemTotal"),
        memory_available_bytes=memory.get("MemAvailable"),
        shm_total_bytes=shm_total,
        shm_free_bytes=shm_free,
        memlock_bytes=memlock,
        open_files=open_files,
        disks=(_disk("HF cache", hub_cache(environ)), _disk("temp", temporary_folder(environ))),
        gpu_vendors=_gpu_vendors(),
        devices=_devices(),
        modules=_modules(),
        secure_boot=_secure_boot(),
        c_compiler=_c_compiler(environ),
    )


def xids_in(text: str) -> tuple[int, ...]:
    """The distinct Xid numbers in a kernel log, oldest first."""
    return tuple(dict.fromkeys(int(number) for number in _XID.findall(text)))


def hub_cache(environ: Mapping[str, str]) -> Path:
    """Where huggingface_hub keeps downloads, by its own order of variables (its ``constants.py``)."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(name):
            return _expanded(environ[name], environ)
    if environ.get("HF_HOME"):
        return _expanded(environ["HF_HOME"], environ) / "hub"
    return _expanded(environ.get("XDG_CACHE_HOME") or "~/.cache", environ) / "huggingface" / "hub"


def _expanded(path: str, environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME")
    return Path(home + path[1:] if home and (path == "~" or path.startswith("~/")) else os.path.expanduser(path))


def temporary_folder(environ: Mapping[str, str]) -> Path:
    """Where temporary files go, by the order of variables of ``tempfile``."""
    named = (environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    found = next((path for path in named if path and os.path.isdir(path)), None)
    return Path(found or ("/tmp" if os.path.isdir("/tmp") else tempfile.gettempdir()))


def _os_name() -> Optional[str]:
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}"
    release = read_text("/etc/os-release") or ""
    match = re.search(r'^PRETTY_NAME="?([^"\n]{1,200})', release, re.M)
    return match[1] if match else None


def _libc() -> tuple[Optional[str], Optional[str]]:
    if not sys.platform.startswith("linux"):
        return None, None
    with contextlib.suppress(OSError, ValueError, AttributeError):
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        if name == "glibc":
            return name, version
    if any(Path("/lib").glob("ld-musl-*")):
        return "musl", None
    return None, None


def _meminfo() -> dict[str, int]:
    text = read_text("/proc/meminfo") or ""
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}


def _space(path: str) -> tuple[Optional[int], Optional[int]]:
    try:
        status = os.statvfs(path)
    except OSError:
        return None, None
    return status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize


def _limits() -> tuple[Optional[int], Optional[int]]:
    try:
        import resource
    except ImportError:
        return None, None
    memlock = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] if hasattr(resource, "RLIMIT_MEMLOCK") else None
    if memlock == resource.RLIM_INFINITY:
        memlock = -1
    return memlock, resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _disk(purpose: str, path: Path) -> DiskFacts:
    existing = path
    with contextlib.suppress(OSError):
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
    try:
        status = os.statvfs(existing)
        owner = existing.stat().st_uid
    except OSError:
        return DiskFacts(purpose, str(path))
    if not status.f_blocks:
        # /proc, /sys and their like have no blocks at all: nothing is kept there, so nothing is full.
        return DiskFacts(purpose, str(path), writable=os.access(existing, os.W_OK | os.X_OK), owner=str(owner))
    # Some file systems (btrfs, overlays) count no inodes and report zero of zero.
    inodes = status.f_favail if status.f_files else None
    return DiskFacts(
        purpose,
        str(path),
        status.f_bavail * status.f_frsize,
        inodes,
        os.access(existing, os.W_OK | os.X_OK),
        str(owner),
    )


def _container(environ: Mapping[str, str]) -> str:
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    if environ.get("APPTAINER_CONTAINER") or environ.get("SINGULARITY_CONTAINER"):
        return "apptainer"
    if os.path.exists("/run/.containerenv"):
        return "podman"
    if os.path.exists("/.dockerenv"):
        return "docker"
    groups = read_text("/proc/1/cgroup") or ""
    for mark, name in (("kubepods", "kubernetes"), ("docker", "docker"), ("libpod", "podman"), ("lxc", "lxc")):
        if mark in groups:
            return name
    return ""


def _service(environ: Mapping[str, str]) -> str:
    for variable, name in (
        ("COLAB_RELEASE_TAG", "colab"),
        ("COLAB_GPU", "colab"),
        ("KAGGLE_KERNEL_RUN_TYPE", "kaggle"),
        ("SLURM_JOB_ID", "slurm"),
    ):
        if variable in environ:
            return name
    return ""


def _gpu_vendors() -> Optional[tuple[str, ...]]:
    if sys.platform == "darwin":
        return ("apple",) if platform.machine() == "arm64" else ()
    root = Path("/sys/bus/pci/devices")
    if not root.is_dir():
        return None
    found: dict[str, None] = {}
    for device in root.iterdir():
        kind = (read_text(str(device / "class"), 16) or "").strip()
        # 0x03: display controllers; 0x12: processing accelerators, which is what an MI300X calls itself.
        if kind.startswith(("0x03", "0x12")):
            vendor = _PCI_VENDORS.get((read_text(str(device / "vendor"), 16) or "").strip())
            if vendor:
                found[vendor] = None
    return tuple(sorted(found))


def _devices() -> tuple[str, ...]:
    names = ("nvidiactl", "nvidia-uvm", "kfd", "dxg")
    found = [f"/dev/{name}" for name in names if os.path.exists(f"/dev/{name}")]
    with contextlib.suppress(OSError):
        found += sorted(f"/dev/{name}" for name in os.listdir("/dev") if re.fullmatch(r"nvidia\d{1,3}", name))
    return tuple(found)


def _modules() -> Optional[tuple[str, ...]]:
    text = read_text("/proc/modules", 2**20)
    if text is None:
        return None
    loaded = {line.split(" ", 1)[0] for line in text.splitlines()}
    return tuple(name for name in _GPU_MODULES if name in loaded)


def _secure_boot() -> Optional[bool]:
    with contextlib.suppress(OSError, IndexError):
        for path in Path("/sys/firmware/efi/efivars").glob("SecureBoot-*"):
            # Four bytes of attributes, then the value (UEFI specification, section 8.2).
            return path.read_bytes()[4] == 1
    return None


def _c_compiler(environ: Mapping[str, str]) -> str:
    # The order in which Triton looks (its runtime/build.py): CC, gcc, clang.
    for name in filter(None, (environ.get("CC"), "gcc", "clang")):
        path = shutil.which(name, path=environ.get("PATH"))
        if path:
            return path
    return ""
