"""Which weight files a model directory holds, and whether they are whole. Stdlib only.

Nothing is loaded or unpickled here: headers and sizes are read.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Union

from workbench.errors import WorkbenchError
from workbench.models import gguf, safetensors_header
from workbench.text import one_line

SAFETENSORS, PICKLE, GGUF = "safetensors", "pickle", "gguf"
PICKLE_FILE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"


@dataclass(frozen=True)
class WeightFiles:
    """The weight files of a directory: formats in the order of preference, file names, bytes of the first format."""

    formats: tuple[str, ...]
    files: tuple[str, ...]
    size_bytes: int


def find_weights(directory: Union[str, Path]) -> WeightFiles:
    """What weights `directory` holds; `formats` is empty if none. `files` are those of the preferred format.

    Links to nothing, as an interrupted or cleaned-up download leaves them, do not count, nor pipes and devices.
    """
    by_format: dict[str, list[str]] = {SAFETENSORS: [], PICKLE: [], GGUF: []}
    for name, kind in _weight_names(directory).items():
        if (Path(directory) / name).is_file():
            by_format[kind].append(name)
    formats = tuple(kind for kind, files in by_format.items() if files)
    files = tuple(by_format[formats[0]]) if formats else ()
    return WeightFiles(formats, files, sum(_size(Path(directory) / name) for name in files))


def missing_shards(directory: Union[str, Path]) -> list[str]:
    """Files that the directory's shard index names and that are not there; empty without an index.

    Raises:
        WorkbenchError: ``corrupt-file`` if the index is not usable.
    """
    directory = Path(directory)
    for single, index in (
        (safetensors_header.SINGLE_FILE, safetensors_header.INDEX_FILE),
        (PICKLE_FILE, PICKLE_INDEX),
    ):
        if (directory / single).is_file():
            return []
        if (directory / index).is_file():
            named = set(safetensors_header.read_index(directory / index).values())
            return sorted(name for name in named if not (directory / name).is_file())
    return []


def check_weights(path: Union[str, Path]) -> None:
    """Make sure that the weights at `path`, a directory or a GGUF file, are whole as far as headers tell.

    Raises:
        WorkbenchError: ``corrupt-file``, ``missing-file``, ``no-weights`` or ``unreadable``, naming the file.
    """
    path = Path(path)
    if path.is_file():
        gguf.read_gguf(path)
        return
    for name in _weight_names(path):
        _check_link(path / name)
    found = find_weights(path)
    if not found.formats:
        raise WorkbenchError(
            "no-weights",
            f"{one_line(str(path))} holds no weights (safetensors, GGUF or pytorch_model.bin).",
            "Download the model's weights into it, or name another model.",
        )
    if found.formats[0] == SAFETENSORS:
        if not safetensors_header.read_checkpoint(path):
            for name in found.files:
                safetensors_header.read_header(path / name)
    elif found.formats[0] == GGUF:
        for name in found.files:
            gguf.read_gguf(path / name)
    else:
        _check_pickles(path, found.files)


def check_readable(path: Path) -> None:
    """Raise ``missing-file`` if `path` is a link to nothing, ``unreadable`` if it may not be read."""
    _check_link(path)
    if path.exists() and not os.access(path, os.R_OK):
        raise WorkbenchError("unreadable", f"You may not read {one_line(str(path))}.", "Change its permissions.")


def _weight_names(directory: Union[str, Path]) -> dict[str, str]:
    """File names that are weights of the model by their name, each with its format."""
    found = {}
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        names = []
    for name in names:
        if name.endswith(".safetensors") and not name.startswith(("adapter_", "consolidated")):
            found[name] = SAFETENSORS
        elif name.startswith("pytorch_model") and name.endswith(".bin"):
            found[name] = PICKLE
        elif name.lower().endswith(".gguf"):
            found[name] = GGUF
    return found


def _check_link(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise WorkbenchError(
            "missing-file",
            f"{one_line(str(path))} is a link to a file that is not there.",
            "Download the model again.",
        )


def _check_pickles(directory: Path, files: tuple[str, ...]) -> None:
    for name in missing_shards(directory):
        raise WorkbenchError(
            "missing-file",
            f"{one_line(str(directory))} lacks the shard {one_line(name)} that its index names.",
            "Download the model again.",
        )
    for name in files:
        path = directory / name
        with path.open("rb") as file:
            start = file.read(2)
        # torch.save writes a zip archive; before 1.6 it wrote a plain pickle, which begins with byte 0x80.
        if not (start[:1] == b"\x80" or (start == b"PK" and zipfile.is_zipfile(path))):
            raise WorkbenchError(
                "corrupt-file",
                f"{one_line(str(path))} is not a usable PyTorch checkpoint: it is cut off or something else.",
                "Download or copy it again.",
            )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
