"""What an answer took, as words; and a message of the session as a turn on screen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workbench.text import format_bytes
from workbench.ui.strip_text import SHORT_DTYPES, short_name
from workbench.ui.widgets.transcript import Turn

FAILED_ANSWER = "cut off: it failed; what came is kept"
LOST_ANSWER = "cut off: the session was lost; what came is kept"
CUT_OFF = ("length", "cancelled")
"""Why an answer ended that can be continued."""


def figures_of(message: dict[str, Any]) -> dict[str, Any]:
    """What an answer took, as it is kept with it."""
    figures = message.get("figures") or message.get("result")
    return figures if isinstance(figures, dict) else {}


def settings_of(message: dict[str, Any]) -> dict[str, Any]:
    """What made an answer, as it is kept with it."""
    settings = message.get("settings")
    return settings if isinstance(settings, dict) else {}


def variant_words(settings: dict[str, Any]) -> str:
    """``smollm2-135m-instruct nf4``, of what is known; a server's model as the server names it."""
    name = str(settings.get("model") or "")
    if settings.get("server"):
        return name.removesuffix(f" at {settings['server']}")
    name = short_name(name)
    quant, dtype = str(settings.get("quant") or ""), str(settings.get("dtype") or "")
    precision = SHORT_DTYPES.get(dtype, dtype) if quant in ("", "none") else quant
    return f"{name} {precision}".strip()


def context_used(figures: dict[str, Any]) -> int:
    """Tokens of a conversation after an answer: its prompt, which holds all before it, and the answer itself."""
    return sum(int(figures.get(name) or 0) for name in ("prompt_tokens", "given_tokens", "new_tokens"))


def can_go_on(message: dict[str, Any]) -> bool:
    """Whether an answer ended before the model ended it."""
    if message.get("role") != "assistant" or not message.get("text"):
        return False
    return figures_of(message).get("finish_reason") in CUT_OFF or message.get("state") in ("partial", "cancelled")


def turn_of(message: dict[str, Any]) -> Turn:
    """A message of a conversation as it is shown."""
    role = str(message.get("role") or "assistant")
    text = str(message.get("text") or message.get("content") or "")
    siblings = list(message.get("siblings") or ())
    place = siblings.index(message.get("id")) + 1 if message.get("id") in siblings else 1
    branch = (place, max(1, len(siblings)))
    if role != "assistant":
        return Turn(role, text, branch=branch, message=message)
    figures = figures_of(message)
    foot = figures_line(figures, variant_words(settings_of(message)))
    if figures.get("error"):
        foot = f"failed: {figures['error']}"
    elif message.get("state") == "partial":
        foot = LOST_ANSWER
    return Turn(role, text, foot=foot, branch=branch, message=message)


def figures_line(result: dict[str, Any], variant: str = "") -> str:
    """``smollm2 nf4 · 143 in (120 reused) · 87 out · first 0.21 s · 41 tok/s · KV 17 MiB``, of what is known."""
    memory = result.get("memory") or {}
    reused = f" ({result['reused_tokens']:,} reused)" if result.get("reused_tokens") else ""
    given = result.get("given_tokens") or 0
    out = "out" if result.get("tokens_told", True) else "pieces out"
    known: list[tuple[Any, Callable[[], str]]] = [
        (variant, lambda: variant),
        (result.get("prompt_tokens"), lambda: f"{result['prompt_tokens']:,} in{'' if given else reused}"),
        (given, lambda: f"{given:,} kept{reused}"),
        (result.get("new_tokens"), lambda: f"{result['new_tokens']:,} {out}"),
        (result.get("time_to_first_token_seconds"), lambda: f"first {result['time_to_first_token_seconds']:.2f} s"),
        (result.get("tokens_per_second"), lambda: f"{result['tokens_per_second']:.1f} tok/s"),
        (memory.get("kv_cache_bytes"), lambda: f"KV {format_bytes(memory['kv_cache_bytes'])}"),
    ]
    limit = f"stopped at the limit of {result.get('new_tokens') or 0:,} tokens"
    if result.get("stopped_by") == "context":
        limit = "stopped at the end of the context"
    ends = {"length": limit, "cancelled": "stopped", "failed": "failed"}
    known.append((ends.get(str(result.get("finish_reason"))), lambda: ends[str(result["finish_reason"])]))
    return " · ".join(word() for value, word in known if value)
