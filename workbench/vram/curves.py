"""Memory over one field of a plan, and where another category becomes the largest. Stdlib only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.errors import WorkbenchError
from workbench.job import SILENT, Job
from workbench.vram.estimate import Estimator
from workbench.vram.plan import Plan, changed, check_plan
from workbench.vram.shares import CATEGORIES

FIELDS = ("sequence_length", "batch", "new_tokens", "lora_r", "gpus")
MAX_POINTS = 200


@dataclass(frozen=True)
class Point:
    """A plan's bytes at one value."""

    value: int
    bytes: dict[str, int]
    """By category, and ``total``."""


@dataclass(frozen=True)
class Overtake:
    """Where the largest category becomes another."""

    value: int
    category: str
    before: str


def curve(estimator: Estimator, plan: Plan, field: str, values: Sequence[int], job: Job = SILENT) -> tuple[Point, ...]:
    """The bytes of `plan` with each of `values` in one field.

    Raises:
        WorkbenchError: ``bad-option`` for another field or too many values; ``bad-plan`` for an impossible value.
    """
    if field not in FIELDS:
        raise WorkbenchError("bad-option", f"No curve over {field!r:.40}.", f"Choose one of {', '.join(FIELDS)}.")
    if len(values) > MAX_POINTS:
        raise WorkbenchError("bad-option", f"{len(values):,} values.", f"Ask for at most {MAX_POINTS}.")
    points = []
    for value in values:
        job.check()
        one = changed(plan, **{field: value})
        check_plan(one)
        budget = estimator.estimate(one)
        points.append(Point(value, {name: getattr(budget, name) for name in (*CATEGORIES, "total")}))
    return tuple(points)


def overtakes(points: Sequence[Point]) -> tuple[Overtake, ...]:
    """Every change of the largest category from one point to the next."""
    found = []
    before = ""
    for point in points:
        largest = max(CATEGORIES, key=lambda name: point.bytes[name])
        if before and largest != before:
            found.append(Overtake(point.value, largest, before))
        before = largest
    return tuple(found)
