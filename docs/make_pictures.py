"""Makes the README's pictures from the real app: a real session, the real SmolLM2.

    python docs/make_pictures.py [FOLDER]

Needs the models extra; the sample model is fetched on the first run. Takes about a minute on a CPU. `docs/pictures` is
written unless another folder is named; a test makes them anew elsewhere and compares.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PICTURES = Path(__file__).parent / "pictures"
SIZE = (120, 34)
STATUS_ROW = 1
SAME_LOOKS = 8
"""So many looks, a tenth of a second apart, must see the same screen."""
MODEL = "smollm2-135m-instruct"
CATALOGUE_MODEL = "llama-3.1-8b"
TOKENIZERS = (MODEL, "tiny-t5", "tiny-llama", "tiny-bert", "tiny-gpt2")
TEXT = """Tokenizers disagree: 12345 is one token here, five there.
Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.
for step in range(1_000): loss += model(batch).loss
Быстрая лиса перепрыгнула через ленивую собаку.
"""
REPORT = Path(__file__).parents[1] / "tests" / "data" / "doctor" / "torch-wheel-lacks-gpu-arch--blackwell.txt"
VERDICTS = ("✔ healthy", "⚠ degraded", "✖ broken")
QUESTIONS = ("What is the capital of France?", "Write a Python function that returns the square of a number.")


def private_folders() -> None:
    """Settings, history and session of this run only; the model cache is the user's own."""
    folder = tempfile.mkdtemp(prefix="wb-pictures-")
    os.environ["XDG_CONFIG_HOME"] = f"{folder}/config"
    os.environ["XDG_STATE_HOME"] = f"{folder}/state"
    os.environ["WORKBENCH_RUNTIME_DIR"] = f"{folder}/run"
    os.environ["TEXTUAL_ANIMATIONS"] = "none"
    for variable in ("SSH_CONNECTION", "SSH_TTY", "NO_COLOR", "HF_HUB_OFFLINE"):
        os.environ.pop(variable, None)


async def make(folder: Path) -> None:
    """Walk the benches and save a picture of each."""
    from textual.pilot import Pilot

    from workbench.session.launch import SessionOptions, open_session, stop_session
    from workbench.session.protocol import LoadModel, ModelLoaded
    from workbench.settings import Settings, TokenSettings
    from workbench.ui.app import WorkbenchApp
    from workbench.ui.benches.chat import ChatBench
    from workbench.ui.benches.chat_input import Prompt

    options = SessionOptions("pictures")
    settings = Settings(tokens=TokenSettings(models=TOKENIZERS))
    app = WorkbenchApp(settings, lambda: open_session(options), bench="doctor", remember=False)

    async def until(pilot: Pilot[object], condition: Callable[[], bool], seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                app.save_screenshot(str(folder / "stuck.svg"))
                raise TimeoutError("the screen never came to what it should show; see stuck.svg")
            await pilot.pause(0.1)

    def screen_lines() -> list[str]:
        return ["".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips()]

    def shows(*texts: str, times: int = 1) -> Callable[[], bool]:
        def condition() -> bool:
            screen = "\n".join(screen_lines())
            return all(screen.count(text) >= times for text in texts)

        return condition

    async def save(pilot: Pilot[object], name: str) -> None:
        """Once the screen stands still; the line that tells memory and load never does."""
        seen: list[list[str]] = []

        def still() -> bool:
            seen.append([line for row, line in enumerate(screen_lines()) if row != STATUS_ROW])
            return len(seen) > SAME_LOOKS and all(lines == seen[-1] for lines in seen[-SAME_LOOKS:])

        await until(pilot, still)
        app.save_screenshot(f"{name}.svg", path=str(folder))
        print(folder / f"{name}.svg")

    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.session.status is not None)
        await until(pilot, lambda: any(shows(verdict)() for verdict in VERDICTS), 180)
        await pilot.press("p")
        await until(pilot, lambda: bool(app.screen.query("PasteScreen TextArea")))
        app.screen.query("PasteScreen TextArea").first().text = REPORT.read_text("utf-8")  # type: ignore[attr-defined]
        await pilot.press("ctrl+s")
        await until(pilot, shows("✖ broken", "FIX", "WHY", "SEEN", "source"))
        await save(pilot, "doctor")
        await app.link.ask(LoadModel(MODEL, dtype="float32"), ModelLoaded)
        await pilot.press("f2")
        await until(pilot, lambda: bool(app.screen.query("TextArea")))
        app.screen.query("TextArea").first().text = TEXT  # type: ignore[attr-defined]
        await pilot.press("escape")
        await until(pilot, shows(*TOKENIZERS, "best", "rank"))
        await until(pilot, lambda: not any(lane.job for lane in app.session.status.lanes))
        await save(pilot, "tokens")
        await pilot.press("f5")
        await until(pilot, shows("Write a message"))
        # Greedy and in float32, so that another CPU says the same.
        app.screen.query_one(ChatBench).asking.sampling["greedy"] = True
        for number, question in enumerate(QUESTIONS, 1):
            app.screen.query_one(Prompt).text = question
            await pilot.press("enter")
            await until(pilot, shows(" out · ", times=number))
            await until(pilot, lambda: not app.session.status.lanes[0].job)
        await save(pilot, "chat")
    planning = WorkbenchApp(
        Settings(), lambda: open_session(options), bench="architecture", model=CATALOGUE_MODEL, remember=False
    )
    app = planning
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, shows("8,030,261,248"))
        await pilot.press("a")
        await save(pilot, "architecture")
        await pilot.press("f4")
        await until(pilot, shows("peak in", "int8 weights"))
        await save(pilot, "vram")
    await stop_session("pictures", force=True)


if __name__ == "__main__":
    private_folders()
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES
    target.mkdir(parents=True, exist_ok=True)
    asyncio.run(make(target))
