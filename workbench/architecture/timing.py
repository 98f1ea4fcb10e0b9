"""How long each module of a model takes: a forward pass with nothing but time stamps. Needs torch: worker only."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from workbench.architecture.anatomy import Layer
from workbench.architecture.passes import Hooks, first_tensor, run_forward
from workbench.job import Job
from workbench.models.load import LoadedModel


class Clock:
    """Time stamps of a device: CUDA events where a launch returns before the work is done."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.name = "CUDA events" if device.startswith("cuda") else "processor clock"

    def stamp(self) -> Any:
        """Now, in the order of the work."""
        import torch

        if self._device.startswith("cuda"):
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self._device))
            return event
        if self._device.startswith("mps"):
            torch.mps.synchronize()
        return time.perf_counter()

    def finish(self) -> None:
        """Wait until all stamps have happened."""
        import torch

        if self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)

    @staticmethod
    def between(start: Any, end: Any) -> float:
        """Seconds from one stamp to another."""
        if isinstance(start, float):
            return float(end) - start
        return float(start.elapsed_time(end)) / 1000


@dataclass
class ModuleTime:
    """Time of a module over all its calls."""

    calls: int = 0
    seconds: float = 0.0
    own_seconds: float = 0.0


@dataclass
class TimedPass:
    """What the pass showed.

    Attributes:
        times: by module name; ``""`` is the whole model.
        tail: outermost modules that ran after the last layer, in order: final norm, head.
        stream: what left the last layer at the positions kept, shape ``[positions, hidden]``.
        logits: of the positions kept, shape ``[positions, vocabulary]``; None if the class gives none.
    """

    times: dict[str, ModuleTime] = field(default_factory=dict)
    tail: tuple[str, ...] = ()
    stream: Any = None
    logits: Any = None


@dataclass
class _Call:
    name: str
    start: Any
    parent: Optional[int]
    end: Any = None


class _Stopwatch:
    """Records every call of the watched modules."""

    def __init__(self, clock: Clock, job: Job, layers: Sequence[Layer]) -> None:
        self.calls: list[_Call] = []
        self._clock = clock
        self._job = job
        self._order = {layer.name: layer.index for layer in layers}
        self._last = layers[-1].name
        self._open: list[int] = []
        self._tail_depth: Optional[int] = None
        self.tail: list[str] = []

    def enter(self, name: str) -> None:
        """A module begins."""
        self._job.check()
        if name in self._order:
            self._job.progress("time", self._order[name], len(self._order), "layers")
        if self._tail_depth is not None and len(self._open) <= self._tail_depth:
            self.tail.append(name)
        parent = self._open[-1] if self._open else None
        self._open.append(len(self.calls))
        self.calls.append(_Call(name, self._clock.stamp(), parent))

    def leave(self, name: str) -> None:
        """A module ends."""
        self.calls[self._open.pop()].end = self._clock.stamp()
        if name == self._last:
            self.tail, self._tail_depth = [], len(self._open)
        elif self._tail_depth is not None:
            self._tail_depth = min(self._tail_depth, len(self._open))

    def times(self) -> dict[str, ModuleTime]:
        """Sum the calls up."""
        found: dict[str, ModuleTime] = {}
        for call in self.calls:
            seconds = self._clock.between(call.start, call.end)
            module = found.setdefault(call.name, ModuleTime())
            module.calls += 1
            module.seconds += seconds
            module.own_seconds += seconds
            if call.parent is not None:
                found[self.calls[call.parent].name].own_seconds -= seconds
        return found


def time_modules(
    loaded: LoadedModel,
    ids: Sequence[int],
    layers: Sequence[Layer],
    modules: Iterable[tuple[str, Any]],
    keep: int,
    clock: Clock,
    job: Job,
) -> TimedPass:
    """Run the prompt and time `modules`; `keep` positions of stream and logits are kept."""
    watch = _Stopwatch(clock, job, layers)
    result = TimedPass()

    def keep_stream(output: Any) -> None:
        result.stream = first_tensor(output)[0, -keep:].clone()

    with Hooks() as hooks:
        for name, module in modules:
            hooks.before(module, lambda _args, _kwargs, name=name: watch.enter(name))  # type: ignore[misc]
            hooks.after(module, lambda _output, name=name: watch.leave(name))  # type: ignore[misc]
        hooks.after(layers[-1].module, keep_stream)
        output = run_forward(loaded, ids, keep)
    clock.finish()
    result.times = watch.times()
    result.tail = tuple(watch.tail)
    logits = getattr(output, "logits", None)
    result.logits = None if logits is None else logits[0, -keep:]
    job.progress("time", len(layers), len(layers), "layers")
    return result
