"""How long simulations take: the first with its process, and then each plan in a process that is warm.

    python -m tests.benchmarks.bench_simulation [--all-layers]

Nothing is taken from the cache. With ``--all-layers`` each plan is also run with every layer, in this process.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from typing import Any

from workbench.vram.plan import Plan
from workbench.vram.simulate.run import simulate

GIB = 2**30
LLAMA_3_8B: dict[str, Any] = {
    **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336},
    **{"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256},
    **{"max_position_embeddings": 8192, "rope_theta": 500000.0},
}
LLAMA_3_70B = {**LLAMA_3_8B, "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80}
LLAMA_3_70B["num_attention_heads"] = 64
QLORA = Plan(job="qlora", quant="nf4", double_quant=True, attention="flash", gradient_checkpointing=True)
PLANS = (
    ("8B QLoRA, checkpointed (first)", LLAMA_3_8B, QLORA),
    ("8B inference", LLAMA_3_8B, Plan()),
    ("8B full", LLAMA_3_8B, Plan(job="full", attention="flash")),
    ("8B LoRA", LLAMA_3_8B, Plan(job="lora", attention="flash")),
    ("8B QLoRA, checkpointed, 1024 tokens", LLAMA_3_8B, Plan(**{**vars(QLORA), "sequence_length": 1024})),
    ("70B QLoRA, checkpointed", LLAMA_3_70B, QLORA),
)


def main() -> None:
    """Print one line for each plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all-layers", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        for name, config, plan in PLANS:
            started = time.monotonic()
            found = simulate(config, plan)
            wall = time.monotonic() - started
            print(
                f"{name:36} {wall:6.1f} s  {found.layers_run} of {found.layers} layers, {found.operators:6} operators, "
                f"peak {found.allocated_bytes / GIB:7.2f} GiB, reserved {found.reserved_bytes / GIB:7.2f} GiB"
            )
    if options.all_layers:
        from workbench.vram.simulate import engine

        for name, config, plan in PLANS:
            started = time.monotonic()
            run = engine.run(config, plan, all_layers=True)
            print(f"{name:36} {time.monotonic() - started:6.1f} s  all {run.layers} layers, {run.operators} operators")


if __name__ == "__main__":
    main()
