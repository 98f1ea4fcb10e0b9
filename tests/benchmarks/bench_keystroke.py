"""How soon a keystroke in a 100 kB text has its counts on screen while a model generates: milliseconds, and the aim.

    python -m tests.benchmarks.bench_keystroke [--model NAME] [--tokenizers N] [--keys N]

Starts a worker of its own, loads the model, and lets it write a long answer. The app runs without a terminal and asks
that worker, as in daily use. The text is counted under N tokenizers (the model's own under N names). From the key to
the changed table is measured; one more frame, 17 ms at most, paints it. "no model lane" is the same while none
generates.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from textual.widgets import TextArea

from tests.benchmarks import table
from workbench.models.tokenizer_source import tokenizer_path
from workbench.session.launch import SessionOptions, open_session, stop_session
from workbench.session.protocol import Generate, LoadModel, ModelLoaded
from workbench.settings import Settings, TokenSettings
from workbench.ui.app import WorkbenchApp

AIM_SECONDS = 0.05
CHARACTERS = 100_000
ANSWER = {"max_new_tokens": 4000, "seed": 1}


def hundred_kilobytes() -> str:
    """Source text of the workbench itself."""
    files = sorted(Path(__file__).parents[2].glob("workbench/*/*.py"))
    return "".join(file.read_text(encoding="utf-8") for file in files).encode("ascii", "ignore").decode()[:CHARACTERS]


async def keystroke(bench: Any, area: TextArea) -> float:
    """Seconds from a key to the table that counts it."""
    length = len(area.text) + 1
    start = time.perf_counter()
    area.insert("x", area.cursor_location)
    while bench._counted is None or bench._counted.figures["characters"] != length:
        await asyncio.sleep(0.001)
    return time.perf_counter() - start


async def measure(bench: Any, pilot: Pilot[int], keys: int) -> list[float]:
    """The seconds of `keys` keystrokes, a quarter of a second apart."""
    area = bench.query_one(TextArea)
    found = []
    for _ in range(keys):
        found.append(await keystroke(bench, area))
        await pilot.pause(0.25)
    return sorted(found)


def tell(name: str, seconds: list[float]) -> None:
    median = statistics.median(seconds)
    late = seconds[round(0.9 * (len(seconds) - 1))]
    print(f"{name:14} median {median * 1e3:6.1f} ms, p90 {late * 1e3:6.1f} ms, of the aim {median / AIM_SECONDS:.2f}")
    what = f"keystroke in 100 kB, five tokenizers, {name}, against 50 ms"
    table.tell(table.Row(what, median, AIM_SECONDS, "s", 1.0))


async def run(model: str, copies: list[str], keys: int) -> None:
    name = f"bench-{os.getpid()}"

    async def open_it() -> Any:
        return await open_session(SessionOptions(name=name), client="bench", watch=True)

    writer = await open_it()
    try:
        await writer.ask(LoadModel(model), ModelLoaded)
        settings = Settings(tokens=TokenSettings(models=tuple(copies)))
        app = WorkbenchApp(settings, open_it, bench="tokens", model=model, make_gauges=None, remember=False)
        async with app.run_test(size=(120, 36)) as pilot:
            while not (app.session.attached and app.main.bench is not None and app.main.bench.ready):
                await pilot.pause(0.05)
            bench: Any = app.main.bench
            area = bench.query_one(TextArea)
            area.text = hundred_kilobytes()
            area.cursor_location = (area.document.line_count // 2, 0)
            while bench._counted is None or not bench._pieces:
                await pilot.pause(0.05)
            await pilot.pause(2)
            tell("no model lane", await measure(bench, pilot, keys))
            answer = writer.start(Generate("Write a long story about a lighthouse.", sampling=ANSWER, save=False))
            await pilot.pause(3)
            tell("generating", await measure(bench, pilot, keys))
            answer.cancel()
    finally:
        await writer.close()
        await stop_session(name, force=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--tokenizers", type=int, default=5)
    parser.add_argument("--keys", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WORKBENCH_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="wb-")
        source = Path(tokenizer_path(options.model))
        copies = [f"{folder}/{number}" for number in range(1, options.tokenizers)]
        for copy in copies:
            shutil.copytree(source, copy, ignore=lambda _, names: [n for n in names if n != "tokenizer.json"])
        asyncio.run(run(options.model, copies, options.keys))


if __name__ == "__main__":
    main()
