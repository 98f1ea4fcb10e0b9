"""A plan's steps on a CUDA GPU: the allocator's counters by phase, then categories by tracking. Needs torch.

Not yet run on a GPU: written from torch 2.13's and the driver's documentation, named beside each call.
"""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any, Optional

from workbench.job import Job
from workbench.vram import measure_run as running
from workbench.vram.measure import check_room
from workbench.vram.measured import MeasuredPhase, Measurement
from workbench.vram.quiet import quiet
from workbench.vram.shares import CATEGORIES
from workbench.vram.simulate.device import replaced
from workbench.vram.simulate.engine import head_of
from workbench.vram.simulate.loading import Built, build, groups_of
from workbench.vram.simulate.trace import Trace
from workbench.vram.simulate.tracker import Scopes, make_tracker

MIB = 2**20
SMI_SECONDS = 10.0


class Driver:
    """What the driver says this process holds."""

    def __init__(self) -> None:
        """Look at the GPUs before this process has a context on any."""
        self._before = {row[0]: int(row[1]) * MIB for row in smi("gpu", "uuid", "memory.used") if row[1].isdigit()}
        self._others: Optional[int] = None
        self._torch: Any = None

    def begin(self, torch: Any) -> str:
        """Make the context, as the first matrix product does, and return the GPU's name."""
        self._torch = torch
        square = torch.ones((64, 64), device="cuda")
        (square @ square).sum().item()
        # ``uuid`` of torch.cuda.get_device_properties, which nvidia-smi writes with a prefix.
        properties = torch.cuda.get_device_properties(0)
        self._others = self._before.get(f"GPU-{getattr(properties, 'uuid', '')}")
        return str(properties.name)

    @property
    def knows_others(self) -> bool:
        """Whether it is known what other processes held before."""
        return self._others is not None

    def free_bytes(self) -> int:
        """Free on the device (torch.cuda.mem_get_info: cudaMemGetInfo's free and total)."""
        return int(self._torch.cuda.mem_get_info()[0])

    def process_bytes(self) -> int:
        """Of this process: used on the device now, less what others used before."""
        free, total = self._torch.cuda.mem_get_info()
        return max(0, int(total) - int(free) - (self._others or 0))

    def listed_bytes(self) -> Optional[int]:
        """Of this process by its number; None in a container whose numbers are not the driver's."""
        for row in smi("compute-apps", "pid", "used_memory"):
            if row[0] == str(os.getpid()) and row[1].isdigit():
                return int(row[1]) * MIB
        return None


def smi(what: str, *fields: str) -> list[list[str]]:
    """Rows of ``nvidia-smi --query-<what>``; none if it does not answer (nvidia-smi(1), --help-query-gpu)."""
    command = ["nvidia-smi", f"--query-{what}={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SMI_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    return [row for row in rows if len(row) == len(fields)] if done.returncode == 0 else []


class Counters(running.Watch):
    """Reads the allocator's counters at the end of each phase."""

    def __init__(self, torch: Any, driver: Driver, check: Any) -> None:
        super().__init__(None)
        self._cuda = torch.cuda
        self._driver = driver
        self._check = check

    def begin(self, phase: str, step: int) -> None:
        """Begin a phase: what is queued is finished first, so that times and peaks are its own."""
        self._check()
        self.end()
        # torch.cuda.reset_peak_memory_stats: the peaks start again from what is held now.
        self._cuda.reset_peak_memory_stats()
        super().begin(phase, step)

    def ended(self, name: str, step: int, started: float) -> MeasuredPhase:
        """The phase's own peaks: max_memory_allocated and max_memory_reserved since the last reset."""
        self._cuda.synchronize()
        seconds = time.perf_counter() - started
        return MeasuredPhase(
            name,
            step,
            int(self._cuda.max_memory_allocated()),
            int(self._cuda.max_memory_reserved()),
            self._driver.process_bytes(),
            seconds,
        )


def run_on_gpu(subject: running.Subject, needed: int, job: Job) -> Measurement:
    """Run it on the first GPU: once with counters and clock alone, and once more to tell the categories apart.

    Raises:
        WorkbenchError: ``too-large``, and as loading; torch's own when memory runs out.
    """
    driver = Driver()
    import torch

    started = time.perf_counter()
    running.import_libraries(subject.plan)
    built = build(subject.config, subject.plan, True)
    name = driver.begin(torch)
    check_room(needed, driver.free_bytes() if needed else None, f"the memory of {name}")
    _tell_versions(torch, subject)
    if not driver.knows_others:
        subject.notes.append("nvidia-smi did not answer: what other processes hold on this GPU is counted too.")
    counters = Counters(torch, driver, job.check)
    with quiet(), attention_of(torch, subject.plan.attention):
        running.report(job, subject.plan, "load", 0)
        counters.begin("load", 0)
        model = running.open_model(torch, subject, built, counters, job)
        counters.end()
        prepared = running.run_job(torch, model, built, subject, counters, None, job)
        counters.end()
        phases = running.merged(counters.phases)
        reserved_now = int(torch.cuda.memory_reserved())
        process_now = driver.listed_bytes() or driver.process_bytes()
        # What one run leaves must not stand in the way of the next.
        gc.collect()
        torch.cuda.empty_cache()
        sizes, requested = _categories(torch, subject, built, model, prepared, phases, job)
    reserved = max(phase.reserved_bytes for phase in phases)
    total = max(0, process_now - reserved_now) + reserved
    peak = max(phases, key=lambda phase: phase.peak_bytes)
    sizes["overhead"] = total - sum(size for category, size in sizes.items() if category != "overhead")
    return Measurement(
        **sizes,
        total=total,
        requested_bytes=requested,
        allocated_bytes=peak.peak_bytes,
        reserved_bytes=reserved,
        process_bytes=process_now,
        peak_phase=peak.name,
        peak_step=peak.step,
        phases=tuple(phases),
        step_seconds=running.step_seconds(phases),
        device_kind="cuda",
        device=name,
        weights_from=subject.weights_from,
        notes=tuple(subject.notes),
        versions=subject.versions,
        seconds=time.perf_counter() - started,
    )


def _tell_versions(torch: Any, subject: running.Subject) -> None:
    subject.versions["cuda"] = str(torch.version.cuda)
    driver = smi("gpu", "driver_version")
    if driver:
        subject.versions["driver"] = driver[0][0]
    settings = os.environ.get("PYTORCH_CUDA_ALLOC_CONF") or os.environ.get("PYTORCH_ALLOC_CONF")
    if settings:
        subject.notes.append(f"The allocator ran with {settings[:120]}.")


def _categories(
    torch: Any,
    subject: running.Subject,
    built: Built,
    model: Any,
    prepared: Any,
    phases: list[MeasuredPhase],
    job: Job,
) -> tuple[dict[str, int], int]:
    """Bytes by category at the peak and their sum, from the same steps once more, this time under the tracker."""
    trace = Trace()
    scopes = Scopes(groups_of(built))
    watch = running.Watch(make_tracker(trace, scopes, "cuda", {}, 0, job.check))
    try:
        with running.watched(torch, watch):
            watch.begin("load", 0)
            running.adopt(watch, trace, scopes, model, "cuda")
            running.run_steps(torch, prepared, built, subject, watch, scopes, job)
            watch.end()
            watch.tracker.open = False
    except Exception as error:
        # The counters are what was asked for; they stand without this.
        subject.notes.append(f"Tracking failed, so that only weights and the rest are told apart: {error!r:.120}")
        return _weights_and_rest(model, phases)
    peak, sizes = running.sizes_at_peak(trace, head_of(model))
    return sizes, peak.live_bytes


def _weights_and_rest(model: Any, phases: list[MeasuredPhase]) -> tuple[dict[str, int], int]:
    from workbench.models.memory import storages

    sizes = dict.fromkeys(CATEGORIES, 0)
    sizes["weights"] = sum(storage.nbytes() for storage in storages(model))
    most = max(phase.peak_bytes for phase in phases)
    sizes["activations"] = max(0, most - sizes["weights"])
    return sizes, most


@contextlib.contextmanager
def attention_of(torch: Any, attention: str) -> Iterator[None]:
    """Let ``scaled_dot_product_attention`` take the kernel that the plan names (torch.nn.attention.sdpa_kernel)."""
    backends = {"flash": "FLASH_ATTENTION", "efficient": "EFFICIENT_ATTENTION"}
    if attention not in backends:
        yield
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel

    functional = torch.nn.functional
    original = functional.scaled_dot_product_attention

    def attend(query: Any, key: Any, value: Any, *arguments: Any, **named: Any) -> Any:
        if attention == "flash" and query.dtype == torch.float32:
            # As transformers' flash integration does where k-bit preparation has made the stream float32.
            query, key, value = (tensor.to(torch.bfloat16) for tensor in (query, key, value))
        groups = query.shape[-3] // key.shape[-3]
        if attention == "efficient" and groups > 1:
            # This kernel takes as many key as query heads (sdp_utils.cpp, check_batch_size_and_num_heads_dense).
            key, value = (tensor.repeat_interleave(groups, -3) for tensor in (key, value))
            named.pop("enable_gqa", None)
        return original(query, key, value, *arguments, **named)

    with (
        sdpa_kernel(getattr(SDPBackend, backends[attention])),
        replaced(functional, "scaled_dot_product_attention", attend),
    ):
        yield
