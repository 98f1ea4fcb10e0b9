"""The sample models: what sample_models/manifest.toml says. Stdlib only (and a TOML reader on Python < 3.11)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Optional

from workbench import paths, toml
from workbench.errors import WorkbenchError


@dataclass(frozen=True)
class SampleSource:
    """One place a sample can be had from.

    Attributes:
        kind: ``folder`` (ships with the workbench), ``hub`` or ``pypi``.
        path: of a folder, its name inside the samples' directory.
        repo: of a Hub source, its id; `files` are those wanted, or empty for the usual ones.
        package: of a Python package, its name; `version`, wheel `file`, `sha256` and the `member` wanted.
        size_bytes: what is downloaded; approximate if `exact_size` is false.
    """

    kind: str
    path: str = ""
    repo: str = ""
    files: tuple[str, ...] = ()
    package: str = ""
    version: str = ""
    file: str = ""
    sha256: str = ""
    member: str = ""
    size_bytes: Optional[int] = None
    exact_size: bool = False

    @property
    def member_name(self) -> str:
        """File name of the wanted member."""
        return PurePosixPath(self.member).name


@dataclass(frozen=True)
class Sample:
    """A model of the manifest and its sources in the order in which they are tried."""

    name: str
    title: str
    description: str
    parameters: Optional[int]
    license: str
    context_length: Optional[int]
    sources: tuple[SampleSource, ...]


@functools.lru_cache(maxsize=1)
def samples() -> dict[str, Sample]:
    """All samples by lower-case name.

    Raises:
        WorkbenchError: ``broken-installation`` if the manifest is absent or not as expected.
    """
    manifest = paths.data_dir("sample_models") / "manifest.toml"
    try:
        tables = toml.load(manifest)
        return {name.lower(): _sample(name, table) for name, table in tables.items() if isinstance(table, dict)}
    except (OSError, KeyError, TypeError) as error:
        raise WorkbenchError(
            "broken-installation",
            f"The list of sample models, {manifest}, cannot be used: {error}.",
            "Install the workbench again.",
        ) from None


def find(name: str) -> Optional[Sample]:
    """The sample called `name`, in upper or lower case, or None."""
    return samples().get(name.lower())


def shipped_folder(source: SampleSource) -> Path:
    """Where a source of kind ``folder`` lies."""
    return paths.data_dir("sample_models") / source.path


def fetched_folder(name: str) -> Path:
    """Where what was taken out of a package for the sample `name` is kept."""
    return paths.cache_dir() / "models" / name.lower()


def _sample(name: str, table: dict[str, Any]) -> Sample:
    return Sample(
        name=name.lower(),
        title=table["title"],
        description=table.get("description", ""),
        parameters=table.get("parameters"),
        license=table.get("license", ""),
        context_length=table.get("context_length"),
        sources=tuple(_source(source) for source in table["sources"]),
    )


def _source(table: dict[str, Any]) -> SampleSource:
    known = {key: value for key, value in table.items() if key != "approximate_bytes"}
    known["files"] = tuple(table.get("files", ()))
    size = table.get("size_bytes", table.get("approximate_bytes"))
    return SampleSource(**{**known, "size_bytes": size, "exact_size": "size_bytes" in table})
