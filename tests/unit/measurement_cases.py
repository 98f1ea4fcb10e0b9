"""Runs that `test_vram_measure` asserts on, made in a process of their own: ``python measurement_cases.py DIRECTORY``.

Prints one JSON object: for each case the phases as measured and as simulated with the CPU's operators.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional

import bitsandbytes

from tests.unit.simulation_cases import FEW, SAMPLES, sample
from workbench.job import SILENT
from workbench.vram.measure_run import Subject, import_libraries, run_on_cpu
from workbench.vram.plan import Lora, Plan
from workbench.vram.simulate import engine
from workbench.vram.simulate.trace import phase_peaks

SMOLLM2 = "smollm2"
FEW_TARGETS = Lora(r=4, targets=("q_proj", "v_proj"))
CASES: dict[str, tuple[str, Plan, bool]] = {
    "full": ("tiny-llama", Plan(job="full", keep_outputs=True, **FEW), True),
    "full, 8-bit optimizer": ("tiny-llama", Plan(job="full", optimizer="adamw-8bit", accumulation=3, **FEW), True),
    "lora, checkpointed": ("tiny-llama", Plan(job="lora", gradient_checkpointing=True, **FEW), True),
    "qlora, double quantization": ("tiny-llama", Plan(job="qlora", quant="nf4", double_quant=True, **FEW), True),
    "qlora, random weights": ("tiny-gpt2", Plan(job="qlora", quant="nf4", **FEW), False),
    "inference": ("tiny-gemma3", Plan(new_tokens=12, **FEW), True),
    "inference, fp4": ("tiny-llama", Plan(quant="fp4", new_tokens=9, cache="static", **FEW), True),
    "SmolLM2, qlora": (
        SMOLLM2,
        Plan(job="qlora", quant="nf4", double_quant=True, sequence_length=64, lora=FEW_TARGETS),
        True,
    ),
    "SmolLM2, inference": (SMOLLM2, Plan(sequence_length=32, new_tokens=4), True),
}


def case(name: str, plan: Plan, has_weights: bool, smollm2: str) -> dict[str, Any]:
    """One plan on the CPU, and simulated as the CPU runs it."""
    folder = Path(smollm2) if name == SMOLLM2 else SAMPLES / name
    config = json.loads((folder / "config.json").read_text(encoding="utf-8")) if name == SMOLLM2 else sample(name)
    directory: Optional[str] = str(folder) if has_weights else None
    # The table of codes that bitsandbytes keeps in its module belongs to the first run of a process.
    bitsandbytes.functional.name2qmap.clear()
    found = run_on_cpu(Subject(config, plan, directory, "cpu", {}, []), SILENT)
    run = engine.run(config, plan, label="cpu", moved=True)
    return {
        "measured": [[phase.name, phase.step, phase.peak_bytes] for phase in found.phases],
        "simulated": [[peak.name, peak.step, peak.live_bytes] for peak in phase_peaks(run.trace)],
        "measurement": asdict(found),
    }


def main(smollm2: str) -> None:
    """Print all cases."""
    for _model, plan, _has_weights in CASES.values():
        import_libraries(plan)
    found = {label: case(*given, smollm2) for label, given in CASES.items()}
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
