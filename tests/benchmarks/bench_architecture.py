"""The tree of a 405B model beside a bare build of it on the meta device, in turns, in one run.

    python -m tests.benchmarks.bench_architecture [--rounds 7] [--model llama-3.1-405b]

Ours is everything the bench needs: config checked, model built, every tensor read off with its dtype and tying,
counted by component, folded into a tree, explained and drawn. The peer is transformers' own
``AutoModelForCausalLM.from_config`` under ``torch.device("meta")`` and a sum over its parameters. Wall clock, since
that is what one waits for; libraries and model code are imported before the first round. The last line goes through a
real session: `workbench inspect --json` to a worker that has its libraries already, with an empty skeleton cache.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from tests.benchmarks.table import Row, tell

AIM_SECONDS = 1.0
WORKBENCH = (sys.executable, "-m", "workbench")


def ours(config: dict[str, object]) -> int:
    """Build, count, fold, explain."""
    from workbench.architecture.build import build_skeleton
    from workbench.architecture.compute import compute_figures
    from workbench.architecture.count import count_parameters
    from workbench.architecture.describe import describe
    from workbench.architecture.diagram import diagram
    from workbench.architecture.facts import Subject, explain
    from workbench.architecture.tree import module_tree

    skeleton = build_skeleton(config)
    counts = count_parameters(skeleton)
    figures = compute_figures(skeleton, counts)
    explain(Subject(skeleton, counts, describe(skeleton), figures, tuple(diagram(skeleton))))
    return module_tree(skeleton).parameters


def peer(config: dict[str, object]) -> int:
    """What anyone would write to count a model without its weights."""
    import torch
    import transformers

    values = {key: value for key, value in config.items() if key != "architectures"}
    parsed = transformers.AutoConfig.for_model(**values)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(parsed)
    return sum(parameter.numel() for parameter in model.parameters())


def timed(work: Callable[[dict[str, object]], int], config: dict[str, object]) -> tuple[float, int]:
    """Wall seconds and the count."""
    started = time.perf_counter()
    count = work(config)
    return time.perf_counter() - started, count


def through_a_session(model: str, rounds: int) -> list[float]:
    """Wall seconds of the whole command against a warm worker that has never seen the config."""
    folder = tempfile.mkdtemp(prefix="wb-bench-")
    os.environ["WORKBENCH_RUNTIME_DIR"] = folder
    os.environ["XDG_CACHE_HOME"] = os.path.join(folder, "cache")
    taken = []
    for turn in range(rounds + 1):
        # The context length shapes no tensor: another model to the cache, the same work.
        change = ("--set", f"max_position_embeddings={131072 + turn}")
        started = time.perf_counter()
        subprocess.run((*WORKBENCH, "inspect", model, *change, "--json"), check=True, stdout=subprocess.DEVNULL)
        if turn:
            taken.append(time.perf_counter() - started)
    subprocess.run((*WORKBENCH, "session", "stop", "--force"), check=False, stdout=subprocess.DEVNULL)
    return taken


def main() -> None:
    """Print medians and the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--model", default="llama-3.1-405b")
    arguments = parser.parse_args()
    from workbench.models import catalogue

    entry = catalogue.find(arguments.model)
    if entry is None:
        raise SystemExit(f"{arguments.model} is not in the catalogue.")
    taken: dict[str, list[float]] = {"workbench": [], "meta build": []}
    for turn in range(arguments.rounds + 1):
        for name, work in (("workbench", ours), ("meta build", peer)):
            seconds, count = timed(work, entry.config)
            if count != entry.parameters:
                raise SystemExit(f"{name} counts {count:,}, not {entry.parameters:,}.")
            if turn:
                taken[name].append(seconds)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    for name, seconds in taken.items():
        print(f"{name:<12} {medians[name]:.3f} s  ({min(seconds):.3f} to {max(seconds):.3f})")
    print(f"ratio        {medians['workbench'] / medians['meta build']:.2f}")
    against = "tree of 405B, counted and explained, against a bare meta build"
    tell(Row(against, medians["workbench"], medians["meta build"], "s"))
    session = through_a_session(arguments.model, arguments.rounds)
    print(f"whole command, warm worker  {statistics.median(session):.2f} s  (aim {AIM_SECONDS:.0f} s on screen)")
    tell(Row("405B by the command, warm worker, against a second", statistics.median(session), AIM_SECONDS, "s", 1.0))


if __name__ == "__main__":
    main()
