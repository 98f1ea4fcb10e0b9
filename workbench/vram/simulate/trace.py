"""What a simulated run allocates and frees, in order, and what was live when. Stdlib only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

NO_LAYER = -1
"""The layer of what belongs to none: embeddings, head, loss."""


@dataclass
class Trace:
    """Allocations and frees of one device, in order.

    Storages are numbered from 0; parallel lists hold what is known of each. An event is the number of the
    storage allocated, or its bitwise complement (negative) when it is freed.
    """

    sizes: list[int] = field(default_factory=list)
    """Bytes requested for each storage."""
    phases: list[int] = field(default_factory=list)
    """Index into `marks` of the phase in which each storage was allocated."""
    paths: list[str] = field(default_factory=list)
    """Module that each was allocated for, with ``*`` for the number of its layer."""
    operators: list[str] = field(default_factory=list)
    layers: list[int] = field(default_factory=list)
    """Group of layers that each storage belongs to, or `NO_LAYER`."""
    labels: dict[int, str] = field(default_factory=dict)
    """Category of the storages whose use is known: ``weights``, ``adapters``, ``gradients``, ``optimizer``,
    ``kv_cache``, ``logits``; the others are activations."""
    events: list[int] = field(default_factory=list)
    scopes: list[int] = field(default_factory=list)
    """For each event the group of layers at work."""
    marks: list[Mark] = field(default_factory=list)
    emptied: list[int] = field(default_factory=list)
    """Indices of events before which cached memory is given back to the driver."""

    def mark(self, name: str, step: int) -> None:
        """Begin a phase at the next event."""
        self.marks.append(Mark(name, step, len(self.events)))

    def allocate(self, size: int, path: str, operator: str, layer: int, scope: int) -> int:
        """Record an allocation and return the number of its storage."""
        number = len(self.sizes)
        self.sizes.append(size)
        self.phases.append(len(self.marks) - 1)
        self.paths.append(path)
        self.operators.append(operator)
        self.layers.append(layer)
        self.events.append(number)
        self.scopes.append(scope)
        return number

    def free(self, number: int, scope: int) -> None:
        """Record that a storage was given back."""
        self.events.append(~number)
        self.scopes.append(scope)

    def phase_spans(self) -> list[tuple[Mark, int, int]]:
        """Each phase with its first event and the one after its last."""
        ends = [mark.start for mark in self.marks[1:]] + [len(self.events)]
        return [(mark, mark.start, end) for mark, end in zip(self.marks, ends)]


@dataclass(frozen=True)
class Mark:
    """The beginning of a phase."""

    name: str
    """``load``, ``prepare``, ``forward``, ``backward``, ``optimizer``, ``zero-grad``, ``prefill``, ``decode``."""
    step: int
    start: int
    """Index of its first event."""


@dataclass(frozen=True)
class PhasePeak:
    """The largest moment of a phase."""

    name: str
    step: int
    live_bytes: int
    event: int
    """The event after which it was reached, or -1 if nothing was allocated in the phase."""


def phase_peaks(trace: Trace) -> list[PhasePeak]:
    """The most bytes live in each phase, in requested bytes."""
    found = []
    live = 0
    for mark, start, end in trace.phase_spans():
        best, at = live, start - 1
        for index in range(start, end):
            number = trace.events[index]
            if number >= 0:
                live += trace.sizes[number]
                if live > best:
                    best, at = live, index
            else:
                live -= trace.sizes[~number]
        found.append(PhasePeak(mark.name, mark.step, best, at))
    return found


def live_after(trace: Trace, event: int) -> list[int]:
    """Numbers of the storages live after `event`, in order of their allocation."""
    live: dict[int, None] = {}
    for number in trace.events[: event + 1]:
        if number >= 0:
            live[number] = None
        else:
            live.pop(~number, None)
    return list(live)


def timeline(trace: Trace, points: int) -> list[tuple[int, int]]:
    """(event, live bytes) at most `points` times, the largest of each stretch, so that no peak is lost."""
    total = len(trace.events)
    stretch = max(1, -(-total // max(1, points)))
    found: list[tuple[int, int]] = []
    live = 0
    best: Optional[tuple[int, int]] = None
    for index, number in enumerate(trace.events):
        live += trace.sizes[number] if number >= 0 else -trace.sizes[~number]
        if best is None or live > best[1]:
            best = (index, live)
        if (index + 1) % stretch == 0 or index + 1 == total:
            found.append(best)
            best = None
    return found
