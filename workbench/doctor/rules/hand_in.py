"""Steps that give a GPU to what runs apart from its host: a container, a batch job, WSL."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import Facts
from workbench.doctor.versions import older

# From https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html: the distributions do
# not have the package in their own repositories.
_RPM_REPOSITORY = "https://nvidia.github.io/libnvidia-container/stable/rpm/nvidia-container-toolkit.repo"


_TOOLKIT_BY_DNF = (
    f"On the host: curl -s -L {_RPM_REPOSITORY} | sudo tee /etc/yum.repos.d/nvidia-container-toolkit.repo",
    "sudo dnf install -y nvidia-container-toolkit",
)


_TOOLKIT_BY_ZYPPER = (
    f"On the host: sudo zypper ar {_RPM_REPOSITORY}",
    "sudo zypper --gpg-auto-import-keys install -y nvidia-container-toolkit",
)


_TOOLKIT_BY_APT = (
    "On the host (Debian, Ubuntu): curl -fsSL https://nvidia.github.io/libnvidia-container/gpgkey | sudo gpg --dearmor "
    "-o /usr/share/keyrings/nvidia-container-toolkit-keyring.gpg",
    "curl -s -L https://nvidia.github.io/libnvidia-container/stable/deb/nvidia-container-toolkit.list | sed 's#deb "
    "https://#deb [signed-by=/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg] https://#g' | sudo tee "
    "/etc/apt/sources.list.d/nvidia-container-toolkit.list",
    "sudo apt update && sudo apt install -y nvidia-container-toolkit",
)


_TOOLKIT_BY_PACMAN = ("On the host: sudo pacman -S --needed nvidia-container-toolkit",)


_PACMAN = re.compile(r"\b(?:arch(?: linux)?|cachyos|manjaro|endeavouros)\b", re.IGNORECASE)


_DNF = re.compile(r"\b(?:rocky|red hat|rhel|fedora|alma ?linux|centos|oracle linux|amazon linux)\b", re.IGNORECASE)


_ZYPPER = re.compile(r"\b(?:open)?suse\b|\bsles\b", re.IGNORECASE)


ASK_DOCKER = (
    "docker run --gpus all …   # in compose: deploy: {resources: {reservations: {devices: [{driver: nvidia, count: "
    "all, capabilities: [gpu]}]}}}; if it answers 'could not select device driver', the host lacks the toolkit:"
)


_CONFIGURE = "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"


# Systems that are given out as a whole bring driver and toolkit in their own way.
_HOME_ASSISTANT = (
    "Home Assistant OS has no NVIDIA driver: run the server on another system, and name its address here.",
)


_APPLIANCES = {
    "truena": (
        "TrueNAS: Apps, Configuration, Settings: tick 'Install NVIDIA Drivers'; nvidia-smi in its shell must list the "
        "GPU",
        "In the app's settings, GPU Configuration: choose the card; in a compose file of one's own: deploy: "
        "{resources: {reservations: {devices: [{driver: nvidia, count: all, capabilities: [gpu]}]}}}",
    ),
    "unraid": (
        "Unraid: Apps: install the plugin 'Nvidia Driver', and restart the docker service; nvidia-smi must list the "
        "GPU",
        "In the container's template: Extra Parameters --runtime=nvidia, and the variables NVIDIA_VISIBLE_DEVICES=all "
        "and NVIDIA_DRIVER_CAPABILITIES=all",
    ),
}


def _install_toolkit(system: Optional[str]) -> tuple[str, ...]:
    """The commands for the distribution that is told, those of Debian where none is."""
    if _DNF.search(system or ""):
        return _TOOLKIT_BY_DNF
    if _PACMAN.search(system or ""):
        return _TOOLKIT_BY_PACMAN
    return _TOOLKIT_BY_ZYPPER if _ZYPPER.search(system or "") else _TOOLKIT_BY_APT


_ON_WINDOWS = (
    "Docker Desktop: Settings, General: 'Use the WSL 2 based engine'; only that one has the GPU, and NVIDIA's toolkit "
    "is part of it",
    "wsl --update; wsl --shutdown   # in PowerShell; then start Docker Desktop anew, in its newest release",
    "docker run --rm --gpus all nvidia/cuda:12.6.3-base-ubuntu24.04 nvidia-smi   # must list the GPU",
    "A docker that was installed inside WSL itself needs the NVIDIA container toolkit there: sudo nvidia-ctk runtime "
    "configure --runtime=docker && sudo systemctl restart docker",
)


_ON_A_MAC = (
    "In compose: take deploy.resources.reservations.devices (and runtime: nvidia, gpus: all) out, or use the project's "
    "file or image for the CPU; docker run without --gpus",
    "or run the program without docker, in a Python of the Mac, where torch has the Mac's GPU: device='mps'",
)


FIRST_DRIVER = "471.41"
"""The first driver of Windows for all that has CUDA in WSL; those before were previews."""


def _driver_for_wsl(facts: Facts) -> tuple[str, ...]:
    if not older(facts.driver.version, FIRST_DRIVER):
        return ()
    return (
        f"Install the newest NVIDIA driver in Windows: https://www.nvidia.com/drivers   # {facts.driver.version} has "
        f"no CUDA for WSL 2, {FIRST_DRIVER} is the first that has",
    )


def told_of_a_container(facts: Facts) -> Optional[str]:
    """The engine that a paste names beside a torch that finds no GPU; that it is docker says less."""
    kind = facts.platform.container
    answered = facts.error("cuda-unknown-error", "devices-busy", "error-802", "error-803", "error-804", "error-2-init")
    blind = (
        facts.torch.cuda_available is False and facts.torch.build != "cpu" and not (facts.driver.version or answered)
    )
    without_smi = kind in ("docker", "kubernetes", "podman") and facts.error("nvidia-smi-missing") is not None
    nvml = facts.error("nvml-fails")
    without_nvml = kind == "docker" and nvml is not None and "an't initialize" in nvml.text  # torch's own warning
    known = kind in ("podman", "kubernetes", "apptainer") or without_smi or without_nvml or _host_answers(facts)
    seen_to = blind or without_smi or without_nvml or facts.error("no-nvidia-driver")
    told_better = facts.error("singularity-no-nv-files") is not None
    return kind if known and seen_to and facts.origin == "report" and not told_better else None


def _host_answers(facts: Facts) -> bool:
    """Whether nvidia-smi is shown at work, and torch in a docker container finds no driver: another container is."""
    of_torch = facts.error("no-nvidia-driver") is not None and facts.platform.container == "docker"
    return of_torch and bool(facts.driver.version) and facts.driver.error is None


def hand_in_gpu(facts: Facts) -> tuple[str, ...]:
    """How the container engine that is used here is told to hand in the GPU."""
    kind = facts.platform.container
    if facts.platform.system == "Darwin":
        return _ON_A_MAC
    if fixes.on_windows(facts) or (facts.platform.wsl and facts.error("docker-desktop")):
        return (*_driver_for_wsl(facts), *_ON_WINDOWS)
    if kind == "kubernetes":
        return (
            "In the pod: resources.limits: {nvidia.com/gpu: 1}, and where NVIDIA's runtime is not the default (k3s, "
            "microk8s): runtimeClassName: nvidia",
            "kubectl describe nodes | grep nvidia.com/gpu   # 0 or absent: the device plugin does not run there, or "
            "finds no driver; the plugin's own pod needs runtimeClassName: nvidia too",
            "sudo nvidia-ctk runtime configure --runtime=containerd --set-as-default && sudo systemctl restart "
            "containerd   # on the node, which needs the driver and the NVIDIA container toolkit",
        )
    if kind == "podman":
        return (
            "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml   # on the host, anew after each driver update",
            "sudo nvidia-modprobe -u -c=0   # makes /dev/nvidia-uvm: without it nvidia-smi works and CUDA does not",
            "podman run --device nvidia.com/gpu=all --security-opt=label=disable …",
        )
    if kind == "apptainer":
        return (
            "apptainer exec --nv <image> nvidia-smi   # --nv hands the GPU in (AMD: --rocm); singularity takes it too",
            "nvidia-smi   # on the same node, outside: in a batch system only a job that asked for a GPU has one",
            "sudo nvidia-modprobe -u -c=0   # on the node, where nvidia-smi works and CUDA does not",
        )
    if kind == "lxc":
        return lxc_steps(facts)
    appliance = facts.error("appliance")
    if appliance is not None:
        return _APPLIANCES.get(appliance.values.get("system", "").lower()[:6], _HOME_ASSISTANT)
    snap = kind == "docker (snap)"
    refused = facts.error("container-no-gpu-driver")
    # An engine that refuses the GPU lacks the toolkit; where nobody has asked for one, that comes first.
    asked = facts.error("gpus-handed-in", "container-no-gpu-driver", "container-finds-no-cdi-device")
    # Nor does it lack it where a GPU was handed to another container, which --gpus in a paste then tells of.
    first = () if snap or (asked and not _host_answers(facts)) else (ASK_DOCKER,)
    return (
        *(
            (
                "sudo snap remove docker   # docker from snap reaches neither the host's toolkit nor its settings; "
                "Docker Desktop neither: docker context use default",
                "curl -fsSL https://get.docker.com | sudo sh   # docker.com's own packages",
            )
            if snap
            else ()
        ),
        *first,
        *(
            (_CONFIGURE + "   # not found: the toolkit is missing, install it:",)
            if refused and "runtime" in refused.text
            else ()
        ),
        *_install_toolkit(facts.platform.os),
        _CONFIGURE,
        "docker run --gpus all …" + ("" if snap else "   # docker from snap is a known trap: use the distribution's"),
    )


def lxc_steps(facts: Facts) -> tuple[str, ...]:
    """How a container of LXC, LXD, Incus or Proxmox gets the GPU: it shares the host's kernel module."""
    version = facts.driver.version or "<the host's version>"
    return (
        "nvidia-smi   # on the host (Proxmox itself), which needs the driver: its kernel module serves the container "
        "too",
        "LXD, Incus: lxc config device add <container> gpu gpu; lxc config set <container> nvidia.runtime true; lxc "
        "restart <container>",
        "Proxmox: dev0: /dev/nvidia0, dev1: /dev/nvidiactl, dev2: /dev/nvidia-uvm, dev3: /dev/nvidia-uvm-tools in "
        "/etc/pve/lxc/<id>.conf; nvidia-modprobe -u -c=0 on the host makes the uvm ones",
        f"sh NVIDIA-Linux-x86_64-{version}.run --no-kernel-module   # in the container (not with nvidia.runtime): the "
        "very version of the host",
    )


ASK_SLURM = "srun --gres=gpu:1 …, or #SBATCH --gres=gpu:1   # a login node, and a job that asked for none, has no GPU"


def ask_batch_system(facts: Facts) -> tuple[str, ...]:
    """On a cluster a GPU belongs to who asked for it."""
    return (ASK_SLURM,) if facts.platform.service == "slurm" and facts.origin == "report" else ()


WSL_GUIDE = "https://docs.nvidia.com/cuda/wsl-user-guide/"


def wsl_steps(facts: Facts) -> tuple[str, ...]:
    """Under WSL the driver is the one of Windows, and only WSL 2 reaches it."""
    first = facts.platform.wsl_version == 1
    return (
        "wsl --set-version <distribution> 2   # in PowerShell: WSL 1 has no GPU"
        if first
        else "wsl -l -v   # in PowerShell; WSL 1 has no GPU: wsl --set-version <distribution> 2",
        "Install the NVIDIA driver in Windows, none inside WSL: https://www.nvidia.com/drivers",
        "wsl --update; wsl --shutdown   # in PowerShell, then open the distribution again",
        "export LD_LIBRARY_PATH=/usr/lib/wsl/lib:$LD_LIBRARY_PATH && /usr/lib/wsl/lib/nvidia-smi   # must list the GPU",
    )
