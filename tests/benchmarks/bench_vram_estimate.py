"""The estimate against the simulation over a grid of plans: median, ninth decile and the worst of their differences.

    python tests/benchmarks/bench_vram_estimate.py [--plans N] [--seed N] [--most PERCENT]

Compared is what torch allocates at the peak (`Estimate.allocated`) with the same of the simulated step. Plans are drawn
from a grid of models of the catalogue, jobs, lengths, batches and kernels. Exit code 1 if the median is above 3 %, or
more than a tenth of the plans are beyond 8 %.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import sys
import time
from typing import Any

from workbench.architecture.cache import load_skeleton
from workbench.errors import WorkbenchError
from workbench.models.resolve import resolve
from workbench.vram.estimate import CUBLAS_WORKSPACE_BYTES, Estimator
from workbench.vram.plan import Lora, Plan, changed, check_plan
from workbench.vram.simulate.engine import run
from workbench.vram.simulate.trace import phase_peaks

MODELS = (
    *("smollm2-135m", "llama-3.2-1b", "meta-llama-3-8b", "llama-2-7b", "qwen2.5-0.5b", "qwen2.5-7b", "qwen3-0.6b"),
    *("qwen3-8b", "mistral-7b-v0.3", "gemma-3-4b-text", "gpt2", "phi-3-mini-4k", "mixtral-8x7b-v0.1"),
)
NF4 = {"job": "qlora", "quant": "nf4", "double_quant": True}
JOBS: tuple[dict[str, Any], ...] = (
    *({"job": "full"}, {"job": "lora"}, NF4, {**NF4, "kbit_prepare": False}),
    *({}, {"quant": "nf4", "double_quant": True}, {"quant": "int8", "dtype": "float16"}),
    *({"job": "lora", "lora": Lora(r=8, targets=("q_proj", "v_proj"))}, {"job": "full", "optimizer": "adamw-8bit"}),
    *(
        {"job": "full", "dtype": "float32"},
        {"job": "full", "chunked_loss": True},
        {"job": "lora", "keep_outputs": True},
    ),
    {**NF4, "lora": Lora(targets=("down_proj",))},
)
TEXTS = ((1, 512), (1, 2048), (4, 1024), (8, 256), (2, 4096))


def grid(count: int, seed: int) -> list[tuple[str, Plan]]:
    """Plans drawn without replacement, the same for the same seed."""
    whole = []
    for name, job, (batch, length), attention, checkpointed in itertools.product(
        MODELS, JOBS, TEXTS, ("sdpa", "eager"), (False, True)
    ):
        plan = changed(Plan(**job), batch=batch, sequence_length=length, attention=attention, new_tokens=2)
        if checkpointed and not plan.trains:
            continue
        whole.append((name, changed(plan, gradient_checkpointing=checkpointed)))
    return random.Random(seed).sample(whole, min(count, len(whole)))


def compare(name: str, plan: Plan, estimators: dict[str, tuple[dict[str, Any], Estimator]]) -> tuple[int, int, str]:
    """Estimated and simulated bytes, and how the activations are known."""
    if name not in estimators:
        config = dict(resolve(name).config or {})
        estimators[name] = (config, Estimator(load_skeleton(config)))
    config, estimator = estimators[name]
    check_plan(plan)
    budget = estimator.estimate(plan)
    wanted = ("forward", "backward", "optimizer") if plan.trains else ("prefill", "decode")
    peak = max(found.live_bytes for found in phase_peaks(run(config, plan).trace) if found.name in wanted)
    workspaces = CUBLAS_WORKSPACE_BYTES * (2 if plan.trains else 1)
    known = next(category.known for category in budget.categories if category.name == "activations")
    return budget.allocated, peak - workspaces, known


def main() -> int:
    """Print one line for each plan and the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plans", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    estimators: dict[str, tuple[dict[str, Any], Estimator]] = {}
    rows = []
    for name, plan in grid(options.plans, options.seed):
        began = time.monotonic()
        described = f"{name} {plan.job} {plan.quant} {plan.batch}x{plan.sequence_length} {plan.attention}"
        described += (
            " checkpointed" * plan.gradient_checkpointing + f" {'+'.join(plan.lora.targets)}" * plan.has_adapters
        )
        try:
            estimated, simulated, known = compare(name, plan, estimators)
        except WorkbenchError as error:
            print(f"{described}: {error}", file=sys.stderr)
            continue
        difference = 100 * (estimated / simulated - 1)
        rows.append((abs(difference), difference, known, described))
        print(f"{difference:+8.3f} %  {known:5}  {described}  {time.monotonic() - began:.1f} s", flush=True)
    return summary(rows)


def summary(rows: list[tuple[float, float, str, str]]) -> int:
    """Print the differences' distribution and the worst; the exit code."""
    sizes = sorted(row[0] for row in rows)
    median = statistics.median(sizes)
    ninth = sizes[min(len(sizes) - 1, int(0.9 * len(sizes)))]
    tables = [row[0] for row in rows if row[2] == "table"]
    print(f"\n{len(rows)} plans: median {median:.3f} %, nine of ten within {ninth:.2f} %, worst {sizes[-1]:.1f} %")
    if tables:
        print(f"{len(tables)} from tables: median {statistics.median(tables):.4f} %, worst {max(tables):.2f} %")
    for _size, difference, known, described in sorted(rows, reverse=True)[:10]:
        print(f"{difference:+8.2f} %  {known:5}  {described}")
    return 0 if median <= 3 and ninth <= 8 else 1


if __name__ == "__main__":
    sys.exit(main())
