"""The facts a practitioner asks of an architecture, read off its skeleton. Stdlib only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Optional

from workbench.architecture import config as reading
from workbench.architecture.skeleton import Skeleton

_GATED_ACTIVATIONS = {
    "silu": "SwiGLU",
    "swish": "SwiGLU",
    "gelu": "GeGLU",
    "gelu_new": "GeGLU",
    "gelu_pytorch_tanh": "GeGLU (tanh)",
    "relu": "ReGLU",
}
_ACTIVATIONS = {
    "gelu": "GELU",
    "gelu_new": "GELU (tanh)",
    "gelu_fast": "GELU (tanh)",
    "gelu_pytorch_tanh": "GELU (tanh)",
    "silu": "SiLU",
    "swish": "SiLU",
    "relu": "ReLU",
    "relu2": "ReLU²",
}
# Families whose code leaves no choice, so that their config does not say.
_FIXED_ACTIVATIONS = {
    **{"bloom": "GELU (tanh)", "mpt": "GELU", "dbrx": "SwiGLU", "rwkv": "ReLU²", "ctrl": "ReLU", "cpmant": "GeGLU"},
    **{"lfm2": "SwiGLU", "lfm2_moe": "SwiGLU", "lfm3": "SwiGLU", "xlm": "GELU"},
}
_FIXED_POSITIONS = {"ctrl": "sinusoidal", "xlnet": "relative", "cpmant": "relative bias"}
_ACTIVATION_KEYS = (
    *("hidden_act", "hidden_activation", "activation_function", "dense_act_fn", "activation", "mlp_hidden_act"),
    *("afn", "ff_activation"),
)
# What a gated feed-forward layer calls its gate, or its gate and up projection in one.
_GATE_NAMES = ("gate_proj", "gate_up_proj", "wi_0", "w1", "c_fc_0", "input_linear")


@dataclass(frozen=True)
class ArchitectureFacts:
    """Facts as `workbench inspect` gives them; None where the architecture has no such thing."""

    kind: str
    """``decoder``, ``encoder`` or ``encoder-decoder``."""
    num_hidden_layers: Optional[int]
    hidden_size: Optional[int]
    intermediate_size: Optional[int]
    num_attention_heads: Optional[int]
    num_key_value_heads: Optional[int]
    head_dim: Optional[int]
    attention_kind: str
    """``MHA``, ``GQA``, ``MQA``, ``MLA`` or ``none``."""
    gqa_ratio: Optional[float]
    """Query heads for each key/value head."""
    sliding_window: Optional[int]
    layer_types: dict[str, int]
    position: str
    norm: str
    activation: str
    tied_embeddings: bool
    vocab_size: Optional[int]
    context_length: Optional[int]
    experts: Optional[int]
    experts_per_token: Optional[int]
    shared_experts: Optional[int]
    cross_attention: bool
    dtype: str


def describe(skeleton: Skeleton) -> ArchitectureFacts:
    """Read the facts of the language model in `skeleton`."""
    config = reading.text_config(skeleton.config)
    heads = reading.num_attention_heads(config)
    kv_heads = reading.num_key_value_heads(config)
    windows = [layer.window for layer in skeleton.cache_layers if layer.window]
    has_attention = bool(heads) and any("Attention" in module.class_name for module in skeleton.modules)
    has_cache = has_attention or any(layer.kind != "full_attention" for layer in skeleton.cache_layers)
    return ArchitectureFacts(
        kind=_kind(skeleton),
        num_hidden_layers=reading.num_hidden_layers(config),
        hidden_size=reading.hidden_size(config),
        intermediate_size=_intermediate_size(skeleton.model_type, config),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=reading.head_dim(config),
        attention_kind=_attention_kind(config, heads, kv_heads) if has_attention else "none",
        gqa_ratio=heads / kv_heads if heads and kv_heads else None,
        sliding_window=windows[0] if windows else _unlisted_window(skeleton, config),
        layer_types=dict(Counter(_layer_types(skeleton, config))) if has_cache else {},
        position=_position(skeleton, config),
        norm=_norm(skeleton),
        activation=_activation(skeleton, config),
        tied_embeddings=_tied_embeddings(skeleton),
        vocab_size=reading.first_int(config, ("vocab_size",)),
        context_length=reading.context_length(config),
        experts=reading.num_experts(config),
        experts_per_token=reading.experts_per_token(config),
        shared_experts=_shared_experts(config),
        cross_attention=_kind(skeleton) == "encoder-decoder" or bool(config.get("add_cross_attention")),
        dtype=skeleton.dtype,
    )


def _kind(skeleton: Skeleton) -> str:
    if skeleton.config.get("is_encoder_decoder"):
        return "encoder-decoder"
    decodes = skeleton.architecture.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration"))
    text = reading.text_config(skeleton.config)
    if decodes or text.get("is_decoder") or not _is_bidirectional(skeleton):
        return "decoder"
    return "encoder"


def _is_bidirectional(skeleton: Skeleton) -> bool:
    if skeleton.architecture.endswith(("ForMaskedLM", "ForPreTraining")):
        return True
    bidirectional = ("bert", "electra", "albert", "mpnet", "xlm", "deberta", "longformer", "big_bird", "esm")
    return any(name in skeleton.model_type for name in bidirectional)


def _layer_types(skeleton: Skeleton, config: dict[str, Any]) -> list[str]:
    if skeleton.cache_layers and _kind(skeleton) != "encoder":
        return [layer.kind for layer in skeleton.cache_layers]
    return reading.layer_types(config) or []


def _unlisted_window(skeleton: Skeleton, config: dict[str, Any]) -> Optional[int]:
    if skeleton.cache_layers and _kind(skeleton) != "encoder":
        return None
    return reading.first_int(config, ("sliding_window", "local_attention"))


def _shared_experts(config: dict[str, Any]) -> Optional[int]:
    stated = reading.first_int(config, ("n_shared_experts", "num_shared_experts"))
    if stated is None and reading.num_experts(config):
        # Qwen states the width of its one shared expert, Llama 4 always has one.
        one = (
            reading.first_int(config, ("shared_expert_intermediate_size",)) or config.get("model_type") == "llama4_text"
        )
        return 1 if one else None
    return stated


def _intermediate_size(model_type: str, config: dict[str, Any]) -> Optional[int]:
    keys = ("intermediate_size", "n_inner", "ffn_dim", "decoder_ffn_dim", "d_ff", "ffn_hidden_size")
    inner = config.get("ffn_config")
    stated = reading.first_int({**inner, **config} if isinstance(inner, dict) else config, keys)
    width = reading.hidden_size(config)
    ratio = 4 if model_type == "bloom" else config.get("expansion_ratio") if model_type == "mpt" else None
    if stated is None and width and isinstance(ratio, int):
        return ratio * width
    # GPT-2 leaves it open and its code then takes four times the width.
    return 4 * width if stated is None and width and "n_inner" in config else stated


def _attention_kind(config: dict[str, Any], heads: Optional[int], kv_heads: Optional[int]) -> str:
    if reading.is_mla(config):
        return "MLA"
    if not heads or not kv_heads or heads == kv_heads:
        return "MHA"
    return "MQA" if kv_heads == 1 else "GQA"


def _position(skeleton: Skeleton, config: dict[str, Any]) -> str:
    if config.get("alibi") or skeleton.model_type in ("bloom", "mpt"):
        return "ALiBi"
    if skeleton.model_type in _FIXED_POSITIONS:
        return _FIXED_POSITIONS[skeleton.model_type]
    if "relative_attention_num_buckets" in config:
        return f"relative bias, {config['relative_attention_num_buckets']} buckets"
    if _uses_rope(skeleton, config):
        return _rope(config)
    if any(
        name in module.name.rpartition(".")[2]
        for module in skeleton.modules
        for name in ("wpe", "embed_positions", "position_embeddings", "positions_embed")
    ):
        return "learned" if skeleton.model_type not in ("xglm", "m2m_100") else "sinusoidal"
    return "none"


def _uses_rope(skeleton: Skeleton, config: dict[str, Any]) -> bool:
    if any("Rotary" in module.class_name for module in skeleton.modules):
        return True
    return bool(config.get("rope_parameters") or config.get("rotary_dim"))


def _rope(config: dict[str, Any]) -> str:
    parameters = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kinds = {key: value for key, value in parameters.items() if isinstance(value, dict)}
    if kinds:
        return "; ".join(f"{kind}: {_rope_one(config, value)}" for kind, value in kinds.items())
    return _rope_one(config, parameters)


def _rope_one(config: dict[str, Any], parameters: dict[str, Any]) -> str:
    theta = parameters.get("rope_theta", config.get("rope_theta"))
    parts = ["RoPE"]
    if isinstance(theta, (int, float)):
        parts.append(f"θ {theta:,.0f}")
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind != "default":
        factor = parameters.get("factor")
        parts.append(f"{kind} ×{factor:g}" if isinstance(factor, (int, float)) else str(kind))
    partial = rotary_share(config, parameters)
    if partial is not None:
        parts.append(f"{partial:.0%} of each head")
    return " ".join(parts)


def rotary_share(config: dict[str, Any], parameters: dict[str, Any]) -> Optional[float]:
    """The part of each head that turns with position, or None where all of it does."""
    stated = parameters.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    turned, size = config.get("rotary_dim"), reading.head_dim(config)
    if stated is None and isinstance(turned, int) and size:
        stated = turned / size
    return stated if isinstance(stated, (int, float)) and 0 < stated < 1 else None


def _norm(skeleton: Skeleton) -> str:
    classes = Counter(
        module.class_name for module in skeleton.modules if "Norm" in module.class_name and "vision" not in module.name
    )
    if not classes:
        return "none"
    most = classes.most_common(1)[0][0]
    # T5's class is called LayerNorm and neither subtracts the mean nor has a bias.
    if "RMS" in most or most.startswith(("T5LayerNorm", "MT5LayerNorm", "UMT5LayerNorm")):
        return "RMSNorm"
    return "LayerNorm" if "LayerNorm" in most else most


def _activation(skeleton: Skeleton, config: dict[str, Any]) -> str:
    stated = next(
        (str(config[key]) for key in _ACTIVATION_KEYS if config.get(key)),
        "",
    )
    if not stated:
        return _FIXED_ACTIVATIONS.get(skeleton.model_type, "unknown")
    names = (*(module.name for module in skeleton.modules), *(entry.name for entry in skeleton.parameters))
    gated = any(name.rpartition(".")[2] in _GATE_NAMES or name.endswith(".mlp.Wi") for name in names)
    table = _GATED_ACTIVATIONS if gated else _ACTIVATIONS
    return table.get(stated, f"{stated} (gated)" if gated else stated)


def _tied_embeddings(skeleton: Skeleton) -> bool:
    # Either the head or the embedding comes first and is then what the other is tied to.
    pairs = ((entry.module, (entry.tied_to or "").rpartition(".")[0]) for entry in skeleton.parameters if entry.tied_to)
    return any(skeleton.output_embeddings in pair for pair in pairs)
