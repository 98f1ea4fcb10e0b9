"""What validate_fixes does to an environment that works: kinds of faults as they occur, drawn at random."""

from __future__ import annotations

import datetime
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.fix_places import Place, resolved
from tests.benchmarks.fix_tasks import Task

OLDEST, NEWEST = datetime.date(2023, 9, 1), datetime.date.today()
BESIDE = (
    *("accelerate", "datasets", "fsspec", "huggingface-hub", "jinja2", "numpy", "packaging", "pandas", "peft"),
    *("pyarrow", "regex", "requests", "safetensors", "scikit-learn", "scipy", "tokenizers", "transformers", "trl"),
    *("typing-extensions", "urllib3"),
)
_IMPORTED_AS = {"scikit-learn": "sklearn"}
_OWN_NAMES = (
    *("accelerate", "datasets", "numpy", "peft", "safetensors", "tokenizers", "tqdm", "transformers"),
    *("code", "copy", "inspect", "logging", "queue", "random", "token", "tokenize", "types", "typing"),
)
_OWN_CODE = 'def main():\n    print("working on it")\n\n\nif __name__ == "__main__":\n    main()\n'


@dataclass(frozen=True)
class Subject:
    """A working environment, and the numbers by which it is broken."""

    place: Place
    task: Task
    pins: list[str]
    day: datetime.date
    draw: random.Random

    def one_of(self, packages: tuple[str, ...]) -> str:
        here = [pin.split("==")[0] for pin in self.pins]
        return self.draw.choice([package for package in packages if package in here])

    def earlier(self, package: str) -> str:
        """A release of a package from 200 to 900 days before."""
        day = str(self.day - datetime.timedelta(self.draw.randrange(200, 900)))
        return next((pin for pin in resolved(self.place, (package,), day) if pin.startswith(f"{package}==")), "")


def moved(subject: Subject) -> str:
    """One package taken to another time, or out; the command as a person would have given it."""
    place, draw, day = subject.place, subject.draw, subject.day
    name = subject.one_of(BESIDE)
    kind = draw.choice(("up", "down", "down", "down", "alone", "out"))
    if kind == "out":
        place.uv("uninstall", name)
        return f"pip uninstall {name}"
    if kind == "down":
        old = subject.earlier(name)
        place.install(old)
        return f"pip install {old}"
    later = str(day + datetime.timedelta(draw.randrange(1, max(2, (NEWEST - day).days))))
    options = ("--no-deps",) if kind == "alone" else ()
    place.install("--upgrade-package", name, *options, name, day=later)
    return f"pip install -U {' '.join((*options, name))}, on {later}"


def absent(subject: Subject) -> str:
    """A part that only the program asks for, not there."""
    name = subject.draw.choice(subject.task.optional)
    subject.place.uv("uninstall", name)
    return f"pip uninstall {name}"


def damaged(subject: Subject) -> str:
    """Files of one package lost, left over, or of another release."""
    name = subject.one_of(BESIDE)
    kind = subject.draw.choice(sorted(_DAMAGES))
    return f"{name}: {_DAMAGES[kind](subject, name) or 'nothing'}"


def _of(subject: Subject, name: str) -> list[Path]:
    """The files of a package that the program loads."""
    told = "\nimport sys\nprint(*(getattr(m, '__file__', None) for m in [*sys.modules.values()]), sep='\\n')\n"
    folder = subject.place.site / _IMPORTED_AS.get(name, name.replace("-", "_"))
    lines = subject.place.run(subject.task.program + told)[1].splitlines()
    return [Path(line) for line in sorted(set(lines)) if line.startswith(f"{folder}/")]


def _metadata(subject: Subject, name: str) -> Path:
    return next(subject.place.site.glob(f"{name.replace('-', '_')}-*.dist-info"))


def _without_module(subject: Subject, name: str) -> str:
    files = [file for file in _of(subject, name) if file.suffix == ".py" and file.name != "__init__.py"]
    return _lost(subject, files)


def _without_library(subject: Subject, name: str) -> str:
    return _lost(subject, [file for file in _of(subject, name) if file.suffix == ".so"])


def _lost(subject: Subject, files: list[Path]) -> str:
    if not files:
        return ""
    file = subject.draw.choice(files)
    file.unlink()
    return f"{file.relative_to(subject.place.site)} is lost"


def _empty_module(subject: Subject, name: str) -> str:
    """A file of length 0, as a full disk or a hard reset leaves it."""
    files = [file for file in _of(subject, name) if file.stat().st_size]
    if not files:
        return ""
    file = subject.draw.choice(files)
    file.write_bytes(b"")
    return f"{file.relative_to(subject.place.site)} is empty"


def _without_metadata(subject: Subject, name: str) -> str:
    folder = _metadata(subject, name)
    shutil.rmtree(folder)
    return f"{folder.name} is lost"


def _metadata_empty(subject: Subject, name: str) -> str:
    (_metadata(subject, name) / "METADATA").unlink()
    return "its METADATA is lost"


def _interrupted(subject: Subject, name: str) -> str:
    """An upgrade that was broken off: pip had set the old release aside, and the new one had not come."""
    site, module = subject.place.site, _IMPORTED_AS.get(name, name.replace("-", "_"))
    folder = _metadata(subject, name)
    folder.rename(site / f"~{folder.name[1:]}")
    if (site / module).is_dir():
        (site / module).rename(site / f"~{module[1:]}")
    return "an upgrade was broken off"


def _another_release(subject: Subject, name: str) -> tuple[str, Path]:
    other, folder = subject.earlier(name), subject.place.folder / "other"
    subject.place.uv("install", "--no-deps", "--target", str(folder), other)
    return other, folder


def _two_releases(subject: Subject, name: str) -> str:
    """Files of an older release over those that are there, its metadata beside the present ones."""
    other, folder = _another_release(subject, name)
    shutil.copytree(folder, subject.place.site, dirs_exist_ok=True)
    shutil.rmtree(folder)
    return f"files of {other} over it"


def _two_metadata(subject: Subject, name: str) -> str:
    other, folder = _another_release(subject, name)
    for metadata in folder.glob("*.dist-info"):
        shutil.copytree(metadata, subject.place.site / metadata.name, dirs_exist_ok=True)
    shutil.rmtree(folder)
    return f"metadata of {other} beside it"


def _library_of_another(subject: Subject, name: str) -> str:
    files = [file for file in _of(subject, name) if file.suffix == ".so"]
    if not files:
        return ""
    other, folder = _another_release(subject, name)
    chosen = subject.draw.choice(files)
    older = folder / chosen.relative_to(subject.place.site)
    if older.is_file():
        shutil.copy(older, chosen)
    shutil.rmtree(folder)
    return f"{chosen.name} is of {other}"


_DAMAGES: dict[str, Callable[[Subject, str], str]] = {
    "empty": _empty_module,
    "interrupted": _interrupted,
    "library": _without_library,
    "library of another": _library_of_another,
    "metadata": _without_metadata,
    "metadata empty": _metadata_empty,
    "module": _without_module,
    "two metadata": _two_metadata,
    "two releases": _two_releases,
}


def hidden(subject: Subject) -> str:
    """Another module of the same name comes first: a file of one's own, or an older copy on PYTHONPATH."""
    place, draw = subject.place, subject.draw
    kind = draw.choice(("file", "folder", "script", "path", "path"))
    name = draw.choice(_OWN_NAMES)
    if kind == "file":
        (place.folder / f"{name}.py").write_text(_OWN_CODE)
        return f"{name}.py of one's own"
    if kind == "folder":
        (place.folder / name).mkdir()
        (place.folder / name / "__init__.py").write_text("")
        return f"{name}/ of one's own"
    if kind == "script":
        place.script = f"{name}.py"
        return f"the program is called {name}.py"
    package = subject.one_of(BESIDE)
    old, folder = (
        subject.earlier(package),
        place.folder / draw.choice(("lib", f".local/lib/{place.site.parent.name}/site-packages")),
    )
    folder.mkdir(parents=True)
    place.uv("install", "--no-deps", "--target", str(folder), old)
    place.environment["PYTHONPATH"] = str(folder)
    return f"{old} on PYTHONPATH, in {re.sub(r'.*/', '', str(folder))}"


FAULTS: dict[str, Callable[[Subject], str]] = {
    "moved": moved,
    "absent": absent,
    "damaged": damaged,
    "hidden": hidden,
}
