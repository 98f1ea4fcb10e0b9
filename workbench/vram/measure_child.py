"""The process that runs a plan for real: one request, one answer, the end. Needs torch and transformers."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workbench.errors import WorkbenchError
from workbench.job import Job
from workbench.models.memory import memory_shortage
from workbench.text import one_line
from workbench.vram.child_process import Told, answers_stream, write


def main() -> None:
    """Answer one request."""
    output = answers_stream()
    with contextlib.suppress(OSError):
        os.nice(5)
    with contextlib.suppress(OSError):
        # If the kernel must end a process, this one (proc(5), oom_score_adj).
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    line = sys.stdin.readline()
    if line:
        threading.Thread(target=_end_with_parent, daemon=True).start()
        write(output, _answer(json.loads(line), Told(output)))
        # Interpreters may crash on their way out of a process that ran out of memory.
        os._exit(0)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def _answer(request: dict[str, Any], job: Job) -> dict[str, Any]:
    try:
        return {"result": asdict(_measure(request, job))}
    except WorkbenchError as error:
        return {"error": [error.kind, error.message, error.remedy, error.details]}
    except Exception as error:
        details = traceback.format_exc(limit=-12)[-6000:]
        shortage = memory_shortage(error)
        if shortage is not None:
            message = f"The run ended out of memory: {shortage}"
            return {"error": ["out-of-memory", message, "Take a smaller plan; the estimate stands.", details]}
        said = one_line((str(error).splitlines() or [""])[0], 200)
        message = f"The run of this plan failed: {type(error).__name__}: {said}"
        return {"error": ["measurement-failed", message, "The details say where; the estimate stands.", details]}


def _measure(request: dict[str, Any], job: Job) -> Any:
    from workbench.packages import need

    job.progress("import", 0, 2, "packages", "torch")
    need("torch", "Measuring")
    job.progress("import", 1, 2, "packages", "transformers")
    need("transformers", "Measuring")
    from workbench.vram.measure_run import run

    return run(request, job)


if __name__ == "__main__":
    main()
