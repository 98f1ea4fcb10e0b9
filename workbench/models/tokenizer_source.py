"""Where the tokenizer of a model lies on this box. Stdlib only."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from workbench import paths
from workbench.errors import WorkbenchError
from workbench.job import SILENT, Job
from workbench.models.gguf import read_gguf
from workbench.models.gguf_tokenizer import convert_tokenizer
from workbench.models.reference import as_path
from workbench.models.resolve import ResolvedModel, resolve


def tokenizer_path(model: str, job: Job = SILENT) -> str:
    """A file or directory that `workbench.tokens.tokenizer.load_tokenizer` reads, for a model by any of its names.

    A tokenizer file is taken as it is; the vocabulary of a GGUF file is converted once and kept, without its weights.

    Raises:
        WorkbenchError: as `resolve`; ``no-tokenizer`` if nothing of the model is on this box.
    """
    path = as_path(model)
    if path is not None and path.is_file() and path.suffix != ".gguf":
        return str(path)
    if path is not None and (path / "tokenizer.json").is_file():
        return str(path)
    return resolved_tokenizer_path(resolve(model, job))


def resolved_tokenizer_path(resolved: ResolvedModel) -> str:
    """The same for a model that has been resolved."""
    if resolved.path is None:
        remedy = (
            f"Fetch it first: workbench models get {resolved.name}"
            if resolved.fetchable
            else "Name a directory or a file that has one."
        )
        raise WorkbenchError("no-tokenizer", f"The tokenizer of {resolved.name} is not on this box.", remedy)
    if Path(resolved.path).suffix == ".gguf":
        return str(_from_gguf(Path(resolved.path)))
    return resolved.path


def _from_gguf(path: Path) -> Path:
    info = path.stat()
    identity = f"{path.resolve()} {info.st_size} {info.st_mtime_ns}"
    folder = paths.cache_dir() / "tokenizers" / hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
    if not (folder / "tokenizer.json").is_file():
        converted = convert_tokenizer(read_gguf(path))
        paths.write_atomic(
            folder / "tokenizer_config.json", json.dumps(converted.tokenizer_config).encode("utf-8", "replace")
        )
        paths.write_atomic(folder / "tokenizer.json", json.dumps(converted.tokenizer).encode("utf-8", "replace"))
    return folder
