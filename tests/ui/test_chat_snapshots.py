"""Pictures of the chat bench in use and of its closer looks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import textual
from textual.pilot import Pilot

from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import BASELINE_TEXTUAL, MakeApp, screen_text, wait_until
from tests.ui.test_chat_conversation import answered, begun
from workbench.session import protocol

pytestmark = pytest.mark.skipif(
    textual.__version__ != BASELINE_TEXTUAL, reason=f"pictures are of Textual {BASELINE_TEXTUAL}"
)
Steps = Callable[[Pilot[int]], Awaitable[None]]


async def branched(pilot: Pilot[int]) -> None:
    """Two exchanges, the second in two branches, with something set."""
    app: Any = pilot.app
    await wait_until(pilot, lambda: app.gauges)
    await begun(pilot)
    app.main.bench.asking.system = "Answer in one sentence."
    app.main.bench.asking.sampling = {"temperature": 0.2, "max_new_tokens": 64}
    await begun(pilot, "What is the capital of France?", "And what is it famous for?")
    await pilot.press("escape", "r")
    await answered(pilot)
    await wait_until(pilot, lambda: "‹ 2/2 ›" in screen_text(app))


def then(keys: str, there: str, *more: str) -> Steps:
    """The conversation, then these keys until this is shown, then further ones."""

    async def steps(pilot: Pilot[int]) -> None:
        await branched(pilot)
        await pilot.press(*keys.split())
        await wait_until(pilot, lambda: there in screen_text(pilot.app))  # type: ignore[arg-type]
        await pilot.press(*more)
        await pilot.pause(0.3)

    return steps


ESTIMATE = {
    "estimate": {"weights": 110 * 2**20, "kv_cache": 17 * 2**20, "total": 820 * 2**20},
    "static": {"weights": 110 * 2**20},
    "allocated_bytes": 184 * 2**20,
}
STATES = {
    "conversation": then("up", "▶"),
    "sampling": then("s", "55.0 %", "right"),
    "inside": then("i", "token 1 of 9", "u"),
    "compare": then("v", "Text to measure on", "ctrl+s"),
    "answers": then("v", "Text to measure on", "ctrl+s", "2"),
    "numbers": then("n", "KV cache now"),
    "find": then("slash", "Find in", *"capital"),
    "system": then("p", "System prompt"),
}
PICTURES = [
    ("conversation", (80, 24), "dark"),
    ("conversation", (120, 36), "light"),
    ("conversation", (200, 60), "dark"),
    ("sampling", (80, 24), "dark"),
    ("sampling", (120, 36), "dark"),
    ("inside", (80, 24), "ansi-16"),
    ("inside", (120, 36), "dark"),
    ("inside", (80, 24), "light"),
    ("compare", (80, 24), "dark"),
    ("answers", (120, 36), "dark"),
    ("numbers", (80, 24), "light"),
    ("find", (80, 24), "dark"),
    ("system", (80, 24), "dark"),
]


@pytest.mark.parametrize(
    ("state", "size", "theme"), PICTURES, ids=[f"{state}-{x}x{y}-{theme}" for state, (x, y), theme in PICTURES]
)
def test_picture(
    state: str,
    size: tuple[int, int],
    theme: str,
    loaded_session: ScriptedSession,
    make_app: MakeApp,
    snap_compare: Any,
) -> None:
    loaded_session.script(protocol.EstimateMemory, lambda request: [protocol.MemoryEstimated(ESTIMATE)])
    app = make_app(loaded_session, bench="chat", theme=theme)
    assert snap_compare(app, terminal_size=size, run_before=STATES[state])
