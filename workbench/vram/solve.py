"""The largest batch or the longest sequence that fits, and what every GPU of a list can do. Stdlib only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from workbench.architecture import config as reading
from workbench.architecture.skeleton import Skeleton
from workbench.errors import WorkbenchError
from workbench.job import SILENT, Job
from workbench.vram.estimate import Estimator
from workbench.vram.gpus import Gpu
from workbench.vram.notes import gpu_notes
from workbench.vram.plan import Plan, changed
from workbench.vram.rungs import Need, best, held

FIELDS = {"batch": "batch", "seq": "sequence_length"}
"""What can be solved for, by the name on the command line, and the field of the plan."""
MOST = {"batch": 2**20, "sequence_length": 2**24}


@dataclass(frozen=True)
class Solved:
    """The largest value of one field with which a plan fits."""

    field: str
    value: Optional[int]
    """None if the plan does not even fit with 1."""
    total_bytes: int
    """Of the plan with that value, or with 1."""
    capacity_bytes: int
    beyond_context: bool
    """Whether a sequence of that length is longer than the model was made for."""
    is_bound: bool
    """Whether the search ended at its own limit and not at the GPU's."""


@dataclass(frozen=True)
class GpuRow:
    """What one GPU can do of a plan."""

    name: str
    capacity_bytes: int
    total_bytes: int
    free_bytes: int
    fits: bool
    verdict: str
    largest_batch: Optional[int]
    longest_sequence: Optional[int]
    notes: tuple[str, ...]
    by: str = "estimate"
    """The rung that says whether it fits."""
    beyond_context: bool = False
    """Whether the longest sequence is longer than the model was made for."""
    named: bool = False
    """Whether the plan names this GPU."""


class Solver:
    """Searches one plan; totals are kept, as GPUs ask for the same ones."""

    def __init__(self, skeleton: Skeleton, plan: Plan, estimator: Optional[Estimator] = None) -> None:
        self._estimator = estimator or Estimator(skeleton)
        self._plan = plan
        self._totals: dict[tuple[str, int], int] = {}
        self._context = reading.context_length(reading.text_config(skeleton.config))

    def total(self, field: str, value: int) -> int:
        """Bytes of the plan with another value of one field."""
        key = (field, value)
        if key not in self._totals:
            self._totals[key] = self._estimator.estimate(changed(self._plan, **{field: value})).total
        return self._totals[key]

    def largest(self, field: str, capacity_bytes: int) -> Solved:
        """The largest `field` (``batch`` or ``sequence_length``) with which the plan takes no more than a capacity.

        Raises:
            WorkbenchError: ``bad-option`` for another field.
        """
        if field not in MOST:
            raise WorkbenchError("bad-option", f"{field!r:.40} cannot be solved for.", f"Choose {' or '.join(FIELDS)}.")
        most = MOST[field]
        if self.total(field, 1) > capacity_bytes:
            return Solved(field, None, self.total(field, 1), capacity_bytes, False, False)
        low, high = 1, 2
        while high < most and self.total(field, high) <= capacity_bytes:
            low, high = high, high * 2
        high = min(high, most + 1)
        while high - low > 1:
            middle = (low + high) // 2
            if self.total(field, middle) <= capacity_bytes:
                low = middle
            else:
                high = middle
        tokens = low + (0 if self._plan.trains else self._plan.new_tokens)
        beyond = field == "sequence_length" and bool(self._context) and tokens > (self._context or 0)
        return Solved(field, low, self.total(field, low), capacity_bytes, beyond, low >= most)


def gpu_table(
    skeleton: Skeleton,
    plan: Plan,
    gpus: Sequence[Gpu],
    job: Job = SILENT,
    estimator: Optional[Estimator] = None,
    known: Sequence[Need] = (),
) -> tuple[GpuRow, ...]:
    """Every GPU of `gpus` against the plan, with the largest batch and the longest sequence that it could take.

    Args:
        skeleton: the model.
        plan: to hold against the GPUs.
        gpus: one row for each.
        job: GPUs done.
        estimator: of the model, where there is one.
        known: what is known of this very plan beyond its estimate, the best last; the solved values are estimates.
    """
    solver = Solver(skeleton, plan, estimator)
    need = best(solver.total("batch", plan.batch), known)
    rows = []
    for done, gpu in enumerate(gpus):
        job.check()
        job.progress("gpus", done, len(gpus), "gpus", gpu.name)
        said = held(need, gpu.capacity_bytes)
        longest = solver.largest("sequence_length", gpu.capacity_bytes)
        rows.append(
            GpuRow(
                name=gpu.name,
                capacity_bytes=gpu.capacity_bytes,
                total_bytes=need.total_bytes,
                free_bytes=said.free_bytes,
                fits=said.fits,
                verdict=said.verdict,
                largest_batch=solver.largest("batch", gpu.capacity_bytes).value,
                longest_sequence=longest.value,
                notes=gpu_notes(plan, gpu),
                by=need.rung,
                beyond_context=longest.beyond_context,
            )
        )
    return tuple(rows)
