"""The sizes that a model's activations are made of. Stdlib only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.architecture import config as reading
from workbench.architecture.skeleton import Skeleton
from workbench.vram.plan import Plan

LETTERS = {
    "b": "sequences at once",
    "s": "tokens of a sequence",
    "h": "hidden size",
    "q": "query heads x head width",
    "k": "key/value heads x head width",
    "d": "head width",
    "a": "query heads",
    "i": "feed-forward width",
    "v": "rows of the output embedding",
    "r": "LoRA rank",
    "m": "feed-forward width of one expert",
    "x": "experts that work on a token",
    "e": "experts",
}
"""What each letter of a monomial stands for: ``bsh`` is sequences x tokens x hidden size."""

_FEED_FORWARD = ("intermediate_size", "n_inner", "ffn_dim", "decoder_ffn_dim", "d_ff", "ffn_hidden_size", "inner_dim")


@dataclass(frozen=True)
class Dimensions:
    """The sizes of one plan on one model."""

    values: Mapping[str, int]
    layers: int

    def product(self, monomial: str) -> int:
        """Value of a monomial such as ``bsh``; of the empty one, 1."""
        result = 1
        for letter in monomial:
            result *= self.values[letter]
        return result


def dimensions(skeleton: Skeleton, plan: Plan) -> Dimensions:
    """The sizes of `plan` on the model `skeleton`; 0 where the config does not say.

    Under tensor parallelism those of one GPU: heads, feed-forward width and vocabulary are cut, hidden size is not.
    """
    config = reading.text_config(skeleton.config)
    width = reading.hidden_size(config) or 0
    heads = reading.num_attention_heads(config) or 0
    head = reading.head_dim(config) or 0
    cut = plan.gpus if plan.parallel == "tp" else 1
    heads = -(-heads // cut)
    return Dimensions(
        {
            "b": plan.batch,
            "s": plan.sequence_length,
            "h": width,
            "q": heads * head,
            "k": -(-(reading.num_key_value_heads(config) or 0) // cut) * head,
            "d": head,
            "a": heads,
            "i": -(-(feed_forward_width(config) or 4 * width) // cut),
            "v": -(-head_rows(skeleton) // cut),
            "r": plan.lora.r,
            "m": -(-_expert_width(config) // cut),
            "x": reading.experts_per_token(config) or 0,
            "e": reading.num_experts(config) or 0,
        },
        reading.num_hidden_layers(skeleton.config) or reading.num_hidden_layers(config) or 0,
    )


def feed_forward_width(config: dict[str, Any]) -> int:
    """What a token's feed-forward layer computes in between, of all experts that work on it."""
    inner = reading.first_int(config, _FEED_FORWARD) or 0
    chosen = reading.experts_per_token(config)
    if chosen:
        expert = _expert_width(config)
        shared = reading.first_int(config, ("shared_expert_intermediate_size",)) or 0
        shared += (reading.first_int(config, ("n_shared_experts",)) or 0) * expert
        return max(inner if expert != inner else 0, chosen * expert + shared)
    return inner


def _expert_width(config: dict[str, Any]) -> int:
    if not reading.num_experts(config):
        return 0
    return reading.first_int(config, ("moe_intermediate_size", "expert_intermediate_size", *_FEED_FORWARD)) or 0


def head_rows(skeleton: Skeleton) -> int:
    """Rows of the output embedding: logits of one position."""
    name = f"{skeleton.output_embeddings}.weight"
    # The head is among the last parameters.
    found = next((entry.shape[0] for entry in reversed(skeleton.parameters) if entry.name == name), 0)
    return found or reading.first_int(reading.text_config(skeleton.config), ("vocab_size",)) or 0
