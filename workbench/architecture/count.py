"""Exact parameter counts of a skeleton: whole, active, by component, by layer. Stdlib only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from workbench.architecture.config import experts_per_token, num_experts, text_config
from workbench.architecture.skeleton import ParameterEntry, Skeleton

COMPONENTS = ("embedding", "attention", "state_space", "mlp", "experts", "router", "norm", "lm_head", "other")

_ATTENTION_NAMES = {"self_attn", "attn", "attention", "self_attention", "cross_attn", "encoder_attn", "SelfAttention"}
_MLP_NAMES = {
    "mlp",
    "ffn",
    "feed_forward",
    "fc1",
    "fc2",
    "intermediate",
    "output",
    "ff",
    "shared_expert",
    "DenseReluDense",
}
STATE_CLASSES = ("Mamba", "SSM", "Recurrent", "DeltaNet", "LinearAttention", "Rwkv", "LightningAttention", "LSTM")
"""In the class names of what keeps a state of fixed size in place of keys and values."""
_STATE_NAMES = {"mamba", "linear_attn", "ssm", "mlstm_layer", "recurrent_block", "conv", "short_conv"}
_ROUTER_NAMES = {"router", "gate", "shared_expert_gate"}
_EMBEDDING_NAMES = {"wte", "wpe", "embed_tokens", "embed_positions", "embeddings", "word_embeddings"}
_LAYER = re.compile(r"^(?:.*?\.)?(\d+)(?=\.)")


@dataclass(frozen=True)
class LayerCount:
    """Parameters of one layer of a stack."""

    name: str
    parameters: int


@dataclass(frozen=True)
class ParameterCounts:
    """How many parameters a model has, a tied tensor counted once."""

    total: int
    active: int
    """At work on one token: of routed experts only those chosen, the input embedding included."""
    active_without_input_embedding: int
    """The same as some model cards count it."""
    trainable: int
    """In full training; adapters are counted elsewhere."""
    persistent_buffers: int
    """Elements that a checkpoint holds besides parameters, such as a router's correction bias."""
    by_component: dict[str, int]
    """Adds up to ``total``; a tied LM head counts as embedding."""
    per_layer: tuple[LayerCount, ...]


def count_parameters(skeleton: Skeleton) -> ParameterCounts:
    """Count what `skeleton` holds.

    Active parameters are all but experts x (1 - k/E), as OLMoE, Mixtral, Qwen and DeepSeek state them.
    """
    by_component = dict.fromkeys(COMPONENTS, 0)
    per_layer: dict[str, int] = {}
    classify = Classifier(skeleton)
    chosen = experts_per_token(text_config(skeleton.config))
    active = total = 0
    for entry in skeleton.unique_parameters:
        numel = entry.numel
        component = classify.component(entry)
        total += numel
        by_component[component] += numel
        active += numel * chosen // classify.experts_of(entry) if component == "experts" and chosen else numel
        layer = classify.layer(entry.module)
        if layer is not None:
            per_layer[layer] = per_layer.get(layer, 0) + numel
    input_embedding = sum(entry.numel for entry in skeleton.unique_parameters if entry.name in classify.input_embedding)
    return ParameterCounts(
        total=total,
        active=active,
        active_without_input_embedding=active - input_embedding,
        trainable=total,
        persistent_buffers=sum(buffer.numel for buffer in skeleton.buffers if buffer.persistent),
        by_component=by_component,
        per_layer=tuple(LayerCount(name, parameters) for name, parameters in per_layer.items()),
    )


class Classifier:
    """Says which component a tensor of one skeleton belongs to, from module classes and names."""

    def __init__(self, skeleton: Skeleton) -> None:
        self._classes = {module.name: module.class_name for module in skeleton.modules}
        self._head = skeleton.output_embeddings
        # Under its first name a tied embedding may belong to the head.
        self.input_embedding = {
            entry.tied_to or entry.name for entry in skeleton.parameters if entry.module == skeleton.input_embeddings
        }
        self._by_module: dict[str, str] = {}
        self._separate_experts = self._count_separate_experts()
        self._stated_experts = num_experts(text_config(skeleton.config))

    def component(self, entry: ParameterEntry) -> str:
        """One of `COMPONENTS`."""
        if entry.name in self.input_embedding:
            return "embedding"
        found = self._by_module.get(entry.module)
        if found is None:
            found = self._by_module[entry.module] = self._component_of_module(entry.module)
        return found

    def experts_of(self, entry: ParameterEntry) -> int:
        """Experts that share the tensor's list (one module each) or the tensor itself (fused, first axis)."""
        prefix = _experts_prefix(entry.name)
        separate = self._separate_experts.get(prefix, 0) if prefix else 0
        stated = self._stated_experts
        if not separate and stated and len(entry.shape) == 2 and entry.shape[0] % stated == 0:
            # DBRX stacks the rows of its experts in one matrix.
            return stated
        return separate or (entry.shape[0] if entry.shape else 1)

    def layer(self, module: str) -> Optional[str]:
        """Name of the outermost numbered layer that holds `module`, or None."""
        found = _LAYER.match(module + ".")
        return found.group() if found else None

    def _component_of_module(self, module: str) -> str:
        class_name = self._classes.get(module, "")
        segments = module.split(".")
        if "Norm" in class_name or segments[-1] in ("ln_f", "norm"):
            return "norm"
        if "experts" in segments or class_name.endswith("Experts"):
            return "experts"
        if "Router" in class_name or segments[-1] in _ROUTER_NAMES or "router" in segments:
            return "router"
        if module == self._head:
            return "lm_head"
        return self._component_of_ancestors(segments)

    def _component_of_ancestors(self, segments: list[str]) -> str:
        for depth in range(len(segments), 0, -1):
            class_name = self._classes.get(".".join(segments[:depth]), "")
            own = segments[depth - 1]
            if own in _STATE_NAMES or (own in ("mixer", "temporal_block") and _has_state(class_name)):
                return "state_space"
            # Attention before embedding: T5 keeps its relative position bias as an embedding in it.
            if "Attention" in class_name or own in _ATTENTION_NAMES:
                return "attention"
            if depth < len(segments) and "Embedding" in class_name:
                return "embedding"
            if "MLP" in class_name or "FeedForward" in class_name or own in _MLP_NAMES:
                return "mlp"
        leaf_class = self._classes.get(".".join(segments), "")
        return "embedding" if "Embedding" in leaf_class or segments[-1] in _EMBEDDING_NAMES else "other"

    def _count_separate_experts(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for name in self._classes:
            prefix, _, last = name.rpartition(".")
            if last.isdigit() and prefix.endswith("experts"):
                counts[prefix] = counts.get(prefix, 0) + 1
        return counts


def _has_state(class_name: str) -> bool:
    return any(mark in class_name for mark in STATE_CLASSES)


def _experts_prefix(name: str) -> Optional[str]:
    segments = name.split(".")
    return ".".join(segments[: segments.index("experts") + 1]) if "experts" in segments else None
