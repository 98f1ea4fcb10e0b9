"""The version tables beside this module, loaded once, and the vendors' rules for what is newer than they are."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from workbench import toml
from workbench.doctor.versions import at_least, minor_name, older, parse_version, release_of

TABLES = Path(__file__).resolve().parent / "tables"
WHEELS = "https://download.pytorch.org/whl"


@functools.cache
def table(name: str) -> dict[str, Any]:
    """The table file `name`, parsed.

    Raises:
        WorkbenchError: ``missing-package`` where this interpreter cannot read TOML.
    """
    return toml.load(TABLES / f"{name}.toml")


@functools.cache
def packages_read() -> tuple[str, ...]:
    """The packages of which a file of ``tables/names`` says which names came with a release or went with one."""
    return tuple(sorted(path.stem for path in (TABLES / "names").glob("*.toml")))


def names_read(package: str) -> dict[str, Any]:
    """What came and went with the releases of a package: its file of ``tables/names``; ``{}`` where there is none.

    Raises:
        WorkbenchError: ``missing-package`` where this interpreter cannot read TOML.
    """
    return table(f"names/{package}") if package in packages_read() else {}


@functools.cache
def names_text(package: str) -> str:
    """That file as it is, to look for a word without reading it as TOML; ``""`` where there is none."""
    return (TABLES / "names" / f"{package}.toml").read_text("utf-8") if package in packages_read() else ""


@functools.cache
def faults() -> tuple[dict[str, Any], ...]:
    """The faults that a message alone tells, of all subjects.

    A row has its message's ``contains``, ``match``, ``detail`` and ``after`` in itself, or, where other rules use that
    message too, its id as ``message``. ``weak``: what is said only where nothing else was found. "install", "upgrade"
    and "export" at the start of a step become the command of the environment at hand; ``windows`` replaces ``fix``
    there, ``wsl`` in WSL, ``rented`` on another's machine, ``named`` where the package that asks is known; what
    ``first_if`` names a remark for comes before them where that remark was made. ``{name}`` stands for what the
    message's pattern has caught.

    Raises:
        WorkbenchError: ``missing-package`` where this interpreter cannot read TOML.
    """
    return tuple(row for path in sorted((TABLES / "faults").glob("*.toml")) for row in toml.load(path)["fault"])


def message_of(fault: dict[str, Any]) -> str:
    """The id of the message that a fault is told by."""
    return str(fault.get("message", fault["id"]))


@dataclass(frozen=True)
class TorchRelease:
    """One minor release of torch."""

    name: str
    latest: str
    python_min: str
    python_max: str
    python_all: str
    """The newest Python that has wheels on every system; `python_max` may have them on Linux x86-64 only."""
    variants: tuple[str, ...]
    index: str
    rocm: str
    glibc: str
    triton: str
    torchvision: str
    source: str


@functools.cache
def torch_releases() -> tuple[TorchRelease, ...]:
    """All known releases, oldest first."""
    return tuple(
        TorchRelease(
            row["name"],
            row["latest"],
            row["python"][0],
            row["python"][1],
            row.get("python_all", row["python"][1]),
            tuple(row["variants"]),
            row["index"],
            row["rocm"],
            row["glibc"],
            row["triton"],
            row["torchvision"],
            row["source"],
        )
        for row in table("torch")["release"]
    )


def torch_release(version: Optional[str]) -> Optional[TorchRelease]:
    """The row of a torch version, or None when it is unknown or newer than the table."""
    name = minor_name(version)
    return next((release for release in torch_releases() if release.name == name), None)


@dataclass(frozen=True)
class Kernels:
    """The compute capabilities that a torch build has code for."""

    arch: tuple[str, ...]
    ptx: bool
    source: str

    def cover(self, capability: str) -> Optional[bool]:
        """Whether code in the build runs on a GPU; None when `capability` is not a number."""
        return covers(self.arch, capability, self.arch[-1] if self.ptx and self.arch else None)


def torch_kernels(version: Optional[str], variant: str, machine: Optional[str]) -> Optional[Kernels]:
    """Kernels of a torch build by the table, or None when it has no row."""
    host = "aarch64" if machine in ("aarch64", "arm64") else "x86_64"
    for row in table("torch")["kernels"]:
        first, last = row["torch"]
        in_range = at_least(minor_name(version), first) and at_least(last, minor_name(version) or "")
        if in_range and variant in row["variants"] and row["machine"] == host:
            return Kernels(tuple(row["arch"]), row["ptx"], row["source"])
    return None


# These integrated GPUs run only code made for exactly them (torch/cuda/__init__.py).
_EXACT_ONLY = ("5.3", "6.2", "7.2", "8.7", "10.1", "11.0")


def covers(arch: tuple[str, ...], capability: str, ptx: Optional[str] = None) -> Optional[bool]:
    """Whether kernels for `arch` run on `capability`: same major and a minor at least as new, or older PTX."""
    wanted = release_of(capability)
    if wanted is None or not re.fullmatch(r"\d{1,2}\.\d", capability):
        return None
    for item in arch:
        have = release_of(item)
        if have is None:
            continue
        if item in _EXACT_ONLY or capability in _EXACT_ONLY:
            if item == capability:
                return True
        elif have[0] == wanted[0] and have[1] <= wanted[1]:
            return True
    floor = release_of(ptx)
    return floor is not None and floor <= wanted


def arch_numbers(arch_list: tuple[str, ...]) -> tuple[tuple[str, ...], Optional[str]]:
    """Torch's own names (``sm_80``, ``compute_90``) as capabilities, and the highest PTX."""
    codes: list[str] = []
    ptx: list[str] = []
    for item in arch_list:
        match = re.fullmatch(r"(sm|compute)_(\d{1,2})(\d)[a-z]?", item)
        if match:
            (codes if match[1] == "sm" else ptx).append(f"{int(match[2])}.{match[3]}")
    return tuple(codes), max(ptx, key=lambda item: release_of(item) or (0, 0)) if ptx else None


def variant_of(cuda: Optional[str]) -> Optional[str]:
    """``cu128`` of ``12.8``."""
    numbers = release_of(cuda)
    return None if numbers is None else f"cu{numbers[0]}{numbers[1]}"


def cuda_of(variant: str) -> Optional[str]:
    """``12.8`` of ``cu128``."""
    match = re.fullmatch(r"cu(9|\d{2})(\d{1,2})", variant)
    return f"{match[1]}.{match[2]}" if match else None


def minimum_driver(cuda_major: int, windows: bool) -> tuple[str, str]:
    """The oldest driver that runs a CUDA family, and where that stands.

    For a family newer than the table the newest row's driver is a lower bound.
    """
    rows = table("cuda")["family"]
    nearest = rows[0] if cuda_major < rows[0]["major"] else rows[-1]
    row = next((row for row in rows if row["major"] == cuda_major), nearest)
    return str(row["windows" if windows else "linux"]), str(row["source"])


def driver_cuda(driver: Optional[str]) -> Optional[str]:
    """The highest CUDA that a driver's own libcuda offers, by its branch; None when unknown.

    A branch between two rows offers what the lower one does; one above the last row, at least that.
    """
    numbers = release_of(driver, 1)
    if numbers is None:
        return None
    best: Optional[str] = None
    for branch, cuda in table("cuda")["branches"].items():
        if branch.isdigit() and int(branch) <= numbers[0]:
            best = cuda
    return best


def driver_runs(driver: str, cuda_major: int, windows: bool) -> Optional[bool]:
    """Whether a driver runs programs of a CUDA family."""
    return at_least(driver, minimum_driver(cuda_major, windows)[0])


@functools.lru_cache(maxsize=512)
def gpu_capability(name: str) -> Optional[str]:
    """Compute capability (or gfx name) of a GPU by its name, or None when the name is not in the catalogue."""
    text = name[:120]
    for row in table("gpus")["nvidia"]:
        if re.search(row["match"], text, re.IGNORECASE):
            return str(row["compute_capability"])
    if re.search(r"\b(?:nvidia|geforce|gtx|rtx|tesla|quadro)\b", text, re.IGNORECASE):
        return None  # a Radeon 760M is no GTX 760M
    spaced = re.sub(r"\brx ?(?=\d{3,4})", "RX ", text, flags=re.IGNORECASE)  # people write "RX9070"
    for row in table("gpus")["amd"]:
        if re.search(row["match"], spaced, re.IGNORECASE):
            return str(row["gfx"])
    return None


def is_datacenter(name: str) -> Optional[bool]:
    """Whether the driver's forward compatibility supports this GPU; None for an unknown name."""
    for row in table("gpus")["nvidia"]:
        if re.search(row["match"], name[:120], re.IGNORECASE):
            return bool(row["datacenter"])
    return None


def bitsandbytes_release(version: Optional[str]) -> Optional[dict[str, Any]]:
    """The row of a bitsandbytes version, or None outside the table."""
    for row in table("bitsandbytes")["release"]:
        if at_least(version, row["from"]) and older(version, row["to"]):
            found: dict[str, Any] = row
            return found
    return None


def transformers_release(version: Optional[str]) -> Optional[dict[str, Any]]:
    """The row that holds for a transformers version; the last one for anything newer, None before the first."""
    best: Optional[dict[str, Any]] = None
    for row in table("transformers")["release"]:
        if at_least(version, row["from"]):
            best = row
    return best


def companion(package: str, version: Optional[str]) -> Optional[tuple[str, str]]:
    """The torch version that a companion package belongs to, with the source, or None without a row."""
    if version is None:
        return None
    rows = table("companions")[package]
    for key in (version.split("+")[0], minor_name(version) or ""):
        if key in rows:
            return str(rows[key]), str(rows["source"])
    return None


def companion_of(package: str, torch: Optional[str]) -> Optional[str]:
    """The newest version of a companion package that belongs to exactly this torch, or None without a row."""
    version = parse_version((torch or "").split("+")[0])
    rows = [(name, wanted) for name, wanted in table("companions")[package].items() if name != "source"]
    fitting = [
        name
        for name, wanted in rows
        if not wanted.startswith(">") and version is not None and parse_version(wanted) == version
    ]
    return fitting[-1] if fitting else None


def newest_python(package: str, version: str) -> Optional[str]:
    """The newest Python that wheels of a release are for; None where any later one takes them, or without a row."""
    rows = table("pythons")["newest"].get(package, {})
    fitting = [python for release, python in rows.items() if at_least(version, release)]
    return str(fitting[-1]) or None if fitting else None


def conda_cudas(torch: Optional[str]) -> list[str]:
    """The CUDA versions with which conda's channel of torch has a release, oldest first; empty without a row."""
    return list(table("torch")["conda"].get(minor_name(torch) or "", []))


def build_of(package: str) -> Optional[dict[str, Any]]:
    """What compiling a package takes, or None without a row."""
    return next((row for row in table("builds")["package"] if package in row["names"]), None)


def newer_than_table(name: str, version: Optional[str]) -> bool:
    """Whether a version of torch, bitsandbytes or transformers is newer than our tables."""
    newest = torch_releases()[-1].latest if name == "torch" else str(table(name)["newest"])
    parsed, bound = parse_version(version), parse_version(newest)
    return parsed is not None and bound is not None and parsed > bound
