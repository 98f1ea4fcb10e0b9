"""Rules about wheels of another Python, system or processor than the one that is here. Needs the tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from workbench.doctor import fixes, torch_builds
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.build_tools import other_python
from workbench.doctor.rules.common import ISSUES, PASSED, Result, Rule, evidence, from_message, seen
from workbench.doctor.rules.fetched_wheels import without_nvcc
from workbench.doctor.tables import TorchRelease, table, torch_release, torch_releases
from workbench.doctor.versions import minor_name, normalize, older

_SOURCE = "https://packaging.python.org/en/latest/specifications/platform-compatibility-tags/"
_SYSTEMS = (
    ("win", "Windows"),
    ("linux", "Linux"),
    ("manylinux", "Linux"),
    ("musllinux", "Linux"),
    ("macosx", "Darwin"),
)
_SHOWN = {"Windows": "Windows", "Linux": "Linux", "Darwin": "macOS"}
# name-version(-build)-python-abi-platform.whl
_NAME = re.compile(
    r"(?P<name>[A-Za-z0-9._]+)-[^-]+(?:-\d[^-]*)?-(?P<python>[\w.]+)-(?P<abi>[\w.]+)-(?P<platform>[\w.]+)\.whl"
)


@dataclass(frozen=True)
class _Tags:
    package: str
    python: Optional[str]
    """``3.10``; None where any Python 3 will do."""
    system: Optional[str]
    machine: Optional[str]


def _tags(wheel: str) -> Optional[_Tags]:
    found = _NAME.fullmatch(wheel.replace("%2B", "+"))
    if found is None:
        return None
    python = re.match(r"cp(3)(\d{1,2})\b", found["python"])
    stable = found["abi"].startswith("abi3")
    system = next((name for tag, name in _SYSTEMS if found["platform"].startswith(tag)), None)
    machine = re.search(r"(aarch64|arm64|x86_64|amd64)$", found["platform"])
    return _Tags(
        normalize(found["name"]),
        f"{python[1]}.{python[2]}" if python and not stable else None,
        system,
        machine[1].replace("amd64", "x86_64") if machine else None,
    )


def wheel_for_another(facts: Facts) -> Result:
    """A wheel of another Python, system or processor than that of the pip that was called."""

    def make(error: ErrorFact) -> Finding:
        tags = _tags(error.values.get("wheel", ""))
        return Finding(
            "wheel-for-another-platform",
            "error",
            _title(facts, tags),
            "The name says for which: cp310 is CPython 3.10, win_amd64 Windows, linux_x86_64 Linux; the Python that "
            "pip belongs to decides.",
            {**evidence(python=facts.python.version, system=facts.platform.system), **seen(error)},
            _steps(facts, tags, error.values.get("wheel", "")),
            _SOURCE,
            affects=("chat",),
            observed=True,
        )

    return from_message(facts, ("wheel-for-another-platform",), make)


def _other_system(facts: Facts, tags: _Tags) -> bool:
    return bool(tags.system and facts.platform.system and tags.system != facts.platform.system)


def _other_machine(facts: Facts, tags: _Tags) -> bool:
    here = (facts.platform.machine or "").replace("amd64", "x86_64").lower()
    return bool(
        tags.machine and here and {"aarch64": "arm64"}.get(here, here) != tags.machine.replace("aarch64", "arm64")
    )


def _title(facts: Facts, tags: Optional[_Tags]) -> str:
    here = _SHOWN.get(facts.platform.system or "")
    if tags is not None and tags.system and _other_system(facts, tags):
        return f"This wheel is for {_SHOWN[tags.system]}, and this machine runs {here}"
    if tags is not None and _other_machine(facts, tags):
        return f"This wheel is for {tags.machine}, and this machine is {facts.platform.machine}"
    python = minor_name(facts.python.version)
    if tags is not None and tags.python and python != tags.python:
        there = f"Python {python}" if python else "another Python, or one of 32 bits"
        return f"This wheel is for Python {tags.python}, and the pip that was called belongs to {there}"
    return "This wheel was made for another Python or system"


def _steps(facts: Facts, tags: Optional[_Tags], wheel: str) -> tuple[str, ...]:
    look = (
        'python -c "import sys, platform; print(sys.version, platform.machine())"   # what the wheel\'s name must say'
    )
    row = next((row for row in table("platforms")["package"] if tags and tags.package in row["names"]), None)
    windows = fixes.on_windows(facts) or (tags is not None and tags.system == "Windows")
    named = row.get("windows") if row and windows else None
    instead = (f"{fixes.install(facts, named)}   # has wheels for every Python of today",) if named else ()
    if tags is None or _other_system(facts, tags) or _other_machine(facts, tags):
        return (*instead, *(() if instead else (fixes.install(facts, tags.package),) if tags else ()), look)
    if tags.python is None or minor_name(facts.python.version) == tags.python:
        return (
            *instead,
            look,
            "Take the wheel whose name says the same, and install it with python -m pip of that Python.",
        )
    made = other_python(facts, tags.python, {"target": wheel})
    numbers = tags.python.replace(".", "")
    same = (
        f"or the file of the same release for the Python that is here, with its number in place of cp{numbers}: {look}"
    )
    return (*instead, *(f"or: {step}" if instead and not number else step for number, step in enumerate(made)), same)


def wheel_of_another_torch(facts: Facts) -> Result:
    """A wheel that a paste names was made for another torch, C++ ABI, CUDA or Python than those told beside it."""
    error = facts.error("wheel-of-torch-named")
    torch = facts.torch.version
    if error is None or torch is None:
        return None
    wants = _what_differs(facts, error.values)
    if not wants:
        return PASSED
    name = normalize(error.values["package"])
    return [
        Finding(
            "wheel-for-another-torch",
            "warning",
            f"The wheel of {name} that is named was made for {wants}",
            "Such a wheel fits one release of torch with its C++ ABI, one CUDA major and one Python: all of it stands "
            "in its name. Another one installs, and its import fails with undefined symbols.",
            {**evidence(torch__version=torch, python=facts.python.version), **seen(error)},
            _right_wheel(facts, name, error.values),
            ISSUES + "state-spaces/mamba/issues/804",
            affects=("chat", "architecture", "vram"),
        )
    ]


def _what_differs(facts: Facts, wheel: dict[str, str]) -> str:
    """For what else a wheel was made, in words; ``""`` where it fits as far as is told."""
    torch, python, cuda = facts.torch.version or "", minor_name(facts.python.version), facts.torch.cuda
    abi, made = _abi(torch), f"{wheel['python'][0]}.{wheel['python'][1:]}"
    told = (
        (f"torch {wheel['torch']}", minor_name(torch), wheel["torch"], f"torch {minor_name(torch)}"),
        (f"the C++ ABI {wheel['abi']}", abi, wheel["abi"], f"pip's torch {torch}, which has the ABI {abi}"),
        (f"CUDA {wheel['cuda'][:2]}", (cuda or "")[:2] or None, wheel["cuda"][:2], f"torch's CUDA {cuda}"),
        (f"Python {made}", python, made, f"Python {python}"),
    )
    return "; ".join(f"{theirs}, not for {ours}" for theirs, here, there, ours in told if here and here != there)


def _abi(torch: str) -> Optional[str]:
    """The C++ ABI of a build from PyTorch's index, as wheels name it: the new one came with 2.7 (2.6 has both)."""
    if "+cu" not in torch or minor_name(torch) == "2.6":
        return None
    return "FALSE" if older(torch, "2.6") else "TRUE"


def _right_wheel(facts: Facts, name: str, wheel: dict[str, str]) -> tuple[str, ...]:
    abi, torch = _abi(facts.torch.version or "") or wheel["abi"], minor_name(facts.torch.version) or wheel["torch"]
    python = (minor_name(facts.python.version) or "").replace(".", "") or wheel["python"]
    file = (
        f"{wheel['package']}-{wheel['version']}+cu{wheel['cuda']}torch{torch}cxx11abi{abi}-cp{python}-cp{python}-"
        f"{wheel['platform']}.whl"
    )
    page = _PROJECTS.get(name)
    place = f"{page}/releases/download/v{wheel['version']}/{file}" if page else file
    fetched = without_nvcc(facts, name)
    return (
        fixes.uninstall(facts, name),
        f"{fixes.install(facts, place, options='--no-deps')}   # the same release for this torch",
        *(f"or, where there is no such file: {step}" for step in fetched),
    )


_PROJECTS = {
    "flash-attn": "https://github.com/Dao-AILab/flash-attention",
    "mamba-ssm": "https://github.com/state-spaces/mamba",
    "causal-conv1d": "https://github.com/Dao-AILab/causal-conv1d",
}


def no_wheel_title(facts: Facts) -> str:
    """The title of uv's or Poetry's refusal where it is known what the wheels of this torch are lacking; else empty."""
    release = _torch_before_python(facts)
    if release is None:
        return ""
    where = f" on {_SHOWN[facts.platform.system]}" if facts.platform.system in _SHOWN else ""
    return f"torch {_torch_refused(facts)} has no wheel for Python {minor_name(facts.python.version)}{where}"


def no_wheel_steps(facts: Facts) -> tuple[str, ...]:
    """The first steps of a project of uv or Poetry whose torch has no wheel here."""
    return _on_arm(facts) or _with_older_python(facts)


def _torch_refused(facts: Facts) -> str:
    error = facts.error("no-wheel-for-this-platform", "poetry-finds-no-wheel")
    return error.values.get("version", "") if error and error.values.get("package") == "torch" else ""


def _on_arm(facts: Facts) -> tuple[str, ...]:
    """How a project of uv gets a torch with CUDA for ARM (GB10, GH200): not every index has one."""
    if facts.platform.machine != "aarch64" or "+cu" not in _torch_refused(facts):
        return ()
    return (
        'in pyproject.toml, for the index that torch comes from: url = "https://download.pytorch.org/whl/cu130", and '
        "torch>=2.9 with the torchvision and torchaudio of the same day   # for ARM there are wheels in cu130, and for "
        "torch 2.8 in cu129",
    )


def _torch_before_python(facts: Facts) -> Optional[TorchRelease]:
    """The release of torch that is refused, where it came before this Python, on this system or on any."""
    release = torch_release(_torch_refused(facts).partition("+")[0] or None)
    return release if release and not _fits(facts, release) else None


def _fits(facts: Facts, release: TorchRelease) -> bool:
    elsewhere = facts.platform.system in ("Windows", "Darwin")
    return torch_builds.python_fits(facts.python.version, release, elsewhere) is not False


def _with_older_python(facts: Facts) -> tuple[str, ...]:
    release = _torch_before_python(facts)
    if release is None:
        return ()
    newer = next((item.latest for item in torch_releases() if item.latest != release.latest and _fits(facts, item)), "")
    python, poetry = release.python_all, facts.error("poetry-finds-no-wheel") is not None
    pinned = f"poetry env use {python} && poetry install" if poetry else f"uv python pin {python} && uv sync"
    return (
        f"{pinned}   # the newest Python that torch {release.name} has wheels for on each system; {python} must be "
        "installed, and pyproject.toml allow it",
        *(
            (f"or, with this Python, a newer torch: {'poetry' if poetry else 'uv'} add 'torch>={newer}'",)
            if newer
            else ()
        ),
    )


RULES: tuple[Rule, ...] = (wheel_for_another, wheel_of_another_torch)
