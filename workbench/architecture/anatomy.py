"""Where the layers of a model in memory are, and which of their modules mix tokens. Needs torch for the model only.

transformers names these differently in every family; what is found here by name is checked by arithmetic in the trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from workbench.errors import WorkbenchError

_LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_COMMON = ("self_attn", "attn", "attention", "self_attention")
_ATTENTIONS = frozenset((*_COMMON, "SelfAttention", "rel_attn", "multi_head_attention"))
_MIXERS = _ATTENTIONS | {"linear_attn", "mixer", "mamba", "conv", "short_conv", "temporal_block", "mlstm_layer"}
_CROSS = frozenset(("encoder_attn", "crossattention", "EncDecAttention", "cross_attn", "cross_attention"))
_DENSE = frozenset(("mlp", "feed_forward", "feedforward", "ffn", "ff", "mlp_block", "DenseReluDense", "channel_mixer"))
_MLPS = _DENSE | {"block_sparse_moe", "moe", "shared_mlp"}
# OPT's and BERT's layers hold the halves of their MLP without a module around them.
_LOOSE_MLPS = (("fc1", "activation_fn", "fc2"), ("intermediate", "output"))
_PART_DEPTH = 3
_KINDS = (
    ("state space", ("mamba", "ssm", "recurrent", "griffin")),
    ("linear attention", ("deltanet", "linearattention", "lightning", "rwkv", "mlstm", "kimidelta")),
    ("convolution", ("conv",)),
)


@dataclass(frozen=True)
class Part:
    """The modules that together are a layer's mixer, MLP or cross-attention; usually one."""

    role: str
    """``mixer``, ``mlp`` or ``cross``."""
    kind: str
    """As in `PartTrace`."""
    names: tuple[str, ...]
    modules: tuple[Any, ...]

    @property
    def name(self) -> str:
        """Dotted name; of several modules their last parts joined."""
        first, *rest = self.names
        return "+".join([first, *(name.rpartition(".")[2] for name in rest)])

    @property
    def class_name(self) -> str:
        """Class of the first module."""
        return type(self.modules[0]).__name__


@dataclass(frozen=True)
class Layer:
    """One layer."""

    index: int
    name: str
    module: Any
    stack: str
    """``decoder`` or ``encoder``."""
    parts: tuple[Part, ...]

    def part(self, role: str) -> Optional[Part]:
        """The first part of a role."""
        return next((part for part in self.parts if part.role == role), None)


def find_layers(model: Any) -> list[Layer]:
    """The layers in the order of running, an encoder's before its decoder's.

    Raises:
        WorkbenchError: ``unsupported`` if the model has none that can be told.
    """
    names = {id(module): name for name, module in model.named_modules()}
    layers: list[Layer] = []
    for stack, holder, count in _stacks(model):
        # ModernBERT's decoder calls its head the decoder.
        found = _layer_list(holder, count) or (_layer_list(model, count) if stack == "decoder" else None)
        if found is None:
            raise WorkbenchError(
                "unsupported",
                f"{type(model).__name__} has no list of layers that could be traced.",
                "Chat and the module tree work; tell us the model.",
            )
        for module in found:
            name = names[id(module)]
            layers.append(Layer(len(layers), name, module, stack, tuple(_parts(module, name))))
    return layers


def text_config(model: Any) -> Any:
    """The config of the language model, also inside one that sees images."""
    return model.config.get_text_config(decoder=True)


def _stacks(model: Any) -> Iterator[tuple[str, Any, int]]:
    config = model.config
    if getattr(config, "is_encoder_decoder", False):
        text = config.get_text_config()
        encoder_count = getattr(text, "encoder_layers", None) or _layer_count(text)
        decoder_count = getattr(text, "decoder_layers", None) or getattr(text, "num_decoder_layers", None)
        yield "encoder", model.get_encoder(), encoder_count
        yield "decoder", model.get_decoder(), decoder_count or _layer_count(text)
        return
    decoder = getattr(model, "get_decoder", lambda: None)()
    yield "decoder", decoder if decoder is not None else model, _layer_count(text_config(model))


def _layer_count(config: Any) -> int:
    for key in _LAYER_KEYS:
        count = getattr(config, key, None)
        if isinstance(count, int):
            return count
    return 0


def _layer_list(holder: Any, count: int) -> Optional[Any]:
    """The outermost ``ModuleList`` of that length, else the one with most parameters."""
    candidates = list(_outermost_lists(holder))
    fitting = [item for item in candidates if len(item) == count] or candidates
    return max(fitting, key=lambda item: sum(p.numel() for p in item.parameters()), default=None)


def _outermost_lists(module: Any) -> Iterator[Any]:
    from torch.nn import ModuleList

    for child in module.children():
        if isinstance(child, ModuleList):
            if len(child):
                yield child
        else:
            yield from _outermost_lists(child)


def _parts(layer: Any, layer_name: str) -> Iterator[Part]:
    level = [(layer_name, layer)]
    for _ in range(_PART_DEPTH):
        deeper = []
        for prefix, module in level:
            children = dict(module.named_children())
            for name, child in children.items():
                path = f"{prefix}.{name}"
                role = _role(name, child)
                if role:
                    yield Part(role, _kind(child, role, name), (path,), (child,))
                elif "norm" not in type(child).__name__.lower() or list(child.children()):
                    deeper.append((path, child))
            for pair in _LOOSE_MLPS:
                inner = [name for name in pair if name in children]
                if pair[0] in inner and pair[-1] in inner:
                    paths = tuple(f"{prefix}.{name}" for name in inner)
                    yield Part("mlp", "mlp", paths, tuple(children[name] for name in inner))
        level = deeper


def _role(name: str, module: Any) -> str:
    if name in _CROSS:
        return "cross"
    if name in _MLPS:
        return "mlp"
    if name not in _MIXERS:
        return ""
    class_name = type(module).__name__.lower()
    # Nemotron-H calls whatever a block holds its mixer.
    return "mlp" if class_name.endswith(("mlp", "moe")) else "mixer"


def _kind(module: Any, role: str, name: str) -> str:
    if role == "mlp":
        return "experts" if any("expert" in name for name, _ in module.named_modules()) else "mlp"
    class_name = f"{name} {type(module).__name__}".lower()
    for kind, words in _KINDS:
        if any(word in class_name for word in words):
            return kind
    return "attention"
