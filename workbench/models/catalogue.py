"""The reference catalogue: configs of well-known public models, for planning before any download. Stdlib only."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional


@dataclass(frozen=True)
class CatalogueEntry:
    """One public model.

    Attributes:
        name: lower case, such as ``llama-3.1-8b``.
        architecture: transformers class that `config` describes.
        config: what ``AutoConfig.for_model`` takes.
        parameters: what transformers builds from it, tied weights counted once.
        active_parameters: of a mixture of experts, those at work per token.
        verified: whether `parameters` equals a published exact figure.
        source: where config and count come from.
    """

    name: str
    hub_id: Optional[str]
    architecture: str
    auto_class: str
    config: dict[str, Any]
    parameters: int
    active_parameters: Optional[int]
    published_parameters: Optional[int]
    verified: bool
    source: str
    note: str


@functools.lru_cache(maxsize=1)
def entries() -> dict[str, CatalogueEntry]:
    """All entries by name; treat them as read-only."""
    text = (Path(__file__).with_name("catalogue.json")).read_text(encoding="utf-8")
    return {name: _entry(name, record) for name, record in json.loads(text)["models"].items()}


def find(name: str) -> Optional[CatalogueEntry]:
    """The entry called `name`, or whose Hub id is `name`, in upper or lower case; None if there is none."""
    wanted = name.lower()
    found = entries().get(wanted)
    if found or "/" not in wanted:
        return found
    return next((entry for entry in entries().values() if (entry.hub_id or "").lower() == wanted), None)


def _entry(name: str, record: dict[str, Any]) -> CatalogueEntry:
    return CatalogueEntry(
        name=name,
        hub_id=record["hub_id"],
        architecture=record["architecture"],
        auto_class=record["auto_class"],
        config={**record["config"], "architectures": [record["architecture"]]},
        parameters=record["parameters"],
        active_parameters=record.get("active_parameters"),
        published_parameters=record.get("published_parameters"),
        verified=record["verified"],
        source=record["source"],
        note=record.get("note", ""),
    )
