"""Measures the grid on this box's GPU and adds each row to ``measured.jsonl``: ``python -m tests.gpu.measure_grid``.

A row holds model, plan, versions, what was measured by phase, and what estimate and simulation say of it. Rows that
are there already with the same versions and GPU are not measured again, so a run that was cut is taken up.
Not yet run on a GPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.gpu.plans import CONFIGS, SMOLLM2, grid
from workbench.architecture.build import build_skeleton
from workbench.errors import WorkbenchError
from workbench.models.gguf_convert import ensure_directory
from workbench.models.resolve import resolve
from workbench.vram.estimate import Estimator
from workbench.vram.measure import measure
from workbench.vram.measured import errors, settled
from workbench.vram.plan import Plan, plan_to_dict
from workbench.vram.shares import CATEGORIES
from workbench.vram.simulate.run import library_versions, simulate

ROWS = Path(__file__).with_name("measured.jsonl")
PROMPT = "Write a long story about a lighthouse keeper and a storm."


def models() -> Iterator[tuple[str, dict[str, Any], str | None]]:
    """Name, config and, where weights are on this box, their directory."""
    found = resolve(SMOLLM2)
    if found.has_weights and found.config is not None:
        yield SMOLLM2, found.config, str(ensure_directory(found))
    for name, config in CONFIGS.items():
        yield name, config, None


def row_of(name: str, config: dict[str, Any], directory: str | None, plan: Plan) -> dict[str, Any]:
    """One plan measured, simulated and estimated; a run that fails is a row with its error."""
    budget = Estimator(build_skeleton(config)).estimate(plan)
    row: dict[str, Any] = {"model": name, "plan": plan_to_dict(plan), "libraries": library_versions()}
    sizes = {category: getattr(budget, category) for category in (*CATEGORIES, "total")}
    row["estimate"] = {**sizes, "allocated": budget.allocated}
    try:
        simulation = simulate(config, plan)
        row["simulation"] = {category: getattr(simulation, category) for category in (*CATEGORIES, "total")}
        row["simulation"].update(allocated=simulation.allocated_bytes, reserved=simulation.reserved_bytes)
        row["simulation"]["phases"] = [asdict(phase) for phase in simulation.phases]
    except WorkbenchError as error:
        row["simulation_error"] = f"{error.kind}: {error.message}"
    try:
        measurement = measure(config, plan, budget, directory, "cuda")
    except WorkbenchError as error:
        row["error"] = f"{error.kind}: {error.message}"
        row["details"] = error.details[-2000:]
        return row
    row["measured"] = asdict(measurement)
    row["errors"] = {"estimate": errors(sizes, budget.allocated, measurement)}
    if "simulation" in row:
        found = row["simulation"]
        row["errors"]["simulation"] = errors(found, found["allocated"], measurement)
        reserved = 100.0 * (found["reserved"] / max(1, measurement.reserved_bytes) - 1.0)
        row["errors"]["simulation"]["reserved"] = reserved
    return row


def decode_speed(quant: str) -> dict[str, Any]:
    """An answer of the chat on the GPU: time to the first token, tokens a second, memory."""
    options = ["--quant", quant, "--greedy", "--max-new-tokens", "256", "--json"]
    command = [sys.executable, "-m", "workbench", "chat", SMOLLM2, "--prompt", PROMPT, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    row: dict[str, Any] = {"model": SMOLLM2, "decode": quant, "libraries": library_versions()}
    if done.returncode:
        return {**row, "error": done.stderr[-2000:]}
    answer = json.loads(done.stdout)
    kept = ("prompt_tokens", "new_tokens", "time_to_first_token_seconds", "tokens_per_second", "memory")
    return {**row, "answer": {key: answer.get(key) for key in kept}}


def key_of(row: dict[str, Any]) -> str:
    """What makes a row the same as another."""
    subject = [row["model"], row.get("plan"), row.get("decode"), row["libraries"], row["gpu"]]
    return json.dumps(subject, sort_keys=True)


def main() -> None:
    """Measure what is not there yet."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=60.0, help="start nothing new after that long")
    options.add_argument("--output", type=Path, default=ROWS)
    options.add_argument("--model", action="append", help="only these; repeatable")
    given = options.parse_args()
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device.")
    gpu = torch.cuda.get_device_name(0)
    ends = time.monotonic() + 60.0 * given.minutes
    text = given.output.read_text(encoding="utf-8") if given.output.exists() else ""
    there = {key_of(row) for row in map(json.loads, text.splitlines()) if "error" not in row}

    def add(row: dict[str, Any]) -> None:
        row["gpu"], row["day"] = gpu, time.strftime("%Y-%m-%d")
        with given.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        off = row.get("errors", {}).get("simulation", {}).get("allocated")
        told = row.get("error") or ("" if off is None else f"simulation {off:+.3f} %")
        print(row["model"], row.get("decode") or settled(Plan(**_plain(row["plan"]))), told, flush=True)

    for name, config, directory in models():
        for plan in grid(name) if not given.model or name in given.model else ():
            known = {"model": name, "plan": plan_to_dict(plan), "libraries": library_versions(), "gpu": gpu}
            if time.monotonic() < ends and key_of(known) not in there:
                add(row_of(name, config, directory, plan))
    for quant in ("none", "nf4", "int8") if not given.model or SMOLLM2 in given.model else ():
        if time.monotonic() < ends:
            add(decode_speed(quant))


def _plain(plan: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in plan.items() if name != "lora"}


if __name__ == "__main__":
    main()
