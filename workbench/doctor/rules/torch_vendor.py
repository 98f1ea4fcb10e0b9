"""Rules about torch beside GPUs of other vendors: ROCm, Intel, devices that a build has no code for."""

from __future__ import annotations

from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.parse.machine import INTEGRATED
from workbench.doctor.rules import amd_windows, intel, rocm_in_wsl
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


def wrong_vendor(facts: Facts) -> Result:
    """A ROCm build on an NVIDIA box, or a CUDA build on a box that has only AMD."""
    nvidia, amd, build = facts.has_nvidia(), facts.has_amd(), facts.torch.build
    if facts.platform.system == "Darwin":
        return PASSED  # macOS has neither CUDA nor ROCm
    if build is None:
        left = amd_windows.target(facts)
        if amd and not nvidia and left in _LEFT_BEHIND and no_gpu_told(facts) and not fixes.on_windows(facts):
            return [_without_code(facts, None, left)]
        asks = (
            _ASKS_CUDA & _messages(facts)
            or (facts.error(*_OF_NVIDIA) and _discrete_amd(facts))
            or facts.error("device-is-cpu")
            or (
                no_gpu_told(facts)
                and (fixes.on_windows(facts) or facts.platform.program in ("sd-webui", "sd-webui-amd"))
            )
        )
        return [_asks_amd_for_cuda(facts)] if amd and not nvidia and asks else None
    if cuda_works(facts) or (build == "cuda" and facts.platform.program == "zluda"):
        return PASSED  # ZLUDA runs a torch for CUDA on AMD's cards
    if build == "rocm" and nvidia and not amd:
        return [
            _vendor(
                facts,
                "rocm-wheel-on-nvidia",
                "torch is a ROCm (AMD) build, but the GPU is NVIDIA's",
                fixes.reinstall_torch(facts),
            )
        ]
    if (build in ("cuda", "cpu") and amd and nvidia is False) or (
        build == "cuda" and amd and facts.nvidia_gpus() == () and not facts.driver.version
    ):
        if not _discrete_amd(facts):
            return PASSED
        return [_vendor(facts, "cuda-wheel-on-amd", "torch has no ROCm in it, but the GPU is AMD's", _to_rocm(facts))]
    return PASSED if nvidia is not None or amd is not None else None


_ASKS_CUDA = frozenset(("needs-gpu", "torch-not-compiled-with-cuda", "no-nvidia-driver", "no-cuda-gpus", "no-nvml"))


# What torch says where libcuda is there, as ZLUDA or an earlier card has left it; a laptop may have both vendors.
_OF_NVIDIA = ("driver-too-old", "driver-insufficient")


def _messages(facts: Facts) -> frozenset[str]:
    return frozenset(error.id for error in facts.errors)


def _asks_amd_for_cuda(facts: Facts) -> Finding:
    return _vendor(
        facts,
        "cuda-wheel-on-amd",
        "The program asks for CUDA, and the GPU is AMD's: "
        + ("it needs a build for AMD, or DirectML" if fixes.on_windows(facts) else "torch must be a ROCm build"),
        _to_rocm(facts),
    )


def _to_rocm(facts: Facts) -> tuple[str, ...]:
    if facts.error("cuda-only-package"):
        return (
            "Leave the package out where the program has a way without it: it is CUDA code, which no build of torch "
            "for AMD compiles or runs",
            "or a machine with an NVIDIA GPU: Colab, Kaggle, a rented one",
        )
    beside = [name for name in ("torchvision", "torchaudio") if facts.package(name)]
    remove = fixes.uninstall(facts, "torch", *beside)
    if fixes.on_windows(facts):
        return amd_windows.steps(facts, remove)
    if facts.platform.program in ("sd-webui", "sd-webui-amd"):
        index = fixes.rocm_index(facts)
        return (
            f"In webui-user.sh: export TORCH_COMMAND='pip install torch torchvision --index-url {index}'"
            "   # it installs torch by itself when it starts",
            "rm -rf venv && ./webui.sh   # in the web UI's folder",
            "sudo usermod -aG render,video $USER   # then log in anew: /dev/kfd must be readable",
        )
    return (
        remove,
        fixes.install(facts, "torch", *beside, options=f"--index-url {fixes.rocm_index(facts)}"),
        "sudo usermod -aG render,video $USER   # then log in anew: /dev/kfd must be readable",
        *(("on Windows: " + amd_windows.steps(facts)[0],) if facts.platform.system is None else ()),
    )


def _discrete_amd(facts: Facts) -> bool:
    # An integrated Radeon is no reason to ask for ROCm; /dev/kfd or a known discrete name is.
    named = any(gpu.vendor == "amd" and (gpu.compute_capability or "").startswith("gfx") for gpu in facts.gpus or ())
    return named or "/dev/kfd" in (facts.platform.devices or ())


def _vendor(facts: Facts, id: str, title: str, fix: tuple[str, ...]) -> Finding:
    error = facts.error("hip-no-gpus", *sorted(_ASKS_CUDA), *_OF_NVIDIA)
    return Finding(
        id,
        "error",
        title,
        "A torch build drives one vendor's GPUs only; this one finds no device.",
        {
            **evidence(
                torch__version=facts.torch.version,
                torch__build=facts.torch.build,
                gpus=gpu_names(facts) or ", ".join(facts.platform.gpu_vendors or ()),
                driver=facts.driver.version,
            ),
            **seen(error),
        },
        fix,
        ISSUES + "pytorch/pytorch/issues/70036",
        affects=ALL_GPU_BENCHES,
        observed=error is not None or facts.torch.cuda_available is False,
    )


_AMDGPU = (
    "no /dev/kfd at all: install AMD's driver (amdgpu-dkms) and restart: "
    "https://rocm.docs.amd.com/projects/install-on-linux/en/latest/install/quick-start.html"
)


def rocm_no_device(facts: Facts) -> Result:
    """ROCm build, AMD GPU, and still no device."""
    error = facts.error("hip-no-gpus") or rocm_in_wsl.silent(facts)
    if error is None or facts.nvidia_gpus():
        return PASSED
    gfx = amd_windows.target(facts)
    if facts.platform.wsl:
        return [rocm_in_wsl.no_device(facts, error, gfx)]
    if fixes.on_windows(facts):
        return [_not_in_windows(facts, error, gfx)]
    if gfx in _LEFT_BEHIND:
        return [_without_code(facts, error, gfx)]
    return [
        Finding(
            "rocm-no-device",
            "error",
            "ROCm finds no GPU"
            if facts.platform.container or gfx
            else "ROCm finds no GPU: its driver is not there, or this user may not open it",
            "The wheel brings ROCm's libraries, not the kernel's driver amdgpu with /dev/kfd, and only the groups "
            "render and video may open that; a container has to be started with it.",
            {**evidence(gpus=gpu_names(facts), devices=facts.platform.devices), **seen(error)},
            (*_to_be_let_in(facts, nvidia=False), "rocminfo | grep gfx", *(() if gfx else (_AMDGPU,))),
            ISSUES + "pytorch/pytorch/issues/70036",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def _not_in_windows(facts: Facts, error: ErrorFact, gfx: Optional[str]) -> Finding:
    known = gfx is None or amd_windows.index_of(gfx) is not None
    return Finding(
        "rocm-no-device",
        "error",
        "ROCm finds no GPU in this Windows" if known else f"AMD's ROCm for Windows does not know this GPU ({gfx})",
        "It drives cards from RX 7000 on, and the newer Ryzen AI, with a driver of its time; smaller and older ones "
        "not.",
        {**evidence(gpus=gpu_names(facts), gfx=gfx), **seen(error)},
        (
            *(
                ("Install the newest AMD Adrenalin driver, and restart Windows; hipinfo must name the card",)
                if known
                else ()
            ),
            *amd_windows.steps(facts),
            "Language models: llama.cpp (Ollama, LM Studio, KoboldCpp) with Vulkan, which runs on nearly every GPU",
        ),
        "https://rocm.docs.amd.com/projects/radeon-ryzen/en/latest/docs/compatibility/compatibilityryz/windows/"
        "windows_compatibility.html",
        affects=ALL_GPU_BENCHES,
        observed=True,
    )


def device_not_allowed(facts: Facts) -> Result:
    """The device files of a GPU are there, and this user may not open them."""

    def make(error: ErrorFact) -> Finding:
        return Finding(
            "gpu-device-not-allowed",
            "error",
            "This user may not open the GPU's device files",
            "The driver is there, but its files under /dev belong to a group (render and video for AMD and Intel) that "
            "this user or container is not in, or the batch system gave this job no GPU.",
            {**evidence(gpus=gpu_names(facts), container=facts.platform.container), **seen(error)},
            _to_be_let_in(facts, "nvidia" in (error.values.get("device") or error.values.get("node") or "")),
            "https://rocm.docs.amd.com/projects/install-on-linux/en/latest/install/prerequisites.html",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )

    root = facts.error("works-as-root")
    if root is not None and facts.has_amd() and not facts.has_nvidia():
        return [make(root)]
    return from_message(facts, ("gpu-device-not-allowed",), make)


def _to_be_let_in(facts: Facts, nvidia: bool) -> tuple[str, ...]:
    who = "ollama" if "ollama" in facts.formats else "$USER"
    groups = f"sudo usermod -aG render,video {who}"
    show = "ls -l /dev/kfd /dev/dri /dev/nvidia*; id"
    if nvidia:
        return (
            "ls -l /dev/nvidia*; id   # crw-rw-rw- is what the driver gives them; else: sudo chmod 666 /dev/nvidia*",
            "docker run --gpus all …   # in a container; on a cluster: ask for a GPU in the job, or its administrators",
        )
    if facts.platform.container:
        return (
            "docker run --device=/dev/kfd --device=/dev/dri --group-add $(getent group render | cut -d: -f3) "
            "--group-add video …   # the host's number of the group render: the image may not have that name",
            "ls -ln /dev/kfd /dev/dri; id   # inside: is that number among the user's groups? else --user root",
        )
    if facts.platform.service == "slurm":
        return ("srun --gres=gpu:1 …   # or the cluster's own way to ask for a GPU; then its administrators", show)
    if who == "ollama":
        return (groups, "sudo systemctl restart ollama")
    return (f"{groups}   # then log out and in; on a cluster: ask for a GPU in the job, or its administrators", show)


_BACKENDS = {
    "mps": ("Apple GPUs", "torch has mps only on macOS 12.3 and newer, in builds for Apple silicon."),
    "hip": ("AMD GPUs", "Take the ROCm build, and name the device 'cuda': torch's ROCm build keeps that name."),
}


def without_backend(facts: Facts) -> Result:
    """A device asked for by name that this build of torch has no code for."""

    def make(error: ErrorFact) -> Finding:
        device = error.values.get("device", "").lower()
        whose, *steps = ("Intel GPUs", *intel.wheel(facts)[1:]) if device == "xpu" else _BACKENDS.get(device, ("",))
        if device == "cuda":
            steps = list(fixes.reinstall_torch(facts))
        return Finding(
            "torch-without-backend",
            "error",
            f"This build of torch has no code for {device} devices" + (f" ({whose})" if whose else ""),
            "The kind of device is fixed when torch is built; a driver or another package does not add it.",
            {**evidence(torch__version=facts.torch.version, gpus=gpu_names(facts)), **seen(error)},
            (*steps, "or choose another device in the program: device='cpu'"),
            "https://docs.pytorch.org/docs/stable/notes/get_start_xpu.html"
            if device == "xpu"
            else "https://pytorch.org/get-started/locally/",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )

    return from_message(facts, ("torch-without-backend",), make)


def rocm_gfx_unsupported(facts: Facts) -> Result:
    """The ROCm build has no code for this gfx target."""
    gfx = next(
        (gpu.compute_capability for gpu in facts.gpus or () if (gpu.compute_capability or "").startswith("gfx")), None
    )
    error = facts.error("hip-no-binary", "rocblas-no-kernels")
    if error is None and gfx and not facts.nvidia_gpus():
        # On a card that runs another's code only, its messages without the name of HIP, and a crash, mean the same.
        error = facts.error(
            "invalid-device-function",
            "no-kernel-image",
            "ggml-code-missing",
            *(("crash-in-compiled-code",) * (gfx not in _BUILT)),
        )
    return PASSED if error is None else [_without_code(facts, error, gfx or error.values.get("gfx"))]


def _without_code(facts: Facts, error: Optional[ErrorFact], gfx: Optional[str]) -> Finding:
    return Finding(
        "rocm-gfx-unsupported",
        "error",
        f"ROCm's libraries have no code for this GPU{f' ({gfx})' if gfx else ''}",
        "The build lists other gfx targets; near relatives can often run each other's code.",
        {**evidence(gfx=gfx, torch__version=facts.torch.version), **seen(error)},
        _gfx_fix(facts, error, gfx),
        ISSUES + "ROCm/bitsandbytes/issues/29",
        affects=ALL_GPU_BENCHES,
        observed=True,
    )


# Polaris, Fiji and older: dropped by ROCm 4 and 5, and no near relative is left in the wheels.
_LEFT_BEHIND = frozenset(("gfx701", "gfx801", "gfx802", "gfx803"))


def _gfx_fix(facts: Facts, error: Optional[ErrorFact], gfx: Optional[str]) -> tuple[str, ...]:
    text = error.text if error else ""
    if "bitsandbytes" in text:
        return (fixes.install(facts, "bitsandbytes>=0.50", upgrade=True),)
    if gfx and gfx in _LEFT_BEHIND:
        return (
            *(
                ("Pictures: stable-diffusion.cpp or KoboldCpp, built with Vulkan   # cmake -B build -DSD_VULKAN=ON",)
                if facts.platform.program
                else ()
            ),
            "Language models: llama.cpp (Ollama, KoboldCpp, LM Studio) with Vulkan, which runs on this card   # cmake "
            "-B build -DGGML_VULKAN=ON",
            f"No wheel of torch since ROCm 5 has code for {gfx}, and no HSA_OVERRIDE_GFX_VERSION makes it run "
            "another's: another card, the CPU, or a build of torch that others made for it "
            "(https://github.com/robertrosenbusch/gfx803_rocm)",
        )
    if error and error.id == "rocblas-no-kernels" and facts.torch.version is None:
        return _rocblas_fix(facts, gfx)
    if "ggml" in text or facts.error("ggml-code-missing"):
        return _ggml_fix(gfx)
    newer = fixes.install(facts, "torch", options=f"--index-url {fixes.rocm_index(facts, newest=True)}", upgrade=True)
    if fixes.on_windows(facts):
        return (
            *amd_windows.steps(facts),
            "HSA_OVERRIDE_GFX_VERSION does nothing on Windows; llama.cpp built with Vulkan runs on every card",
        )
    if (gfx or "").startswith("gfx101") and not fixes.on_windows(facts):
        return _navi1(facts, gfx)
    near = relative_of(gfx)
    own = amd_windows.index_of(gfx)
    if own and near and facts.error("override-in-vain"):
        return (
            f"{fixes.uninstall(facts, 'torch')}; "
            + fixes.install(
                facts, "torch", "torchvision", "torchaudio", options=f"--pre --index-url {amd_windows.BUILDS}{own}/"
            )
            + f"   # AMD's own builds, which have {gfx} by its name",
            "unset HSA_OVERRIDE_GFX_VERSION",
            "or llama.cpp built with Vulkan, which needs no ROCm",
        )
    if near is None and gfx is not None:
        return (f"A build that knows {gfx}: {newer}", "or llama.cpp built with Vulkan, which needs no ROCm")
    override = (
        f"export HSA_OVERRIDE_GFX_VERSION={near}   # run {gfx} as its nearest supported relative; in a container -e"
        if near
        else "rocminfo | grep gfx   # then export HSA_OVERRIDE_GFX_VERSION: 10.3.0 for gfx1031 to gfx1036 (RX 6000), "
        "11.0.0 for gfx1101 to gfx1103 (RX 7000), none for other cards"
    )
    known = f"a build that knows it: {newer}"
    if facts.torch.version is None and ("tensorflow" in text.lower() or facts.package("tensorflow-rocm")):
        known = f"a newer ROCm with the tensorflow-rocm of its time: {_TENSORFLOW}"
    return (known, f"or: {override}") if gfx in _BUILT else (override, f"or {known}")


def _navi1(facts: Facts, gfx: Optional[str]) -> tuple[str, ...]:
    """RX 5000: ROCm from 5.3 on fails on it; see https://github.com/pytorch/pytorch/issues/106728."""
    last = fixes.install(
        facts,
        "torch==1.13.1+rocm5.2",
        "torchvision==0.14.1+rocm5.2",
        "numpy<2",
        options="--extra-index-url https://download.pytorch.org/whl/rocm5.2",
    )
    return (
        f"{last}   # Python 3.7 to 3.10: the last that runs on {gfx}; builds for ROCm 5.3 and newer hang or fail there",
        "export HSA_OVERRIDE_GFX_VERSION=10.3.0   # with that one; in a container -e",
        "or llama.cpp built with Vulkan, which needs no ROCm; Windows: torch-directml",
    )


_TENSORFLOW = "https://rocm.docs.amd.com/projects/install-on-linux/en/latest/install/3rd-party/tensorflow-install.html"


def _ggml_fix(gfx: Optional[str]) -> tuple[str, ...]:
    """What gives llama.cpp and its kin code for a target: compiled in, for the targets that the build was told."""
    target = gfx or "<the card's: rocminfo | grep gfx>"
    return (
        f"rm -rf build && cmake -B build -DGGML_HIP=ON -DGPU_TARGETS={target} && cmake --build build -j   # older "
        f"sources: -DGGML_HIPBLAS=ON or -DLLAMA_HIPBLAS=ON with -DAMDGPU_TARGETS={target}",
        f"llama-cpp-python: CMAKE_ARGS='-DGGML_HIP=on -DGPU_TARGETS={target}' python -m pip install --force-reinstall "
        "--no-cache-dir --no-binary llama-cpp-python llama-cpp-python",
        "or -DGGML_VULKAN=ON, which needs neither ROCm nor a target",
    )


# Files for these went out of ROCm's own packages with 6.4.
_WITHOUT_FILES = frozenset(("gfx900", "gfx906"))


def _rocblas_fix(facts: Facts, gfx: Optional[str]) -> tuple[str, ...]:
    """What gives rocBLAS its files for a target, where no wheel of torch is in play: llama.cpp and its kin."""
    vulkan = "Vulkan, which needs no ROCm: llama.cpp -DGGML_VULKAN=ON, KoboldCpp --usevulkan, Ollama OLLAMA_VULKAN=1"
    if gfx in _WITHOUT_FILES:
        return (
            f"An image or packages of ROCm 6.3 or older, which still bring rocBLAS's files for {gfx}; or copy the "
            f"files *{gfx}* of its lib/rocblas/library into /opt/rocm/lib/rocblas/library",
            f"or {vulkan}",
        )
    if fixes.on_windows(facts) or gfx in _BUILT:
        files = (
            f"Another release of the program, or its version with all GPU files: this one came without those for {gfx}"
            if gfx in _BUILT
            else "rocBLAS's files for this card, made by others, over those of the HIP SDK or the program: "
            "https://github.com/likelovewant/ROCmLibs-for-gfx1103-AMD780M-APU"
        )
        return (files, f"or {vulkan}") if gfx in _BUILT else (vulkan, f"or {files}")
    near = relative_of(gfx)
    override = (
        f"export HSA_OVERRIDE_GFX_VERSION={near}   # run {gfx} as its nearest supported relative; in a container -e"
        if near
        else "rocminfo | grep gfx   # then export HSA_OVERRIDE_GFX_VERSION: 10.3.0 for gfx1031 to gfx1036 (RX 6000), "
        "11.0.0 for gfx1101 to gfx1103 (RX 7000), none for other cards"
    )
    return (override, f"or {vulkan}")


def integrated_gpu_taken(facts: Facts) -> Result:
    """ROCm fails on the GPU inside the processor, or crashes where it lists that beside a card."""
    error = facts.error("rocblas-no-kernels", "hip-no-binary")
    asked = (error.values.get("gfx") if error else None) or ""
    card = amd_windows.target(facts)
    listed = facts.error("integrated-gfx-listed")
    if error is None and listed is not None and facts.torch.build == "rocm" and not facts.nvidia_gpus():
        error, asked = facts.error("crash-in-compiled-code"), listed.values.get("gfx", "")
    if error is None or asked not in INTEGRATED or card is None or card in INTEGRATED:
        return PASSED
    return [
        Finding(
            "integrated-gpu-taken",
            "error",
            f"The program runs on the GPU inside the processor ({asked}), not on the card ({card})",
            "ROCm lists both, and programs take the first one; it has no code for the small one.",
            {**evidence(gpus=gpu_names(facts), gfx=card), **seen(error)},
            (
                fixes.export(
                    facts, "HIP_VISIBLE_DEVICES", "0", "or 1: the card's number; hipinfo or rocminfo lists them"
                ),
                "or choose the card in the program: KoboldCpp --usecuda 1, llama.cpp --main-gpu 1 --split-mode none",
                "or switch the processor's graphics off in the firmware (Integrated Graphics: Disabled)",
            ),
            "https://rocm.docs.amd.com/projects/radeon-ryzen/en/latest/docs/prerequisites.html",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def relative_of(gfx: Optional[str]) -> Optional[str]:
    """The value of HSA_OVERRIDE_GFX_VERSION that runs a target as a near relative, where there is one."""
    return next((version for start, version in _RELATIVES if gfx and gfx.startswith(start)), None)


_BUILT = frozenset(
    (
        *("gfx900", "gfx906", "gfx908", "gfx90a", "gfx942", "gfx950", "gfx1030"),
        *("gfx1100", "gfx1101", "gfx1102", "gfx1151", "gfx1200", "gfx1201"),
    )
)
"""Targets of torch's ROCm wheels: https://github.com/pytorch/pytorch/blob/main/.ci/docker/build.sh."""
# Whose code each family of targets can run, the longest start first.
_RELATIVES = (
    ("gfx1030", None),
    ("gfx1100", None),
    ("gfx1150", "11.5.1"),
    ("gfx1152", "11.5.1"),
    ("gfx1153", "11.5.1"),
    ("gfx11", "11.0.0"),
    ("gfx103", "10.3.0"),
    ("gfx101", "10.3.0"),
    ("gfx90c", "9.0.0"),
    ("gfx902", "9.0.0"),
    ("gfx909", "9.0.0"),
)


RULES: tuple[Rule, ...] = (
    wrong_vendor,
    rocm_no_device,
    device_not_allowed,
    without_backend,
    integrated_gpu_taken,
    rocm_gfx_unsupported,
)
