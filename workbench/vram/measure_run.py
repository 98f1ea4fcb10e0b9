"""A plan's steps on real tensors, on the CPU by storage accounting, on a GPU by its counters. Needs torch.

The steps are those of the simulation, called on a model with data: what differs is what the two rungs are to tell.
"""

from __future__ import annotations

import contextlib
import resource
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

from workbench.errors import JobCancelled, WorkbenchError
from workbench.job import Job
from workbench.models.load import LoadOptions, load_model
from workbench.models.memory import own_tensors
from workbench.packages import need
from workbench.vram.measure import check_room, cpu_needs, free_memory_bytes
from workbench.vram.measured import MeasuredPhase, Measurement
from workbench.vram.plan import Plan, changed, plan_from_dict
from workbench.vram.quiet import quiet
from workbench.vram.shares import CATEGORIES
from workbench.vram.simulate import inference, training
from workbench.vram.simulate.engine import head_of
from workbench.vram.simulate.engine import run as simulate_steps
from workbench.vram.simulate.loading import Built, build, groups_of, load
from workbench.vram.simulate.result import category_of
from workbench.vram.simulate.trace import NO_LAYER, Trace, live_after, phase_peaks
from workbench.vram.simulate.tracker import Scopes, make_tracker

WRITES_TEXT = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


@dataclass
class Subject:
    """What is run, and on what."""

    config: dict[str, Any]
    plan: Plan
    directory: Optional[str]
    device: str
    """As torch calls it."""
    versions: dict[str, str]
    notes: list[str]
    weights_from: str = "random"


class Watch:
    """What the steps are told to report to: passes it on to a tracker, and notes how long each phase took."""

    def __init__(self, tracker: Any) -> None:
        self.tracker = tracker
        self.phases: list[MeasuredPhase] = []
        self._open: Optional[tuple[str, int, float]] = None

    def begin(self, phase: str, step: int) -> None:
        """Begin a phase, ending the one before."""
        self.end()
        if self.tracker is not None:
            self.tracker.begin(phase, step)
        self._open = (phase, step, time.perf_counter())

    def end(self) -> None:
        """End the phase that runs."""
        if self._open is not None:
            name, step, started = self._open
            self._open = None
            self.phases.append(self.ended(name, step, started))

    def ended(self, name: str, step: int, started: float) -> MeasuredPhase:
        """What there is to say of a phase that ends now."""
        return MeasuredPhase(name, step, 0, 0, _resident_bytes(), time.perf_counter() - started)

    def label(self, tensor: Any, category: str) -> None:
        """Say what a tensor's storage is."""
        if self.tracker is not None:
            self.tracker.label(tensor, category)

    def working_on(self, path: str) -> Any:
        """Attribute what is allocated to the module or parameter `path`."""
        return self.tracker.working_on(path) if self.tracker is not None else contextlib.nullcontext()

    def empty_cache(self) -> None:
        """Where peft gives cached memory back to the driver, which it does itself."""


def run(request: dict[str, Any], job: Job) -> Measurement:
    """Answer a request of `workbench.vram.measure`.

    Raises:
        WorkbenchError: ``no-device``, ``too-large``, ``missing-package``, and as loading.
    """
    import torch

    plan = plan_from_dict(request["plan"])
    device = _device(torch, request["device"])
    subject = Subject(request["config"], plan, request["directory"], device, dict(request["versions"]), [])
    if plan.trains and plan.accumulation > 2:
        subject.notes.append("Two batches of the accumulation were run; the others do the same.")
    if device != "cpu":
        from workbench.vram.measure_cuda import run_on_gpu

        return run_on_gpu(subject, int(request["total_bytes"]), job)
    check_room(cpu_needs(int(request["allocated_bytes"])), free_memory_bytes(), "RAM")
    _limit_memory()
    return replace(run_on_cpu(subject, job), cpu_simulated_bytes=_simulated(subject, job))


def _device(torch: Any, wanted: str) -> str:
    if wanted != "cpu" and torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        raise WorkbenchError(
            "no-device", "torch sees no CUDA device.", "Measure on the CPU; workbench doctor says why there is none."
        )
    return "cpu"


def _limit_memory() -> None:
    """Let what is beyond the free memory fail here, before the machine swaps (setrlimit(2), RLIMIT_DATA)."""
    free = free_memory_bytes()
    if free is None or not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[5])
        limit = pages * resource.getpagesize() + free
        _soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def run_on_cpu(subject: Subject, job: Job) -> Measurement:
    """Run it on the CPU: every storage is watched from its allocation to its end."""
    import torch

    started = time.perf_counter()
    plan = subject.plan
    subject.notes += [
        "A run on the CPU: its tensors, without a GPU's context, workspaces and allocator reserve; attention and "
        "dropout keep other tensors there.",
        "Timed while every operator was watched; what loading makes for a moment is not.",
    ]
    if plan.attention in ("flash", "efficient"):
        subject.notes.append(f"{plan.attention} attention was torch's kernel for the CPU.")
    if plan.quant != "none" or (plan.trains and "8bit" in plan.optimizer):
        subject.notes.append(
            "What bitsandbytes' kernels for the CPU hold inside themselves is in the process, not in the tensors."
        )
    import_libraries(plan)
    built = build(subject.config, plan, True)
    trace = Trace()
    scopes = Scopes(groups_of(built))
    watch = Watch(make_tracker(trace, scopes, "cpu", {}, 0, job.check))
    with quiet(), watched(torch, watch):
        report(job, plan, "load", 0)
        watch.begin("load", 0)
        model = open_model(torch, subject, built, watch, job)
        adopt(watch, trace, scopes, model, "cpu")
        run_job(torch, model, built, subject, watch, scopes, job)
        watch.end()
        watch.tracker.open = False
    return _of_cpu(subject, trace, watch, head_of(model), time.perf_counter() - started)


def _simulated(subject: Subject, job: Job) -> Optional[int]:
    """The peak of the same steps on tensors without data, as the CPU would run them; None if that fails."""
    report(job, subject.plan, "compare", 0)
    try:
        made = simulate_steps(subject.config, subject.plan, job, label="cpu", moved=True)
    except (JobCancelled, MemoryError):
        raise
    except Exception:
        # The measurement stands without it.
        return None
    return max(phase.live_bytes for phase in phase_peaks(made.trace))


def import_libraries(plan: Plan) -> None:
    """Import what the plan needs: the tensors that some make while they are imported belong to no phase."""
    if plan.has_adapters:
        need("peft", "Measuring adapters")
    if plan.quant != "none":
        need("bitsandbytes", "Measuring a quantized model")


def open_model(torch: Any, subject: Subject, built: Built, watch: Watch, job: Job) -> Any:
    """The model with the weights of its checkpoint, else with random ones; says which in `subject`."""
    plan, device = subject.plan, subject.device
    # As transformers' Trainer does: what is not quantized is loaded first and moved then.
    moved = plan.trains and plan.quant == "none"
    if subject.directory is None or not type(built.model).__name__.endswith(WRITES_TEXT):
        load(built, plan, device, watch, False, moved)
        return built.model
    options = LoadOptions(
        quant=plan.quant,
        double_quant=plan.double_quant,
        dtype=plan.dtype,
        device="cpu" if moved else device,
        attention="eager" if plan.attention == "eager" else "auto",
    )
    model = load_model(Path(subject.directory), options, job).model
    subject.weights_from = "checkpoint"
    if type(model).__name__ != type(built.model).__name__:
        subject.notes.append(f"The checkpoint was loaded as {type(model).__name__}.")
    return model.to(device) if moved and device != "cpu" else model


def run_job(
    torch: Any, model: Any, built: Built, subject: Subject, watch: Watch, scopes: Optional[Scopes], job: Job
) -> Any:
    """Prepare `model` and run its steps; returns what was called, for another run by `run_steps`."""
    plan = subject.plan
    if plan.trains:
        report(job, plan, "prepare", 0)
        model = prepare(model, plan, watch)
    run_steps(torch, model, built, subject, watch, scopes, job)
    return model


def run_steps(
    torch: Any, model: Any, built: Built, subject: Subject, watch: Watch, scopes: Optional[Scopes], job: Job
) -> None:
    """Run the steps of a model that was prepared."""
    plan = subject.plan

    def progress(phase: str, step: int) -> None:
        report(job, plan, phase, step)

    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    handles = scopes.watch(torch, base) if scopes is not None else ()
    try:
        if plan.trains:
            training.run_steps(model, plan, subject.device, watch, progress)
        else:
            inference.run_steps(model, plan, built.stack, subject.device, watch, progress)
    finally:
        for handle in handles:
            handle.remove()


def prepare(model: Any, plan: Plan, watch: Watch) -> Any:
    """As the simulation's, but with peft's own k-bit preparation."""
    if plan.prepares_kbit:
        from peft import prepare_model_for_kbit_training

        watch.begin("prepare", 0)
        # Checkpointing is switched on afterwards, if the plan has it.
        prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        plan = changed(plan, kbit_prepare=False)
    return training.prepare(model, plan, watch, watch.empty_cache)


def report(job: Job, plan: Plan, phase: str, step: int) -> None:
    """Progress: the phase and its step."""
    job.progress(phase, step, training.STEPS if plan.trains else None, "steps")


def adopt(watch: Watch, trace: Trace, scopes: Scopes, model: Any, device: str) -> None:
    """Let the tracker know the storages of a model whose loading it did not see: threads read the checkpoint."""
    tracker = watch.tracker
    for path, module in model.named_modules():
        for name, tensor in own_tensors(module):
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in tracker.numbers or tensor.device.type != device:
                continue
            place, layer = scopes.name(f"{path}.{name}")
            number = trace.allocate(storage.nbytes(), place, "load", layer, NO_LAYER)
            trace.labels[number] = "weights"
            tracker.numbers[key] = number
            tracker.references[key] = weakref.ref(storage, tracker._gone(key, number))


@contextlib.contextmanager
def watched(torch: Any, watch: Watch) -> Iterator[None]:
    """A context in which the tracker sees every operator."""
    # The backward pass of a GPU has a thread of its own, which would not see the modules of this one.
    with torch.autograd.set_multithreading_enabled(False), watch.tracker:
        yield


def sizes_at_peak(trace: Trace, head: str) -> tuple[Any, dict[str, int]]:
    """The largest phase of a trace and what is live at its peak, by category."""
    peak = max(phase_peaks(trace), key=lambda phase: phase.live_bytes)
    sizes = dict.fromkeys(CATEGORIES, 0)
    for number in live_after(trace, peak.event):
        sizes[category_of(trace, number, head)] += trace.sizes[number]
    return peak, sizes


def merged(phases: Sequence[MeasuredPhase]) -> list[MeasuredPhase]:
    """One phase where preparation had two parts."""
    found: list[MeasuredPhase] = []
    for phase in phases:
        last = found[-1] if found else None
        if last is not None and last.name == phase.name == "prepare":
            found[-1] = MeasuredPhase(
                phase.name,
                phase.step,
                max(last.peak_bytes, phase.peak_bytes),
                max(last.reserved_bytes, phase.reserved_bytes),
                phase.process_bytes,
                last.seconds + phase.seconds,
            )
        else:
            found.append(phase)
    return found


def step_seconds(phases: Sequence[MeasuredPhase]) -> tuple[float, ...]:
    """Seconds of each step: training steps whole, prefill and decoding steps one by one."""
    found: dict[tuple[str, int], float] = {}
    for phase in phases:
        if phase.step and phase.name != "between":
            kind = phase.name if phase.name in ("prefill", "decode") else "step"
            found[kind, phase.step] = found.get((kind, phase.step), 0.0) + phase.seconds
    return tuple(found.values())


def _of_cpu(subject: Subject, trace: Trace, watch: Watch, head: str, seconds: float) -> Measurement:
    peak, sizes = sizes_at_peak(trace, head)
    phases = merged(
        [replace(phase, peak_bytes=most.live_bytes) for phase, most in zip(watch.phases, phase_peaks(trace))]
    )
    return Measurement(
        **sizes,
        total=peak.live_bytes,
        requested_bytes=peak.live_bytes,
        allocated_bytes=peak.live_bytes,
        reserved_bytes=0,
        process_bytes=_largest_resident_bytes(),
        peak_phase=peak.name,
        peak_step=peak.step,
        phases=tuple(phases),
        step_seconds=step_seconds(phases),
        device_kind="cpu",
        device="CPU",
        weights_from=subject.weights_from,
        notes=tuple(subject.notes),
        versions=subject.versions,
        seconds=seconds,
    )


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return 0


def _largest_resident_bytes() -> int:
    # Kilobytes on Linux, bytes on macOS (getrusage(2) of each).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
