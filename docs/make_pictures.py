"""Makes the README's pictures from the real app: a real session, the real SmolLM2 in NF4.

    python docs/make_pictures.py

Needs the models extra; the sample model is fetched on the first run. Takes about a minute on a CPU.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PICTURES = Path(__file__).parent / "pictures"
SIZE = (120, 34)
MODEL = "smollm2-135m-instruct"
CATALOGUE_MODEL = "llama-3.1-8b"
TEXT = "Tokenizers disagree: 12345 is one token here, five there.\nZwölf Boxkämpfer jagen Viktor. 东京\n"
VERDICTS = ("✔ healthy", "⚠ degraded", "✖ broken")
QUESTION = "What is the capital of France?"


def private_folders() -> None:
    """Settings, history and session of this run only; the model cache is the user's own."""
    folder = tempfile.mkdtemp(prefix="wb-pictures-")
    os.environ["XDG_CONFIG_HOME"] = f"{folder}/config"
    os.environ["XDG_STATE_HOME"] = f"{folder}/state"
    os.environ["WORKBENCH_RUNTIME_DIR"] = f"{folder}/run"
    os.environ["TEXTUAL_ANIMATIONS"] = "none"
    for variable in ("SSH_CONNECTION", "SSH_TTY", "NO_COLOR"):
        os.environ.pop(variable, None)


async def make() -> None:
    """Walk the benches and save a picture of each."""
    from textual.pilot import Pilot

    from workbench.session.launch import SessionOptions, open_session, stop_session
    from workbench.session.protocol import LoadModel, ModelLoaded
    from workbench.settings import Settings
    from workbench.ui.app import WorkbenchApp

    options = SessionOptions("pictures")
    app = WorkbenchApp(Settings(), lambda: open_session(options), bench="doctor", remember=False)

    async def until(pilot: Pilot[object], condition: Callable[[], bool], seconds: float = 120.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                app.save_screenshot(str(PICTURES / "stuck.svg"))
                raise TimeoutError("the screen never came to what it should show; see stuck.svg")
            await pilot.pause(0.1)

    def shows(*texts: str) -> Callable[[], bool]:
        def condition() -> bool:
            lines = ("".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips())
            screen = "\n".join(lines)
            return all(text in screen for text in texts)

        return condition

    def save(name: str) -> None:
        app.save_screenshot(f"{name}.svg", path=str(PICTURES))
        print(PICTURES / f"{name}.svg")

    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: app.session.status is not None)
        await until(pilot, lambda: any(shows(verdict)() for verdict in VERDICTS), 180)
        await pilot.pause(0.5)
        save("doctor")  # it names the interpreter: run this under one whose path may be seen
        await app.link.ask(LoadModel(MODEL, "nf4", double_quant=True), ModelLoaded)
        await pilot.press("f2")
        await until(pilot, lambda: bool(app.screen.query("TextArea")))
        app.screen.query("TextArea").first().text = TEXT  # type: ignore[attr-defined]
        await until(pilot, shows("B/tok", "rank"))
        save("tokens")
        await pilot.press("f5")
        await until(pilot, shows("Write a message"))
        await pilot.press(*(character if character != " " else "space" for character in QUESTION[:-1]), "question_mark")
        await pilot.press("enter")
        await until(pilot, shows(" out · "))
        await until(pilot, lambda: not app.session.status.lanes[0].job)
        await pilot.pause(0.5)
        save("chat")
    planning = WorkbenchApp(
        Settings(), lambda: open_session(options), bench="architecture", model=CATALOGUE_MODEL, remember=False
    )
    app = planning
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, shows("8,030,261,248"))
        await pilot.press("a")
        await pilot.pause(0.5)
        save("architecture")
        await pilot.press("f4")
        await until(pilot, shows("KV cache", "GiB"))
        await pilot.pause(0.5)
        save("vram")
    await stop_session("pictures", force=True)


if __name__ == "__main__":
    private_folders()
    PICTURES.mkdir(exist_ok=True)
    asyncio.run(make())
