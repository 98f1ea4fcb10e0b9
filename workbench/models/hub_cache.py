"""Reads the Hugging Face Hub's cache folder as it lies on disk. Stdlib only.

Layout as huggingface_hub documents it: ``models--ORG--NAME`` with ``refs/main`` holding a commit,
``snapshots/COMMIT`` with links to ``blobs``. Reading it ourselves works where huggingface_hub is absent.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Optional


@dataclass(frozen=True)
class CachedRepository:
    """One model repository in the cache; `snapshot` is the directory of the commit that ``main`` pointed to."""

    hub_id: str
    snapshot: str
    size_bytes: int


def cache_folder() -> Path:
    """Where huggingface_hub keeps repositories: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, HF_HOME/hub or the default."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(variable):
            return Path(os.path.expanduser(os.environ[variable]))
    if os.environ.get("HF_HOME"):
        return Path(os.path.expanduser(os.environ["HF_HOME"])) / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.path.expanduser(base)) / "huggingface" / "hub"


def find(hub_id: str) -> Optional[CachedRepository]:
    """The repository `hub_id` in the cache (upper and lower case alike), or None if no snapshot of it is there."""
    exact = cache_folder() / _folder_name(hub_id)
    if exact.is_dir():
        return _read(exact)
    wanted = exact.name.lower()
    for folder in _folders():
        if folder.name.lower() == wanted:
            return _read(folder)
    return None


def repositories() -> list[CachedRepository]:
    """Every model repository with a snapshot in the cache, by name."""
    found = (_read(folder) for folder in _folders())
    return sorted((item for item in found if item), key=lambda item: item.hub_id.lower())


def _folder_name(hub_id: str) -> str:
    return "models--" + hub_id.replace("/", "--")


def _folders() -> list[Path]:
    try:
        return [folder for folder in cache_folder().iterdir() if folder.name.startswith("models--")]
    except OSError:
        return []


def _read(folder: Path) -> Optional[CachedRepository]:
    snapshot = _snapshot(folder)
    if snapshot is None:
        return None
    hub_id = "/".join(folder.name.split("--")[1:])
    return CachedRepository(hub_id, str(snapshot), _size(folder, snapshot))


def _snapshot(folder: Path) -> Optional[Path]:
    snapshots = folder / "snapshots"
    try:
        commit = (folder / "refs" / "main").read_text(encoding="ascii").strip()
        if commit and os.sep not in commit and (snapshots / commit).is_dir():
            return snapshots / commit
    except (OSError, ValueError):
        pass
    try:
        candidates = [entry for entry in snapshots.iterdir() if entry.is_dir()]
        return max(candidates, key=lambda entry: entry.stat().st_mtime, default=None)
    except OSError:
        return None


def _size(folder: Path, snapshot: Path) -> int:
    # Blobs are stored once however many snapshots link to them; without links the files lie in the snapshot.
    seen = {}
    for place in (folder / "blobs", snapshot):
        for base, _, names in os.walk(place):
            for name in names:
                try:
                    info = os.stat(os.path.join(base, name))
                except OSError:
                    continue
                seen[info.st_dev, info.st_ino] = info.st_size
    return sum(seen.values())
