"""Commands that install packages of the system, with the tool of the distribution at hand. Stdlib only."""

from __future__ import annotations

import re

from workbench.doctor.facts import Facts

_TOOLS = (
    ("sudo pacman -S", re.compile(r"\b(?:arch(?: ?linux)?|manjaro|endeavour\w*|cachyos|garuda)\b", re.I)),
    (
        "sudo dnf install",
        re.compile(
            r"\b(?:fedora|red hat|rhel|rocky|alma\w*|centos|oracle|amazon linux|nobara|bazzite)\b"
            r"|\.(?:el[789]|fc[34]\d|amzn2)",
            re.I,
        ),
    ),
    ("sudo zypper install", re.compile(r"\b(?:open)?suse\b|\bsles\b", re.I)),
)
DISTRIBUTIONS = tuple(pattern for _, pattern in _TOOLS)


def install(facts: Facts, apt: str, dnf: str = "", pacman: str = "", zypper: str = "") -> str:
    """The command that installs packages of the system; that of Debian and Ubuntu where nothing says which it is."""
    named = " ".join(filter(None, (facts.platform.os, facts.platform.kernel)))
    tool = next((tool for tool, pattern in _TOOLS if pattern.search(named)), "sudo apt install")
    names = {"sudo pacman -S": pacman, "sudo dnf install": dnf, "sudo zypper install": zypper or dnf}.get(tool, apt)
    return f"{tool} {names or apt}"


# Debian's names with those of Fedora, Arch, openSUSE and Homebrew; an empty one is part of every system there.
_NAMES = {
    "build-essential": ("gcc gcc-c++ make", "base-devel", "gcc gcc-c++ make", ""),
    "cmake": ("cmake", "cmake", "cmake", "cmake"),
    "git": ("git", "git", "git", "git"),
    "ffmpeg": ("ffmpeg-free", "ffmpeg", "ffmpeg", "ffmpeg"),
    "pkg-config": ("pkgconf-pkg-config", "pkgconf", "pkg-config", "pkg-config"),
    "ninja-build": ("ninja-build", "ninja", "ninja", "ninja"),
    "libgl1": ("mesa-libGL", "libglvnd", "Mesa-libGL1", ""),
    "libglib2.0-0": ("glib2", "glib2", "glib2", "glib"),
    "libgomp1": ("libgomp", "gcc-libs", "libgomp1", "libomp"),
    "libsndfile1": ("libsndfile", "libsndfile", "libsndfile1", "libsndfile"),
    "libaio-dev": ("libaio-devel", "libaio", "libaio-devel", ""),
    "libnuma1": ("numactl-libs", "numactl", "libnuma1", ""),
    "libopenmpi3": ("openmpi", "openmpi", "openmpi4", "open-mpi"),
    "libsm6": ("libSM", "libsm", "libSM6", ""),
    "libxext6": ("libXext", "libxext", "libXext6", ""),
    "libibverbs1": ("libibverbs", "rdma-core", "libibverbs1", ""),
    "unzip": ("unzip", "unzip", "unzip", ""),
    "curl": ("curl", "curl", "curl", ""),
}
_APT = re.compile(
    r"sudo apt (?:update && sudo apt )?install (?:-y )?(?P<names>[\w.+-]+(?: [\w.+-]+)*)(?= {2,3}#|$| &&|;)"
)


def adapted(facts: Facts, step: str) -> str:
    """A step that calls Debian's apt, for the distribution, the Mac or the container that the facts name."""
    found = _APT.search(step)
    names = found["names"].split() if found else []
    if found is None or not all(name in _NAMES or re.fullmatch(r"python3(?:\.\d{1,2})?-dev", name) for name in names):
        return step
    if facts.platform.system == "Darwin":
        brew = [word for name in names if (word := _named(name, 3))]
        return step.replace(found[0], f"brew install {' '.join(brew)}" if brew else "xcode-select --install")
    command = install(facts, *(" ".join(_named(name, column) for name in names) for column in (-1, 0, 1, 2)))
    root = facts.platform.container in ("docker", "podman", "kubernetes") or facts.platform.service == "colab"
    if command.startswith("sudo apt") and root:
        # Inside a container one is root, and there is neither sudo nor a list of packages.
        command = f"apt-get update && apt-get install -y {' '.join(names)}"
    return step.replace(found[0], command)


def _named(name: str, column: int) -> str:
    if column < 0:
        return name
    if name in _NAMES:
        return _NAMES[name][column]
    return (name.replace("-dev", "-devel"), "python", name.replace("-dev", "-devel"), "")[column]
