"""The way of a token through a model, as stages of blocks, read off the folded tree. Stdlib only.

Where a layer's norms stand is told by their names and places: transformers has no field for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Optional

from workbench.architecture import config as reading
from workbench.architecture.count import STATE_CLASSES
from workbench.architecture.skeleton import Skeleton
from workbench.architecture.tree import TreeNode, module_tree

PRE, POST, POST_INSIDE, SANDWICH, PARALLEL, NONE = "pre", "post", "post inside", "sandwich", "parallel", "none"

_MIXER_NAMES = frozenset(
    {"self_attn", "attn", "attention", "self_attention", "SelfAttention", "rel_attn", "linear_attn", "mixer", "mamba"}
    | {"conv", "short_conv", "temporal_block", "att", "mamba_block", "self_attn_block", "mlstm_layer"}
)
_CROSS_NAMES = frozenset(["encoder_attn", "crossattention", "EncDecAttention", "cross_attn", "cross_attention"])
_MLP_NAMES = frozenset(
    {"mlp", "feed_forward", "feedforward", "ffn", "ff", "block_sparse_moe", "moe", "mlp_block", "DenseReluDense"}
    | {"shared_mlp", "channel_mixer", "fc1", "fc2", "intermediate", "output", "feed_forward1", "lin1", "lin2"}
)
_NESTED_NORMS = ("layer_norm", "LayerNorm", "layernorm")
# Post-norm families whose names do not tell them from pre-norm ones.
_POST_NORM_TYPES = ("openai-gpt", "bart", "marian", "distilbert", "albert", "xlm", "blenderbot-small", "mvp", "plbart")
_NORM_ORDER = (
    "input",
    "pre_self",
    "post_self",
    "post_attention",
    "pre_feedforward",
    "pre_mlp",
    "post_feedforward",
    "post_mlp",
    "full_layer",
)
_RUN = re.compile(r"\d+(-\d+)?")


@dataclass(frozen=True)
class Block:
    """One box of the diagram."""

    kind: str
    """``embedding``, ``position``, ``norm``, ``attention``, ``cross_attention``, ``state_space``, ``mlp``,
    ``experts``, ``add``, ``head`` or ``other``."""
    label: str
    path: str
    """Name of the module in the folded tree (``model.layers.0-31.mlp``); empty for an addition."""
    line: str
    """Its dimensions."""
    width: Optional[int]
    """Of what comes out of it; None where nothing tells."""
    parameters: int = 0


@dataclass(frozen=True)
class Stage:
    """A part of the diagram: what stands before, between or after the layers, or a run of equal layers."""

    name: str
    path: str
    """Of the run of layers in the folded tree; empty outside of layers."""
    repeat: int
    parallel: bool
    """Whether attention and feed-forward read the same input and are added together."""
    norm_place: str
    """``pre``, ``post``, ``post inside`` (before the addition), ``sandwich``, ``parallel`` or ``none``."""
    blocks: tuple[Block, ...]


def diagram(skeleton: Skeleton) -> list[Stage]:
    """The stages of a model in the order of its modules, an encoder's before its decoder's."""
    return _Drawing(skeleton).stages()


class _Drawing:
    def __init__(self, skeleton: Skeleton) -> None:
        self.skeleton = skeleton
        self.config = reading.text_config(skeleton.config)
        self.found: list[Stage] = []
        self.loose: list[Block] = []
        self.late: list[Block] = []
        """Final norms that a family defines before its layers."""

    def stages(self) -> list[Stage]:
        self._walk(module_tree(self.skeleton), "")
        self._flush()
        return self.found

    def _walk(self, node: TreeNode, path: str) -> None:
        runs = [child for child in node.children if _is_run(child)]
        # A first layer may lack a norm (ModernBERT): the longest run tells how the family does it.
        place = self._norm_place(max(runs, key=lambda run: run.repeat)) if runs else NONE
        for child in _embedding_norms_first(node.children):
            child_path = f"{path}.{child.name}" if path else child.name
            if not child.class_name or "Rotary" in child.class_name:
                continue
            if _is_run(child):
                self._flush()
                self.found.append(self._layer(child, child_path, place))
                self.loose, self.late = [*self.loose, *self.late], []
            elif _has_layers(child):
                self._walk(child, child_path)
            elif child.parameters or child.path == self.skeleton.output_embeddings:
                block = self._single(child, child_path)
                early = block.kind == "norm" and child.name.startswith("final") and _has_later_layers(node, child)
                (self.late if early else self.loose).append(block)

    def _flush(self) -> None:
        if self.loose:
            first = self.loose[0]
            name = "input" if first.kind in ("embedding", "position") else "output" if self.found else first.label
            self.found.append(Stage(name, "", 1, False, NONE, tuple(self.loose)))
            self.loose = []

    def _single(self, node: TreeNode, path: str) -> Block:
        if node.path == self.skeleton.output_embeddings:
            shape = _weight_shape(node)
            line = f"{shape[1]:,} → {shape[0]:,}" if shape and len(shape) == 2 else ""
            if not node.parameters:
                line += ", tied to the embedding"
            return Block("head", "LM head", path, line, shape[0] if shape else None, node.parameters)
        if "Norm" in node.class_name:
            return self._norm(node, path)
        if "Embedding" in node.class_name or node.path == self.skeleton.input_embeddings:
            return _embedding(node, path, node.path == self.skeleton.input_embeddings)
        return Block("other", node.name, path, _widths(node), None, node.parameters)

    def _layer(self, run: TreeNode, path: str, place: str) -> Stage:
        parts = list(_parts(run, path))
        norms = sorted(
            ((node, at) for kind, node, at in parts if kind == "norm"), key=lambda norm: _order(norm[0].name)
        )
        config = self._config_at(path)
        mixers = [self._mixer(config, *part) for part in parts if part[0] in ("mixer", "cross")]
        mlps = _merged([self._mlp(config, node, at) for kind, node, at in parts if kind == "mlp"])
        blocks = _arranged(place, [self._norm(*norm) for norm in norms], mixers, mlps)
        return Stage(run.name, path, run.repeat, place == PARALLEL, place, tuple(blocks))

    def _config_at(self, path: str) -> dict[str, Any]:
        """The section that describes the layers at `path`."""
        for part in ("vision", "audio"):
            section = self.skeleton.config.get(f"{part}_config")
            if part in path and isinstance(section, dict):
                return section
        return self.config

    def _norm_place(self, run: TreeNode) -> str:
        parts = list(_parts(run, ""))
        nodes = [node for kind, node, _ in parts if kind == "norm"]
        names = [node.name for node in nodes]
        kinds = {kind for kind, _, _ in parts}
        if not names:
            return NONE
        if {"mixer", "mlp"} <= kinds and (len(names) == 1 or set(names) == {"ln_attn", "ln_mlp"}):
            return PARALLEL
        if self.config.get("use_parallel_residual") is True or self.config.get("parallel_attn") is True:
            return PARALLEL
        if all(name.startswith("post_") for name in names):
            return POST_INSIDE
        if len(names) >= 4 and any(name.startswith("post_") for name in names):
            return SANDWICH
        post = any(".output." in f".{node.path}." for node in nodes)
        if post or self.skeleton.model_type in _POST_NORM_TYPES or self.config.get("do_layer_norm_before") is False:
            return POST
        return PRE

    def _norm(self, node: TreeNode, path: str) -> Block:
        shape = _weight_shape(node)
        kind = norm_kind(node.class_name)
        return Block("norm", kind, path, "", shape[0] if shape else None, node.parameters)

    def _mixer(self, config: dict[str, Any], kind: str, node: TreeNode, path: str) -> Block:
        width = reading.hidden_size(config)
        if any(mark in node.class_name for mark in STATE_CLASSES) and kind != "cross":
            return Block("state_space", "state space", path, _widths(node), width, node.parameters)
        if "Conv" in node.class_name:
            return Block("state_space", "convolution", path, _widths(node), width, node.parameters)
        label = "cross-attention" if kind == "cross" else "attention"
        return Block(
            "cross_attention" if kind == "cross" else "attention", label, path, _heads(config), width, node.parameters
        )

    def _mlp(self, config: dict[str, Any], node: TreeNode, path: str) -> Block:
        width = reading.hidden_size(config)
        experts = [child for child in node.children if "xpert" in child.class_name or child.name == "experts"]
        if experts:
            chosen, count = reading.experts_per_token(config), reading.num_experts(config)
            inner = reading.first_int(config, ("moe_intermediate_size", "intermediate_size"))
            line = f"{chosen or '?'} of {count or '?'} experts" + (f" × {inner:,}" if inner else "")
            return Block("experts", "experts", path, line, width, node.parameters)
        return Block("mlp", "feed-forward", path, _widths(node), width, node.parameters)


def _heads(config: dict[str, Any]) -> str:
    heads, kv, size = reading.num_attention_heads(config), reading.num_key_value_heads(config), reading.head_dim(config)
    if not heads or not size:
        return ""
    if reading.is_mla(config):
        return f"{heads} heads × {size}, {config.get('kv_lora_rank')} cached"
    return f"{heads} q × {size}" + (f", {kv} kv" if kv and kv != heads else "")


def norm_kind(class_name: str) -> str:
    """``RMSNorm`` or ``LayerNorm``, whatever a family's class is called; else the class name."""
    # T5's class is called LayerNorm and neither subtracts the mean nor has a bias.
    if "RMS" in class_name or class_name.startswith(("T5LayerNorm", "MT5LayerNorm", "UMT5LayerNorm")):
        return "RMSNorm"
    return "LayerNorm" if "LayerNorm" in class_name or class_name.endswith("LPLayerNorm") else class_name


def _is_run(node: TreeNode) -> bool:
    return bool(_RUN.fullmatch(node.name)) and bool(node.children) and _is_layer(node)


def _is_layer(node: TreeNode) -> bool:
    """Whether a numbered module has an attention, state-space or feed-forward part of its own."""
    return any(kind != "norm" for kind, _, _ in _parts(node, ""))


def _has_layers(node: TreeNode) -> bool:
    return any(_is_run(child) or _has_layers(child) for child in node.children)


def _has_later_layers(node: TreeNode, child: TreeNode) -> bool:
    later = node.children[node.children.index(child) + 1 :]
    return any(_is_run(other) or _has_layers(other) for other in later)


def _parts(node: TreeNode, path: str, inside: bool = False) -> Iterator[tuple[str, TreeNode, str]]:
    """The norms, mixers and feed-forward parts of a layer, with the norms that lie inside those (BERT)."""
    for child in node.children:
        at = f"{path}.{child.name}"
        if not child.class_name:
            continue
        if "Norm" in child.class_name and not any(inner.class_name for inner in child.children):
            if not inside or child.name in _NESTED_NORMS:
                yield "norm", child, at
            continue
        kind = "" if inside else _kind(child)
        if kind:
            yield kind, child, at
        if not kind or child.name in ("attention", "output", "crossattention"):
            yield from _parts(child, at, inside or bool(kind))


def _kind(node: TreeNode) -> str:
    if node.name in _CROSS_NAMES:
        return "cross"
    if node.name in _MIXER_NAMES:
        return "mixer"
    if node.name in _MLP_NAMES:
        return "mlp"
    # T5 and DBRX wrap a part with its norms in a module whose class is named after the part.
    if _RUN.fullmatch(node.name) or "Norm" in node.class_name:
        return ""
    if "Attention" in node.class_name:
        return "mixer"
    return "mlp" if node.class_name.endswith(("MLP", "FeedForward", "SparseMoeBlock")) else ""


def _merged(mlps: list[Block]) -> list[Block]:
    """Feed-forward layers that a family keeps as two modules (``fc1``, ``fc2``) as one block."""
    if len(mlps) < 2 or any(block.kind == "experts" for block in mlps):
        return mlps
    first = mlps[0]
    widths = [text for block in mlps for text in block.line.split(" → ") if text]
    line = f"{widths[0]} → {widths[1]} → {widths[-1]}" if len(widths) >= 4 else first.line
    return [Block("mlp", first.label, first.path, line, first.width, sum(block.parameters for block in mlps))]


def _arranged(place: str, norms: list[Block], mixers: list[Block], mlps: list[Block]) -> Iterator[Block]:
    """Blocks in the order in which a token meets them."""
    add = Block("add", "+", "", "", None)
    waiting = list(norms)

    def norm() -> Iterator[Block]:
        if waiting:
            yield waiting.pop(0)

    parts = [*mixers, *mlps]
    if place == PARALLEL:
        # One norm for both parts, or one for each: GPT-NeoX, Falcon-40B.
        yield from waiting
        yield from parts
        yield add
        return
    if place == PRE:
        for _ in range(len(norms) - len(parts)):
            yield from norm()
    for number, part in enumerate(parts):
        if place == SANDWICH or (place == PRE and len(waiting) >= len(parts) - number):
            yield from norm()
        yield part
        if place in (POST_INSIDE, SANDWICH):
            yield from norm()
        yield add
        if place == POST:
            yield from norm()
    yield from waiting


def _embedding_norms_first(children: Iterable[TreeNode]) -> list[TreeNode]:
    """A norm of the embedding stands before the layers, wherever its class defines it: BART after them."""
    found = list(children)
    layers = (index for index, child in enumerate(found) if _is_run(child) or _has_layers(child))
    first_run = next(layers, len(found))
    moved = [child for child in found[first_run:] if "Norm" in child.class_name and "embed" in child.name]
    rest = [child for child in found[first_run:] if child not in moved]
    return found[:first_run] + moved + rest


def _order(name: str) -> int:
    return next((rank for rank, start in enumerate(_NORM_ORDER) if name.startswith(start)), -1)


def _embedding(node: TreeNode, path: str, is_input: bool) -> Block:
    shape = _weight_shape(node)
    line = " × ".join(f"{size:,}" for size in shape) if shape else ""
    place = "position" in node.name.lower() or node.name == "wpe"
    kind = "position" if place and not is_input else "embedding"
    label = "position embedding" if kind == "position" else "embedding"
    return Block(kind, label, path, line, shape[-1] if shape else None, node.parameters)


def _weight_shape(node: TreeNode) -> Optional[tuple[int, ...]]:
    for child in node.children:
        if child.shape and child.name in ("weight", "scale"):
            return child.shape
    return next((shape for child in node.children for shape in (_weight_shape(child),) if shape), None)


def _widths(node: TreeNode) -> str:
    """``4,096 → 14,336 → 4,096``: what the first and the last matrix of a part turn into what."""
    own = [node] if node.class_name.endswith(("Linear", "Conv1D")) else []
    matrices = own or [child for child in node.children if child.class_name.endswith(("Linear", "Conv1D"))]
    sizes = []
    for matrix in matrices:
        shape = _weight_shape(matrix)
        if shape and len(shape) == 2:
            sizes.append(shape if matrix.class_name == "Conv1D" else shape[::-1])
    if not sizes:
        return ""
    steps = sizes[0] if len(sizes) == 1 else (*sizes[0], sizes[-1][1])
    return " → ".join(f"{size:,}" for size in steps)
