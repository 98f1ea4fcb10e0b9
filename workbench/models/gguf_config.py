"""The config.json that a GGUF header stands for. Stdlib only.

Key meanings are those of the GGUF specification; which config key each becomes, and what llama.cpp hard-codes
instead of storing (activation, Gemma's query scaling and layer pattern), follows llama.cpp's model definitions.
"""

from __future__ import annotations

import math
from typing import Any, Callable, Optional

from workbench.errors import WorkbenchError
from workbench.models.gguf import GgufHeader, GgufTensor, read_floats
from workbench.text import one_line


def config_from_gguf(header: GgufHeader) -> dict[str, Any]:
    """The model's config as transformers names things, with ``architectures`` and ``torch_dtype`` set.

    Raises:
        WorkbenchError: ``unsupported`` for an architecture that is not among `supported_architectures`,
            ``corrupt-file`` if the header lacks a size that the config needs.
    """
    architecture = header.architecture
    builder = _BUILDERS.get(architecture)
    if builder is None:
        raise WorkbenchError(
            "unsupported",
            f"{one_line(header.path)} is of the architecture {one_line(architecture, 40) or 'unknown'}, which "
            f"cannot be converted; these can: {', '.join(supported_architectures())}.",
            "Use the model's safetensors files instead.",
        )
    config = builder(_Keys(header))
    # A token id that the file does not give is null: the default of the config class is another vocabulary's.
    return {key: value for key, value in config.items() if value is not None or key.endswith("_token_id")}


def supported_architectures() -> list[str]:
    """GGUF architecture names that can be converted."""
    return sorted(_BUILDERS)


def eos_token_ids(header: GgufHeader) -> list[int]:
    """Every id at which generation ends, as the header says: end of sequence, of turn, of message."""
    found = (header.integer(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom"))
    vocabulary_size = len(header.metadata.get("tokenizer.ggml.tokens", ()))
    return list(dict.fromkeys(token for token in found if token is not None and 0 <= token < vocabulary_size))


class _Keys:
    """Typed access to the keys of one architecture."""

    def __init__(self, header: GgufHeader) -> None:
        self.header = header
        self.tensors = {tensor.name: tensor for tensor in header.tensors}

    def get(self, key: str, default: Any = None) -> Any:
        return self.header.metadata.get(f"{self.header.architecture}.{key}", default)

    def size(self, key: str, default: Optional[int] = None) -> int:
        value = self.get(key, default)
        # Some files give one value per layer; a config has one for all.
        if isinstance(value, tuple) and value and len(set(value)) == 1:
            value = value[0]
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise WorkbenchError(
                "corrupt-file",
                f"{one_line(self.header.path)} has no usable value for {self.header.architecture}.{key}.",
                "Use a GGUF file made by a current converter.",
            )
        return value

    def number(self, key: str, default: Optional[float]) -> Optional[float]:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return default
        # Stored as a 32-bit float: 1e-05 comes back as 9.999999747378752e-06; seven digits are what it holds.
        return float(f"{value:.7g}")

    def tensor(self, name: str) -> GgufTensor:
        if name not in self.tensors:
            raise WorkbenchError(
                "corrupt-file",
                f"{one_line(self.header.path)} lacks the tensor {name}.",
                "Download or copy it again; of a split model, merge the parts with llama-gguf-split --merge.",
            )
        return self.tensors[name]

    @property
    def vocabulary_size(self) -> int:
        return self.tensor("token_embd.weight").shape[0]

    @property
    def tied(self) -> bool:
        return "output.weight" not in self.tensors


def _common(keys: _Keys, model_type: str, architecture: str) -> dict[str, Any]:
    header = keys.header
    heads = keys.size("attention.head_count")
    ends = eos_token_ids(header)
    hidden_size = keys.size("embedding_length")
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "hidden_size": hidden_size,
        "intermediate_size": keys.size("feed_forward_length"),
        "num_hidden_layers": keys.size("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": keys.size("attention.head_count_kv", heads),
        "head_dim": keys.size("attention.key_length", max(1, hidden_size // heads)),
        "max_position_embeddings": keys.size("context_length"),
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon", 1e-5),
        "rope_theta": keys.number("rope.freq_base", 10000.0),
        "rope_scaling": _rope_scaling(keys),
        "vocab_size": keys.vocabulary_size,
        "tie_word_embeddings": keys.tied,
        "bos_token_id": header.integer("tokenizer.ggml.bos_token_id"),
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "pad_token_id": header.integer("tokenizer.ggml.padding_token_id"),
        "torch_dtype": "bfloat16",
    }


def _rope_scaling(keys: _Keys) -> Optional[dict[str, Any]]:
    if "rope_freqs.weight" in keys.tensors:
        return _llama3_scaling(keys)
    kind = keys.get("rope.scaling.type")
    factor = keys.number("rope.scaling.factor", None)
    if kind not in ("linear", "yarn") or not factor or factor == 1.0:
        return None
    scaling: dict[str, Any] = {"rope_type": kind, "factor": factor}
    if kind == "yarn" and keys.get("rope.scaling.original_context_length"):
        scaling["original_max_position_embeddings"] = keys.size("rope.scaling.original_context_length")
    return scaling


def _llama3_scaling(keys: _Keys) -> dict[str, Any]:
    """The parameters of Llama 3.1's rotary scaling, recovered from the stored frequency factors.

    Converters compute the factors from (factor, 1, 4, 8192) and store only the result; see the function
    ``_compute_llama3_parameters`` of transformers for the formula.
    """
    stored = read_floats(keys.header, keys.tensor("rope_freqs.weight"))
    factor, original = max(stored, default=1.0), 8192
    base = keys.number("rope.freq_base", 10000.0) or 10000.0
    for index, value in enumerate(stored):
        wavelength = 2 * math.pi * base ** (index / len(stored))
        if wavelength < original / 4:
            expected = 1.0
        elif wavelength > original:
            expected = factor
        else:
            smooth = (original / wavelength - 1) / 3
            expected = 1 / ((1 - smooth) / factor + smooth)
        if abs(value - expected) > 1e-3 * expected:
            raise WorkbenchError(
                "unsupported",
                f"{one_line(keys.header.path)} scales its rotary frequencies in a way that is not known here.",
                "Use the model's safetensors files instead.",
            )
    return {
        "rope_type": "llama3",
        "factor": float(f"{factor:.7g}"),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": original,
    }


def _llama(keys: _Keys) -> dict[str, Any]:
    experts = keys.get("expert_count", 0)
    biased = "blk.0.attn_q.bias" in keys.tensors
    if not experts:
        config = _common(keys, "llama", "LlamaForCausalLM")
        return {**config, "hidden_act": "silu", "attention_bias": biased, "mlp_bias": False}
    return {
        **_common(keys, "mixtral", "MixtralForCausalLM"),
        "hidden_act": "silu",
        "num_local_experts": keys.size("expert_count"),
        "num_experts_per_tok": keys.size("expert_used_count"),
    }


def _qwen2(keys: _Keys) -> dict[str, Any]:
    return {**_common(keys, "qwen2", "Qwen2ForCausalLM"), "hidden_act": "silu", "use_sliding_window": False}


def _qwen3(keys: _Keys) -> dict[str, Any]:
    return {**_common(keys, "qwen3", "Qwen3ForCausalLM"), "hidden_act": "silu", "attention_bias": False}


def _qwen3moe(keys: _Keys) -> dict[str, Any]:
    return {
        **_common(keys, "qwen3_moe", "Qwen3MoeForCausalLM"),
        "hidden_act": "silu",
        "attention_bias": False,
        "num_experts": keys.size("expert_count"),
        "num_experts_per_tok": keys.size("expert_used_count"),
        "moe_intermediate_size": keys.size("expert_feed_forward_length"),
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": True,
    }


def _gemma(keys: _Keys) -> dict[str, Any]:
    return {**_common(keys, "gemma", "GemmaForCausalLM"), "hidden_activation": "gelu_pytorch_tanh"}


def _gemma2(keys: _Keys) -> dict[str, Any]:
    config = _common(keys, "gemma2", "Gemma2ForCausalLM")
    # llama.cpp knows the 27B model by its layers; it alone scales queries by hidden size over heads.
    scaled_by_width = config["num_hidden_layers"] == 46
    return {
        **config,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": _query_scalar(config, scaled_by_width),
        "sliding_window": keys.size("attention.sliding_window", 4096),
        "attn_logit_softcapping": keys.number("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": keys.number("final_logit_softcapping", 30.0),
    }


def _gemma3(keys: _Keys) -> dict[str, Any]:
    config = _common(keys, "gemma3_text", "Gemma3ForCausalLM")
    layers = config["num_hidden_layers"]
    # Every sixth layer sees everything; the base frequency of the others is not stored.
    kinds = ["full_attention" if (layer + 1) % 6 == 0 else "sliding_attention" for layer in range(layers)]
    return {
        **config,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": _query_scalar(config, layers == 62),
        "sliding_window": keys.size("attention.sliding_window", 1024),
        "sliding_window_pattern": 6,
        "layer_types": kinds,
        "rope_theta": keys.number("rope.freq_base", 1000000.0),
        "rope_local_base_freq": 10000.0,
    }


def _query_scalar(config: dict[str, Any], by_width: bool) -> int:
    if by_width:
        return int(config["hidden_size"] // config["num_attention_heads"])
    return int(config["head_dim"])


def _phi3(keys: _Keys) -> dict[str, Any]:
    config = _common(keys, "phi3", "Phi3ForCausalLM")
    rotary = keys.size("rope.dimension_count", config["head_dim"])
    original = keys.get("rope.scaling.original_context_length")
    scaling = None
    if "rope_factors_long.weight" in keys.tensors:
        scaling = {
            "rope_type": "longrope",
            "type": "longrope",
            "long_factor": list(read_floats(keys.header, keys.tensor("rope_factors_long.weight"))),
            "short_factor": list(read_floats(keys.header, keys.tensor("rope_factors_short.weight"))),
        }
    return {
        **{key: value for key, value in config.items() if key != "head_dim"},
        "hidden_act": "silu",
        "rope_scaling": scaling,
        "original_max_position_embeddings": original or config["max_position_embeddings"],
        "partial_rotary_factor": rotary / config["head_dim"],
        "sliding_window": keys.get("attention.sliding_window") or None,
    }


def _gpt2(keys: _Keys) -> dict[str, Any]:
    hidden_size = keys.size("embedding_length")
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": keys.vocabulary_size,
        "n_embd": hidden_size,
        "n_inner": keys.size("feed_forward_length", 4 * hidden_size),
        "n_layer": keys.size("block_count"),
        "n_head": keys.size("attention.head_count"),
        "n_positions": keys.size("context_length"),
        "layer_norm_epsilon": keys.number("attention.layer_norm_epsilon", 1e-5),
        "activation_function": "gelu_new",
        "tie_word_embeddings": keys.tied,
        "bos_token_id": keys.header.integer("tokenizer.ggml.bos_token_id"),
        "eos_token_id": keys.header.integer("tokenizer.ggml.eos_token_id"),
        "torch_dtype": "bfloat16",
    }


_BUILDERS: dict[str, Callable[[_Keys], dict[str, Any]]] = {
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "qwen3moe": _qwen3moe,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "phi3": _phi3,
    "gpt2": _gpt2,
}
