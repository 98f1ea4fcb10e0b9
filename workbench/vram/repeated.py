"""Warnings that estimate and simulation both give, each in its own words. Stdlib only: the screen uses it too."""

from __future__ import annotations

from collections.abc import Sequence

SCORES_HELD = "all scores are held"
"""By this the two are known for the same."""


def not_said_yet(warnings: Sequence[str], more: Sequence[str]) -> list[str]:
    """Those of `more`, a simulation's, that do not say again what an estimate's `warnings` say."""
    told = any(SCORES_HELD in warning for warning in warnings)
    return [warning for warning in more if warning not in warnings and not (told and SCORES_HELD in warning)]
