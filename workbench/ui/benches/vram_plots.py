"""The plots that stand under the budget where there is room, and on screens of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from textual.content import Content

from workbench.ui.widgets.memory_plot import stacked_plot, timeline_plot, told, x_labels
from workbench.vram.plan import Plan

SHORTEST, POINTS = 256, 100
MOST_LENGTH = 10_000_000


def spread(first: int, last: int, count: int) -> list[int]:
    """Whole numbers from first to last, evenly spread by their logarithm, each once, powers of two among them."""
    if last <= first:
        return [first]
    steps = (math.log(last) - math.log(first)) / max(1, count - 1)
    powers = {2**i for i in range(last.bit_length()) if first <= 2**i <= last}
    return sorted({round(math.exp(math.log(first) + i * steps)) for i in range(count)} | {first, last} | powers)


def length_values(length: int, context: int) -> list[int]:
    """Lengths for a plot around the present one, within the model's context unless the plan is beyond it."""
    last = min(MOST_LENGTH, max(4 * length, 16 * SHORTEST))
    return spread(min(SHORTEST, length), max(length, min(last, context or last)), POINTS)


def over_length(points: Sequence[Mapping[str, int]], plan: Plan, capacity: int, width: int, height: int) -> Content:
    """The budget over the sequence length, with the present one told."""
    head = Content.assemble(
        ("MEMORY OVER SEQUENCE LENGTH", "bold $muted"),
        (f"  tokens, batch {plan.batch:,}; now {plan.sequence_length:,}", "$muted"),
    )
    labels = x_labels([point["value"] for point in points], width)
    return Content("\n").join([head, *stacked_plot(points, capacity, width, height - 2), labels])


def over_time(simulation: Mapping[str, Any], capacity: int, width: int, height: int) -> Content:
    """Live memory over the simulated step, phases named."""
    timeline = simulation.get("timeline") or []
    peak = int(simulation.get("requested_bytes") or 0)
    head = Content.assemble(
        ("LIVE MEMORY OVER THE STEP", "bold $muted"),
        (f"  simulated; peak {told(peak)} in {simulation.get('peak_phase', '')}", "$muted"),
    )
    values = [int(point["live_bytes"]) for point in timeline]
    phases = [str(point["phase"]) for point in timeline]
    return Content("\n").join([head, *timeline_plot(values, phases, capacity, width, height - 1)])
