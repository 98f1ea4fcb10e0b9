"""The Python environments of this box and what torch they have, found by the file system alone. Stdlib only.

No interpreter is started, so a hundred environments take well under a second and a broken one cannot hang us.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from workbench.doctor.facts import PythonFacts
from workbench.doctor.installed import bitsandbytes_facts, distributions, packages_of, torch_facts
from workbench.doctor.interpreter import environment_kind
from workbench.doctor.system import read_text
from workbench.doctor.versions import older
from workbench.job import SILENT, Job

MAX_DEPTH = 3
OLDEST_PYTHON = "3.9"
"""The workbench itself runs under no older one."""

VERSION_SECONDS = 5.0
"""Time that an interpreter may take to tell its version."""

_ENV_NAMES = frozenset(("venv", ".venv", "env", ".env", "virtualenv", "envs", ".envs", "venvs", ".virtualenvs"))
_SKIPPED = frozenset(
    ("node_modules", "__pycache__", "site-packages", "proc", "sys", "dev", "snap", "models", "datasets", "checkpoints")
)


@dataclass(frozen=True)
class Environment:
    """One Python environment."""

    python: str
    """Path of its interpreter, as ``--python`` takes it."""
    name: str
    kind: str
    """``venv``, ``uv``, ``poetry``, ``pipx``, ``conda``, ``pyenv`` or ``system``."""
    prefix: str
    python_version: Optional[str]
    torch: Optional[str]
    """Version of torch, None when there is none."""
    torch_build: Optional[str]
    cuda: Optional[str]
    """CUDA that torch was built with."""
    transformers: Optional[str]
    bitsandbytes: Optional[str]
    current: bool
    """Whether this is the interpreter that is asked."""
    broken: str = ""
    """Why it cannot be run, such as a base interpreter that is gone."""
    too_old: bool = False
    """Whether its Python is too old to run the workbench, so that only its files can be examined."""


def find_environments(
    job: Job = SILENT, extra: tuple[str, ...] = (), environ: Optional[Mapping[str, str]] = None
) -> list[Environment]:
    """Every environment in the usual places, the current one first, those with torch before the others.

    Args:
        job: progress and cancellation.
        extra: further directories to look into, such as the project's own.
        environ: the client's environment, which names some of the places; this process's own if None.

    Raises:
        JobCancelled: if the caller asked to stop.
    """
    found: dict[str, Environment] = {}
    for number, prefix in enumerate(_prefixes(extra, os.environ if environ is None else environ)):
        job.check()
        real = os.path.realpath(prefix)
        if real in found:
            continue
        python = interpreter_of(prefix)
        if python is not None:
            job.progress("environments", number, None, "files", str(prefix))
            found[real] = describe(prefix, python)
    return sorted(found.values(), key=lambda item: (not item.current, item.torch is None, item.kind, item.python))


def interpreter_of(prefix: Path) -> Optional[str]:
    """The interpreter in an environment, or None when there is none (a dangling link counts as one)."""
    for name in ("bin/python", "bin/python3", "Scripts/python.exe", "python.exe"):
        path = prefix / name
        if path.exists() or path.is_symlink():
            return str(path)
    versioned = sorted(glob.glob(str(prefix / "bin" / "python3.*")))
    return next((path for path in versioned if re.fullmatch(r"python3\.\d{1,2}", os.path.basename(path))), None)


def describe(prefix: Path, python: str) -> Environment:
    """What the files of one environment tell."""
    folders = package_folders(prefix, python)
    installed = distributions(folders)
    packages = packages_of(installed)
    torch = torch_facts(folders, installed)
    kind = environment_kind(prefix)
    version = _version(prefix, python)
    return Environment(
        python=python,
        name=_name(prefix, kind),
        kind=kind,
        prefix=str(prefix),
        python_version=version,
        torch=torch.version if torch.installed else None,
        torch_build=torch.build,
        cuda=torch.cuda or torch.hip,
        transformers=packages.get("transformers"),
        bitsandbytes=bitsandbytes_facts(folders, installed).version,
        current=os.path.realpath(prefix) == os.path.realpath(sys.prefix),
        broken="" if os.path.exists(python) else f"its base interpreter {os.path.realpath(python)} is gone",
        too_old=bool(older(version, OLDEST_PYTHON)),
    )


def too_old(python: str) -> str:
    """The version of the interpreter at `python` if it is too old to run the workbench, else empty.

    Files tell it as a rule; an interpreter that stands alone is asked.
    """
    version = _version(Path(python).parent.parent, python) or _asked_version(python)
    return version if version and older(version, OLDEST_PYTHON) else ""


def _asked_version(python: str) -> Optional[str]:
    code = "import sys; print('%d.%d.%d' % sys.version_info[:3])"
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = subprocess.run(
            [python, "-S", "-c", code],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=VERSION_SECONDS,
            check=True,
        )
        match = re.fullmatch(r"\d\.\d{1,2}\.\d{1,2}", asked.stdout.decode("ascii", "replace").strip())
        return match[0] if match else None
    return None


def old_interpreter(python: str) -> tuple[Path, Callable[[str], PythonFacts]]:
    """The prefix of an interpreter that cannot be run, and its facts by the version of its pip."""
    prefix = Path(python).parent.parent
    version = _version(prefix, python) or _asked_version(python)

    def facts(pip: str) -> PythonFacts:
        return PythonFacts(version, executable=python, prefix=str(prefix), kind=environment_kind(prefix), pip=pip)

    return prefix, facts


def _name(prefix: Path, kind: str) -> str:
    if kind == "system":
        return "system"
    # ".venv" says nothing; the project that it stands in does.
    return f"{prefix.parent.name}/{prefix.name}" if prefix.name in _ENV_NAMES else prefix.name


def package_folders(prefix: Path, python: str) -> list[str]:
    """Where an environment keeps its packages, found without running it."""
    patterns = ["lib/python[23].*/site-packages", "lib64/python[23].*/site-packages", "Lib/site-packages"]
    folders = [folder for pattern in patterns for folder in sorted(glob.glob(str(prefix / pattern)))]
    config = read_text(str(prefix / "pyvenv.cfg")) or ""
    if str(prefix) in ("/usr", "/usr/local") or re.search(r"^include-system-site-packages\s*=\s*true", config, re.M):
        folders += sorted(
            glob.glob("/usr/local/lib/python[23]*/dist-packages") + glob.glob("/usr/lib/python[23]*/dist-packages")
        )
    version = _version(prefix, python)
    if version and len(folders) > 1:
        minor = "python" + ".".join(version.split(".")[:2])
        own = [folder for folder in folders if f"/{minor}/" in folder or "/python3/" in folder]
        folders = own or folders
    return folders


def _version(prefix: Path, python: str) -> Optional[str]:
    config = read_text(str(prefix / "pyvenv.cfg")) or ""
    match = re.search(r"^version(?:_info)?\s*=\s*(\d\.\d{1,2}(?:\.\d{1,2})?)", config, re.M)
    if match:
        return match[1]
    for record in glob.glob(str(prefix / "conda-meta" / "python-3*.json")):
        match = re.match(r"python-(3\.\d{1,2}\.\d{1,2})", os.path.basename(record))
        if match:
            return match[1]
    match = re.fullmatch(r"(\d\.\d{1,2}\.\d{1,2})", prefix.name) or re.search(
        r"python([23]\.\d{1,2})$", os.path.realpath(python)
    )
    return match[1] if match else None


def _prefixes(extra: tuple[str, ...], environ: Mapping[str, str]) -> Iterator[Path]:
    """Places where environments may be, the likeliest first; what is none is sorted out by the caller."""
    home = Path(environ.get("HOME") or Path.home())
    yield Path(sys.prefix)
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if environ.get(variable):
            yield Path(environ[variable])
    yield from _conda(home, environ)
    for pattern in (
        os.path.join(environ.get("PYENV_ROOT") or str(home / ".pyenv"), "versions", "*"),
        os.path.join(environ.get("WORKON_HOME") or str(home / ".virtualenvs"), "*"),
        os.path.join(environ.get("PIPX_HOME") or str(home / ".local/share/pipx"), "venvs", "*"),
        str(home / ".local/pipx/venvs/*"),
        str(home / ".local/share/uv/tools/*"),
        str(home / ".local/share/uv/python/*"),
        os.path.join(environ.get("POETRY_VIRTUALENVS_PATH") or str(home / ".cache/pypoetry/virtualenvs"), "*"),
        str(home / "Library/Caches/pypoetry/virtualenvs/*"),
        str(home / ".local/share/hatch/env/virtual/*/*/*"),
    ):
        yield from (Path(path) for path in sorted(glob.glob(pattern)))
    for root in dict.fromkeys((os.getcwd(), str(home), "/workspace", "/opt", "/venv", *extra)):
        yield from _walk(Path(root), MAX_DEPTH)
    yield from (Path("/usr/local"), Path("/usr"))


def _conda(home: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    listed = (read_text(str(home / ".conda" / "environments.txt")) or "").splitlines()
    yield from (Path(line.strip()) for line in listed if os.path.isabs(line.strip()))
    names = ("miniconda3", "anaconda3", "miniforge3", "mambaforge", "micromamba", ".conda", ".local/share/mamba")
    roots = [home / name for name in names] + [Path("/opt/conda"), Path("/opt/miniconda3"), Path("/opt/anaconda3")]
    if environ.get("CONDA_EXE"):
        roots.append(Path(environ["CONDA_EXE"]).parent.parent)
    for root in roots:
        if (root / "conda-meta").is_dir():
            yield root
        yield from (Path(path) for path in sorted(glob.glob(str(root / "envs" / "*"))))


def _walk(root: Path, depth: int) -> Iterator[Path]:
    """Directories with a ``pyvenv.cfg`` within `depth` levels, not looking into environments or big data."""
    entries: list[os.DirEntry[str]] = []
    with contextlib.suppress(OSError), os.scandir(root) as scan:
        entries = [entry for entry in scan if _worth(entry)][:400]
    if (root / "pyvenv.cfg").is_file():
        yield root
        return
    if depth:
        for entry in sorted(entries, key=lambda item: item.name):
            yield from _walk(Path(entry.path), depth - 1)


def _worth(entry: os.DirEntry[str]) -> bool:
    if entry.name in _SKIPPED or (entry.name.startswith(".") and entry.name not in _ENV_NAMES):
        return False
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False
