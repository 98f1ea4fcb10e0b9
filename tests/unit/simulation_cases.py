"""Runs that `test_vram_simulate` asserts on, made in a process of their own: ``python simulation_cases.py``.

A simulation registers a device and replaces functions of torch, which no test process should live with. Prints one
JSON object: what was compared, by name.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Optional

from workbench.vram.plan import Lora, Plan
from workbench.vram.simulate import engine
from workbench.vram.simulate.allocator import replay
from workbench.vram.simulate.device import SIMULATED, open_device
from workbench.vram.simulate.trace import Trace, phase_peaks

SAMPLES = Path(__file__).parents[2] / "sample_models"
SMALL = {
    **{"vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512},
}
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **SMALL, "num_hidden_layers": 6}
GEMMA = {
    **{"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], **SMALL},
    **{"num_hidden_layers": 10, "sliding_window": 8},
}
MIXTURE = {
    **{"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"], **SMALL, "num_hidden_layers": 8},
    **{"num_key_value_heads": 4, "head_dim": 8, "kv_lora_rank": 16, "q_lora_rank": 24, "qk_rope_head_dim": 8},
    **{"qk_nope_head_dim": 16, "v_head_dim": 16, "n_routed_experts": 8, "num_experts_per_tok": 2},
    **{"n_group": 2, "topk_group": 1, "moe_intermediate_size": 32, "first_k_dense_replace": 2},
}
HYBRID = {
    **{"model_type": "lfm2", "architectures": ["Lfm2ForCausalLM"], **SMALL, "num_hidden_layers": 12},
    "layer_types": ["conv", "full_attention"] * 6,
}
# One that cannot do with fewer layers than it was built with: its embedding has a part for each.
PER_LAYER = {"model_type": "gemma4_text", "architectures": ["Gemma4ForCausalLM"], **SMALL, "num_hidden_layers": 12}
FEW: dict[str, Any] = {"sequence_length": 24, "batch": 2}

SHORTENED: dict[str, tuple[dict[str, Any], Plan]] = {
    "full, foreach, checkpointed": (
        LLAMA,
        Plan(job="full", fused=False, gradient_checkpointing=True, accumulation=2, **FEW),
    ),
    "full, adafactor": (LLAMA, Plan(job="full", optimizer="adafactor", **FEW)),
    "full, 8-bit": (LLAMA, Plan(job="full", optimizer="adamw-8bit", chunked_loss=True, **FEW)),
    "lora": (LLAMA, Plan(job="lora", lora=Lora(dora=True, dropout=0.1, dtype="bfloat16"), **FEW)),
    "qlora": (LLAMA, Plan(job="qlora", quant="nf4", double_quant=True, gradient_checkpointing=True, **FEW)),
    "qlora, int8": (LLAMA, Plan(job="qlora", quant="int8", dtype="float16", **FEW)),
    "inference": (LLAMA, Plan(quant="nf4", new_tokens=9, **FEW)),
    "alternating layers": (GEMMA, Plan(new_tokens=12, **FEW)),
    "dense layers before a mixture": (MIXTURE, Plan(new_tokens=4, **FEW)),
    "convolutions between attention": (HYBRID, Plan(job="full", **FEW)),
    "embeddings for each layer": (PER_LAYER, Plan(new_tokens=3, **FEW)),
}

REAL: dict[str, list[Plan]] = {
    "tiny-llama": [
        Plan(job="full", attention="eager", fused=False, keep_outputs=True, **FEW),
        Plan(job="full", chunked_loss=True, optimizer="sgd", fused=False, padded=True, **FEW),
        Plan(job="lora", lora=Lora(rslora=True), gradient_checkpointing=True, **FEW),
        Plan(job="qlora", quant="nf4", **FEW),
        Plan(new_tokens=8, **FEW),
        Plan(new_tokens=3, cache="static", **FEW),
    ],
    "tiny-gemma3": [Plan(job="full", **FEW), Plan(new_tokens=12, **FEW)],
    "tiny-gpt2": [Plan(job="qlora", quant="nf4", **FEW)],
    "tiny-mixtral": [Plan(job="full", **FEW), Plan(quant="nf4", new_tokens=3, **FEW)],
    "tiny-bert": [Plan(job="full", **FEW)],
    "tiny-t5": [Plan(job="lora", **FEW), Plan(new_tokens=3, **FEW)],
}

STATIC = {
    "bfloat16": Plan(),
    "nf4, double": Plan(quant="nf4", double_quant=True),
    "int8": Plan(quant="int8"),
}


def sample(name: str) -> dict[str, Any]:
    """The config of a sample model."""
    config: dict[str, Any] = json.loads((SAMPLES / name / "config.json").read_text(encoding="utf-8"))
    return config


def numbers(run: engine.Run) -> dict[str, Any]:
    """What two runs are compared by."""
    trace = run.trace
    replayed = replay(trace.events, trace.sizes)
    return {
        "peaks": [[peak.name, peak.step, peak.live_bytes] for peak in phase_peaks(trace)],
        "allocated": replayed.max_allocated_bytes,
        "reserved": replayed.max_reserved_bytes,
        "events": len(trace.events),
        "layers_run": run.layers_run,
    }


def labelled(trace: Trace, label: str) -> int:
    """Bytes of all storages with a label."""
    return sum(trace.sizes[number] for number, found in trace.labels.items() if found == label)


def shortened() -> dict[str, Any]:
    """Each plan with few layers and with all."""
    return {
        name: [numbers(engine.run(config, plan)), numbers(engine.run(config, plan, all_layers=True))]
        for name, (config, plan) in SHORTENED.items()
    }


def real() -> dict[str, Any]:
    """Each plan on tensors without data and really run, both on the CPU."""
    import peft  # noqa: F401  (what it makes while it is imported belongs to no run)

    found = {}
    for name, plans in REAL.items():
        for plan in plans:
            pair = [
                engine.run(sample(name), plan, label="cpu", all_layers=True, moved=True, real=real)
                for real in (False, True)
            ]
            key = f"{name} {plan.job} {plan.quant} {plan.optimizer} {plan.attention} {plan.cache}"
            found[key] = [numbers(run) for run in pair]
    return found


def static() -> dict[str, Any]:
    """Bytes labelled as weights, by sample and way of loading."""
    return {
        f"{name} {way}": labelled(engine.run(sample(name), plan_of(plan)).trace, "weights")
        for name in ("tiny-llama", "tiny-gemma3", "tiny-gpt2", "tiny-mixtral")
        for way, plan in STATIC.items()
    }


def plan_of(plan: Plan) -> Plan:
    """`plan` with little text."""
    from workbench.vram.plan import changed

    return changed(plan, sequence_length=8, new_tokens=1)


def operators() -> dict[str, Any]:
    """How often each operator allocates on the simulated device and on the CPU label, in eager attention."""
    plan = Plan(job="full", attention="eager", gradient_checkpointing=True, **FEW)
    found: dict[str, Any] = {}
    for label in (None, "cpu"):
        run = engine.run(LLAMA, plan, label=label, all_layers=True, moved=True, corrections=False)
        found[label or SIMULATED] = dict(Counter(run.trace.operators))
        found[f"warnings on {label or SIMULATED}"] = engine.warnings(plan, run)
    return found


def broken() -> dict[str, Any]:
    """What becomes of a run where torch's private interface is gone, and where it works no longer."""
    import torch
    from torch.utils import backend_registration

    found: dict[str, Any] = {}
    gone = (backend_registration, "_setup_privateuseone_for_python_backend")
    changed = (torch._C, "_set_only_lift_cpu_tensors")
    for owner, name in (gone, changed):
        kept = getattr(owner, name)
        delattr(owner, name)
        try:
            run = engine.run(LLAMA, Plan(job="full", **FEW))
        finally:
            setattr(owner, name, kept)
        found[name] = [run.label, engine.warnings(Plan(job="full"), run), numbers(run)["allocated"]]
    return found


def main(wanted: Optional[list[str]] = None) -> None:
    """Print what was asked for, or everything."""
    # First, as a device that was once registered stays.
    found: dict[str, Any] = {}
    if not wanted or "broken" in wanted:
        found["broken"] = broken()
    found["device"] = open_device()
    parts = {"shortened": shortened, "real": real, "static": static, "operators": operators}
    for name, part in parts.items():
        if not wanted or name in wanted:
            found[name] = part()
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
