"""Rules about the native library that bitsandbytes chooses: for another CUDA, forced, not compiled, not found."""

from __future__ import annotations

import re
from typing import Any, Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ISSUES, PASSED, Result, Rule, evidence, from_message, is_jetson, seen
from workbench.doctor.rules.jetson import jetpack
from workbench.doctor.tables import bitsandbytes_release, table, torch_releases, variant_of
from workbench.doctor.versions import at_least, older, release_of

BNB = ISSUES + "bitsandbytes-foundation/bitsandbytes/"


QUANTIZED = ("chat", "vram")


MISSING_LIBRARY = ("bnb-binary-not-found", "bnb-version-mismatch", "bnb-library-not-found")


def is_installed(facts: Facts) -> Optional[bool]:
    """Whether bitsandbytes is there; None when nothing tells."""
    found = facts.bitsandbytes
    return found.installed if found.installed is not None else (True if found.version else None)


def upgrade(facts: Facts) -> str:
    """The newest bitsandbytes that leaves the torch that is here alone: pip would replace it without a word.

    On Windows it would even bring the build for the CPU.
    """
    return fixes.install(facts, fitting_release(facts), upgrade=True)


def fitting_release(facts: Facts) -> str:
    """The newest bitsandbytes that takes the torch and the Python that are here, as pip is told of it."""
    newest = "bitsandbytes"
    if facts.origin == "live" and facts.torch.version is None:
        return newest
    rows = table("bitsandbytes")["release"]
    # A loader of before 0.43 stands beside a torch of its time, where nothing tells which; a hosted notebook's is new.
    hosted = facts.platform.service in ("colab", "kaggle")
    old = facts.torch.version is None and facts.error("bnb-legacy-loader") is not None and not hosted
    torch = facts.torch.version or _oldest_torch(facts)
    fitting = [row for row in rows if row["windows"] and _takes(row, facts, torch, old)]
    if not fitting or fitting[-1] is rows[-1]:
        return newest
    return f"bitsandbytes<{fitting[-1]['to'].removesuffix('.0')}"


def _oldest_torch(facts: Facts) -> Optional[str]:
    """The first torch that was built for the CUDA whose library is looked for, where nothing else tells of torch.

    Up to 0.40 it was not torch's CUDA that was looked for, but one found on the disk.
    """
    error = facts.error(*MISSING_LIBRARY)
    cuda = facts.torch.cuda or (_wanted_cuda(error) if facts.error("bnb-legacy-loader") is None else None)
    variant = variant_of(cuda) if cuda else None
    return next((f"{release.name}.0" for release in torch_releases() if variant in release.variants), None)


def _takes(row: dict[str, Any], facts: Facts, torch: Optional[str], old: bool) -> bool:
    """Whether a release asks for no newer torch or Python than is here."""
    return not (
        older(facts.python.version, row["python"]) or older(torch, row["torch"] or "0.0.1") or (old and row["torch"])
    )


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
    unknown = facts.error("unknown-error")
    mixed = unknown is not None and "No module named 'bitsandbytes." in unknown.text
    return [
        Finding(
            "bnb-too-old-for-windows" if windows else "bnb-legacy-loader",
            "error",
            "Files of two builds of bitsandbytes are mixed here, both older than its own support of Windows"
            if mixed and windows
            else "Files of two old releases of bitsandbytes are mixed here"
            if mixed
            else _title_of_old(error, windows),
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
                *leave_checkout(facts),
                *((fixes.uninstall(facts, "bitsandbytes", "bitsandbytes-windows"),) if mixed else ()),
                *(kernels_of_this_gpu(facts) if is_jetson(facts) else (upgrade(facts),)),
                *_newer_cuda(facts),
            ),
            BNB + "issues/741",
            affects=QUANTIZED,
            observed=error is not None,
        )
    ]


def _title_of_old(error: Optional[ErrorFact], windows: bool) -> str:
    if error is not None and "name 'cuda_setup' is not defined" in error.text:
        # 0.37.0's cuda_setup/main.py: only its branch for such cards names what it never imports.
        return "bitsandbytes 0.37 fails by a slip of its own on GPUs below compute capability 7.5: it is too old"
    return "bitsandbytes is too old" + (" for Windows" if windows else ": its loader guesses where CUDA is")


def _newer_cuda(facts: Facts) -> tuple[str, ...]:
    """No release has a library for CUDA 10; whether torch is of it, or only the toolkit beside it, has to be seen."""
    wanted = facts.torch.cuda or _wanted_cuda(facts.error("bnb-library-not-found")) or ""
    if not wanted.startswith("10.") or is_jetson(facts):
        return ()
    look = f'{fixes.python_command(facts)} -c "import torch; print(torch.version.cuda)"'
    return (
        f"{look}   # 10.x? no bitsandbytes has a library for it: a newer torch as well, with",
        *fixes.reinstall_torch(facts, keep_release=False),
    )


def _loaded_and_failed_elsewhere(facts: Facts) -> bool:
    """Whether the old loader found its library for CUDA after all, and the paste is about another error below."""
    loaded = facts.error("bnb-library-loaded")
    if facts.error("bnb-setup-failed", "bnb-missing-dependency", "cudart-missing", *MISSING_LIBRARY):
        return False
    if facts.error(
        "bnb-cublaslt", "bnb-int8-loss", "int8-layers-not-on-gpu", "bnb-named-symbol"
    ):  # which it was loaded for, wherever a paste shows it
        return True
    below = [error for error in facts.errors if loaded is not None and error.line > loaded.line]
    named = any(not error.id.startswith("bnb-") or error.id == "bnb-cublaslt" for error in below)
    return named or (bool(facts.error("unknown-error")) and loaded is not None and not below)


def _is_checkout(facts: Facts) -> bool:
    location = facts.bitsandbytes.location
    return bool(location) and facts.origin != "live" and not re.search(r"-packages|\.egg\b", location or "")


def leave_checkout(facts: Facts) -> tuple[str, ...]:
    """What comes before an upgrade where Python takes a folder of sources in place of what pip installs."""
    location = facts.bitsandbytes.location
    if not _is_checkout(facts):
        return ()
    return (
        f"{fixes.uninstall(facts, 'bitsandbytes')}   # what runs is a checkout, compiled without the library wanted",
        f"Move {location} away, or start the program elsewhere: that folder comes before what pip installs.",
    )


def source_not_compiled(facts: Facts) -> Result:
    """A checkout or source build without any native library; those for ROCm have a rule of their own."""
    if facts.error("bnb-rocm-library-not-found") or is_jetson(facts):
        return PASSED
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
                *(leave_checkout(facts) or (fixes.uninstall(facts, "bitsandbytes"),)),
                fixes.install(facts, fitting_release(facts), options="--no-cache-dir --force-reinstall --no-deps"),
                *overrides_away(facts),
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
        (*leave_checkout(facts), upgrade(facts), *overrides_away(facts)),
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
    wanted = digits(facts.torch.hip if variable == "BNB_ROCM_VERSION" else facts.torch.cuda)
    shipped = shipped_for(facts, "rocm" if variable == "BNB_ROCM_VERSION" else "cuda")
    empty_is_error = value == "" and at_least(facts.bitsandbytes.version, "0.50.0")
    trouble = facts.error(
        *(*MISSING_LIBRARY, "bnb-missing-dependency", "cudart-missing", "bnb-setup-failed", "bnb-override-invalid"),
        "bnb-override-impossible",
    )
    if value == "" and not empty_is_error and trouble is None:
        return PASSED
    guessing = bool(legacy_loader(facts))
    wrong = bool(
        empty_is_error
        or trouble
        or guessing
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
            (
                fixes.unset(facts, variable, f"and remove it from {fixes.where_set(facts)}"),
                *((*leave_checkout(facts), upgrade(facts)) if guessing else ()),
            ),
            BNB + "issues/760",
            affects=QUANTIZED,
            observed=trouble is not None or error is not None or guessing,
        )
    ]


def overrides_away(facts: Facts) -> tuple[str, ...]:
    """What takes a forced library back: the wheels obey the variable too."""
    variable, value = _override_variable(facts, facts.error("bnb-override", "bnb-override-invalid"))
    return (fixes.unset(facts, variable, "else the wheel is told the same"),) if variable and value else ()


def _override_variable(facts: Facts, error: Optional[ErrorFact]) -> tuple[Optional[str], str]:
    for name in ("BNB_CUDA_VERSION", "BNB_ROCM_VERSION"):
        if name in facts.environment:
            return name, facts.environment[name].strip("'\"")
    if error is not None and error.values.get("variable"):
        return error.values["variable"], error.values.get("value", "")
    return None, ""


def digits(version: Optional[str]) -> str:
    """``124`` of 12.4, as the libraries' names have it."""
    numbers = release_of(version)
    return f"{numbers[0]}{numbers[1]}" if numbers else ""


def shipped_for(facts: Facts, kind: str) -> Optional[list[str]]:
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
    wanted = digits(cuda)
    if numbers is None or numbers[0] != 11 or wanted in rows[-1]["cuda"] or "bitsandbytes<" not in upgrade(facts):
        return ()
    shipped = {name for row in rows if row["windows"] and not row["torch"] for name in row["cuda"]}
    if wanted in shipped:
        return ()
    near = min((name for name in shipped if name.startswith("11")), key=lambda name: abs(int(name) - int(wanted)))
    return (fixes.export(facts, "BNB_CUDA_VERSION", near, "the nearest one; all of CUDA 11 load one runtime"),)


def no_library_for_cuda(facts: Facts) -> Result:
    """No shipped library fits torch's CUDA."""
    error = facts.error(*MISSING_LIBRARY)
    lacks = lacks_cuda(facts)
    if error is None and lacks is None:
        return None
    of_rocm = facts.error("bnb-rocm-library-not-found", "bnb-rocm-binary-not-found")
    if facts.bitsandbytes.works or of_rocm or (error is None and not lacks):
        return PASSED
    version, cuda = facts.bitsandbytes.version, facts.torch.cuda or _wanted_cuda(error)
    shipped = shipped_for(facts, "cuda")
    newest = table("bitsandbytes")["newest"]
    numbers = release_of(cuda)
    whole_major = bool(shipped and numbers and not any(item.startswith(str(numbers[0])) for item in shipped))
    fix = [upgrade(facts), *_nearest_library(facts, cuda)]
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


def lacks_cuda(facts: Facts) -> Optional[bool]:
    """Whether the release that is here has no library for torch's CUDA; None when that is not known."""
    numbers = release_of(facts.torch.cuda)
    shipped = shipped_for(facts, "cuda")
    if facts.torch.build != "cuda" or numbers is None or shipped is None or not is_installed(facts):
        return None
    if facts.platform.system == "Darwin":
        return None
    if f"{numbers[0]}{numbers[1]}" in shipped:
        return False
    fallback = at_least(facts.bitsandbytes.version, "0.50.0")
    if fallback is None:
        return None
    return not (fallback and any(item.startswith(str(numbers[0])) for item in shipped))


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


def kernels_of_this_gpu(facts: Facts) -> tuple[str, ...]:
    """How the library is compiled for this GPU."""
    capability = next((gpu.compute_capability for gpu in facts.gpus or () if gpu.compute_capability), None)
    board = is_jetson(facts) or facts.platform.machine == "aarch64"
    wanted = (capability or ("87" if board else "<86 for 8.6>")).replace(".", "", 1 if capability else 0)
    # The last release that takes Python 3.8 and the CUDA 11.4 of JetPack 5; 0.45 wants newer ones.
    old = older(facts.python.version, "3.9") or older(_cuda_to_build_with(facts), "11.8")
    build = (
        f"git clone {'-b 0.44.1 ' if old else ''}"
        "https://github.com/bitsandbytes-foundation/bitsandbytes && cd bitsandbytes && cmake "
        f"-DCOMPUTE_BACKEND=cuda -DCOMPUTE_CAPABILITY={wanted} -S . && make && "
        f"{fixes.python_command(facts)} -m pip install ."
    )
    if board:
        return (build,)
    built = ".egg" in (facts.bitsandbytes.location or "") or bool(leave_checkout(facts))
    away = leave_checkout(facts) or ((fixes.uninstall(facts, "bitsandbytes"),) if built else ())
    return (
        *away,
        f"{upgrade(facts)}   # has code for newer cards; none for some older ones:",
        f"{build}   # the GPU's own number: nvidia-smi --query-gpu=compute_cap --format=csv",
    )


def _cuda_to_build_with(facts: Facts) -> Optional[str]:
    """The CUDA of torch or of the compiler; on a Jetson that of its JetPack, or the one whose library is wanted."""
    known = facts.torch.cuda or facts.toolkit.nvcc
    if known or not is_jetson(facts):
        return known
    wanted = _wanted_cuda(facts.error("bnb-library-not-found"))
    return wanted or {"4": "10.2", "5": "11.4"}.get(jetpack(facts) or "")


RULES: tuple[Rule, ...] = (
    stale_kernel,
    source_not_compiled,
    override,
    legacy_loader,
    no_library_for_cuda,
)
