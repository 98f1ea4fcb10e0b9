"""`workbench doctor` beside `python -m torch.utils.collect_env`, in turns, in one run.

    python tests/benchmarks/bench_doctor.py [--rounds 5]

Whole processes by the wall clock; the model session is stopped before each round, so that its start is part of it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

AIM = 1.0
DOCTOR = (sys.executable, "-m", "workbench", "doctor")
LIGHT = (*DOCTOR, "--light")
PEER = (sys.executable, "-m", "torch.utils.collect_env")


def seconds_of(*command: str) -> float:
    """Wall time of a command whose output nobody reads."""
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - started


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    os.environ["WORKBENCH_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="wb-bench-")
    seconds: dict[str, list[float]] = {"collect_env": [], "doctor": [], "doctor --light": []}
    for turn in range(rounds + 1):
        for name, command in (("collect_env", PEER), ("doctor", DOCTOR), ("doctor --light", LIGHT)):
            subprocess.run(
                [sys.executable, "-m", "workbench", "session", "stop", "--force"], stdout=subprocess.DEVNULL, check=True
            )
            taken = seconds_of(*command)
            if turn:  # the first round warms the disk cache
                seconds[name].append(taken)
    peer = statistics.median(seconds["collect_env"])
    print(f"{'median of ' + str(rounds):<20}{'seconds':>9}{'ratio':>8}{'aim':>6}")
    for name, values in seconds.items():
        median = statistics.median(values)
        aim = "" if name == "collect_env" else f"{AIM:.2f}"
        print(f"{name:<20}{median:>9.2f}{median / peer:>8.2f}{aim:>6}")


if __name__ == "__main__":
    main()
