"""The process that simulates: JSON lines in, JSON lines out. Needs torch and transformers.

A request is ``{"config": {…}, "plan": {…}}``, its result a `Simulation`. It ends when its input does, or when nothing
was asked for a while.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import sys
import time
import traceback
from dataclasses import asdict
from typing import Any

from workbench.architecture import config as reading
from workbench.errors import WorkbenchError
from workbench.job import Job
from workbench.text import one_line
from workbench.vram.child_process import Told, answers_stream, write
from workbench.vram.plan import plan_from_dict

IDLE_SECONDS = 180.0
"""How long a process that has everything imported waits for another request."""


def main() -> None:
    """Answer requests until there are no more."""
    output = answers_stream()
    with contextlib.suppress(OSError):
        os.nice(5)
    while select.select([sys.stdin], [], [], IDLE_SECONDS)[0]:
        line = sys.stdin.readline()
        if not line:
            return
        write(output, _answer(json.loads(line), Told(output)))
        gc.collect()


def _answer(request: dict[str, Any], job: Job) -> dict[str, Any]:
    try:
        return {"result": asdict(_simulate(request, job))}
    except WorkbenchError as error:
        return {"error": [error.kind, error.message, error.remedy, error.details]}
    except MemoryError:
        return {"error": ["out-of-memory", "This machine has too little memory to simulate this plan.", "", ""]}
    except Exception as error:
        return {
            "error": [
                "simulation-failed",
                f"The simulation of this plan failed: {type(error).__name__}: {_first_line(error)}",
                _remedy(request),
                traceback.format_exc(limit=-12)[-6000:],
            ]
        }


def _remedy(request: dict[str, Any]) -> str:
    from workbench.architecture.build import build_skeleton

    # The config may leave out what transformers fills in.
    context = reading.context_length(reading.text_config(build_skeleton(request["config"]).config))
    if context and request["plan"]["sequence_length"] > context:
        return f"The model is made for {context:,} tokens: choose a sequence no longer than that."
    return "The estimate stands; the details say where it failed."


def _simulate(request: dict[str, Any], job: Job) -> Any:
    from workbench.packages import need

    started = time.monotonic()
    job.progress("import", 0, 2, "packages", "torch")
    torch = need("torch", "Simulating")
    torch.set_num_threads(1)
    job.progress("import", 1, 2, "packages", "transformers")
    need("transformers", "Simulating")
    from workbench.vram.simulate import engine
    from workbench.vram.simulate.result import summarize

    plan = plan_from_dict(request["plan"])
    run = engine.run(request["config"], plan, job)
    job.progress("allocator", 0, None)
    return summarize(
        run.trace,
        run.head,
        [*engine.warnings(plan, run), *request.get("warnings", ())],
        run.label,
        run.layers,
        run.layers_run,
        run.operators,
        time.monotonic() - started,
        request.get("versions", {}),
    )


def _first_line(error: BaseException) -> str:
    return one_line((str(error).splitlines() or [""])[0], 200)


if __name__ == "__main__":
    main()
