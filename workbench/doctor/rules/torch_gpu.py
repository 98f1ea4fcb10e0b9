"""Rules about what torch was built for and what the NVIDIA GPU and its driver are."""

from __future__ import annotations

from typing import Optional

from workbench.doctor import fixes, torch_builds
from workbench.doctor.derive import found_cuda
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules import jetson as jetson_builds
from workbench.doctor.rules import web_uis
from workbench.doctor.rules.common import (
    ALL_GPU_BENCHES,
    ISSUES,
    PASSED,
    Result,
    Rule,
    capabilities,
    cuda_works,
    evidence,
    gpu_names,
    how_it_ended,
    is_jetson,
    last_lines,
    no_gpu_told,
    seen,
)
from workbench.doctor.rules.conda_builds import conda_steps
from workbench.doctor.rules.other_runtimes import OF_CTRANSLATE2
from workbench.doctor.tables import (
    WHEELS,
    cuda_of,
    driver_runs,
    minimum_driver,
    newer_than_table,
    torch_releases,
    variant_of,
)
from workbench.doctor.versions import at_least, older, release_of


def torch_cpu_only(facts: Facts) -> Result:
    """A CPU build of torch in a machine with an NVIDIA GPU."""
    error = _not_compiled(facts) or _wants_cuda(facts)
    build = facts.torch.build
    on_mac = facts.error("torch-not-compiled-with-cuda", "no-nvidia-driver", "needs-gpu")
    if on_mac is not None and facts.platform.system == "Darwin":
        return [_wants_what_is_not_there(facts, on_mac)]
    if error is None and build is None and not is_jetson(facts):
        return [_aarch64_cpu(facts)] if _is_aarch64_default(facts) and no_gpu_told(facts) else None
    if (build is not None and build != "cpu") or cuda_works(facts):
        return PASSED
    if build is None and is_jetson(facts):
        return [_aarch64_cpu(facts)] if error or facts.torch.cuda_available is False else None
    if error is not None and facts.platform.gpu_vendors == ("intel",) and facts.platform.system != "Darwin":
        return [_for_intel(facts, error)]
    if build is None and error is not None and not _not_compiled(facts):
        return None
    has_gpu = facts.has_nvidia()
    if has_gpu is None and facts.toolkit.nvcc and facts.origin == "report":
        has_gpu = True  # the paste names no GPU, but nobody installs nvcc without one
    if has_gpu is None and no_gpu_told(facts) and facts.platform.system != "Darwin":
        has_gpu = True
    if has_gpu is None and build == "cpu" and facts.origin == "report" and _is_aarch64_default(facts):
        has_gpu = True  # of all small machines with this processor, only those with a GPU are complained about
    if error is None and not has_gpu:
        return None if has_gpu is None else PASSED
    alone = has_gpu is None and facts.error("no-gpu-in-machine", "cpu-wanted") is not None
    if error is not None and (facts.platform.system == "Darwin" or has_gpu is False or alone):
        return [_wants_what_is_not_there(facts, error)]
    return [_aarch64_cpu(facts) if _is_aarch64_default(facts) else _cpu_only(facts)]


def _not_compiled(facts: Facts) -> Optional[ErrorFact]:
    """torch's own word that it was built without CUDA, or bitsandbytes' where it is not ROCm that torch has instead."""
    return facts.error("torch-not-compiled-with-cuda") or (
        None if facts.has_amd() else facts.error("bnb-finds-no-cuda-in-torch")
    )


def _for_intel(facts: Facts, error: ErrorFact) -> Finding:
    return Finding(
        "torch-cpu-only",
        "error",
        "The program asks for CUDA, and the GPU here is Intel's",
        "CUDA is NVIDIA's; torch has builds of its own for Intel's GPUs, where the device is called xpu.",
        {**evidence(torch__version=facts.torch.version, system=facts.platform.system), **seen(error)},
        (
            fixes.install(facts, "torch", "torchvision", options=f"--force-reinstall --index-url {WHEELS}/xpu"),
            "Choose the device in the program: device='xpu' in place of 'cuda' or .cuda()",
        ),
        "https://docs.pytorch.org/docs/stable/notes/get_start_xpu.html",
        affects=ALL_GPU_BENCHES,
        observed=True,
    )


_FULL_PRECISION = (
    "fp16=False and bf16=False in TrainingArguments (--fp16 False --bf16 False); mixed_precision: no for accelerate"
)


def _wants_what_is_not_there(facts: Facts, error: ErrorFact) -> Finding:
    mac = facts.platform.system == "Darwin"
    return Finding(
        "torch-cpu-only",
        "error",
        "The program asks for CUDA, and "
        + (
            "a Mac has no NVIDIA GPU that torch can use"
            if mac
            else "is to run without one"
            if facts.error("no-gpu-in-machine") is None and facts.has_nvidia() is None
            else "this machine has no NVIDIA GPU"
        ),
        "No build of torch brings CUDA to it; the program has to be told to use another device.",
        {**evidence(torch__version=facts.torch.version, system=facts.platform.system), **seen(error)},
        (
            *(web_uis.ON_THE_CPU if facts.platform.program == "sd-webui" or facts.error("sd-webui-told") else ()),
            *((_FULL_PRECISION,) if "recision" in error.text else ()),
            f"Choose the device in the program: device='{'mps' if mac else 'cpu'}' in place of 'cuda' or .cuda()",
            "torch.load(..., map_location='cpu') for weights that were saved on a GPU",
            *(
                ("What has no version for this device, such as 8-bit optimizers, has to be switched off.",)
                if mac
                else ()
            ),
        ),
        "https://pytorch.org/docs/stable/notes/device.html"
        if not mac
        else "https://pytorch.org/docs/stable/notes/mps.html",
        affects=ALL_GPU_BENCHES,
        observed=True,
    )


def _wants_cuda(facts: Facts) -> Optional[ErrorFact]:
    """A message that only somebody gets who wants to use an NVIDIA GPU; none where there cannot be one."""
    if facts.platform.system == "Darwin":
        return None
    built = facts.error("xformers-extensions")
    if built is not None and "+cu" in built.values.get("built", ""):
        return built
    return facts.error("conda-took-cpu", "needs-gpu", "vllm-no-device", "bnb-no-device")


def _cpu_only(facts: Facts) -> Finding:
    error = _not_compiled(facts) or _wants_cuda(facts)
    windows = facts.platform.system == "Windows"
    tail = " On Windows plain 'pip install torch' always gives it." if windows else ""
    return Finding(
        "torch-cpu-only",
        "error",
        "torch is a CPU build, so the NVIDIA GPU stays unused"
        if facts.has_nvidia()
        else "torch is a CPU build, which uses no GPU",
        "This torch was built without CUDA: it came from an index or a package without GPU builds, or another install "
        "replaced the GPU build." + tail,
        {
            **evidence(
                torch__version=facts.torch.version,
                torch__build=facts.torch.build,
                gpus=gpu_names(facts),
                driver=facts.driver.version,
                nvcc=None if facts.gpus else facts.toolkit.nvcc,
            ),
            **seen(error),
        },
        _cuda_build(facts, error),
        ISSUES + "pytorch/pytorch/issues/30664",
        affects=ALL_GPU_BENCHES,
        observed=error is not None or facts.torch.cuda_available is False,
    )


def _cuda_build(facts: Facts, error: Optional[ErrorFact]) -> tuple[str, ...]:
    """What brings the CUDA build: conda's own command where conda was asked for it, then pip's."""
    steps = fixes.reinstall_torch(facts)
    project = fixes.project_torch(facts)
    if project:
        return project
    by_conda = conda_steps(facts, error) if error is not None and error.id == "conda-took-cpu" else ()
    if not by_conda:
        return steps
    return (*by_conda, *(f"or, by pip: {step}" if not number else step for number, step in enumerate(steps)))


def _is_aarch64_default(facts: Facts) -> bool:
    return (
        facts.platform.machine == "aarch64"
        and facts.platform.system != "Darwin"
        and (facts.torch.version is None or older(facts.torch.version, "2.11"))
    )


def _aarch64_cpu(facts: Facts) -> Finding:
    jetson = is_jetson(facts)
    image = facts.error("l4t-image")
    fix = jetson_builds.torch_steps(facts) if jetson else fixes.reinstall_torch(facts, keep_release=False)
    if image is not None:
        fix = (
            "docker run --runtime nvidia dustynv/l4t-pytorch:r36.4.0 …   # the image's release must be the host's (cat "
            "/etc/nv_tegra_release): r36 on JetPack 6, r35 on JetPack 5, r32 on JetPack 4; jetson-containers run "
            "$(autotag l4t-pytorch) picks it",
        )
    return Finding(
        "aarch64-cpu-only-wheel",
        "error",
        "The image is not of this Jetson's release, or was started without NVIDIA's runtime"
        if image
        else "A Jetson needs NVIDIA's own build of torch"
        if jetson
        else "torch is the CPU wheel that the package index has for aarch64",
        "Wheels from the package index are made for servers, or for the CPU alone; a Jetson's GPU wants the build for "
        "its JetPack."
        if jetson
        else "Up to torch 2.10 the default index offers only CPU wheels for Linux on aarch64 (GH200, GB10); CUDA came "
        "with 2.11.",
        evidence(torch__version=facts.torch.version, machine=facts.platform.machine, gpus=gpu_names(facts)),
        fix,
        ISSUES + "pytorch/pytorch/issues/160162",
        affects=ALL_GPU_BENCHES,
        observed=facts.torch.cuda_available is False,
    )


_ANOTHER_TORCH = (
    " torch {named}, which is named, runs with this driver: another one is imported, brought along by a requirement."
)
_SINCE_CUDA_13 = ". Since torch 2.11 the default wheel is built with CUDA 13, which needs driver 580."


def driver_too_old(facts: Facts) -> Result:
    """The driver cannot run the CUDA major that torch was built with."""
    error = facts.error("driver-too-old", "driver-insufficient")
    if error is not None and OF_CTRANSLATE2 in error.text:
        return PASSED  # other_runtimes tells of it
    cuda = _cuda_wanted(facts)
    numbers = release_of(cuda)
    major = numbers[0] if numbers else None
    offered = _driver_major(facts)
    old = _older_than(facts, cuda, offered)
    if error is None and old is None:
        return None
    if cuda_works(facts) or (error is None and not old):
        return PASSED
    if facts.has_amd() and not facts.has_nvidia() and not old:
        return PASSED  # the words of a CUDA build on an AMD card
    another = error is not None and error.id == "driver-too-old" and old is False
    if another:
        cuda, major = None, None  # torch would not say so of the build that is named
    windows = facts.platform.system == "Windows"
    minimum = minimum_driver(major, windows)[0] if major else None
    wheel = torch_builds.choose_wheel(facts)
    if minimum is None and offered is not None and (wheel is not None or facts.platform.image):
        minimum = minimum_driver(offered + 1, windows)[0]
    host = " of the host" if facts.platform.container else ""
    fix = [f"Update the NVIDIA driver{host} to {minimum} or newer, then reboot."] if minimum else []
    before_11 = older(found_cuda(facts) or facts.driver.cuda, "11.0")
    if before_11 and (facts.torch.version is None or older(facts.torch.version, "1.13")):
        newest = minimum or minimum_driver(11, windows)[0]
        fix = [
            f"Update the NVIDIA driver{host} to {newest} or newer, then reboot.",
            *fixes.old_torch(facts, found_cuda(facts) or facts.driver.cuda),
        ]
    elif facts.platform.container and facts.platform.image and fix:
        fix.append(f"or a tag of {facts.platform.image} for an older CUDA: nvidia-smi on the host shows what it runs")
    elif wheel is not None and _of_blackwell(facts):
        fix = ["Update the NVIDIA driver to 580 or newer, then reboot: the first that knew this GPU was 570"]
    elif wheel is not None and windows and fix and not any(older(number, "5.0") for _, number in capabilities(facts)):
        # A desktop's driver is its user's; programs that bring their own torch get the old one back.
        command, *rest = fixes.reinstall_torch(facts)
        fix = [f"{fix[0]} https://www.nvidia.com/drivers", f"or, with the driver as it is: {command}", *rest]
    elif wheel is not None:
        fix = [*fixes.reinstall_torch(facts), f"or: {fix[0][0].lower()}{fix[0][1:]}" if fix else ""]
    elif not fix:
        fix = [fixes.reinstall_torch(facts)[0], *fixes.reinstall_torch(facts)[1:]]
    alone = error is not None and "cudaGetDeviceCount returned" in error.text  # NVIDIA's deviceQuery
    if alone:
        newest = minimum or minimum_driver(12, windows)[0]
        fix = [
            f"Update the NVIDIA driver{host} to one of that CUDA or newer ({newest} for CUDA 12), then reboot: "
            "sudo ubuntu-drivers install; Windows: https://www.nvidia.com/drivers",
            "nvidia-smi   # the CUDA in its heading is the newest that the driver runs: or a toolkit of that one",
        ]
    wants = f"CUDA {cuda}" if cuda else "a newer CUDA"
    there = found_cuda(facts) or facts.driver.cuda
    offers = f"; the driver offers {there}" if there else ""
    note = " The tables end before this torch; the rule is NVIDIA's: a driver runs no newer CUDA major than its own."
    return [
        Finding(
            "driver-too-old-for-wheel-cuda",
            "error",
            f"The NVIDIA driver is too old for {'this program' if alone else 'this torch'} ({wants}{offers})",
            f"{'The program' if alone else 'torch'} brings {wants}"
            + (f", which needs driver {minimum} or newer" if minimum else "")
            + ("." if major and major < 13 else _SINCE_CUDA_13)
            + (note if newer_than_table("torch", facts.torch.version) else "")
            + (_ANOTHER_TORCH.format(named=facts.torch.version) if another and facts.torch.version else ""),
            {
                **evidence(
                    torch__version=facts.torch.version,
                    torch__cuda=facts.torch.cuda,
                    asked_for=None if facts.torch.cuda else cuda,
                    driver=facts.driver.version,
                    driver__cuda=found_cuda(facts) or facts.driver.cuda,
                ),
                **seen(error),
            },
            tuple(filter(None, fix)),
            ISSUES + "pytorch/pytorch/pull/162531",
            affects=ALL_GPU_BENCHES,
            observed=error is not None or facts.torch.cuda_available is False,
        )
    ]


def _of_blackwell(facts: Facts) -> bool:
    """Whether the GPU came after all drivers of older CUDAs: no other torch helps there."""
    return any(at_least(capability, "10.0") for _, capability in capabilities(facts))


def _driver_major(facts: Facts) -> Optional[int]:
    numbers = release_of(found_cuda(facts) or facts.driver.cuda)
    return numbers[0] if numbers else None


def _cuda_wanted(facts: Facts) -> Optional[str]:
    """The CUDA of this torch: as it says itself, else as the command says that installed it."""
    if facts.torch.build == "cuda":
        return facts.torch.cuda
    unproven = facts.torch.build is None and not facts.torch.cuda_available
    return facts.torch.asked_cuda if unproven else None


def _older_than(facts: Facts, cuda: Optional[str], offered: Optional[int]) -> Optional[bool]:
    numbers = release_of(cuda)
    major = numbers[0] if numbers else None
    # Minor versions became interchangeable with CUDA 11; before, a driver ran nothing newer than its own.
    if numbers and numbers[0] < 11 and facts.driver.cuda and not facts.platform.wsl:
        return older(facts.driver.cuda, cuda or "")
    if major is None:
        before_all = older(facts.driver.version, "440.33") and facts.torch.cuda_available is False
        return True if before_all and not facts.platform.wsl else None
    if offered is not None:
        return offered < major
    if facts.driver.version and not facts.platform.wsl:
        runs = driver_runs(facts.driver.version, major, facts.platform.system == "Windows")
        return None if runs is None else not runs
    return None


def cuda_init_failed(facts: Facts) -> Result:
    """CUDA does not start and nothing more precise is known."""
    works = cuda_works(facts)
    step = facts.probe("cuda")
    if works is None and step is None:
        return None
    gpu = facts.has_nvidia()
    crashed = step is not None and step.status in ("crashed", "timeout")
    if works or (not crashed and (not gpu or facts.torch.build != "cuda")):
        return PASSED
    return [
        Finding(
            "cuda-does-not-start",
            "error",
            "CUDA does not start in this environment"
            + (f": {how_it_ended(step.status, step.signal, step.detail)}" if crashed and step else ""),
            "torch is a CUDA build and a GPU is there, but torch.cuda.is_available() is False.",
            evidence(
                torch__version=facts.torch.version,
                torch__cuda=facts.torch.cuda,
                driver=facts.driver.version,
                error=facts.torch.cuda_error,
                stderr=last_lines(step.stderr) if step else None,
            ),
            ("nvidia-smi", f'{fixes.python_command(facts)} -c "import torch; torch.cuda.init()"   # the full error'),
            "https://docs.nvidia.com/deploy/cuda-compatibility/",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def kernel_failed(facts: Facts) -> Result:
    """CUDA starts but a kernel does not run, and nothing more precise is known."""
    step = facts.probe("kernel")
    if step is None or step.status == "skipped":
        return None
    if step.status == "passed":
        return PASSED
    return [
        Finding(
            "kernel-launch-failed",
            "error",
            f"A kernel does not run: {how_it_ended(step.status, step.signal, step.detail)}",
            "A sum and a matrix product were tried on every device.",
            evidence(torch__version=facts.torch.version, detail=step.detail[:400], stderr=last_lines(step.stderr)),
            ("nvidia-smi", "sudo dmesg | grep -i xid"),
            "https://docs.nvidia.com/deploy/xid-errors/",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def newer_torch_than_known(facts: Facts) -> Result:
    """Said once, so that nobody takes silence for knowledge."""
    if facts.torch.version is None:
        return None
    if not newer_than_table("torch", facts.torch.version):
        return PASSED
    newest = torch_releases()[-1].latest
    return [
        Finding(
            "torch-newer-than-tables",
            "info",
            f"torch {facts.torch.version} is newer than this tool's tables (up to {newest})",
            "Its CUDA, driver and GPU needs are judged by the vendors' general rules.",
            evidence(torch__version=facts.torch.version, cuda=cuda_of(variant_of(facts.torch.cuda) or "")),
            (),
            ISSUES + "pytorch/pytorch/blob/main/RELEASE.md",
        )
    ]


RULES: tuple[Rule, ...] = (
    torch_cpu_only,
    driver_too_old,
    cuda_init_failed,
    kernel_failed,
    newer_torch_than_known,
)
