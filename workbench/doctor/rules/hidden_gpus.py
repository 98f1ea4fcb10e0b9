"""Rules about what keeps a GPU from a program though the driver works: containers, WSL, variables, modes, users."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules import web_uis
from workbench.doctor.rules.common import (
    ALL_GPU_BENCHES,
    ISSUES,
    PASSED,
    Result,
    Rule,
    cuda_works,
    evidence,
    from_message,
    gpu_names,
    no_gpu_told,
    seen,
)

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
_DNF = re.compile(r"\b(?:rocky|red hat|rhel|fedora|alma ?linux|centos|oracle linux|amazon linux)\b", re.IGNORECASE)
_ZYPPER = re.compile(r"\b(?:open)?suse\b|\bsles\b", re.IGNORECASE)


_ASK_DOCKER = (
    "docker run --gpus all …   # in compose: deploy: {resources: {reservations: {devices: [{driver: nvidia, count: "
    "all, "
    "capabilities: [gpu]}]}}}; if it answers 'could not select device driver', the host lacks the toolkit:"
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
        "{resources: "
        "{reservations: {devices: [{driver: nvidia, count: all, capabilities: [gpu]}]}}}",
    ),
    "unraid": (
        "Unraid: Apps: install the plugin 'Nvidia Driver', and restart the docker service; nvidia-smi must list the "
        "GPU",
        "In the container's template: Extra Parameters --runtime=nvidia, and the variables NVIDIA_VISIBLE_DEVICES=all "
        "and "
        "NVIDIA_DRIVER_CAPABILITIES=all",
    ),
}


def _install_toolkit(system: Optional[str]) -> tuple[str, ...]:
    """The commands for the distribution that is told, those of Debian where none is."""
    if _DNF.search(system or ""):
        return _TOOLKIT_BY_DNF
    return _TOOLKIT_BY_ZYPPER if _ZYPPER.search(system or "") else _TOOLKIT_BY_APT


def container_without_gpu_runtime(facts: Facts) -> Result:
    """The container was started without access to the GPU."""
    error = facts.error("container-no-gpu-driver", "image-found-no-driver")
    machine = facts.platform
    visible = facts.environment.get("NVIDIA_VISIBLE_DEVICES")
    inside = bool(machine.container) and machine.devices is not None
    no_device = inside and not any(
        node.startswith(("/dev/nvidia", "/dev/kfd", "/dev/dxg")) for node in machine.devices or ()
    )
    asked = visible not in (None, "", "void", "none")
    expects = asked or "nvidia" in (machine.gpu_vendors or ()) or facts.error("no-nvidia-driver") is not None
    told = _told_of_a_container(facts) if error is None else None
    if error is None and told is None and not (no_device and expects):
        return None if machine.container is None or machine.devices is None else PASSED
    if cuda_works(facts):
        return PASSED
    return [
        Finding(
            "container-without-gpu-runtime",
            "error",
            "Likely: the container was started without the GPU"
            if told
            else "The container was started without the GPU",
            _why_without(facts),
            {
                **evidence(container=machine.container, devices=machine.devices, NVIDIA_VISIBLE_DEVICES=visible),
                **seen(error or facts.error("no-nvidia-driver")),
            },
            hand_in_gpu(facts),
            ISSUES + "NVIDIA/nvidia-docker/issues/1642",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def _why_without(facts: Facts) -> str:
    if facts.platform.system == "Darwin":
        return "Docker on a Mac runs in a Linux without a GPU: it gets neither NVIDIA's, nor the Mac's own."
    return (
        "The GPU reaches a container only where the engine is told to hand it in. The host needs the NVIDIA "
        "container toolkit beside its driver."
    )


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


def _told_of_a_container(facts: Facts) -> Optional[str]:
    """The engine that a paste names beside a torch that finds no GPU; that it is docker says less."""
    kind = facts.platform.container
    answered = facts.error("cuda-unknown-error", "devices-busy", "error-802", "error-803", "error-804", "error-2-init")
    blind = (
        facts.torch.cuda_available is False and facts.torch.build != "cpu" and not (facts.driver.version or answered)
    )
    without_smi = kind == "docker" and facts.error("nvidia-smi-missing") is not None
    nvml = facts.error("nvml-fails")
    without_nvml = kind == "docker" and nvml is not None and "an't initialize" in nvml.text  # torch's own warning
    known = kind in ("podman", "kubernetes", "apptainer") or without_smi or without_nvml
    seen_to = blind or without_smi or without_nvml or facts.error("no-nvidia-driver")
    told_better = facts.error("singularity-no-nv-files") is not None
    return kind if known and seen_to and facts.origin == "report" and not told_better else None


def hand_in_gpu(facts: Facts) -> tuple[str, ...]:
    """How the container engine that is used here is told to hand in the GPU."""
    kind = facts.platform.container
    if facts.platform.system == "Darwin":
        return _ON_A_MAC
    if fixes.on_windows(facts) or (facts.platform.wsl and facts.error("docker-desktop")):
        return _ON_WINDOWS
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
    first = () if asked or snap else (_ASK_DOCKER,)
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


def cuda_visible_devices_wrong(facts: Facts) -> Result:
    """CUDA_VISIBLE_DEVICES hides every GPU or names one that is not there."""
    unallocated = facts.error("no-dev-files")
    value = facts.environment.get("CUDA_VISIBLE_DEVICES", "NoDevFiles" if unallocated else None)
    if value is None or cuda_works(facts):
        return PASSED
    shown = value.strip().strip("'\"")
    # People name one card and have eight; only a program's list counts them.
    listed = facts.origin == "live" or not {"nvidia-smi", "collect_env"}.isdisjoint(facts.formats)
    fault = _visible_fault(shown, len(facts.nvidia_gpus()) if facts.gpus and listed else None)
    if fault is None and facts.error("no-cuda-gpus") and shown.startswith("$"):
        fault = f"is set to {shown}, which is no number here"
    if fault is None and facts.error("no-cuda-gpus") and not facts.gpus and re.fullmatch(r"[1-9]\d{0,3}", shown):
        fault = f"names GPU {shown}, which is not there"
    if fault is None:
        return PASSED
    by_slurm = shown == "NoDevFiles"
    # On a box without any GPU there is nothing to hide.
    nothing_to_hide = facts.gpus == () and not facts.has_nvidia() and not by_slurm and not facts.error("no-cuda-gpus")
    return [
        Finding(
            "cuda-visible-devices-wrong",
            "info" if nothing_to_hide else "error",
            "CUDA_VISIBLE_DEVICES hides every GPU" if fault == "hides all" else f"CUDA_VISIBLE_DEVICES {fault}",
            "CUDA shows a process only the devices listed there, up to the first one that does not exist; torch "
            "then says "
            "'No CUDA GPUs are available' although nvidia-smi lists them.",
            {
                **evidence(gpus=gpu_names(facts)),
                "CUDA_VISIBLE_DEVICES": repr(value),
                **seen(unallocated or facts.error("no-cuda-gpus")),
            },
            ("Ask Slurm for a GPU: srun --gres=gpu:1 …, or #SBATCH --gres=gpu:1 in the script",)
            if by_slurm
            else (
                fixes.unset(facts, "CUDA_VISIBLE_DEVICES", "or set it to indices from 0, before the process starts"),
            ),
            ISSUES + "KeYang8/WITT/issues/34",
            affects=ALL_GPU_BENCHES,
            observed=facts.error("no-cuda-gpus") is not None or facts.torch.cuda_available is False,
        )
    ]


def _visible_fault(value: str, count: Optional[int]) -> Optional[str]:
    if value in ("", "-1", "void", "none", "NoDevFiles"):
        return "hides all"
    first = value.split(",")[0].strip()
    if re.fullmatch(r"-?\d{1,6}", first):
        index = int(first)
        if index < 0:
            return "hides all"
        if count is not None and index >= count:
            return f"names GPU {index}, but there are only {count}"
    return None


# What torch says of a GPU that it sees, and has no code for.
_SEEN_BY_TORCH = ("unsupported-capability", "gpu-too-old-for-torch", "no-kernel-image")


def no_cuda_gpus(facts: Facts) -> Result:
    """torch sees no device, and nothing more precise is known."""
    error = facts.error("no-cuda-gpus", "needs-gpu")
    if error is None and (not no_gpu_told(facts) or facts.error(*_SEEN_BY_TORCH)):
        return PASSED
    if error is None and (facts.torch.build in ("cpu", "mps") or facts.platform.system == "Darwin"):
        return PASSED
    hip = facts.error("hip-no-gpus")
    if error is None and hip is not None and "no hip gpus" in hip.text.lower():
        return PASSED  # only a build for ROCm says so
    answered = error is not None and error.id == "no-cuda-gpus"
    windows = fixes.on_windows(facts) and not answered and facts.torch.build is None
    by_conda = not answered and _by_conda(facts)
    return [
        Finding(
            "no-cuda-gpus-available",
            "error",
            "The file was saved from a GPU, and the program wants it on a CPU without being told so"
            if _load_on_cpu(facts) and facts.error("cpu-asked")
            else "torch sees no GPU: its usual builds have no code for AMD's"
            if not answered and facts.has_amd() and not facts.nvidia_gpus()
            else "torch sees no GPU; on Windows it is most likely the build without CUDA"
            if windows
            else "torch sees no GPU; most likely the container was started without it"
            if not answered and facts.platform.container and not facts.error("gpus-handed-in")
            else "torch sees no GPU; most likely this cloud machine has no NVIDIA driver"
            if _plain_cloud_image(facts)
            else "torch sees no GPU; most likely it is a build without CUDA, which conda brings unless told"
            if by_conda
            else "torch sees no GPU"
            if answered or facts.torch.build == "cuda" or facts.driver.error
            else "torch sees no GPU; most likely it is a build without CUDA",
            "The driver answered, but offered no device to this process: CUDA_VISIBLE_DEVICES, a job scheduler, or a "
            "container limited to other devices."
            if answered
            else "Most often torch is a build without CUDA, which is what pip brings on Windows; else the driver is "
            "missing or too old, or CUDA_VISIBLE_DEVICES hides the GPU.",
            {
                **evidence(gpus=gpu_names(facts), driver=facts.driver.version, torch__version=facts.torch.version),
                **evidence(cuda_available=facts.torch.cuda_available),
                **seen(error),
            },
            _look_for_gpu(facts, answered),
            ISSUES + ("KeYang8/WITT/issues/34" if answered else "pytorch/pytorch/issues/30664"),
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def _by_conda(facts: Facts) -> bool:
    """Whether torch came with conda, as far as is told without a word on CUDA."""
    return facts.python.kind == "conda" and facts.torch.build is None and facts.torch.asked_cuda is None


_CLOUD_DRIVER = (
    "sudo apt update && sudo apt install -y ubuntu-drivers-common && sudo ubuntu-drivers install --gpgpu && sudo "
    "reboot   # a cloud's plain image has no NVIDIA driver; nvidia-smi must answer then. Or start from one with it: "
    "AWS's Deep Learning AMI, Google's Deep Learning VM"
)


def _plain_cloud_image(facts: Facts) -> bool:
    """A machine of a cloud on which nothing tells of a driver, nor of a torch without CUDA."""
    bare = not facts.platform.container and facts.platform.service is None and not facts.platform.wsl
    told = facts.error("cloud-machine") is not None and not fixes.on_windows(facts)
    return told and bare and facts.driver.version is None and facts.torch.build is None and not _by_conda(facts)


def _look_for_gpu(facts: Facts, answered: bool) -> tuple[str, ...]:
    if not answered and facts.has_amd() and not facts.nvidia_gpus():
        return _for_amd(facts)
    hidden = (
        fixes.unset(facts, "CUDA_VISIBLE_DEVICES")
        if "CUDA_VISIBLE_DEVICES" in facts.environment
        else "Look for CUDA_VISIBLE_DEVICES where the program is started, and in its code."
    )
    asked = ask_batch_system(facts)
    if answered:
        return (*asked, hidden, "nvidia-smi -L")
    inside = (
        (
            *(() if facts.error("gpus-handed-in") else (_ASK_DOCKER,)),
            "ls -l /dev/nvidia*   # in the container: without nvidia-uvm there, nvidia-smi works and CUDA does not: "
            "start it with --gpus all, or name /dev/nvidia-uvm beside the others",
        )
        if facts.platform.container
        else wsl_steps(facts)
        if facts.platform.wsl
        else ()
    )
    on_cpu = _load_on_cpu(facts)
    wanted = bool(on_cpu) and facts.error("cpu-asked") is not None
    return (
        *(on_cpu if wanted else ()),
        *asked,
        *inside,
        *((_CLOUD_DRIVER,) if _plain_cloud_image(facts) else ()),
        *_build_and_driver(facts),
        hidden,
        *(() if wanted else on_cpu),
    )


def _build_and_driver(facts: Facts) -> tuple[str, ...]:
    """A build with CUDA and the driver, what is known to be there last."""
    asks = (
        f'{fixes.python_command(facts)} -c "import torch; print(torch.__version__, torch.version.cuda)"   # in the '
        "program's own environment: +cpu or None is a build without CUDA"
    )
    where = "https://www.nvidia.com/drivers" if fixes.on_windows(facts) else "sudo ubuntu-drivers install"
    driver = f"nvidia-smi   # must list the GPU; if not, install the driver ({where}) and reboot"
    if facts.torch.build == "cuda":
        return (driver, asks)
    conda = "conda remove -y pytorch torchvision torchaudio cpuonly   # those of them that conda list names"
    anew = (*((conda,) if _by_conda(facts) else ()), *fixes.reinstall_torch(facts))
    if web_uis.installs_torch_itself(facts):
        return (web_uis.torch_anew(facts), driver, asks)
    # Of a build that nothing tells of, the look comes first: what follows takes a torch away that may be sound.
    return (f"{asks}; then:", *anew, driver) if facts.torch.build is None else (*anew, asks, driver)


def _load_on_cpu(facts: Facts) -> tuple[str, ...]:
    """A file that was saved from a GPU can be read without one."""
    error = facts.error("needs-gpu")
    if error is None or "deserialize object on a CUDA device" not in error.text:
        return ()
    how = "torch.load(path, map_location='cpu')   # in the program, where it loads the file"
    if facts.error("cpu-asked"):
        return (f"{how}: it was saved from a GPU, and is to run on the CPU",)
    return (f"or without a GPU: {how}",)


def _for_amd(facts: Facts) -> tuple[str, ...]:
    """torch's usual builds have nothing for AMD's GPUs."""
    if fixes.on_windows(facts):
        return (
            "pip's torch for Windows has no code for AMD's GPUs: take AMD's own wheels for Windows, where the card is "
            "listed (RX 7000 and newer): https://rocm.docs.amd.com/projects/radeon-ryzen/en/latest/",
            "or Linux or WSL 2 with the ROCm build, where the card is listed",
            "or llama.cpp built with Vulkan, or torch-directml (an older torch)",
        )
    return (
        fixes.install(
            facts,
            "torch",
            "torchvision",
            options=f"--force-reinstall --index-url {fixes.rocm_index(facts, newest=True)}",
        ),
        "rocminfo | grep gfx   # must list the card; the user has to be in the groups render and video",
    )


def compute_mode_exclusive(facts: Facts) -> Result:
    """Exclusive compute mode lets one process in."""
    error = facts.error("devices-busy")
    modes = [gpu.compute_mode for gpu in facts.nvidia_gpus() if gpu.compute_mode]
    limited = next((mode for mode in modes if mode.lower().replace("_", " ")[:2] in ("e.", "ex", "pr")), None)
    if error is None and (limited is None or cuda_works(facts) is not False):
        return None if not modes else PASSED
    return [
        Finding(
            "compute-mode-exclusive",
            "error",
            "The GPU accepts one process only, or none" if limited else "The GPU is busy or unavailable",
            "In exclusive compute mode a second process is refused with 'all CUDA-capable devices are busy or "
            "unavailable'. "
            "A vGPU guest without a licence and a half-installed driver say the same.",
            {**evidence(compute_mode=limited), **seen(error)},
            (
                *(
                    (
                        "nvidia-smi; echo $CUDA_VISIBLE_DEVICES   # in the job: it must be the GPU that Slurm gave, "
                        "not one "
                        "set by hand; in a container pass it on",
                        "#SBATCH --exclusive, or ask the administrators: without ConstrainDevices=yes in cgroup.conf "
                        "jobs "
                        "meet on one GPU",
                    )
                    if facts.platform.service == "slurm" and facts.origin == "report"
                    else ()
                ),
                "sudo nvidia-smi -c 0   # default mode: several processes",
                "nvidia-smi   # which process holds it",
            ),
            ISSUES + "NVIDIA/DIGITS/issues/2005",
            affects=ALL_GPU_BENCHES,
            observed=error is not None,
        )
    ]


def mig(facts: Facts) -> Result:
    """MIG: a process sees one instance only."""
    error = facts.error("mig-parse")
    if error and "num_gpus" in error.text and not facts.error("mig-told"):
        error = None
    value = facts.environment.get("CUDA_VISIBLE_DEVICES", "")
    several = value.count("MIG-") > 1
    enabled = [gpu for gpu in facts.nvidia_gpus() if gpu.mig]
    if error is None and not several:
        if enabled and not facts.error("mig-no-devices"):
            return [_mig_note(facts)]
        return None if not any(gpu.mig is not None for gpu in facts.gpus or ()) else PASSED
    return [
        Finding(
            "mig-uuid-in-cuda-visible-devices",
            "error",
            "A MIG instance is named in a way that this program does not understand",
            "One process sees one MIG instance; several UUIDs, or code that expects plain numbers, fail.",
            {**evidence(CUDA_VISIBLE_DEVICES=value), **seen(error)},
            (
                "export CUDA_VISIBLE_DEVICES=MIG-<UUID>   # one of those that nvidia-smi -L lists, in each process",
                "or in docker: --gpus '\"device=0:0\"'; or sudo nvidia-smi -mig 0 to switch MIG off",
            ),
            ISSUES + "pytorch/pytorch/issues/130181",
            affects=ALL_GPU_BENCHES,
            observed=error is not None,
        )
    ]


def _mig_note(facts: Facts) -> Finding:
    return Finding(
        "mig-mode",
        "info",
        "MIG is on: a process sees one instance with a part of the memory",
        "Memory and speed are those of the instance, not of the whole card.",
        evidence(gpus=gpu_names(facts)),
        (),
        "https://docs.nvidia.com/datacenter/tesla/mig-user-guide/",
        affects=("vram",),
        observed=True,
    )


def wsl_libcuda(facts: Facts) -> Result:
    """WSL: a Linux driver inside, or libcuda not on the loader's path."""
    if facts.platform.wsl is not True:
        return None if facts.platform.wsl is None else PASSED
    linux_driver = next((name for name in facts.packages if name.startswith("nvidia-driver-")), None)
    broken = cuda_works(facts) is False
    error = None if facts.environment.get("CUDA_VISIBLE_DEVICES") is not None else facts.error("no-cuda-gpus")
    told = no_gpu_told(facts) and facts.torch.build != "cpu"
    signs = linux_driver or facts.driver.libcuda == "" or facts.error("no-lcuda") or error or told
    # Another program may find another libcuda than torch, for which all is well.
    works = cuda_works(facts) and not (error and "cuInit" in error.text)
    if works or not (broken or linux_driver or error) or not signs:
        return PASSED
    return [
        Finding(
            "wsl-libcuda",
            "error",
            "Under WSL the Windows driver's libcuda is not found, or another one comes before it",
            "WSL takes the driver from Windows through /usr/lib/wsl/lib; a Linux driver installed inside hides it, and "
            "programs from Nix or with a library path of their own do not look there.",
            {
                **evidence(
                    libcuda=facts.driver.libcuda,
                    kernel=facts.platform.kernel,
                    wsl=facts.platform.wsl,
                    cuda_available=facts.torch.cuda_available,
                ),
                **seen(error),
            },
            (
                "export LD_LIBRARY_PATH=/usr/lib/wsl/lib:$LD_LIBRARY_PATH   # and into ~/.bashrc",
                "sudo apt purge 'nvidia-driver-*' 'libnvidia-compute-*'   # inside WSL no driver may be installed",
                "wsl --update   # in PowerShell; then install the newest driver on Windows",
            ),
            ISSUES + "microsoft/WSL/issues/8587",
            affects=ALL_GPU_BENCHES,
            observed=broken or error is not None,
        )
    ]


def libcuda_not_visible(facts: Facts) -> Result:
    """nvidia-smi speaks to the kernel module but finds no libcuda."""
    error = facts.error("smi-no-cuda", "libcuda-missing")
    if error is None:
        return PASSED
    wsl = facts.platform.wsl
    if error.id == "libcuda-missing":
        # torch looks in more places than others do, so this may fail where torch works.
        asked_by_another = "ould not load library" in error.text
        there = not cuda_works(facts) and (wsl or facts.driver.smi or facts.driver.version)
        return [_libcuda_missing(facts, error)] if asked_by_another or there else PASSED
    if cuda_works(facts):
        return PASSED
    return [
        Finding(
            "libcuda-not-visible",
            "error",
            "nvidia-smi finds the driver, but no libcuda",
            "The CUDA version in its banner is read from libcuda; without one no CUDA program can start. In a "
            "container "
            "the compute capability of the driver was not asked for; in WSL the files from Windows do not fit.",
            {**evidence(driver=facts.driver.version, container=facts.platform.container), **seen(error)},
            ("wsl --update   # in PowerShell, with the newest NVIDIA driver on Windows; then wsl --shutdown",)
            if wsl
            else (
                "In a container: docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility …",
                "ldconfig -p | grep libcuda   # on the machine itself; reinstall the driver when this is empty",
            ),
            ISSUES + "microsoft/WSL/issues/11589",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def _libcuda_missing(facts: Facts, error: ErrorFact) -> Finding:
    wsl = facts.platform.wsl
    return Finding(
        "libcuda-not-visible",
        "error",
        "libcuda, the driver's library, is on no path of the loader" + (" in this WSL" if wsl else ""),
        "WSL keeps it in /usr/lib/wsl/lib, where programs other than torch do not look."
        if wsl
        else "It comes with the driver; only its folder is not known to the loader, or only libcuda.so.1 is there.",
        {**evidence(driver=facts.driver.version, container=facts.platform.container), **seen(error)},
        (
            "export LD_LIBRARY_PATH=/usr/lib/wsl/lib:$LD_LIBRARY_PATH   # and into ~/.bashrc",
            "wsl --update   # in PowerShell, with the newest NVIDIA driver on Windows; then wsl --shutdown",
        )
        if wsl
        else (
            "ldconfig -p | grep libcuda; sudo ldconfig   # reinstall the driver when this is empty",
            "sudo ln -s libcuda.so.1 <folder of libcuda.so.1>/libcuda.so   # where only the first is there",
            "In a container: docker run --gpus all …",
        ),
        ISSUES + "microsoft/WSL/issues/8587",
        affects=ALL_GPU_BENCHES,
        observed=True,
    )


def wsl_error_2(facts: Facts) -> Result:
    """WSL with several GPUs runs out of pinned memory at start."""
    error = facts.error("error-2-init")
    if error is None:
        return PASSED
    if not facts.platform.wsl:
        return [_one_card_refuses(facts, error)]
    return [
        Finding(
            "wsl-error-2",
            "error",
            "CUDA cannot start for want of pinned memory (error 2)",
            "Under WSL every visible GPU takes pinned memory at start; with several of them it runs out.",
            {**evidence(gpus=gpu_names(facts), kernel=facts.platform.kernel), **seen(error)},
            (
                "export CUDA_VISIBLE_DEVICES=0   # fewer GPUs",
                "more memory= in %UserProfile%\\.wslconfig, then wsl --shutdown",
                "the newest Windows driver, or native Linux",
            ),
            ISSUES + "microsoft/WSL/issues/9092",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def _one_card_refuses(facts: Facts, error: ErrorFact) -> Finding:
    return Finding(
        "cuda-start-out-of-memory",
        "error",
        "CUDA cannot start: one of the GPUs that it sees has no memory for it, or is faulty (error 2)",
        "CUDA touches every visible GPU when it starts; a card that is full, or that hangs, keeps it from all of them.",
        {**evidence(gpus=gpu_names(facts), kernel=facts.platform.kernel), **seen(error)},
        (
            "for i in 0 1 2 3; do CUDA_VISIBLE_DEVICES=$i python -c 'import torch; print(torch.cuda.is_available())'; "
            "done   # which card is it? Leave it out: export CUDA_VISIBLE_DEVICES=<the others>",
            "nvidia-smi; sudo dmesg | grep -i xid   # is it full (end what holds it), or faulty (reset it, or reboot)?",
            "under WSL with several GPUs: more memory= in %UserProfile%\\.wslconfig, then wsl --shutdown",
        ),
        "https://docs.nvidia.com/deploy/xid-errors/index.html",
        affects=ALL_GPU_BENCHES,
        observed=True,
    )


def wsl_symlink_warning(facts: Facts) -> Result:
    """A harmless complaint of ldconfig."""
    return from_message(
        facts,
        ("wsl-symlink",),
        lambda error: Finding(
            "wsl-libcuda-symlink",
            "info",
            "'libcuda.so.1 is not a symbolic link' is harmless",
            "ldconfig says so of the files that WSL mounts; CUDA works all the same.",
            seen(error),
            (),
            ISSUES + "microsoft/WSL/issues/5663",
            observed=True,
        ),
    )


RULES: tuple[Rule, ...] = (
    container_without_gpu_runtime,
    wsl_libcuda,
    libcuda_not_visible,
    wsl_error_2,
    cuda_visible_devices_wrong,
    mig,
    compute_mode_exclusive,
    no_cuda_gpus,
    wsl_symlink_warning,
)
