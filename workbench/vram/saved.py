"""What one layer keeps of a token for its backward pass, by its structure. Stdlib only.

Coefficients are those of the generated tables, taken apart into norms, attention, feed-forward and adapters. They stand
in for a family without table, and tell by how much a plan that a table lacks differs from the nearest that it has.
"""

from __future__ import annotations

from collections.abc import Iterator

from workbench.architecture import config as reading
from workbench.architecture.lora import TargetCount
from workbench.architecture.skeleton import DTYPE_BYTES, Skeleton
from workbench.errors import WorkbenchError
from workbench.vram.adapters import adapter_count
from workbench.vram.dimensions import Dimensions
from workbench.vram.plan import Plan

BROADCAST_KEYS = ("falcon",)
"""Families that hand torch one key head for all query heads without saying so."""
_PARALLEL = ("gpt_neox", "falcon")
"""Families in which the norms of attention and feed-forward read the same."""
_HEAD_NORMS = ("q_norm", "k_norm", "q_layernorm", "k_layernorm", "query_layernorm", "key_layernorm")
_GATED = ("gate_proj", "gate_up_proj", ".experts", ".w1")
_FUSED_INPUTS = ("qkv_proj", "query_key_value", "Wqkv")
_ATTENTION_INPUTS = ("q_proj", "k_proj", "v_proj", "c_attn", *_FUSED_INPUTS)
_ATTENTION_OUTPUTS = ("o_proj", "out_proj", "dense", "c_proj")
_FEED_FORWARD_INPUTS = ("gate_proj", "up_proj", "gate_up_proj", "fc1", "c_fc", "dense_h_to_4h", "fc_in")
_ACTIVATION_KEYS = ("activation_function", "hidden_act", "hidden_activation", "activation")
_ACTIVATION_BYTES = {"relu": 0, "gelu_new": 8, "gelu_fast": 8}
"""What an activation function keeps of each 16-bit element beside its output; those not named keep their input."""
_DROPOUT_KEYS = ("resid_pdrop", "hidden_dropout", "dropout", "resid_dropout", "residual_dropout")


class Structure:
    """What matters of a model's layers, read off its skeleton once."""

    def __init__(self, skeleton: Skeleton) -> None:
        """Read `skeleton`."""
        self._skeleton = skeleton
        config = reading.text_config(skeleton.config)
        classes = {module.class_name for module in skeleton.modules}
        names = [module.name for module in skeleton.modules]
        first = [m.name for m in skeleton.modules if ".0." in m.name and "norm" in m.class_name.lower()]
        self._norms = sum(not name.endswith(_HEAD_NORMS) for name in first) or 2
        is_parallel = skeleton.model_type in _PARALLEL and config.get("use_parallel_residual", True)
        self._normed = 1 if is_parallel else self._norms
        self._norms_in_python = "LayerNorm" not in classes
        self._broadcasts_keys = skeleton.model_type in BROADCAST_KEYS
        # A value that is part of one tensor with query and key keeps all of it, where rotation made new ones of those.
        fused = any(name.endswith(_FUSED_INPUTS) for name in names)
        self._cuts_values = fused and any("Rotary" in name for name in classes)
        self._normalizes_heads = any(name.endswith(_HEAD_NORMS) for name in names)
        self._is_gated = any(name.endswith(_GATED) for name in names)
        self._activation = str(next((config[key] for key in _ACTIVATION_KEYS if config.get(key)), ""))
        self._drops_out = any(config.get(key) for key in _DROPOUT_KEYS)
        embeddings = {module.name for module in skeleton.modules if module.layer_kind == "embedding"}
        embeddings.add(skeleton.output_embeddings or "")
        self._in_layers = sum(one.numel for one in skeleton.unique_parameters if one.module not in embeddings)
        self._is_tied = f"{skeleton.output_embeddings}.weight" in skeleton.tied_names
        self._adapted: dict[tuple[str, ...], tuple[TargetCount, ...]] = {}

    def saved(self, plan: Plan, sizes: Dimensions) -> int:
        """Bytes of one layer."""
        per_token = self._by_norms(plan, sizes) + self._by_attention(plan, sizes) + self._by_feed_forward(plan, sizes)
        if plan.has_adapters:
            per_token += sum(self._by_adapters(plan, sizes))
        # Adapters on experts in one tensor add to it, in a copy as large as the tensor.
        experts = sum(_experts_elements(target) for target in self._targets(plan)) // max(1, sizes.layers)
        return sizes.product("bs") * (per_token + 8) + stream_bytes(plan) * experts

    def working(self, plan: Plan, sizes: Dimensions) -> int:
        """Bytes of what a layer's backward pass holds for a moment beside what the layer kept.

        In the feed-forward layer gradients of its activations, or those of all scores, where they are held.
        """
        size = stream_bytes(plan)
        h, i, a, s = (sizes.values[letter] for letter in "hias")
        scores = (12 if size == 4 else 10 if plan.dtype == "bfloat16" else 8) * a * s
        return sizes.product("bs") * max(size * (2 * i + 4 * h), scores if self.holds_scores(plan, sizes) else 0)

    def takes_flash(self, plan: Plan, sizes: Dimensions) -> bool:
        """Whether the flash kernel runs: for 16 bit and without a mask, or where transformers casts to it."""
        if plan.attention == "flash":
            return True
        broadcasts = self._broadcasts_keys and sizes.values["k"] < sizes.values["q"]
        return plan.attention == "sdpa" and stream_bytes(plan) == 2 and not plan.padded and not broadcasts

    def holds_scores(self, plan: Plan, sizes: Dimensions) -> bool:
        """Whether attention keeps a score for every pair of tokens: eager, or torch's math kernel.

        Of torch's fused kernels flash alone takes fewer key than query heads, where it is told so, and it knows no
        float32 (to torch 2.13: ``check_batch_size_and_num_heads_dense`` in ``native/transformers/sdp_utils_cpp.h``,
        ``can_use_mem_efficient_attention`` in ``cuda/sdp_utils.cpp``). With a mask transformers repeats the keys.
        """
        if plan.attention == "eager":
            return True
        if plan.attention != "sdpa" or sizes.values["k"] >= sizes.values["q"]:
            return False
        return self._broadcasts_keys or (stream_bytes(plan) == 4 and not plan.padded)

    def gradient_bytes(self, plan: Plan, sizes: Dimensions) -> tuple[int, int, int]:
        """Of full training: the head's gradient, all layers' together, and what is there beyond both at the end.

        If head and embedding are one tensor, it has two gradients for a moment, beside the sum of them.
        """
        if plan.job != "full":
            return 0, 0, 0
        size = DTYPE_BYTES[plan.dtype]
        head, layers = sizes.product("hv") * size, self._in_layers * size
        return head, layers, head if self._is_tied else 0

    def _by_norms(self, plan: Plan, sizes: Dimensions) -> int:
        """torch's LayerNorm keeps its input; one written in Python (RMSNorm) a float32 copy of it.

        What trains the weights keeps the output too, as the input of linear layers, and before the norm's own weight.
        """
        size, h = stream_bytes(plan), sizes.values["h"]
        saved = self._norms * h * 4 if self._norms_in_python else self._normed * h * size
        if plan.job == "full":
            saved += 2 * h * size + (self._norms * h * size if self._norms_in_python else 0)
        if self._normalizes_heads and self._norms_in_python:
            saved += (4 + (size if plan.job == "full" else 0)) * (sizes.values["q"] + sizes.values["k"])
        return saved + (2 * h if self._drops_out else 0)

    def _by_attention(self, plan: Plan, sizes: Dimensions) -> int:
        """Query, key and value, and what tells the backward pass of the scores; the output where something reads it."""
        size = stream_bytes(plan)
        q, k, a, s = (sizes.values[letter] for letter in "qkas")
        if self.takes_flash(plan, sizes):
            # In float32 streams the kernel gets 16-bit copies, and what it returns is copied back.
            if size == 4:
                return 4 * q + 4 * k + 4 * a + (4 * q if self._reads_output(plan, sizes) else 0)
            return 4 * q + 4 * k + 4 * a + (2 * (q + k) if self._cuts_values else 0)
        mask = size * s if plan.padded else 0
        if not self.holds_scores(plan, sizes):
            # Fewer keys are repeated, in tensors of their own.
            return 4 * size * q + 4 * a + mask + (size * (q + k) if self._cuts_values and k == q else 0)
        scores = (4 + (size if size == 2 else 0)) * a * s
        return 3 * size * q + scores + (size * q if self._reads_output(plan, sizes) else 0)

    def _reads_output(self, plan: Plan, sizes: Dimensions) -> bool:
        """Whether a linear layer keeps attention's output itself, rather than a copy of its own."""
        if plan.job == "full":
            return True
        return _shares_inputs(plan) and any(_is_output(*one, sizes) for one in self._adapted_modules(plan, sizes))

    def _by_feed_forward(self, plan: Plan, sizes: Dimensions) -> int:
        """A gated one keeps gate, activation and up, another what its activation function needs; to train, the product.

        Each expert that works on a token gets a copy of it.
        """
        size, i = stream_bytes(plan), sizes.values["i"]
        trains = plan.job == "full" or any(target.experts > 1 for target in self._targets(plan))
        inner = 3 * size if self._is_gated else _ACTIVATION_BYTES.get(self._activation, 2) * size // 2
        if trains or self._activation == "relu":
            inner += size
        return inner * i + (2 if trains else 1) * size * sizes.values["h"] * sizes.values["x"]

    def _by_adapters(self, plan: Plan, sizes: Dimensions) -> Iterator[int]:
        """Each keeps its input, cast or dropped out in a copy of its own, with dropout's mask; and what its A makes."""
        size = DTYPE_BYTES[plan.lora.dtype]
        kept: set[str] = set()
        for name, width in self._adapted_modules(plan, sizes):
            yield size * plan.lora.r
            source = _source(name)
            if not _shares_inputs(plan):
                yield width * (size + (1 if plan.lora.dropout else 0))
            elif source not in kept and not _is_output(name, width, sizes) and not self._is_kept_relu(width, sizes):
                yield width * size
            kept.add(source)

    def _is_kept_relu(self, width: int, sizes: Dimensions) -> bool:
        """Whether a module of this width reads what the activation function keeps anyway."""
        return self._activation == "relu" and width == sizes.values["i"]

    def _adapted_modules(self, plan: Plan, sizes: Dimensions) -> Iterator[tuple[str, int]]:
        """Name and input width of each module of one layer that carries an adapter; experts in one tensor apart."""
        for target in self._targets(plan):
            if target.experts == 1:
                for _ in range(max(1, round(target.modules / max(1, sizes.layers)))):
                    yield target.name, target.in_features

    def _targets(self, plan: Plan) -> tuple[TargetCount, ...]:
        if not plan.has_adapters:
            return ()
        key = plan.lora.targets
        if key not in self._adapted:
            try:
                self._adapted[key] = adapter_count(self._skeleton, plan).targets
            except WorkbenchError:
                self._adapted[key] = ()
        return self._adapted[key]


def _experts_elements(target: TargetCount) -> int:
    return target.modules * target.experts * target.in_features * target.out_features if target.experts > 1 else 0


def stream_bytes(plan: Plan) -> int:
    """Bytes of an element of what flows from layer to layer."""
    return 4 if plan.prepares_kbit else DTYPE_BYTES[plan.dtype]


def _shares_inputs(plan: Plan) -> bool:
    """Whether adapters read the stream as it is: of their own dtype, and without dropout."""
    return stream_bytes(plan) == DTYPE_BYTES[plan.lora.dtype] and not plan.lora.dropout


def _is_output(name: str, width: int, sizes: Dimensions) -> bool:
    """Whether a module reads attention's output."""
    return name.rpartition(".")[2] in _ATTENTION_OUTPUTS and width == sizes.values["q"]


def _source(name: str) -> str:
    """What a module reads: those of one source share it."""
    last = name.rpartition(".")[2]
    return "attention" if last in _ATTENTION_INPUTS else "feed-forward" if last in _FEED_FORWARD_INPUTS else name
