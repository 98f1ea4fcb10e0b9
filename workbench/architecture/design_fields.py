"""The values of a config that a designer edits, with what each means. Stdlib only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional, Union


@dataclass(frozen=True)
class Editable:
    """One key of transformers' configs."""

    key: str
    label: str
    group: str
    kind: str
    """``integer``, ``number``, ``boolean``, ``choice``, ``text``, ``list`` or ``activation``."""
    line: str
    step: Union[float, str, None] = 1
    """A number, or ``heads``: as wide as a head for each of them."""
    least: Optional[float] = 1
    choices: tuple[Any, ...] = ()


_LAYERS = "How many layers follow each other: depth, and the time of each token, grow with it."
_WIDTH = "Width of the vector that runs through the layers; parameters grow with its square."
_HEADS = "Query heads: how many patterns each layer attends to at once."
_INNER = "Width inside the feed-forward layer, where most parameters of a dense model are."
_POSITIONS = "Tokens the positions are made for; learned positions cost parameters, rotary ones do not."
_ACTIVATION = "The bend between the matrices of the feed-forward layer."
_PER_TOKEN = "Experts that work on one token: cost of each token, not size of the model."
_EXPERTS = "Routed experts of a layer: all must be in memory, few work on a token."

EDITABLE = (
    Editable("num_hidden_layers", "layers", "size", "integer", _LAYERS),
    Editable("n_layer", "layers", "size", "integer", _LAYERS),
    Editable("n_layers", "layers", "size", "integer", _LAYERS),
    Editable("num_layers", "layers", "size", "integer", _LAYERS),
    Editable("encoder_layers", "encoder layers", "size", "integer", _LAYERS),
    Editable("num_decoder_layers", "decoder layers", "size", "integer", _LAYERS),
    Editable("decoder_layers", "decoder layers", "size", "integer", _LAYERS),
    Editable("hidden_size", "hidden size", "size", "integer", _WIDTH, "heads"),
    Editable("n_embd", "hidden size", "size", "integer", _WIDTH, "heads"),
    Editable("d_model", "hidden size", "size", "integer", _WIDTH, "heads"),
    Editable("intermediate_size", "feed-forward size", "size", "integer", _INNER, 128),
    Editable("n_inner", "feed-forward size", "size", "integer", _INNER + " Empty: four times the width.", 128),
    Editable("d_ff", "feed-forward size", "size", "integer", _INNER, 128),
    Editable("ffn_dim", "feed-forward size", "size", "integer", _INNER, 128),
    Editable("encoder_ffn_dim", "encoder feed-forward size", "size", "integer", _INNER, 128),
    Editable("decoder_ffn_dim", "decoder feed-forward size", "size", "integer", _INNER, 128),
    Editable("ffn_hidden_size", "feed-forward size", "size", "integer", _INNER, 128),
    Editable("hidden_act", "activation", "size", "activation", _ACTIVATION, None, None),
    Editable("hidden_activation", "activation", "size", "activation", _ACTIVATION, None, None),
    Editable("activation_function", "activation", "size", "activation", _ACTIVATION, None, None),
    Editable("num_attention_heads", "query heads", "attention", "integer", _HEADS),
    Editable("n_head", "query heads", "attention", "integer", _HEADS),
    Editable("num_heads", "query heads", "attention", "integer", _HEADS),
    Editable("encoder_attention_heads", "encoder heads", "attention", "integer", _HEADS),
    Editable("decoder_attention_heads", "decoder heads", "attention", "integer", _HEADS),
    Editable(
        "num_key_value_heads",
        "key/value heads",
        "attention",
        "integer",
        "Heads of keys and values; fewer than query heads make the KV cache smaller (GQA). Must divide them.",
    ),
    Editable("multi_query", "one key/value head", "attention", "boolean", "All query heads share one key and value."),
    Editable("head_dim", "head width", "attention", "integer", "Width of a head; even, for rotary positions.", 8),
    Editable("d_kv", "head width", "attention", "integer", "Width of a head.", 8),
    Editable("kv_lora_rank", "cached width", "attention", "integer", "Width of what MLA keeps for each token.", 64),
    Editable("q_lora_rank", "query rank", "attention", "integer", "Width that queries are made from under MLA.", 64),
    Editable("qk_rope_head_dim", "rotary width", "attention", "integer", "Part of each head that knows positions.", 2),
    Editable("qk_nope_head_dim", "other width", "attention", "integer", "Part of each head without positions.", 8),
    Editable("v_head_dim", "value width", "attention", "integer", "Width of a value head.", 8),
    Editable(
        "sliding_window",
        "window",
        "attention",
        "integer",
        "Tokens that a sliding layer sees; its cache grows no further.",
        128,
    ),
    Editable(
        "layer_types",
        "kinds of layers",
        "attention",
        "list",
        "What each layer does: full_attention, sliding_attention, linear_attention …",
        None,
        None,
    ),
    Editable(
        "attention_bias",
        "attention biases",
        "attention",
        "boolean",
        "Whether the projections of attention add a constant.",
        None,
        None,
    ),
    Editable("num_local_experts", "experts", "experts", "integer", _EXPERTS),
    Editable("num_experts", "experts", "experts", "integer", _EXPERTS),
    Editable("n_routed_experts", "experts", "experts", "integer", _EXPERTS),
    Editable("num_experts_per_tok", "experts per token", "experts", "integer", _PER_TOKEN),
    Editable("n_shared_experts", "shared experts", "experts", "integer", "Experts that work on every token.", 1, 0),
    Editable("moe_intermediate_size", "expert size", "experts", "integer", "Width inside one expert.", 64),
    Editable(
        "shared_expert_intermediate_size",
        "shared expert size",
        "experts",
        "integer",
        "Width inside the expert that works on every token.",
        64,
        0,
    ),
    Editable("n_group", "expert groups", "experts", "integer", "Groups of experts; the router chooses groups first."),
    Editable("topk_group", "groups per token", "experts", "integer", "Groups whose experts a token may use."),
    Editable(
        "first_k_dense_replace", "dense layers first", "experts", "integer", "Layers before the first experts.", 1, 0
    ),
    Editable("max_position_embeddings", "context", "position", "integer", _POSITIONS, 1024),
    Editable("n_positions", "context", "position", "integer", _POSITIONS, 256),
    Editable(
        "rope_theta", "RoPE base", "position", "number", "Slower rotation for longer texts: larger is longer.", None, 0
    ),
    Editable("partial_rotary_factor", "rotary share", "position", "number", "Part of each head that turns.", 0.25, 0),
    Editable("vocab_size", "vocabulary", "vocabulary", "integer", "Tokens; each costs a row of the embedding.", 64),
    Editable(
        "tie_word_embeddings",
        "tied embeddings",
        "vocabulary",
        "boolean",
        "Whether the LM head uses the embedding's weights, which saves a vocabulary × hidden size.",
        None,
        None,
    ),
    Editable("state_size", "state size", "state", "integer", "Width of the state kept for each channel.", 16),
    Editable("expand", "expansion", "state", "integer", "How much wider the state-space part is than the model."),
    Editable("conv_kernel", "convolution", "state", "integer", "Neighbouring tokens mixed before the state."),
    Editable("rms_norm_eps", "norm epsilon", "other", "number", "Keeps the norm from dividing by zero.", None, 0),
    Editable("attention_dropout", "attention dropout", "other", "number", "Used in training only.", 0.05, 0),
)
