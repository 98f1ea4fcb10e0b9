"""Rules about what compiles beside torch: the CUDA toolkit, the C compiler, Triton and its assembler."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Callable, Optional

from workbench.doctor import fixes, torch_builds
from workbench.doctor.changes import Change, change_of
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules import llama_cpp, no_cuda_here, torch_of_builds
from workbench.doctor.rules.common import ISSUES, PASSED, Result, Rule, evidence, from_message, seen
from workbench.doctor.rules.fetched_wheels import ready_wheels, without_nvcc
from workbench.doctor.rules.toolkits import fresh_toolkit, not_seen, toolkit_steps
from workbench.doctor.rules.torch_of_builds import major
from workbench.doctor.tables import WHEELS, build_of, torch_release, torch_releases, variant_of
from workbench.doctor.versions import at_least, minor_name, older, release_of


def nvcc_mismatch(facts: Facts) -> Result:
    """An extension is compiled with another CUDA than torch's."""

    def make(error: ErrorFact) -> Finding:
        detected = error.values.get("detected") or error.values.get("installed")
        built = facts.torch.cuda or error.values.get("torch")
        nvcc = detected or facts.toolkit.nvcc
        if nvcc and torch_of_builds.fetched_for_the_build(facts, error):
            return torch_of_builds.another_torch_in_the_build(
                facts, error, nvcc, error.values.get("torch"), _torch_for(facts, nvcc)
            )
        if detected and major(facts.toolkit.nvcc) == major(built) != major(detected):
            return torch_of_builds.home_of_another_toolkit(facts, error, detected, built)
        return Finding(
            "nvcc-torch-cuda-mismatch",
            "error",
            f"nvcc is of CUDA {nvcc}, torch of CUDA {built or 'another version'}"
            if nvcc
            else "nvcc is of another CUDA version than torch",
            "Building an extension needs a toolkit of torch's CUDA major. To run models it is of no matter.",
            {
                **evidence(nvcc=nvcc, torch__cuda=built, CUDA_HOME=facts.toolkit.cuda_home),
                **seen(error),
            },
            (
                *_wheel_for_windows(facts, error),
                *(() if older(built, "11.6") else without_nvcc(facts)),
                *_same_cuda(facts, nvcc, built),
                *_without_kernels(facts, error),
                "or take a prebuilt wheel of the package",
            ),
            ISSUES + "oobabooga/textgen/issues/1440",
            observed=True,
        )

    told = [error for error in facts.errors if error.id == "cuda-mismatch-build"]
    if told:
        return [make(max(told, key=lambda error: sum(map(bool, error.values.values()))))]
    return _failed_with_another_nvcc(facts, make)


def _without_kernels(facts: Facts, error: ErrorFact) -> tuple[str, ...]:
    """DeepSpeed's setup compiles at once where DS_BUILD_OPS says so, which is the default on Windows (its setup.py)."""
    windows = fixes.on_windows(facts)
    if "DeepSpeed" in error.text:
        return () if windows else ("or: export DS_BUILD_OPS=0",)
    if windows and facts.error("deepspeed-compiles-told"):
        return (f"or without its kernels: $env:DS_BUILD_OPS = '0'; {fixes.install(facts, 'deepspeed')}",)
    return ()


def _wheel_for_windows(facts: Facts, error: ErrorFact) -> tuple[str, ...]:
    """Windows: with the toolkit alone nothing is won there, and for flash-attn there are wheels that others made."""
    if not fixes.on_windows(facts) or not re.search(r"flash[-_ ]?att", error.text, re.IGNORECASE):
        return ()
    wheels = ready_wheels(facts, build_of("flash-attn"))
    return (f"Install a ready-made wheel for this torch, CUDA and Python: {wheels}",) if wheels else ()


def _failed_with_another_nvcc(facts: Facts, make: Callable[[ErrorFact], Finding]) -> Result:
    """CUDA code did not compile, and the nvcc that is here is of another major than torch's CUDA."""
    error = facts.error("cuda-object-failed") or _build_cut_short(facts)
    nvcc, built = release_of(facts.toolkit.nvcc), release_of(facts.torch.cuda)
    if error is None or nvcc is None or built is None or nvcc[0] == built[0]:
        return PASSED
    return [make(error)]


def _build_cut_short(facts: Facts) -> Optional[ErrorFact]:
    """A package with CUDA code that pip takes as sources and fails to install, where the paste ends before the why."""
    taken = facts.error("source-taken")
    package = taken.values.get("package", "") if taken else ""
    compiles = package == "deepspeed" or (build_of(package) or {}).get("needs") == "cuda"
    why_told = facts.error("build-failed", "unknown-error", "build-isolation-hides-torch", "cuda-home")
    return taken if compiles and facts.error("install-fails-told") and not why_told else None


def _same_cuda(facts: Facts, nvcc: Optional[str], built: Optional[str]) -> tuple[str, ...]:
    """One CUDA for both: a toolkit that lies here, else a torch for the nvcc that does, which needs no root."""
    toolkit, torch = _other_toolkit(facts, built), _torch_for(facts, nvcc)
    if torch is None or (built and built in (facts.toolkit.installed or ())):
        return (*toolkit, *((f"or: {torch}",) if torch else ()))
    return (torch, *(f"or, to keep this torch: {step}" for step in toolkit[:1]), *toolkit[1:])


def _torch_for(facts: Facts, nvcc: Optional[str]) -> Optional[str]:
    """The torch that this nvcc can compile for, of the release that is here where that has such a build."""
    numbers, here = release_of(nvcc), torch_release(facts.torch.version)
    if numbers is None:
        return None
    known = torch_releases()
    # The nearest newer one asks least of the program; where none is told, the newest.
    nearest = known[known.index(here) :] + known[: known.index(here)][::-1] if here else known[::-1]
    for release in nearest:
        builds = [name for name in release.variants if name.startswith(f"cu{numbers[0]}")]
        if not builds or torch_builds.python_fits(facts.python.version, release) is False:
            continue
        fitting = [name for name in builds if name <= (variant_of(nvcc) or "")]
        options = f"--force-reinstall --index-url {WHEELS}/{(fitting or builds[:1])[-1]}"
        wanted = "torch" if here is None else f"torch=={release.latest}"
        note = f"a build for CUDA {numbers[0]}, as nvcc is; the minor number need not be the same"
        return f"{fixes.install(facts, wanted, 'torchvision', 'torchaudio', options=options)}   # {note}"
    return None


def _other_toolkit(facts: Facts, cuda: Optional[str]) -> tuple[str, ...]:
    if cuda is None and not fixes.on_windows(facts):
        return fresh_toolkit(facts)
    if cuda is None:
        return ("Install the toolkit of the CUDA that torch.version.cuda names, and point CUDA_HOME at it.",)
    if fixes.on_windows(facts):
        path = rf"C:\Program Files\NVIDIA GPU Computing Toolkit\CUDA\v{cuda}"
        return (fixes.export(facts, "CUDA_HOME", path, "a toolkit of torch's version, once it is installed"),)
    command = fixes.export(facts, "CUDA_HOME", f"/usr/local/cuda-{cuda}", "a toolkit of torch's version")
    if cuda in (facts.toolkit.installed or ()) or facts.platform.service in ("colab", "kaggle"):
        return (command,)
    install, *rest = fresh_toolkit(replace(facts, torch=replace(facts.torch, cuda=cuda)))
    if facts.python.kind == "conda":
        return (install, *rest)
    return (f"{command}; where ls /usr/local shows none:", install, *rest)


def cuda_home_unset(facts: Facts) -> Result:
    """Something wants to compile and finds no toolkit."""
    if facts.platform.system == "Darwin":
        return from_message(facts, ("cuda-home",), lambda error: no_cuda_here.on_a_mac(facts, error))
    if facts.torch.build == "rocm":
        return from_message(facts, ("cuda-home",), lambda error: no_cuda_here.beside_rocm(facts, error))
    return from_message(
        facts,
        ("cuda-home",),
        lambda error: Finding(
            "cuda-home-unset",
            "error",
            f"A package wants to compile CUDA code, and {not_seen(facts)}",
            "torch's wheels bring the CUDA runtime, not the compiler.",
            {**evidence(nvcc=facts.toolkit.nvcc), **seen(error)},
            llama_cpp.without_toolkit(facts, error) or _compiling_or_not(facts),
            ISSUES + "facebookresearch/votenet/issues/2",
            observed=True,
        ),
    )


def toolkit_too_old(facts: Facts) -> Result:
    """A package's setup refuses the nvcc that it finds."""

    def make(error: ErrorFact) -> Finding:
        needed, nvcc = error.values.get("needed", "a newer one"), facts.toolkit.nvcc
        named = "flash-attn" if "flashatt" in error.text.lower() else ""
        if error.values.get("needed") and at_least(nvcc, needed):
            return torch_of_builds.older_toolkit_taken(facts, error, needed)
        found = f" ({nvcc})" if nvcc else ""
        return Finding(
            "toolkit-too-old-for-package",
            "error",
            f"nvcc here{found} is older than {named or 'the package'} takes: CUDA {needed} or newer",
            "nvcc on PATH or at CUDA_HOME is read, not the CUDA of the driver or of torch: Ubuntu's own package "
            "nvidia-cuda-toolkit is years old.",
            {
                **evidence(nvcc=nvcc, torch__version=facts.torch.version, CUDA_HOME=facts.toolkit.cuda_home),
                **seen(error),
            },
            (
                *without_nvcc(facts, named),
                *toolkit_steps(facts),
                "then nvcc --version must show it: export PATH=$CUDA_HOME/bin:$PATH",
            ),
            ISSUES + "Dao-AILab/flash-attention/issues/1140",
            affects=("chat",),
            observed=True,
        )

    return from_message(facts, ("toolkit-too-old-for-package",), make)


def _compiling_or_not(facts: Facts) -> tuple[str, ...]:
    without, toolkit = _without_compiling(facts), toolkit_steps(facts)
    if fixes.on_windows(facts) and without[0].startswith("or a ready-made"):
        # There a toolkit alone does not do: Visual C++ of the right year, and an hour of compiling.
        return (without[0].removeprefix("or ").replace("a ready", "Install a ready", 1), *toolkit)
    return (*without_nvcc(facts), *toolkit, *without)


def _without_compiling(facts: Facts) -> tuple[str, ...]:
    failed = facts.error("build-failed")
    package = failed.values.get("package", "") if failed else ""
    row = build_of(package)
    wheels = ready_wheels(facts, row)
    if wheels:
        return (f"or a ready-made wheel for this torch, CUDA and Python: {wheels}",)
    if package == "deepspeed" or facts.package("deepspeed"):
        return (f"or, where none of its own kernels is used: DS_BUILD_OPS=0 {fixes.install(facts, 'deepspeed')}",)
    return ("or take a prebuilt wheel of the package",)


def triton_cannot_link(facts: Facts) -> Result:
    """Triton finds no libcuda.so to link with."""

    def make(error: ErrorFact) -> Finding:
        wsl = facts.platform.wsl
        return Finding(
            "triton-cannot-link-libcuda",
            "error",
            "The linker finds no libcuda.so",
            "Only libcuda.so.1 is on the system, or none, without a driver; the linker wants libcuda.so in a directory "
            "that it searches. Triton, llama.cpp and other CUDA programs link with it.",
            {**evidence(libcuda=facts.driver.libcuda), **seen(error)},
            ("export TRITON_LIBCUDA_PATH=/usr/lib/wsl/lib",)
            if wsl
            else (
                "sudo ln -s $(ldconfig -p | awk '/libcuda.so.1/{print $NF; exit}') /usr/local/lib/libcuda.so && "
                "sudo ldconfig",
                "or, where there is no driver, as in a build of an image: export "
                "LIBRARY_PATH=/usr/local/cuda/lib64/stubs:$LIBRARY_PATH",
            ),
            ISSUES + "state-spaces/mamba/issues/123",
            affects=("chat",),
            observed=True,
        )

    return from_message(facts, ("no-lcuda",), make)


def triton_missing(facts: Facts) -> Result:
    """triton is missing or not the one that torch pins."""
    error = facts.error("no-triton", "libtriton")
    release, found = torch_release(facts.torch.version), facts.package("triton")
    pinned = release.triton if release else None
    differs = bool(
        facts.torch.build == "cuda"
        and found
        and pinned
        and torch_builds.is_published(facts.torch.version)  # a nightly one pins a triton of its own day
        and facts.platform.system in (None, "Linux")
        and minor_name(found) != minor_name(pinned)
    )
    if error is None and (found is None or pinned is None):
        return None
    if error is None and not differs:
        return PASSED
    windows = fixes.on_windows(facts)
    optional = facts.error("triton-optional") is not None and error is not None and not error.values
    return [
        Finding(
            "triton-missing-or-wrong",
            "error" if error and not optional else "warning",
            "triton is missing, and the program runs without it: the line is a notice"
            if optional
            else _triton_title(facts, error, differs),
            "torch.compile and many quantized kernels need the very triton that this torch was built for."
            + (" There is no official one for Windows." if windows else ""),
            {**evidence(triton=found, torch__version=facts.torch.version, pinned=pinned), **seen(error)},
            _triton_fix(facts, error, pinned),
            ISSUES + "pytorch/pytorch/issues/120233",
            affects=("chat",),
            observed=error is not None,
        )
    ]


def _triton_fix(facts: Facts, error: Optional[ErrorFact], pinned: Optional[str]) -> tuple[str, ...]:
    caller = (
        (error.values.get("importer") or "").replace("_", "-")
        if error and set(error.values) & {"module", "name"}
        else ""
    )
    if caller and caller not in ("torch", "triton"):
        bring = fixes.install(facts, caller, upgrade=True)
        if error is not None and error.values.get("checkout"):
            return (f"git pull   # in the checkout of {caller}, which is what runs", f"or, outside of it: {bring}")
        return (bring,)
    gone = _gone(facts, error)
    if gone is not None and (fixes.on_windows(facts) or facts.error("visual-studio-told")):
        return _caller_and_triton_on_windows(facts, gone)
    if fixes.on_windows(facts) or (error is not None and error.id == "libtriton"):
        wanted = f"triton-windows=={minor_name(pinned)}.*" if pinned else "triton-windows"
        bring = fixes.install(facts, wanted, upgrade=True)
        runtime = (
            "winget install -e --id Microsoft.VCRedist.2015+.x64   # or https://aka.ms/vs/17/release/vc_redist.x64.exe",
            "Delete vcruntime140.dll and msvcp140.dll beside python.exe where older ones lie there: they come first.",
        )
        # A libtriton that is there and does not start is newer than the C++ runtime that it finds
        # (https://github.com/woct0rdho/triton-windows/issues/38); a newer triton would want a newer torch as well.
        there = error is not None and error.id == "libtriton"
        return (*runtime, f"or, if it stays: {bring}") if there else (bring, *runtime)
    if pinned:
        return (fixes.install(facts, f"triton=={pinned}"),)
    too_old = _came_later(facts, error)
    if too_old is not None:
        return (
            fixes.install(facts, f"triton>={too_old.version}", upgrade=True) + "   # with a torch that was released",
            "with a nightly torch, both anew from its own index: "
            + fixes.install(
                facts,
                "torch",
                "pytorch-triton",
                options="--pre -U --index-url https://download.pytorch.org/whl/nightly/cu128",
            ),
        )
    listed = f"{fixes.python_command(facts)} -c \"import importlib.metadata as m; print(m.requires('torch'))\""
    if gone is not None:
        return (fixes.install(facts, f"triton<{gone.version}"), f"{listed}   # which triton this torch was made for")
    names = "next((r.split(';')[0] for r in m.requires('torch') if r.startswith('triton')), 'triton')"
    asked = f'$({fixes.python_command(facts)} -c "import importlib.metadata as m; print({names})")'
    other = () if facts.platform.system else ("on Windows: " + fixes.install(facts, "triton-windows", upgrade=True),)
    return (
        f'{fixes.python_command(facts)} -m pip install "{asked}"   # the triton that this torch itself asks for',
        *other,
        "Restart the notebook kernel or the program.",
    )


def _caller_and_triton_on_windows(facts: Facts, gone: Change) -> tuple[str, ...]:
    """The triton-windows before the change; the index has none before 3.2, so that torch has to follow there.

    https://pypi.org/project/triton-windows/#history
    """
    newer = (
        fixes.fresh_torch(facts, "torchvision", "torchaudio", upgrade=True),
        fixes.uninstall(facts, "triton"),
        fixes.install(facts, "triton-windows", upgrade=True),
    )
    if gone.version and not older(gone.version, "3.3"):
        before = fixes.install(facts, f"triton-windows<{gone.version}")
        return (before, *(f"or a newer torch with its own: {step}" for step in newer[:1]), *newer[2:])
    return (
        *newer,
        'or, without torch.compile, leave the torch: $env:TORCHDYNAMO_DISABLE = "1"',
    )


def _triton_title(facts: Facts, error: Optional[ErrorFact], differs: bool) -> str:
    found = facts.package("triton")
    if error is not None and error.id == "libtriton":
        return "triton's library does not load"
    if differs:
        return f"triton {found} is not the one that torch {facts.torch.version} pins"
    values = error.values if error else {}
    module = values.get("module") or values.get("name") or values.get("attribute")
    too_old = _came_later(facts, error)
    if too_old is not None:
        return f"triton {found} is too old for this torch: {module} came with triton {too_old.version}"
    gone = _gone(facts, error)
    if gone is not None:
        return f"The caller is too old for this triton: {module} is gone since triton {gone.version}"
    return f"This triton has no {module}: the caller was written for another one" if module else "triton is missing"


def _gone(facts: Facts, error: Optional[ErrorFact]) -> Optional[Change]:
    """What the table says of the name that is asked for by its path, where a release took it away."""
    found = _FROM_TRITON.search(error.text) if error else None
    path = ".".join(filter(None, (found["module"], found["name"]) if found else ()))
    if not path and error is not None and "No module named" in error.text:
        path = error.values.get("module", "")
    change = change_of("triton", path, _triton(facts)) if path else None
    if change is None or change.added or not change.version:
        return None
    # That of a torch which is told still has it: then the one that is here is too old.
    release = torch_release(facts.torch.version) if _triton(facts) is None else None
    return None if release is not None and older(release.triton, change.version) else change


_FROM_TRITON = re.compile(r"cannot import name '(?P<name>\w{1,80})' from 'triton\.?(?P<module>[\w.]{0,80})'")


def _came_later(facts: Facts, error: Optional[ErrorFact]) -> Optional[Change]:
    """What the table says of the missing name, where a release after the installed one brought it."""
    values = error.values if error else {}
    name = values.get("module") or values.get("name") or values.get("attribute")
    change = change_of("triton", name, _triton(facts)) if name and _triton(facts) else None
    return change if change is not None and change.added and older(_triton(facts), change.version) else None


def ptxas_too_old(facts: Facts) -> Result:
    """The assembler that Triton calls does not know the GPU or the PTX that Triton writes."""

    def make(error: ErrorFact) -> Finding:
        target, wanted = error.values.get("target"), error.values.get("wanted")
        ptxas = error.values.get("ptxas")
        own = bool(ptxas and "triton" in ptxas) or bool(target)
        return Finding(
            "triton-ptxas-too-old",
            "error",
            f"Triton's ptxas does not know this GPU ({target})" if target else "The ptxas that Triton calls is too old",
            (
                "Triton brings an assembler of its own; a GPU that came later needs the one of a newer CUDA toolkit."
                if own
                else f"Triton writes PTX {wanted or 'of a newer version'}, and the assembler on this box reads up to "
                f"{error.values.get('known') or 'an older one'}: it comes from an older CUDA toolkit."
            ),
            {**evidence(triton=_triton(facts), torch__version=facts.torch.version, ptxas=ptxas), **seen(error)},
            _ptxas_fix(facts, own),
            ISSUES + "triton-lang/triton/issues/8539",
            affects=("chat",),
            observed=True,
        )

    return from_message(facts, ("ptxas-too-old",), make)


def _triton(facts: Facts) -> Optional[str]:
    return facts.package("triton") or facts.package("pytorch-triton") or facts.package("triton-windows")


def _ptxas_fix(facts: Facts, own: bool) -> tuple[str, ...]:
    if fixes.on_windows(facts):
        path = r"C:\Program Files\NVIDIA GPU Computing Toolkit\CUDA\v13.0\bin\ptxas.exe"
        return ("Install a newer CUDA toolkit.", fixes.export(facts, "TRITON_PTXAS_PATH", path, "where that one is"))
    if own:
        note = "of a toolkit that knows the GPU: CUDA 12.8 for sm_120, 13.0 for sm_110 and sm_121"
        return (fixes.export(facts, "TRITON_PTXAS_PATH", "/usr/local/cuda/bin/ptxas", note),)
    return (fixes.unset(facts, "TRITON_PTXAS_PATH", "Triton then takes its own"), "or install a newer CUDA toolkit")


def ptx_too_new(facts: Facts) -> Result:
    """Code left as PTX by a toolkit that is newer than the driver."""
    return from_message(
        facts,
        ("ptx-toolchain",),
        lambda error: Finding(
            "ptx-newer-than-driver",
            "error",
            "A kernel was compiled with a newer CUDA than the driver knows",
            "PTX is translated by the driver, and it reads only what toolkits up to its own CUDA version wrote; "
            "finished code for the GPU would run.",
            {
                **evidence(
                    driver=facts.driver.version,
                    driver__cuda=facts.driver.cuda,
                    nvcc=facts.toolkit.nvcc,
                    torch__cuda=facts.torch.cuda,
                ),
                **seen(error),
            },
            (
                "Update the NVIDIA driver to one for the CUDA that the package was compiled with.",
                "or compile the package with a toolkit no newer than "
                + (f"CUDA {facts.driver.cuda}" if facts.driver.cuda else "the CUDA version that nvidia-smi prints"),
            ),
            "https://docs.nvidia.com/deploy/cuda-compatibility/",
            observed=True,
        ),
    )


RULES: tuple[Rule, ...] = (
    nvcc_mismatch,
    cuda_home_unset,
    toolkit_too_old,
    triton_cannot_link,
    triton_missing,
    ptxas_too_old,
    ptx_too_new,
)
