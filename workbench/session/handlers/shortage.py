"""What VRAM suggests where memory ran out: the same model loaded so that it takes less."""

from __future__ import annotations

from typing import Any

from workbench.errors import WorkbenchError
from workbench.models.load import LoadOptions, resolve_options
from workbench.packages import need
from workbench.session.handlers.vram import estimator_of
from workbench.session.runtime import Context
from workbench.text import format_bytes
from workbench.vram.measure_loaded import corresponding_plan
from workbench.vram.suggestions import suggestions

_MOST = 3
_NAMES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def with_suggestions(
    error: WorkbenchError, model: str, loaded: Any, tokens: int, otherwise: str, context: Context
) -> WorkbenchError:
    """The error with what VRAM suggests for a remedy; as it was where it is no shortage or VRAM cannot tell.

    Args:
        error: of a load or an answer.
        model: the name that was asked for.
        loaded: `workbench.models.load.LoadedFacts`, or the `LoadOptions` of a load that failed.
        tokens: of the conversation.
        otherwise: what else can be done.
        context: of the request.
    """
    if error.kind != "out-of-memory":
        return error
    try:
        _, estimator = estimator_of(model, context)
        if isinstance(loaded, LoadOptions):
            loaded = resolve_options(loaded, need("torch", "Loading a model"))
        plan = corresponding_plan(loaded, tokens)
        total = estimator.estimate(plan).total
        proposed = suggestions(estimator.skeleton, plan, None, estimator)
    except WorkbenchError:
        return error
    known = sorted((item.total_bytes, _words(item.change)) for item in proposed)
    named = [f"{words} would take {format_bytes(size)}" for size, words in known if words][:_MOST]
    remedy = f"VRAM estimates {format_bytes(total)} for this with {tokens:,} tokens"
    remedy += f"; {', '.join(named)}. Load one of these" if named else ". Choose a smaller model"
    return WorkbenchError(error.kind, error.message, f"{remedy}, or {otherwise}.", error.details)


def _words(change: dict[str, Any]) -> str:
    """A change as people name it; empty for one that a load cannot make."""
    if not change.keys() <= {"quant", "dtype", "double_quant"}:
        return ""
    if "quant" in change:
        return f"{change['quant']} with double quantization" if change.get("double_quant") else str(change["quant"])
    return _NAMES.get(str(change.get("dtype")), "")
