"""The grid that is measured on a GPU: loads, training steps and generation of public architectures.

Weights are random where the checkpoint is not on the box: they take the same memory.
"""

from __future__ import annotations

from typing import Any

from workbench.vram.plan import Lora, Plan

SMOLLM2 = "smollm2-135m-instruct"
TINY_LLAMA_1B: dict[str, Any] = {
    **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 2048, "intermediate_size": 5632},
    **{"num_hidden_layers": 22, "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 32000},
    **{"tie_word_embeddings": False, "max_position_embeddings": 2048},
}
LLAMA_3_8B: dict[str, Any] = {
    **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336},
    **{"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256},
    **{"tie_word_embeddings": False, "max_position_embeddings": 8192, "rope_theta": 500000.0},
}
CONFIGS = {"TinyLlama-1.1B": TINY_LLAMA_1B, "Llama-3-8B": LLAMA_3_8B}
ATTENTION = Lora(r=16, targets=("q_proj", "k_proj", "v_proj", "o_proj"))
QLORA: dict[str, Any] = {"job": "qlora", "quant": "nf4", "double_quant": True}

LOADS = [
    Plan(sequence_length=128, new_tokens=8),
    Plan(sequence_length=128, new_tokens=8, dtype="float16"),
    Plan(sequence_length=128, new_tokens=8, quant="nf4"),
    Plan(sequence_length=128, new_tokens=8, quant="nf4", double_quant=True),
    Plan(sequence_length=128, new_tokens=8, quant="int8", dtype="float16"),
]
GENERATION = [
    Plan(sequence_length=2048, new_tokens=256),
    Plan(sequence_length=2048, new_tokens=256, batch=4),
    Plan(sequence_length=2048, new_tokens=256, attention="eager"),
    Plan(sequence_length=2048, new_tokens=256, cache="static"),
    Plan(sequence_length=2048, new_tokens=256, quant="nf4", double_quant=True),
]
TRAINING = [
    Plan(job="full", sequence_length=512),
    Plan(job="full", sequence_length=512, fused=False, gradient_checkpointing=True),
    Plan(job="full", sequence_length=512, optimizer="adamw-8bit", gradient_checkpointing=True),
    Plan(job="full", sequence_length=512, optimizer="paged-adamw-8bit", gradient_checkpointing=True),
    Plan(job="full", sequence_length=512, optimizer="adafactor", gradient_checkpointing=True),
    Plan(job="lora", sequence_length=1024),
    Plan(job="lora", sequence_length=1024, gradient_checkpointing=True),
    Plan(job="lora", sequence_length=1024, attention="eager", lora=ATTENTION),
    Plan(job="lora", sequence_length=1024, attention="flash", lora=ATTENTION),
    Plan(job="lora", sequence_length=1024, attention="efficient", lora=ATTENTION),
    Plan(job="lora", sequence_length=1024, lora=Lora(dtype="bfloat16")),
    Plan(sequence_length=1024, gradient_checkpointing=True, **QLORA),
    Plan(sequence_length=1024, gradient_checkpointing=True, kbit_prepare=False, **QLORA),
    Plan(sequence_length=2048, batch=2, gradient_checkpointing=True, kbit_prepare=False, **QLORA),
    Plan(sequence_length=1024, gradient_checkpointing=True, chunked_loss=True, kbit_prepare=False, **QLORA),
    Plan(job="qlora", quant="int8", dtype="float16", sequence_length=512, gradient_checkpointing=True),
]
QUICK = [
    Plan(sequence_length=256, new_tokens=16),
    Plan(sequence_length=256, new_tokens=16, quant="nf4", double_quant=True),
    Plan(job="lora", sequence_length=512, gradient_checkpointing=True),
    Plan(sequence_length=512, gradient_checkpointing=True, **QLORA),
]


def grid(name: str) -> list[Plan]:
    """What is measured of one model: of the 8B one no full training, which takes 60 GiB and more."""
    plans = [*LOADS, *GENERATION, *TRAINING]
    return [plan for plan in plans if name != "Llama-3-8B" or plan.job != "full"]
