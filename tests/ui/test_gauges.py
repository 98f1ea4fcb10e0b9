from __future__ import annotations

import os
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from workbench.ui.gauges import HISTORY_BINS, History, gauge_reader
from workbench.ui.widgets.bars import sparkline

GIB = 2**30


class NvmlError(Exception):
    pass


class FakeNvml(ModuleType):
    """Answers as NVML does for one GPU; what `lost` names raises instead."""

    NVML_TEMPERATURE_GPU = 0

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.load = 40
        self.lost: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        answers: dict[str, Any] = {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetCount": lambda: 1,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetName": lambda handle: b"NVIDIA L4",
            "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(used=12 * GIB, total=24 * GIB),
            "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=self.load, memory=1),
            "nvmlDeviceGetTemperature": lambda handle, sensor: 61,
            "nvmlDeviceGetPowerUsage": lambda handle: 71_600,
            "nvmlDeviceGetEnforcedPowerLimit": lambda handle: 72_000,
            "nvmlDeviceGetComputeRunningProcesses": lambda handle: [
                SimpleNamespace(pid=os.getpid(), usedGpuMemory=3 * GIB),
                SimpleNamespace(pid=2**22 + 7, usedGpuMemory=None),
            ],
            "nvmlDeviceGetGraphicsRunningProcesses": lambda handle: [],
        }
        if name not in answers:
            raise AttributeError(name)

        def ask(*arguments: Any) -> Any:
            if name in self.lost:
                raise NvmlError(name)
            return answers[name](*arguments)

        return ask


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def test_a_gpu_is_read_with_those_who_hold_its_memory(nvml: FakeNvml) -> None:
    (gpu,) = gauge_reader()().gpus
    assert (gpu.name, gpu.utilization_percent, gpu.temperature_celsius) == ("NVIDIA L4", 40, 61)
    assert (gpu.power_watts, gpu.power_limit_watts) == (72, 72)
    assert gpu.total_bytes == 24 * GIB
    assert [holder.pid for holder in gpu.holders] == [os.getpid(), 2**22 + 7]
    assert gpu.holders[0].name.startswith("py")
    assert gpu.holders[0].memory_bytes == 3 * GIB
    assert (gpu.holders[1].name, gpu.holders[1].memory_bytes) == ("", None)


def test_what_the_driver_does_not_tell_is_unknown_and_the_rest_is_shown(nvml: FakeNvml) -> None:
    read = gauge_reader()
    nvml.lost = {"nvmlDeviceGetMemoryInfo", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetComputeRunningProcesses"}
    (gpu,) = read().gpus
    assert (gpu.total_bytes, gpu.power_watts, gpu.holders) == (0, None, ())
    assert gpu.utilization_percent == 40


def test_the_history_is_a_minute_and_stands_still_while_nothing_changes(nvml: FakeNvml) -> None:
    read = gauge_reader()
    for _ in range(60):
        last = read()
    assert last.gpus[0].utilization_history == (40,) * HISTORY_BINS
    assert read().gpus[0] == last.gpus[0]
    nvml.load = 100
    assert read().gpus[0].utilization_history[-1] > 40


def test_a_bin_is_the_mean_of_three_readings() -> None:
    history = History()
    for percent in (0, 0, 100, 90, 90):
        shown = history.add(percent)
    assert shown == (35, 90)
    assert history.add(None) == shown


def test_no_driver_means_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeNvml()
    fake.lost = {"nvmlInit"}
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    assert gauge_reader()().gpus == ()


@pytest.mark.parametrize(
    ("percents", "width", "shown"),
    [((), 4, "    "), ((0, 50, 100), 5, "  ▁▅█"), ((0, 0, 100, 100), 2, "▁█"), ((7, 200, -5), 3, "▁█▁")],
)
def test_sparkline(percents: tuple[int, ...], width: int, shown: str) -> None:
    assert sparkline(percents, width).plain == shown
