"""Rules about bitsandbytes and its native library."""

from __future__ import annotations

import re
from typing import Any, Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts, ProbeStep
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import (
    ISSUES,
    PASSED,
    Result,
    Rule,
    capabilities,
    cuda_works,
    evidence,
    from_message,
    is_jetson,
    seen,
)
from workbench.doctor.tables import bitsandbytes_release, newer_than_table, table
from workbench.doctor.versions import at_least, older, release_of

BNB = ISSUES + "bitsandbytes-foundation/bitsandbytes/"
QUANTIZED = ("chat", "vram")
_NOT_LOADED = "bitsandbytes does not load its GPU library"
_MISSING_LIBRARY = ("bnb-binary-not-found", "bnb-version-mismatch", "bnb-library-not-found")


def _upgrade(facts: Facts) -> str:
    """The newest bitsandbytes that leaves the torch that is here alone: pip would replace it without a word.

    On Windows it would even bring the build for the CPU.
    """
    newest = fixes.install(facts, "bitsandbytes", upgrade=True)
    if facts.origin == "live" and facts.torch.version is None:
        return newest
    rows = table("bitsandbytes")["release"]
    # A loader of before 0.43 stands beside a torch of its time, where nothing tells which.
    old = facts.torch.version is None and facts.error("bnb-legacy-loader") is not None
    fitting = [row for row in rows if row["windows"] and _takes(row, facts, old)]
    if not fitting or fitting[-1] is rows[-1]:
        return newest
    return fixes.install(facts, f"bitsandbytes<{fitting[-1]['to'].removesuffix('.0')}", upgrade=True)


def _takes(row: dict[str, Any], facts: Facts, old: bool) -> bool:
    """Whether a release asks for no newer torch or Python than is here."""
    return not (
        older(facts.python.version, row["python"])
        or older(facts.torch.version, row["torch"] or "0.0.1")
        or (old and row["torch"])
    )


def _installed(facts: Facts) -> Optional[bool]:
    found = facts.bitsandbytes
    return found.installed if found.installed is not None else (True if found.version else None)


def missing(facts: Facts) -> Result:
    """bitsandbytes is not installed."""
    error = facts.error("bnb-required")
    absent = facts.bitsandbytes.installed is False or facts.lacks("bitsandbytes")
    if error is None and not absent:
        return None if _installed(facts) is None else PASSED
    if _installed(facts) and error is not None and not absent:
        return _stale(facts, error)
    # Somebody who pasted a report without any trouble of this kind did not ask for it.
    if error is None and facts.origin != "live":
        return PASSED
    if error is not None and not absent and facts.platform.system == "Darwin":
        return PASSED  # what pip has for Macs is judged by itself
    # Only an import, or a look at what is installed, tells that it is not there; transformers says the same of one
    # that is too old, and some of its releases say so whenever torch has no GPU.
    certain = absent or error is None or "o module named" in error.text or "metadata was found" in error.text
    return [_absent(facts, error) if certain else _unusable(facts, error)]


def _absent(facts: Facts, error: Optional[ErrorFact]) -> Finding:
    return Finding(
        "bitsandbytes-missing",
        "error" if error else "warning",
        "bitsandbytes is not installed: no 4-bit or 8-bit loading",
        "int8, NF4 and FP4 are done by bitsandbytes; full-precision models load without it.",
        {**evidence(interpreter=facts.python.executable), **seen(error)},
        (*fixes.preparation(facts), fixes.install(facts, "bitsandbytes")),
        BNB,
        affects=QUANTIZED,
        observed=True,
    )


def _unusable(facts: Facts, error: Optional[ErrorFact]) -> Finding:
    """Missing or too old, and a paste that does not tell which."""
    look = "import torch; print(torch.cuda.is_available())"
    return Finding(
        "bitsandbytes-missing",
        "error",
        "transformers finds no bitsandbytes that it can use: it is missing or too old",
        "It says the same in both cases, and with transformers 4.32 to 4.42, or bitsandbytes before 0.43.1, also where "
        "torch sees no GPU.",
        {**evidence(transformers=facts.package("transformers")), **seen(error)},
        (
            *fixes.preparation(facts),
            _upgrade(facts),
            f'{fixes.python_command(facts)} -c "{look}"   # False: mend that first',
            "Restart the notebook kernel or the program: it looks only once.",
        ),
        ISSUES + "huggingface/transformers/issues/24539",
        affects=QUANTIZED,
        observed=True,
    )


def _stale(facts: Facts, error: ErrorFact) -> Result:
    if "latest version" not in error.text and "pgrade your" not in error.text and "install -U" not in error.text:
        return PASSED
    old = older(facts.bitsandbytes.version, "0.43.1")
    return [
        Finding(
            "bitsandbytes-too-old",
            "error",
            f"bitsandbytes {facts.bitsandbytes.version} is too old for this transformers"
            if facts.bitsandbytes.version and not _blames_gpu(facts)
            else "transformers asks for a newer bitsandbytes, or CUDA is not there",
            "transformers 4.32 to 4.42 say the same whenever torch has no CUDA, later ones do so for bitsandbytes "
            "before 0.43.1, which needs it to be imported."
            if old or _blames_gpu(facts)
            else "Each transformers names the oldest bitsandbytes that it takes; transformers 5 wants 0.46.1.",
            {
                **evidence(bitsandbytes=facts.bitsandbytes.version, transformers=facts.package("transformers")),
                **seen(error),
            },
            (_upgrade(facts),),
            ISSUES + "huggingface/transformers/issues/24539",
            affects=QUANTIZED,
            observed=True,
        )
    ]


def _blames_gpu(facts: Facts) -> bool:
    """Whether this transformers may mean the GPU by it; 4.43 is the first that does not for newer bitsandbytes."""
    return not cuda_works(facts) and not at_least(facts.package("transformers"), "4.43")


def legacy_loader(facts: Facts) -> Result:
    """bitsandbytes before 0.43, which searches libcudart by guessing and knows no Windows."""
    error = facts.error("bnb-legacy-loader")
    version = facts.bitsandbytes.version
    windows = fixes.on_windows(facts) or (error is not None and "WindowsPath" in error.text)
    old_on_windows = windows and older(version, "0.43.0")
    if error is None and not old_on_windows:
        return None if version is None else PASSED
    if at_least(version, "0.43.0") or (not old_on_windows and _loaded_and_failed_elsewhere(facts)):
        return PASSED
    return [
        Finding(
            "bnb-too-old-for-windows" if windows else "bnb-legacy-loader",
            "error",
            "bitsandbytes is too old" + (" for Windows" if windows else ": its loader guesses where CUDA is"),
            "Up to 0.42 it searches the file system for libcudart and has no Windows library; from 0.43 on it takes "
            "the CUDA that torch brings.",
            {
                **evidence(
                    bitsandbytes=version,
                    system=facts.platform.system,
                    wanted=_wanted_cuda(facts.error("bnb-library-not-found")),
                ),
                **seen(error),
            },
            (
                *_leave_checkout(facts),
                *(_kernels_of_this_gpu(facts) if is_jetson(facts) else (_upgrade(facts),)),
            ),
            BNB + "issues/741",
            affects=QUANTIZED,
            observed=error is not None,
        )
    ]


def _loaded_and_failed_elsewhere(facts: Facts) -> bool:
    """Whether the old loader found its library for CUDA after all, and the paste is about another error below."""
    loaded = facts.error("bnb-library-loaded")
    if facts.error("bnb-setup-failed", "bnb-missing-dependency", "cudart-missing", *_MISSING_LIBRARY):
        return False
    below = [error for error in facts.errors if loaded is not None and error.line > loaded.line]
    named = any(not error.id.startswith("bnb-") or error.id == "bnb-cublaslt" for error in below)
    return named or (bool(facts.error("unknown-error")) and loaded is not None and not below)


def _is_checkout(facts: Facts) -> bool:
    location = facts.bitsandbytes.location
    return bool(location) and facts.origin != "live" and not re.search(r"-packages|\.egg\b", location or "")


def _leave_checkout(facts: Facts) -> tuple[str, ...]:
    """What comes before an upgrade where Python takes a folder of sources in place of what pip installs."""
    location = facts.bitsandbytes.location
    if not _is_checkout(facts):
        return ()
    return (
        f"{fixes.uninstall(facts, 'bitsandbytes')}   # what runs is a checkout, compiled without the library wanted",
        f"Move {location} away, or start the program elsewhere: that folder comes before what pip installs.",
    )


def source_not_compiled(facts: Facts) -> Result:
    """A checkout or source build without any native library."""
    error = facts.error("bnb-required-cpu", "bnb-forgot-compile")
    libraries = facts.bitsandbytes.libraries
    wanted = facts.error("bnb-library-not-found") if _is_checkout(facts) else None
    if error is None and libraries is None and wanted is None:
        return None
    if error is None and libraries:
        return PASSED
    if libraries and "cpu" in libraries:
        return PASSED
    if error is None and wanted is not None:
        return [_checkout_without(facts, wanted)]
    return [
        Finding(
            "bnb-source-install-not-compiled",
            "error",
            "bitsandbytes is there without its native library",
            "Neither a CUDA nor a CPU library is in the package: a checkout, an egg or a broken install in place of "
            "a wheel.",
            {**evidence(bitsandbytes=facts.bitsandbytes.version, location=facts.bitsandbytes.location), **seen(error)},
            (
                *(_leave_checkout(facts) or (fixes.uninstall(facts, "bitsandbytes"),)),
                fixes.install(facts, "bitsandbytes", options="--no-cache-dir --force-reinstall --no-deps"),
            ),
            BNB + "issues/1042",
            affects=QUANTIZED,
            observed=True,
        )
    ]


def _checkout_without(facts: Facts, error: ErrorFact) -> Finding:
    """Python takes a folder of sources, in which another library was compiled than the one wanted."""
    number = error.values.get("wanted", "")
    cuda = f"CUDA {number[:-1]}.{number[-1]}" if number else "this CUDA"
    return Finding(
        "bnb-source-install-not-compiled",
        "error",
        f"The bitsandbytes that runs is a checkout, in which the library for {cuda} was not compiled",
        "A folder of sources comes before what pip installs; the wheels have the libraries of every CUDA in them.",
        {**evidence(location=facts.bitsandbytes.location), **seen(error)},
        (*_leave_checkout(facts), _upgrade(facts)),
        BNB + "issues/1042",
        affects=QUANTIZED,
        observed=True,
    )


def override(facts: Facts) -> Result:
    """BNB_CUDA_VERSION forces a library."""
    error = facts.error("bnb-override", "bnb-override-invalid")
    variable, value = _override_variable(facts, error)
    if variable is None:
        return PASSED
    wanted = _digits(facts.torch.hip if variable == "BNB_ROCM_VERSION" else facts.torch.cuda)
    shipped = _shipped(facts, "rocm" if variable == "BNB_ROCM_VERSION" else "cuda")
    empty_is_error = value == "" and at_least(facts.bitsandbytes.version, "0.50.0")
    trouble = facts.error(
        *(*_MISSING_LIBRARY, "bnb-missing-dependency", "cudart-missing", "bnb-setup-failed", "bnb-override-invalid"),
        "bnb-override-impossible",
    )
    if value == "" and not empty_is_error and trouble is None:
        return PASSED
    wrong = bool(
        empty_is_error
        or trouble
        or (shipped is not None and value not in shipped)
        or (wanted and value[:2] != wanted[:2])
    )
    if facts.bitsandbytes.works:
        wrong = False
    if wanted == value and not trouble:
        return PASSED
    return [
        Finding(
            "bnb-cuda-version-override",
            "error" if wrong else "warning",
            f"{variable} forces another native library than the one that fits",
            "The variable overrides bitsandbytes' own choice, without any fallback"
            + ("; from 0.50 on an empty value is an error." if value == "" else "."),
            {
                **evidence(bitsandbytes=facts.bitsandbytes.version, torch__cuda=facts.torch.cuda),
                variable: repr(value),
                **seen(trouble or error),
            },
            (fixes.unset(facts, variable, f"and remove it from {fixes.where_set(facts)}"),),
            BNB + "issues/760",
            affects=QUANTIZED,
            observed=trouble is not None or error is not None,
        )
    ]


def _override_variable(facts: Facts, error: Optional[ErrorFact]) -> tuple[Optional[str], str]:
    for name in ("BNB_CUDA_VERSION", "BNB_ROCM_VERSION"):
        if name in facts.environment:
            return name, facts.environment[name].strip("'\"")
    if error is not None and error.values.get("variable"):
        return error.values["variable"], error.values.get("value", "")
    return None, ""


def _digits(version: Optional[str]) -> str:
    numbers = release_of(version)
    return f"{numbers[0]}{numbers[1]}" if numbers else ""


def _shipped(facts: Facts, kind: str) -> Optional[list[str]]:
    """Variants of the installed version: as its files show, else as the table says for Linux x86-64."""
    if facts.bitsandbytes.libraries is not None:
        return [name[len(kind) :] for name in facts.bitsandbytes.libraries if name.startswith(kind)]
    row = bitsandbytes_release(facts.bitsandbytes.version)
    if row is None:
        return None
    listed: list[str] = row[kind]
    return listed


def _nearest_library(facts: Facts, cuda: Optional[str]) -> tuple[str, ...]:
    """Which library can stand in for one of CUDA 11 that no release of that time has, as for 11.6 or 11.3."""
    numbers, rows = release_of(cuda), table("bitsandbytes")["release"]
    wanted = _digits(cuda)
    if numbers is None or numbers[0] != 11 or wanted in rows[-1]["cuda"] or "bitsandbytes<" not in _upgrade(facts):
        return ()
    shipped = {name for row in rows if row["windows"] and not row["torch"] for name in row["cuda"]}
    if wanted in shipped:
        return ()
    near = min((name for name in shipped if name.startswith("11")), key=lambda name: abs(int(name) - int(wanted)))
    return (fixes.export(facts, "BNB_CUDA_VERSION", near, "the nearest one; all of CUDA 11 load one runtime"),)


def no_library_for_cuda(facts: Facts) -> Result:
    """No shipped library fits torch's CUDA."""
    error = facts.error(*_MISSING_LIBRARY)
    lacks = _lacks_cuda(facts)
    if error is None and lacks is None:
        return None
    if facts.bitsandbytes.works or (error is None and not lacks):
        return PASSED
    version, cuda = facts.bitsandbytes.version, facts.torch.cuda or _wanted_cuda(error)
    shipped = _shipped(facts, "cuda")
    newest = table("bitsandbytes")["newest"]
    numbers = release_of(cuda)
    whole_major = bool(shipped and numbers and not any(item.startswith(str(numbers[0])) for item in shipped))
    fix = [_upgrade(facts), *_nearest_library(facts, cuda)]
    if at_least(version, newest):
        fix = list(fixes.reinstall_torch(facts, keep_release=False))
    return [
        Finding(
            "bnb-no-lib-for-cuda",
            "error",
            f"bitsandbytes {version or ''} has no library for CUDA {cuda}".replace("  ", " ")
            if cuda
            else "bitsandbytes has no library for torch's CUDA",
            (
                "Before 0.50 only a library of exactly torch's CUDA version is loaded, "
                if older(version, "0.50.0") or version is None
                else "A library of torch's CUDA major is needed, "
            )
            + "and this release ships none"
            + (" of that CUDA major." if whole_major else "."),
            {
                **evidence(bitsandbytes=version, torch__cuda=cuda, ships=" ".join(shipped) if shipped else None),
                **seen(error),
            },
            tuple(fix),
            BNB + "issues/631",
            affects=QUANTIZED,
            observed=error is not None or facts.bitsandbytes.works is False,
        )
    ]


def _wanted_cuda(error: Optional[ErrorFact]) -> Optional[str]:
    digits = error.values.get("wanted", "") if error else ""
    return f"{digits[:2]}.{digits[2:]}" if len(digits) >= 3 else None


def _lacks_cuda(facts: Facts) -> Optional[bool]:
    numbers = release_of(facts.torch.cuda)
    shipped = _shipped(facts, "cuda")
    if facts.torch.build != "cuda" or numbers is None or shipped is None or not _installed(facts):
        return None
    if facts.platform.system == "Darwin":
        return None
    if f"{numbers[0]}{numbers[1]}" in shipped:
        return False
    fallback = at_least(facts.bitsandbytes.version, "0.50.0")
    if fallback is None:
        return None
    return not (fallback and any(item.startswith(str(numbers[0])) for item in shipped))


def missing_runtime_library(facts: Facts) -> Result:
    """The chosen library needs a CUDA runtime of another major."""
    error = facts.error("bnb-missing-dependency")
    if error is None:
        return PASSED
    library = error.values.get("library", "a CUDA library")
    return [
        Finding(
            "bnb-missing-runtime-lib",
            "error",
            f"bitsandbytes' library needs {library}, which is not there",
            "A library made for another CUDA major than torch's was loaded, or torch came without its NVIDIA wheels.",
            {**evidence(bitsandbytes=facts.bitsandbytes.version, torch__cuda=facts.torch.cuda), **seen(error)},
            _runtime_fix(facts),
            BNB + "issues/1518",
            affects=QUANTIZED,
            observed=True,
        )
    ]


def _runtime_fix(facts: Facts) -> tuple[str, ...]:
    variables = [name for name in ("BNB_CUDA_VERSION", "BNB_ROCM_VERSION") if facts.environment.get(name)]
    return (
        *(fixes.unset(facts, name) for name in variables),
        _upgrade(facts),
        *(f"or, if it stays: {step}" for step in fixes.repair_torch(facts)[-1:]),
    )


def rocm(facts: Facts) -> Result:
    """AMD: a wheel without ROCm libraries, or without the right one."""
    error = facts.error("bnb-rocm-binary-not-found", "bnb-rocm-symbol")
    version = facts.bitsandbytes.version
    if error is not None and error.id == "bnb-rocm-symbol":
        return [
            _rocm(
                facts, "bnb-no-lib-for-rocm", "The ROCm library of this bitsandbytes was built for another ROCm", error
            )
        ]
    asked = facts.error("asks-quantized") if facts.error("traceback-cut") else None
    if asked is not None and version is None and (facts.torch.build == "rocm" or facts.has_amd()):
        # The traceback is cut, and loading in 8 or 4 bits is what AMD's GPUs fail in with older releases.
        title = "Loading in 8 or 4 bits fails on this AMD GPU: bitsandbytes most likely has no ROCm library"
        return [_rocm(facts, "bnb-wheel-without-rocm", title, asked)]
    if error is None and (facts.torch.build is None or version is None):
        return None
    if facts.torch.build != "rocm" and error is None:
        return PASSED
    if facts.bitsandbytes.works:
        return PASSED
    if older(version, "0.49.0"):
        return [_rocm(facts, "bnb-wheel-without-rocm", f"bitsandbytes {version} has no ROCm library", error)]
    shipped, wanted = _shipped(facts, "rocm"), _digits(facts.torch.hip)
    if error is None:
        fits = shipped is None or not wanted or wanted in shipped
        fits = fits or bool(at_least(version, "0.50.0") and any(item[:1] == wanted[:1] for item in shipped or ()))
        if fits:
            return PASSED
    return [
        _rocm(
            facts, "bnb-no-lib-for-rocm", f"bitsandbytes has no library for ROCm {facts.torch.hip or ''}".strip(), error
        )
    ]


def _rocm(facts: Facts, id: str, title: str, error: Optional[ErrorFact]) -> Finding:
    return Finding(
        id,
        "error",
        title,
        "ROCm libraries are in the wheels from 0.49 on (6.2 to 7.2); ROCm 7.14 needs 0.50, whose file names also "
        "spell the "
        "version right.",
        {
            **evidence(bitsandbytes=facts.bitsandbytes.version, torch__hip=facts.torch.hip),
            **seen(error or facts.error("bnb-no-gpu-support")),
        },
        (fixes.install(facts, "bitsandbytes>=0.50"),),
        BNB + ("issues/1890" if id == "bnb-no-lib-for-rocm" else "issues/1955"),
        affects=QUANTIZED,
        observed=error is not None,
    )


def macos(facts: Facts) -> Result:
    """macOS wheels begin with 0.49."""
    version, refused = facts.bitsandbytes.version, facts.error("bnb-no-device", "bnb-required")
    unfound = facts.error("pip-no-match")
    if refused is None and unfound is not None and unfound.values.get("package") == "bitsandbytes":
        refused = unfound
    old = facts.error("bnb-no-gpu-support", "bnb-legacy-loader")
    if facts.platform.system is None or (version is None and refused is None and old is None):
        return None
    if facts.platform.system != "Darwin" or at_least(version, "0.49.0"):
        return PASSED
    return [
        Finding(
            "bnb-unsupported-on-macos",
            "error",
            f"bitsandbytes {version} does not run on macOS" if version else "This bitsandbytes does not run on macOS",
            "A Mac has no CUDA. bitsandbytes has wheels for Apple silicon from 0.49 on; older ones carry Linux "
            "libraries only. transformers before 4.43 takes bitsandbytes with CUDA only.",
            {
                **evidence(bitsandbytes=facts.bitsandbytes.version, os=facts.platform.os),
                **seen(refused or old),
            },
            (
                fixes.install(facts, "bitsandbytes>=0.49")
                if refused is None and at_least(facts.package("transformers"), "4.43")
                else _upgrade_both(facts),
                "or use MLX or llama.cpp for quantized models on a Mac",
            ),
            BNB + "pull/1818",
            affects=QUANTIZED,
            observed=refused is not None
            or facts.bitsandbytes.works is False
            or (old or facts.error("accelerate-required")) is not None,
        )
    ]


def _upgrade_both(facts: Facts) -> str:
    return fixes.install(facts, "bitsandbytes>=0.49", "transformers>=5", "accelerate", upgrade=True)


def int8_old_gpu(facts: Facts) -> Result:
    """LLM.int8() has its fast path from 7.5 on only."""
    error = facts.error("bnb-slow-int8", "bnb-cublaslt")
    old = [(gpu, capability) for gpu, capability in capabilities(facts) if older(capability, "7.5")]
    if error is None and not capabilities(facts):
        return None
    if not _installed(facts) and error is None:
        return PASSED
    if error is None and not old:
        return PASSED
    fails = error is not None and error.id == "bnb-cublaslt"
    if fails and not old:
        return [_int8_fails(facts, error)]
    return [
        Finding(
            "bnb-int8-old-gpu",
            "error" if fails else "info",
            "int8 is slow or fails on GPUs below compute capability 7.5",
            "The fast path of LLM.int8() needs int8 tensor cores; NF4 works from 6.0 on.",
            {
                **evidence(gpu=old[0][0].name if old else None, compute_capability=old[0][1] if old else None),
                **seen(error),
            },
            ("Load in 4 bits (NF4) in place of int8.",),
            BNB + "issues/529",
            affects=QUANTIZED,
            observed=error is not None,
        )
    ]


def _int8_fails(facts: Facts, error: Optional[ErrorFact]) -> Finding:
    """The multiplication of int8 is refused, by a GPU that is not known to be too old for it."""
    return Finding(
        "bnb-int8-fails",
        "error",
        "bitsandbytes' multiplication of int8 fails on this GPU, or with what is left of its memory",
        "Releases before 0.45 used layouts of cuBLASLt that Hopper and newer GPUs do not have and that older ones than "
        "7.5 never had; the same message comes where the model does not fit beside what else is on the GPU.",
        {**evidence(bitsandbytes=facts.bitsandbytes.version), **seen(error)},
        (
            fixes.install(facts, "bitsandbytes>=0.45", upgrade=True),
            "or 4 bits in place of int8, which every GPU from 6.0 on has: load_in_4bit=True (LLaMA-Factory: "
            "quantization_bit: 4)",
            "nvidia-smi   # is memory left? else all layers on one GPU: device_map={'': 0}",
        ),
        BNB + "issues/538",
        affects=QUANTIZED,
        observed=True,
    )


def stale_kernel(facts: Facts) -> Result:
    """A notebook that was not restarted after an upgrade."""
    return from_message(
        facts,
        ("bnb-stale-kernel",),
        lambda error: Finding(
            "stale-notebook-kernel",
            "error",
            "The notebook still holds the old bitsandbytes in memory",
            "A package was upgraded while its old modules were loaded; half of each is now in use.",
            {**evidence(bitsandbytes=facts.bitsandbytes.version), **seen(error)},
            ("Restart the kernel (Runtime → Restart session), then import again.",),
            BNB,
            affects=QUANTIZED,
            observed=True,
        ),
    )


def _kernels_of_this_gpu(facts: Facts) -> tuple[str, ...]:
    capability = next((gpu.compute_capability for gpu in facts.gpus or () if gpu.compute_capability), None)
    wanted = (capability or "87").replace(".", "")
    build = (
        "git clone https://github.com/bitsandbytes-foundation/bitsandbytes && cd bitsandbytes && cmake "
        f"-DCOMPUTE_BACKEND=cuda -DCOMPUTE_CAPABILITY={wanted} -S . && make && "
        f"{fixes.python_command(facts)} -m pip install ."
    )
    if is_jetson(facts) or facts.platform.machine == "aarch64":
        return (build,)
    return (
        fixes.install(facts, "bitsandbytes", upgrade=True) + "   # has code for newer cards; none for some older ones:",
        f"{build}   # the GPU's own number: nvidia-smi --query-gpu=compute_cap --format=csv",
    )


def jetson(facts: Facts) -> Result:
    """Jetson is not covered by the aarch64 wheels."""
    return from_message(
        facts,
        ("bnb-named-symbol",),
        lambda error: Finding(
            "bnb-jetson",
            "error",
            "The bitsandbytes wheel has no kernels for this GPU",
            "'named symbol not found' means that the library holds no code for the device; the aarch64 wheels cover "
            "servers, not Jetson boards.",
            {**evidence(bitsandbytes=facts.bitsandbytes.version, machine=facts.platform.machine), **seen(error)},
            _kernels_of_this_gpu(facts),
            BNB,
            affects=QUANTIZED,
            observed=True,
        ),
    )


def triton_ops(facts: Facts) -> Result:
    """bitsandbytes before 0.45 imports a module that triton 3 no longer has."""
    error = facts.error("triton-ops")
    version, triton = facts.bitsandbytes.version, facts.package("triton")
    if error is None and (version is None or triton is None):
        return None
    if error is None and not (older(version, "0.45.0") and at_least(version, "0.40.0") and at_least(triton, "3.0")):
        return PASSED
    return [
        Finding(
            "bnb-too-old-for-triton",
            "error" if error else "warning",
            f"bitsandbytes {version or ''} is too old for triton {triton or '3'}".replace("  ", " "),
            "It imports triton.ops, which triton 3 (torch 2.4 and newer) no longer has.",
            {**evidence(bitsandbytes=version, triton=triton), **seen(error)},
            (*_leave_checkout(facts), _upgrade(facts)),
            BNB + "issues/1492",
            affects=QUANTIZED,
            observed=error is not None,
        )
    ]


def unusable(facts: Facts) -> Result:
    """bitsandbytes does not work and nothing more precise is known; most often CUDA itself is the cause."""
    error = facts.error(
        "bnb-setup-failed", "bnb-no-gpu-support", "bnb-str2optimizer", "bnb-no-device", "bnb-required-cpu"
    )
    step = facts.probe("bitsandbytes")
    failed = step is not None and step.status in ("failed", "crashed", "timeout")
    if error is None and step is None:
        return None
    if error is None and not failed:
        return PASSED
    if facts.bitsandbytes.works:
        return PASSED
    loaded = facts.probe("self-test load-4bit")
    if loaded is not None and loaded.status == "passed" and step is not None:
        return [_works_without_library(facts, step, loaded)]
    detail = step.detail.strip().splitlines()[0][:200] if step and step.detail.strip() else None
    version = facts.bitsandbytes.version
    newer = " This release is newer than the tables." if newer_than_table("bitsandbytes", version) else ""
    no_gpu = cuda_works(facts) is False
    return [
        Finding(
            "bitsandbytes-unusable",
            "error",
            ("Quantization wants a GPU, and torch sees none" if error.id == "bnb-no-device" else _NOT_LOADED)
            if error
            else f"bitsandbytes fails: {detail or (step and step.status)}",
            (
                "It takes the GPU library only when torch sees a GPU."
                if no_gpu or (error is not None and error.id == "bnb-no-device")
                else "Its native library did not load or has no code for this device."
            )
            + newer,
            {
                **evidence(
                    bitsandbytes=version,
                    torch__version=facts.torch.version,
                    library=facts.bitsandbytes.library,
                    detail=detail,
                ),
                **seen(error),
            },
            _when_not_loaded(facts, no_gpu),
            BNB + "issues/631",
            affects=QUANTIZED,
            observed=True,
        )
    ]


def _when_not_loaded(facts: Facts, no_gpu: bool) -> tuple[str, ...]:
    """An upgrade comes first where the release may be one that guesses where CUDA is, or a checkout is what runs."""
    checks = (
        f'{fixes.python_command(facts)} -c "import torch; print(torch.cuda.is_available())"',
        f"{fixes.python_command(facts)} -m bitsandbytes   # its own diagnosis",
    )
    if no_gpu:
        return checks
    left = _leave_checkout(facts)
    told = at_least(facts.bitsandbytes.version, "0.43.0")
    return (*checks, _upgrade(facts)) if told and not left else (*left, _upgrade(facts), *checks)


def _works_without_library(facts: Facts, step: ProbeStep, loaded: ProbeStep) -> Finding:
    return Finding(
        "bitsandbytes-unusable",
        "warning",
        "bitsandbytes' native library does not load; 4 bits still work, by PyTorch's own operations",
        "The self-test loaded a model in 4 bits and ran it, so quantization works here. Without the native library it "
        "is slow, and 8-bit optimizers are not there.",
        evidence(
            bitsandbytes=facts.bitsandbytes.version,
            detail=step.detail.strip()[:300],
            self_test=loaded.detail[:200],
        ),
        (_upgrade(facts), f"{fixes.python_command(facts)} -m bitsandbytes   # its own diagnosis"),
        BNB + "issues/631",
        affects=QUANTIZED,
        observed=True,
    )


RULES: tuple[Rule, ...] = (
    stale_kernel,
    source_not_compiled,
    override,
    legacy_loader,
    macos,
    rocm,
    no_library_for_cuda,
    missing_runtime_library,
    jetson,
    triton_ops,
    missing,
    unusable,
    int8_old_gpu,
)
