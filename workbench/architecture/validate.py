"""Configs that no model can be built from, refused before anything is built. Stdlib only.

transformers builds several impossible models without complaint (key/value heads that do not divide the heads,
more experts per token than experts) and answers others with a division by zero or a storage overflow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Optional

from workbench.architecture.skeleton import FLOAT_DTYPES
from workbench.errors import WorkbenchError
from workbench.text import one_line

MAX_LAYERS = 2_000
MAX_PARAMETERS = 10**15
MAX_DEPTH = 8
MAX_VALUES = 200_000

LAYER_KEYS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "encoder_layers",
    "decoder_layers",
    "num_decoder_layers",
    "encoder_num_hidden_layers",
    "depth",
)
_HEAD_KEYS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads")
_KV_HEAD_KEYS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")
_WIDTH_KEYS = ("hidden_size", "n_embd", "d_model", "dim", "word_embed_proj_dim")
_EXPERT_KEYS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_EXPERTS_PER_TOKEN_KEYS = ("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_topk")
_SIZE_KEYS = (
    *LAYER_KEYS,
    *_HEAD_KEYS,
    *_KV_HEAD_KEYS,
    *_WIDTH_KEYS,
    *("vocab_size", "intermediate_size", "n_inner", "ffn_dim", "d_ff", "d_kv", "head_dim"),
    *("max_position_embeddings", "n_positions", "moe_intermediate_size"),
)
# What a family's own code takes as "none" or "the same as".
_MAY_BE_ZERO = ("depth", "encoder_layers", "decoder_layers", "vocab_size")


def check_config(config: dict[str, Any]) -> None:
    """Refuse a config with values that no model can have.

    Args:
        config: the content of a ``config.json``, from any source.

    Raises:
        WorkbenchError: ``bad-config`` naming the key, its value and what it must be.
    """
    if not isinstance(config, dict):
        raise WorkbenchError("bad-config", "The config is not a JSON object.", "Give the whole config.json.")
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise WorkbenchError("bad-config", "The config has no model_type.", 'Add it, such as "model_type": "llama".')
    _check_extent(config)
    for path, section in _sections(config):
        _check_sizes(path, section)
        _check_ratios(path, section)
        _check_kinds(path, section)


def _sections(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The config and every config inside it (text, vision, audio), with a prefix for messages."""
    yield "", config
    for key, value in config.items():
        if key.endswith("config") and isinstance(value, dict) and key != "quantization_config":
            yield f"{key}.", value


def _check_extent(config: dict[str, Any]) -> None:
    """Refuse NaN, nesting and lists beyond reason anywhere in the config."""
    stack: list[tuple[str, Any, int]] = [("config", config, 0)]
    seen = 0
    while stack:
        path, value, depth = stack.pop()
        seen += 1
        if depth > MAX_DEPTH or seen > MAX_VALUES:
            raise WorkbenchError(
                "bad-config",
                f"The config is nested or long beyond reason at {one_line(path, 80)}.",
                f"At most {MAX_DEPTH} levels and {MAX_VALUES:,} values are read.",
            )
        if isinstance(value, float) and math.isnan(value):
            raise _refused(path.split(".", 1)[-1], value, "a number")
        if isinstance(value, dict):
            stack += [(f"{path}.{key}", inner, depth + 1) for key, inner in value.items()]
        elif isinstance(value, (list, tuple)):
            stack += [(f"{path}[{index}]", inner, depth + 1) for index, inner in enumerate(value)]


def _check_sizes(path: str, section: dict[str, Any]) -> None:
    for key in _SIZE_KEYS:
        value = section.get(key)
        # Some families give one value for each layer or stage.
        for size in value if isinstance(value, list) else [value]:
            if size is None:
                continue
            if isinstance(size, float) and size.is_integer():
                size = int(size)
            if isinstance(size, bool) or not isinstance(size, int):
                raise _refused(path + key, size, "a whole number")
            if size < (0 if key in _MAY_BE_ZERO else 1):
                raise _refused(path + key, size, "a positive whole number")
            if key in LAYER_KEYS and size > MAX_LAYERS:
                raise _refused(path + key, size, f"at most {MAX_LAYERS:,}")
            if size > MAX_PARAMETERS:
                raise _refused(path + key, size, f"at most {MAX_PARAMETERS:.0e}")


def _check_ratios(path: str, section: dict[str, Any]) -> None:
    heads = _first_int(section, _HEAD_KEYS)
    width = _first_int(section, _WIDTH_KEYS)
    kv_heads = _first_int(section, _KV_HEAD_KEYS)
    vocab = _first_int(section, ("vocab_size",))
    layers = _first_int(section, LAYER_KEYS)
    if heads and kv_heads and heads % kv_heads:
        raise _refused(path + "num_key_value_heads", kv_heads, f"a divisor of the {heads} attention heads")
    experts = _first_int(section, _EXPERT_KEYS)
    chosen = _first_int(section, _EXPERTS_PER_TOKEN_KEYS)
    if experts and chosen and chosen > experts:
        raise _refused(path + "num_experts_per_tok", chosen, f"at most the {experts} experts")
    # A lower bound: embeddings, and attention with four square projections in each layer.
    least = (vocab or 0) * (width or 0) + 4 * (layers or 0) * (width or 0) ** 2
    if least > MAX_PARAMETERS * 4:
        raise WorkbenchError(
            "bad-config",
            f"A model of this config would have more than {MAX_PARAMETERS:.0e} parameters.",
            "Check hidden_size, vocab_size and num_hidden_layers.",
        )
    _check_layer_types(path, section, layers)


def _check_kinds(path: str, section: dict[str, Any]) -> None:
    """Refuse values of a kind that the libraries take in and fail on later."""
    window = section.get("sliding_window")
    if isinstance(window, (str, dict, float)):
        raise _refused(path + "sliding_window", window, "a whole number or null")
    for key in ("dtype", "torch_dtype"):
        stated = section.get(key)
        if stated is not None and str(stated).replace("torch.", "") not in ("auto", *FLOAT_DTYPES):
            raise _refused(path + key, stated, f"one of {', '.join(FLOAT_DTYPES)}")


def _check_layer_types(path: str, section: dict[str, Any], layers: Optional[int]) -> None:
    layer_types = section.get("layer_types")
    if isinstance(layer_types, list) and layers and len(layer_types) < layers:
        raise _refused(path + "layer_types", f"{len(layer_types)} entries", f"one entry for each of {layers} layers")


def _first_int(section: dict[str, Any], keys: tuple[str, ...]) -> Optional[int]:
    for key in keys:
        value = section.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _refused(key: str, value: Any, wanted: str) -> WorkbenchError:
    shown = one_line(str(value), 60)
    return WorkbenchError(
        "bad-config", f"{one_line(key, 80)} is {shown}, which no model can have.", f"It must be {wanted}."
    )
