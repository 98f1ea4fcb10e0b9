"""From a trace of a few layers to that of all of them. Stdlib only.

Layers that are alike do the same work, so the events of one in the middle are repeated for those left out. It is
checked that two neighbours in the middle really do the same, event by event; where they don't, or where layers
are not alike, all of them have to be run.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Optional

from workbench.vram.simulate.trace import NO_LAYER, Mark, Trace

TEMPLATE = 1
"""The group whose events are repeated; the one after it must do the same."""
GROUPS = 4
"""First, two in the middle, last: the first and the last have neighbours of other kinds."""


@dataclass(frozen=True)
class LayerChoice:
    """Which layers are run, and how often the middle one stands for others."""

    kept: tuple[int, ...]
    """Numbers of the layers run, in order."""
    groups: tuple[int, ...]
    """The group of each."""
    copies: int
    """How many groups like the template are left out."""


def choose_layers(signatures: Sequence[Hashable]) -> LayerChoice:
    """Leave out what repeats: layers with equal signatures, or a pattern of several that repeats.

    Layers before the pattern (leading dense layers of a mixture) and a rest after its last whole repetition
    are kept.
    """
    total = len(signatures)
    best = LayerChoice(tuple(range(total)), tuple(range(total)), 0)
    for period in range(1, total // (GROUPS + 1) + 1):
        for prefix in range(total - (GROUPS + 1) * period + 1):
            repeats = _repeats(signatures, prefix, period)
            if repeats > GROUPS:
                kept = total - (repeats - GROUPS) * period
                if kept < len(best.kept):
                    best = _choice(total, prefix, period, repeats)
    return best


def _repeats(signatures: Sequence[Hashable], prefix: int, period: int) -> int:
    end = prefix + period
    while end < len(signatures) and signatures[end] == signatures[end - period]:
        end += 1
    return (end - prefix) // period


def _choice(total: int, prefix: int, period: int, repeats: int) -> LayerChoice:
    left_out = range(prefix + 2 * period, prefix + (2 + repeats - GROUPS) * period)
    kept = tuple(number for number in range(total) if number not in left_out)
    groups = tuple(min(max(position - prefix, 0) // period, GROUPS - 1) for position in range(len(kept)))
    return LayerChoice(kept, groups, repeats - GROUPS)


@dataclass(frozen=True)
class _Run:
    """Consecutive events of one group within a phase."""

    scope: int
    start: int
    end: int


def expand(trace: Trace, copies: int) -> Optional[Trace]:
    """The trace with the template's events repeated for `copies` further groups.

    Returns:
        None if the template and the group after it do not do the same: all layers have to be run.
    """
    if copies == 0:
        return trace
    twins = _twins(trace)
    if twins is None:
        return None
    return _Expansion(trace, copies, twins).run()


def _runs(trace: Trace, start: int, end: int) -> list[_Run]:
    runs = []
    first = start
    for index in range(start + 1, end + 1):
        if index == end or trace.scopes[index] != trace.scopes[first]:
            runs.append(_Run(trace.scopes[first], first, index))
            first = index
    return runs if end > start else []


def _ordinals(trace: Trace) -> list[tuple[int, int]]:
    """For each storage its phase and its place among those that its group allocates in that phase."""
    counts: dict[tuple[int, int], int] = {}
    places = []
    for number in range(len(trace.sizes)):
        key = (trace.phases[number], trace.layers[number])
        counts[key] = counts.get(key, -1) + 1
        places.append((key[0], counts[key]))
    return places


def _twins(trace: Trace) -> Optional[dict[int, int]]:
    """Index of each template event to that of the same event in the next group; None if the groups differ."""
    places = _ordinals(trace)
    twins: dict[int, int] = {}
    for _mark, start, end in trace.phase_spans():
        runs = _runs(trace, start, end)
        ours = [run for run in runs if run.scope == TEMPLATE]
        theirs = [run for run in runs if run.scope == TEMPLATE + 1]
        if len(ours) != len(theirs):
            return None
        for our, their in zip(ours, theirs):
            if our.end - our.start != their.end - their.start:
                return None
            for index in range(our.start, our.end):
                twin = index - our.start + their.start
                if not _same(trace, places, index, twin):
                    return None
                twins[index] = twin
    return twins


def _same(trace: Trace, places: list[tuple[int, int]], index: int, twin: int) -> bool:
    one, other = trace.events[index], trace.events[twin]
    if (one < 0) != (other < 0):
        return False
    one, other = (one, other) if one >= 0 else (~one, ~other)
    if trace.sizes[one] != trace.sizes[other]:
        return False
    shift = trace.layers[one] - TEMPLATE
    if trace.layers[one] == NO_LAYER or trace.layers[other] == NO_LAYER:
        return False
    if trace.layers[other] - (TEMPLATE + 1) != shift or abs(shift) > 1:
        return False
    return shift != 0 or places[one] == places[other]


def _descends(runs: list[_Run], position: int) -> bool:
    """Whether groups come in descending order around a template run, as in a backward pass."""
    for run in runs[position + 1 :]:
        if run.scope not in (NO_LAYER, TEMPLATE):
            return run.scope < TEMPLATE
    for run in reversed(runs[:position]):
        if run.scope not in (NO_LAYER, TEMPLATE):
            return run.scope > TEMPLATE
    return False


class _Expansion:
    def __init__(self, trace: Trace, copies: int, twins: dict[int, int]) -> None:
        self._trace = trace
        self._copies = copies
        self._twins = twins
        self._out = Trace()
        self._places = _ordinals(trace)
        self._numbers: dict[tuple[int, int], int] = {}
        """(storage, copy) to the number in the new trace; storages not of the template have copy 0."""
        self._template_at = {
            place: number for number, place in enumerate(self._places) if trace.layers[number] == TEMPLATE
        }

    def run(self) -> Trace:
        for mark, start, end in self._trace.phase_spans():
            self._out.marks.append(Mark(mark.name, mark.step, len(self._out.events)))
            runs = _runs(self._trace, start, end)
            for position, run in enumerate(runs):
                self._out.emptied += [len(self._out.events) for at in self._trace.emptied if run.start <= at < run.end]
                if run.scope == TEMPLATE:
                    order = range(self._copies + 1)
                    for copy in reversed(order) if _descends(runs, position) else order:
                        for index in range(run.start, run.end):
                            self._repeat(index, copy)
                else:
                    for index in range(run.start, run.end):
                        self._once(index, run.scope)
        return self._out

    def _once(self, index: int, scope: int) -> None:
        event = self._trace.events[index]
        if event >= 0:
            self._allocate(event, 0, scope)
            return
        number = ~event
        if self._trace.layers[number] != TEMPLATE:
            self._free(number, 0, scope)
        elif scope == NO_LAYER:
            for copy in range(self._copies + 1):
                self._free(number, copy, scope)
        else:
            self._free(number, self._copies if scope > TEMPLATE else 0, scope)

    def _repeat(self, index: int, copy: int) -> None:
        event = self._trace.events[index]
        if event >= 0:
            self._allocate(event, copy, TEMPLATE)
            return
        number = ~event
        shift = self._trace.layers[number] - TEMPLATE
        if shift == 0:
            self._free(number, copy, TEMPLATE)
        elif shift < 0:
            # What the group before left: for the first copy that group itself, else the copy before.
            twin = ~self._trace.events[self._twins[index]]
            self._free(*((number, 0) if copy == 0 else (twin, copy - 1)), TEMPLATE)
        else:
            ours = self._template_at[self._places[number]]
            self._free(*((number, 0) if copy == self._copies else (ours, copy + 1)), TEMPLATE)

    def _allocate(self, number: int, copy: int, scope: int) -> None:
        trace, out = self._trace, self._out
        new = len(out.sizes)
        out.sizes.append(trace.sizes[number])
        out.phases.append(trace.phases[number])
        out.paths.append(trace.paths[number])
        out.operators.append(trace.operators[number])
        out.layers.append(trace.layers[number])
        out.events.append(new)
        out.scopes.append(scope)
        self._numbers[number, copy] = new
        if number in trace.labels:
            out.labels[new] = trace.labels[number]

    def _free(self, number: int, copy: int, scope: int) -> None:
        self._out.events.append(~self._numbers[number, copy])
        self._out.scopes.append(scope)
