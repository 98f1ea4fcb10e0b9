"""What an answer costs the app as it grows: milliseconds of CPU from each piece of text to its painted frame.

    python -m tests.benchmarks.bench_streaming [--pieces N] [--size COLUMNSxROWS]

The app runs without a terminal. Markdown comes in pieces as the session sends them, 15 a second of a model that writes
50 tokens/s; each is waited for until its frame is painted. "growth" is the last tenth of the answer by the first: 1 is
a flat cost.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time

from tests.benchmarks.table import Row, tell
from tests.stubs.scripted_session import ScriptedSession
from workbench.settings import Settings
from workbench.ui.app import WorkbenchApp
from workbench.ui.gauges import Gauges
from workbench.ui.widgets.transcript import Transcript, Turn

AIM_SECONDS = 1 / 60
PARAGRAPH = (
    "## A heading\n\nSome *prose* with `code` in it, long enough to be wrapped by a terminal of eighty columns, and a "
    "list:\n\n* first\n* second\n\n```python\ndef answer(question: str) -> int:\n    return 42  # as ever\n```\n\n"
)
PIECE = 14
"""Characters that come at once."""


async def measure(pieces: int, size: tuple[int, int]) -> list[float]:
    """CPU seconds of each piece's frame."""
    session = ScriptedSession()
    app = WorkbenchApp(
        open_session=session.open,
        bench="chat",
        settings=Settings(),
        describe_loss=session.describe_loss,
        make_gauges=lambda: Gauges,
        remember=False,
    )
    async with app.run_test(size=size) as pilot:
        await pilot.pause(0.5)
        transcript = app.query_one(Transcript)
        transcript.set_turns([Turn("user", "Tell me."), Turn("assistant", "", growing=True)])
        text = PARAGRAPH * (pieces * PIECE // len(PARAGRAPH) + 1)
        found = []
        for number in range(pieces):
            begun = time.process_time()
            transcript.grow(text[number * PIECE : (number + 1) * PIECE])
            await pilot.pause()
            found.append(time.process_time() - begun)
        return found


def main() -> None:
    """Measure and print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pieces", type=int, default=1000)
    parser.add_argument("--size", default="120x36")
    arguments = parser.parse_args()
    columns, rows = (int(part) for part in arguments.size.split("x"))
    found = asyncio.run(measure(arguments.pieces, (columns, rows)))
    tenth = max(1, len(found) // 10)
    growth = statistics.median(found[-tenth:]) / statistics.median(found[:tenth])
    late = sorted(found)[round(0.99 * (len(found) - 1))]
    median = statistics.median(found)
    print(
        f"{arguments.size}, {arguments.pieces * PIECE:,} characters: median {median * 1e3:.1f} ms, "
        f"p99 {late * 1e3:.1f} ms, of the aim {median / AIM_SECONDS:.2f}; growth {growth:.2f}"
    )
    tell(Row("frame while an answer streams, against 60 a second", median, AIM_SECONDS, "s", 1.0))


if __name__ == "__main__":
    main()
