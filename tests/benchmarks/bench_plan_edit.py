"""How soon an edited plan has its new budget on screen: milliseconds from the key, against a frame of 60 a second.

    python -m tests.benchmarks.bench_plan_edit [--model NAME] [--keys N]

Starts a worker of its own; the app runs without a terminal and asks that worker, as in daily use. From the key to the
budget drawn anew is measured, which the next frame shows. "no bench" is the same key going to and fro over the same
socket for the session's status, so that what the estimate itself takes can be told apart.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from typing import Any

from textual.pilot import Pilot

from tests.benchmarks import table
from tests.benchmarks.table import Row
from workbench.session.launch import SessionOptions, open_session, stop_session
from workbench.session.protocol import GetStatus, StatusReported
from workbench.settings import Settings
from workbench.ui.app import WorkbenchApp
from workbench.ui.widgets.plan_fields import PlanFields
from workbench.vram.plan import plan_to_dict

FRAME_SECONDS = 1 / 60
PAUSE_SECONDS = 0.25


async def keystroke(bench: Any, fields: PlanFields, direction: int) -> float:
    """Seconds from a key on the batch to the budget of the new plan."""
    start = time.perf_counter()
    fields.action_step(direction)
    wanted = plan_to_dict(bench.draft.plan)
    while bench.estimate["plan"] != wanted:
        await asyncio.sleep(0.0005)
    return time.perf_counter() - start


async def measure(bench: Any, pilot: Pilot[int], keys: int) -> list[float]:
    """The seconds of `keys` keystrokes, a quarter of a second apart, up and down in turns."""
    fields = bench.query_one(PlanFields)
    fields.move_to("batch")
    found = []
    for number in range(keys):
        found.append(await keystroke(bench, fields, -1 if number % 2 else 1))
        await pilot.pause(PAUSE_SECONDS)
    return sorted(found)


async def turns(client: Any, times: int) -> list[float]:
    """The seconds of as many requests that need no work."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        await client.ask(GetStatus(), StatusReported)
        found.append(time.perf_counter() - start)
        await asyncio.sleep(PAUSE_SECONDS)
    return sorted(found)


def tell(name: str, seconds: list[float]) -> None:
    median = statistics.median(seconds)
    late = seconds[round(0.9 * (len(seconds) - 1))]
    print(f"{name:10} median {median * 1e3:6.1f} ms, p90 {late * 1e3:6.1f} ms, of a frame {median / FRAME_SECONDS:.2f}")


async def run(model: str, keys: int) -> None:
    name = f"bench-{os.getpid()}"

    async def open_it() -> Any:
        return await open_session(SessionOptions(name=name), client="bench", watch=True)

    other = await open_it()
    try:
        app = WorkbenchApp(Settings(), open_it, bench="vram", model=model, make_gauges=None, remember=False)
        async with app.run_test(size=(120, 36)) as pilot:
            while not (
                app.session.attached and app.main.bench is not None and getattr(app.main.bench, "estimate", None)
            ):
                await pilot.pause(0.05)
            await pilot.pause(3)
            tell("no bench", await turns(other, keys))
            edits = await measure(app.main.bench, pilot, keys)
            tell("edit", edits)
            row = Row("edited plan to its budget, against a frame", statistics.median(edits), FRAME_SECONDS, "s", 1.0)
            table.tell(row)
    finally:
        await other.close()
        await stop_session(name, force=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama-3.1-8b")
    parser.add_argument("--keys", type=int, default=30)
    options = parser.parse_args()
    os.environ["WORKBENCH_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="wb-")
    asyncio.run(run(options.model, options.keys))


if __name__ == "__main__":
    main()
