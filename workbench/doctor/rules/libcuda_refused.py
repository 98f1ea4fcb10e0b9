"""Rules about a libcuda that refuses to start: no fabric (802), or a driver that is not its own (803, 804)."""

from __future__ import annotations

from workbench.doctor import system_packages
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
    seen,
)
from workbench.doctor.tables import is_datacenter


def fabric_manager_not_running(facts: Facts) -> Result:
    """NVSwitch systems need the fabric manager before CUDA starts."""
    return from_message(facts, ("error-802",), lambda error: fabric_not_initialised(facts, error))


def fabric_not_initialised(facts: Facts, error: ErrorFact) -> Finding:
    """Error 802, whichever program met it."""
    if _without_fabric(facts):
        return _not_ready_without_fabric(facts, error)
    version = facts.driver.version
    branch = version.split(".")[0] if version else "${v%%.*}"
    return Finding(
        "fabric-manager-not-running",
        "error",
        "The NVSwitch fabric is not initialised (error 802)",
        "On HGX systems CUDA starts only after nvidia-fabricmanager, of exactly the driver's version, has set "
        "up the links.",
        {**evidence(driver=version, gpus=gpu_names(facts)), **seen(error)},
        (
            *(
                (
                    "This is mended on the host, by who runs it: a container or a rented job cannot; take another "
                    "machine until then.",
                )
                if facts.platform.container or facts.error("rented-machine")
                else ()
            ),
            ("" if version else "v=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -1); ")
            + system_packages.install(
                facts,
                apt=f'"nvidia-fabricmanager-{branch}={version or "$v"}*"',
                dnf=f"nvidia-fabric-manager-{version or '$v'}",
            ),
            "sudo systemctl enable --now nvidia-fabricmanager; systemctl status nvidia-fabricmanager",
            "nvidia-smi -q | grep -A 2 Fabric   # State must be Completed",
        ),
        ISSUES + "pytorch/pytorch/issues/35710",
        affects=ALL_GPU_BENCHES,
        observed=True,
    )


def _without_fabric(facts: Facts) -> bool:
    """Whether every GPU is known to be one that no NVSwitch joins: GeForce, RTX and their like."""
    kinds = [is_datacenter(gpu.name) for gpu in facts.nvidia_gpus() if gpu.name]
    return bool(kinds) and not any(kind is not False for kind in kinds)


def _not_ready_without_fabric(facts: Facts, error: ErrorFact) -> Finding:
    # CUDA 12.9 and 13 release notes, section 2.5: with KASLR, HMM keeps CUDA from starting.
    return Finding(
        "cuda-not-ready",
        "error",
        "The driver is not ready for CUDA (error 802), though these GPUs have no fabric that it could wait for",
        "The module nvidia_uvm did not come up whole: HMM found no room in the addresses of this kernel, or the "
        "driver was updated under it. The fabric manager, which the error is known for, has no part in it.",
        {**evidence(driver=facts.driver.version, gpus=gpu_names(facts)), **seen(error)},
        (
            "echo 'options nvidia_uvm uvm_disable_hmm=1' | sudo tee /etc/modprobe.d/nvidia-uvm.conf && sudo "
            "update-initramfs -u && sudo reboot",
            "sudo dmesg | grep -iE 'nvrm|uvm' | tail   # still so: what the driver says of it",
            "sudo ubuntu-drivers install && sudo reboot   # the newest branch that knows the card",
        ),
        "https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/index.html",
        affects=ALL_GPU_BENCHES,
        observed=True,
    )


# An image's own libcuda, of its package cuda-compat, stands before the host's in the loader's list or path:
# https://github.com/vllm-project/vllm/pull/33992, https://docs.nvidia.com/deploy/cuda-compatibility/
_HOSTS_FIRST = (
    "export LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/usr/lib/$(uname -m)-linux-gnu:/usr/lib64   # in the container, "
    "before the program: the host's libcuda lies there; as an option: docker run -e LD_LIBRARY_PATH=…"
)
_TAKE_COMPAT_OUT = (
    "rm -rf /usr/local/cuda*/compat /etc/ld.so.conf.d/*compat*.conf && ldconfig   # in the container, as root; to "
    "stay, as RUN in its Dockerfile: CUDA then takes the libcuda of the host's driver"
)
_COMPAT_OFF_THE_PATH = (
    "export LD_LIBRARY_PATH=$(echo $LD_LIBRARY_PATH | tr : '\\n' | grep -v compat | paste -sd :)   # takes the "
    "compatibility library out of the way"
)
_WHICH_LIBCUDA = (
    "cat /proc/driver/nvidia/version; ldconfig -p | grep libcuda.so.1; echo $LD_LIBRARY_PATH   # every libcuda must be "
    "of the module's version: readlink -f shows a file's"
)


def driver_userspace_mismatch(facts: Facts) -> Result:
    """Error 803: libcuda and the kernel module do not fit."""

    def make(error: ErrorFact) -> Finding:
        inside = bool(facts.platform.container)
        return Finding(
            "driver-userspace-mismatch",
            "error",
            "The libcuda in this container is not of the host's driver (error 803)"
            if inside
            else "libcuda and the kernel driver are of different versions (error 803)",
            "The libcuda that is loaded belongs to another driver than the kernel module: mixed packages, a stale copy "
            "mounted into a container, or a compatibility library older than the driver.",
            {
                **evidence(driver=facts.driver.version, library=facts.driver.library, compat=facts.toolkit.compat),
                **seen(error),
            },
            _one_libcuda_inside() if inside else _one_libcuda(facts),
            ISSUES + ("vllm-project/vllm/pull/33992" if inside else "easydiffusion/easydiffusion/issues/379"),
            affects=ALL_GPU_BENCHES,
            observed=True,
        )

    return from_message(facts, ("error-803",), make)


def _one_libcuda_inside() -> tuple[str, ...]:
    return (
        _HOSTS_FIRST,
        _TAKE_COMPAT_OUT,
        "find / -name 'libcuda.so.*' -not -path '/proc/*'   # others than the host's: take the packages libnvidia-* "
        "and nvidia-utils-* out of the image; then make the container anew: docker rm, docker run --gpus all",
        "sudo reboot   # on the host, where its own nvidia-smi fails too",
    )


def _one_libcuda(facts: Facts) -> tuple[str, ...]:
    """On the machine itself the driver was changed under its module, mostly; a second libcuda comes after that."""
    if facts.toolkit.compat:
        return (_COMPAT_OFF_THE_PATH, "sudo reboot   # where the driver was updated since the last one", _WHICH_LIBCUDA)
    return (
        "sudo reboot   # the module of before the driver's update still runs; then:",
        "sudo apt install --reinstall $(dpkg -l | awk '/^ii +(libnvidia|nvidia-utils|nvidia-driver)/{print $2}') && "
        "sudo reboot   # all parts of one version"
        if system_packages.by_apt(facts)
        else "sudo ubuntu-drivers install && sudo reboot   # all parts of one version",
        _WHICH_LIBCUDA,
        _COMPAT_OFF_THE_PATH,
    )


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
            "A libcuda that is newer than the kernel's part of the driver is found first: a container image's "
            "cuda-compat, or that of an update without a reboot. It runs only on data-centre GPUs; everywhere else "
            "the driver itself must be new enough.",
            {
                **evidence(gpus=gpu_names(facts), driver=facts.driver.version, compat=facts.toolkit.compat),
                **seen(error),
            },
            _newer_driver(facts),
            ISSUES + "SYSTRAN/faster-whisper/issues/653",
            affects=ALL_GPU_BENCHES,
            observed=error is not None,
        )
    ]


def _bare(facts: Facts) -> bool:
    """Whether the text shows the machine itself, and nothing of a container or a job on another's machine."""
    shown = bool(facts.driver.version or facts.platform.modules) and facts.origin == "report"
    return shown and not (facts.platform.container or facts.platform.service or facts.toolkit.compat)


def _newer_driver(facts: Facts) -> tuple[str, ...]:
    if facts.error("rented-machine"):
        return (
            "Take a machine with a newer driver: RunPod: Additional filters, CUDA version; vast.ai: the Max CUDA "
            "filter   # the driver cannot be changed from inside",
            _TAKE_COMPAT_OUT,
        )
    if facts.platform.wsl:
        return (
            "Install the newest NVIDIA driver in Windows: https://www.nvidia.com/drivers   # then wsl --shutdown, in "
            "PowerShell",
            _TAKE_COMPAT_OUT,
        )
    if facts.toolkit.compat:
        return (_COMPAT_OFF_THE_PATH, "sudo ubuntu-drivers install && sudo reboot   # where its CUDA is wanted")
    if _bare(facts):
        reboot, *rest = _one_libcuda(facts)
        newer = "sudo ubuntu-drivers install && sudo reboot   # still so: one driver, its module and libcuda together"
        return (reboot, newer, *rest[1:])
    update = (
        "sudo ubuntu-drivers install && sudo reboot   # on the host, not in the container: a driver whose CUDA "
        "(nvidia-smi's heading) is at least the image's; an update that waits for its reboot is mended by it too"
    )
    return (update, _TAKE_COMPAT_OUT, _COMPAT_OFF_THE_PATH, _WHICH_LIBCUDA)


RULES: tuple[Rule, ...] = (
    fabric_manager_not_running,
    cuda_compat_on_unsupported_gpu,
    driver_userspace_mismatch,
)
