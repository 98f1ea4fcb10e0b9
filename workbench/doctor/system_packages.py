"""Commands that install packages of the system, with the tool of the distribution at hand. Stdlib only."""

from __future__ import annotations

import re
from typing import Optional

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
    ("sudo apk add", re.compile(r"\balpine\b", re.I)),
    ("sudo emerge", re.compile(r"\bgentoo\b", re.I)),
)
DISTRIBUTIONS = tuple(pattern for _, pattern in _TOOLS)


def install(facts: Facts, apt: str, dnf: str = "", pacman: str = "", zypper: str = "") -> str:
    """The command that installs packages of the system; that of Debian and Ubuntu where nothing says which it is."""
    tool = _tool(facts)
    if tool == "sudo apk add" and all(name in _NAMES for name in apt.split()):
        return f"{tool} {_named(apt.split(), _COLUMNS[tool])}"
    names = {"sudo pacman -S": pacman, "sudo dnf install": dnf, "sudo zypper install": zypper or dnf}.get(tool, apt)
    return _by_yum(facts, f"{tool} {names or apt}")


def by_apt(facts: Facts) -> bool:
    """Whether packages of the system come by Debian's apt, as far as anything tells."""
    return _tool(facts) == "sudo apt install"


# What a paste calls where it names no distribution.
_CALLED = (
    ("sudo dnf install", "calls-dnf"),
    ("sudo pacman -S", "calls-pacman"),
    ("sudo zypper install", "calls-zypper"),
    ("sudo emerge", "calls-emerge"),
)
_BEFORE_DNF = re.compile(
    r"\.el7\b|\b(?:centos|red hat|rhel|oracle)\b[^\n]{0,30}?\b7(?:\.\d{1,2})?\b|\bamazon linux 2\b|\bamzn2\.", re.I
)


def _tool(facts: Facts) -> str:
    named = _named_system(facts)
    if not facts.platform.os and facts.error("root-at-localhost"):
        named += " red hat"  # what its installer calls a machine that was given no name, in its shell's own prompt
    known = next((tool for tool, pattern in _TOOLS if pattern.search(named)), None)
    if known is None and not facts.platform.os and not facts.error("calls-apt"):
        known = next((tool for tool, message in _CALLED if facts.error(message)), None)
    return known or "sudo apt install"


def _named_system(facts: Facts) -> str:
    return " ".join(filter(None, (facts.platform.os, facts.platform.kernel)))


def _by_yum(facts: Facts, step: str) -> str:
    """Red Hat 7 and its kin, and Amazon Linux 2, have no dnf."""
    return step.replace("sudo dnf ", "sudo yum ") if _BEFORE_DNF.search(_named_system(facts)) else step


# How a module that is loaded early comes into the image that the kernel starts from.
_INITRAMFS = "sudo update-initramfs -u"
_EARLY_IMAGES = {
    "sudo dnf install": "sudo dracut --force",
    "sudo zypper install": "sudo dracut --force",
    "sudo pacman -S": "sudo mkinitcpio -P",
    "sudo emerge": "sudo dracut --force",
}
# Where nothing tells the distribution: the one of the three that is there.
_ANY_EARLY_IMAGE = "{ sudo update-initramfs -u || sudo dracut --force || sudo mkinitcpio -P; }"


# Debian's names with those of Fedora, Arch, openSUSE, Homebrew and Alpine; an empty one is part of every system there.
_NAMES = {
    "build-essential": ("gcc gcc-c++ make", "base-devel", "gcc gcc-c++ make", "", "build-base"),
    "cmake": ("cmake", "cmake", "cmake", "cmake", "cmake"),
    "git": ("git", "git", "git", "git", "git"),
    "git-lfs": ("git-lfs", "git-lfs", "git-lfs", "git-lfs", "git-lfs"),
    "ffmpeg": ("ffmpeg-free", "ffmpeg", "ffmpeg", "ffmpeg", "ffmpeg"),
    "pkg-config": ("pkgconf-pkg-config", "pkgconf", "pkg-config", "pkg-config", "pkgconf"),
    "ninja-build": ("ninja-build", "ninja", "ninja", "ninja", "ninja"),
    "libgl1": ("mesa-libGL", "libglvnd", "Mesa-libGL1", "", "mesa-gl"),
    "libglib2.0-0": ("glib2", "glib2", "glib2", "glib", "glib"),
    "libgomp1": ("libgomp", "gcc-libs", "libgomp1", "libomp", "libgomp"),
    "libsndfile1": ("libsndfile", "libsndfile", "libsndfile1", "libsndfile", "libsndfile"),
    "libaio-dev": ("libaio-devel", "libaio", "libaio-devel", "", "libaio-dev"),
    "libnuma1": ("numactl-libs", "numactl", "libnuma1", "", "numactl"),
    "libopenmpi3": ("openmpi", "openmpi", "openmpi4", "open-mpi", "openmpi"),
    "libopenmpi-dev": ("openmpi-devel", "openmpi", "openmpi4-devel", "open-mpi", "openmpi-dev"),
    "openmpi-bin": ("openmpi", "openmpi", "openmpi4", "open-mpi", "openmpi"),
    "libopenblas0": ("openblas", "openblas", "libopenblas0", "openblas", "openblas"),
    "libopenblas-dev": ("openblas-devel", "openblas", "openblas-devel", "openblas", "openblas-dev"),
    "libcurl4-openssl-dev": ("libcurl-devel", "curl", "libcurl-devel", "curl", "curl-dev"),
    "libsm6": ("libSM", "libsm", "libSM6", "", "libsm"),
    "libxext6": ("libXext", "libxext", "libXext6", "", "libxext"),
    "libxrender1": ("libXrender", "libxrender", "libXrender1", "", "libxrender"),
    "libx11-6": ("libX11", "libx11", "libX11-6", "", "libx11"),
    "libibverbs1": ("libibverbs", "rdma-core", "libibverbs1", "", "rdma-core"),
    "libportaudio2": ("portaudio", "portaudio", "libportaudio2", "portaudio", "portaudio"),
    "portaudio19-dev": ("portaudio-devel", "portaudio", "portaudio-devel", "portaudio", "portaudio-dev"),
    "sox": ("sox", "sox", "sox", "sox", "sox"),
    "libsox-dev": ("sox-devel", "sox", "sox-devel", "sox", "sox-dev"),
    "espeak-ng": ("espeak-ng", "espeak-ng", "espeak-ng", "espeak-ng", "espeak-ng"),
    "tesseract-ocr": ("tesseract", "tesseract", "tesseract-ocr", "tesseract", "tesseract-ocr"),
    "poppler-utils": ("poppler-utils", "poppler", "poppler-tools", "poppler", "poppler-utils"),
    "python3-tk": ("python3-tkinter", "tk", "python3-tk", "python-tk", "python3-tkinter"),
    "tk": ("tk", "tk", "tk", "tcl-tk", "tk"),
    "unzip": ("unzip", "unzip", "unzip", "", "unzip"),
    "curl": ("curl", "curl", "curl", "", "curl"),
}
_COLUMNS = {"sudo dnf install": 0, "sudo pacman -S": 1, "sudo zypper install": 2, "sudo apk add": 4}
_BREW = 3
_APT = re.compile(
    r"sudo apt (?:update && sudo apt )?install (?:-y )?(?P<names>[\w.+-]+(?: [\w.+-]+)*)(?= {2,3}#|$| &&|;)"
)
# What is the host's own, whatever runs in a container on it.
_OF_HOST = re.compile(r"nvidia|docker|containerd|^linux-|dkms|amdgpu|libnvidia|mokutil")


_DRIVER = re.compile(r"sudo ubuntu-drivers install(?: --gpgpu)?")
# https://rpmfusion.org/Howto/NVIDIA, https://wiki.archlinux.org/title/NVIDIA,
# https://wiki.gentoo.org/wiki/NVIDIA/nvidia-drivers, https://wiki.debian.org/NvidiaGraphicsDrivers
_RPM_FUSION = "https://mirrors.rpmfusion.org/{0}/fedora/rpmfusion-{0}-release-$(rpm -E %fedora).noarch.rpm"
_BOTH = f"{_RPM_FUSION.format('free')} {_RPM_FUSION.format('nonfree')}"
_DRIVERS = {
    "sudo dnf install": f"sudo dnf install {_BOTH} && sudo dnf install akmod-nvidia xorg-x11-drv-nvidia-cuda",
    "sudo pacman -S": "sudo pacman -S nvidia-open nvidia-utils",
    "sudo emerge": "sudo emerge x11-drivers/nvidia-drivers",
}


# https://wiki.nixos.org/wiki/NixOS_modules: nothing under /etc/modprobe.d stays there, the configuration writes it.
_MODULE_OPTION = re.compile(
    r"echo '(?P<option>options [^'\n]{3,120})' \| sudo tee \S+ && sudo update-initramfs -u(?: && sudo reboot)?"
)


# https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/: Red Hat's kin take NVIDIA's own packages.
_RED_HAT = re.compile(
    r"(?:red hat|rhel|(?P<kin>centos|rocky|alma)|oracle linux)\D{0,40}(?P<release>[789]|10)\b"
    r"|\.el(?P<kernel>[789]|10)(?:[._]|$)",
    re.I,
)
_NVIDIAS_OWN = "https://developer.download.nvidia.com/compute/cuda/repos/rhel{0}/x86_64/cuda-rhel{0}.repo"


def _for_red_hat(facts: Facts) -> Optional[str]:
    """The driver's installation on Red Hat's systems, which RPM Fusion's akmods do not suit."""
    found = _RED_HAT.search(_named_system(facts))
    if found is None:
        return None
    release = found["release"] or found["kernel"]
    repository = _NVIDIAS_OWN.format(release)
    if release == "7":
        add, packages = "sudo yum-config-manager --add-repo", "sudo yum install nvidia-driver-latest-dkms"
    else:
        add = "sudo dnf config-manager --add-repo"
        packages = (
            "sudo dnf install nvidia-open" if release == "10" else "sudo dnf module install nvidia-driver:latest-dkms"
        )
    with_dkms = f"sudo {packages.split()[1]} install epel-release && " if found["kin"] and release != "10" else ""
    return f"{with_dkms}{add} {repository} && {packages}"


def on_nixos(facts: Facts) -> bool:
    """Whether the system is NixOS, which is changed by its configuration alone."""
    return "nixos" in _named_system(facts).lower() or facts.error("nixos-told") is not None


def _early_image(facts: Facts, step: str) -> str:
    """A step that sets a module's option, or writes the early image anew, by the tool of this distribution."""
    if on_nixos(facts):
        configured = r'boot.extraModprobeConfig = "\g<option>";   # in configuration.nix; then '
        return _MODULE_OPTION.sub(configured + "sudo nixos-rebuild boot && sudo reboot", step)
    tool = _tool(facts)
    unknown = not facts.platform.os and tool == "sudo apt install" and not facts.error("calls-apt")
    if unknown and facts.platform.system in (None, "Linux") and "ubuntu" not in _named_system(facts).lower():
        return step.replace(_INITRAMFS, _ANY_EARLY_IMAGE)
    return step.replace(_INITRAMFS, _EARLY_IMAGES.get(tool, _INITRAMFS))


def _driver(facts: Facts) -> Optional[str]:
    """The command for NVIDIA's driver where it is another than Ubuntu's."""
    red_hat = _for_red_hat(facts)
    if red_hat:
        return red_hat
    debian = re.search(r"\bdebian\b|\bkali\b", facts.platform.os or "", re.I)
    return "sudo apt install nvidia-driver" if debian else _DRIVERS.get(_tool(facts))


def adapted(facts: Facts, step: str) -> str:
    """A step that calls Debian's apt, for the distribution, the Mac or the container that the facts name."""
    driver = _driver(facts)
    step = _DRIVER.sub(driver, step) if driver else step
    step = _by_yum(facts, _early_image(facts, step))
    found = _APT.search(step)
    if found is None:
        return step
    names, tool = found["names"].split(), _tool(facts)
    known = all(name in _NAMES or re.fullmatch(r"python3(?:\.\d{1,2})?-dev", name) for name in names)
    root = facts.platform.container in ("docker", "podman", "kubernetes") or facts.platform.service == "colab"
    if facts.platform.system == "Darwin":
        brew = _named(names, _BREW)
        return step.replace(found[0], f"brew install {brew}" if brew else "xcode-select --install") if known else step
    if tool == "sudo apt install" and root and not any(map(_OF_HOST.search, names)):
        # Inside a container one is root, and there is neither sudo nor a list of packages.
        return step.replace(found[0], f"apt-get update && apt-get install -y {' '.join(names)}")
    if tool not in _COLUMNS or not known:
        return step
    return step.replace(found[0], f"{tool} {_named(names, _COLUMNS[tool])}".strip())


def _named(names: list[str], column: int) -> str:
    """The packages of another system that do what these of Debian do, each once."""
    words = " ".join(_NAMES[name][column] if name in _NAMES else _of_python(name, column) for name in names)
    return " ".join(dict.fromkeys(words.split()))


def _of_python(name: str, column: int) -> str:
    """Python's headers, ``python3.11-dev``, by another system's name."""
    devel = name.replace("-dev", "-devel")
    return (devel, "python", devel, "", "python3-dev")[column]
