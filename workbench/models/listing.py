"""Every model this box has or knows of. Stdlib only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from workbench.errors import WorkbenchError
from workbench.job import SILENT, Job
from workbench.models import catalogue, hub_cache, samples, weights
from workbench.models.resolve import resolve


@dataclass(frozen=True)
class ModelListing:
    """One line of the model list.

    Attributes:
        name: what `resolve` takes.
        kind: ``sample``, ``hub``, ``directory`` or ``catalogue``.
        present: whether weights are on this box.
        fetchable: whether absent weights can be fetched.
        size_bytes: on disk if present, else what fetching takes; None if unknown.
        formats: weight formats present.
        path: where it lies, if present.
        problem: why what is present cannot be used, one line; usually empty.
    """

    name: str
    kind: str
    title: str
    present: bool
    fetchable: bool
    size_bytes: Optional[int]
    formats: tuple[str, ...]
    parameters: Optional[int] = None
    path: Optional[str] = None
    problem: str = ""


MAX_IN_DIRECTORY = 500
"""Models listed of one directory of models; a folder with more is a mistake or a search for `resolve`."""


def list_models(job: Job = SILENT, directories: Sequence[str] = ()) -> list[ModelListing]:
    """Samples first, then the Hub cache, the models in `directories`, then the catalogue's entries not here.

    A directory may be a model's own or hold models: sub-directories with a ``config.json``, and ``.gguf`` files.
    """
    listed = [_sample(sample) for sample in samples.samples().values()]
    job.check()
    cached = [_cached(repository) for repository in hub_cache.repositories()]
    job.check()
    here = {item.name.lower() for item in cached if item.present}
    planned = [
        _catalogue(entry)
        for entry in sorted(catalogue.entries().values(), key=lambda entry: entry.name)
        if (entry.hub_id or "").lower() not in here
    ]
    found = [_local(path) for directory in directories for path in _models_in(Path(directory).expanduser())]
    return listed + cached + found + planned


def _models_in(directory: Path) -> list[Path]:
    if not directory.is_dir() or (directory / "config.json").is_file():
        return [directory]
    try:
        inside = sorted(directory.iterdir())
    except OSError:
        return [directory]
    models = [path for path in inside if path.suffix == ".gguf" or (path / "config.json").is_file()]
    return models[:MAX_IN_DIRECTORY]


def _local(path: Path) -> ModelListing:
    name = str(path)
    try:
        found = resolve(name)
    except WorkbenchError as error:
        return ModelListing(name, "directory", path.name, False, False, None, (), None, None, error.message)
    return ModelListing(
        name=name,
        kind="directory",
        title=path.name,
        present=found.has_weights,
        fetchable=False,
        size_bytes=found.size_bytes,
        formats=found.formats,
        parameters=found.parameters,
        path=found.path,
    )


def _sample(sample: samples.Sample) -> ModelListing:
    try:
        found = resolve(sample.name)
    except WorkbenchError as error:
        return ModelListing(
            sample.name, "sample", sample.title, False, True, None, (), sample.parameters, None, error.message
        )
    return ModelListing(
        name=sample.name,
        kind="sample",
        title=sample.title,
        present=found.has_weights,
        fetchable=found.fetchable,
        size_bytes=found.size_bytes,
        formats=found.formats,
        parameters=sample.parameters,
        path=found.path,
    )


def _cached(repository: hub_cache.CachedRepository) -> ModelListing:
    snapshot = Path(repository.snapshot)
    found = weights.find_weights(snapshot)
    problem = ""
    try:
        if not (snapshot / "config.json").is_file() and found.formats != (weights.GGUF,):
            problem = "It has no config.json: not a model that can be loaded."
        elif weights.missing_shards(snapshot):
            problem = "Downloaded in part: fetch it again."
    except WorkbenchError as error:
        problem = error.message
    entry = catalogue.find(repository.hub_id)
    present = bool(found.formats) and not problem
    return ModelListing(
        name=repository.hub_id,
        kind="hub",
        title=repository.hub_id,
        present=present,
        fetchable=not present,
        size_bytes=repository.size_bytes,
        formats=found.formats,
        parameters=entry.parameters if entry else None,
        path=repository.snapshot,
        problem=problem,
    )


def _catalogue(entry: catalogue.CatalogueEntry) -> ModelListing:
    return ModelListing(
        name=entry.name,
        kind="catalogue",
        title=entry.hub_id or entry.name,
        present=False,
        fetchable=entry.hub_id is not None,
        size_bytes=None,
        formats=(),
        parameters=entry.parameters,
    )
