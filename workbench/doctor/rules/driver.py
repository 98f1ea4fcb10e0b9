"""Rules about the kernel, the NVIDIA driver, containers and what hides a GPU."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes, system_packages
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
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
from workbench.doctor.tables import is_datacenter
from workbench.doctor.versions import parse_version
from workbench.text import format_bytes

_NOT_BY_REBOOT = (
    "cat /proc/driver/nvidia/version; modinfo nvidia | grep ^version; dpkg -l | grep -i nvidia   # which part is old",
    "sudo apt --fix-broken install; sudo apt install --reinstall nvidia-driver-<branch> nvidia-dkms-<branch>   # both "
    "of one version; dkms status must list the module for this kernel",
    "sudo update-initramfs -u && sudo reboot   # else the old module is loaded from there again",
    "Where a driver was once installed from a .run file: sudo nvidia-uninstall, then the packages of the distribution",
)


def driver_library_version_mismatch(facts: Facts) -> Result:
    """The user-space driver library is of another version than the loaded kernel module."""
    error = facts.error("nvml-mismatch")
    kernel, library = facts.driver.kernel_module, facts.driver.library
    differ = bool(kernel and library and parse_version(kernel) != parse_version(library))
    if error is None and not differ:
        return None if kernel is None or library is None else PASSED
    if error is None and cuda_works(facts):
        return PASSED
    # A table of nvidia-smi in the same paste is that of a place where it works, mostly the host.
    inside = bool(facts.platform.container) or bool(error and facts.origin == "report" and facts.driver.version)
    fix = (
        (
            "Make the container anew (docker rm, docker run), so that the host's present driver libraries are mounted "
            "into it; a restart of the host changes nothing where nvidia-smi works there.",
            "find / -name 'libnvidia-ml.so*' -not -path '/proc/*'   # in the container: the version of the host's?",
            "If not, the image brings a driver of its own: take nvidia-utils-*, libnvidia-* and nvidia-driver-* out "
            "of it.",
            "nvidia-smi   # fails on the host too: sudo reboot there",
        )
        if inside
        else _NOT_BY_REBOOT
        if facts.error("rebooted-in-vain")
        else (
            "sudo reboot",
            "or, with nothing using the GPU: sudo rmmod nvidia_drm nvidia_modeset nvidia_uvm nvidia && sudo "
            "modprobe nvidia",
            "sudo apt-mark hold 'nvidia-driver-*'   # keeps an unattended upgrade from doing it again",
        )
    )
    return [
        Finding(
            "driver-library-version-mismatch",
            "error",
            "The NVIDIA libraries here are not of the host's driver"
            if inside
            else "The NVIDIA kernel module and the driver's libraries are of two versions, even after a reboot"
            if facts.error("rebooted-in-vain")
            else "The NVIDIA driver was updated under a running kernel module",
            "The kernel module is the host's, and the libraries that ask it, in a container mostly, are of another "
            "version: they were left from before an update, or came with the image."
            if inside
            else "The kernel still runs the old driver module while the libraries on disk are already new; every CUDA "
            "call fails until both are of one version.",
            {**evidence(kernel_module=kernel, library=library), **seen(error)},
            fix,
            ISSUES + "NVIDIA/ubuntu-packaging-nvidia-driver/issues/3",
            affects=ALL_GPU_BENCHES,
            observed=error is not None,
        )
    ]


def kernel_module_not_loaded(facts: Facts) -> Result:
    """The card is there, the driver's kernel module is not."""
    error = facts.error("smi-cannot-communicate", "nvidia-module-missing")
    machine = facts.platform
    bare = machine.container == "" and machine.wsl is False
    missing = bool(
        bare
        and "nvidia" in (machine.gpu_vendors or ())
        and machine.modules is not None
        and "nvidia" not in machine.modules
    )
    if error is None and not missing:
        return None if machine.modules is None or machine.gpu_vendors is None else PASSED
    if cuda_works(facts):
        return PASSED
    installed = facts.driver.smi or error is not None
    fix = _module_steps(facts, error)
    return [
        Finding(
            "kernel-module-not-loaded",
            "error",
            "The NVIDIA kernel module is not loaded"
            + (", which Secure Boot asks a signature of" if machine.secure_boot else "")
            if installed
            else "No NVIDIA driver is installed for the NVIDIA GPU",
            "The GPU is on the bus but the driver's kernel module does not run: it was not built for this kernel, "
            "Secure Boot refuses it, or the driver is not installed.",
            {
                **evidence(kernel=machine.kernel, modules=machine.modules, secure_boot=machine.secure_boot),
                **seen(error),
            },
            wsl_steps(facts)
            if machine.wsl
            else fix
            if installed
            else ("sudo ubuntu-drivers install   # or your distribution's driver package", "sudo reboot"),
            ISSUES + "GoogleCloudPlatform/compute-gpu-installation/pull/18",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def _module_steps(facts: Facts, error: Optional[ErrorFact]) -> tuple[str, ...]:
    """How the module comes to be built for this kernel, and to be let in."""
    build = system_packages.install(
        facts,
        apt="linux-headers-$(uname -r)",
        dnf="kernel-devel-$(uname -r) akmod-nvidia",
        pacman="$(uname -r | grep -q cachyos && echo linux-cachyos-headers || echo linux-headers) nvidia-dkms",
    )
    signed = (
        "mokutil --sb-state   # 'enabled': the module must be signed with a key that was enrolled",
        "sudo mokutil --import /var/lib/shim-signed/mok/MOK.der   # Fedora: /etc/pki/akmods/certs/public_key.der; "
        "reboot, and choose 'Enroll MOK' in the blue menu",
        "or switch Secure Boot off in the firmware's settings",
    )
    built = (
        build
        + " && sudo dkms autoinstall && sudo modprobe nvidia   # the headers of the very kernel that runs (uname -r)"
        if "dnf" not in build
        else build + " && sudo akmods --force && sudo modprobe nvidia",
        "sudo reboot   # when a new kernel was installed, the module must be built for it first",
    )
    if facts.platform.secure_boot or (error is not None and "Key was rejected" in error.text):
        return (*signed, *built)
    return (
        built[0],
        "If modprobe says 'Key was rejected', Secure Boot refuses the module: enrol its key with "
        "sudo mokutil --import /var/lib/shim-signed/mok/MOK.der, then reboot.",
        built[1],
    )


def nouveau_loaded(facts: Facts) -> Result:
    """The open nouveau driver holds the card."""
    error = facts.error("nouveau", "nouveau-loaded")
    loaded = "nouveau" in (facts.platform.modules or ())
    if error is None and not loaded:
        return None if facts.platform.modules is None else PASSED
    if cuda_works(facts) or (facts.driver.version and facts.driver.error is None and error is None):
        return PASSED
    return [
        Finding(
            "nouveau-loaded",
            "error",
            "The nouveau driver holds the GPU, so NVIDIA's cannot",
            "nouveau was loaded first and took the device; CUDA needs NVIDIA's own module.",
            {**evidence(modules=facts.platform.modules), **seen(error)},
            (
                "printf 'blacklist nouveau\\noptions nouveau modeset=0\\n' | sudo tee "
                "/etc/modprobe.d/blacklist-nouveau.conf",
                "sudo update-initramfs -u   # or: sudo dracut --force",
                "sudo reboot",
            ),
            ISSUES + "Oneflow-Inc/oneflow/issues/3106",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def gpu_fallen_off_the_bus(facts: Facts) -> Result:
    """The hardware reported a fault that no software setting mends."""
    error = facts.error("fallen-off-bus", "xid")
    numbers = list(facts.platform.xids or ())
    if error and error.values.get("xid"):
        numbers.append(int(error.values["xid"]))
    # NVIDIA's Xid catalogue: 79 off the bus; 48, 63, 64, 94, 95 memory errors; 13, 31, 43, 45 come from programs.
    serious = [number for number in numbers if number in (48, 61, 62, 63, 64, 74, 79, 94, 95, 119)]
    if not serious and (error is None or error.id == "xid"):
        return None if facts.platform.xids is None and error is None else PASSED
    off_bus = 79 in serious or (error is not None and error.id == "fallen-off-bus")
    return [
        Finding(
            "gpu-fallen-off-the-bus",
            "error",
            "A GPU has fallen off the bus" if off_bus else f"The GPU reported hardware errors (Xid {serious[0]})",
            "The driver lost the card, or the card reported memory or link errors. This is power, seating, heat or a "
            "failing board, not a version mismatch.",
            {**evidence(xids=", ".join(map(str, serious))), **seen(error)},
            (
                "sudo dmesg | grep -i xid   # which GPU, and when",
                "sudo reboot; check power cables, seating and temperature",
                "sudo nvidia-smi -lgc 300,1500   # lower clocks; if it then stays, suspect the power supply",
            ),
            ISSUES + "NVIDIA/open-gpu-kernel-modules/issues/507",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def fabric_manager_not_running(facts: Facts) -> Result:
    """NVSwitch systems need the fabric manager before CUDA starts."""

    def make(error: ErrorFact) -> Finding:
        version = facts.driver.version
        branch = version.split(".")[0] if version else "<driver branch>"
        return Finding(
            "fabric-manager-not-running",
            "error",
            "The NVSwitch fabric is not initialised (error 802)",
            "On HGX systems CUDA starts only after nvidia-fabricmanager, of exactly the driver's version, has set "
            "up the links.",
            {**evidence(driver=version, gpus=gpu_names(facts)), **seen(error)},
            (
                f"sudo apt install nvidia-fabricmanager-{branch}" + (f"={version}-1" if version else ""),
                "sudo systemctl enable --now nvidia-fabricmanager",
                "nvidia-smi -q | grep -A 2 Fabric   # State must be Completed",
            ),
            ISSUES + "pytorch/pytorch/issues/35710",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )

    return from_message(facts, ("error-802",), make)


def driver_userspace_mismatch(facts: Facts) -> Result:
    """Error 803: libcuda and the kernel module do not fit."""

    def make(error: ErrorFact) -> Finding:
        return Finding(
            "driver-userspace-mismatch",
            "error",
            "libcuda and the kernel driver are of different versions (error 803)",
            "The libcuda that is loaded belongs to another driver than the kernel module: mixed packages, a stale copy "
            "mounted into a container, or a compatibility library older than the driver.",
            {
                **evidence(driver=facts.driver.version, library=facts.driver.library, compat=facts.toolkit.compat),
                **seen(error),
            },
            (
                "ldconfig -p | grep libcuda   # every copy must be of the driver's version",
                "Remove stray copies and /usr/local/cuda*/compat from LD_LIBRARY_PATH, reinstall one driver, reboot.",
            ),
            ISSUES + "easydiffusion/easydiffusion/issues/379",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )

    return from_message(facts, ("error-803",), make)


def cuda_compat_on_unsupported_gpu(facts: Facts) -> Result:
    """Error 804: the forward-compatibility library on a GPU that it does not support."""
    error = facts.error("error-804")
    gpus = [gpu.name for gpu in facts.nvidia_gpus() if gpu.name and is_datacenter(gpu.name) is False]
    if error is None:
        unsupported = bool(facts.toolkit.compat and gpus and cuda_works(facts) is False)
        if not unsupported:
            return None if facts.toolkit.compat is None else PASSED
    return [
        Finding(
            "cuda-compat-on-unsupported-gpu",
            "error",
            "The CUDA compatibility library does not work on this GPU (error 804)",
            "A cuda-compat libcuda is found before the driver's own. It runs only on data-centre GPUs; everywhere "
            "else the "
            "driver itself must be new enough.",
            {
                **evidence(gpus=gpu_names(facts), driver=facts.driver.version, compat=facts.toolkit.compat),
                **seen(error),
            },
            (
                "Update the NVIDIA driver of the host to the CUDA of the image or newer.",
                "or take the compatibility library out of the way: export LD_LIBRARY_PATH=$(echo $LD_LIBRARY_PATH | "
                "tr : '\\n' | grep -v compat | paste -sd :)",
            ),
            ISSUES + "SYSTRAN/faster-whisper/issues/653",
            affects=ALL_GPU_BENCHES,
            observed=error is not None,
        )
    ]


def cuda_unknown_error(facts: Facts) -> Result:
    """CUDA fails to start for want of the unified-memory device."""
    error = facts.error("cuda-unknown-error")
    nodes = facts.platform.devices
    # The uvm node appears on first use, so its absence alone says nothing while CUDA has not been tried.
    no_uvm = bool(nodes and "/dev/nvidiactl" in nodes and "/dev/nvidia-uvm" not in nodes and cuda_works(facts) is False)
    if error is None and not no_uvm:
        return None if nodes is None or cuda_works(facts) is None else PASSED
    return [
        Finding(
            "cuda-unknown-error",
            "error",
            "CUDA does not start: the nvidia_uvm module is missing or stuck",
            "After suspend and resume, or when nvidia_uvm was never loaded, CUDA ends with 'unknown error' although "
            "nvidia-smi works. Changing CUDA_VISIBLE_DEVICES inside the program does the same.",
            {**evidence(devices=nodes), **seen(error)},
            ("sudo modprobe -r nvidia_uvm && sudo modprobe nvidia_uvm", "sudo nvidia-modprobe -u -c=0", "sudo reboot"),
            ISSUES + "pytorch/pytorch/issues/100095",
            affects=ALL_GPU_BENCHES,
            observed=error is not None,
        )
    ]


def kaslr_hmm_uvm(facts: Facts) -> Result:
    """A known clash of new kernels with nvidia_uvm's heterogeneous memory."""
    return from_message(
        facts,
        ("hmm-uvm",),
        lambda error: Finding(
            "kaslr-hmm-uvm",
            "error",
            "nvidia_uvm cannot reserve its memory range on this kernel",
            "With address randomisation the kernel leaves no range for heterogeneous memory, and CUDA does not start.",
            {**evidence(kernel=facts.platform.kernel), **seen(error)},
            (
                "echo 'options nvidia_uvm uvm_disable_hmm=1' | sudo tee /etc/modprobe.d/nvidia-uvm.conf",
                "sudo update-initramfs -u && sudo reboot",
            ),
            "https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/index.html",
            affects=ALL_GPU_BENCHES,
            observed=True,
        ),
    )


# From https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/install-guide.html: the distributions do
# not have the package in their own repositories.
_TOOLKIT_REPOSITORY = (
    "On the host (Debian, Ubuntu): curl -fsSL https://nvidia.github.io/libnvidia-container/gpgkey | sudo gpg --dearmor "
    "-o /usr/share/keyrings/nvidia-container-toolkit-keyring.gpg",
    "curl -s -L https://nvidia.github.io/libnvidia-container/stable/deb/nvidia-container-toolkit.list | sed 's#deb "
    "https://#deb [signed-by=/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg] https://#g' | sudo tee "
    "/etc/apt/sources.list.d/nvidia-container-toolkit.list",
)


def container_without_gpu_runtime(facts: Facts) -> Result:
    """The container was started without access to the GPU."""
    error = facts.error("container-no-gpu-driver")
    machine = facts.platform
    visible = facts.environment.get("NVIDIA_VISIBLE_DEVICES")
    inside = bool(machine.container) and machine.devices is not None
    no_device = inside and not any(
        node.startswith(("/dev/nvidia", "/dev/kfd", "/dev/dxg")) for node in machine.devices or ()
    )
    asked = visible not in (None, "", "void", "none")
    expects = asked or "nvidia" in (machine.gpu_vendors or ()) or facts.error("no-nvidia-driver") is not None
    if error is None and not (no_device and expects):
        return None if machine.container is None or machine.devices is None else PASSED
    if cuda_works(facts):
        return PASSED
    return [
        Finding(
            "container-without-gpu-runtime",
            "error",
            "The container was started without the GPU",
            "The GPU reaches a container only through NVIDIA's runtime. The host needs the NVIDIA container toolkit, "
            "and the container must be started with --gpus.",
            {
                **evidence(container=machine.container, devices=machine.devices, NVIDIA_VISIBLE_DEVICES=visible),
                **seen(error),
            },
            (
                *_TOOLKIT_REPOSITORY,
                "sudo apt update && sudo apt install -y nvidia-container-toolkit",
                "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker",
                "docker run --gpus all …   # docker from snap is a known trap: use the distribution's or docker.com's",
            ),
            ISSUES + "NVIDIA/nvidia-docker/issues/1642",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def no_nvidia_driver(facts: Facts) -> Result:
    """torch found no driver at all, and nothing more precise is known."""
    error = facts.error("no-nvidia-driver", "no-nvml", "driver-init-failed")
    if facts.driver.version or cuda_works(facts):
        return PASSED
    # A CUDA build on a box that has no GPU is what the package index gives everyone; that is no fault.
    fails = facts.torch.build == "cuda" and facts.torch.cuda_available is False
    unseen = fails and (facts.driver.smi is False or facts.platform.wsl_version == 1)
    if error is None and (not unseen or facts.platform.gpu_vendors == ()):
        return None if facts.driver.smi is None else PASSED
    return [
        Finding(
            "no-nvidia-driver",
            "error" if error or facts.has_nvidia() or facts.platform.wsl_version == 1 else "warning",
            _no_driver_title(facts),
            "WSL has the GPU of Windows through the driver of Windows; WSL 1 has none, and a Linux driver must not be "
            "installed inside."
            if facts.platform.wsl
            else "libcuda did not answer: the driver is not installed, its module is not loaded, or the container was "
            "started without GPU access.",
            {
                **evidence(
                    torch__version=facts.torch.version,
                    nvidia_smi="not found" if facts.driver.smi is False else facts.driver.error,
                    container=facts.platform.container,
                ),
                **seen(error),
            },
            _driver_steps(facts),
            _WSL_GUIDE if facts.platform.wsl else "https://docs.nvidia.com/cuda/cuda-installation-guide-linux/",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


_WSL_GUIDE = "https://docs.nvidia.com/cuda/wsl-user-guide/"


def _no_driver_title(facts: Facts) -> str:
    if facts.platform.wsl_version == 1:
        return "WSL 1 has no GPU"
    return "torch finds no NVIDIA driver" + (" under WSL" if facts.platform.wsl else "")


def _driver_steps(facts: Facts) -> tuple[str, ...]:
    """How this machine gets a driver."""
    if facts.platform.wsl:
        return wsl_steps(facts)
    if fixes.on_windows(facts):
        return ("nvidia-smi   # if this fails: install the driver from https://www.nvidia.com/drivers, then reboot",)
    return (
        "nvidia-smi   # if this fails on the host: sudo ubuntu-drivers install, then reboot",
        "In a container: docker run --gpus all …",
    )


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


def no_cuda_gpus(facts: Facts) -> Result:
    """torch sees no device, and nothing more precise is known."""
    error = facts.error("no-cuda-gpus", "needs-gpu")
    if error is None and not no_gpu_told(facts):
        return PASSED
    if error is None and (facts.torch.build in ("cpu", "mps") or facts.platform.system == "Darwin"):
        return PASSED
    answered = error is not None and error.id == "no-cuda-gpus"
    windows = fixes.on_windows(facts) and not answered and facts.torch.build is None
    return [
        Finding(
            "no-cuda-gpus-available",
            "error",
            "torch sees no GPU: its usual builds have no code for AMD's"
            if not answered and facts.has_amd() and not facts.nvidia_gpus()
            else "torch sees no GPU; on Windows it is most likely the build without CUDA"
            if windows
            else "torch sees no GPU",
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


def _look_for_gpu(facts: Facts, answered: bool) -> tuple[str, ...]:
    if not answered and facts.has_amd() and not facts.nvidia_gpus():
        return _for_amd(facts)
    hidden = (
        fixes.unset(facts, "CUDA_VISIBLE_DEVICES")
        if "CUDA_VISIBLE_DEVICES" in facts.environment
        else "Look for CUDA_VISIBLE_DEVICES where the program is started, and in its code."
    )
    if answered:
        return (hidden, "nvidia-smi -L")
    look = "import torch; print(torch.__version__, torch.version.cuda)"
    return (
        f'{fixes.python_command(facts)} -c "{look}"   # +cpu or None: a build without CUDA',
        f"if so: {fixes.uninstall(facts, 'torch')}",
        fixes.fresh_torch(facts),
        "nvidia-smi   # must list the GPU; if not, install the driver and reboot",
        hidden,
    )


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
            ("sudo nvidia-smi -c 0   # default mode: several processes", "nvidia-smi   # which process holds it"),
            ISSUES + "NVIDIA/DIGITS/issues/2005",
            affects=ALL_GPU_BENCHES,
            observed=error is not None,
        )
    ]


def gpu_memory_held(facts: Facts) -> Result:
    """Other processes hold most of a GPU's memory."""
    known = [gpu for gpu in facts.gpus or () if gpu.memory_bytes and gpu.memory_used_bytes is not None]
    if not known:
        return None
    held = [gpu for gpu in known if (gpu.memory_used_bytes or 0) > 0.5 * (gpu.memory_bytes or 1)]
    if not held:
        return PASSED
    out_of_memory = facts.error("oom")
    gpu = held[0]
    unlisted = gpu.processes == ()
    return [
        Finding(
            "gpu-memory-held-by-other-process",
            "error" if out_of_memory else "info",
            f"{format_bytes(gpu.memory_used_bytes or 0)} of GPU {gpu.index or 0} are in use"
            + (" by a process that nvidia-smi does not list" if unlisted else " by other processes"),
            "What is held by others is not there for a model. A process in another container, of another user or a "
            "dead "
            "one does not show in the list.",
            {
                **evidence(
                    memory_used=format_bytes(gpu.memory_used_bytes or 0),
                    memory_total=format_bytes(gpu.memory_bytes or 0),
                    processes="; ".join(f"{p.pid} {p.name}" for p in (gpu.processes or ())[:8]),
                ),
                **seen(out_of_memory),
            },
            ("sudo fuser -v /dev/nvidia*   # who holds it, other containers included", "kill <pid>"),
            ISSUES + "vllm-project/vllm/issues/34296",
            affects=("chat", "vram"),
            observed=True,
        )
    ]


def mig(facts: Facts) -> Result:
    """MIG: a process sees one instance only."""
    error = facts.error("mig-parse")
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
                "nvidia-smi -L   # the UUIDs",
                "export CUDA_VISIBLE_DEVICES=MIG-<one UUID>   # one per process",
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
    if cuda_works(facts) or not (broken or linux_driver or error) or not signs:
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
    if facts.platform.wsl is False:
        return PASSED
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


def nvidia_smi_hangs(facts: Facts) -> Result:
    """nvidia-smi does not answer."""
    if facts.driver.error is None or "did not answer" not in facts.driver.error:
        return PASSED if facts.driver.smi else None
    return [
        Finding(
            "driver-does-not-answer",
            "error",
            "The NVIDIA driver does not answer",
            "nvidia-smi hangs, so the kernel module is stuck; programs that touch the GPU will hang as well.",
            evidence(nvidia_smi=facts.driver.error),
            ("sudo dmesg | grep -iE 'nvrm|xid' | tail", "sudo reboot"),
            "https://docs.nvidia.com/deploy/xid-errors/",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


RULES: tuple[Rule, ...] = (
    gpu_fallen_off_the_bus,
    nvidia_smi_hangs,
    driver_library_version_mismatch,
    nouveau_loaded,
    kernel_module_not_loaded,
    container_without_gpu_runtime,
    fabric_manager_not_running,
    cuda_compat_on_unsupported_gpu,
    driver_userspace_mismatch,
    wsl_libcuda,
    libcuda_not_visible,
    wsl_error_2,
    kaslr_hmm_uvm,
    cuda_unknown_error,
    cuda_visible_devices_wrong,
    mig,
    no_nvidia_driver,
    compute_mode_exclusive,
    no_cuda_gpus,
    gpu_memory_held,
    wsl_symlink_warning,
)
