"""Live readings of this box: GPU memory and load from NVML, else RAM and CPU. Libraries are imported in the thread."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

INTERVAL_SECONDS = 1.0


@dataclass(frozen=True)
class GpuGauge:
    """One GPU now."""

    name: str
    used_bytes: int
    total_bytes: int
    utilization_percent: int | None = None


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


def _nvml_reader() -> Callable[[], tuple[GpuGauge, ...]] | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        names = [_text(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
    except Exception:  # NVML raises its own hierarchy and OSError; any of them means "no gauge"
        return None

    def read() -> tuple[GpuGauge, ...]:
        readings = []
        for name, handle in zip(names, handles, strict=True):
            with contextlib.suppress(Exception):
                memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
                readings.append(GpuGauge(name, _coarse(memory.used), memory.total, _load(pynvml, handle)))
        return tuple(readings)

    return read if handles else None


def _load(pynvml: Any, handle: Any) -> int | None:
    with contextlib.suppress(Exception):
        percent: int = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu
        return 5 * round(percent / 5)
    return None


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
