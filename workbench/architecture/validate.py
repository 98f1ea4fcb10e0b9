"""Configs that no model can be built from, told before anything is built. Stdlib only.

transformers builds several impossible models without complaint (key/value heads that do not divide the heads,
more experts per token than experts) and answers others with a division by zero or a storage overflow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from workbench.architecture.skeleton import FLOAT_DTYPES
from workbench.errors import WorkbenchError
from workbench.models.reference import nearest
from workbench.text import one_line

MAX_LAYERS = 2_000
MAX_PARAMETERS = 10**15
MAX_EXPERTS = 50_000
"""Of all layers together; the largest published models have half as many, and each may be several modules to build."""
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
HEAD_KEYS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads")
KV_HEAD_KEYS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")
WIDTH_KEYS = ("hidden_size", "n_embd", "d_model", "dim", "word_embed_proj_dim")
EXPERT_KEYS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
EXPERTS_PER_TOKEN_KEYS = ("num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_topk")
SIZE_KEYS = (
    *LAYER_KEYS,
    *HEAD_KEYS,
    *KV_HEAD_KEYS,
    *WIDTH_KEYS,
    *("vocab_size", "intermediate_size", "n_inner", "ffn_dim", "d_ff", "d_kv", "head_dim", "state_size"),
    *("max_position_embeddings", "n_positions", "moe_intermediate_size", "shared_expert_intermediate_size"),
    *("kv_lora_rank", "q_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"),
)
# What a family's own code takes as "none" or "the same as".
_MAY_BE_ZERO = (
    *("depth", "encoder_layers", "decoder_layers", "vocab_size", "moe_intermediate_size"),
    *("head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "shared_expert_intermediate_size"),
)
_SHARES = ("dropout", "_pdrop", "_dropout_prob", "partial_rotary_factor", "router_jitter_noise")
_POSITIVE_NUMBERS = ("rope_theta", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps")
_ACTIVATION_KEYS = ("hidden_act", "hidden_activation", "activation_function", "dense_act_fn")
# The names that transformers 5.23 knows (``activations.ACT2CLS``).
ACTIVATIONS = (
    *("gelu", "gelu_10", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh", "gelu_python_tanh"),
    *("gelu_accurate", "hardswish", "laplace", "leaky_relu", "linear", "mish", "quick_gelu", "relu", "relu2", "relu6"),
    *("sigmoid", "silu", "sqrtsoftplus", "swish", "tanh", "prelu", "xielu"),
)
# Families without rotary positions: nothing else in a raw config tells.
_NO_ROPE = ("gpt2", "opt", "bloom", "mpt", "bert", "roberta", "gpt_neo", "gpt_bigcode")
# Families whose heads share the hidden size out between them unless head_dim is given; elsewhere it has a value of its
# own, which a raw config need not state.
_DERIVED_HEADS = (
    *_NO_ROPE,
    *("llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "phi", "phi3", "stablelm", "starcoder2", "olmo", "olmo2"),
    *("olmo3", "olmoe", "gpt_neox", "falcon", "granite", "granitemoe", "smollm3", "cohere", "gptj"),
)

# Families whose code cannot do without experts; others read 0 as a dense model.
_ALWAYS_EXPERTS = (
    *("mixtral", "gpt_oss", "dbrx", "olmoe", "llama4_text", "deepseek_v2", "deepseek_v3", "phimoe", "minimax"),
    *("granitemoe", "qwen2_moe"),
)

_ROPE = (
    *("llama", "qwen", "gemma", "mistral", "mixtral", "deepseek", "gpt_oss", "glm", "olmo", "phi", "granite", "smollm"),
    *("exaone", "cohere", "starcoder2", "stablelm"),
)


@dataclass(frozen=True)
class Problem:
    """Why a config is no model."""

    key: str
    """Dotted."""
    value: Any
    reason: str
    """A whole sentence."""
    nearest: tuple[Any, ...] = ()
    """Values that would do, the nearest first."""

    @property
    def remedy(self) -> str:
        """One sentence with what would do."""
        if not self.nearest:
            return ""
        return f"Nearest: {' or '.join(one_line(str(value), 60) for value in self.nearest)}."


def check_config(config: dict[str, Any]) -> None:
    """Refuse a config with values that no model can have.

    Args:
        config: the content of a ``config.json``, from any source.

    Raises:
        WorkbenchError: ``bad-config`` with the first problem.
    """
    for problem in find_problems(config):
        raise WorkbenchError("bad-config", problem.reason, problem.remedy)


def find_problems(config: Any) -> Iterator[Problem]:
    """Everything that speaks against a config, the most basic first."""
    if not isinstance(config, dict):
        yield Problem("", None, "The config is not a JSON object: give the whole config.json.")
        return
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        yield Problem("model_type", model_type, 'The config has no model_type: add it, such as "model_type": "llama".')
        return
    extent = _extent_problem(config)
    if extent is not None:
        yield extent
        return
    for path, section in _sections(config):
        yield from _size_problems(path, section)
        yield from _ratio_problems(path, section, str(section.get("model_type") or model_type))
        yield from _kind_problems(path, section)
        yield from _least_problems(path, section, str(section.get("model_type") or model_type))
        yield from _rope_problems(path, section)


def _sections(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The config and every config inside it (text, vision, audio), with a prefix for messages."""
    yield "", config
    for key, value in config.items():
        if key.endswith("config") and isinstance(value, dict) and key != "quantization_config":
            yield f"{key}.", value


def _extent_problem(config: dict[str, Any]) -> Optional[Problem]:
    """NaN, nesting and lists beyond reason anywhere in the config."""
    stack: list[tuple[str, Any, int]] = [("config", config, 0)]
    seen = 0
    while stack:
        path, value, depth = stack.pop()
        seen += 1
        if depth > MAX_DEPTH or seen > MAX_VALUES:
            where = one_line(path, 80)
            reason = f"The config is nested or long beyond reason at {where}: at most {MAX_DEPTH} levels and"
            return Problem(where, None, f"{reason} {MAX_VALUES:,} values are read.")
        if isinstance(value, float) and math.isnan(value):
            return _refused(path.split(".", 1)[-1], value, "a number")
        if isinstance(value, dict):
            stack += [(f"{path}.{key}", inner, depth + 1) for key, inner in value.items()]
        elif isinstance(value, (list, tuple)):
            stack += [(f"{path}[{index}]", inner, depth + 1) for index, inner in enumerate(value)]
    return None


def _size_problems(path: str, section: dict[str, Any]) -> Iterator[Problem]:
    for key in SIZE_KEYS:
        value = section.get(key)
        # Some families give one value for each layer or stage.
        for size in value if isinstance(value, list) else [value]:
            # One vision-language family counts layers by their kind.
            if size is None or isinstance(size, dict):
                continue
            problem = _size_problem(path, key, size)
            if problem is not None:
                yield problem
                break


def _size_problem(path: str, key: str, size: Any) -> Optional[Problem]:
    if isinstance(size, float) and size.is_integer():
        size = int(size)
    if isinstance(size, bool) or not isinstance(size, int):
        return _refused(path + key, size, "a whole number", _whole(size))
    least = 0 if key in _MAY_BE_ZERO else 1
    if size < least:
        return _refused(path + key, size, "a positive whole number", (least,) if least else (1,))
    if key in LAYER_KEYS and size > MAX_LAYERS:
        return _refused(path + key, size, f"at most {MAX_LAYERS:,}", (MAX_LAYERS,))
    if size > MAX_PARAMETERS:
        return _refused(path + key, size, f"at most {MAX_PARAMETERS:.0e}")
    return None


def _whole(value: Any) -> tuple[int, ...]:
    try:
        return (max(1, round(float(value))),)
    except (TypeError, ValueError, OverflowError):
        return ()


def _ratio_problems(path: str, section: dict[str, Any], model_type: str) -> Iterator[Problem]:
    _, heads = _first(section, HEAD_KEYS)
    width_key, width = _first(section, WIDTH_KEYS)
    kv_key, kv_heads = _first(section, KV_HEAD_KEYS)
    _, vocab = _first(section, ("vocab_size",))
    layers_key, layers = _first(section, LAYER_KEYS)
    if heads and kv_heads and heads % kv_heads:
        wanted = f"a divisor of the {heads} attention heads, so that each serves equally many"
        yield _refused(path + kv_key, kv_heads, wanted, _nearest_of(kv_heads, _divisors(heads)))
    derived = model_type in _DERIVED_HEADS and not section.get("head_dim")
    if derived and heads and width and width % heads:
        step = heads if model_type in _NO_ROPE else 2 * heads
        low = width // step * step
        others = ", ".join(str(count) for count in _nearest_of(heads, _divisors(width)))
        wanted = f"a multiple of the {heads} attention heads (or {others} heads)"
        yield _refused(path + width_key, width, wanted, _nearest_of(width, [low, low + step]))
    yield from _expert_problems(path, section)
    yield from _head_dim_problems(path, section, model_type, width, heads)
    # A lower bound: embeddings, and attention with four square projections in each layer.
    least = (vocab or 0) * (width or 0) + 4 * (layers or 0) * (width or 0) ** 2
    if least > MAX_PARAMETERS * 4:
        yield Problem(
            path + width_key,
            width,
            f"A model of this config would have more than {MAX_PARAMETERS:.0e} parameters: check hidden_size, "
            "vocab_size and num_hidden_layers.",
        )
    yield from _layer_list_problems(path, section, layers_key, layers)


def _expert_problems(path: str, section: dict[str, Any]) -> Iterator[Problem]:
    experts_key, experts = _first(section, EXPERT_KEYS)
    layers = _first(section, LAYER_KEYS)[1] or 1
    # Doge's experts are rows of an embedding.
    separate = section.get("model_type") != "doge"
    if experts and separate and layers <= MAX_LAYERS and experts * layers > MAX_EXPERTS:
        most = MAX_EXPERTS // layers
        yield _refused(path + experts_key, experts, f"at most {most:,} with {layers:,} layers", (most,))
    key, chosen = _first(section, EXPERTS_PER_TOKEN_KEYS)
    if experts and chosen and chosen > experts:
        yield _refused(path + key, chosen, f"at most the {experts} experts", (experts,))
    _, groups = _first(section, ("n_group",))
    if experts and groups and experts % groups:
        yield _refused(
            path + "n_group", groups, f"a divisor of the {experts} experts", _nearest_of(groups, _divisors(experts))
        )
    _, chosen_groups = _first(section, ("topk_group",))
    if groups and chosen_groups and chosen_groups > groups:
        yield _refused(path + "topk_group", chosen_groups, f"at most the {groups} groups", (groups,))


def _head_dim_problems(
    path: str, section: dict[str, Any], model_type: str, width: Optional[int], heads: Optional[int]
) -> Iterator[Problem]:
    """Rotary positions turn pairs of numbers: what they turn must be even."""
    if model_type in _NO_ROPE or section.get("alibi"):
        return
    rotary = (
        model_type.startswith(_ROPE)
        or section.get("rope_theta")
        or section.get("rope_parameters")
        or section.get("rope_scaling")
    )
    key, size = _first(section, ("qk_rope_head_dim", "head_dim"))
    if size and size % 2 and (rotary or key == "qk_rope_head_dim"):
        yield _refused(
            path + key, size, "even, as rotary positions turn pairs", tuple(v for v in (size + 1, size - 1) if v)
        )
    elif not size and model_type in _DERIVED_HEADS and width and heads and not width % heads and width // heads % 2:
        step = 2 * heads
        low = width // step * step
        yield _refused(
            path + _first(section, WIDTH_KEYS)[0],
            width,
            f"a multiple of {step}: its heads are {width // heads} wide, and rotary positions turn pairs",
            tuple(value for value in _nearest_of(width, [low, low + step]) if value),
        )


def _kind_problems(path: str, section: dict[str, Any]) -> Iterator[Problem]:
    """Values of a kind that the libraries take in and fail on later."""
    window = section.get("sliding_window")
    if isinstance(window, (str, dict, float, bool)) or (isinstance(window, int) and window < _least_window(section)):
        yield _refused(path + "sliding_window", window, "a whole number or null", (*_whole(window), None)[-2:])
    for key in ("dtype", "torch_dtype"):
        stated = section.get(key)
        if stated is not None and str(stated).replace("torch.", "") not in ("auto", *FLOAT_DTYPES):
            close = tuple(nearest(str(stated), FLOAT_DTYPES, 1)) or ("bfloat16",)
            yield _refused(path + key, stated, f"one of {', '.join(FLOAT_DTYPES)}", close)
    for key in _ACTIVATION_KEYS:
        stated = section.get(key)
        if isinstance(stated, str) and stated not in ACTIVATIONS:
            close = tuple(nearest(stated, ACTIVATIONS)) or ("silu", "gelu")
            yield _refused(path + key, stated, "the name of an activation that transformers knows", close)
    for key, value in section.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and key.endswith(_SHARES) and not 0 <= value <= 1:
            yield _refused(path + key, value, "from 0 to 1", (min(1.0, max(0.0, float(value))),))
        if number and key in _POSITIVE_NUMBERS and not 0 < value < math.inf:
            yield _refused(path + key, value, "a positive number")
    padding, vocab = section.get("pad_token_id"), section.get("vocab_size")
    codes = "num_codebooks" in section or "codebook_size" in section
    if type(padding) is int and type(vocab) is int and padding >= vocab > 0 and not codes:
        yield _refused(path + "pad_token_id", padding, f"one of the {vocab:,} tokens, or null", (vocab - 1, None))


def _least_window(section: dict[str, Any]) -> int:
    # Qwen writes 0 where the window is switched off.
    return 0 if section.get("use_sliding_window") is False or section.get("model_type") == "qwen2_moe" else 1


def _least_problems(path: str, section: dict[str, Any], model_type: str) -> Iterator[Problem]:
    """Numbers below what any code can work with; with these the libraries build nonsense or fail far from the cause."""
    least = dict.fromkeys(("expand", "mamba_expand", "relative_attention_num_buckets"), 1)
    if path in ("", "text_config."):
        least["vocab_size"] = 1
    if not model_type.startswith("deberta"):
        least["type_vocab_size"] = 1
    if model_type in _ALWAYS_EXPERTS:
        least.update(dict.fromkeys(EXPERT_KEYS, 1))
    if not any(section.get(key) == 0 for key in EXPERT_KEYS):
        least.update(dict.fromkeys(EXPERTS_PER_TOKEN_KEYS, 1))
    for key, smallest in least.items():
        value = _number(section.get(key))
        if value is not None and value < smallest:
            yield _refused(path + key, value, f"at least {smallest}", (smallest,))
    for key in ("bos_token_id", "eos_token_id"):
        if type(section.get(key)) is int and section[key] < 0:
            yield _refused(path + key, section[key], "the number of a token, or null", (0, None))
    dense, layers = section.get("first_k_dense_replace"), _first(section, LAYER_KEYS)[1]
    if type(dense) is int and (dense < 0 or (layers is not None and dense > layers)):
        wanted = f"from 0 to the {layers} layers" if layers else "0 or more"
        yield _refused(path + "first_k_dense_replace", dense, wanted, (0 if dense < 0 else layers,))
    if section.get("head_dim") == 0 and model_type.startswith(_ROPE) and "qk_rope_head_dim" not in section:
        width, heads = _first(section, WIDTH_KEYS)[1], _first(section, HEAD_KEYS)[1]
        close = (width // heads,) if width and heads and width >= heads else ()
        yield _refused(path + "head_dim", 0, "a positive whole number, or null", (*close, None))


def _rope_problems(path: str, section: dict[str, Any]) -> Iterator[Problem]:
    for name in ("rope_scaling", "rope_parameters"):
        stated = section.get(name)
        if not isinstance(stated, dict):
            continue
        inner = [(f"{key}.", value) for key, value in stated.items() if isinstance(value, dict)]
        for prefix, one in [("", stated), *inner]:
            factor, theta = _number(one.get("factor")), _number(one.get("rope_theta"))
            if factor is not None and not 1 <= factor < math.inf:
                yield _refused(f"{path}{name}.{prefix}factor", factor, "at least 1, as it stretches", (1.0,))
            if theta is not None and not 0 < theta < math.inf:
                yield _refused(f"{path}{name}.{prefix}rope_theta", theta, "a positive number", (10_000.0,))


def _layer_list_problems(
    path: str, section: dict[str, Any], layers_key: str, layers: Optional[int]
) -> Iterator[Problem]:
    for key in ("layer_types", "mlp_layer_types", "layers_block_type"):
        listed = section.get(key)
        if not isinstance(listed, list) or not any("attention" in str(kind) for kind in listed):
            continue
        if layers and len(listed) != layers:
            wanted = f"one entry for each of {layers} layers"
            yield _refused(path + key, f"{len(listed)} entries", wanted, (continued(listed, layers),) if listed else ())


def continued(listed: list[Any], length: int) -> list[Any]:
    """`listed` cut to `length`, or its repeating pattern carried on."""
    if length <= len(listed):
        return listed[:length]
    period = next(
        size
        for size in range(1, len(listed) + 1)
        if all(value == listed[place % size] for place, value in enumerate(listed))
    )
    return [listed[place % period] for place in range(length)]


def _number(value: Any) -> Optional[float]:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _first(section: dict[str, Any], keys: tuple[str, ...]) -> tuple[str, Optional[int]]:
    for key in keys:
        value = section.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return key, value
    return keys[0], None


def _divisors(number: int) -> list[int]:
    limit = min(math.isqrt(number), 100_000)
    small = [size for size in range(1, limit + 1) if number % size == 0]
    return sorted({*small, *(number // size for size in small)})


def _nearest_of(wanted: int, values: list[int]) -> tuple[int, ...]:
    return tuple(sorted((value for value in values if value > 0), key=lambda value: (abs(value - wanted), value))[:2])


def _refused(key: str, value: Any, wanted: str, close: tuple[Any, ...] = ()) -> Problem:
    shown = one_line(str(value), 60)
    return Problem(key, value, f"{one_line(key, 80)} is {shown}; it must be {wanted}.", close)
