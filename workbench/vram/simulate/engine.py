"""One simulated run from a config to its trace, in this process, which it changes. Needs torch and transformers."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from workbench.errors import JobCancelled, WorkbenchError
from workbench.job import SILENT, Job
from workbench.vram.plan import Plan
from workbench.vram.quiet import quiet
from workbench.vram.repeated import SCORES_HELD
from workbench.vram.simulate import device as devices
from workbench.vram.simulate.kernels import CUBLAS_WORKSPACE_BYTES, workspace_rules
from workbench.vram.simulate.layers import expand
from workbench.vram.simulate.loading import Built, build, groups_of, load
from workbench.vram.simulate.trace import Trace
from workbench.vram.simulate.tracker import Scopes, make_tracker


@dataclass(frozen=True)
class Run:
    """What a run recorded."""

    trace: Trace
    label: str
    """The device's name."""
    layers: int
    """Layers of the model's stack; 0 where it has none that could be shortened."""
    layers_run: int
    operators: int
    head: str
    """Path of the module that makes the logits, or empty."""
    kernels: frozenset[str]
    """Attention kernels taken through ``scaled_dot_product_attention``."""
    implementation: str
    """``sdpa``, or ``eager`` where the model knows nothing else or the plan says so."""


def run(
    config: dict[str, Any],
    plan: Plan,
    job: Job = SILENT,
    label: Optional[str] = None,
    all_layers: bool = False,
    real: bool = False,
    corrections: bool = True,
    moved: Optional[bool] = None,
) -> Run:
    """Run `plan` on the model of `config` and record what it allocates.

    Args:
        config: content of a ``config.json``.
        plan: what to run, on one GPU.
        job: progress in phases; checked every few hundred operators.
        label: the device; by default the simulated one if this torch can have it.
        all_layers: run every layer, also those that repeat.
        real: on real tensors (on the CPU) instead of ones without data.
        corrections: whether to add what CUDA's kernels allocate inside themselves.
        moved: whether the model was loaded on the CPU and moved to the device afterwards, as transformers' Trainer
            does with one that is not quantized; by default as that.
    """
    if moved is None:
        moved = plan.trains and plan.quant == "none"
    how = _How(label or devices.open_device(), real, corrections, moved)
    found = None if all_layers or real else _run_some_layers(config, plan, job, how)
    found = found or _run_once(config, plan, job, how, True)
    assert found is not None
    return found


@dataclass(frozen=True)
class _How:
    device: str
    real: bool
    corrections: bool
    moved: bool


def _run_some_layers(config: dict[str, Any], plan: Plan, job: Job, how: _How) -> Optional[Run]:
    try:
        return _run_once(config, plan, job, how, False)
    except (WorkbenchError, JobCancelled, MemoryError):
        raise
    except Exception:
        # Some models compute with the number of layers, and do not work with fewer than they were built with.
        return None


def _run_once(config: dict[str, Any], plan: Plan, job: Job, how: _How, whole: bool) -> Optional[Run]:
    """None if the layers left out would not have done what the others do."""
    import torch

    job.progress("model", 0, None, "", str(config.get("model_type")))
    built = build(config, plan, whole)
    trace = Trace()
    scopes = Scopes(groups_of(built))
    corrected = how.corrections and how.device != devices.FALLBACK
    rules, workspace = (workspace_rules(), CUBLAS_WORKSPACE_BYTES) if corrected else ({}, 0)
    tracker = make_tracker(trace, scopes, how.device, rules, workspace, job.check)
    with quiet(), _without_collector(), contextlib.ExitStack() as modes:
        if not how.real:
            from torch._subclasses.fake_tensor import FakeTensorMode

            modes.enter_context(_without_data(torch))
            modes.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        kernels: set[str] = set()
        modes.enter_context(devices.cuda_choices(how.device, plan.attention, kernels))
        modes.enter_context(devices.replaceable_parameters())
        # The backward pass stays in this thread: an exception in one of its own would end the process.
        modes.enter_context(torch.autograd.set_multithreading_enabled(False))
        modes.enter_context(tracker)
        if plan.has_adapters and plan.quant != "none" and not how.real:
            modes.enter_context(_quantized_adapters())
        _steps(torch, built, plan, job, how, tracker, scopes)
        tracker.open = False
    expanded = expand(trace, built.choice.copies)
    if expanded is None:
        return None
    return Run(
        trace=expanded,
        label=how.device,
        layers=built.total_layers,
        layers_run=len(built.choice.kept),
        operators=tracker.operators,
        head=head_of(built.model),
        kernels=frozenset(kernels),
        implementation=str(built.model.config._attn_implementation),
    )


def head_of(model: Any) -> str:
    """Path of the module that makes the logits, or empty."""
    try:
        head = model.get_output_embeddings()
    except (NotImplementedError, AttributeError):
        return ""
    return next((name for name, module in model.named_modules() if module is head), "") if head is not None else ""


def warnings(plan: Plan, run: Run) -> list[str]:
    """What a reader of the numbers should know, one line each."""
    found = []
    if run.label == devices.FALLBACK:
        found.append(
            "This torch no longer offers what the simulated GPU needs: simulated as CPU, whose operators differ, "
            "most of all in attention."
        )
    if run.implementation == "eager" and plan.attention != "eager":
        found.append(f"This model knows eager attention only: {plan.attention} changes nothing.")
    if "math" in run.kernels and plan.attention == "sdpa":
        found.append(
            "torch (to 2.13) has no fused attention kernel for these inputs (fewer key than query heads, in float32 or "
            f"without saying so), so {SCORES_HELD}: choose flash, or leave out k-bit preparation."
        )
    if plan.quant == "int8":
        found.append("int8 is simulated without outlier columns, which depend on the data: a little more is needed.")
    if plan.trains and plan.optimizer == "paged-adamw-8bit":
        found.append("Paged states are counted on the GPU; they leave it only when it is short of memory.")
    if plan.trains and plan.offload == "optimizer":
        found.append("The optimizer's step is on the CPU: what is copied there and back for a moment is not simulated.")
    if not plan.trains and plan.kv_dtype in ("int8", "int4", "int2"):
        found.append("What quanto or HQQ hold while they quantize the cache is not simulated.")
    if plan.parallel == "ddp":
        found.append("One GPU of a ddp job without its communication buckets.")
    if plan.trains and plan.accumulation > 2:
        found.append("Gradient accumulation is simulated with two batches; the others do the same.")
    return found


def _steps(torch: Any, built: Built, plan: Plan, job: Job, how: _How, tracker: Any, scopes: Scopes) -> None:
    from workbench.vram.simulate import inference, training

    layers = f"{len(built.choice.kept)} of {built.total_layers} layers" if built.total_layers else ""

    def progress(phase: str, step: int) -> None:
        job.check()
        job.progress(phase, step, training.STEPS if plan.trains else None, "steps", layers)

    progress("load", 0)
    tracker.begin("load", 0)
    load(built, plan, how.device, tracker, not how.real, how.moved)
    model = training.prepare(built.model, plan, tracker, tracker.empty_cache) if plan.trains else built.model
    handles = scopes.watch(torch, built.model)
    try:
        if plan.trains:
            training.run_steps(model, plan, how.device, tracker, progress)
        else:
            inference.run_steps(model, plan, built.stack, how.device, tracker, progress)
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """What nothing refers to any more is freed at that very moment, and what refers to itself is not."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.contextmanager
def _without_data(torch: Any) -> Iterator[None]:
    """Let what reads values work on tensors that have none."""
    from transformers import masking_utils

    with contextlib.ExitStack() as patches:
        for name, wrap in (
            ("_ignore_causal_mask_sdpa", _mask_hides_something),
            ("find_packed_sequence_indices", _nothing_is_packed),
        ):
            original = getattr(masking_utils, name, None)
            if original is not None:
                patches.enter_context(devices.replaced(masking_utils, name, wrap(original)))
        patches.enter_context(_code_tables(torch))
        yield


def _mask_hides_something(original: Any) -> Any:
    def ignores(padding_mask: Any, *arguments: Any, **named: Any) -> bool:
        return padding_mask is None and bool(original(padding_mask, *arguments, **named))

    return ignores


def _nothing_is_packed(original: Any) -> Any:
    def find(position_ids: Any) -> None:
        # For what it allocates while it looks.
        found = original(position_ids)
        if found is not None:
            (found[:, -1] == 0).all()

    return find


@contextlib.contextmanager
def _quantized_adapters() -> Iterator[None]:
    """Let every part of peft that asks for a weight as it was before quantization get it."""
    import importlib

    from workbench.packages import need
    from workbench.vram.simulate.training import dequantized

    need("peft", "Simulating adapters")
    with contextlib.ExitStack() as patches:
        for name in ("dora", "layer", "variants"):
            module = importlib.import_module(f"peft.tuners.lora.{name}")
            if hasattr(module, "dequantize_module_weight"):
                patches.enter_context(devices.replaced(module, "dequantize_module_weight", dequantized))
        yield


@contextlib.contextmanager
def _code_tables(torch: Any) -> Iterator[None]:
    """bitsandbytes computes its 8-bit code table from values and keeps it: give it one, and take it away again."""
    import importlib.util

    if importlib.util.find_spec("bitsandbytes") is None:
        yield
        return
    import bitsandbytes.functional as functional

    def table(*arguments: Any, **named: Any) -> Any:
        return torch.empty(256, dtype=torch.float32)

    kept = dict(functional.name2qmap)
    functional.name2qmap.clear()
    try:
        with devices.replaced(functional, "create_dynamic_map", table):
            yield
    finally:
        functional.name2qmap.clear()
        functional.name2qmap.update(kept)
