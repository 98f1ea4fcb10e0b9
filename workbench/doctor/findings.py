"""What a finding is. Stdlib only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True)
class Finding:
    """One fault or remark, with everything needed to believe it and to act on it."""

    id: str
    severity: str
    """``error``: something does not work. ``warning``: works, but worse than it could. ``info``: worth knowing."""
    title: str
    why: str
    evidence: dict[str, str] = field(default_factory=dict)
    fix: tuple[str, ...] = ()
    """Commands for this environment, or steps in words; to be done in this order."""
    source: str = ""
    caused_by: Optional[str] = None
    affects: tuple[str, ...] = ()
    """Benches that suffer: ``chat``, ``vram``, ``architecture``, ``tokens``."""
    observed: bool = False
    """Seen failing (a message, a probe), not concluded from versions alone."""
