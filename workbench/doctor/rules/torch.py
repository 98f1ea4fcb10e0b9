"""Rules about the installed torch: its build, its kernels, its driver, its Python, its copies."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.derive import found_cuda
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import (
    ALL_GPU_BENCHES,
    ISSUES,
    PASSED,
    Result,
    Rule,
    capabilities,
    cuda_works,
    evidence,
    from_message,
    gpu_names,
    no_gpu_told,
    seen,
    torch_code,
    uncovered,
)
from workbench.doctor.tables import (
    WHEELS,
    Kernels,
    cuda_of,
    driver_runs,
    minimum_driver,
    newer_than_table,
    torch_release,
    torch_releases,
    variant_of,
)
from workbench.doctor.versions import at_least, local_tag, minor_name, older, release_of

EVERYTHING = ("chat", "vram", "architecture")


def torch_missing(facts: Facts) -> Result:
    """There is no torch."""
    error = facts.error("no-module-torch") or _no_framework(facts)
    absent = facts.torch.installed is False or facts.lacks("torch")
    if error is None and not absent:
        return None if facts.torch.installed is None else PASSED
    if facts.torch.installed:
        return [_elsewhere(facts, error)] if error is not None and error.id == "no-module-torch" else PASSED
    return [
        Finding(
            "torch-missing",
            "error",
            "torch is not installed in this environment",
            "Without torch no model can be loaded, traced or measured; counting tokens and estimating still work.",
            {**evidence(interpreter=facts.python.executable), **seen(error)},
            (*fixes.preparation(facts), fixes.fresh_torch(facts)),
            "https://pytorch.org/get-started/locally/",
            affects=EVERYTHING,
            observed=True,
        )
    ]


def _elsewhere(facts: Facts, error: ErrorFact) -> Finding:
    return Finding(
        "torch-missing",
        "error",
        "torch is installed, but not for the Python that runs the program",
        "pip, conda and the program may each belong to another Python: one of an environment, of the system, of a "
        "notebook's kernel or of an editor.",
        {**evidence(torch__version=facts.torch.version, location=facts.torch.location), **seen(error)},
        (
            'python -c "import sys; print(sys.executable)"   # in the program too: is it the same?',
            "python -m pip show torch   # with that very Python; plain pip may belong to another",
            "In a notebook or an editor: choose the environment with torch as kernel or interpreter.",
        ),
        "https://docs.python.org/3/installing/index.html",
        affects=EVERYTHING,
        observed=True,
    )


def _no_framework(facts: Facts) -> Optional[ErrorFact]:
    """transformers found no torch, and nothing else says that there is one."""
    known = facts.torch.version or facts.torch.cuda or facts.error("pytorch-disabled", "torch-attribute")
    return None if known else facts.error("framework-required")


def torch_import_broken(facts: Facts) -> Result:
    """torch is there but cannot be imported; the generic case."""
    step = facts.probe("torch")
    error = facts.error("torch-import-dll", "torch-library-missing", "torch-library-symbol")
    if step is None and error is None:
        return None
    if error is None and (step is None or step.status in ("passed", "skipped")):
        return PASSED
    how = _how(step.status, step.signal, step.detail) if step else _what_fails(error)
    fix = _import_fix(facts, error)
    return [
        Finding(
            "torch-import-broken",
            "error",
            f"import torch fails: {how}",
            "The files of torch are there, but it does not come up; everything that needs torch fails with it.",
            {
                **evidence(
                    torch__version=facts.torch.version,
                    torch__location=facts.torch.location,
                    exit_code=step.exit_code if step else None,
                    stderr=_tail(step.stderr) if step else None,
                ),
                **seen(error),
            },
            fix,
            "https://pytorch.org/get-started/locally/",
            affects=EVERYTHING,
            observed=True,
        )
    ]


def _what_fails(error: Optional[ErrorFact]) -> str:
    values = error.values if error else {}
    if values.get("library"):
        return f"{values['library']} is not found"
    if error is not None and "fbgemm" in error.text:
        return "libomp140.x86_64.dll, which its fbgemm.dll asks for, is most likely missing"
    return f"undefined symbol {values['symbol'][:60]}" if values.get("symbol") else "a DLL cannot be loaded"


def _import_fix(facts: Facts, error: Optional[ErrorFact]) -> tuple[str, ...]:
    repair = fixes.repair_torch(facts)
    if error is None:
        return repair or fixes.reinstall_torch(facts)
    if error.id == "torch-import-dll" and not at_least(facts.torch.version, "2.4.1") and "fbgemm" in error.text:
        # fbgemm.dll of 2.4.0 asks for a debug build's libomp140, which no redistributable brings.
        companions = [name for name in ("torchvision", "torchaudio") if facts.package(name)]
        index = f"--index-url {WHEELS}/{variant_of(facts.torch.cuda) or 'cu121'}"
        return (
            fixes.install(facts, "torch==2.4.1", *companions, options=index) + "   # or newer: brings what fbgemm.dll "
            "lacked in 2.4.0 and the nightlies before it",
            "or put libomp140.x86_64.dll, from Visual Studio's C++ build tools, into C:\\Windows\\System32",
            "else, with another torch: the newest https://aka.ms/vs/17/release/vc_redist.x64.exe",
        )
    if error.id == "torch-import-dll":
        return (
            "Install the Microsoft Visual C++ Redistributable: https://aka.ms/vs/17/release/vc_redist.x64.exe",
            *(f"or, if it stays: {step}" for step in (repair[-1:] or (fixes.fresh_torch(facts, upgrade=True),))),
        )
    if _is_jetson(facts):
        return (
            "cat /etc/nv_tegra_release   # on a Jetson CUDA is the host's: the container must be of this L4T release",
            "docker run --runtime nvidia …   # without it nothing of the host's CUDA is seen inside",
            "Outside a container: install the torch that NVIDIA made for this JetPack, and the CUDA of that JetPack.",
        )
    return repair or fixes.repair_in_words(facts)


def mkl_too_new(facts: Facts) -> Result:
    """A symbol that MKL 2024.1 took away from torch builds made before."""
    error = facts.error("torch-library-symbol")
    if error is None or error.values.get("symbol") != "iJIT_NotifyEvent":
        return PASSED
    return [
        Finding(
            "mkl-too-new-for-torch",
            "error",
            "This torch was built for an older MKL than the one installed",
            "MKL 2024.1 no longer has iJIT_NotifyEvent, which conda builds of torch up to 2.2 look for.",
            {**evidence(torch__version=facts.torch.version, mkl=facts.package("mkl")), **seen(error)},
            ("conda install -y 'mkl<2024.1' 'intel-openmp<2024.1'",),
            ISSUES + "pytorch/pytorch/issues/123097",
            affects=EVERYTHING,
            observed=True,
        )
    ]


def _how(status: str, signal: Optional[str], detail: str) -> str:
    if status == "timeout":
        return f"it {detail}"
    if signal:
        return f"the process dies with {signal}"
    first = next((line for line in detail.splitlines() if line.strip()), status)
    return first[:160]


def _tail(text: str) -> Optional[str]:
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-4:])[:600] or None


def torch_cpu_only(facts: Facts) -> Result:
    """A CPU build of torch in a machine with an NVIDIA GPU."""
    error = facts.error("torch-not-compiled-with-cuda") or _wants_cuda(facts)
    build = facts.torch.build
    if error is None and build is None and not _is_jetson(facts):
        return None
    if (build is not None and build != "cpu") or cuda_works(facts):
        return PASSED
    if build is None and _is_jetson(facts):
        return [_aarch64_cpu(facts)] if error or facts.torch.cuda_available is False else None
    if error is not None and facts.platform.gpu_vendors == ("intel",) and facts.platform.system != "Darwin":
        return [_for_intel(facts, error)]
    if build is None and error is not None and error.id != "torch-not-compiled-with-cuda":
        return None
    has_gpu = facts.has_nvidia()
    if has_gpu is None and facts.toolkit.nvcc and facts.origin == "report":
        has_gpu = True  # the paste names no GPU, but nobody installs nvcc without one
    if has_gpu is None and no_gpu_told(facts) and facts.platform.system != "Darwin":
        has_gpu = True
    if error is None and not has_gpu:
        return None if has_gpu is None else PASSED
    if error is not None and (facts.platform.system == "Darwin" or has_gpu is False):
        return [_wants_what_is_not_there(facts, error)]
    return [_aarch64_cpu(facts) if _is_aarch64_default(facts) else _cpu_only(facts)]


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


def _wants_what_is_not_there(facts: Facts, error: ErrorFact) -> Finding:
    mac = facts.platform.system == "Darwin"
    return Finding(
        "torch-cpu-only",
        "error",
        "The program asks for CUDA, and this machine has no NVIDIA GPU",
        "No build of torch brings CUDA to it; the program has to be told to use another device.",
        {**evidence(torch__version=facts.torch.version, system=facts.platform.system), **seen(error)},
        (
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
    error = facts.error("torch-not-compiled-with-cuda") or _wants_cuda(facts)
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
        fixes.reinstall_torch(facts),
        ISSUES + "pytorch/pytorch/issues/30664",
        affects=ALL_GPU_BENCHES,
        observed=error is not None or facts.torch.cuda_available is False,
    )


def _is_aarch64_default(facts: Facts) -> bool:
    return (
        facts.platform.machine == "aarch64" and facts.platform.system != "Darwin" and older(facts.torch.version, "2.11")
    )


def _is_jetson(facts: Facts) -> bool:
    return any(re.search(r"jetson|\borin|xavier", (gpu.name or "").lower()) for gpu in facts.gpus or ())


def _aarch64_cpu(facts: Facts) -> Finding:
    jetson = _is_jetson(facts)
    fix = (
        (
            "Install NVIDIA's own build for your JetPack: "
            "https://docs.nvidia.com/deeplearning/frameworks/install-pytorch-jetson-platform/",
        )
        if jetson
        else fixes.reinstall_torch(facts, keep_release=False)
    )
    return Finding(
        "aarch64-cpu-only-wheel",
        "error",
        "A Jetson needs NVIDIA's own build of torch"
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


_SINCE_CUDA_13 = ". Since torch 2.11 the default wheel is built with CUDA 13, which needs driver 580."


def driver_too_old(facts: Facts) -> Result:
    """The driver cannot run the CUDA major that torch was built with."""
    error = facts.error("driver-too-old", "driver-insufficient")
    cuda = _cuda_wanted(facts)
    numbers = release_of(cuda)
    major = numbers[0] if numbers else None
    offered = _driver_major(facts)
    old = _older_than(facts, cuda, offered)
    if error is None and old is None:
        return None
    if cuda_works(facts) or (error is None and not old):
        return PASSED
    windows = facts.platform.system == "Windows"
    minimum = minimum_driver(major, windows)[0] if major else None
    wheel = fixes.choose_wheel(facts)
    if minimum is None and offered is not None and wheel is not None:
        minimum = minimum_driver(offered + 1, windows)[0]
    host = " of the host" if facts.platform.container else ""
    fix = [f"Update the NVIDIA driver{host} to {minimum} or newer, then reboot."] if minimum else []
    if wheel is not None:
        fix = [*fixes.reinstall_torch(facts), f"or: {fix[0][0].lower()}{fix[0][1:]}" if fix else ""]
    elif not fix:
        fix = [fixes.reinstall_torch(facts)[0], *fixes.reinstall_torch(facts)[1:]]
    wants = f"CUDA {cuda}" if cuda else "a newer CUDA"
    note = " The tables end before this torch; the rule is NVIDIA's: a driver runs no newer CUDA major than its own."
    return [
        Finding(
            "driver-too-old-for-wheel-cuda",
            "error",
            f"The NVIDIA driver is too old for this torch ({wants})",
            f"torch brings {wants}"
            + (f", which needs driver {minimum} or newer" if minimum else "")
            + ("." if major and major < 13 else _SINCE_CUDA_13)
            + (note if newer_than_table("torch", facts.torch.version) else ""),
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


def _driver_major(facts: Facts) -> Optional[int]:
    numbers = release_of(found_cuda(facts) or facts.driver.cuda)
    return numbers[0] if numbers else None


def _cuda_wanted(facts: Facts) -> Optional[str]:
    """The CUDA of this torch: as it says itself, else as the command says that installed it."""
    if facts.torch.build == "cuda":
        return facts.torch.cuda
    unseen = facts.torch.build is None and facts.torch.cuda_available is False
    return facts.torch.asked_cuda if unseen else None


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


def wheel_lacks_gpu_arch(facts: Facts) -> Result:
    """torch has no code for a GPU of this capability, newer or older than what it was built for."""
    error = facts.error("unsupported-capability", "gpu-too-old-for-torch") or _out_of_range(facts)
    missing = uncovered(facts)
    code = torch_code(facts)
    if error is None and missing is None:
        return None
    if facts.torch.kernel_ok or (error is None and not missing):
        return PASSED
    gpu, capability = next(iter(missing or capabilities(facts)), (None, None))
    name = (gpu.name if gpu else None) or "this GPU"
    new = capability is not None and bool(at_least(capability, "10.0"))
    shown = f"sm_{capability.replace('.', '')}" if capability else "its capability"
    return [
        Finding(
            "torch-wheel-lacks-gpu-arch",
            "error",
            f"This torch has no kernels for {name} ({shown})",
            (
                "The GPU is newer than this build: Blackwell needs torch 2.7 or newer built with CUDA 12.8 or newer."
                if new
                else "The GPU is newer than this build, which was made before there was one of its kind."
                if _beyond(code, capability)
                else "The GPU is older than what this build still carries: wheels have left out 3.5 since torch 1.3, "
                "and CUDA 12 no longer compiles for it."
                if capability and older(capability, "3.7")
                else "The GPU is older than what this build still carries; CUDA 13 builds start at 7.5, and torch "
                "2.14 with "
                "CUDA 12.6 is the last for Maxwell, Pascal and Volta."
            )
            + " Every operation on it ends in 'no kernel image is available'.",
            {
                **evidence(
                    gpu=name,
                    compute_capability=capability,
                    torch__version=facts.torch.version,
                    torch__cuda=facts.torch.cuda,
                    kernels=" ".join(code.arch) if code else None,
                ),
                **seen(error or facts.error("no-kernel-image")),
            },
            _arch_fix(facts, capability),
            ISSUES + ("pytorch/pytorch/issues/150733" if new else "pytorch/pytorch/issues/190385"),
            affects=ALL_GPU_BENCHES,
            observed=error is not None or facts.error("no-kernel-image") is not None or facts.torch.kernel_ok is False,
        )
    ]


def _beyond(code: Optional[Kernels], capability: Optional[str]) -> bool:
    """Whether a GPU is newer than all that a build has code for."""
    numbers = [release_of(item) or (0, 0) for item in code.arch] if code else []
    wanted = release_of(capability)
    # No build has yet left out Turing or anything newer for its age.
    return wanted is not None and wanted > max(numbers, default=(7, 4))


def _out_of_range(facts: Facts) -> Optional[ErrorFact]:
    """torch's note on the capabilities it was built for; one minor beyond them on the same major still runs."""
    error = facts.error("capability-range")
    if error is None:
        return None
    have, low, high = (release_of(error.values.get(name)) for name in ("cc", "low", "high"))
    if have is None or low is None or high is None:
        return None
    return error if have < low or have[0] > high[0] else None


def _arch_fix(facts: Facts, capability: Optional[str]) -> tuple[str, ...]:
    if not capabilities(facts):
        return (
            "nvidia-smi --query-gpu=name,compute_cap --format=csv   # the capability decides",
            "10.0 and newer (Blackwell): "
            + fixes.install(
                facts, "torch>=2.7", options="--index-url https://download.pytorch.org/whl/cu128", upgrade=True
            ),
            "7.0 and older (Volta, Pascal, Maxwell): "
            + fixes.install(facts, "torch==2.14.1", options="--index-url https://download.pytorch.org/whl/cu126"),
        )
    fix = fixes.reinstall_torch(facts)
    if "No published torch wheel" in fix[-1] and capability and older(capability, "3.7"):
        return (
            "Compile torch from source with CUDA 11, the last for this GPU: export TORCH_CUDA_ARCH_LIST="
            f"{capability}, then python setup.py install",
            "or take wheels of that time: torch 1.2 and older carry 3.5",
            "or llama.cpp on the CPU, or another card",
        )
    return fix


def no_kernel_image(facts: Facts) -> Result:
    """'no kernel image' where torch itself covers the GPU, or where that is not known."""
    error = facts.error("no-kernel-image", "invalid-device-function")
    if error is None or facts.torch.hip:
        return PASSED
    covered = uncovered(facts) == []
    old = next((gpu for gpu, capability in capabilities(facts) if older(capability, "7.5")), None)
    who = re.search(r"\[(TensorRT-LLM|TRT|vLLM|onnxruntime)[\]:]", error.text)
    library = who[1] if who else "An extension" if covered else "Some library"
    old_torch = "/THC/" in error.text or "\\THC\\" in error.text  # torch's own folder up to 1.10
    title = "This torch is too old for this GPU" if old_torch else f"{library} has no kernels for this GPU"
    return [
        Finding(
            "app-needs-newer-compute-capability" if covered else "no-kernel-image",
            "error",
            title,
            (
                "torch itself covers the GPU, so the code comes from an extension (vLLM, AWQ, flash-attn, exllama) "
                "built for "
                if covered
                else "It has code for the cards of its time, 2021 and before, and none for "
                if old_torch
                else "The code that was launched was not built for "
            )
            + ("newer cards." if old or not covered else "other cards."),
            {**evidence(gpus=gpu_names(facts), torch__version=facts.torch.version), **seen(error)},
            fixes.reinstall_torch(facts, keep_release=False) if old_torch else _other_build(facts, error),
            ISSUES + "vllm-project/vllm/issues/1284",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def _other_build(facts: Facts, error: ErrorFact) -> tuple[str, ...]:
    capability = next((capability for _, capability in capabilities(facts)), None)
    target = f"compute capability {capability}" if capability else "the GPU's compute capability"
    image = facts.platform.image
    old = older(capability, "7.0") or (capability is None and "vllm" in error.text.lower())
    newest = at_least(capability, "10.0") and facts.torch.version is None and not image
    fresh = fixes.fresh_torch(facts, "torchvision", upgrade=True) if newest else ""
    build = (
        "See in the traceback which package launched the kernel; install its build for this GPU or build it with "
        f"TORCH_CUDA_ARCH_LIST={capability or 'the capability that nvidia-smi --query-gpu=compute_cap gives'}."
    )
    return (
        *(
            (f"Take a tag of the image {image} whose programs were built for {target}, or build them so.",)
            if image
            else ()
        ),
        *((f"{fresh}   # Blackwell needs torch 2.7 or newer with CUDA 12.8 or newer",) if newest else ()),
        *((("If torch is new enough: " if newest else "") + build,) if not image else ()),
        *(("For cards below 7.0 use llama.cpp in place of vLLM.",) if old else ()),
        *((f"Where there is none, the program does not run on a card of {target}.",) if image else ()),
    )


def no_wheel_for_python(facts: Facts) -> Result:
    """pip finds no torch for this Python."""
    error = facts.error("pip-no-torch")
    if error is None:
        return PASSED
    if (
        facts.platform.libc == "musl"
        or "musl" in (facts.platform.os or "").lower()
        or "alpine" in (facts.platform.os or "").lower()
    ):
        return PASSED
    if _intel_mac(facts):
        return PASSED
    unpublished = _unpublished(facts, error)
    if unpublished:
        return [unpublished]
    newest = torch_releases()[-1]
    python = facts.python.version
    fits = any(fixes.python_fits(python, release) for release in torch_releases())
    asked = re.search(r"\btorch(==[\w.+]{1,30})", error.text)
    return [
        Finding(
            "no-torch-wheel-for-python",
            "error",
            _no_wheel_title(python, asked),
            "pip offers only wheels made for this Python and platform. It finds none (or only old ones) for a "
            "Python that "
            "is too new or too old, a 32-bit one, or a platform without wheels.",
            {**evidence(python=python, bits=facts.python.bits, offered=error.values.get("offered")), **seen(error)},
            _asked_release(facts, asked[1], error)
            if asked and not fits
            else (
                f"Use Python {newest.python_min} to 3.14 (64-bit) for torch {newest.name}: uv venv --python 3.12 .venv",
                _activate(facts),
                "uv pip install torch",
            )
            if not fits
            else (
                *_older_python(asked),
                "python -m pip install -U pip   # an old pip does not know the wheel's platform tag",
                fixes.fresh_torch(facts)
                + (f"   # a release that has wheels for Python {minor_name(python)}" if asked else ""),
            ),
            "https://pytorch.org/get-started/locally/",
            affects=EVERYTHING,
            observed=True,
        )
    ]


def _no_wheel_title(python: Optional[str], asked: Optional[re.Match[str]]) -> str:
    if asked:
        return f"torch{asked[1]} has no wheel for " + (f"Python {python}" if python else "this Python")
    return f"pip finds no torch wheel for Python {python}" if python else "pip finds no torch wheel for this Python"


def _activate(facts: Facts) -> str:
    return r".venv\Scripts\activate" if fixes.on_windows(facts) else "source .venv/bin/activate"


def _asked_release(facts: Facts, asked: str, error: ErrorFact) -> tuple[str, ...]:
    """How to get the very release that is asked for, and what is there without it."""
    tag = local_tag(asked) or ""
    python = _python_of(asked)
    index = f" --index-url {WHEELS}/{tag}" if re.fullmatch(r"cu\d{2,3}|cpu", tag) else ""
    offered = [word.strip() for word in error.values.get("offered", "").split(",") if release_of(word.strip())]
    return (
        f"An environment with Python {python} (64-bit), for which torch{asked} was made: uv venv --python {python} "
        ".venv",
        _activate(facts),
        f"uv pip install torch{asked.partition('+')[0]}{index}"
        + ("" if index else "   # then the rest of the program's requirements"),
        *((f"or, where nothing needs that release: torch=={offered[-1]}, which is offered here",) if offered else ()),
    )


def _python_of(asked: str) -> str:
    """The newest Python that a release was made for; before the table 3.10 (1.11 and 1.12) or 3.9."""
    version = asked.lstrip("=")
    release = torch_release(version)
    return release.python_max if release else "3.10" if at_least(version, "1.11") else "3.9"


def _intel_mac(facts: Facts) -> bool:
    """Whether this is a Mac with an Intel processor, for which pip offers nothing newer than 2.2.2."""
    if facts.platform.system == "Darwin" and facts.platform.machine is not None:
        return facts.platform.machine == "x86_64"
    error = facts.error("pip-no-torch")
    offered = (error.values.get("offered", "") if error else "").split(",")
    ends = offered[-1].strip() == "2.2.2" and len(offered) > 1
    return ends and facts.platform.system in ("Darwin", None) and not fixes.on_windows(facts)


def _older_python(asked: Optional[re.Match[str]]) -> tuple[str, ...]:
    """The Python for a release that one insists on."""
    if asked is None:
        return ()
    python = _python_of(asked[1])
    return (f"To keep torch{asked[1]}: an environment with Python {python}: uv venv --python {python} .venv",)


def _unpublished(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """A release asked for with a CUDA that it was never built with."""
    asked = re.search(r"torch==(\d{1,2}\.\d{1,2}(?:\.\d{1,2})?)\+(cu\d{2,3})\b", error.text)
    release = torch_release(asked[1]) if asked else None
    if asked is None or release is None or asked[2] in release.variants:
        return None
    wheel = fixes.choose_wheel(facts)
    nearest = sorted(release.variants, key=lambda variant: (variant[:-1] == asked[2][:-1], variant), reverse=True)
    variants = [wheel.variant] if wheel and wheel.variant in release.variants else nearest
    return Finding(
        "torch-build-not-published",
        "error",
        f"torch {asked[1]} was never built with {asked[2]}",
        f"Builds of torch {release.name} exist for {', '.join(release.variants)}; a driver runs every build of its own "
        "CUDA major or an older one.",
        {**evidence(asked=f"{asked[1]}+{asked[2]}", offered=error.values.get("offered")), **seen(error)},
        tuple(
            ("or: " if number else "")
            + fixes.install(facts, f"torch=={asked[1]}", options=f"--index-url {WHEELS}/{variant}")
            for number, variant in enumerate(variants)
        ),
        release.source,
        affects=EVERYTHING,
        observed=True,
    )


def no_match(facts: Facts) -> Result:
    """pip finds some other package not at all, or not in the version asked for."""
    error = facts.error("pip-no-match")
    if error is None:
        return PASSED
    package, spec = error.values.get("package", "the package"), error.values.get("spec", "")
    if package == "bitsandbytes" and facts.platform.system == "Darwin":
        return PASSED
    # What an import did not find is the name of a function as often as that of a package.
    if any(f"import name '{package}'" in other.text for other in facts.errors):
        return PASSED
    offered = " ".join(error.values.get("offered", "").split())
    none = offered in ("", "none")
    steps = ["python -m pip install -U pip   # an old one does not know newer platform tags"]
    if facts.error("index-only-torch"):
        steps = [
            "PyTorch's index has few other packages: give it as --extra-index-url, or install torch from it alone."
        ]
    elif package == "triton" and fixes.on_windows(facts):
        steps = [fixes.install(facts, "triton-windows")]
    elif not none:
        steps = [f"Take one of the versions offered: python -m pip index versions {package}"]
    return [
        Finding(
            "no-matching-distribution",
            "error",
            f"pip finds no {package}{spec} for this Python and system",
            "pip offers only releases that fit this Python, system and processor, from the indexes that it was given."
            + ("" if none else " The version asked for is not among them."),
            {**evidence(python=facts.python.version, system=facts.platform.system, offered=offered), **seen(error)},
            (*steps, "or make an environment with a Python that the package supports: uv venv --python 3.12 .venv"),
            "https://packaging.python.org/en/latest/specifications/platform-compatibility-tags/",
            affects=("chat",),
            observed=True,
        )
    ]


def musl(facts: Facts) -> Result:
    """Alpine: there are no musl wheels of torch at all."""
    alpine = facts.platform.libc == "musl" or "alpine" in (facts.platform.os or "").lower()
    error = facts.error("musl")
    if not alpine and error is None:
        return None if facts.platform.libc is None else PASSED
    if facts.torch.installed and facts.probe("torch") and facts.torch.import_error is None:
        return PASSED
    return [
        Finding(
            "musl-alpine",
            "error",
            "Alpine uses musl, and torch has no wheels for it",
            "All torch wheels are made for glibc; pip finds no matching distribution, and a forced one does not load.",
            {**evidence(os=facts.platform.os, libc=facts.platform.libc), **seen(error or facts.error("pip-no-torch"))},
            ("Use a Debian or Ubuntu image, such as python:3.12-slim.",),
            ISSUES + "docker-library/python/issues/341",
            affects=EVERYTHING,
            observed=error is not None or facts.error("pip-no-torch") is not None,
        )
    ]


def no_wheel_for_intel_mac(facts: Facts) -> Result:
    """Intel Macs ended with torch 2.2.2."""
    machine = facts.platform
    if not _intel_mac(facts):
        return None if machine.system is None or machine.machine is None else PASSED
    if facts.error("pip-no-torch") is None and not facts.lacks("torch"):
        return PASSED
    return [
        Finding(
            "no-torch-wheel-for-platform",
            "error",
            "torch ended for Intel Macs with 2.2.2",
            "No newer wheels are made for macOS on x86-64, so pip offers nothing or an old release.",
            {**evidence(os=machine.os, machine=machine.machine), **seen(facts.error("pip-no-torch"))},
            (
                "python -m pip install torch==2.2.2 'numpy<2' 'transformers<4.58'   # needs Python 3.8 to 3.12",
                'python -c "import platform; print(platform.machine())"   # x86_64 on an M processor: an Intel Python '
                "under Rosetta; make the environment with an arm64 one",
            ),
            ISSUES + "pytorch/pytorch/issues/161614",
            affects=EVERYTHING,
            observed=facts.error("pip-no-torch") is not None,
        )
    ]


def glibc_too_old(facts: Facts) -> Result:
    """The system's glibc is older than what the wheels need."""
    error = facts.error("glibc")
    version = facts.platform.libc_version if facts.platform.libc == "glibc" else None
    # platform.libc_ver() reads the interpreter's own file: a Python built on an old system says 2.2.5 or 2.9 anywhere.
    # No wheel of torch was ever made for a glibc below 2.17, so beside a torch that is there such a number is none.
    if older(version, "2.17") and facts.torch.installed:
        version = None
    if error is None and version is None:
        return None
    release = torch_release(facts.torch.version)
    failed = facts.torch.import_error is not None or facts.error("pip-no-torch") is not None
    if error is None and not (failed and older(version, release.glibc if release else "2.28")):
        return PASSED
    return [
        Finding(
            "glibc-too-old",
            "error",
            "The system's glibc is too old for "
            + (f"this wheel ({error.values['module']})" if error and error.values.get("module") else "these wheels"),
            "torch 2.7 and newer need glibc 2.28 (RHEL 8, Ubuntu 20.04, Debian 10); bitsandbytes 0.43 and newer "
            "2.24. With "
            "an older one pip takes ancient releases, or the library does not load.",
            {**evidence(glibc=version, torch__version=facts.torch.version), **seen(error)},
            _glibc_fix(facts, error),
            ISSUES + "pytorch/pytorch/issues/156215",
            affects=EVERYTHING,
            observed=error is not None,
        )
    ]


def _glibc_fix(facts: Facts, error: Optional[ErrorFact]) -> tuple[str, ...]:
    newer = "Use a newer system, or a container: docker run --gpus all -it ubuntu:24.04"
    module = (error.values.get("module") or "") if error else ""
    package = re.sub(r"_(?:\d_)?cuda$", "", module).replace("_", "-")
    # A wheel that somebody built on a newer system; compiled here it takes the glibc that is here.
    if package and not package.startswith(("torch", "lib", "bitsandbytes")):
        force = "FLASH_ATTENTION_FORCE_BUILD=TRUE " if package == "flash-attn" else ""
        options = f"--no-build-isolation --no-cache-dir --force-reinstall --no-deps --no-binary {package}"
        return (
            f"{force}{fixes.install(facts, package, options=options)}   # compiles it here; needs nvcc; MAX_JOBS=2",
            f"or take a wheel of {package} that was built for an older system",
            f"or: {newer[0].lower()}{newer[1:]}",
        )
    beside = package.startswith("torch") and package != "torch"
    if beside or older(facts.torch.version, "2.7"):
        # torch itself runs here: what was built on a newer system is another package.
        which = package or "the package that the message names"
        from_pip = f"{fixes.python_command(facts)} -m pip install --force-reinstall --no-deps {package}"
        return (newer, *((f"or {which} as a wheel of pip: {from_pip}",) if package else ()))
    last = (fixes.install(facts, "torch==2.6.0") + "   # the last for glibc 2.17",) if _takes_2_6(facts) else ()
    return (newer, *last)


def _takes_2_6(facts: Facts) -> bool:
    release = torch_release("2.6")
    old = facts.platform.libc == "glibc" and older(facts.platform.libc_version, "2.17")
    return not old and release is not None and fixes.python_fits(facts.python.version, release) is not False


def wrong_vendor(facts: Facts) -> Result:
    """A ROCm build on an NVIDIA box, or a CUDA build on a box that has only AMD."""
    nvidia, amd, build = facts.has_nvidia(), facts.has_amd(), facts.torch.build
    if build is None:
        return [_asks_amd_for_cuda(facts)] if amd and not nvidia and _ASKS_CUDA & _messages(facts) else None
    if cuda_works(facts):
        return PASSED
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


def _messages(facts: Facts) -> frozenset[str]:
    return frozenset(error.id for error in facts.errors)


def _asks_amd_for_cuda(facts: Facts) -> Finding:
    return _vendor(
        facts,
        "cuda-wheel-on-amd",
        "The program asks for CUDA, and the GPU is AMD's: torch must be a ROCm build",
        _to_rocm(facts),
    )


def _to_rocm(facts: Facts) -> tuple[str, ...]:
    remove = fixes.uninstall(facts, "torch", *[n for n in ("torchvision", "torchaudio") if facts.package(n)])
    if fixes.on_windows(facts):
        return (
            remove,
            "Take AMD's own wheels for Windows (RX 7000 and newer): "
            "https://rocm.docs.amd.com/projects/radeon-ryzen/en/latest/",
            "or the program's version for DirectML or ZLUDA, or Linux with a ROCm build of torch",
        )
    return (
        remove,
        fixes.install(facts, "torch", options=f"--index-url {fixes.rocm_index(facts)}"),
        "sudo usermod -aG render,video $USER   # then log in anew: /dev/kfd must be readable",
    )


def _discrete_amd(facts: Facts) -> bool:
    # An integrated Radeon is no reason to ask for ROCm; /dev/kfd or a known discrete name is.
    named = any(gpu.vendor == "amd" and (gpu.compute_capability or "").startswith("gfx") for gpu in facts.gpus or ())
    return named or "/dev/kfd" in (facts.platform.devices or ())


def _vendor(facts: Facts, id: str, title: str, fix: tuple[str, ...]) -> Finding:
    error = facts.error("hip-no-gpus", *sorted(_ASKS_CUDA))
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


def rocm_no_device(facts: Facts) -> Result:
    """ROCm build, AMD GPU, and still no device."""
    error = facts.error("hip-no-gpus")
    if error is None or facts.nvidia_gpus():
        return PASSED
    return [
        Finding(
            "rocm-no-device",
            "error",
            "ROCm finds no GPU",
            "The user may lack access to /dev/kfd and /dev/dri, amdgpu is not loaded, or the container was started "
            "without them.",
            {**evidence(gpus=gpu_names(facts), devices=facts.platform.devices), **seen(error)},
            (
                "sudo usermod -aG render,video $USER   # then log in anew",
                "docker run --device=/dev/kfd --device=/dev/dri --group-add video …",
                "rocminfo | grep gfx",
            ),
            ISSUES + "pytorch/pytorch/issues/70036",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


_BACKENDS = {
    "xpu": (
        "Intel GPUs",
        "python -m pip install torch --index-url https://download.pytorch.org/whl/xpu   # torch 2.5 and newer",
        "Older torch: the XPU build of intel-extension-for-pytorch with its own torch; its CPU build has no xpu.",
    ),
    "mps": ("Apple GPUs", "torch has mps only on macOS 12.3 and newer, in builds for Apple silicon."),
    "hip": ("AMD GPUs", "Take the ROCm build, and name the device 'cuda': torch's ROCm build keeps that name."),
}


def without_backend(facts: Facts) -> Result:
    """A device asked for by name that this build of torch has no code for."""

    def make(error: ErrorFact) -> Finding:
        device = error.values.get("device", "").lower()
        whose, *steps = _BACKENDS.get(device, ("",))
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
    error = facts.error("hip-no-binary")
    if error is None:
        return PASSED
    gfx = next(
        (gpu.compute_capability for gpu in facts.gpus or () if (gpu.compute_capability or "").startswith("gfx")),
        error.values.get("gfx"),
    )
    return [
        Finding(
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
    ]


# Polaris, Fiji and older: dropped by ROCm 4 and 5, and no near relative is left in the wheels.
_LEFT_BEHIND = frozenset(("gfx701", "gfx801", "gfx802", "gfx803"))


def _gfx_fix(facts: Facts, error: ErrorFact, gfx: Optional[str]) -> tuple[str, ...]:
    if "bitsandbytes" in error.text:
        return (fixes.install(facts, "bitsandbytes>=0.50", upgrade=True),)
    if gfx and gfx in _LEFT_BEHIND:
        return (
            f"No wheel of torch since ROCm 5 has code for {gfx}, and no HSA_OVERRIDE_GFX_VERSION makes it run "
            "another's.",
            "Use llama.cpp with Vulkan on this card, or another card; there are builds of torch by others for it.",
        )
    relatives = {"gfx115": "11.5.0", "gfx11": "11.0.0", "gfx103": "10.3.0", "gfx101": "10.3.0", "gfx9": "9.0.0"}
    near = next((version for start, version in relatives.items() if gfx and gfx.startswith(start)), None)
    override = (
        f"export HSA_OVERRIDE_GFX_VERSION={near}   # run it as its nearest supported relative"
        if near
        else "export HSA_OVERRIDE_GFX_VERSION=11.0.0   # RX 7000 and Ryzen AI; 10.3.0 for RX 6000; rocminfo | grep gfx"
    )
    newer = f"--index-url {fixes.rocm_index(facts, newest=True)}"
    return (override, "or a build that knows it: " + fixes.install(facts, "torch", options=newer, upgrade=True))


def duplicate_torch(facts: Facts) -> Result:
    """More than one torch on the path."""
    installs = list(facts.torch.installs or ())
    listed = facts.duplicates.get("torch", ())
    copies = installs if len(installs) > 1 else list(listed)
    mixed = facts.error("user-site-mixed")
    if len(copies) < 2 and mixed is not None:
        return [_user_site_mixed(facts, mixed)]
    if len(copies) < 2:
        return None if facts.torch.installs is None and not facts.duplicates else PASSED
    versions = {(item.version or "").split("+")[0] for item in copies}
    if len(versions) < 2 and len({item.path for item in copies}) < 2:
        return PASSED
    user = next((item.path for item in copies if "/.local/" in item.path or "AppData\\Roaming" in item.path), None)
    differ = len(versions) > 1
    return [
        Finding(
            "duplicate-torch-installs",
            "warning" if not differ else "error",
            "Two copies of torch are installed" + (f": {' and '.join(sorted(versions))}" if differ else ""),
            "Whichever stands first on the path is imported, while its companions may have been installed for the "
            "other one.",
            {f"copy {number}": f"{item.version} in {item.path}" for number, item in enumerate(copies, 1)},
            (
                *(
                    (fixes.export(facts, "PYTHONNOUSERSITE", "1", "ignore the copy in the home directory"),)
                    if user
                    else ()
                ),
                *_one_copy(facts),
            ),
            ISSUES + "huggingface/transformers/issues/29022",
            affects=EVERYTHING,
            observed=True,
        )
    ]


def _one_copy(facts: Facts) -> tuple[str, ...]:
    *before, last = fixes.reinstall_torch(facts)
    return (
        *(f"{step}   # repeat until none is left" if "pip uninstall " in step else step for step in before),
        last,
    )


def _user_site_mixed(facts: Facts, error: ErrorFact) -> Finding:
    return Finding(
        "duplicate-torch-installs",
        "error" if facts.error("torch-shadowed") else "warning",
        "Packages from the home directory mix into this environment",
        "The traceback runs through both; what pip put into the home directory hides what the environment has.",
        seen(error),
        (
            fixes.export(facts, "PYTHONNOUSERSITE", "1", "then try again"),
            "python -m pip list --user   # what to remove there",
        ),
        ISSUES + "huggingface/transformers/issues/29022",
        affects=EVERYTHING,
        observed=True,
    )


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
            + (f": {_how(step.status, step.signal, step.detail)}" if crashed and step else ""),
            "torch is a CUDA build and a GPU is there, but torch.cuda.is_available() is False.",
            evidence(
                torch__version=facts.torch.version,
                torch__cuda=facts.torch.cuda,
                driver=facts.driver.version,
                error=facts.torch.cuda_error,
                stderr=_tail(step.stderr) if step else None,
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
            f"A kernel does not run: {_how(step.status, step.signal, step.detail)}",
            "A sum and a matrix product were tried on every device.",
            evidence(torch__version=facts.torch.version, detail=step.detail[:400], stderr=_tail(step.stderr)),
            ("nvidia-smi", "sudo dmesg | grep -i xid"),
            "https://docs.nvidia.com/deploy/xid-errors/",
            affects=ALL_GPU_BENCHES,
            observed=True,
        )
    ]


def python_bits(facts: Facts) -> Result:
    """A 32-bit Python."""
    if facts.python.bits is None:
        return None
    if facts.python.bits != 32:
        return PASSED
    return [
        Finding(
            "python-32-bit",
            "error",
            "This Python is a 32-bit one",
            "torch has only 64-bit wheels.",
            evidence(python=facts.python.version, bits=facts.python.bits),
            ("Install the 64-bit Python and make a new environment with it.",),
            "https://pytorch.org/get-started/locally/",
            affects=EVERYTHING,
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
    torch_missing,
    python_bits,
    musl,
    no_wheel_for_intel_mac,
    glibc_too_old,
    no_wheel_for_python,
    no_match,
    duplicate_torch,
    wrong_vendor,
    torch_cpu_only,
    driver_too_old,
    wheel_lacks_gpu_arch,
    rocm_no_device,
    without_backend,
    rocm_gfx_unsupported,
    mkl_too_new,
    torch_import_broken,
    cuda_init_failed,
    no_kernel_image,
    kernel_failed,
    newer_torch_than_known,
)
