"""Whether a plan fits, by the best that is known of it: measured, else simulated, else estimated. Stdlib only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Optional

from workbench.text import gib
from workbench.vram.measured import Measurement
from workbench.vram.plan import Plan
from workbench.vram.simulate.result import Simulation

TIGHT_SHARE = 0.05
"""A plan that leaves less of the capacity free than this is called tight."""


@dataclass(frozen=True)
class Need:
    """What one rung says that a plan takes."""

    rung: str
    """``estimate``, ``simulation`` or ``measurement``."""
    total_bytes: int
    """Of a GPU with room enough."""
    least_bytes: int
    """With which it still runs, the allocator giving back what it only kept."""


@dataclass(frozen=True)
class Held:
    """A need held against one GPU."""

    fits: bool
    free_bytes: int
    """Negative if it does not fit."""
    verdict: str
    """``fits``, ``tight`` (it fits with less than a twentieth to spare, or only with memory given back) or ``no``."""
    note: str = ""
    """What to know of it, or empty."""


Known = Callable[[Plan], Sequence[Need]]
"""What is known of a plan beyond its estimate, the best last."""


def nothing_known(_plan: Plan) -> Sequence[Need]:
    """Of no plan anything but its estimate."""
    return ()


def estimated(total_bytes: int) -> Need:
    """The need of an estimate."""
    return Need("estimate", total_bytes, total_bytes)


def needs(simulation: Optional[Simulation], measurement: Optional[Measurement]) -> tuple[Need, ...]:
    """What runs say, the best last; a run on the CPU knows nothing of a GPU's overhead and says nothing here."""
    found = []
    if simulation is not None:
        found.append(Need("simulation", simulation.total, simulation.least_bytes))
    if measurement is not None and measurement.device_kind == "cuda":
        found.append(Need("measurement", measurement.total, measurement.total))
    return tuple(found)


def best(total_bytes: int, known: Sequence[Need]) -> Need:
    """The best of what is known of a plan whose estimate is `total_bytes`."""
    return known[-1] if known else estimated(total_bytes)


def held(need: Need, capacity_bytes: int) -> Held:
    """Hold `need` against a GPU."""
    free = capacity_bytes - need.total_bytes
    if free < 0 <= capacity_bytes - need.least_bytes:
        note = (
            f"By {need.rung} the allocator would keep {gib(need.total_bytes, 1)} GiB; here it gives memory back and "
            "asks again, which takes time at every step."
        )
        return Held(True, capacity_bytes - need.least_bytes, "tight", note)
    if free < 0:
        return Held(False, capacity_bytes - need.least_bytes, "no")
    return Held(True, free, "tight" if free < TIGHT_SHARE * capacity_bytes else "fits")
