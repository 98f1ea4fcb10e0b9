"""What a simulation says: bytes by category at the peak, phases, timeline, who holds the most. Stdlib only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench.vram.shares import CATEGORIES, Shares
from workbench.vram.simulate.allocator import least_room, replay
from workbench.vram.simulate.trace import NO_LAYER, PhasePeak, Trace, live_after, phase_peaks, timeline

FORMAT_VERSION = 2
"""Raised whenever a simulation's numbers change meaning; kept ones are then made again."""

MAX_TIMELINE_POINTS = 400
MAX_OWNERS = 20
CUDA_CONTEXT_BYTES = 512 * 2**20
"""What a process holds outside torch's allocator: 141 MiB measured on a T4, to 0.6 GB on data-centre cards."""


@dataclass(frozen=True)
class SimulatedPhase:
    """The largest moment of one phase."""

    name: str
    """``load``, ``prepare``, ``forward``, ``backward``, ``optimizer``, ``zero-grad``; ``prefill``, ``between``,
    ``decode``."""
    step: int
    peak_bytes: int
    """As the allocator counts: rounded blocks."""
    reserved_bytes: int
    """At the end of the phase."""


@dataclass(frozen=True)
class TimelinePoint:
    """Live memory at one moment."""

    phase: str
    step: int
    live_bytes: int
    """Bytes asked for; the largest of the moments that this point stands for."""


@dataclass(frozen=True)
class Owner:
    """What holds memory at the peak."""

    module: str
    """Path of the module, with ``*`` for the number of its layer."""
    operator: str
    """What made it, such as ``mm``."""
    category: str
    bytes: int
    count: int
    """How many tensors, over all layers."""


@dataclass(frozen=True)
class Simulation(Shares):
    """One simulated run, at its largest moment."""

    least_bytes: int
    """With how much it still runs: where a GPU has less than `total`, the allocator gives back what it only kept and
    asks again, which takes time at every step."""
    requested_bytes: int
    """The most bytes asked for at once."""
    allocated_bytes: int
    """``torch.cuda.max_memory_allocated``."""
    reserved_bytes: int
    """``torch.cuda.max_memory_reserved``."""
    workspace_bytes: int
    """cuBLAS' part of the overhead."""
    context_bytes: int
    """The CUDA context's part of the overhead."""
    peak_phase: str
    peak_step: int
    phases: tuple[SimulatedPhase, ...]
    timeline: tuple[TimelinePoint, ...]
    owners: tuple[Owner, ...]
    """The largest at the peak, most first."""
    warnings: tuple[str, ...]
    device: str
    """``simgpu``, which makes CUDA's choices, or ``cpu``."""
    layers: int
    """Layers of the model; 0 where they are not counted."""
    layers_run: int
    """Those that were run; the others do the same as one of them."""
    operators: int
    seconds: float
    versions: dict[str, str]
    format_version: int = FORMAT_VERSION


def summarize(
    trace: Trace,
    head: str,
    warnings: Sequence[str],
    device: str,
    layers: int,
    layers_run: int,
    operators: int,
    seconds: float,
    versions: dict[str, str],
) -> Simulation:
    """What a trace says.

    Args:
        trace: of all layers.
        head: path of the module that makes the logits, or empty.
        warnings: one line each.
        device: label of the device.
        layers: of the model.
        layers_run: how many of them were run.
        operators: how many were run.
        seconds: it took.
        versions: of the libraries.
    """
    spans = trace.phase_spans()
    replayed = replay(trace.events, trace.sizes, [start for _mark, start, _end in spans], trace.emptied)
    peaks = phase_peaks(trace)
    peak = max(peaks, key=lambda phase: phase.live_bytes)
    live = live_after(trace, peak.event)
    categories = [category_of(trace, number, head) for number in live]
    sizes = dict.fromkeys(CATEGORIES, 0)
    for number, category in zip(live, categories):
        sizes[category] += trace.sizes[number]
    workspace = sizes.pop("overhead")
    total = replayed.max_reserved_bytes + CUDA_CONTEXT_BYTES
    return Simulation(
        **sizes,
        overhead=total - sum(sizes.values()),
        total=total,
        least_bytes=least_room(trace.events, trace.sizes, trace.emptied, replayed) + CUDA_CONTEXT_BYTES,
        requested_bytes=peak.live_bytes,
        allocated_bytes=replayed.max_allocated_bytes,
        reserved_bytes=replayed.max_reserved_bytes,
        workspace_bytes=workspace,
        context_bytes=CUDA_CONTEXT_BYTES,
        peak_phase=peak.name,
        peak_step=peak.step,
        phases=_phases(peaks, replayed.allocated_peaks[1:], replayed.reserved_at[1:]),
        timeline=_timeline(trace),
        owners=_owners(trace, live, categories),
        warnings=tuple(warnings),
        device=device,
        layers=layers,
        layers_run=layers_run,
        operators=operators,
        seconds=seconds,
        versions=versions,
    )


def category_of(trace: Trace, number: int, head: str) -> str:
    """What a storage is counted as."""
    label = trace.labels.get(number)
    if label is not None:
        return label
    phase = trace.marks[trace.phases[number]].name
    if phase in ("load", "prepare"):
        return "weights"
    if phase == "optimizer":
        return "optimizer"
    # Outside of any module run the loss and what follows it, inside of the model's own the call of the head.
    if trace.layers[number] == NO_LAYER and trace.paths[number] in ("", head):
        return "logits"
    return "activations"


def _phases(
    peaks: Sequence[PhasePeak], allocated: Sequence[int], reserved: Sequence[int]
) -> tuple[SimulatedPhase, ...]:
    return tuple(
        SimulatedPhase(phase.name, phase.step, most, kept) for phase, most, kept in zip(peaks, allocated, reserved)
    )


def _timeline(trace: Trace) -> tuple[TimelinePoint, ...]:
    spans = trace.phase_spans()
    found = []
    position = 0
    for event, live in timeline(trace, MAX_TIMELINE_POINTS):
        while position + 1 < len(spans) and event >= spans[position + 1][1]:
            position += 1
        found.append(TimelinePoint(spans[position][0].name, spans[position][0].step, live))
    return tuple(found)


def _owners(trace: Trace, live: Sequence[int], categories: Sequence[str]) -> tuple[Owner, ...]:
    sums: dict[tuple[str, str, str], list[int]] = {}
    for number, category in zip(live, categories):
        operator = trace.operators[number].rpartition("::")[2].lstrip("_")
        entry = sums.setdefault((trace.paths[number], operator, category), [0, 0])
        entry[0] += trace.sizes[number]
        entry[1] += 1
    largest = sorted(sums.items(), key=lambda item: -item[1][0])[:MAX_OWNERS]
    return tuple(
        Owner(module, operator, category, size, count) for (module, operator, category), (size, count) in largest
    )


def simulation_from_dict(value: dict[str, Any]) -> Simulation:
    """The simulation that `dataclasses.asdict` turned into `value`, after a trip through JSON.

    Raises:
        ValueError, TypeError, KeyError: if `value` is anything else.
    """
    if value["format_version"] != FORMAT_VERSION:
        raise ValueError(f"simulation format {value['format_version']}")
    fields = dict(value)
    fields["phases"] = tuple(SimulatedPhase(**entry) for entry in value["phases"])
    fields["timeline"] = tuple(TimelinePoint(**entry) for entry in value["timeline"])
    fields["owners"] = tuple(Owner(**entry) for entry in value["owners"])
    fields["warnings"] = tuple(str(line) for line in value["warnings"])
    return Simulation(**fields)
