"""What lies in a model's directory, and the tensors that its headers list. Stdlib only; nothing is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from workbench.architecture.checkpoint import DTYPES, CheckpointComparison, HeaderTensor, compare_checkpoint
from workbench.architecture.skeleton import DTYPE_BYTES, ModuleEntry, ParameterEntry, Skeleton
from workbench.errors import WorkbenchError
from workbench.models import gguf, gguf_convert, safetensors_header, weights
from workbench.text import one_line

MAX_FILES = 2_000
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
_CODE = (".py", ".so")


@dataclass(frozen=True)
class ModelFile:
    """One file."""

    name: str
    kind: str
    """``safetensors``, ``gguf``, ``pickle`` (can run code when it is loaded) or ``code``."""
    size_bytes: int


@dataclass(frozen=True)
class TypeShare:
    """The tensors that are stored in one type."""

    type: str
    tensors: int
    elements: int
    bytes: int
    bits_per_weight: float


@dataclass(frozen=True)
class ModelFiles:
    """A model's files on this box."""

    path: str
    files: tuple[ModelFile, ...]
    """Weights and code; the largest first."""
    pickle: bool
    """Whether the weights that would be loaded are a pickle."""
    types: tuple[TypeShare, ...]
    """How the weights are stored, most bytes first; empty for a pickle, which is not read."""
    tensors: int
    size_bytes: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class StoredTensors:
    """What the headers of a model's weights list."""

    tensors: tuple[HeaderTensor, ...]
    """Under the names that transformers has for them."""
    types: tuple[TypeShare, ...]
    odd: tuple[str, ...] = ()
    """GGUF tensors that have no place in the architecture."""


def read_files(path: str) -> ModelFiles:
    """The files at `path`, a directory or a GGUF file. A header that cannot be read is a note, not an error."""
    place = Path(path)
    found = _files(place)
    notes: list[str] = []
    types: tuple[TypeShare, ...] = ()
    formats = weights.find_weights(place).formats if place.is_dir() else (weights.GGUF,)
    pickle = bool(formats) and formats[0] == weights.PICKLE
    try:
        types = _types(place, formats)
    except WorkbenchError as error:
        notes.append(error.message)
    if pickle:
        notes.append("The weights are a pickle, which can run code when it is loaded; only weights_only=True is safe.")
    others = [file.name for file in found if file.kind == "pickle"]
    if others and not pickle:
        notes.append(f"{_some(others)}: pickles, which can run code when loaded; not used here.")
    code = [file.name for file in found if file.kind == "code"]
    if code:
        notes.append(f"{_some(code)}: code of the repository, never run here.")
    return ModelFiles(
        path=str(place),
        files=tuple(found),
        pickle=pickle,
        types=types,
        tensors=sum(share.tensors for share in types),
        size_bytes=sum(file.size_bytes for file in found if file.kind != "code"),
        notes=tuple(notes),
    )


def read_tensors(path: str, config: dict[str, Any]) -> Optional[StoredTensors]:
    """The tensors of the weights at `path`; None where there are none whose headers can be read without running code.

    Raises:
        WorkbenchError: ``corrupt-file``, ``missing-file`` or ``unreadable``.
    """
    place = Path(path)
    formats = weights.find_weights(place).formats if place.is_dir() else (weights.GGUF,)
    if not formats or formats[0] == weights.PICKLE:
        return None
    if formats[0] == weights.GGUF:
        header = gguf.read_gguf(_gguf_file(place))
        placed, odd = gguf_convert.places(header, config)
        return StoredTensors(tuple(placed), _gguf_types(header), tuple(odd))
    stored = _safetensors(place)
    return StoredTensors(stored, _shares((t.dtype, t.elements, t.size_bytes) for t in stored))


def compare_files(skeleton: Skeleton, stored: StoredTensors) -> CheckpointComparison:
    """Where the weights and the model of the config disagree."""
    return compare_checkpoint(skeleton, stored.tensors, stored.odd)


def header_skeleton(config: dict[str, Any], stored: StoredTensors) -> Skeleton:
    """A skeleton from a checkpoint's header alone, for interpreters without torch.

    It has names, shapes and dtypes; classes, buffers and tying are not in a header.
    """
    modules = {"": ModuleEntry("", _architecture(config))}
    parameters = []
    for tensor in stored.tensors:
        module = tensor.name.rpartition(".")[0]
        parts = module.split(".") if module else []
        for depth in range(1, len(parts) + 1):
            name = ".".join(parts[:depth])
            modules.setdefault(name, ModuleEntry(name, _guessed_class(parts[depth - 1])))
        dtype = DTYPES.get(tensor.dtype, "bfloat16")
        parameters.append(ParameterEntry(tensor.name, tuple(tensor.shape), dtype, module))
    names = {entry.module for entry in parameters}
    embedding = next((name for name in names if name.endswith(("embed_tokens", "wte", "word_embeddings"))), None)
    return Skeleton(
        architecture=_architecture(config),
        model_type=str(config.get("model_type") or ""),
        transformers_version="",
        dtype=max((entry.dtype for entry in parameters), key=lambda name: DTYPE_BYTES[name], default="float32"),
        config=dict(config),
        modules=tuple(modules.values()),
        parameters=tuple(parameters),
        buffers=(),
        input_embeddings=embedding,
        output_embeddings="lm_head" if "lm_head" in names else None,
    )


def _architecture(config: dict[str, Any]) -> str:
    named = config.get("architectures")
    return one_line(str(named[0]), 80) if isinstance(named, list) and named else "model"


def _guessed_class(segment: str) -> str:
    lower = segment.lower()
    if "norm" in lower or lower in ("ln_1", "ln_2", "ln_f"):
        return "Norm"
    if "embed" in lower or lower in ("wte", "wpe"):
        return "Embedding"
    return "ModuleList" if lower in ("layers", "h", "blocks", "layer") else "Module"


def _files(place: Path) -> list[ModelFile]:
    names = _listed(place) if place.is_dir() else [place]
    found = []
    for path in names[:MAX_FILES]:
        kind = _kind(path.name)
        if kind:
            found.append(ModelFile(path.name, kind, _size(path)))
    return sorted(found, key=lambda file: (-file.size_bytes, file.name))


def _listed(place: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(place) if entry.is_file())
    except OSError:
        return []


def _kind(name: str) -> str:
    lower = name.lower()
    if lower.endswith(".safetensors"):
        return "safetensors"
    if lower.endswith(".gguf"):
        return "gguf"
    if lower.endswith(_PICKLES):
        return "pickle"
    return "code" if lower.endswith(_CODE) else ""


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(one_line(name, 40) for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _gguf_file(place: Path) -> Path:
    return place / weights.find_weights(place).files[0] if place.is_dir() else place


def _safetensors(place: Path) -> tuple[safetensors_header.StoredTensor, ...]:
    whole = safetensors_header.read_checkpoint(place)
    if whole:
        return whole
    names = weights.find_weights(place).files
    return tuple(tensor for name in names for tensor in safetensors_header.read_header(place / name))


def _types(place: Path, formats: tuple[str, ...]) -> tuple[TypeShare, ...]:
    if not formats or formats[0] == weights.PICKLE:
        return ()
    if formats[0] == weights.GGUF:
        return _gguf_types(gguf.read_gguf(_gguf_file(place)))
    return _shares((tensor.dtype, tensor.elements, tensor.size_bytes) for tensor in _safetensors(place))


def _gguf_types(header: gguf.GgufHeader) -> tuple[TypeShare, ...]:
    return _shares((tensor.type, tensor.elements, tensor.size_bytes or 0) for tensor in header.tensors)


def _shares(tensors: Iterable[tuple[str, int, int]]) -> tuple[TypeShare, ...]:
    by_type: dict[str, tuple[int, int, int]] = {}
    for name, elements, size in tensors:
        count, had, held = by_type.get(name, (0, 0, 0))
        by_type[name] = (count + 1, had + elements, held + size)
    shares = [
        TypeShare(name, count, elements, size, round(8 * size / elements, 2) if elements else 0.0)
        for name, (count, elements, size) in by_type.items()
    ]
    return tuple(sorted(shares, key=lambda share: -share.bytes))
