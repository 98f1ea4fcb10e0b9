"""An answer in numbers: speed, context, memory beside what was estimated for these very settings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from textual.content import Content

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session.protocol import EstimateMemory, MemoryEstimated, ModelStatus
from workbench.text import format_bytes, format_seconds
from workbench.ui.benches.chat_figures import context_used, figures_of, settings_of, variant_words
from workbench.ui.link import SessionLink
from workbench.ui.widgets.bars import bar, left, right

LABEL, COLUMN = 13, 12
ENDED = {
    "end-token": "by the model's end token",
    "stop-string": "at a stop text",
    "max-new-tokens": "at the limit of new tokens",
    "context": "at the end of the context",
    "cancelled": "stopped",
    "failed": "by a failure",
}
UNKNOWN = "unknown"
EMPTY = "Answers have not been measured here yet: what one took is shown once it is there."


def plan_of(message: dict[str, Any], model: ModelStatus | None) -> dict[str, Any]:
    """What VRAM would be asked for this answer; empty where its settings are not known."""
    figures, settings = figures_of(message), settings_of(message)
    if not (settings.get("model") and settings.get("dtype") and figures.get("prompt_tokens")):
        return {}
    prompt, answer = int(figures["prompt_tokens"]), context_used(figures) - int(figures["prompt_tokens"])
    held = (figures.get("memory") or {}).get("kv_cache_tokens")
    if held:
        # The estimate counts no place for the token chosen last, which a stopped answer may have taken.
        prompt, answer = min(prompt, int(held)), max(0, int(held) - prompt + 1)
    same = model is not None and model.name == settings["model"] and model.quant == settings.get("quant")
    return {
        "job": "inference",
        "quant": settings.get("quant") or "none",
        "double_quant": bool(model.double_quant) if same and model is not None else False,
        "dtype": settings["dtype"],
        "batch": 1,
        "sequence_length": prompt,
        "new_tokens": answer,
    }


async def estimate_of(link: SessionLink, message: dict[str, Any], model: ModelStatus | None) -> dict[str, Any]:
    """VRAM's estimate for an answer's settings and lengths; empty where it cannot be had."""
    plan = plan_of(message, model)
    if not plan:
        return {}
    request = EstimateMemory(str(settings_of(message)["model"]), plan, suggest=False)
    try:
        return (await link.ask(request, MemoryEstimated)).result
    except (JobCancelled, WorkbenchError):
        return {}  # the measured figures stand without it


def numbers_lines(
    message: dict[str, Any], model: ModelStatus | None, estimate: dict[str, Any], width: int
) -> list[Content]:
    """All that is known of an answer, in three groups."""
    figures = figures_of(message)
    settings = settings_of(message)
    if not figures.get("prompt_tokens") and not (figures and settings.get("server")):
        return Content.styled(EMPTY, "$muted").wrap(width)
    if settings.get("server"):
        model, estimate = None, {}
    lines = [_heading("ANSWER", variant_words(settings))]
    lines += _speed(figures)
    if model is not None and model.decoding and model.name == settings.get("model"):
        lines += _row("measured", model.decoding).wrap(width)
    lines += [Content(""), _heading("CONTEXT", ""), *_context(figures, model, width)]
    lines += [Content(""), *_memory(figures, estimate, width)]
    return lines


def _heading(text: str, beside: str) -> Content:
    return Content.assemble((f"{text}  ", "bold $muted"), (beside, "$muted"))


def _row(label: str, *parts: str) -> Content:
    first, *rest = [part for part in parts if part]
    return Content.assemble(left(label, LABEL, "$muted"), first, (f"   {'   '.join(rest)}" if rest else "", "$muted"))


def _speed(figures: dict[str, Any]) -> Iterator[Content]:
    prompt, reused = int(figures.get("prompt_tokens") or 0), int(figures.get("reused_tokens") or 0)
    given, new = int(figures.get("given_tokens") or 0), int(figures.get("new_tokens") or 0)
    known = prompt + given
    read = max(0, known - reused)
    kept = f"{given:,} kept of the answer" if given else ""
    length = f"{prompt:,} tokens" if prompt else UNKNOWN
    yield _row("prompt", length, kept, f"{reused:,} of {known:,} still in the KV cache" if reused else "")
    if figures.get("prefill_seconds"):
        seconds = float(figures["prefill_seconds"])
        yield _row(
            "prefill",
            f"{read / seconds:,.0f} tok/s",
            f"{read:,} token{'' if read == 1 else 's'} in {format_seconds(seconds)}",
        )
    if figures.get("time_to_first_token_seconds"):
        yield _row("first token", f"{format_seconds(float(figures['time_to_first_token_seconds']))}")
    speed = float(figures.get("tokens_per_second") or 0)
    took = f" in {format_seconds(float(figures['decode_seconds']))}" if figures.get("decode_seconds") else ""
    graph = "CUDA graph" if figures.get("method") == "graph" else ""
    made = "pieces, for the server counts no tokens" if figures.get("tokens_told") is False else "tokens"
    yield _row("decode", f"{speed:.1f} tok/s" if speed else "–", f"{new:,} {made}{took}", graph)
    if figures.get("guessed_tokens"):
        yield _row("lookup", f"{int(figures['guessed_tokens']):,} tokens guessed", "each saved a pass")
    ended = ENDED.get(str(figures.get("stopped_by")))
    if ended:
        yield _row("ended", ended)
    if figures.get("seed") is not None:
        seed = "greedy: no chance involved" if figures.get("greedy") else f"{figures['seed']}"
        yield _row("seed", seed, "" if figures.get("greedy") else "same seed, same text")


def _context(figures: dict[str, Any], model: ModelStatus | None, width: int) -> Iterator[Content]:
    if not figures.get("prompt_tokens"):
        yield _row("used", UNKNOWN)
        return
    used = context_used(figures)
    limit = model.context_length if model is not None else None
    if not limit:
        yield _row("used", f"{used:,} tokens")
        return
    share = used / limit
    style = "$bad" if share > 0.95 else "$warn" if share > 0.8 else "$accent"
    yield _row("used", f"{used:,} of {limit:,} tokens", f"{max(0, limit - used):,} left")
    yield Content.assemble(" " * LABEL, bar(share, max(8, min(40, width - LABEL - 10)), style), f" {100 * share:.1f} %")


def _memory(figures: dict[str, Any], estimate: dict[str, Any], width: int) -> Iterator[Content]:
    memory = figures.get("memory") or {}
    rung, static = estimate.get("estimate") or {}, estimate.get("static") or {}
    on_device = memory.get("peak_of") == "device"
    if memory.get("peak_of") == "server":
        yield _heading("MEMORY", "")
        for label in ("weights", "KV cache", "peak"):
            yield _row(label, UNKNOWN)
        yield Content.styled("The server tells nothing of its memory.", "$muted")
        return
    heads = ("measured", "estimate", "error")
    yield Content.assemble(left("MEMORY", LABEL, "bold $muted"), *(right(head, COLUMN, "$muted") for head in heads))
    yield _beside("weights", memory.get("weights_bytes"), static.get("weights") or rung.get("weights"))
    # The estimate's own is that of its peak, which may be the prefill's; now is after the last token.
    phases = estimate.get("phases") or [rung]
    yield _beside("KV cache now", memory.get("kv_cache_bytes"), phases[-1].get("kv_cache"))
    yield _beside("peak", memory.get("peak_bytes"), estimate.get("allocated_bytes") if on_device else None)
    told = "peak: of all tensors on the device during this answer."
    if not on_device:
        told = "peak: the whole process's highest so far, torch included; the estimate is of tensors on a GPU."
    yield from Content.styled(told, "$muted").wrap(max(20, width))


def _beside(label: str, measured: Any, estimated: Any) -> Content:
    error = f"{100 * (estimated - measured) / measured:+.1f} %" if measured and estimated else "–"
    cells = [format_bytes(value) if value else "–" for value in (measured, estimated)]
    return Content.assemble(
        left(label, LABEL, "$muted"), right(cells[0], COLUMN, "bold"), right(cells[1], COLUMN), right(error, COLUMN)
    )
