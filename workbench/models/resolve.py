"""From what a user names to a model on this box, in the catalogue or at a place it can be fetched from. Stdlib only."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from workbench.errors import WorkbenchError
from workbench.job import SILENT, Job
from workbench.models import catalogue, gguf, hub_cache, samples, weights
from workbench.models.gguf_config import config_from_gguf
from workbench.models.reference import KINDS_OF_NAMES, as_path, is_bare_name, is_hub_id, nearest
from workbench.text import one_line

MAX_CONFIG_BYTES = 16 * 2**20


@dataclass(frozen=True)
class ResolvedModel:
    """A model as every bench sees it.

    Attributes:
        name: what to show and to name it by again.
        kind: ``directory``, ``gguf``, ``hub``, ``catalogue`` or ``sample``.
        path: directory or .gguf file on this box; None if nothing of it is here.
        config: the model's config.json (parsed), or what its GGUF header or the catalogue says; None if unknown.
        config_source: where `config` comes from, one line.
        fetchable: whether `fetch` can bring weights that are not here yet.
        size_bytes: weights on disk, or else what fetching takes where that is known.
        formats: of ``safetensors``, ``pickle``, ``gguf``, those present; empty without weights.
        hub_id: repository on the Hub, if there is one.
        parameters: exact count where manifest or catalogue gives one.
        note: what to know before loading it, one line; may be empty.
    """

    name: str
    kind: str
    path: Optional[str]
    config: Optional[dict[str, Any]]
    config_source: str
    fetchable: bool
    size_bytes: Optional[int]
    formats: tuple[str, ...]
    hub_id: Optional[str] = None
    parameters: Optional[int] = None
    note: str = ""

    @property
    def has_weights(self) -> bool:
        """Whether weights are on this box."""
        return self.path is not None and bool(self.formats)


def resolve(name: str, job: Job = SILENT) -> ResolvedModel:
    """Find the model that `name` stands for, without touching the network or loading weights.

    Order: an existing path or anything that looks like one; a sample; a Hub id or catalogue name whose weights are in
    the Hub cache; a catalogue name; a Hub id. Samples and catalogue names may be typed in any case.

    Raises:
        WorkbenchError: ``unknown-model`` naming the nearest known names; ``no-model`` for a path without a model;
            ``bad-config``, ``corrupt-file``, ``missing-file`` or ``unreadable`` for one that cannot be used.
    """
    job.check()
    name = name.strip()
    if not name:
        raise _unknown(name)
    path = as_path(name)
    known = samples.find(name) or catalogue.find(name) if is_bare_name(name) else None
    if path is not None and (known is None or _looks_like_model(path)):
        return resolve_path(path)
    sample = samples.find(name)
    if sample is not None:
        return _resolve_sample(sample)
    if is_hub_id(name) or is_bare_name(name):
        found = _resolve_hub_or_catalogue(name)
        if found is not None:
            return found
    raise _unknown(name)


def resolve_path(path: Path) -> ResolvedModel:
    """The model at `path`: a directory, a GGUF file, or a file inside a model's directory. Raises as `resolve`."""
    weights.check_readable(path)
    if not path.exists():
        raise WorkbenchError(
            "unknown-model", f"{one_line(str(path))} does not exist.", "Check the path. " + KINDS_OF_NAMES
        )
    if path.is_dir():
        return _resolve_directory(path)
    if not path.is_file():
        raise _no_model(path, "is a pipe, a device or a socket, not a file")
    if path.suffix.lower() == ".gguf" or _begins_with_gguf(path):
        return resolve_gguf(path)
    if path.name == "config.json" or path.suffix == ".safetensors":
        return _resolve_directory(path.parent)
    raise _no_model(path, "is neither a model directory nor a GGUF file")


def resolve_gguf(path: Path) -> ResolvedModel:
    """The GGUF file at `path`. Raises ``corrupt-file`` if its header is broken."""
    header = gguf.read_gguf(path)
    config, note = None, ""
    try:
        config = config_from_gguf(header)
        source = f"derived from the GGUF header of {path.name}"
    except WorkbenchError as error:
        if error.kind != "unsupported":
            raise
        source, note = "none: " + error.message, error.message
    return ResolvedModel(
        name=str(path),
        kind="gguf",
        path=str(path),
        config=config,
        config_source=source,
        fetchable=False,
        size_bytes=header.file_bytes,
        formats=(weights.GGUF,),
        parameters=header.elements,
        note=note,
    )


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in the config.json at `path`.

    Raises:
        WorkbenchError: ``bad-config`` if it is not JSON, no object or absurdly large; ``missing-file`` if it is a
            link to nothing; ``unreadable`` if it cannot be opened.
    """
    weights.check_readable(path)
    try:
        if path.exists() and not path.is_file():
            raise _bad_config(path, "is no file")
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise _bad_config(path, "is larger than any config")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WorkbenchError(
            "unreadable", f"Cannot read {one_line(str(path))}: {error.strerror}.", "Check the path."
        ) from None
    except json.JSONDecodeError as error:
        raise _bad_config(path, f"is not JSON (line {error.lineno}, column {error.colno}: {error.msg})") from None
    except (ValueError, RecursionError):
        raise _bad_config(path, "is not JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise _bad_config(path, "is JSON but not an object")
    return value


def _looks_like_model(path: Path) -> bool:
    return path.is_file() or (path / "config.json").is_file() or bool(weights.find_weights(path).formats)


def _begins_with_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == gguf.MAGIC
    except OSError:
        return False


def _resolve_directory(path: Path) -> ResolvedModel:
    config_path = path / "config.json"
    found = weights.find_weights(path)
    if not config_path.is_file() and not config_path.is_symlink():
        if found.formats == (weights.GGUF,):
            return resolve_gguf(path / _only_gguf(path, found.files))
        if (path / "adapter_config.json").is_file():
            raise _no_model(path, "holds a LoRA adapter, not a model", "Name the base model it was made for.")
        missing = "has weights but no config.json" if found.formats else "holds no model (no config.json, no .gguf)"
        raise _no_model(path, missing)
    return ResolvedModel(
        name=str(path),
        kind="directory",
        path=str(path),
        config=read_config(config_path),
        config_source=str(config_path),
        fetchable=False,
        size_bytes=found.size_bytes if found.formats else None,
        formats=found.formats,
        note=_note(found),
    )


def _only_gguf(directory: Path, names: tuple[str, ...]) -> str:
    if len(names) > 1:
        listed = ", ".join(names[:4]) + (" …" if len(names) > 4 else "")
        raise _no_model(directory, f"holds {len(names)} GGUF files ({one_line(listed)})", "Name one of them.")
    return names[0]


def _note(found: weights.WeightFiles) -> str:
    if not found.formats:
        return "No weights here: it can be planned with, not loaded."
    if found.formats[0] == weights.PICKLE:
        return "The weights are a pickle; they are loaded with weights_only=True."
    return ""


def _resolve_sample(sample: samples.Sample) -> ResolvedModel:
    local = None
    for source in sample.sources:
        local = _local_source(sample, source)
        if local is not None:
            break
    hub_id = next((source.repo for source in sample.sources if source.kind == "hub"), None)
    if local is not None:
        return ResolvedModel(
            name=sample.name,
            kind="sample",
            path=local.path,
            config=local.config,
            config_source=local.config_source,
            fetchable=False,
            size_bytes=local.size_bytes,
            formats=local.formats,
            hub_id=hub_id,
            parameters=sample.parameters,
            note=local.note,
        )
    size = next((source.size_bytes for source in sample.sources if source.size_bytes), None)
    twin = catalogue.find(sample.name.replace("-instruct", ""))
    return ResolvedModel(
        name=sample.name,
        kind="sample",
        path=None,
        config=twin.config if twin and twin.parameters == sample.parameters else None,
        config_source=f"catalogue entry {twin.name}, which has the same shape" if twin else "not fetched yet",
        fetchable=True,
        size_bytes=size,
        formats=(),
        hub_id=hub_id,
        parameters=sample.parameters,
        note="Not on this box yet: it is fetched when it is loaded.",
    )


def _local_source(sample: samples.Sample, source: samples.SampleSource) -> Optional[ResolvedModel]:
    if source.kind == "folder":
        return _resolve_directory(samples.shipped_folder(source))
    if source.kind == "hub":
        cached = _resolve_cached(source.repo)
        return cached if cached is not None and cached.has_weights else None
    fetched = samples.fetched_folder(sample.name) / source.member_name
    return resolve_gguf(fetched) if fetched.is_file() else None


def _resolve_cached(hub_id: str) -> Optional[ResolvedModel]:
    cached = hub_cache.find(hub_id)
    if cached is None:
        return None
    snapshot = Path(cached.snapshot)
    found = weights.find_weights(snapshot)
    config_path = snapshot / "config.json"
    if not (config_path.is_file() or config_path.is_symlink()):
        if found.formats != (weights.GGUF,) or len(found.files) != 1:
            return None
        inner = resolve_gguf(snapshot / found.files[0])
    else:
        inner = _resolve_directory(snapshot)
    # Of an interrupted download nothing counts as here, so that it can be fetched again.
    partial = bool(weights.missing_shards(snapshot))
    return ResolvedModel(
        name=cached.hub_id,
        kind="hub",
        path=inner.path,
        config=inner.config,
        config_source=inner.config_source,
        fetchable=partial or not inner.formats,
        size_bytes=None if partial else inner.size_bytes,
        formats=() if partial else inner.formats,
        hub_id=cached.hub_id,
        note="Downloaded in part: fetch it again." if partial else inner.note,
    )


def _resolve_hub_or_catalogue(name: str) -> Optional[ResolvedModel]:
    entry = catalogue.find(name)
    hub_id = entry.hub_id if entry is not None and entry.hub_id else name
    cached = _resolve_cached(hub_id)
    if cached is not None and (cached.has_weights or entry is None):
        return cached
    if entry is not None:
        return ResolvedModel(
            name=entry.name,
            kind="catalogue",
            path=None,
            config=entry.config,
            config_source=entry.source,
            fetchable=entry.hub_id is not None,
            size_bytes=None,
            formats=(),
            hub_id=entry.hub_id,
            parameters=entry.parameters,
            note=entry.note or "From the catalogue: config only, no weights on this box.",
        )
    if not is_hub_id(name):
        return None
    return ResolvedModel(
        name=name,
        kind="hub",
        path=None,
        config=None,
        config_source="not fetched yet",
        fetchable=True,
        size_bytes=None,
        formats=(),
        hub_id=name,
        note="Not in the Hub cache: it is downloaded when it is loaded.",
    )


def _unknown(name: str) -> WorkbenchError:
    names = [*samples.samples(), *catalogue.entries(), *(item.hub_id for item in hub_cache.repositories())]
    close = nearest(name, names)
    hint = f" Nearest: {', '.join(close)}." if close else ""
    return WorkbenchError(
        "unknown-model",
        f"No model is called {one_line(name, 100)!r}.{hint}" if name else "No model was named.",
        KINDS_OF_NAMES,
    )


def _no_model(path: Path, why: str, remedy: str = KINDS_OF_NAMES) -> WorkbenchError:
    return WorkbenchError("no-model", f"{one_line(str(path))} {why}.", remedy)


def _bad_config(path: Path, why: str) -> WorkbenchError:
    return WorkbenchError("bad-config", f"{one_line(str(path))} {why}.", "Mend it or download the model again.")
