"""What a trace costs beside a plain forward pass: same process, same prompt, taking turns, ratios printed.

    python -m tests.benchmarks.bench_trace MODEL_DIRECTORY [--tokens N] [--rounds N] [--threads N] [--quant Q]
        [--dtype D] [--device D]

"stamps" is one pass with time stamps on every module, as the trace times it. "values" adds the pass that looks at
every module's output, without the lens. "lens" is the whole with the logit lens at the last 64 positions. "attention"
reads one layer in the middle, which the plain pass does not contain.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tests.benchmarks.table import Row, tell
from workbench.architecture import trace
from workbench.architecture.anatomy import find_layers
from workbench.architecture.attention import read_attention
from workbench.architecture.passes import run_forward
from workbench.architecture.timing import Clock, time_modules
from workbench.architecture.trace import TraceOptions, trace_model
from workbench.job import SILENT
from workbench.models.load import LoadedModel, LoadOptions, load_model, unload


def seconds_of(work: Callable[[], object], device: str) -> float:
    """Wall time of one call, the device's work included."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(loaded: LoadedModel, tokens: int, rounds: int) -> None:
    """Print medians and ratios to the plain pass."""
    rows = loaded.model.get_input_embeddings().weight.shape[0]
    ids = [(7919 * n) % (rows - 10) + 5 for n in range(tokens)]
    layers = find_layers(loaded.model)
    modules = list(loaded.model.named_modules())
    device = loaded.facts.device
    keep = min(64, tokens)
    looks: dict[str, Callable[[], object]] = {
        "plain": lambda: run_forward(loaded, ids, keep),
        "stamps": lambda: time_modules(loaded, ids, layers, modules, keep, Clock(device), SILENT),
        "values": lambda: trace_model(loaded, ids, str, TraceOptions(lens=0)),
        "lens": lambda: trace_model(loaded, ids, str, TraceOptions()),
        "attention": lambda: read_attention(loaded, ids, len(layers) // 2, str),
    }
    taken: dict[str, list[float]] = {name: [] for name in looks}
    for _ in range(rounds + 1):
        for name, look in looks.items():
            taken[name].append(seconds_of(look, device))
    plain = taken["plain"][1:]
    print(f"{loaded.facts.quant:>5} {loaded.facts.dtype:<9} {device:<7} {tokens:,} tokens, {len(modules):,} modules")
    for name, values in taken.items():
        ratios = [value / base for value, base in zip(values[1:], plain, strict=True)]
        print(
            f"  {name:<10} {statistics.median(values[1:]) * 1000:9.1f} ms   ratio {statistics.median(ratios):6.2f}"
            f" ({min(ratios):.2f}-{max(ratios):.2f})"
        )
        if name in ("values", "lens"):
            what = "trace with the logit lens" if name == "lens" else "trace"
            tell(Row(f"{what} against a plain pass", *map(statistics.median, (values[1:], plain)), "s"))


def main() -> None:
    """Measure one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--tokens", type=int, default=29)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--quant", default="none")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    # One timed pass each, so that the ratio tells what a look costs and not how often it is repeated.
    trace._PASSES = 1
    loaded = load_model(
        arguments.directory, LoadOptions(arguments.quant, dtype=arguments.dtype, device=arguments.device)
    )
    measure(loaded, arguments.tokens, arguments.rounds)
    unload(loaded)


if __name__ == "__main__":
    main()
