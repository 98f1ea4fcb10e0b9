"""Python code that a model brings along: run only if the user named its repository, revision and files. Stdlib only."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.settings import load_settings, settings_path

_MAX_CODE_BYTES = 4 * 2**20


@dataclass(frozen=True)
class RemoteCode:
    """Code in a model's folder.

    Attributes:
        repository: the Hub id, or the folder of a model that is not from the Hub's cache.
        revision: the Hub's commit and a digest of all its Python files, which anybody could have changed in the cache;
            of another folder the digest alone.
        files: those that the config names, in order of their names.
    """

    repository: str
    revision: str
    files: tuple[str, ...]

    @property
    def consent(self) -> str:
        """What the user writes to have it run."""
        return f"{self.repository}@{self.revision}:{'+'.join(self.files)}"

    @property
    def is_allowed(self) -> bool:
        """Whether the user's settings name exactly this code."""
        return self.consent in load_settings().models.trusted_code


def remote_code(directory: Path, config: dict[str, Any]) -> RemoteCode:
    """The code that the ``auto_map`` of a config names.

    Raises:
        WorkbenchError: ``unsupported`` if it is not in the model's own folder.
    """
    mapped = config.get("auto_map")
    names = [name for value in (mapped or {}).values() for name in (value if isinstance(value, list) else [value])]
    files = sorted({f"{name.rpartition('.')[0]}.py" for name in names if isinstance(name, str)})
    # "org/name--module.Class" is code of another repository, whose revision nothing here fixes.
    if not files or any("--" in file or "/" in file or not (directory / file).is_file() for file in files):
        raise WorkbenchError(
            "unsupported",
            f"The model in {directory} asks for Python code that is not in its folder; it is not run.",
            "Choose a model whose architecture transformers knows.",
        )
    snapshot = Path(directory).absolute()
    if snapshot.parent.name == "snapshots" and snapshot.parents[1].name.startswith("models--"):
        repository = snapshot.parents[1].name[len("models--") :].replace("--", "/")
        return RemoteCode(repository, f"{snapshot.name}.{_digest(snapshot)[:16]}", tuple(files))
    return RemoteCode(str(snapshot), _digest(snapshot), tuple(files))


def require_consent(directory: Path) -> None:
    """Return if the code of the model in `directory` may run.

    Raises:
        WorkbenchError: ``remote-code`` with the line that allows it; ``unsupported`` as `remote_code`.
    """
    code = remote_code(directory, json.loads((directory / "config.json").read_text(encoding="utf-8")))
    if code.is_allowed:
        return
    raise WorkbenchError(
        "remote-code",
        f"{code.repository} (revision {code.revision[:12]}) brings its own Python code in {', '.join(code.files)}, "
        "which is not run.",
        f"Read it; to allow this revision, put this into {settings_path()}: "
        f"[models] trusted_code = [{json.dumps(code.consent)}]",
    )


def _digest(folder: Path) -> str:
    """Of the names and contents of the Python files in a folder and below it."""
    digest = hashlib.sha256()
    size = 0
    for file in sorted(folder.rglob("*.py")):
        content = file.read_bytes()
        size += len(content)
        if size > _MAX_CODE_BYTES:
            raise WorkbenchError("unsupported", f"{folder} holds more Python code than any model's.", "It is not run.")
        digest.update(f"{file.relative_to(folder)}\0{len(content)}\0".encode("utf-8", "surrogateescape") + content)
    return digest.hexdigest()
