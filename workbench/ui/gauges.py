"""Live readings of this box: GPUs from NVML, RAM and CPU. Libraries are imported in the thread."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import PurePath
from typing import Any

from workbench.text import one_line

INTERVAL_SECONDS = 1.0
HISTORY_BINS, READINGS_PER_BIN = 20, 3
"""A minute of readings; the line they draw moves every third second and costs bytes only then."""


@dataclass(frozen=True)
class GpuHolder:
    """A process that holds GPU memory."""

    pid: int
    name: str
    """Program and user; empty for a process outside this container."""
    memory_bytes: int | None = None


@dataclass(frozen=True)
class GpuGauge:
    """One GPU now, and in the minute before. None is what the driver does not tell."""

    name: str
    used_bytes: int
    """0, as the total, where the driver counts no memory of the GPU's own."""
    total_bytes: int
    utilization_percent: int | None = None
    temperature_celsius: int | None = None
    power_watts: int | None = None
    power_limit_watts: int | None = None
    holders: tuple[GpuHolder, ...] = ()
    """Who holds memory, the most first."""
    utilization_history: tuple[int, ...] = ()
    """Percent, the oldest first, each over three seconds."""
    memory_history: tuple[int, ...] = ()


@dataclass(frozen=True)
class Gauges:
    """One reading, already rounded to what a screen shows, so that equal readings look equal."""

    gpus: tuple[GpuGauge, ...] = ()
    ram_used_bytes: int = 0
    ram_total_bytes: int = 0
    cpu_percent: int = 0


ReadGauges = Callable[[], Gauges]


def gauge_reader() -> ReadGauges:
    """A function that reads the gauges; imports what it needs, and does without what is not there."""
    import psutil

    gpus = _nvml_reader()
    psutil.cpu_percent()

    def read() -> Gauges:
        memory = psutil.virtual_memory()
        return Gauges(
            gpus=gpus() if gpus else (),
            ram_used_bytes=_coarse(memory.total - memory.available),
            ram_total_bytes=memory.total,
            cpu_percent=5 * round(psutil.cpu_percent() / 5),
        )

    return read


def _coarse(count_bytes: int) -> int:
    step = 2**30 // 10
    return count_bytes // step * step


class History:
    """The last minute of a percentage."""

    def __init__(self) -> None:
        self._bins: deque[int] = deque(maxlen=HISTORY_BINS)
        self._readings: list[int] = []

    def add(self, percent: int | None) -> tuple[int, ...]:
        """Take a reading, None keeping the last one; the history with it."""
        if percent is None:
            return tuple(self._bins)
        if not self._readings or len(self._readings) == READINGS_PER_BIN:
            self._readings = []
            self._bins.append(0)
        self._readings.append(percent)
        self._bins[-1] = 5 * round(sum(self._readings) / len(self._readings) / 5)
        return tuple(self._bins)


class _Gpu:
    """Reads one GPU; whatever the driver does not tell stays unknown."""

    def __init__(self, nvml: Any, handle: Any, describe: Callable[[int], str]) -> None:
        self._nvml = nvml
        self._handle = handle
        self._describe = describe
        self._name = _text(nvml.nvmlDeviceGetName(handle))
        self._load, self._memory = History(), History()

    def read(self) -> GpuGauge:
        nvml, handle = self._nvml, self._handle
        used, total = self._ask(lambda: _memory(nvml.nvmlDeviceGetMemoryInfo(handle))) or (0, 0)
        load = self._ask(lambda: int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu))
        celsius = self._ask(lambda: int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)))
        watts = self._ask(lambda: round(nvml.nvmlDeviceGetPowerUsage(handle) / 1000))
        limit = self._ask(lambda: round(nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000))
        return GpuGauge(
            name=self._name,
            used_bytes=_coarse(used),
            total_bytes=total,
            utilization_percent=None if load is None else 5 * round(load / 5),
            temperature_celsius=celsius,
            power_watts=watts,
            power_limit_watts=limit,
            holders=self._holders(),
            utilization_history=self._load.add(load),
            memory_history=self._memory.add(round(100 * used / total) if total else None),
        )

    def _ask(self, reading: Callable[[], Any]) -> Any:
        with contextlib.suppress(Exception):  # NVML raises its own hierarchy; any of it means "not told"
            return reading()
        return None

    def _holders(self) -> tuple[GpuHolder, ...]:
        held: dict[int, int | None] = {}
        for kind in ("Graphics", "Compute"):
            list_processes = getattr(self._nvml, f"nvmlDeviceGet{kind}RunningProcesses", None)
            listed = self._ask(partial(list_processes, self._handle)) if list_processes else None
            held.update({process.pid: process.usedGpuMemory for process in listed or ()})
        holders = (GpuHolder(pid, self._describe(pid), _rounded(memory)) for pid, memory in held.items())
        return tuple(sorted(holders, key=lambda holder: (-(holder.memory_bytes or 0), holder.pid)))


def _memory(info: Any) -> tuple[int, int]:
    return info.used, info.total


def _rounded(count_bytes: int | None) -> int | None:
    step = 2**24
    return None if count_bytes is None else round(count_bytes / step) * step


def _nvml_reader() -> Callable[[], tuple[GpuGauge, ...]] | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        names = ProcessNames()
        gpus = [_Gpu(pynvml, handle, names) for handle in handles]
    except Exception:  # NVML raises its own hierarchy and OSError; any of them means "no gauge"
        return None

    def read() -> tuple[GpuGauge, ...]:
        return tuple(gpu.read() for gpu in gpus)

    return read if gpus else None


class ProcessNames:
    """Program and user of processes by id, each looked up once while it lives."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, str]] = {}

    def __call__(self, pid: int) -> str:
        import psutil

        known = self._known.get(pid)
        if known is not None and known[0].is_running():
            return known[1]
        try:
            process = psutil.Process(pid)
            name = describe_process(process)
        except psutil.Error:
            self._known.pop(pid, None)
            return ""
        self._known[pid] = process, name
        return name


def describe_process(process: Any) -> str:
    """``python train.py · ada``; of the command line no more than a script or module, as options may hold secrets."""
    import psutil

    words = [process.name()]
    with contextlib.suppress(psutil.Error):
        arguments = process.cmdline()[1:3]
        if arguments[:1] == ["-m"]:
            words += arguments
        elif arguments and arguments[0].endswith(".py"):
            words.append(PurePath(arguments[0]).name)
    with contextlib.suppress(psutil.Error, KeyError):
        words += ["·", process.username()]
    return one_line(" ".join(words), 80)


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


class GaugeThread(threading.Thread):
    """Reads once a second and hands on readings that differ from the last. A daemon: it never delays leaving.

    Args:
        deliver: called in this thread with each new reading; must not block.
        make_reader: gives the reading function; called in this thread, since it imports.
    """

    def __init__(self, deliver: Callable[[Gauges], object], make_reader: Callable[[], ReadGauges]) -> None:
        super().__init__(name="gauges", daemon=True)
        self._deliver = deliver
        self._make_reader = make_reader
        self._ended = threading.Event()

    def end(self) -> None:
        """Ask the thread to end at its next tick."""
        self._ended.set()

    def run(self) -> None:
        read = self._make_reader()
        last = None
        while not self._ended.is_set():
            reading = read()
            if reading != last:
                last = reading
                self._deliver(reading)
            self._ended.wait(INTERVAL_SECONDS)
