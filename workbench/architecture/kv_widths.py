"""Which layers keep a KV cache, and how wide it is. Stdlib only."""

from __future__ import annotations

from typing import Optional

from workbench.architecture import config as reading
from workbench.architecture.skeleton import CacheLayer, Skeleton

SLIDING_KINDS = ("sliding_attention", "chunked_attention")
ATTENDING_KINDS = ("full_attention", "hybrid", *SLIDING_KINDS)


def cache_layers(skeleton: Skeleton) -> tuple[CacheLayer, ...]:
    """The layers that keep a cache; none for an encoder."""
    if not skeleton.architecture.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")):
        return ()
    if skeleton.config.get("is_encoder_decoder"):
        # Encoder and decoder may differ in depth, and the config's own count is the encoder's.
        return (CacheLayer("full_attention"),) * (reading.num_hidden_layers(skeleton.config) or 0)
    if skeleton.cache_layers:
        return skeleton.cache_layers
    config = reading.text_config(skeleton.config)
    window = reading.sliding_window(config)
    return tuple(
        CacheLayer(kind, window if kind in SLIDING_KINDS else None) for kind in reading.layer_types(config) or ()
    )


def key_value_widths(skeleton: Skeleton) -> list[int]:
    """Elements that each layer keeps for one token of one sequence, key and value together; 0 where it keeps none."""
    layers = cache_layers(skeleton)
    config = reading.text_config(skeleton.config)
    if reading.is_mla(config):
        rank = reading.first_int(config, ("kv_lora_rank",)) or 0
        width = rank + (reading.first_int(config, ("qk_rope_head_dim",)) or 0)
        return [width if layer.kind in ATTENDING_KINDS else 0 for layer in layers]
    stated = 2 * (reading.num_key_value_heads(config) or 0) * (reading.head_dim(config) or 0)
    projected = _projected(skeleton)
    return [
        projected.get(number, stated) if layer.kind in ATTENDING_KINDS else 0 for number, layer in enumerate(layers)
    ]


def _projected(skeleton: Skeleton) -> dict[int, int]:
    """By layer, from the projections' own shapes where they are separate.

    Layers may differ in it (Gemma 4), which no single number of the config says.
    """
    shapes = {entry.name: entry.shape for entry in skeleton.parameters}
    widths: dict[int, int] = {}
    for name, shape in shapes.items():
        if not name.endswith("self_attn.k_proj.weight") or _is_outside_decoder(name):
            continue
        number = _first_number(name)
        value_shape = shapes.get(name.replace("k_proj", "v_proj"), shape)
        if number is not None:
            widths[number] = shape[0] + value_shape[0]
    return widths


def _is_outside_decoder(name: str) -> bool:
    return any(part in name for part in ("vision", "audio", "encoder.layers", "encoder.block"))


def _first_number(name: str) -> Optional[int]:
    return next((int(part) for part in name.split(".") if part.isdigit()), None)
