"""Rules about containers that get the GPU, or should, from a host whose driver, rights or engine stand in the way."""

from __future__ import annotations

from workbench.doctor import fixes
from workbench.doctor.facts import Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ALL_GPU_BENCHES, ISSUES, PASSED, Result, Rule, cuda_works, evidence, seen
from workbench.doctor.rules.hand_in import hand_in_gpu, lxc_steps, told_of_a_container, wsl_steps


def engine_finds_no_driver(facts: Facts) -> Result:
    """The container toolkit is there and finds no library of the NVIDIA driver where the engine runs."""
    error = facts.error("engine-finds-no-driver")
    if error is None:
        return PASSED
    answers = bool(facts.driver.version)
    return [
        Finding(
            "engine-finds-no-driver",
            "error",
            "The device plugin's pod does not see the node's driver: containerd does not use NVIDIA's runtime there"
            if facts.platform.container == "kubernetes" and not facts.error("docker-desktop")
            else "The container engine does not see the host's NVIDIA driver, though one is there"
            if answers
            else "Where the container engine runs, no NVIDIA driver is installed",
            "The NVIDIA Container Toolkit is installed and takes the driver's libraries from the system that the "
            "engine runs in. "
            + (
                "Docker Desktop runs it in a virtual machine, snap and rootless docker in a world of their own."
                if answers
                else "They are not there: only the driver brings them, no package of the toolkit or of CUDA does."
            ),
            {**evidence(driver=facts.driver.version, container=facts.platform.container), **seen(error)},
            _bring_driver(facts, answers),
            ISSUES + "NVIDIA/nvidia-container-toolkit/issues/154",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def _bring_driver(facts: Facts, answers: bool) -> tuple[str, ...]:
    if facts.platform.container == "lxc":
        return lxc_steps(facts)
    if facts.platform.wsl:
        return (
            "/usr/lib/wsl/lib/nvidia-smi   # in WSL, where docker runs: must list the GPU; else the driver of Windows "
            "is missing or old: https://www.nvidia.com/drivers, then wsl --update; wsl --shutdown",
            "sudo apt install --reinstall nvidia-container-toolkit && sudo nvidia-ctk runtime configure "
            "--runtime=docker "
            "&& sudo service docker restart   # in WSL, from 1.14 on, which knows WSL's folder",
            "or use Docker Desktop with its WSL integration in place of a docker inside WSL",
        )
    if facts.platform.container == "kubernetes" and not facts.error("docker-desktop"):
        return hand_in_gpu(facts)[::-1]
    if facts.platform.container == "docker (snap)":
        return hand_in_gpu(facts)
    if answers:
        return (
            "docker context ls; snap list docker   # desktop-linux, rootless or snap: that docker cannot see the "
            "driver",
            "docker context use default   # the docker of the system; where there is none: curl -fsSL "
            "https://get.docker.com | sudo sh",
            "sudo ldconfig; ldconfig -p | grep libnvidia-ml   # empty: reinstall the driver, its libraries are not "
            "known to the loader",
        )
    if fixes.on_windows(facts):
        return (
            "Install the newest NVIDIA driver in Windows: https://www.nvidia.com/drivers   # then nvidia-smi in "
            "PowerShell lists the card",
            "wsl --update; wsl --shutdown   # in PowerShell",
            "Docker Desktop: Settings, General: Use the WSL 2 based engine; restart it   # with Hyper-V it has no GPU",
        )
    return (
        "nvidia-smi   # on the host itself; 'not found' means that the driver is missing there",
        "sudo ubuntu-drivers install && sudo reboot   # or your distribution's driver package",
        "sudo ldconfig; ldconfig -p | grep libnvidia-ml   # where nvidia-smi does work",
    )


def device_rules_refused(facts: Facts) -> Result:
    """An engine without root rights, or inside another container, may not write the rules of a control group."""
    error = facts.error("device-rules-refused")
    if error is None:
        return PASSED
    return [
        Finding(
            "device-rules-refused",
            "error",
            "The container engine may not set which devices a container uses: it runs without the rights for it",
            "Inside an unprivileged container (LXC), and rootless, the control group's device list is out of reach. "
            "The toolkit has a setting that leaves it alone.",
            {**evidence(container=facts.platform.container), **seen(error)},
            (
                "sudo sed -i 's/^#\\?no-cgroups = .*/no-cgroups = true/' /etc/nvidia-container-runtime/config.toml && "
                "sudo systemctl restart docker   # where this docker runs, inside the outer container",
                "or sudo nvidia-ctk config --set nvidia-container-cli.no-cgroups=true --in-place   # does the same",
                "docker run --gpus all nvidia/cuda:12.4.1-base-ubuntu22.04 nvidia-smi   # tries it",
            ),
            "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html#rootless-mode",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def driver_libraries_missing(facts: Facts) -> Result:
    """nvidia-smi is there and the driver's libraries are not."""
    error = facts.error("driver-libraries-missing")
    if error is None or cuda_works(facts):
        return PASSED
    handed_in = facts.platform.container in ("lxc", "podman", "kubernetes", "apptainer")
    steps = (
        hand_in_gpu(facts)
        if handed_in
        else wsl_steps(facts)
        if facts.platform.wsl
        else (
            "ldconfig -p | grep libnvidia-ml; sudo ldconfig   # is it anywhere?",
            "sudo apt install --reinstall nvidia-driver-<branch>   # on the machine itself, then reboot",
            "docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility …   # in a container",
        )
    )
    return [
        Finding(
            "driver-libraries-missing",
            "error",
            "The GPU was handed into this container without the driver's libraries"
            if handed_in
            else "nvidia-smi is here without the driver's libraries",
            "The libraries of the NVIDIA driver are not on the loader's path: the driver was half removed, or a "
            "container holds the program without the host's libraries.",
            {**evidence(container=facts.platform.container), **seen(error)},
            steps,
            "https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def driver_beside_the_path(facts: Facts) -> Result:
    """Google's nodes mount the driver below /usr/local/nvidia, where an image's loader does not look."""
    error = facts.error("driver-in-usr-local-nvidia")
    blind = facts.torch.cuda_available is False or facts.error(*_BLIND) is not None
    shown = facts.environment.get("LD_LIBRARY_PATH") or ""
    if error is None or not blind or cuda_works(facts) or facts.driver.version or "/usr/local/nvidia/lib64" in shown:
        return PASSED
    return [
        Finding(
            "driver-beside-the-path",
            "error",
            "The node's driver is mounted at /usr/local/nvidia, where this image's loader does not look",
            "GKE, and other clusters that do not use NVIDIA's container runtime, mount libcuda there and change "
            "nothing in the image; those made from nvidia/cuda look there, others do not.",
            {**evidence(container=facts.platform.container), **seen(error)},
            (
                "export LD_LIBRARY_PATH=/usr/local/nvidia/lib64:$LD_LIBRARY_PATH PATH=/usr/local/nvidia/bin:$PATH   # "
                "in the pod: env: LD_LIBRARY_PATH, or ENV in the Dockerfile",
                "echo /usr/local/nvidia/lib64 > /etc/ld.so.conf.d/nvidia.conf && ldconfig   # where a program asks the "
                "loader's list (Triton's 'libcuda.so cannot found')",
            ),
            "https://cloud.google.com/kubernetes-engine/docs/how-to/gpus#cuda",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


_BLIND = ("no-nvidia-driver", "no-nvml", "libcuda-missing", "no-lcuda", "vllm-no-device", "no-cuda-gpus", "needs-gpu")


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
    told = told_of_a_container(facts) if error is None else None
    if error is None and told is None and not (no_device and expects):
        return None if machine.container is None or machine.devices is None else PASSED
    if cuda_works(facts):
        return PASSED
    return [
        Finding(
            "container-without-gpu-runtime",
            "error",
            "The container asks for an NVIDIA GPU, and this machine has another kind"
            if _other_graphics(facts)
            else "Docker on this host has nothing that hands in an NVIDIA GPU: its container toolkit is missing"
            if error is not None and "could not select device driver" in error.text and "nvidia" not in error.text
            else "Likely: the container was started without the GPU"
            if told
            else "The container was started without the GPU",
            _why_without(facts),
            {
                **evidence(container=machine.container, devices=machine.devices, NVIDIA_VISIBLE_DEVICES=visible),
                **seen(error or facts.error("no-nvidia-driver")),
            },
            _without_nvidia(facts) if _other_graphics(facts) else hand_in_gpu(facts),
            ISSUES + "NVIDIA/nvidia-docker/issues/1642",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def _other_graphics(facts: Facts) -> bool:
    """Whether the machine is told to have graphics, and none of NVIDIA's."""
    refused = facts.error("container-no-gpu-driver") is not None and facts.platform.system != "Darwin"
    other = facts.has_amd() or facts.error("other-graphics-told") is not None
    return refused and bool(other) and not facts.has_nvidia()


def _without_nvidia(facts: Facts) -> tuple[str, ...]:
    amd = (
        "docker run --device=/dev/kfd --device=/dev/dri --group-add video …   # an AMD card, with the program's image "
        "for ROCm; for the CPU:"
    )
    return (
        *((amd,) if facts.has_amd() else ()),
        "Start it without --gpus all, in compose without deploy.resources.reservations.devices (and gpus:, runtime: "
        "nvidia), and tell the program to use the CPU (--device cpu, or its image for the CPU)",
        "lspci -nn | grep -iE 'vga|3d|display'   # an NVIDIA card there after all: its driver first, then the toolkit",
    )


def _why_without(facts: Facts) -> str:
    if _other_graphics(facts):
        return "--gpus, and a reservation with driver: nvidia, are for NVIDIA's GPUs alone; docker refuses them here."
    if facts.platform.system == "Darwin":
        return "Docker on a Mac runs in a Linux without a GPU: it gets neither NVIDIA's, nor the Mac's own."
    return (
        "The GPU reaches a container only where the engine is told to hand it in. The host needs the NVIDIA "
        "container toolkit beside its driver."
    )


RULES: tuple[Rule, ...] = (
    engine_finds_no_driver,
    device_rules_refused,
    driver_libraries_missing,
    driver_beside_the_path,
    container_without_gpu_runtime,
)
