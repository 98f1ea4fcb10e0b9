"""Rules about the installed torch: is there one for this Python and system, does it import, is it the only one."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes, torch_builds
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules import intel_macs, named_builds, pipenv, torch_libraries, web_uis
from workbench.doctor.rules.common import (
    ISSUES,
    PASSED,
    Result,
    Rule,
    evidence,
    how_it_ended,
    is_jetson,
    last_lines,
    model_left_out,
    seen,
)
from workbench.doctor.rules.jetson import onnxruntime_steps
from workbench.doctor.rules.offered import python_of_its_time
from workbench.doctor.tables import (
    WHEELS,
    table,
    torch_release,
    torch_releases,
    variant_of,
)
from workbench.doctor.versions import at_least, local_tag, minor_name, older

EVERYTHING = ("chat", "vram", "architecture")


def torch_missing(facts: Facts) -> Result:
    """There is no torch."""
    absent = facts.torch.installed is False or facts.lacks("torch")
    error = facts.error("no-module-torch") or _no_framework(facts) or model_left_out(facts)
    if error is None and not absent:
        return None if facts.torch.installed is None else PASSED
    if error is None and facts.origin == "report" and facts.errors:
        return PASSED  # something else has failed, and what needs no torch may
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
    known = torch_libraries.lacking(facts, error)
    how = how_it_ended(step.status, step.signal, step.detail) if step else known.what if known else _what_fails(error)
    return [
        Finding(
            "torch-import-broken",
            "error",
            f"import torch fails: {how}",
            known.why
            if known
            else "The files of torch are there, but it does not come up; everything that needs torch fails with it.",
            {
                **evidence(
                    torch__version=facts.torch.version,
                    torch__location=facts.torch.location,
                    exit_code=step.exit_code if step else None,
                    stderr=last_lines(step.stderr) if step else None,
                ),
                **seen(error),
            },
            known.steps if known else _import_fix(facts, error),
            known.source if known else "https://pytorch.org/get-started/locally/",
            affects=EVERYTHING,
            observed=True,
        )
    ]


def _what_fails(error: Optional[ErrorFact]) -> str:
    values = error.values if error else {}
    if values.get("library"):
        return f"{values['library']} is not found"
    if error is not None and _is_of_fbgemm(error):
        return "libomp140.x86_64.dll, which its fbgemm.dll asks for, is most likely missing"
    if values.get("symbol"):
        return f"a library of another version is loaded with it, without {values['symbol'][:60]}"
    return "a DLL cannot be loaded"


def _is_of_fbgemm(error: ErrorFact) -> bool:
    return "fbgemm" in error.text or "fbgemm" in error.values.get("dll", "")


def _import_fix(facts: Facts, error: Optional[ErrorFact]) -> tuple[str, ...]:
    repair = fixes.repair_torch(facts)
    if error is None:
        return repair or fixes.reinstall_torch(facts)
    if error.id == "torch-import-dll" and not at_least(facts.torch.version, "2.4.1") and _is_of_fbgemm(error):
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
    if is_jetson(facts) and not facts.platform.container:
        return (
            "sudo apt update && sudo apt install nvidia-jetpack   # the CUDA, cuDNN and TensorRT of this JetPack",
            "echo /usr/local/cuda/lib64 | sudo tee /etc/ld.so.conf.d/cuda.conf && sudo ldconfig   # where ls "
            "/usr/local/cuda/lib64 shows it already",
            "cat /etc/nv_tegra_release   # else the torch is for another JetPack; NVIDIA makes one for each",
            "In a container: docker run --runtime nvidia …   # without it nothing of the host's CUDA is seen inside",
        )
    if is_jetson(facts):
        return (
            "cat /etc/nv_tegra_release   # on a Jetson CUDA is the host's: the container must be of this L4T release",
            "docker run --runtime nvidia …   # without it nothing of the host's CUDA is seen inside",
            "Outside a container: install the torch that NVIDIA made for this JetPack, and the CUDA of that JetPack.",
        )
    ours = error.id == "torch-library-symbol" and not fixes.on_windows(facts)
    return (
        *(("unset LD_LIBRARY_PATH   # what stands there comes before torch's own libraries",) if ours else ()),
        *(repair or fixes.repair_in_words(facts)),
    )


def mkl_too_new(facts: Facts) -> Result:
    """A symbol that MKL 2024.1 took away from torch builds made before."""
    error = facts.error("torch-library-symbol")
    symbol = error.values.get("symbol") or "" if error else ""
    if error is None or not symbol.startswith("iJIT_"):
        return PASSED
    return [
        Finding(
            "mkl-too-new-for-torch",
            "error",
            "This torch was built for an older MKL than the one installed",
            f"MKL 2024.1 no longer has {symbol}, which conda builds of torch up to 2.4 look for.",
            {**evidence(torch__version=facts.torch.version, mkl=facts.package("mkl")), **seen(error)},
            ("conda install -y 'mkl<2024.1' 'intel-openmp<2024.1'",),
            ISSUES + "pytorch/pytorch/issues/123097",
            affects=EVERYTHING,
            observed=True,
        )
    ]


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
    if intel_macs.python_of_one(facts):
        return PASSED
    unpublished = (
        named_builds.not_for_this_system(facts, error)
        or pipenv.torch_not_in_its_source(facts, error)
        or _unpublished(facts, error)
        or _nightly_gone(facts, error)
        or _not_on_this_index(facts, error)
    )
    if unpublished:
        return [unpublished]
    newest = torch_releases()[-1]
    python = facts.python.version
    fits = any(torch_builds.python_fits(python, release) for release in torch_releases())
    asked = _pinned(error.text)
    return [
        Finding(
            "no-torch-wheel-for-python",
            "error",
            _no_wheel_title(python, asked),
            "pip offers only wheels made for this Python and platform. It finds none (or only old ones) for a "
            "Python that "
            "is too new or too old, a 32-bit one, or a platform without wheels.",
            {**evidence(python=python, bits=facts.python.bits, offered=error.values.get("offered")), **seen(error)},
            web_uis.other_python(facts)
            if asked and web_uis.installs_torch_itself(facts)
            else _asked_release(facts, asked, error)
            if asked and (not fits or _too_new_for(python, asked))
            else (
                f"Use Python {newest.python_min} to 3.14 (64-bit) for torch {newest.name}: {fixes.new_environment()}",
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


def _pinned(text: str) -> Optional[str]:
    """The release that is asked for, as ``==2.1.0``; of ``~=2.1.0``, ``<=2.1.0`` and ``==2.1.*`` the one they name."""
    found = re.search(r"\btorch ?(?:[=~<]=) ?(?P<version>\d{1,2}\.\d[\w.+]{0,25})", text)
    return "==" + found["version"].rstrip(".") if found else None


def _no_wheel_title(python: Optional[str], asked: Optional[str]) -> str:
    if asked:
        return f"torch{asked} has no wheel for " + (f"Python {python}" if python else "this Python")
    return f"pip finds no torch wheel for Python {python}" if python else "pip finds no torch wheel for this Python"


def _activate(facts: Facts) -> str:
    return r".venv\Scripts\activate" if fixes.on_windows(facts) else "source .venv/bin/activate"


def _asked_release(facts: Facts, asked: str, error: ErrorFact) -> tuple[str, ...]:
    """How to get the very release that is asked for, and what is there without it."""
    tag = local_tag(asked) or error.values.get("index", "")
    python = _python_of(asked)
    index = f" --index-url {WHEELS}/{tag}" if re.fullmatch(r"cu\d{2,3}|cpu", tag) else ""
    offered = [word.strip() for word in error.values.get("offered", "").split(",") if at_least(word.strip(), "1.0")]
    return (
        f"An environment with Python {python} (64-bit), for which torch{asked} was made: "
        + fixes.new_environment(python),
        _activate(facts),
        f"uv pip install torch{asked.partition('+')[0]}{index}"
        + ("" if index else "   # then the rest of the program's requirements"),
        *((f"or, where nothing needs that release: torch=={offered[-1]}, which is offered here",) if offered else ()),
    )


def _python_of(asked: str) -> str:
    """The newest Python that a release has wheels for on every system."""
    version = asked.lstrip("=")
    release = torch_release(version)
    return release.python_all if release else torch_builds.last_python(version) or "3.7"


def _too_new_for(python: Optional[str], asked: str) -> bool:
    """Whether the very release that is asked for came before this Python, on this system or on any."""
    release = torch_release(asked.lstrip("="))
    return release is not None and torch_builds.python_fits(python, release, everywhere=True) is False


def _older_python(asked: Optional[str]) -> tuple[str, ...]:
    """The Python for a release that one insists on."""
    if asked is None:
        return ()
    python = _python_of(asked)
    return (f"To keep torch{asked}: an environment with Python {python}: {fixes.new_environment(python)}",)


def _unpublished(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """A release asked for with a CUDA that it was never built with."""
    asked = re.search(r"torch==(\d{1,2}\.\d{1,2}(?:\.\d{1,2})?)\+(cu\d{2,3})\b", error.text)
    release = torch_release(asked[1]) if asked else None
    if asked is None or release is None or asked[2] in release.variants:
        return None
    wheel = torch_builds.choose_wheel(facts)
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


def _not_on_this_index(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """A build for one CUDA, asked of an index that has the release without such names: PyPI, or a mirror of it."""
    asked = re.search(r"torch==(\d{1,2}\.\d{1,2}\.\d)\+(cu\d{2,3}|cpu)\b", error.text)
    offered = error.values.get("offered", "")
    release = torch_release(asked[1]) if asked else None
    there = asked is not None and asked[1] in [word.strip() for word in offered.split(",")]
    fits = release is not None and bool(torch_builds.python_fits(facts.python.version, release))
    if asked is None or "+" in offered or not (there or (offered and fits)):
        return None
    names = [f"torch=={asked[1]}", *(name for name in ("torchvision", "torchaudio") if facts.package(name))]
    own = f"{WHEELS}/{asked[2]}" if at_least(asked[1], "1.13") else table("torch")["old"]["page"]
    names[0] += "" if at_least(asked[1], "1.13") else f"+{asked[2]}"
    option = "--index-url" if at_least(asked[1], "1.13") else "-f"
    return Finding(
        "torch-build-on-another-index",
        "error",
        f"torch {asked[1]} is offered here, but builds named +{asked[2]} are only on PyTorch's own index",
        "PyPI, and a mirror of it, has one build of each release, without such a name; those for a certain CUDA, or "
        "for the CPU, are on download.pytorch.org, which pip has to be told.",
        {**evidence(asked=f"{asked[1]}+{asked[2]}", offered=offered[-120:]), **seen(error)},
        (
            fixes.install(facts, *names, options=f"{option} {own}"),
            f"In a requirements file: --extra-index-url {WHEELS}/{asked[2]} in a line of its own above it",
            f"or the build of PyPI, where the program takes it: torch=={asked[1]} without +{asked[2]}",
        ),
        "https://pytorch.org/get-started/previous-versions/",
        affects=EVERYTHING,
        observed=True,
    )


def _nightly_gone(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """A nightly build of one day, which is not on the index, or no more."""
    asked = re.search(
        r"torch==(?P<release>\d{1,2}\.\d{1,2}\.\d)\.dev(?P<day>\d{8})(?:\+(?P<tag>\w{3,10}))?", error.text
    )
    if asked is None:
        return None
    tag = asked["tag"] or error.values.get("index") or variant_of(facts.torch.asked_cuda or "") or "cu128"
    release = torch_release(asked["release"])
    variant = tag if release and tag in (*release.variants, "cpu") else release.variants[-1] if release else tag
    newest = fixes.install(facts, "torch", "torchvision", options=f"--pre -U --index-url {WHEELS}/nightly/{tag}")
    published = fixes.install(
        facts, f"torch=={asked['release']}", "torchvision", options=f"--index-url {WHEELS}/{variant}"
    )
    return Finding(
        "torch-build-not-published",
        "error",
        f"The nightly torch of {asked['day']} is not on the index",
        "Nightly builds stay there for some weeks only, and a day whose build failed is left out; a program that pins "
        "one can be installed no more until its pin is changed.",
        {**evidence(asked=asked[0], offered=error.values.get("offered", "")[-120:]), **seen(error)},
        (
            *((f"{published}   # {asked['release']} has been released since",) if release else ()),
            f"{'or ' if release else ''}the newest nightly: {newest}",
            "Change the pin in the program's requirements too, and those of torchvision and torchaudio with it.",
        ),
        "https://pytorch.org/get-started/locally/",
        affects=EVERYTHING,
        observed=True,
    )


def _asked_before_all(facts: Facts, package: str, spec: str, offered: str) -> str:
    """A Python for a release older than the first one offered, which tells that this one is too new; else ``""``."""
    asked = re.fullmatch(r"==(\d[\d.]*)(?:\+\w+)?", spec)
    first = re.match(r"\d[\d.]*\d", offered)
    if not (asked and first and older(asked[1], first[0])):
        return ""
    return python_of_its_time(facts, package, asked[1]) or "3.9"


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
    elif package == "onnxruntime-gpu" and is_jetson(facts):
        steps = [*onnxruntime_steps(facts)]
    elif not none:
        steps = [f"Take one of the versions offered: python -m pip index versions {package}"]
    too_new = _asked_before_all(facts, package, spec, offered)
    if too_new:
        steps = [f"{fixes.new_environment(too_new)} && source .venv/bin/activate   # a Python of that time; or:"]
    return [
        Finding(
            "no-matching-distribution",
            "error",
            f"{package}{spec} is older than all that this Python has wheels of: the Python is too new for it"
            if too_new
            else f"pip finds no {package}{spec} for this Python and system",
            "pip offers only releases that fit this Python, system and processor, from the indexes that it was given."
            + ("" if none else " The version asked for is not among them."),
            {**evidence(python=facts.python.version, system=facts.platform.system, offered=offered), **seen(error)},
            (
                *steps,
                f"or a release that is offered: {fixes.install(facts, package)}"
                if too_new
                else f"or make an environment with a Python that the package supports: {fixes.new_environment()}",
            ),
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
    refused = facts.error("pip-no-torch", "no-wheel-for-this-platform", "source-taken", "build-failed")
    cut = facts.error("traceback-cut")
    in_torch = cut is not None and "torch" in cut.values.get("callers", "").split(",")
    if facts.origin == "report" and error is None and refused is None and not in_torch and not facts.lacks("torch"):
        return None  # what fails there may have nothing to do with torch
    return [
        Finding(
            "musl-alpine",
            "error",
            f"Alpine uses musl, and {_made_for_glibc(error)}",
            "All wheels of torch and TensorFlow are made for glibc; pip finds no matching distribution, and a "
            "forced one does not load.",
            {**evidence(os=facts.platform.os, libc=facts.platform.libc), **seen(error or facts.error("pip-no-torch"))},
            ("Use a Debian or Ubuntu image, such as python:3.12-slim, in place of one whose name holds alpine.",),
            ISSUES + "docker-library/python/issues/341",
            affects=EVERYTHING,
            observed=error is not None or facts.error("pip-no-torch") is not None,
        )
    ]


def _made_for_glibc(error: Optional[ErrorFact]) -> str:
    """What was made for glibc: the library that a message names where it is not torch's."""
    path = (error.values.get("path") or error.values.get("cut") or "") if error else ""
    other = path and "/torch/" not in path
    return f"{path.split('/')[-1]} was made for glibc" if other else "torch has no wheels for it"


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


RULES: tuple[Rule, ...] = (
    torch_missing,
    python_bits,
    musl,
    intel_macs.no_wheel,
    no_wheel_for_python,
    no_match,
    mkl_too_new,
    torch_import_broken,
)
