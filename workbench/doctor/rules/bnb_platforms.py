"""Rules about bitsandbytes where the GPU is not NVIDIA's own for a PC: ROCm, Macs, Jetsons."""

from __future__ import annotations

from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.bnb_library import (
    BNB,
    QUANTIZED,
    digits,
    kernels_of_this_gpu,
    leave_checkout,
    shipped_for,
)
from workbench.doctor.rules.common import PASSED, Result, Rule, cuda_works, evidence, gpu_names, is_jetson, seen
from workbench.doctor.versions import at_least, minor_name, older


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
    unbuilt = facts.error("bnb-rocm-library-not-found")
    if unbuilt is not None and (facts.error("bnb-required-cpu") or ".egg/" in unbuilt.text):
        return [_not_built_for(facts, unbuilt)]
    if unbuilt is not None and not facts.bitsandbytes.works:
        title = f"bitsandbytes has no library for ROCm {_asked_rocm(unbuilt) or ''}".strip()
        return [_rocm(facts, "bnb-no-lib-for-rocm", title, unbuilt)]
    asked = facts.error("asks-quantized") if facts.error("traceback-cut") else None
    if asked is not None and version is None and (facts.torch.build == "rocm" or facts.has_amd()):
        # The traceback is cut, and loading in 8 or 4 bits is what AMD's GPUs fail in with older releases.
        title = "Loading in 8 or 4 bits fails on this AMD GPU: bitsandbytes most likely has no ROCm library"
        return [_rocm(facts, "bnb-wheel-without-rocm", title, asked)]
    bare = facts.error("bnb-no-gpu-support", "bnb-legacy-loader", "bnb-setup-failed", "bnb-finds-no-cuda-in-torch")
    if bare is not None and not at_least(version, "0.49.0") and facts.torch.build != "cuda" and _only_amd(facts):
        return [_rocm(facts, "bnb-wheel-without-rocm", "This bitsandbytes has no ROCm library for the AMD GPU", bare)]
    if error is None and (facts.torch.build is None or version is None):
        return None
    if facts.torch.build != "rocm" and error is None:
        return PASSED
    if facts.bitsandbytes.works:
        return PASSED
    if older(version, "0.50.0" if facts.platform.system == "Windows" else "0.49.0"):
        return [_rocm(facts, "bnb-wheel-without-rocm", f"bitsandbytes {version} has no ROCm library", error)]
    shipped, wanted = shipped_for(facts, "rocm"), digits(facts.torch.hip)
    if error is None:
        fits = shipped is None or not wanted or wanted in shipped
        fits = fits or bool(at_least(version, "0.50.0") and any(item[:1] == wanted[:1] for item in shipped or ()))
        if fits:
            return PASSED
    rocm = minor_name(facts.torch.hip) or _asked_rocm(error) or ""
    return [_rocm(facts, "bnb-no-lib-for-rocm", f"bitsandbytes has no library for ROCm {rocm}".strip(), error)]


# Up to 0.49 the name is 10 * major + minor (cuda_specs.py), so that ROCm 7.10 and newer seem to be of an eighth one.
_NO_SUCH_ROCM = 79


def _asked_rocm(error: Optional[ErrorFact]) -> Optional[str]:
    """The ROCm of torch, by the name of the library that was looked for."""
    number = error.values.get("wanted", "") if error else ""
    if error is None or not number:
        return None
    if len(number) == 2 and int(number) > _NO_SUCH_ROCM and "no compatible" not in error.text.lower():
        return f"7.{int(number) - 70}"
    return f"{number[0]}.{number[1:]}"


def _not_built_for(facts: Facts, error: ErrorFact) -> Finding:
    """Of AMD's sources: CMake names the library by the ROCm of the system, the loader by that of torch."""
    rocm = _asked_rocm(error)
    return Finding(
        "bnb-source-install-not-compiled",
        "error",
        f"bitsandbytes was built from sources, without a library for the ROCm {rocm} of torch"
        if rocm
        else "bitsandbytes was built from sources, without a library for ROCm",
        "The name of what is compiled has the ROCm of the system in it, that of what is loaded the ROCm of torch: "
        "where the two differ, the library is there under another name. The wheels have those of ROCm 6.2 and newer.",
        {
            **evidence(
                bitsandbytes=facts.bitsandbytes.version, location=facts.bitsandbytes.location, asked_for_rocm=rocm
            ),
            **seen(error),
        },
        _for_rocm(facts),
        BNB + "issues/1519",
        affects=QUANTIZED,
        observed=True,
    )


def _only_amd(facts: Facts) -> bool:
    """Whether the GPU is AMD's, on the Linux that bitsandbytes has ROCm libraries for."""
    amd = facts.has_amd() or facts.torch.build == "rocm"
    return bool(amd) and not facts.has_nvidia() and facts.platform.system in (None, "Linux")


def _rocm(facts: Facts, id: str, title: str, error: Optional[ErrorFact]) -> Finding:
    return Finding(
        id,
        "error",
        title,
        "ROCm libraries are in the wheels for Linux from 0.49 on (6.2 to 7.2), in those for Windows from 0.50 on (7.2 "
        "and newer); ROCm 7.14 needs 0.50, whose file names also spell the version right.",
        {
            **evidence(bitsandbytes=facts.bitsandbytes.version, torch__hip=facts.torch.hip),
            **seen(error or facts.error("bnb-no-gpu-support")),
        },
        _for_rocm(facts),
        BNB + ("issues/1890" if id == "bnb-no-lib-for-rocm" else "issues/1955"),
        affects=QUANTIZED,
        observed=error is not None,
    )


def _for_rocm(facts: Facts) -> tuple[str, ...]:
    """The newest one; where it takes no torch of this age, pip would put one for CUDA in its place."""
    install = fixes.install(facts, "bitsandbytes>=0.50", upgrade=True)
    steps = []
    if older(facts.python.version, "3.10"):
        steps += [fixes.new_environment(), "source .venv/bin/activate   # bitsandbytes with ROCm wants Python 3.10"]
    # What looks for a library by its ROCm is of a time in which torch was new enough.
    recent = facts.torch.version or facts.error("bnb-rocm-binary-not-found", "bnb-rocm-symbol")
    before = older(_asked_rocm(facts.error("bnb-rocm-library-not-found", "bnb-rocm-binary-not-found")), "6.2")
    if steps or not recent or before or older(facts.torch.version, "2.4"):
        torch = fixes.install(
            facts, "torch", options=f"--index-url {fixes.rocm_index(facts, newest=True)}", upgrade=True
        )
        why = "no wheel has a library for the ROCm" if before else "first, if older than 2.4: pip alone would bring one"
        steps.append(f"{torch}   # {why} {'of this torch' if before else 'for CUDA'}")
    return (*steps, *leave_checkout(facts), install)


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
            _on_mac(facts, refused),
            BNB + "pull/1818",
            affects=QUANTIZED,
            observed=refused is not None
            or facts.bitsandbytes.works is False
            or (old or facts.error("accelerate-required")) is not None,
        )
    ]


_MLX = "use MLX or llama.cpp for quantized models on a Mac"


def _on_mac(facts: Facts, refused: Optional[ErrorFact]) -> tuple[str, ...]:
    """The first release with a wheel for Macs wants Python 3.10; in a container of Linux there is no GPU for it."""
    newer: tuple[str, ...] = ()
    if older(facts.python.version, "3.10"):
        newer = (fixes.new_environment(), "source .venv/bin/activate   # bitsandbytes for Macs wants Python 3.10")
    both = refused is not None or not at_least(facts.package("transformers"), "4.43")
    install = _upgrade_both(facts) if both else fixes.install(facts, "bitsandbytes>=0.49")
    if facts.platform.container or older(facts.python.version, "3.9"):
        return (f"U{_MLX[1:]}: they run on its GPU, which no container sees", *newer, install)
    return (*newer, install, f"or {_MLX}")


def _upgrade_both(facts: Facts) -> str:
    return fixes.install(facts, "bitsandbytes>=0.49", "transformers>=5", "accelerate", upgrade=True)


def wheel_of_x86(facts: Facts) -> Result:
    """A wheel without any library for this processor, which pip takes on every system."""
    error = facts.error("bnb-wheel-of-x86")
    if facts.platform.machine is None and not is_jetson(facts):
        return None
    if error is None or (facts.platform.machine not in ("aarch64", "arm64") and not is_jetson(facts)):
        return PASSED
    if facts.platform.system == "Darwin":
        return PASSED
    return [
        Finding(
            "bnb-wheel-for-other-processor",
            "error",
            f"bitsandbytes {error.values['version']} has libraries for x86 processors only, and this one is an ARM",
            "Its wheel is marked as one for every system, so pip takes it where no other fits. Wheels for ARM servers "
            "came with 0.46; for a Jetson it is compiled, or taken from an index for Jetsons.",
            {**evidence(machine=facts.platform.machine, gpu=gpu_names(facts)), **seen(error)},
            kernels_of_this_gpu(facts) if is_jetson(facts) else (fixes.install(facts, "bitsandbytes>=0.46"),),
            BNB + "issues/1218",
            affects=QUANTIZED,
            observed=True,
        )
    ]


def jetson(facts: Facts) -> Result:
    """Jetson is not covered by the aarch64 wheels."""
    error = facts.error("bnb-named-symbol")
    if error is None and is_jetson(facts) and cuda_works(facts) is not False:
        error = facts.error("bnb-no-gpu-support", "bnb-setup-failed")
    if error is None:
        return PASSED
    without = error.id != "bnb-named-symbol"
    return [
        Finding(
            "bnb-jetson",
            "error",
            "This bitsandbytes was compiled without CUDA, and no wheel has it for a Jetson"
            if without
            else "This bitsandbytes has no kernels for this GPU",
            "The wheels for ARM cover servers, not Jetson boards, and a build from sources only what it was told to "
            "compile."
            if without
            else "'named symbol not found' means that the library holds no code for the device; the aarch64 wheels "
            "cover servers, not Jetson boards, and a build from source the cards that it was told of.",
            {**evidence(bitsandbytes=facts.bitsandbytes.version, machine=facts.platform.machine), **seen(error)},
            (*leave_checkout(facts), *kernels_of_this_gpu(facts)),
            BNB,
            affects=QUANTIZED,
            observed=True,
        )
    ]


RULES: tuple[Rule, ...] = (
    macos,
    rocm,
    wheel_of_x86,
    jetson,
)
