"""The GPUs of this box now and in the last minute, as rows and as an explanation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from textual.content import Content

from workbench.text import format_bytes, gib, one_line
from workbench.ui.gauges import HISTORY_BINS, Gauges, GpuGauge, GpuHolder
from workbench.ui.widgets.bars import left, right, sparkline
from workbench.ui.widgets.row_list import Row

MOST_HOLDERS = 3
"""Processes shown under a GPU; all of them are in its explanation."""
LIVE_KEYS = ("gpu:", "holder:")


def gpu_rows(gauges: Gauges | None, facts: dict[str, Any]) -> Iterator[Row]:
    """One row for each GPU, those that hold its memory below it; one line where there is none.

    Args:
        gauges: the last reading; None before the first.
        facts: of the report, which tell why there may be none.
    """
    if gauges is None or not gauges.gpus:
        told = "reading …" if gauges is None else what_is_lacking(facts)
        yield Row("gpu:none", Content.assemble(left("GPU NOW", 10, "bold $muted"), (told, "$muted")), None, False)
        return
    yield Row("gpu:head", _head, None, False)
    for index, gpu in enumerate(gauges.gpus):
        yield Row(f"gpu:{index}", _line(index, gpu), index)
        for holder in gpu.holders[:MOST_HOLDERS]:
            yield Row(f"holder:{index}.{holder.pid}", _holder_line(holder), None, False)
        hidden = len(gpu.holders) - MOST_HOLDERS
        if hidden > 0:
            yield Row(
                f"holder:{index}.more",
                Content.styled(f"    and {hidden} more, enter shows them", "$muted"),
                None,
                False,
            )


def what_is_lacking(facts: dict[str, Any]) -> str:
    """Why no GPU can be watched, in one line."""
    platform, driver = facts.get("platform") or {}, facts.get("driver") or {}
    vendors, devices = platform.get("gpu_vendors"), platform.get("devices") or ()
    if driver.get("error"):
        return f"the NVIDIA driver does not answer: {one_line(str(driver['error']), 120)}"
    if "nvidia" in (vendors or ()) and not platform.get("modules"):
        return "an NVIDIA GPU is on the bus, but no driver is loaded"
    if any(str(node).startswith("/dev/nvidia") for node in devices):
        return "/dev/nvidia* is there, the driver's library libnvidia-ml is not"
    if "amd" in (vendors or ()) or "/dev/kfd" in devices:
        return "an AMD GPU; live readings are of NVIDIA's only, see rocm-smi"
    if "apple" in (vendors or ()):
        return "Apple's, which shares the Mac's memory; no live readings of it"
    if vendors == [] or vendors == ():
        return "none on the PCI bus; models run on the CPU"
    if vendors == ["intel"]:
        return "none but Intel graphics; models run on the CPU"
    return "no NVIDIA GPU answers: no driver, or a container without --gpus"


def _layout(width: int) -> tuple[int, int, int]:
    """Cells for the name, the line of load and the line of memory at a width."""
    if width >= 98:
        return min(30, width - 74), HISTORY_BINS, HISTORY_BINS
    if width >= 70:
        return width - 54, HISTORY_BINS, 0
    return max(8, width - 44), HISTORY_BINS // 2, 0


def _cells(width: int, cells: tuple[Content | str, ...]) -> Content:
    name, load, memory, load_line, memory_line, celsius, watts = cells
    name_width, load_width, memory_width = _layout(width)
    parts: list[str | Content] = [
        _left(name, name_width),
        _right(load, 6),
        " ",
        _left(load_line, load_width),
        _right(memory, 14),
    ]
    if memory_width:
        parts += [" ", _left(memory_line, memory_width)]
    return Content.assemble(*parts, _right(celsius, 6), _right(watts, 6))


def _left(cell: Content | str, width: int) -> Content:
    content = Content(cell) if isinstance(cell, str) else cell
    return content.truncate(width, ellipsis=True, pad=True)


def _right(cell: Content | str, width: int) -> Content:
    content = Content(cell) if isinstance(cell, str) else cell
    return content.pad_left(max(0, width - content.cell_length))


def _head(width: int) -> Content:
    heads = ("GPU NOW", "load", "GiB", "last minute", "last minute", "°C", "W")
    if width < 70:
        heads = (*heads[:3], "1 minute", *heads[4:])
    return _cells(width, tuple(Content.styled(text, "bold $muted") for text in heads))


def _line(index: int, gpu: GpuGauge) -> Callable[[int], Content]:
    def line(width: int) -> Content:
        name_width, load_width, memory_width = _layout(width)
        if gpu.utilization_percent is None and not gpu.total_bytes and gpu.temperature_celsius is None:
            return Content.assemble(left(f"{index} {short_name(gpu)}", name_width), ("  does not answer", "$warn"))
        return _cells(
            width,
            (
                f"{index} {short_name(gpu)}",
                _known(gpu.utilization_percent, " %"),
                memory_text(gpu),
                sparkline(gpu.utilization_history, load_width),
                sparkline(gpu.memory_history, memory_width, _memory_style(gpu)) if memory_width else "",
                _known(gpu.temperature_celsius),
                _known(gpu.power_watts),
            ),
        )

    return line


def _known(value: int | None, unit: str = "") -> str:
    return "–" if value is None else f"{value:,}{unit}"


def short_name(gpu: GpuGauge) -> str:
    """Without the maker's names that all of them share."""
    return one_line(gpu.name.removeprefix("NVIDIA ").removeprefix("GeForce "), 60)


def memory_text(gpu: GpuGauge) -> str:
    """``5.7 / 22.5``, in GiB."""
    return f"{gib(gpu.used_bytes, 1)} / {gib(gpu.total_bytes, 1)}" if gpu.total_bytes else "–"


def _memory_style(gpu: GpuGauge) -> str:
    fraction = gpu.used_bytes / gpu.total_bytes if gpu.total_bytes else 0.0
    return "$bad" if fraction > 0.95 else "$warn" if fraction > 0.85 else "$accent"


def _holder_line(holder: GpuHolder) -> Callable[[int], Content]:
    def line(width: int) -> Content:
        memory = "?" if holder.memory_bytes is None else format_bytes(holder.memory_bytes)
        name = Content.assemble(("    ", ""), (f"{holder.pid:<8}", "$muted"), _holder_name(holder))
        return Content.assemble(_left(name, max(20, width - 12)), right(memory, 12))

    return line


def _holder_name(holder: GpuHolder) -> Content:
    return Content(holder.name) if holder.name else Content.styled("a process outside this container", "$muted")


def gpu_detail(index: int, gauges: Gauges | None) -> Content:
    """All that is read of one GPU."""
    if gauges is None or index >= len(gauges.gpus):
        return Content.styled("This GPU does not answer any more.", "$warn")
    gpu = gauges.gpus[index]
    limit = f" of {gpu.power_limit_watts} W" if gpu.power_limit_watts else " W"
    power = "unknown" if gpu.power_watts is None else f"{gpu.power_watts}{limit}"
    celsius = "unknown" if gpu.temperature_celsius is None else f"{gpu.temperature_celsius} °C"
    share = f" · {100 * gpu.used_bytes // gpu.total_bytes} %" if gpu.total_bytes else ""
    memory = f"{memory_text(gpu)} GiB{share}" if gpu.total_bytes else "unknown"
    figures = [
        ("load", _known(gpu.utilization_percent, " %")),
        ("memory", memory),
        ("heat", celsius),
        ("power", power),
    ]
    lines = [Content.assemble(left(name, 10, "$muted"), value) for name, value in figures]
    history = [
        Content.assemble(left("load", 10, "$muted"), sparkline(gpu.utilization_history, HISTORY_BINS)),
        Content.assemble(left("memory", 10, "$muted"), sparkline(gpu.memory_history, HISTORY_BINS, _memory_style(gpu))),
    ]
    blocks = [
        Content.styled(f"GPU {index}: {one_line(gpu.name)}", "bold"),
        Content("\n").join(lines),
        Content.assemble(("LAST MINUTE", "bold $muted"), "\n", Content("\n").join(history)),
    ]
    held = [
        Content.assemble(
            right("?" if holder.memory_bytes is None else format_bytes(holder.memory_bytes), 10),
            (f"  {holder.pid:<8} ", "$muted"),
            _holder_name(holder),
        )
        for holder in gpu.holders
    ] or [Content.styled("  no process that the driver lists", "$muted")]
    blocks.append(Content.assemble(("WHO HOLDS ITS MEMORY", "bold $muted"), "\n", Content("\n").join(held)))
    return Content("\n\n").join(blocks)
