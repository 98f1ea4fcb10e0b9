"""Rules about a package that pip or uv could not build. Needs the tables."""

from __future__ import annotations

import re
from typing import Any, Callable, Optional

from workbench.doctor import fixes
from workbench.doctor.changes import pip_name
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules import llama_cpp
from workbench.doctor.rules.build_tools import other_python
from workbench.doctor.rules.common import PASSED, Result, Rule, evidence, from_message, seen
from workbench.doctor.rules.fetched_wheels import ready_wheels
from workbench.doctor.rules.guess import guessed_error
from workbench.doctor.rules.toolkits import toolkit_steps
from workbench.doctor.tables import WHEELS, build_of, companion, companion_of, table, variant_of
from workbench.doctor.versions import at_least, local_tag, minor_name, older, release_of

_PIP = "https://pip.pypa.io/en/stable/reference/build-system/"
_BUILD_TOOLS = frozenset(
    ("wheel", "setuptools", "packaging", "ninja", "psutil", "numpy", "cython", "pybind11", "cmake")
)


def build_isolation(facts: Facts) -> Result:
    """A build that imports torch, in pip's empty environment for builds."""

    def make(error: ErrorFact) -> Finding:
        failed = facts.error("build-failed")
        told = failed.values if failed else error.values
        package = told.get("package") or told.get("wanted") or "<package>"
        package = "<package>" if package in ("torch", "pip") else package
        row = build_of(package)
        return Finding(
            "build-isolation-hides-torch",
            "error",
            f"The build of {package} wants torch, and pip hides it"
            if package != "<package>"
            else "A package's build wants torch and pip hides it",
            "pip builds in an empty environment of its own; a package that imports torch in its setup without "
            "declaring it fails there, although torch may well be installed.",
            {**evidence(package=package if row or package != "<package>" else None), **seen(error)},
            (
                *_without_isolation(facts, failed.values if failed else error.values, package),
                *((f"or a ready-made wheel: {wheels}",) if (wheels := ready_wheels(facts, row)) else ()),
            ),
            "https://github.com/Dao-AILab/flash-attention/issues/246",
            affects=("chat",),
            observed=True,
        )

    return (
        _cpu_torch_of_the_build(facts)
        or from_message(facts, ("build-without-torch",), make)
        or _before_the_build(facts, make)
    )


def _cpu_torch_of_the_build(facts: Facts) -> Result:
    """Windows: the torch that pip fetches for a build is a CPU build, and such a one looks for no CUDA.

    CUDA_HOME is None there without torch.version.cuda:
    https://github.com/pytorch/pytorch/blob/main/torch/utils/cpp_extension.py
    """
    error = facts.error("cuda-home")
    if error is None or not facts.error("torch-of-the-build") or not fixes.on_windows(facts):
        return None
    failed = facts.error("build-failed")
    typed = failed.values if failed else {}
    package = typed.get("package") or typed.get("wanted") or ""
    target = typed.get("target") or (package if package not in ("", "torch", "pip") else "-e .")
    again = fixes.install(facts, *target.split(), options="--no-build-isolation")
    return [
        Finding(
            "build-isolation-hides-torch",
            "error",
            "pip builds with a torch of its own, on Windows a CPU build, and that one looks for no CUDA, "
            "whatever CUDA_HOME says",
            "The path in the traceback is pip's environment for builds. It fetches torch from the package index there, "
            "whose Windows wheels are for the CPU, whatever torch and toolkit are installed here.",
            {**evidence(package=package or None), **seen(error)},
            (
                fixes.install(facts, "setuptools", "wheel", "ninja", "packaging"),
                again + "   # in the folder of the project, or with what was typed before; it compiles with nvcc and "
                "Visual C++",
            ),
            _PIP,
            affects=("chat",),
            observed=True,
        )
    ]


def _without_isolation(facts: Facts, typed: dict[str, str], package: str) -> tuple[str, ...]:
    """What the build needs, put into the environment first; then the command as it was typed, without isolation."""
    torch = () if facts.torch.installed else _torch_before(facts)
    first = fixes.install(facts, *torch, "setuptools", "wheel", "ninja", "packaging")
    tool = typed.get("tool", "pip")
    target = typed.get("target") or package
    ready = _for_windows(facts, build_of(package))
    if ready:
        return (*ready, f"or, to compile it: {first}", "then the same command again with --no-build-isolation")
    if fixes.on_windows(facts) and (build_of(package) or {}).get("linux_only"):
        return _in_wsl(package, target)
    if tool == "uv":
        return (
            f"in pyproject.toml, where torch, setuptools and {package} stand among the dependencies: "
            f'[tool.uv] no-build-isolation-package = ["{package}"]',
            f"uv sync --no-install-package {package}",
            "uv sync   # builds it beside the torch that is there now",
        )
    again = fixes.install(facts, *target.split(), options="--no-build-isolation").replace("'<package>'", "<package>")
    if tool == "poetry":
        return (f"poetry run {first}   # poetry itself cannot build without isolation", f"poetry run {again}")
    return (first, again)


def _torch_before(facts: Facts) -> tuple[str, ...]:
    """torch, of the release that what is being installed belongs to where its version tells."""
    known = (companion(name, facts.package(name)) for name in ("vllm", "xformers"))
    exact = next((row[0] for row in known if row and not row[0].startswith(">")), None)
    if exact is None:
        return ("torch",)
    tag = local_tag(facts.package("vllm"))
    index = (f"--extra-index-url={WHEELS}/{tag}",) if tag and tag.startswith("cu") else ()
    return (f"torch=={exact}{f'+{tag}' if index else ''}", *index)


def _in_wsl(package: str, target: str) -> tuple[str, ...]:
    """What builds only on Linux, in the Linux that Windows brings along."""
    return (
        f"wsl --install -d Ubuntu   # {package} is written for Linux: on Windows its build fails even where torch is "
        "found",
        "in it, with the CUDA toolkit for WSL and without a driver: python3 -m venv env && source "
        "env/bin/activate && "
        "pip install torch setuptools wheel ninja packaging",
        f"pip install --no-build-isolation {target}",
    )


def _before_the_build(facts: Facts, make: Callable[[ErrorFact], Finding]) -> Result:
    """Without a reason in the paste: what compiles CUDA code and fails before it compiles has not found torch."""
    error = facts.error("build-failed")
    if error is None or error.values.get("stage") != "requirements":
        return PASSED
    row = build_of(error.values.get("package", ""))
    told = error.values.get("module") or error.values.get("reason")
    return [make(error)] if row and row["needs"] == "cuda" and not told else PASSED


def build_failed(facts: Facts) -> Result:
    """A package that could not be built, with what compiling it takes."""
    error = facts.error("build-failed")
    if error is None:
        return PASSED
    package, version = error.values.get("package", ""), error.values.get("version", "")
    reason, module = error.values.get("reason", ""), error.values.get("module", "")
    blind = facts.error("deepspeed-compares-cuda")
    if blind is not None and fixes.on_windows(facts) and facts.torch.build is None and not facts.torch.cuda:
        return [_torch_without_cuda(facts, blind)]
    if reason == "KeyError: '__version__'":
        return [_version_by_exec(facts, error, package)]
    guessed = None if module else _guessed(facts, error, reason)
    if guessed:
        return guessed
    named = f"{package} {version}".strip() or "a package"
    row = build_of(package)
    return [
        Finding(
            "build-failed",
            "error",
            f"The build of {named} failed: {reason[:120]}" if reason else _title(facts, named, row),
            _why(facts, named, row),
            {**evidence(package=package, version=version, python=facts.python.version, reason=reason), **seen(error)},
            _steps(facts, package or "<package>", row, module),
            str(row["source"]) if row and row.get("source") else _PIP,
            affects=("chat",),
            observed=True,
        )
    ]


def _torch_without_cuda(facts: Facts, error: ErrorFact) -> Finding:
    """DeepSpeed on Windows, where pip's torch has no CUDA that its setup could compare."""
    return Finding(
        "build-failed",
        "error",
        "DeepSpeed's setup compares the CUDA toolkit with torch's CUDA, and this torch most likely has none: on "
        "Windows pip brings the build without it",
        "Its setup asks torch for the CUDA that it was built with; a build for the CPU answers None, and the setup "
        "ends there.",
        {**evidence(torch__version=facts.torch.version, python=facts.python.version), **seen(error)},
        (
            *fixes.reinstall_torch(facts),
            *_for_windows(facts, build_of("deepspeed")),
            "or, without its kernels: $env:DS_BUILD_OPS = '0'; " + fixes.install(facts, "deepspeed"),
        ),
        "https://github.com/deepspeedai/DeepSpeed/blob/v0.7.7/op_builder/builder.py",
        affects=("chat",),
        observed=True,
    )


def _version_by_exec(facts: Facts, error: ErrorFact, package: str) -> Finding:
    """A setup.py that reads its version with exec() and locals(), which are copies from Python 3.13 on."""
    steps = list(other_python(facts, "3.12", error.values))
    newer = fixes.install(facts, package, upgrade=True) + "   # a newer release, whose setup knows Python 3.13"
    if package in table("builds")["sources"]["as_it_is"]:
        steps = [newer, f"or: {steps[0]}", *steps[1:]]
    elif package:
        steps.append(f"or, where there is one: {newer}")
    return Finding(
        "build-failed",
        "error",
        f"The setup of {package or 'a package'} is too old for Python 3.13: it reads its version in a way that ended "
        "there",
        "It runs exec() and then asks locals() for __version__; from Python 3.13 on locals() gives a copy, in which "
        "that does not stand.",
        {**evidence(package=package or None, python=facts.python.version), **seen(error)},
        tuple(steps),
        "https://peps.python.org/pep-0667/",
        affects=("chat",),
        observed=True,
    )


def _guessed(facts: Facts, error: ErrorFact, reason: str) -> Optional[list[Finding]]:
    """What the exception that ended the build tells, where it is one of Python's and about another package."""
    if not re.match(r"[\w.]{1,60}(?:Error|Exception): ", reason):
        return None
    return guessed_error(facts, ErrorFact("unknown-error", reason, error.line, {}))


def ready_wheel(facts: Facts) -> tuple[str, ...]:
    """The newest release as a wheel, where a package that is made as wheels for every Python was to be compiled."""
    failed = facts.error("build-failed")
    package = failed.values.get("package", "") if failed else ""
    row = build_of(package)
    if row is None or row["needs"] == "cuda" or package == "llama-cpp-python":
        return wheel_of(facts)
    # tokenizers has wheels for Python 3.12 from 0.14 on, which transformers 4.34 was the first to take.
    pinned = facts.package("transformers")
    if package == "tokenizers" and at_least(facts.python.version, "3.12") and older(pinned, "4.34"):
        keeps = f"{fixes.new_environment('3.11')}   # to keep transformers {pinned}: Python 3.11 has"
        newest = newest_wheel(facts, package, "")
        return (
            f"{keeps} wheels of the tokenizers that it takes; then the same command there",
            *(f"or: {step}" for step in newest),
        )
    note = "   # a release with a ready wheel for this Python, so that nothing is compiled; else:"
    return newest_wheel(facts, package, note)


def newest_wheel(facts: Facts, package: str, note: str = "   # a release with a wheel") -> tuple[str, ...]:
    """The newest release with a wheel; of tokenizers the one that a transformers asks for.

    Empty for what the index has sources of alone, and the release that builds by itself where there is one.
    """
    sources = table("builds")["sources"]
    other = table("builds")["same_module"].get(package)
    if other:
        return (f"{fixes.install(facts, other)}   # the same module as wheels",)
    if package in sources["as_it_is"]:
        return (fixes.install(facts, package, upgrade=True) + "   # it comes as sources only; its newest builds",)
    if package in sources["only"]:
        return ()
    names = ("transformers", "tokenizers") if package == "tokenizers" else (package,)
    return (fixes.install(facts, *names, options="--only-binary :all:", upgrade=True) + note,)


def wheel_of(facts: Facts) -> tuple[str, ...]:
    """The ready-made wheel of the package whose build failed, where its project has one for the GPU."""
    failed = facts.error("build-failed")
    if failed is None or failed.values.get("package") != "llama-cpp-python":
        return ()
    return llama_cpp.ready_wheel(facts)


def too_new_for(facts: Facts, package: str, version: str) -> str:
    """The newest Python that a release has wheels for, where the one that is here is newer, or takes its sources."""
    last = str(table("wheels")["packages"].get(package, {}).get(minor_name(version) or "", ""))
    here = release_of(facts.python.version)
    return last if last and (here is None or here > (release_of(last) or here)) else ""


def _title(facts: Facts, named: str, row: Optional[dict[str, Any]]) -> str:
    last = too_new_for(facts, *named.split(" ")) if named.count(" ") == 1 and named != "a package" else ""
    if last:
        python = minor_name(facts.python.version)
        here = f"this is {python}" if python else "this one is newer"
        return (
            f"{named} has wheels for Python up to {last}, and {here}: pip took its sources, and compiling them failed"
        )
    if named == "a package" or (row and row["needs"] == "cuda"):
        return f"The build of {named} failed"
    if named.split(" ")[0] in table("builds")["sources"]["only"]:
        return f"{named} comes as sources only, and building it failed"
    python = minor_name(facts.python.version)
    where = f"Python {python}" if python else "this Python"
    return f"pip found no ready wheel of {named} for {where}, and compiling it failed"


def _why(facts: Facts, named: str, row: Optional[dict[str, Any]]) -> str:
    wheels = "its releases come as wheels for the Pythons of their time."
    wants = {
        "cuda": "Compiling it takes nvcc of torch's CUDA version and a C++ compiler that this nvcc knows.",
        "rust": f"Compiling it takes Rust; {wheels}",
        "cmake": f"Compiling it takes CMake and a C++ compiler; {wheels}",
        "c": f"Compiling it takes a C compiler; {wheels}",
    }
    if named.split(" ")[0] in table("builds")["sources"]["only"]:
        needs = " It takes a C compiler and Python's headers." if row else ""
        return f"The index has no wheel of it for today's Pythons: pip builds it where it is installed.{needs}"
    python = minor_name(facts.python.version)
    general = f"pip found no ready wheel of {named} for " + (f"Python {python}" if python else "this Python")
    return f"{general} and system and built it from source. {wants[row['needs']] if row else ''}".strip()


def _steps(facts: Facts, package: str, row: Optional[dict[str, Any]], module: str) -> tuple[str, ...]:
    steps: list[str] = []
    made = row is not None and row["needs"] != "cuda" and package != "llama-cpp-python"
    if module and module.replace("_", "-") in _BUILD_TOOLS:
        # What has wheels by now needs no tool to build it.
        newest = newest_wheel(facts, package) if made else ()
        steps += newest
        steps.append(("or, to build this one: " if newest else "") + fixes.install(facts, module.replace("_", "-")))
        steps.append("Then the same command with --no-build-isolation.")
    elif module:
        steps.append(f"{fixes.install(facts, pip_name(module))}   # then the same command with --no-build-isolation")
    if steps:
        return tuple(steps)
    if row and row["needs"] == "cuda":
        steps += _companion(facts, package)
        steps += _for_windows(facts, row)
        if row.get("last"):
            steps += [f"{fixes.install(facts, package, options='--only-binary :all:')}   # {row['last']}"]
        if wheels := ready_wheels(facts, row):
            steps.append(f"Take a ready-made wheel for this torch, CUDA and Python: {wheels}")
        steps += [
            *_as_alternative(toolkit_steps(facts)),
            fixes.export(facts, "MAX_JOBS", "4", "each compiler takes some gigabytes of memory"),
            fixes.install(facts, package, options="--no-build-isolation"),
        ]
        steps += [f"or: {row['without']}"] if row.get("without") else []
        return tuple(steps)
    steps += _with_a_wheel(facts, package)
    steps += _compiler(facts, row)
    if package in table("builds")["sources"]["only"] and steps[0].startswith("python -m pip install -U pip"):
        # The compiler is what it lacks most often, since no other Python brings a wheel.
        steps = [f"{steps[-1].removeprefix('or, to compile it: ')}   # then the same command again", steps[0]]
    return tuple(steps)


def _for_windows(facts: Facts, row: Optional[dict[str, Any]]) -> tuple[str, ...]:
    """The release that has wheels for Windows, of what is else compiled there in vain."""
    if row is None or not row.get("on_windows") or not fixes.on_windows(facts):
        return ()
    name, _, note = row["on_windows"].partition("   # ")
    return (f"{fixes.install(facts, name, options='--only-binary :all:')}   # {note}",)


def _companion(facts: Facts, package: str) -> list[str]:
    """The release of a package that belongs to the torch that is here, from torch's own index."""
    version = companion_of(package, facts.torch.version) if package in table("companions") else None
    variant = variant_of(facts.torch.cuda) if facts.torch.cuda else None
    if version is None or variant is None:
        return []
    options = f"--no-deps --index-url {WHEELS}/{variant}"
    return [
        fixes.install(facts, f"{package}=={version}", options=options) + "   # the wheel that belongs to this torch"
    ]


def _with_a_wheel(facts: Facts, package: str) -> list[str]:
    """An older Python for what is older than the one that is here; a newer release; a newer pip."""
    if package == "llama-cpp-python":
        return list(wheel_of(facts))  # the package index has its sources only
    failed = facts.error("build-failed")
    typed = failed.values if failed else {}
    numbers = release_of(facts.python.version)
    last = too_new_for(facts, package, typed.get("version", ""))
    newest = list(newest_wheel(facts, package)) if package != "<package>" else []
    held = typed.get("pinned") or older(typed.get("version", ""), facts.package(package) or "0")
    if last and held:
        first, *rest = other_python(facts, last, typed)
        noted = f"{first}: the newest Python that {package} {typed['version']} has wheels for"
        return [noted, *rest, *(f"or, where nothing asks for that release: {step}" for step in newest)]
    if numbers and numbers >= (3, 12):
        earlier = list(other_python(facts, "3.11" if numbers < (3, 13) else "3.12", typed))
        earlier[0] += ", for which this release may have wheels" if "   # " in earlier[0] else ""
        if typed.get("target", "").startswith("-r "):  # the file asks for this very release
            return earlier
        return [*newest, *(f"or: {step}" if newest and not at else step for at, step in enumerate(earlier))]
    old_pip = "python -m pip install -U pip setuptools wheel   # an old pip does not know newer wheels"
    other = fixes.new_environment()
    if numbers and numbers < (3, 8):
        return [f"{other}   # nothing is made for Python {minor_name(facts.python.version)} any more", *newest]
    old = re.match(r"transformers==([\d.]+)$", typed.get("target", ""))
    unsaid = numbers is None and old is not None and older(old[1], "4.16")
    pinned = bool(numbers and numbers > (3, 8)) and typed.get("target", "") not in ("tokenizers", "transformers")
    if package == "tokenizers" and (pinned or unsaid):
        # What a program pins is older than the wheels for this Python; those up to 0.20 are there for 3.8.
        back = other_python(facts, "3.8", {**typed, "package": ""})
        return [*back, *(f"or, where the program takes a newer one: {step}" for step in newest)]
    return [*newest, old_pip, f"or an environment with a Python that has wheels of it: {other}"]


def _as_alternative(steps: tuple[str, ...]) -> tuple[str, ...]:
    return (f"To compile it: {steps[0][0].lower()}{steps[0][1:]}", *steps[1:])


def _compiler(facts: Facts, row: Optional[dict[str, Any]]) -> list[str]:
    needs = row["needs"] if row else "c"
    if needs == "rust":
        return ["or install Rust to compile it: https://rustup.rs"]
    if fixes.on_windows(facts):
        return ["or, to compile it: the Visual Studio Build Tools with the C++ workload"]
    if facts.platform.system == "Darwin":
        return ["or, to compile it: xcode-select --install" + (" && brew install cmake" if needs == "cmake" else "")]
    more = " cmake pkg-config" if needs == "cmake" else ""
    return [
        f"or, to compile it: sudo apt install build-essential python{minor_name(facts.python.version) or '3'}-dev{more}"
    ]


RULES: tuple[Rule, ...] = (build_isolation, build_failed)
