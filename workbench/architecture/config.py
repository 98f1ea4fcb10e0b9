"""Reading a config whatever its family calls things. Stdlib only.

Meant for the complete config of a `Skeleton`, in which transformers has filled in every default.
"""

from __future__ import annotations

from typing import Any, Optional

_TEXT_SECTIONS = ("text_config", "llm_config", "language_config", "thinker_config", "decoder", "global_config")

_EXPERTS = ("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts")
_EXPERTS_PER_TOKEN = (
    *("num_experts_per_tok", "num_experts_per_token", "experts_per_token", "moe_top_k", "moe_topk"),
    *("moe_k", "top_k_experts", "num_selected_experts"),
)
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")
_WIDTH = ("hidden_size", "d_model", "n_embd", "dim")
_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length")


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that describes the language model; the config itself where there is one part."""
    for key in _TEXT_SECTIONS:
        section = config.get(key)
        if isinstance(section, dict) and first_int(section, _WIDTH) is not None:
            return section
    return config


def first_int(config: dict[str, Any], keys: tuple[str, ...]) -> Optional[int]:
    """The first of `keys` that is there with a whole number; of a list of them, the largest."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, list) and value and all(type(item) is int for item in value):
            value = max(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def num_hidden_layers(config: dict[str, Any]) -> Optional[int]:
    """Layers of the language model; of an encoder-decoder, those of its decoder."""
    if config.get("is_encoder_decoder"):
        decoder = first_int(config, ("num_decoder_layers", "decoder_layers"))
        if decoder is not None:
            return decoder
    stated = first_int(config, _LAYERS)
    # Some hybrids only list their layers by kind.
    listed = next((config[key] for key in ("layers_block_type", "layer_types") if config.get(key)), None)
    return len(listed) if stated is None and isinstance(listed, list) else stated


def hidden_size(config: dict[str, Any]) -> Optional[int]:
    """Width of the residual stream."""
    return first_int(config, _WIDTH)


def num_attention_heads(config: dict[str, Any]) -> Optional[int]:
    """Query heads."""
    return first_int(config, _HEADS)


def num_key_value_heads(config: dict[str, Any]) -> Optional[int]:
    """Key/value heads that really exist, also where a family says it with a switch."""
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        # Falcon and GPT-BigCode: the switch wins over the number of heads in the config.
        return 1
    stated = first_int(config, _KV_HEADS)
    return stated if stated is not None else num_attention_heads(config)


def head_dim(config: dict[str, Any]) -> Optional[int]:
    """Width of one attention head; under MLA that of a query, its rotary part included."""
    if is_mla(config):
        return (first_int(config, ("qk_nope_head_dim",)) or 0) + (first_int(config, ("qk_rope_head_dim",)) or 0)
    stated = first_int(config, ("head_dim", "d_kv", "kv_channels"))
    if stated:
        return stated
    width, heads = hidden_size(config), num_attention_heads(config)
    return width // heads if width and heads else None


def _with_mlp_section(config: dict[str, Any]) -> dict[str, Any]:
    # DBRX keeps what concerns its feed-forward layers in a section of their own.
    section = config.get("ffn_config")
    return {**section, **config} if isinstance(section, dict) else config


def num_experts(config: dict[str, Any]) -> Optional[int]:
    """Routed experts of a layer, or None for a dense model."""
    found = first_int(_with_mlp_section(config), _EXPERTS)
    return found if found and found > 1 else None


def experts_per_token(config: dict[str, Any]) -> Optional[int]:
    """Routed experts that work on one token, or None for a dense model."""
    return first_int(_with_mlp_section(config), _EXPERTS_PER_TOKEN) if num_experts(config) else None


def context_length(config: dict[str, Any]) -> Optional[int]:
    """Positions the model was made for, where the config bounds them."""
    return first_int(config, _CONTEXT)


def is_mla(config: dict[str, Any]) -> bool:
    """Whether keys and values are cached as one compressed vector (multi-head latent attention)."""
    return first_int(config, ("kv_lora_rank",)) is not None and "qk_rope_head_dim" in config


def layer_types(config: dict[str, Any]) -> Optional[list[str]]:
    """What each layer attends to, by transformers' own names, or None if the config does not say."""
    stated = config.get("layer_types")
    if isinstance(stated, list) and stated:
        return [str(kind) for kind in stated]
    blocks = config.get("layers_block_type")
    if isinstance(blocks, list) and blocks:
        return ["full_attention" if kind == "attention" else str(kind) for kind in blocks]
    layers = num_hidden_layers(config)
    if layers is None or num_attention_heads(config) is None:
        return None
    kind = "sliding_attention" if sliding_window(config) else "full_attention"
    return [kind] * layers


def sliding_window(config: dict[str, Any]) -> Optional[int]:
    """Tokens that a sliding layer sees, or None where no layer slides."""
    if config.get("use_sliding_window") is False:
        return None
    window = first_int(config, ("sliding_window", "attention_chunk_size"))
    return window if window and window > 0 else None
