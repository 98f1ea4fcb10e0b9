"""Skeletons kept on disk, so that a model seen before needs neither torch nor time. Stdlib only."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, Optional

from workbench import paths
from workbench.architecture.build import build_skeleton, transformers_version
from workbench.architecture.skeleton import FORMAT_VERSION, Skeleton, skeleton_from_dict
from workbench.architecture.validate import check_config
from workbench.job import SILENT, Job

MAX_ENTRIES = 400
"""Each edit of a config makes an entry of some 100 kB; the oldest beyond this number are removed."""

MAX_ENTRY_BYTES = 128 * 2**20


def load_skeleton(config: dict[str, Any], job: Job = SILENT, dtype: Optional[str] = None) -> Skeleton:
    """The skeleton of `config` from the cache, else built and kept.

    Args and errors as in `workbench.architecture.build.build_skeleton`. A damaged entry is built again,
    and a cache that cannot be written is done without.
    """
    check_config(config)
    entry = _entry_path(config, dtype)
    kept = _read(entry)
    if kept is not None:
        return kept
    skeleton = build_skeleton(config, job, dtype)
    with contextlib.suppress(OSError):
        paths.write_atomic(entry, json.dumps(dataclasses.asdict(skeleton)).encode("utf-8"))
        _prune(entry.parent)
    return skeleton


def _entry_path(config: dict[str, Any], dtype: Optional[str]) -> Path:
    subject = {
        "config": config,
        "dtype": dtype,
        "transformers": transformers_version(),
        "format": FORMAT_VERSION,
    }
    canonical = json.dumps(subject, sort_keys=True, separators=(",", ":"), default=str)
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
    return paths.cache_dir() / "skeletons" / f"{digest}.json"


def _read(entry: Path) -> Optional[Skeleton]:
    try:
        if entry.stat().st_size > MAX_ENTRY_BYTES:
            return None
        return skeleton_from_dict(json.loads(entry.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _prune(folder: Path) -> None:
    entries = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in entries[:-MAX_ENTRIES]:
        path.unlink()
