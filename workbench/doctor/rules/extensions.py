"""Rules about compiled packages beside torch: built for another torch, CUDA, NumPy or Python."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules import ascend, companions, jetson
from workbench.doctor.rules.common import (
    ISSUES,
    MODEL_BENCHES,
    PASSED,
    Result,
    Rule,
    cuda_major,
    evidence,
    is_jetson,
    seen,
)
from workbench.doctor.rules.flash_attn import flash_attn_wheel
from workbench.doctor.rules.matching_builds import (
    cuda_of_library,
    is_compiled_by_pip,
    is_cuda_extension,
    matching_build,
    package_of,
    runtime_of,
)
from workbench.doctor.tables import WHEELS, companion, companion_of, torch_release, variant_of
from workbench.doctor.versions import minor_name, normalize


def extension_for_other_cuda(facts: Facts) -> Result:
    """An extension wants the CUDA runtime of another major than torch brings."""
    error = facts.error("cudart-missing", "vllm-symbol") if companions.wants_other_cuda(facts) is None else None
    told = [facts.error(name) for name in ("torch-library-missing", "cudnn-library-missing", "onnxruntime-provider")]
    if error is not None and any(other is not None and _same(other, error) for other in told):
        error = facts.error("vllm-symbol")
    mixed = _mixed_majors(facts)
    if error is None and not mixed:
        return PASSED
    if error is None and not facts.package("vllm"):
        return PASSED
    library = error.values.get("library") if error else None
    major = cuda_of_library(library)
    own = cuda_major(facts)
    # What bitsandbytes' own loader lacks is told of by the rules about bitsandbytes.
    if error is not None and library and facts.error("bnb-missing-dependency", "bnb-legacy-loader"):
        return PASSED
    importer = _importer(error)
    vllm = importer == "vllm" or bool(error and "vllm" in error.text) or (not importer and _speaks_of_vllm(facts))
    who = "vLLM" if vllm else importer.replace("_", "-") or "An extension"
    if error is not None and library and is_jetson(facts):
        return [_of_jetpack(facts, error, library)]
    if error is not None and library and major and major == str(own) and runtime_of(facts, library):
        return [_of_the_same_cuda(facts, error, library, "" if who == "An extension" else who)]
    return [
        Finding(
            "extension-built-for-other-cuda",
            "error" if error and not _went_on(facts, error) else "warning",
            f"{who} was built for CUDA {major}, torch brings CUDA {own}"
            if major and own and major != str(own)
            else f"{who} was built for CUDA {major}: it wants {library}, which is not there"
            if library and major
            else f"{who} wants {library}, which is not there"
            if library
            else f"{who} was compiled without a part of its own, which its other files call"
            if error and _OWN_SYMBOL.search(error.text)
            else _for_its_torch(facts, who),
            "A compiled package looks for the CUDA runtime or the torch symbols that it was built with, and this "
            "environment has others.",
            {**evidence(library=library, torch__cuda=facts.torch.cuda, vllm=facts.package("vllm")), **seen(error)},
            _rebuilt(facts, who, own),
            ISSUES + "vllm-project/vllm/issues/52300",
            affects=MODEL_BENCHES,
            observed=error is not None,
        )
    ]


# A function in no namespace, as C++ writes it: what is of torch begins with _ZN.
_OWN_SYMBOL = re.compile(r"undefined symbol: _Z\d{1,3}[a-z]\w{4,200}?(?:2at6Tensor|$)")
# cmake leaves kernels out for cards that are not in the list, and takes up what an earlier build left.
_VLLM_AGAIN = (
    "git pull; rm -rf build .deps vllm/*.so; export TORCH_CUDA_ARCH_LIST=$(nvidia-smi --query-gpu=compute_cap "
    "--format=csv,noheader | head -1)   # in the checkout: nothing is left of the build before",
    "python -m pip install --no-build-isolation -e .",
    "or the ready wheel: uv venv vllm && uv pip install --python vllm vllm --torch-backend=auto",
)


def _of_the_same_cuda(facts: Facts, error: ErrorFact, library: str, who: str) -> Finding:
    """torch loads its own by its path; what else wants the same library asks the loader, which does not look there."""
    return Finding(
        "extension-built-for-other-cuda",
        "error",
        f"{who or 'An extension'} wants {library}, of the same CUDA as torch, which is on no path of the loader",
        "torch loads the libraries of NVIDIA's wheels by their place; another package finds them only where "
        "LD_LIBRARY_PATH or a toolkit of this CUDA has them.",
        {**evidence(library=library, torch__cuda=facts.torch.cuda, nvcc=facts.toolkit.nvcc), **seen(error)},
        (
            *runtime_of(facts, library),
            f"or the build of {who or 'that package'} that was made for torch {minor_name(facts.torch.version)}.",
        ),
        ISSUES + "vllm-project/vllm/issues/52300",
        affects=MODEL_BENCHES,
        observed=True,
    )


def _for_its_torch(facts: Facts, who: str) -> str:
    pair = companion("vllm", facts.package("vllm")) if who == "vLLM" else None
    here = f"torch {facts.torch.version}" if facts.torch.version else "the torch here"
    if pair is None or minor_name(pair[0]) == minor_name(facts.torch.version):
        return f"{who} does not fit this torch"
    return f"vLLM {facts.package('vllm')} was compiled for torch {pair[0]}, and {here} is another"


def _of_jetpack(facts: Facts, error: ErrorFact, library: str) -> Finding:
    """A Jetson's wheels take CUDA from JetPack's own packages, which not every image has."""
    return Finding(
        "extension-built-for-other-cuda",
        "error",
        f"{library} is a part of JetPack's CUDA, and is not found: those packages are not installed, or the wheel was "
        "made for another JetPack",
        "On a Jetson torch and what stands on it take CUDA, cuDNN and the rest from JetPack, not from wheels.",
        {**evidence(library=library), **seen(error)},
        (
            f"cat /etc/nv_tegra_release; ls /usr/local/cuda*/lib64/{library}* /usr/lib/aarch64-linux-gnu/{library}*   "
            "# R36 is JetPack 6 (CUDA 12.6), R35 is 5 (11.4), R32 is 4 (10.2); is the file there?",
            "sudo apt update && sudo apt install -y nvidia-jetpack   # brings this JetPack's CUDA and cuDNN; then "
            "export LD_LIBRARY_PATH=/usr/local/cuda/lib64:$LD_LIBRARY_PATH",
            *(f"where the number is of another CUDA: {step}" for step in jetson.torch_steps(facts)[:1]),
            *jetson.torch_steps(facts)[1:],
        ),
        "https://docs.nvidia.com/jetson/jetpack/install-setup/index.html",
        affects=MODEL_BENCHES,
        observed=True,
    )


def _went_on(facts: Facts, error: ErrorFact) -> bool:
    """Whether vLLM only warned that it has no kernels, and came as far as to refuse the number format."""
    return "Failed to import from vllm" in error.text and facts.error("bf16-unsupported") is not None


def _speaks_of_vllm(facts: Facts) -> bool:
    """Whether vLLM is there, or the report names it and lists no packages."""
    told = facts.error("of-vllm") and not facts.packages and not facts.error("flash-attn-symbol")
    return bool(facts.package("vllm") or told)


def _importer(error: Optional[ErrorFact]) -> str:
    """The package that wants the library: what was imported last where that is a known module, else by its folder."""
    values = error.values if error else {}
    imported = values.get("imported", "")
    return package_of(imported) or values.get("importer") or imported


def _same(told: ErrorFact, error: ErrorFact) -> bool:
    """Whether another rule tells of this very library already."""
    library = error.values.get("library")
    return told.line == error.line or (library is not None and library in told.text)


def _rebuilt(facts: Facts, who: str, cuda: Optional[int]) -> tuple[str, ...]:
    torch = minor_name(facts.torch.version)
    if who == "flash-attn":
        return (
            fixes.uninstall(facts, who),
            *flash_attn_wheel(facts, torch),
            "or do without: attn_implementation='sdpa'",
        )
    if who == "vLLM":
        error = facts.error("vllm-symbol", "cudart-missing")
        if error is not None and _OWN_SYMBOL.search(error.text):
            return _VLLM_AGAIN
        if error is not None and "undefined symbol" in error.text and "-packages" not in error.text:
            return (
                "test ! -f use_existing_torch.py || python use_existing_torch.py   # in the checkout, from vLLM 0.6 on",
                "python -m pip install --no-build-isolation -e .",
            )
        return vllm_anew(facts)
    known = matching_build(facts, who)
    if known:
        return known
    match = " and ".join(filter(None, (f"torch {torch}" if torch else "", f"CUDA {cuda}" if cuda else "")))
    package = "that package" if who == "An extension" else who
    if match:
        return (
            f"Install the build of {package} that was made for {match}.",
            "Do not mix packages made for two CUDA majors in one environment.",
        )
    error = facts.error("cudart-missing")
    runtime = runtime_of(facts, error.values.get("library") if error else None)
    show = f'{fixes.python_command(facts)} -c "import torch; print(torch.__version__, torch.version.cuda)"'
    fitting = f"Install the build of {package} that was made for exactly these two versions."
    return (
        *runtime,
        *((f"or, where it works with torch: {show}",) if runtime else (show,)),
        fitting,
    )


def vllm_anew(facts: Facts) -> tuple[str, ...]:
    """The vLLM that is installed with the torch that it was compiled for; where torch must stay, another vLLM."""
    version = facts.package("vllm")
    if facts.error("ascend-told") is not None and not facts.has_nvidia():
        return ascend.vllm_steps(facts)
    pair = companion("vllm", version)
    fresh = "In a fresh environment: uv pip install vllm --torch-backend=auto"
    if pair is None:
        return (fresh,)
    release = torch_release(pair[0])
    asked = facts.torch.asked_cuda or ""
    if asked.startswith("11."):
        # vLLM's own wheels for CUDA 11 stay; only torch, which an unpinned upgrade replaced, goes back.
        xformers = companion_of("xformers", pair[0])
        names = (f"torch=={pair[0]}", *((f"xformers=={xformers}",) if xformers else ()))
        index = f"--index-url {WHEELS}/{variant_of(asked)}"
        return (f"{fixes.install(facts, *names, options=index)}   # those that vLLM {version} was compiled with",)
    pins = [
        f"vllm=={version}",
        f"torch=={pair[0]}",
        *([f"torchvision=={release.torchvision}"] if release and release.latest == pair[0] else []),
    ]
    return (fixes.install(facts, *pins), f"or {fresh[0].lower()}{fresh[1:]}")


def _mixed_majors(facts: Facts) -> bool:
    return bool(facts.package("nvidia-cuda-runtime-cu12") and facts.package("nvidia-cuda-runtime"))


# Told by rules of their own: torch itself, torchvision and torchaudio.
_OF_TORCH = re.compile(
    r"(?:lib)?(?:torch|torch_(?!scatter|cluster|sparse|spline_conv)\w+|torchvision|torchaudio|c10|c10_\w+|shm)"
    r"|_torchaudio\w*"
)


def extension_for_other_torch(facts: Facts) -> Result:
    """A compiled package looks for C++ symbols or DLLs that this torch does not have."""
    error = facts.error("extension-symbol") or facts.error("extension-absent")
    if error is None:
        return PASSED
    if error.id == "extension-absent" and facts.torch.build == "cpu":
        return PASSED
    module = error.values.get("module") or error.values.get("dll") or "it"
    if module.startswith(("flash_attn", "libtriton")) or "vllm" in error.text or _OF_TORCH.fullmatch(module):
        return PASSED
    if facts.error("torchvision-symbol", "torchaudio-symbol", "torchtext-symbol", "bnb-required-cpu"):
        return PASSED
    name = _extension_of(facts, error, module)
    if name is None:
        return PASSED
    return [
        Finding(
            "extension-built-for-other-torch",
            "warning" if error.id == "extension-absent" and "Error" not in error.text else "error",
            f"{name} was compiled for another torch or another CUDA"
            if error.id == "extension-symbol"
            else f"{name if name != 'it' else 'A package'} is installed without kernels for this torch and CUDA",
            "A compiled package fits the torch minor, the CUDA major and the Python that it was built with; this one "
            "looks for symbols or libraries that are not there.",
            {
                **evidence(torch__version=facts.torch.version, torch__cuda=facts.torch.cuda, module=module),
                **seen(error),
            },
            _in_a_checkout(error)
            or (
                *_not_needed(facts, normalize(name)),
                *(matching_build(facts, normalize(name)) or _its_build(facts, normalize(name))),
                *_compiled_here(facts, name),
            ),
            ISSUES + "turboderp-org/exllamav2/issues/434",
            affects=MODEL_BENCHES,
            observed=True,
        )
    ]


# The compiled part of a program lies in its source folder: /home/me/repos/mmdetection/mmdet/ops/dcn/deform_conv_cuda.
_CHECKOUT = re.compile(r"(?:/[\w.@+-]{1,60}){2,14}/\w{1,60}\.(?:cpython-)?[\w.-]{0,40}so: undefined symbol")


def _in_a_checkout(error: ErrorFact) -> tuple[str, ...]:
    """The steps for what was compiled in a program's own folder, where no package of pip is to be replaced."""
    if "-packages" in error.text or not _CHECKOUT.search(error.text):
        return ()
    return (
        "find . -name '*.so' -delete; rm -rf build   # in the program's source folder, the one of its setup.py",
        "python -m pip install --no-build-isolation --no-deps -e .   # compiled anew against the torch that is here: "
        "nvcc of torch's own CUDA (torch.version.cuda), and CUDA_HOME naming it",
    )


def _extension_of(facts: Facts, error: ErrorFact, module: str) -> Optional[str]:
    """The package whose compiled part does not load; None where it may be one that has nothing to do with torch."""
    if module in ("_C", "_ext"):
        told = facts.error("compiled-package-told")
        return told.values["name"] if told else "mmcv" if module == "_ext" and _of_mmcv(facts, error) else None
    if error.id == "extension-symbol" and module == "it":
        return None
    folder = re.search(r"(?:site|dist)-packages[/\\](?P<package>[A-Za-z]\w{1,40})[/\\]", error.text)
    named = error.values.get("wanted") or error.values.get("owner") or error.values.get("importer")
    if folder and not folder["package"].startswith("torch"):
        package = folder["package"]
    else:
        package = named.lower() if named and error.values.get("dll") else module
    module = "auto_gptq" if module == "exllama" and "exllama_kernels" in error.text else module
    name = package_of(module) or re.sub(r"^lib(?=torch)|_(?:ext|extensions|cuda|C|torch)$", "", package)
    # A DLL that is missing may be of any package; only what is compiled against torch is judged here.
    of_torch = (
        error.values.get("symbol") or error.id == "extension-absent" or is_cuda_extension(normalize(name), module)
    )
    return name if of_torch and name and not package.startswith("_") else None


def _of_mmcv(facts: Facts, error: ErrorFact) -> bool:
    """Whether ``_ext`` is MMCV's: by the projects built on it, or because Windows' message names it and no other asks.

    pointnet2_ops and a few more have a module of that name as well, and stand in the frames above then.
    """
    asks = {error.values.get(key) for key in ("owner", "wanted", "importer")} - {None}
    unasked = error.values.get("dll") and not asks and facts.error("ext-imported-bare") is None
    return facts.error("openmmlab-told") is not None or bool(unasked)


def _not_needed(facts: Facts, name: str) -> tuple[str, ...]:
    """What transformers and accelerate import only because it is there; NVIDIA's images bring it along."""
    if name != "transformer-engine":
        return ()
    return (f"{fixes.uninstall(facts, name)}   # used for fp8 on H100 and newer alone; all else runs without it",)


def _compiled_here(facts: Facts, name: str) -> tuple[str, ...]:
    if name == "it" or not is_compiled_by_pip(normalize(name)):
        return ()
    options = "--no-build-isolation --no-cache-dir --force-reinstall --no-deps"
    return (
        "or, with a compiler and the nvcc of torch's own CUDA (torch.version.cuda): "
        + fixes.install(facts, name.replace("_", "-"), options=options),
    )


def _its_build(facts: Facts, name: str) -> tuple[str, ...]:
    name = "that package" if name == "it" else name
    torch, cuda = minor_name(facts.torch.version), facts.torch.cuda
    match = ", ".join(filter(None, (f"torch {torch}" if torch else "", f"CUDA {cuda}" if cuda else "")))
    if match:
        return (f"Install the build of {name} that was made for {match}.", *_SUCCESSORS.get(name, ()))
    successor = (
        (f"{fixes.uninstall(facts, name)}; " + _GPTQMODEL.format(install=fixes.install(facts, *_GPTQ, upgrade=True)),)
        if name == "auto-gptq"
        else ()
    )
    return (
        *successor,
        f'{fixes.python_command(facts)} -c "import torch; print(torch.__version__, torch.version.cuda)"',
        f"Install the build of {name} that was made for exactly these two versions.",
        *(() if successor else _SUCCESSORS.get(name, ())),
    )


# AutoGPTQ ended with 0.7.1, whose wheels are for torch 2.2; transformers reads GPTQ models by GPTQModel and optimum.
_GPTQ = ("gptqmodel", "optimum", "transformers")
_GPTQMODEL = "{install}   # GPTQModel reads the same models, for today's torch and transformers"


# Packages that are made no more, and what reads the same models.
_SUCCESSORS = {
    "auto-gptq": (
        "or GPTQModel in its place, which is made for today's torch and transformers: pip install gptqmodel",
    ),
    "autoawq-kernels": ("or gptqmodel or vLLM in its place: autoawq ended with torch 2.6",),
}


RULES: tuple[Rule, ...] = (
    extension_for_other_cuda,
    extension_for_other_torch,
)
