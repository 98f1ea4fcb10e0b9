"""What is known of an environment: plain frozen data in which None always means "unknown". Stdlib only."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any, Optional

from workbench.errors import WorkbenchError


@dataclass(frozen=True)
class DiskFacts:
    """One place that something writes to."""

    purpose: str
    """``HF cache`` or ``temp``."""
    path: Optional[str] = None
    free_bytes: Optional[int] = None
    free_inodes: Optional[int] = None
    writable: Optional[bool] = None
    owner: Optional[str] = None


@dataclass(frozen=True)
class PlatformFacts:
    """The machine below Python."""

    system: Optional[str] = None
    """``Linux``, ``Windows`` or ``Darwin``."""
    os: Optional[str] = None
    kernel: Optional[str] = None
    machine: Optional[str] = None
    """``x86_64``, ``aarch64``, ``arm64``."""
    libc: Optional[str] = None
    """``glibc`` or ``musl``."""
    libc_version: Optional[str] = None
    container: Optional[str] = None
    """``docker``, ``podman``, ``kubernetes``, ``apptainer``; ``""`` when it was looked for and is none."""
    image: Optional[str] = None
    """Container image that a report names."""
    wsl: Optional[bool] = None
    wsl_version: Optional[int] = None
    """1 or 2; only the second has a GPU."""
    windows_build: Optional[int] = None
    """Build of the Windows at hand, which for WSL is the host: 19045, 26100."""
    service: Optional[str] = None
    """``colab``, ``kaggle``, ``slurm``, ``systemd``; ``""`` when it was looked for and is none."""
    program: Optional[str] = None
    """The web UI that a report is about: ``comfyui``, ``sd-webui``, ``sd-webui-amd``, ``zluda``; else ``with-pictures``
    for one that needs torchvision or torchaudio."""
    memory_total_bytes: Optional[int] = None
    memory_available_bytes: Optional[int] = None
    shm_total_bytes: Optional[int] = None
    shm_free_bytes: Optional[int] = None
    memlock_bytes: Optional[int] = None
    """Soft limit of locked memory; -1 means unlimited."""
    open_files: Optional[int] = None
    disks: Optional[tuple[DiskFacts, ...]] = None
    gpu_vendors: Optional[tuple[str, ...]] = None
    """Vendors of the GPUs on the PCI bus, driver or not: ``nvidia``, ``amd``, ``intel``, ``apple``."""
    devices: Optional[tuple[str, ...]] = None
    """Device nodes present: ``/dev/nvidiactl``, ``/dev/nvidia0``, ``/dev/kfd``, ``/dev/dxg``…"""
    modules: Optional[tuple[str, ...]] = None
    """Loaded GPU kernel modules."""
    secure_boot: Optional[bool] = None
    xids: Optional[tuple[int, ...]] = None
    """Xid numbers found in the kernel log."""
    c_compiler: Optional[str] = None
    """Path of a C compiler; ``""`` when none is on PATH."""

    @property
    def is_windows(self) -> bool:
        """Whether commands are typed on Windows."""
        return self.system == "Windows"


@dataclass(frozen=True)
class PythonFacts:
    """The interpreter and the kind of environment that it stands in."""

    version: Optional[str] = None
    implementation: Optional[str] = None
    bits: Optional[int] = None
    free_threaded: Optional[bool] = None
    executable: Optional[str] = None
    prefix: Optional[str] = None
    kind: Optional[str] = None
    """``venv``, ``uv``, ``poetry``, ``pipx``, ``conda``, ``pyenv`` or ``system``."""
    externally_managed: Optional[bool] = None
    pip: Optional[str] = None
    """Version of the pip in this environment; ``""`` when there is none."""
    user_site: Optional[str] = None
    user_site_enabled: Optional[bool] = None
    headers: Optional[bool] = None
    """Whether Python.h is there, which Triton needs to compile."""


@dataclass(frozen=True)
class Install:
    """One copy of a package on the path."""

    version: Optional[str]
    path: str


@dataclass(frozen=True)
class TorchFacts:
    """PyTorch: first as its files say, then as a probe has seen it work."""

    installed: Optional[bool] = None
    version: Optional[str] = None
    build: Optional[str] = None
    """``cuda``, ``rocm``, ``xpu``, ``cpu`` or ``mps``."""
    cuda: Optional[str] = None
    asked_cuda: Optional[str] = None
    """The CUDA that the only install command in a paste asks for."""
    hip: Optional[str] = None
    arch_list: Optional[tuple[str, ...]] = None
    """Kernels inside, as torch names them: ``sm_80``, ``compute_90``."""
    location: Optional[str] = None
    installs: Optional[tuple[Install, ...]] = None
    """Every copy on the path, the one that is imported first."""
    cxx11_abi: Optional[bool] = None
    cudnn: Optional[str] = None
    cuda_available: Optional[bool] = None
    device_count: Optional[int] = None
    kernel_ok: Optional[bool] = None
    """Whether a kernel was run and gave the right result on every visible GPU."""
    import_error: Optional[str] = None
    cuda_error: Optional[str] = None
    import_seconds: Optional[float] = None


@dataclass(frozen=True)
class DriverFacts:
    """The GPU driver: its version, and the highest CUDA that its user-space library offers."""

    version: Optional[str] = None
    cuda: Optional[str] = None
    kernel_module: Optional[str] = None
    library: Optional[str] = None
    """Version of the libcuda/libnvidia-ml files in use."""
    libcuda: Optional[str] = None
    """Path of libcuda; ``""`` when the loader knows none."""
    smi: Optional[bool] = None
    """Whether nvidia-smi is there."""
    error: Optional[str] = None
    """What nvidia-smi said instead of a table."""


@dataclass(frozen=True)
class ToolkitFacts:
    """CUDA toolkits, needed only to compile something."""

    nvcc: Optional[str] = None
    """Version of nvcc; ``""`` when none is on PATH."""
    nvcc_path: Optional[str] = None
    cuda_home: Optional[str] = None
    installed: Optional[tuple[str, ...]] = None
    compat: Optional[tuple[str, ...]] = None
    """Directories of a forward-compatibility libcuda that are on the library path."""


@dataclass(frozen=True)
class BitsandbytesFacts:
    """bitsandbytes and its native library."""

    installed: Optional[bool] = None
    version: Optional[str] = None
    libraries: Optional[tuple[str, ...]] = None
    """Variants it ships: ``cuda128``, ``rocm64``, ``cpu``."""
    library: Optional[str] = None
    """File it chose or asked for."""
    backend: Optional[str] = None
    """``cuda``, ``rocm``, ``xpu``, ``cpu`` or ``none``, as loaded."""
    location: Optional[str] = None
    load_error: Optional[str] = None
    works: Optional[bool] = None
    """Whether the native library was loaded, and is one for the GPU if torch sees one."""


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds GPU memory."""

    pid: Optional[int] = None
    name: Optional[str] = None
    memory_bytes: Optional[int] = None


@dataclass(frozen=True)
class GpuFacts:
    """One GPU."""

    index: Optional[int] = None
    name: Optional[str] = None
    vendor: Optional[str] = None
    compute_capability: Optional[str] = None
    """``8.9``, or a gfx name on AMD."""
    memory_bytes: Optional[int] = None
    memory_used_bytes: Optional[int] = None
    uuid: Optional[str] = None
    utilization_percent: Optional[float] = None
    temperature_celsius: Optional[float] = None
    power_watts: Optional[float] = None
    power_limit_watts: Optional[float] = None
    pcie_generation: Optional[int] = None
    pcie_width: Optional[int] = None
    mig: Optional[bool] = None
    driver_model: Optional[str] = None
    """On Windows ``WDDM``, ``TCC`` or ``MCDM``."""
    compute_mode: Optional[str] = None
    ecc_uncorrected: Optional[int] = None
    bf16: Optional[bool] = None
    fp8: Optional[bool] = None
    processes: Optional[tuple[GpuProcess, ...]] = None


@dataclass(frozen=True)
class Conflict:
    """A declared requirement that what is installed does not meet."""

    package: str
    version: Optional[str]
    requires: str
    found: Optional[str]
    """Installed version, or None when the package is missing."""


@dataclass(frozen=True)
class ErrorFact:
    """A known message, as seen."""

    id: str
    text: str
    line: int = 0
    values: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ProbeStep:
    """What happened when something was really tried in a child process."""

    step: str
    status: str
    """``passed``, ``failed``, ``crashed``, ``timeout`` or ``skipped``."""
    seconds: float = 0.0
    detail: str = ""
    exit_code: Optional[int] = None
    signal: Optional[str] = None
    stderr: str = ""
    idle_seconds: Optional[float] = None
    """Of a step out of time: for how long it had done nothing at all; None where that cannot be told."""
    stuck: dict[str, str] = field(default_factory=dict)
    """Of a step out of time: what its process was doing, as `workbench.doctor.stuck.evidence_of` tells it."""


@dataclass(frozen=True)
class Facts:
    """Everything known of one environment."""

    origin: str = "live"
    """``live`` or ``report``."""
    formats: tuple[str, ...] = ()
    """Which kinds of report were recognised in a paste."""
    platform: PlatformFacts = PlatformFacts()
    python: PythonFacts = PythonFacts()
    torch: TorchFacts = TorchFacts()
    driver: DriverFacts = DriverFacts()
    toolkit: ToolkitFacts = ToolkitFacts()
    bitsandbytes: BitsandbytesFacts = BitsandbytesFacts()
    gpus: Optional[tuple[GpuFacts, ...]] = None
    packages: dict[str, str] = field(default_factory=dict)
    """Normalised name to version."""
    conda: tuple[str, ...] = ()
    """Those packages that conda installed, as conda names them."""
    absent: tuple[str, ...] = ()
    """Packages that were looked for and are not installed."""
    duplicates: dict[str, tuple[Install, ...]] = field(default_factory=dict)
    """Packages with more than one copy on the path."""
    conflicts: Optional[tuple[Conflict, ...]] = None
    environment: dict[str, str] = field(default_factory=dict)
    """Variables that matter, secrets masked."""
    errors: tuple[ErrorFact, ...] = ()
    """Known messages in the order in which they were seen."""
    probes: tuple[ProbeStep, ...] = ()

    def package(self, name: str) -> Optional[str]:
        """Version of an installed package, or None when unknown or absent."""
        return self.packages.get(name)

    def lacks(self, name: str) -> bool:
        """Whether `name` is known not to be installed."""
        return name in self.absent

    def error(self, *ids: str) -> Optional[ErrorFact]:
        """The first message seen that has one of `ids`."""
        return next((error for error in self.errors if error.id in ids), None)

    def probe(self, step: str) -> Optional[ProbeStep]:
        """What the probe step called `step` found, or None when it has not run."""
        return next((probe for probe in self.probes if probe.step == step), None)

    def nvidia_gpus(self) -> tuple[GpuFacts, ...]:
        """The GPUs known to be NVIDIA's."""
        return tuple(gpu for gpu in self.gpus or () if gpu.vendor == "nvidia")

    def has_nvidia(self) -> Optional[bool]:
        """Whether an NVIDIA GPU is in the machine: True, False, or None when nothing says."""
        if self.nvidia_gpus() or self.driver.version or "nvidia" in (self.platform.gpu_vendors or ()):
            return True
        if any(node.startswith("/dev/nvidia") for node in self.platform.devices or ()):
            return True
        return None if self.gpus is None or self.platform.gpu_vendors is None else False

    def has_amd(self) -> Optional[bool]:
        """Whether an AMD GPU is in the machine, None when nothing says."""
        if any(gpu.vendor == "amd" for gpu in self.gpus or ()):
            return True
        if "amd" in (self.platform.gpu_vendors or ()) or "/dev/kfd" in (self.platform.devices or ()):
            return True
        return None if self.gpus is None or self.platform.gpu_vendors is None else False


def facts_from_dict(data: Any) -> Facts:
    """`Facts` from their JSON form, such as the ``facts`` of ``workbench doctor --json``.

    Unknown keys are ignored, missing ones are unknown.

    Raises:
        WorkbenchError: ``bad-report`` when a value has another type than the fact.
    """
    result: Facts = _decode(Facts, data, "facts")
    return result


def _decode(kind: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if origin is typing.Union:
        return None if value is None else _decode(arguments[0], value, where)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = typing.get_type_hints(kind)
        known = {name: _decode(hints[name], value[name], f"{where}.{name}") for name in hints if name in value}
        try:
            return typing.cast(Any, kind)(**known)
        except TypeError:
            raise _bad(where) from None
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_decode(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {str(key): _decode(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and isinstance(value, kind) and (kind is not int or not isinstance(value, bool)):
        return value
    raise _bad(where)


def _bad(where: str) -> WorkbenchError:
    return WorkbenchError(
        "bad-report", f"The saved report has an unusable value at {where}.", "Make it again with --json."
    )
