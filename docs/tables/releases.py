"""Releases of packages: which there are, their wheels and metadata as pip fetches them, and what was read of them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Callable, Optional

from workbench.doctor.tables import table
from workbench.doctor.versions import Version, at_least, parse_version
from workbench.paths import write_atomic

PYTHONS = ("3.10", "3.12", "3.8")
"""Pythons that a wheel is looked for in turn: the last patch of an old release may ask for an old one."""
LINUX = ("manylinux2014_x86_64", "manylinux_2_28_x86_64", "manylinux_2_31_x86_64", "manylinux1_x86_64", "linux_x86_64")


def by_version(text: str) -> Version:
    """The key that sorts versions.

    Raises:
        ValueError: it is no version.
    """
    version = parse_version(text)
    if version is None:
        raise ValueError(f"{text!r} is no version")
    return version


def minor_releases(package: str, oldest: str) -> list[str]:
    """All minor releases of a package from `oldest` on, by dates.toml."""
    return [name for name in table("dates")[package] if at_least(name, oldest)]


@dataclass(frozen=True)
class Releases:
    """What was read of releases; kept in the folder `cache`, as KIND/PACKAGE-VERSION.json."""

    cache: Path
    offline: bool = False

    def every(self, kind: str, package: str, oldest: str) -> list[str]:
        """All releases of a package from `oldest` on, patches too; offline those of which something is kept."""
        kept = [path.stem.removeprefix(f"{package}-") for path in (self.cache / kind).glob(f"{package}-[0-9]*.json")]
        return sorted(
            (v for v in (kept if self.offline else _wheels(package)[1]) if at_least(v, oldest)), key=by_version
        )

    def read(
        self, kind: str, package: str, versions: Iterable[str], reader: Callable[[str], Optional[list[str]]]
    ) -> dict[str, list[str]]:
        """What `reader` finds in each version, oldest first; versions that it finds nothing of are left out.

        Raises:
            SystemExit: nothing is known of any of them.
        """
        found = {}
        for version in sorted(versions, key=by_version):
            kept = self.cache / kind / f"{package}-{version}.json"
            if not kept.exists() and not self.offline:
                print(f"{kind} of {package} {version}", file=sys.stderr)
                lines = reader(version)
                if lines is not None:
                    write_atomic(kept, json.dumps(lines, indent=0).encode())
            if kept.exists():
                found[version] = json.loads(kept.read_text("utf-8"))
        if not found:
            raise SystemExit(f"Nothing is known of {package}: {self.cache} has no {kind} of it, and none were fetched.")
        return found


def from_wheel(
    package: str, version: str, reader: Callable[[Path], list[str]], platforms: Iterable[str] = LINUX
) -> Optional[list[str]]:
    """What `reader` finds in the wheel of a release's last patch, or None where there is no wheel."""
    with tempfile.TemporaryDirectory() as folder:
        _pip(["download", "--dest", folder, *_for(platforms)], package, version)
        wheel = next(Path(folder).glob("*.whl"), None)
        return None if wheel is None else reader(wheel)


def from_sdist(package: str, version: str, reader: Callable[[Path], list[str]]) -> Optional[list[str]]:
    """What `reader` finds in the source of a release's last patch, or else in its wheel; nothing of it is run.

    ``pip download`` would run its setup.py; so pip is only asked for the link, and for what stands there.
    """
    from pip._internal.commands import create_command
    from pip._vendor.packaging.specifiers import SpecifierSet

    command = create_command("download")
    options, _ = command.parse_args(["--quiet", "--no-binary=:all:", package])
    with command.main_context(), tempfile.TemporaryDirectory() as folder:
        session = command.get_default_session(options)
        finder = command._build_package_finder(options, session, ignore_requires_python=True)
        wanted = SpecifierSet(f"=={version}.*")
        link = finder.find_best_candidate(package, wanted).best_candidate
        if link is None:
            return from_wheel(package, version, reader)
        archive = session.get(link.link.url_without_fragment)
        archive.raise_for_status()
        with tarfile.open(fileobj=io.BytesIO(archive.content)) as source:
            return reader(_as_wheel(source, Path(folder) / "source.whl"))


def _as_wheel(source: tarfile.TarFile, path: Path) -> Path:
    """The Python files of a source, as they would stand in a wheel."""
    with zipfile.ZipFile(path, "w") as wheel:
        for member in source:
            content = source.extractfile(member) if member.isfile() and member.name.endswith(".py") else None
            if content is not None:
                wheel.writestr(member.name.partition("/")[2], content.read())
    return path


@cache
def _wheels(package: str) -> tuple[Any, dict[str, str]]:
    """pip's session, and where its index has a wheel of each final release that was not withdrawn."""
    from pip._internal.commands import create_command

    command = create_command("download")
    options, _ = command.parse_args(["--quiet", package])
    with command.main_context():
        session = command.get_default_session(options)
        finder = command._build_package_finder(options, session, ignore_requires_python=True)
        found = finder.find_all_candidates(package)
    final = (item for item in found if not item.version.is_prerelease and not item.link.is_yanked)
    return session, {str(item.version): item.link.url_without_fragment for item in final if item.link.is_wheel}


def requirement_lines(package: str, version: str) -> Optional[list[str]]:
    """The ``Requires-Dist`` lines of exactly this release; only that part of its wheel is fetched."""
    from pip._internal.network.lazy_wheel import HTTPRangeRequestUnsupported, dist_from_wheel_url

    session, links = _wheels(package)
    try:
        metadata = dist_from_wheel_url(package, links[version], session).metadata
    except HTTPRangeRequestUnsupported:
        return _requirements_by_report(package, version)
    return [str(line) for line in metadata.get_all("Requires-Dist", [])]


def _requirements_by_report(package: str, version: str) -> Optional[list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        command = ["install", "--dry-run", "--ignore-installed", "--report", "-", "--target", folder, *_for(LINUX)]
        report = _pip(command, package, version)
    if report is None:
        return None
    lines: list[str] = json.loads(report)["install"][0]["metadata"].get("requires_dist", [])
    return lines


def _for(platforms: Iterable[str]) -> list[str]:
    return [option for platform in platforms for option in ("--platform", platform)]


def _pip(command: list[str], package: str, version: str) -> Optional[str]:
    """What pip prints, with the first of the Pythons that has a wheel; None where none has.

    Raises:
        SystemExit: pip cannot reach its index, so that a release would seem not to be there.
    """
    wanted = f"{package}=={version}.*"
    common = ["--quiet", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
    said = ""
    for python in PYTHONS:
        line = [sys.executable, "-m", "pip", *command, *common, "--python-version", python, wanted]
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout
        said = done.stderr.strip()
        if "Retrying (" in said:
            raise SystemExit(f"pip cannot reach its index:\n{said[-1000:]}")
    print(f"no wheel for {wanted}: {said[-300:]}", file=sys.stderr)
    return None
