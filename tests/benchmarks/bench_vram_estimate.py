"""The estimate against the simulation over a grid of plans: median, ninth decile and the worst of their differences.

    python -m tests.benchmarks.bench_vram_estimate [--plans N] [--seed N] [--worst N] [--points FILE]

Compared is what torch allocates at the peak (`Estimate.allocated`) with the same of the simulated step, on plans drawn
from models of the catalogue, jobs, lengths, batches, kernels and optimizers. What was simulated is kept in FILE, so
that an interrupted run goes on where it stopped and a changed estimate is held against it within seconds. Exit code 1
if the median is above 3 %, or more than a tenth of the plans are beyond 8 %.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from workbench import paths
from workbench.architecture.cache import load_skeleton
from workbench.errors import WorkbenchError
from workbench.models.resolve import resolve
from workbench.vram import simulate
from workbench.vram.estimate import CUBLAS_WORKSPACE_BYTES, Estimator
from workbench.vram.plan import ALL_LINEAR, Lora, Plan, check_plan, plan_to_dict
from workbench.vram.simulate.engine import run
from workbench.vram.simulate.run import library_versions
from workbench.vram.simulate.trace import phase_peaks

MEDIAN_AIM = 3.0
NINTH_AIM = 8.0
COMMON = (
    *("smollm2-135m", "llama-3.2-1b", "llama-3.1-8b", "llama-2-7b", "qwen2.5-0.5b", "qwen2.5-7b", "qwen3-0.6b"),
    *("qwen3-8b", "mistral-7b-v0.3", "gemma-3-270m", "gemma-3-4b-text", "gemma-2-2b", "phi-3-mini-4k", "phi-4-mini"),
    *("gpt2", "mixtral-8x7b-v0.1", "qwen3-30b-a3b", "olmo-2-1b", "tinyllama-1.1b"),
)
"""Families that people train."""
OTHERS = (
    *("gemma-2b", "falcon-7b", "bloom-560m", "opt-125m", "opt-1.3b", "pythia-160m", "pythia-1b", "phi-2", "olmo-1b"),
    *("starcoder2-3b", "granite-3.3-2b", "stablelm-3b-4e1t", "gpt-neo-125m", "gpt-j-6b", "c4ai-command-r7b-12-2024"),
    *("glm-4-9b-chat-hf", "deepseek-v2-lite", "gpt-oss-120b", "mpt-7b", "granite-3.0-1b-a400m", "olmo-3-7b"),
)
OTHERS_SHARE = 0.3
TEXTS = ((1, 256), (1, 512), (1, 1000), (1, 2048), (2, 1024), (4, 512), (4, 1024), (8, 256), (2, 4096), (16, 128))
TARGETS = ((ALL_LINEAR,), (ALL_LINEAR,), (ALL_LINEAR,), ("q_proj", "v_proj"), ("q_proj", "k_proj", "v_proj", "o_proj"))


def draw(chance: random.Random) -> tuple[str, Plan]:
    """A model and a plan as people make them, with something unusual now and then."""
    name = chance.choice(OTHERS if chance.random() < OTHERS_SHARE else COMMON)
    batch, length = chance.choice(TEXTS)
    values: dict[str, Any] = {"batch": batch, "sequence_length": length}
    values["job"] = chance.choice(("inference", "full", "lora", "lora", "qlora", "qlora"))
    values["attention"] = chance.choice(("sdpa", "sdpa", "sdpa", "flash", "efficient", "eager"))
    values["dtype"] = chance.choice(("bfloat16", "bfloat16", "bfloat16", "float16", "float32"))
    values["padded"] = chance.random() < 0.1
    values.update(_inference(chance) if values["job"] == "inference" else _training(chance, values["job"]))
    if values["attention"] == "flash" and (values["padded"] or values["dtype"] == "float32"):
        values["attention"] = "sdpa"
    return name, Plan(**values)


def _inference(chance: random.Random) -> dict[str, Any]:
    quant = chance.choice(("none", "none", "nf4", "int8"))
    values: dict[str, Any] = {"quant": quant, "double_quant": quant == "nf4", "new_tokens": chance.choice((2, 64, 512))}
    values["cache"] = chance.choice(("dynamic", "dynamic", "static"))
    return values


def _training(chance: random.Random, job: str) -> dict[str, Any]:
    values: dict[str, Any] = {
        "gradient_checkpointing": chance.random() < 0.5,
        "chunked_loss": chance.random() < 0.15,
        "keep_outputs": chance.random() < 0.15,
        "optimizer": chance.choice(("adamw", "adamw", "adamw-8bit", "paged-adamw-8bit", "adafactor", "sgd")),
        "fused": chance.random() < 0.8,
        "accumulation": chance.choice((1, 1, 4)),
    }
    if job == "qlora":
        values["quant"] = chance.choice(("nf4", "nf4", "nf4", "fp4"))
        values["double_quant"] = chance.random() < 0.7
        values["kbit_prepare"] = chance.random() < 0.6
    if job != "full":
        values["lora"] = Lora(
            r=chance.choice((4, 8, 16, 32, 64)),
            targets=chance.choice(TARGETS),
            dtype=chance.choice(("float32", "float32", "float32", "bfloat16")),
            dropout=chance.choice((0.0, 0.0, 0.05)),
        )
    return values


@dataclass(frozen=True)
class Point:
    """One plan, simulated and estimated."""

    described: str
    simulated: int
    estimated: int
    known: str
    """How the activations are known: ``table`` or ``rule``."""

    @property
    def difference(self) -> float:
        """In per cent of what was simulated."""
        return 100 * (self.estimated / self.simulated - 1)


class Points:
    """What was simulated, one line of JSON for each plan; nothing that other code or libraries simulated is taken."""

    def __init__(self, path: Path) -> None:
        self._path = path
        sources = sorted(Path(simulate.__file__).parent.glob("*.py"))
        code = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
        self._made_by = json.dumps([code, library_versions()])
        self._kept: dict[str, Optional[int]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                kept = json.loads(line)
                if kept["made_by"] == self._made_by:
                    self._kept[kept["key"]] = kept["bytes"]

    def simulated(self, name: str, config: dict[str, Any], plan: Plan) -> Optional[int]:
        """Peak bytes without workspaces; None for a plan that this model cannot have, 0 for a simulation that fails."""
        key = json.dumps([name, plan_to_dict(plan)], sort_keys=True)
        if key not in self._kept:
            self._kept[key] = _peak(config, plan)
            with self._path.open("a", encoding="utf-8") as file:
                line = {"key": key, "bytes": self._kept[key], "made_by": self._made_by}
                file.write(json.dumps(line) + "\n")
        return self._kept[key]


def _peak(config: dict[str, Any], plan: Plan) -> Optional[int]:
    wanted = ("forward", "backward", "optimizer") if plan.trains else ("prefill", "decode")
    try:
        trace = run(config, plan).trace
    except WorkbenchError:
        return None
    except Exception as error:
        print(f"the simulation failed: {type(error).__name__}: {error}", file=sys.stderr)
        return 0
    workspaces = CUBLAS_WORKSPACE_BYTES * (2 if plan.trains else 1)
    return max(found.live_bytes for found in phase_peaks(trace) if found.name in wanted) - workspaces


class Grid:
    """Compares plans, each model's skeleton made once."""

    def __init__(self, points: Points) -> None:
        self._points = points
        self._models: dict[str, tuple[dict[str, Any], Estimator]] = {}

    def compare(self, name: str, plan: Plan) -> Optional[Point]:
        """None for a plan that this model cannot have."""
        if name not in self._models:
            config = dict(resolve(name).config or {})
            self._models[name] = (config, Estimator(load_skeleton(config)))
        config, estimator = self._models[name]
        try:
            check_plan(plan)
            budget = estimator.estimate(plan)
        except WorkbenchError:
            return None
        simulated = self._points.simulated(name, config, plan)
        if simulated is None:
            return None
        if not simulated:
            print(f"no simulation: {describe(name, plan)}", flush=True)
            return None
        known = next(category.known for category in budget.categories if category.name == "activations")
        return Point(describe(name, plan), simulated, budget.allocated, known)


def describe(name: str, plan: Plan) -> str:
    """The model, and all that is not as a plan is by itself."""
    usual = Plan(job=plan.job)
    words = [name, plan.job, f"{plan.batch}x{plan.sequence_length}"]
    for field, value in plan_to_dict(plan).items():
        if field in ("job", "batch", "sequence_length", "new_tokens", "lora") or value == getattr(usual, field):
            continue
        words.append(field if value is True else f"no-{field}" if value is False else str(value))
    if plan.has_adapters:
        lora = plan.lora
        words.append(f"r{lora.r} {'+'.join(lora.targets)}")
        words += [lora.dtype] * (lora.dtype != "float32") + ["dropout"] * bool(lora.dropout)
    return " ".join(words)


def main() -> int:
    """Print one line for each plan and the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plans", type=int, default=240)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worst", type=int, default=15, help="how many of the worst to list")
    parser.add_argument("--points", type=Path, default=paths.cache_dir() / "vram-grid.jsonl")
    options = parser.parse_args()
    options.points.parent.mkdir(parents=True, exist_ok=True)
    grid, chance = Grid(Points(options.points)), random.Random(options.seed)
    found: list[Point] = []
    while len(found) < options.plans:
        name, plan = draw(chance)
        began = time.monotonic()
        point = grid.compare(name, plan)
        if point is not None:
            found.append(point)
            seconds = time.monotonic() - began
            print(f"{point.difference:+8.3f} %  {point.known:5}  {point.described}  {seconds:.1f} s", flush=True)
    return summary(found, options.worst)


def summary(found: list[Point], worst: int) -> int:
    """Print the differences' distribution and the worst; the exit code."""
    sizes = sorted(abs(point.difference) for point in found)
    median, ninth = statistics.median(sizes), sizes[min(len(sizes) - 1, int(0.9 * len(sizes)))]
    print(f"\n{len(found)} plans: median {median:.3f} %, nine of ten within {ninth:.2f} %, worst {sizes[-1]:.1f} %")
    for known in ("table", "rule"):
        those = sorted(abs(point.difference) for point in found if point.known == known)
        if those:
            print(
                f"{len(those)} by {known}: median {statistics.median(those):.3f} %, "
                f"nine of ten within {those[int(0.9 * len(those))]:.2f} %, worst {those[-1]:.1f} %"
            )
    for point in sorted(found, key=lambda point: -abs(point.difference))[:worst]:
        print(f"{point.difference:+8.2f} %  {point.known:5}  {point.described}")
    return 0 if median <= MEDIAN_AIM and ninth <= NINTH_AIM else 1


if __name__ == "__main__":
    sys.exit(main())
