"""`workbench doctor` beside `python -m torch.utils.collect_env`, in turns, in one run.

    python -m tests.benchmarks.bench_doctor [--rounds 5]

Whole processes, by the wall clock and by processor time; the model session is stopped after each round, so that its
start is part of it, and on Linux what it and its children computed is counted with the command.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
import time

from tests.benchmarks.table import Row, tell

AIM = 1.0
LIGHT_AIM_SECONDS = 1.0
DOCTOR = (sys.executable, "-m", "workbench", "doctor")
LIGHT = (*DOCTOR, "--light")
PEER = (sys.executable, "-m", "torch.utils.collect_env")
STOP = (sys.executable, "-m", "workbench", "session", "stop", "--force")
PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Let the worker become our child when its client has ended, so that its processor time is told (prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def measure(command: tuple[str, ...]) -> tuple[float, float]:
    """Wall seconds of a command, and processor seconds of it and of the session that it left behind."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    computed = usage.ru_utime + usage.ru_stime
    stop = subprocess.Popen(STOP, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        try:
            pid, _, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return wall, computed
        if pid != stop.pid:
            computed += usage.ru_utime + usage.ru_stime


def main() -> None:
    """Print medians and ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    os.environ["WORKBENCH_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="wb-bench-")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages have their bytecode
    adopt_orphans()
    taken: dict[str, list[tuple[float, float]]] = {"collect_env": [], "doctor": [], "doctor --light": []}
    for turn in range(rounds + 1):
        for name, command in (("collect_env", PEER), ("doctor", DOCTOR), ("doctor --light", LIGHT)):
            found = measure(command)
            if turn:  # the first round warms the disk cache
                taken[name].append(found)
    walls, computed = ({name: statistics.median(t[i] for t in times) for name, times in taken.items()} for i in (0, 1))
    print(f"{'median of ' + str(rounds):<18}{'wall s':>8}{'ratio':>7}{'aim':>6}{'cpu s':>8}{'ratio':>7}{'aim':>6}")
    for name in taken:
        aim = "" if name == "collect_env" else f"{AIM:.2f}"
        wall = f"{walls[name]:>8.2f}{walls[name] / walls['collect_env']:>7.2f}{aim:>6}"
        print(f"{name:<18}{wall}{computed[name]:>8.2f}{computed[name] / computed['collect_env']:>7.2f}{aim:>6}")
    tell(Row("doctor against collect_env, wall clock", walls["doctor"], walls["collect_env"], "s", AIM))
    tell(Row("doctor against collect_env, processor time", computed["doctor"], computed["collect_env"], "s", AIM))
    print(f"light facts {walls['doctor --light']:.2f} s, aim {LIGHT_AIM_SECONDS:.2f} s")


if __name__ == "__main__":
    main()
