"""The session strip as a pure function: model, environment, memory and work, as much as a width holds."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from textual.content import Content

from workbench.errors import WorkbenchError
from workbench.text import format_bytes, gib
from workbench.ui.gauges import Gauges
from workbench.ui.session_state import LOST, STARTING, SessionState
from workbench.ui.widgets.bars import bar

if TYPE_CHECKING:
    from workbench.session.protocol import LaneStatus, ModelStatus, SessionStatus

JOB_WORDS = {
    "load_model": "loading",
    "fetch_model": "fetching",
    "unload_model": "unloading",
    "generate": "answering",
    "inspect_model": "inspecting",
    "count_tokens": "counting",
    "estimate_memory": "estimating",
    "diagnose": "examining",
    "diagnose_text": "reading the report",
    "list_environments": "looking for environments",
    "compare_reports": "comparing reports",
    "run_self_test": "proving the environment",
    "warm": "importing torch",
    "list_models": "listing models",
    "resolve_model": "looking for the model",
    "recount_tokens": "counting",
    "explain_split": "explaining a split",
    "search_vocabulary": "searching the vocabulary",
    "compare_languages": "comparing languages",
    "compare_splits": "comparing splits",
    "check_prompt": "checking the prompt",
    "compare_auto_tokenizer": "checking AutoTokenizer",
    "measure_dataset": "measuring the data set",
    "list_prices": "reading prices",
    "count_adapter": "counting the adapter",
    "check_design": "checking the design",
    "list_families": "listing families",
    "save_design": "saving the design",
    "compare_models": "comparing models",
    "inspect_loaded": "inspecting",
    "trace_model": "tracing",
    "read_attention": "reading attention",
    "nearest_tokens": "searching neighbours",
    "compare_tokens": "comparing tokens",
    "embedding_norms": "measuring embeddings",
    "map_words": "mapping words",
    "survey_gpus": "comparing GPUs",
    "fit_plan": "making it fit",
    "draw_curve": "drawing curves",
    "estimate_modules": "estimating",
    "write_plan": "writing the plan",
    "open_plan": "opening the plan",
    "list_rules_of_thumb": "computing rules of thumb",
    "break_even_with_api": "computing costs",
    "simulate_memory": "simulating",
    "measure_memory": "measuring",
    "measure_loaded": "measuring",
    "list_measurements": "reading measurements",
    "read_prompt": "rendering the prompt",
    "read_answer": "reading the answer",
    "read_distribution": "computing a distribution",
    "read_sampling": "reading settings",
    "compare_variants": "comparing variants",
    "find_servers": "looking for servers",
}
"""What a lane does, by the wire name of its request; those of conversations, done in a moment, speak for themselves."""
PHASE_WORDS = {
    "import": "importing libraries",
    "config": "reading its config",
    "verify": "checking files",
    "extract": "unpacking",
    "prepare": "preparing",
}
"""Phases whose own name says too little."""
AFTER_PHASE = {
    "download": "checking what came",
    "convert": "converted, next the weights",
    "weights": "weights read, quantizing and placing the rest",
}
"""What goes on once a phase has counted to its end, until the next one counts."""
SHORT_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
SEPARATOR = (" │ ", "$faint")


def job_text(lane: LaneStatus | None) -> str:
    """What a lane does, with real counts where the job reports them; empty when it is idle."""
    if lane is None or not lane.job:
        return ""
    words = JOB_WORDS.get(lane.job, lane.job.replace("_", " "))
    if lane.phase == "decode":
        # The total is a limit that most answers never reach: a percentage of it would say nothing.
        return f"{words} · {lane.done:,} tokens"
    if lane.total and lane.done >= lane.total and lane.phase in AFTER_PHASE:
        return f"{words} · {AFTER_PHASE[lane.phase]}"
    if lane.phase and lane.phase not in words:
        words += f" · {PHASE_WORDS.get(lane.phase, lane.phase)}"
    return f"{words} {progress_text(lane.done, lane.total, lane.unit)}".rstrip()


def progress_text(done: int, total: int | None, unit: str) -> str:
    """``120 of 273 tensors · 44 %``; bytes with their unit; empty when nothing was counted yet."""
    if not done and not total:
        return ""
    if unit == "bytes":
        counted = f"{format_bytes(done)} of {format_bytes(total)}" if total else format_bytes(done)
    else:
        counted = f"{done:,} of {total:,} {unit}" if total else f"{done:,} {unit}"
    return f"{counted.rstrip()} · {100 * done // total} %" if total else counted.rstrip()


def quant_word(model: ModelStatus) -> str:
    """``nf4``, ``nf4 double``, or the dtype of a model that is not quantized."""
    if model.quant == "none":
        return SHORT_DTYPES.get(model.dtype, model.dtype)
    return f"{model.quant} double" if model.double_quant else model.quant


def strip_line(state: SessionState, gauges: Gauges | None, width: int) -> Content:
    """The strip at this width. Narrow ones give up, in this order: bars, detail of the environment, gauges."""
    model, environment, memory = _model(state), _environment(state.status), _memory(gauges)
    work = _work(state)
    levels = [0, 0, 0]
    for part in (2, 1, 0, 1, 2, 0, 1, 2, 0):
        if _join(model, environment, memory, levels).cell_length + work.cell_length + 3 <= width:
            break
        levels[part] += 1
    joined = _join(model, environment, memory, levels)
    if joined.cell_length >= width:
        joined = joined.truncate(max(1, width - 1), ellipsis=True)
    space = width - joined.cell_length - work.cell_length - 1
    if space < 3:
        work = work.truncate(max(0, width - joined.cell_length - 4), ellipsis=True)
        space = width - joined.cell_length - work.cell_length - 1
    return Content.assemble(joined, " " * max(1, space), work)


def _join(model: list[Content], environment: list[Content], memory: list[Content], levels: list[int]) -> Content:
    parts = [
        variants[min(level, len(variants) - 1)]
        for variants, level in zip((model, environment, memory), levels, strict=True)
    ]
    joined = Content(" ")
    for i, part in enumerate(part for part in parts if part):
        joined = Content.assemble(joined, SEPARATOR if i else "", part)
    return joined


def _model(state: SessionState) -> list[Content]:
    model = state.model
    if model is None:
        return _not_loaded(state)
    start = Content.assemble(("● ", "$good"), (short_name(model.name), "bold"), (f" · {quant_word(model)}", ""))
    if state.chosen and not state.chosen_is_loaded:
        chosen = Content.assemble((" loaded · chosen ", "$muted"), short_name(state.chosen))
        if state.refused is not None:
            chosen = Content.assemble(" · ", _refusal(state.chosen, state.refused).truncate(60, ellipsis=True))
        device = Content.assemble(start, f" · {model.device}")
        bare = Content.assemble(("● ", "$good"), (short_name(model.name), "bold"))
        both = [Content.assemble(part, chosen) for part in (device, start, bare)]
        return [*both, both[-1].truncate(44, ellipsis=True)]
    dtype = "" if model.quant == "none" else f" · {SHORT_DTYPES.get(model.dtype, model.dtype)}"
    full = Content.assemble(start, f"{dtype} · {model.device} · {format_bytes(model.weights_bytes)}")
    middle = Content.assemble(start, f" · {model.device}")
    return [full, middle, start, start.truncate(28, ellipsis=True)]


def short_name(name: str) -> str:
    """The last part of a path or Hub id."""
    return name.rstrip("/").rpartition("/")[2] or name


def _refusal(name: str, error: WorkbenchError) -> Content:
    return Content.assemble((f"✖ {short_name(name)}: ", "bold $bad"), (error.message, "$bad"))


def _not_loaded(state: SessionState) -> list[Content]:
    if not state.chosen:
        return [Content.styled("○ no model · ctrl+o chooses one", "$muted"), Content.styled("○ no model", "$muted")]
    if state.refused is not None:
        full = _refusal(state.chosen, state.refused)
        return [full, full.truncate(60, ellipsis=True), full.truncate(40, ellipsis=True)]
    start = Content.assemble(("○ ", "$muted"), short_name(state.chosen))
    return [Content.assemble(start, (" · not loaded", "$muted")), start, start.truncate(28, ellipsis=True)]


def _environment(status: SessionStatus | None) -> list[Content]:
    if status is None:
        return [Content("")]
    place = PurePath(status.executable).parent.parent.name
    python = "py" + ".".join(status.python_version.split(".")[:2])
    torch = {
        "ready": f"torch {status.torch_version}",
        "importing": "importing torch",
        "missing": "no torch",
        "broken": "torch broken",
    }.get(status.torch_state, "")
    style = "$warn" if status.torch_state in ("missing", "broken") else "$muted"
    full = Content.assemble(
        (f"env {place} ({python}", "$muted"), (f" {torch}" if torch else "", style), (")", "$muted")
    )
    short = Content.assemble((python, "$muted"), (f" {torch.partition('+')[0]}" if torch else "", style))
    return [full, short, Content("")] if place else [short, short, Content("")]


def _memory(gauges: Gauges | None) -> list[Content]:
    if gauges is None:
        return [Content("")]
    gpus = [gpu for gpu in gauges.gpus if gpu.total_bytes]
    if gpus:
        gpu = max(gpus, key=lambda reading: reading.used_bytes)
        name, used, total = gpu.name.removeprefix("NVIDIA ").removeprefix("GeForce "), gpu.used_bytes, gpu.total_bytes
        load = f"  GPU {gpu.utilization_percent} %" if gpu.utilization_percent is not None else ""
    else:
        name, used, total = "RAM", gauges.ram_used_bytes, gauges.ram_total_bytes
        load = f"  CPU {gauges.cpu_percent} %"
    numbers = Content.styled(f"{name} {gib(used, 1)} of {gib(total, 1)} GiB", "$muted")
    fraction = used / total if total else 0.0
    level = "$bad" if fraction > 0.95 else "$warn" if fraction > 0.85 else "$accent"
    return [
        Content.assemble(numbers, " ", bar(fraction, 10, level), (load, "$muted")),
        Content.assemble(numbers, (load, "$muted")),
        Content("") if not gpus else numbers,
        Content(""),
    ]


def _work(state: SessionState) -> Content:
    if state.connection == STARTING:
        return Content.styled("starting the session", "$warn")
    if state.connection == LOST:
        return Content.styled("✖ no session", "bold $bad")
    busy = [text for name in ("model", "children", "quick") if (text := job_text(state.lane(name)))]
    if busy:
        queued = sum(lane.queued for lane in state.status.lanes) if state.status else 0
        return Content.styled(busy[0] + (f" · {queued} waiting" if queued else ""), "$accent")
    speed = state.status.tokens_per_second if state.status else None
    return Content.styled(f"idle · last {speed:.0f} tok/s" if speed else "idle", "$muted")
