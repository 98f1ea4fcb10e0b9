"""What quantizing costs, measured."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from workbench.chat.compare import Task, VariantComparer, check_variants, compare_variants
from workbench.models.gguf_convert import ensure_directory
from workbench.models.resolve import resolve
from workbench.session.handlers.models import load_slot, unload_slot
from workbench.session.protocol import CompareVariants, Request, VariantMeasured, VariantsCompared
from workbench.session.runtime import Context, Handler, Stage


def _make_ready(request: CompareVariants, context: Context) -> Path:
    check_variants(request.variants)
    return ensure_directory(resolve(request.model, context.job), context.job)


def _compare(request: CompareVariants, context: Context) -> VariantsCompared:
    """The loaded model makes room first, and is loaded again however this ends."""
    runtime = context.runtime
    runtime.import_torch(context.job)
    task = Task(request.prompt, request.text, request.max_new_tokens, request.layers, request.device)
    comparer = VariantComparer(context.carried, task)
    before = runtime.slot.request if runtime.slot is not None else None
    unload_slot(runtime)
    try:
        result = compare_variants(
            request.model,
            comparer,
            request.variants,
            request.prompt,
            context.job,
            lambda report: context.emit(VariantMeasured(asdict(report))),
        )
    finally:
        comparer.close()
        runtime.touch_model()
        if before is not None:
            load = before
            # A job of its own: this one may have been stopped.
            runtime.next_job("load_model", lambda job: load_slot(load, Context(runtime, job)))
    return VariantsCompared(asdict(result))


HANDLERS: dict[type[Request], Handler] = {
    CompareVariants: Handler((Stage("children", _make_ready), Stage("model", _compare))),
}
