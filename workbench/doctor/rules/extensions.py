"""Rules about compiled packages beside torch: built for another torch, CUDA, NumPy or Python."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.changes import pip_name
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules import ascend, companions, jetson
from workbench.doctor.rules.common import (
    ISSUES,
    PASSED,
    Result,
    Rule,
    cuda_major,
    evidence,
    from_message,
    is_jetson,
    seen,
)
from workbench.doctor.rules.matching_builds import (
    cuda_of_library,
    is_compiled_by_pip,
    is_cuda_extension,
    matching_build,
    package_of,
    runtime_of,
)
from workbench.doctor.rules.unknown.packages import may_install
from workbench.doctor.tables import WHEELS, companion, companion_of, newest_python, torch_release, variant_of
from workbench.doctor.versions import at_least, local_tag, minor_name, normalize, older, release_of, satisfies

MODELS = ("chat", "architecture", "vram")


def torchvision_mismatch(facts: Facts) -> Result:
    """torchvision (or torchaudio) belongs to another torch."""
    library = companions.wants_other_cuda(facts)
    error = facts.error("torchvision-nms", "torchvision-symbol", "torchaudio-symbol") or library
    torch, vision = facts.torch.version, facts.package("torchvision")
    pair = companion("torchvision", vision)
    wrong = bool(pair and torch and minor_name(torch) != minor_name(pair[0]))
    tags = _tags_differ(vision, torch)
    audio = _torchaudio_differs(facts)
    step = facts.probe("torchvision")
    if error is None and (pair is None or torch is None) and not audio:
        return None
    if error is None and not (wrong or tags or audio):
        return PASSED
    told = error.values.get("importer") or error.id.split("-")[0] if error else "torchaudio" if audio else ""
    name = "torchvision" if wrong or tags else told or "torchvision"
    major = cuda_of_library(library.values.get("library")) if library and library is error else None
    fails = error is not None or (step is not None and step.status != "passed")
    return [
        Finding(
            "torchvision-torch-mismatch",
            "error" if fails or wrong or tags else "warning",
            f"{' '.join(filter(None, (name, facts.package(name))))} does not belong to "
            + (f"torch {torch}" if torch else "the torch here")
            + (f": it was built for CUDA {major}" if major else ""),
            "Its compiled part was made for another torch, so that it does not load, or its operators do not register; "
            "inside transformers this shows as 'Failed to import … processing_auto'.",
            {
                **evidence(
                    torchvision=vision,
                    torchaudio=facts.package("torchaudio"),
                    torch__version=torch,
                    belongs_to=pair[0] if pair else None,
                ),
                **seen(error),
            },
            _reinstall_pair(facts, name),
            ISSUES + "pytorch/vision/issues/8985",
            affects=MODELS,
            observed=fails,
        )
    ]


def _tags_differ(vision: Optional[str], torch: Optional[str]) -> bool:
    a, b = local_tag(vision), local_tag(torch)
    return bool(a and b and re.match(r"cu|cpu|rocm", a) and re.match(r"cu|cpu|rocm", b) and a != b)


def _torchaudio_differs(facts: Facts) -> bool:
    audio, torch = facts.package("torchaudio"), facts.torch.version
    # Same number as torch and pinned up to 2.10; 2.11 is the last and takes any torch from there on.
    if not audio or not torch or not older(audio, "2.11") or older(audio, "2.0"):
        return False
    return minor_name(audio) != minor_name(torch)


def _reinstall_pair(facts: Facts, name: str) -> tuple[str, ...]:
    """The pair for the torch that is here, after the one that was here before something replaced torch alone."""
    if is_jetson(facts):
        return jetson.torchvision_steps(facts)
    back, here = _torch_of_companions(facts), _pair_of_this_torch(facts, name)
    return (back, f"or, for the torch that is here now: {here[0]}", *here[1:]) if back else here


def _torch_of_companions(facts: Facts) -> str:
    """The command that brings a torch back whose companions are still there, each with the tag of its CUDA."""
    vision = facts.package("torchvision") or ""
    pair, tag = companion("torchvision", vision), local_tag(vision) or ""
    if not pair or not tag.startswith("cu") or not facts.torch.version or local_tag(facts.torch.version):
        return ""
    audio = ["torchaudio"] if facts.package("torchaudio") else []
    exact = pair[0] if pair[0].count(".") > 1 else f"{pair[0]}.*"
    wanted = (f"torch=={exact}", f"torchvision=={vision.split('+')[0]}", *audio)
    return fixes.install(facts, *wanted, options=f"--index-url {WHEELS}/{tag}") + "   # the one before"


def _pair_of_this_torch(facts: Facts, name: str) -> tuple[str, ...]:
    release = torch_release(facts.torch.version)
    if release is None and facts.torch.version is None:
        # A newer torch may want a newer driver, and other packages here were made for this one.
        both = fixes.fresh_torch(facts, *dict.fromkeys(("torchvision", name)), upgrade=True)
        return (companions.for_this_torch(facts, name), f"or a newer torch with its own: {both}")
    if release is None:
        sound = ["torchaudio"] if facts.error("torchaudio-symbol") else []
        return (fixes.fresh_torch(facts, "torchvision", *sound, upgrade=True),)
    version = str(facts.torch.version).split("+")[0]
    pin = f"torchvision=={release.torchvision}" if version == release.latest else "torchvision"
    tag = local_tag(facts.torch.version)
    options = "--force-reinstall --no-cache-dir" + (
        f" --index-url https://download.pytorch.org/whl/{tag}" if tag else ""
    )
    audio = ["torchaudio"] if facts.package("torchaudio") else []
    if ".dev" in version:
        nightly = f"--pre -U --index-url {WHEELS}/nightly/{tag or 'cpu'}"
        together = fixes.install(facts, "torch", "torchvision", *audio, options=nightly)
        return (f"{together}   # nightly builds belong together by their day, and old ones are taken away",)
    return (fixes.install(facts, f"torch=={version}", pin, *audio, options=options),)


def flash_attn_mismatch(facts: Facts) -> Result:
    """flash-attn was built for another torch."""
    error = facts.error("flash-attn-symbol")
    step = facts.probe("flash-attn")
    version, torch = facts.package("flash-attn"), facts.torch.version
    built = re.search(r"torch(\d{1,2}\.\d{1,2})", version or "")
    differs = bool(built and torch and built[1] != minor_name(torch))
    failed = step is not None and step.status in ("failed", "crashed", "timeout")
    if error is None and step is None and built is None:
        return None
    if error is None and not failed and not differs:
        return PASSED
    release = minor_name(torch)
    third = error is not None and "flash_attn_3" in error.text
    return [
        Finding(
            "flash-attn-built-for-other-torch",
            "error",
            f"flash-attn{' 3' if third else ''} was compiled for another torch",
            "Its extension looks for C++ symbols that this torch does not have: another torch minor, another C++ "
            "ABI (wheels "
            "changed theirs with torch 2.7), or another CUDA major.",
            {
                **evidence(
                    flash_attn=version,
                    torch__version=torch,
                    cxx11_abi=facts.torch.cxx11_abi,
                    detail=step.detail[:200] if step else None,
                ),
                **seen(error),
            },
            _flash_attn_3(facts)
            if third
            else (
                fixes.uninstall(facts, "flash-attn"),
                *_flash_attn_wheel(facts, release),
                "or do without: attn_implementation='sdpa'",
            ),
            ISSUES + "Dao-AILab/flash-attention/issues/853",
            affects=MODELS,
            observed=error is not None or failed,
        )
    ]


def _flash_attn_3(facts: Facts) -> tuple[str, ...]:
    """It is a package of its own, for Hopper, compiled from the folder hopper of the same repository."""
    return (
        fixes.uninstall(facts, "flash_attn_3")
        + "   # for Hopper cards alone; programs take flash-attn 2 or torch's own "
        "attention where it is missing",
        "or compile it against the torch that is here, with its nvcc: git clone "
        "https://github.com/Dao-AILab/flash-attention && cd flash-attention/hopper && "
        "python -m pip install --no-build-isolation --no-cache-dir .",
        "or upgrade torch to the release that it was compiled for: its symbols aoti_torch_… came with torch 2.9",
    )


def _flash_attn_wheel(facts: Facts, torch: Optional[str]) -> tuple[str, ...]:
    if fixes.on_windows(facts):
        return ("The project makes no wheels for Windows: take one made for exactly this torch, CUDA and Python.",)
    if facts.torch.version and not fixes.is_published(facts.torch.version):
        return _flash_attn_compiled(facts)  # no wheel is made for a vendor's own build
    wanted = ", ".join(
        filter(
            None,
            (
                f"torch{torch}" if torch else "your torch",
                _flash_attn_cuda(facts) or "your CUDA major",
                _python_tag(facts) or "your Python",
                "" if facts.torch.cxx11_abi is None else f"cxx11abi{str(facts.torch.cxx11_abi).upper()}",
            ),
        )
    )
    return (
        f"Install the wheel for {wanted} from https://github.com/Dao-AILab/flash-attention/releases",
        *_flash_attn_compiled(facts),
    )


def _flash_attn_compiled(facts: Facts) -> tuple[str, ...]:
    """Without the variable its setup fetches a ready-made wheel, the one that does not fit."""
    return (
        fixes.export(
            facts, "FLASH_ATTENTION_FORCE_BUILD", "TRUE", "or compile it, with nvcc: else pip fetches a wheel"
        ),
        fixes.install(facts, "flash-attn", options="--no-build-isolation --no-cache-dir"),
    )


def _flash_attn_cuda(facts: Facts) -> Optional[str]:
    """The CUDA in the name of a release's wheel: cu118 as a whole, from 12 on the major alone."""
    major = cuda_major(facts)
    return None if major is None else "cu118" if major == 11 else f"cu{major}"


def _python_tag(facts: Facts) -> Optional[str]:
    numbers = release_of(facts.python.version)
    return f"cp{numbers[0]}{numbers[1]}" if numbers else None


# A CUDA library in a folder of the system, not in one of Python's.
_OF_THE_SYSTEM = re.compile(
    r"(?<![\w/])/(?:usr|opt)/(?:(?!-packages|conda)[^\s:]){1,120}/lib(?:cudnn|cublas|nccl|nvJitLink)"
)


def nvidia_wheels(facts: Facts) -> Result:
    """The CUDA libraries that are loaded are not of one version."""
    error = facts.error("nvjitlink", "cudnn-mismatch")
    path = facts.environment.get("LD_LIBRARY_PATH", "")
    shadow = [entry for entry in path.split(":") if re.search(r"/cuda|conda|/cudnn", entry) and "compat" not in entry]
    mismatch = _older_nvjitlink(facts)
    if error is None and not mismatch:
        # A toolkit on the path is common and mostly harmless; without trouble there is nothing to say.
        return PASSED if facts.packages or path else None
    older_cudnn = error is not None and bool(error.values.get("found"))
    # The wheel's library asks for a symbol of its neighbour, and the loader finds an older neighbour first.
    beside = error is not None and bool(error.values.get("older") or _OF_THE_SYSTEM.search(error.text))
    by_path = bool(shadow) or older_cudnn or beside
    return [
        Finding(
            "ld-library-path-shadows-nvidia-wheels" if by_path else "nvidia-wheel-version-mismatch",
            "error" if error else "warning",
            _mixed_title(error, by_path),
            "torch loads the CUDA libraries of its nvidia-* wheels as a set; one of another version in between has "
            "not the "
            "symbols that the others want.",
            {
                **evidence(
                    LD_LIBRARY_PATH=":".join(shadow) or None,
                    torch__cuda=facts.torch.cuda,
                    nvjitlink=facts.package("nvidia-nvjitlink-cu12") or facts.package("nvidia-nvjitlink"),
                    cusparse=facts.package("nvidia-cusparse-cu12") or facts.package("nvidia-cusparse"),
                ),
                **seen(error),
            },
            _one_cuda(facts, by_path),
            ISSUES + "pytorch/pytorch/issues/111469",
            affects=MODELS,
            observed=error is not None,
        )
    ]


_LIBRARIES = (("nccl", "NCCL"), ("cudnn", "cuDNN"), ("cublas", "cuBLAS"))


def _mixed_title(error: Optional[ErrorFact], by_path: bool) -> str:
    values = error.values if error else {}
    if values.get("found"):
        found, built = (values[name].replace(", ", ".") for name in ("found", "built"))
        return f"Another cuDNN ({found}) is loaded before the one that torch brings ({built})"
    if values.get("older"):
        return f"An older {values['older']} is found before the one that torch brings"
    if by_path:
        return "LD_LIBRARY_PATH puts other CUDA libraries before torch's own"
    wanted = re.search(r"nvJitLink\w*?_(\d{2})_(\d)", values.get("symbol", ""))
    if wanted:
        return f"An older libnvJitLink is loaded than the one of CUDA {wanted[1]}.{wanted[2]} that torch wants"
    library = next((name for prefix, name in _LIBRARIES if values.get("symbol", "").startswith(prefix)), None)
    if library:
        return f"Another {library} is loaded than the one that torch wants: it has no {values['symbol']}"
    return "torch's NVIDIA wheels are not of one CUDA version"


def _one_cuda(facts: Facts, by_path: bool) -> tuple[str, ...]:
    repair = fixes.repair_torch(facts)
    if by_path:
        note = "or take only the directories named above out of it; torch needs none"
        return (
            fixes.unset(facts, "LD_LIBRARY_PATH", note),
            *_older_copies(facts),
            *(f"or, if it stays: {step}" for step in repair[-1:]),
        )
    steps = repair or fixes.repair_in_words(facts)
    if facts.origin == "live" or fixes.on_windows(facts):
        return steps
    return (*steps, "echo $LD_LIBRARY_PATH   # if it stays: a folder with another CUDA there comes before the wheels")


def _older_copies(facts: Facts) -> tuple[str, ...]:
    if facts.error("cudnn-mismatch"):
        return ("ldconfig -p | grep cudnn; conda list cudnn   # other copies: the older one has to go",)
    error = facts.error("nvjitlink")
    older_one = error.values.get("older") if error else None
    if older_one is None:
        return ()
    name = older_one.split(".so")[0]
    return (
        f"ldconfig -p | grep {name}; conda list | grep -iE 'cublas|cudatoolkit'   # other copies: the older has to go, "
        "or the toolkit of torch's own CUDA to be installed in its place",
        *(
            ("or, where an image brings the same CUDA major itself: " + fixes.uninstall(facts, "nvidia-cublas-cu11"),)
            if older_one.endswith(".so.11")
            else ()
        ),
    )


def _older_nvjitlink(facts: Facts) -> bool:
    for suffix in ("-cu12", ""):
        link = release_of(facts.package(f"nvidia-nvjitlink{suffix}"))
        runtime = release_of(facts.package(f"nvidia-cuda-runtime{suffix}"))
        # cusparse and cusolver of a CUDA release want an nvJitLink that is at least as new.
        if link and runtime and link[0] == runtime[0] and link < runtime:
            return True
    return False


def numpy_abi(facts: Facts) -> Result:
    """NumPy 2 under a torch built for NumPy 1."""
    error = facts.error("numpy-abi", "numpy-dtype-size")
    torch, numpy = facts.torch.version, facts.package("numpy")
    bound = "2.4.1" if facts.platform.system == "Windows" else "2.3"
    clash = bool(older(torch, bound) and at_least(numpy, "2.0"))
    step = facts.probe("numpy")
    if error is None and (torch is None or numpy is None):
        return None
    if step is not None and step.status == "passed" and error is None:
        return PASSED
    if error is None and not clash:
        return PASSED
    package = _compiled_for_numpy_1(error)
    # torch itself never says the second of these.
    known = bool(torch and numpy) or bool(package) or _built_for_numpy_1(error) == ""
    other = error is not None and not clash and (error.id == "numpy-dtype-size" or known)
    told_less = bool(numpy and older(numpy, "2.0"))
    return [
        Finding(
            "numpy2-with-old-torch",
            "error",
            f"{package or 'A compiled package here'} was built for NumPy 1, but "
            + (f"another NumPy than {numpy} is loaded" if told_less else f"NumPy {numpy or '2'} is installed")
            if other
            else f"torch {torch or ''} was built for NumPy 1, but NumPy {numpy or '2'} is installed".replace("  ", " "),
            "NumPy 2 changed its binary interface; torch takes it from 2.3 on (Windows: 2.4.1)."
            if not other
            else "NumPy 2 changed its binary interface; what was compiled for NumPy 1 has to become newer.",
            {**evidence(torch__version=torch, numpy=numpy, package=package), **seen(error)},
            _numpy_fix(facts, other, package),
            ISSUES + "pytorch/pytorch/issues/107302",
            affects=MODELS,
            observed=error is not None or (step is not None and step.status != "passed"),
        )
    ]


_LEAD_TO_TORCH = ("transformers", "torchvision", "torchaudio", "ultralytics")


def _built_for_numpy_1(error: Optional[ErrorFact]) -> str:
    """The package whose compiled part refuses NumPy 2, by the frames around its message; ``""`` where none tells."""
    return error.values.get("package", "") if error else ""


def _compiled_for_numpy_1(error: Optional[ErrorFact]) -> str:
    """That package, under its name on the index; ``""`` where it is torch."""
    named = _built_for_numpy_1(error)
    return pip_name(named) if named not in ("", "torch", *_LEAD_TO_TORCH) else ""


def _numpy_fix(facts: Facts, other: bool, package: str) -> tuple[str, ...]:
    older_numpy, upgrade = fixes.install(facts, "numpy<2"), "or upgrade the package that the message names"
    if package and may_install(facts, package):
        upgrade = f"or: {fixes.install(facts, package, upgrade=True)}"
    if not other:
        upgrade = "or: " + fixes.fresh_torch(facts, upgrade=True)
    # NumPy 1.26, the last before 2, has wheels up to Python 3.12.
    return (upgrade[4:].strip(),) if at_least(facts.python.version, "3.13") else (older_numpy, upgrade)


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
    vllm = importer == "vllm" or bool(error and "vllm" in error.text) or (not importer and facts.package("vllm"))
    who = "vLLM" if vllm else importer.replace("_", "-") or "An extension"
    return [
        Finding(
            "extension-built-for-other-cuda",
            "error" if error else "warning",
            f"{who} was built for CUDA {major}, torch brings CUDA {own}"
            if major and own and major != str(own)
            else f"{who} was built for CUDA {major}: it wants {library}, which is not there"
            if library and major
            else f"{who} wants {library}, which is not there"
            if library
            else f"{who} does not fit this torch",
            "A compiled package looks for the CUDA runtime or the torch symbols that it was built with, and this "
            "environment has others.",
            {**evidence(library=library, torch__cuda=facts.torch.cuda, vllm=facts.package("vllm")), **seen(error)},
            _rebuilt(facts, who, own),
            ISSUES + "vllm-project/vllm/issues/52300",
            affects=MODELS,
            observed=error is not None,
        )
    ]


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
            *_flash_attn_wheel(facts, torch),
            "or do without: attn_implementation='sdpa'",
        )
    if who == "vLLM":
        error = facts.error("vllm-symbol", "cudart-missing")
        if error is not None and "undefined symbol" in error.text and "-packages" not in error.text:
            return (
                "python use_existing_torch.py   # in the checkout",
                "python -m pip install --no-build-isolation -e .",
            )
        return _vllm_anew(facts)
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


def _vllm_anew(facts: Facts) -> tuple[str, ...]:
    """The vLLM that is installed with the torch that it was compiled for; where torch must stay, another vLLM."""
    version = facts.package("vllm")
    if facts.error("ascend-told") is not None and not facts.has_nvidia():
        return ascend.vllm_steps(facts)
    pair = companion("vllm", version)
    fresh = "In a fresh environment: uv pip install vllm --torch-backend=auto"
    if pair is None:
        return (fresh,)
    release = torch_release(pair[0])
    pins = [
        f"vllm=={version}",
        f"torch=={pair[0]}",
        *([f"torchvision=={release.torchvision}"] if release and release.latest == pair[0] else []),
    ]
    return (fixes.install(facts, *pins), f"or {fresh[0].lower()}{fresh[1:]}")


def _mixed_majors(facts: Facts) -> bool:
    return bool(facts.package("nvidia-cuda-runtime-cu12") and facts.package("nvidia-cuda-runtime"))


def vllm_pin(facts: Facts) -> Result:
    """vLLM pins torch exactly."""
    version, torch = facts.package("vllm"), facts.torch.version
    pair = companion("vllm", version)
    if pair is None or torch is None:
        return None
    if minor_name(torch) == minor_name(pair[0]):
        return PASSED
    return [
        Finding(
            "vllm-torch-mismatch",
            "warning",
            f"vLLM {version} belongs to torch {pair[0]}, not {torch}",
            "Its kernels are compiled against exactly that torch.",
            evidence(vllm=version, torch__version=torch, needs=f"torch=={pair[0]}"),
            _vllm_anew(facts),
            pair[1],
        )
    ]


def xformers_mismatch(facts: Facts) -> Result:
    """xformers belongs to another torch."""
    error = facts.error("xformers-extensions")
    version, torch = facts.package("xformers"), facts.torch.version
    pair = companion("xformers", version)
    if error is None and (pair is None or torch is None):
        return None
    built = error.values.get("built") if error else None
    wanted = built or (pair[0] if pair else None)
    other_python = _built_for_other_python(facts, error)
    if other_python is not None:
        return [other_python]
    if error is None and (
        satisfies(torch, wanted) if wanted and wanted.startswith(">") else release_of(torch, 3) == release_of(wanted, 3)
    ):
        return PASSED
    return [
        Finding(
            "xformers-torch-mismatch",
            "error" if facts.error("attention-kernel-missing") else "warning",
            f"xformers {version or ''} was built for torch {wanted or 'of another version'}".replace("  ", " ")
            + (f", not {torch}" if torch else ""),
            "Its CUDA extensions do not load. Installing it through pip may silently replace torch by the one it pins.",
            {**evidence(xformers=version, torch__version=torch, needs=wanted), **seen(error)},
            (
                *_xformers_or_none(facts),
                *(
                    ()
                    if torch
                    else (
                        "or, to keep it, the one for this very torch: "
                        + fixes.install(
                            facts, "xformers", options="-U --index-url " + WHEELS + "/<the cuXXX of torch>"
                        ),
                    )
                ),
            ),
            ISSUES + "facebookresearch/xformers/issues/1275",
            affects=("chat",),
            observed=error is not None,
        )
    ]


def _built_for_other_python(facts: Facts, error: Optional[ErrorFact]) -> Optional[Finding]:
    """An xformers whose torch is the right one, and whose Python is not."""
    values = error.values if error else {}
    built, have = values.get("built"), values.get("have")
    if error is None or not built or built != have or not values.get("python") or values["python"] == values["runs"]:
        return None
    tag = f"cp{values['runs'].replace('.', '')}"
    return Finding(
        "xformers-torch-mismatch",
        "warning",
        f"xformers was built for Python {values['python']}, and this is {values['runs']}",
        "A compiled module fits the Python that it was built with; its torch is the right one.",
        {**evidence(xformers=facts.package("xformers"), torch__version=have), **seen(error)},
        (
            fixes.uninstall(facts, "xformers") + "   # SDPA in torch does the same work",
            f"or a wheel of it for {tag} and this torch from where the torch came from, with --no-deps",
            "or compile it against the torch that is here: "
            + fixes.install(facts, "xformers", options="--no-deps --no-build-isolation --no-binary xformers"),
        ),
        ISSUES + "facebookresearch/xformers",
        affects=("chat",),
        observed=True,
    )


def _xformers_for_torch(facts: Facts) -> tuple[str, ...]:
    version = companion_of("xformers", facts.torch.version)
    variant = variant_of(facts.torch.cuda) if facts.torch.build == "cuda" else None
    if version is None or variant is None or not fixes.is_published(facts.torch.version):
        return ()
    last, python = newest_python("xformers", version), minor_name(facts.python.version)
    if last and python != last and at_least(python, last):
        return ()
    # Its builds by CUDA version stand on torch's index from 0.0.22 on, older ones on the package index alone.
    options = "--no-deps" + (f" --index-url {WHEELS}/{variant}" if at_least(version, "0.0.22") else "")
    return (fixes.install(facts, f"xformers=={version}", options=options),)


def _xformers_or_none(facts: Facts) -> tuple[str, ...]:
    """The one for this torch, where there is one: some programs run on it alone, such as vLLM before 0.5."""
    exact = _xformers_for_torch(facts)
    without = fixes.uninstall(facts, "xformers") + "   # SDPA in torch does the same work"
    return (*exact, f"or without it, where the program can: {without}") if exact else (without,)


# Told by rules of their own: torch itself, torchvision and torchaudio.
_OF_TORCH = re.compile(r"(?:lib)?(?:torch|torch_\w+|torchvision|torchaudio|c10|c10_\w+|shm)|_torchaudio\w*")


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
    if facts.error("torchvision-symbol", "torchaudio-symbol", "bnb-required-cpu"):
        return PASSED
    name = _extension_of(error, module)
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
            (
                *_not_needed(facts, normalize(name)),
                *(matching_build(facts, normalize(name)) or _its_build(facts, normalize(name))),
                *_compiled_here(facts, name),
            ),
            ISSUES + "turboderp-org/exllamav2/issues/434",
            affects=MODELS,
            observed=True,
        )
    ]


def _extension_of(error: ErrorFact, module: str) -> Optional[str]:
    """The package whose compiled part does not load; None where it may be one that has nothing to do with torch."""
    if error.id == "extension-symbol" and module == "it":
        return None
    folder = re.search(r"(?:site|dist)-packages[/\\](?P<package>[A-Za-z]\w{1,40})[/\\]", error.text)
    told = error.values.get("wanted") or error.values.get("owner") or error.values.get("importer")
    if folder and not folder["package"].startswith("torch"):
        package = folder["package"]
    else:
        package = told.lower() if told and error.values.get("dll") else module
    name = package_of(module) or re.sub(r"^lib(?=torch)|_(?:ext|extensions|cuda|C|torch)$", "", package)
    # A DLL that is missing may be of any package; only what is compiled against torch is judged here.
    of_torch = (
        error.values.get("symbol") or error.id == "extension-absent" or is_cuda_extension(normalize(name), module)
    )
    return name if of_torch and name and not package.startswith("_") else None


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
    return (
        f'{fixes.python_command(facts)} -c "import torch; print(torch.__version__, torch.version.cuda)"',
        f"Install the build of {name} that was made for exactly these two versions.",
        *_SUCCESSORS.get(name, ()),
    )


# Packages that are made no more, and what reads the same models.
_SUCCESSORS = {
    "auto-gptq": (
        "or GPTQModel in its place, which is made for today's torch and transformers: pip install gptqmodel",
    ),
    "autoawq-kernels": ("or gptqmodel or vLLM in its place: autoawq ended with torch 2.6",),
}


def vllm_finds_no_device(facts: Facts) -> Result:
    """vLLM runs on no platform that it knows."""

    def make(error: ErrorFact) -> Finding:
        windows = fixes.on_windows(facts)
        if not windows and (facts.torch.build == "rocm" or facts.has_amd()):
            return _vllm_on_amd(facts, error)
        return Finding(
            "vllm-unsupported-on-windows" if windows else "vllm-no-device",
            "error",
            "vLLM does not run on Windows" if windows else "vLLM finds no device that it can use",
            "There are no wheels for Windows, and a checkout builds without its kernels."
            if windows
            else "Its CUDA wheel wants a GPU that torch sees and libcuda; for a machine without one there is another "
            "build.",
            {
                **evidence(vllm=facts.package("vllm"), torch__version=facts.torch.version, os=facts.platform.os),
                **seen(error),
            },
            ("wsl --install   # then install vLLM inside the Linux system",)
            if windows
            else (
                f'{fixes.python_command(facts)} -c "import torch; print(torch.cuda.device_count())"',
                "nvidia-smi",
            ),
            "https://docs.vllm.ai/en/latest/getting_started/installation/",
            affects=("chat",),
            observed=True,
        )

    return from_message(facts, ("vllm-no-device",), make)


def _vllm_on_amd(facts: Facts, error: ErrorFact) -> Finding:
    built = facts.torch.build in (None, "rocm")
    image = "docker run --device /dev/kfd --device /dev/dri --group-add video --ipc=host -it rocm/vllm:latest"
    return Finding(
        "vllm-no-device",
        "error",
        "vLLM does not recognise the AMD GPU: it asks for it through the Python package amdsmi, which comes with ROCm"
        if built
        else "vLLM does not recognise the AMD GPU: its wheel on PyPI is the one for CUDA",
        "pip does not bring amdsmi along; it lies in ROCm's own folder, and has to be of that ROCm's release."
        if built
        else "For ROCm there is an image, and a build from source with ROCm's torch and amdsmi beside it.",
        {
            **evidence(vllm=facts.package("vllm"), torch__version=facts.torch.version, os=facts.platform.os),
            **seen(error),
        },
        (
            *fixes.preparation(facts),
            *(("cd /opt/rocm/share/amd_smi && python -m pip install .",) if built else ()),
            f"{'or ' if built else ''}{image}",
            "rocm-smi   # must list the GPU; if not, the user has to be in the groups video and render",
        ),
        "https://docs.vllm.ai/en/latest/getting_started/installation/gpu.html",
        affects=("chat",),
        observed=True,
    )


RULES: tuple[Rule, ...] = (
    nvidia_wheels,
    numpy_abi,
    torchvision_mismatch,
    flash_attn_mismatch,
    extension_for_other_cuda,
    vllm_pin,
    xformers_mismatch,
    extension_for_other_torch,
    vllm_finds_no_device,
)
