"""What the scripted session says about a model's architecture: SmolLM2-135M-Instruct, and figures like real ones."""

from __future__ import annotations

from typing import Any

from workbench.session import protocol

HIDDEN, LAYERS = 576, 30


def _leaf(path: str, *shape: int) -> dict[str, Any]:
    count = 1
    for size in shape:
        count *= size
    name = path.rpartition(".")[2]
    node = {"name": name, "path": path, "class": "", "parameters": count, "bytes": 2 * count, "count": 1}
    return node | {"shape": list(shape), "dtype": "bfloat16", "tied_to": None, "children": []}


def _module(path: str, class_name: str, children: list[dict[str, Any]], name: str = "", count: int = 1) -> Any:
    parameters = count * sum(child["parameters"] for child in children)
    node = {"name": name or path.rpartition(".")[2], "path": path, "class": class_name, "parameters": parameters}
    return node | {
        "bytes": 2 * parameters, "count": count, "children": children, "shape": None, "dtype": None, "tied_to": None,
    }  # fmt: skip


def _linear(path: str, out: int, into: int) -> dict[str, Any]:
    return _module(path, "Linear", [_leaf(f"{path}.weight", out, into)])


def _norm(path: str) -> dict[str, Any]:
    return _module(path, "LlamaRMSNorm", [_leaf(f"{path}.weight", HIDDEN)])


def _layer(path: str) -> list[dict[str, Any]]:
    at = f"{path}.self_attn"
    attention = [("q_proj", 576, HIDDEN), ("k_proj", 192, HIDDEN), ("v_proj", 192, HIDDEN), ("o_proj", HIDDEN, 576)]
    mlp = [("gate_proj", 1536, HIDDEN), ("up_proj", 1536, HIDDEN), ("down_proj", HIDDEN, 1536)]
    return [
        _module(at, "LlamaAttention", [_linear(f"{at}.{n}", o, i) for n, o, i in attention]),
        _module(f"{path}.mlp", "LlamaMLP", [_linear(f"{path}.mlp.{n}", o, i) for n, o, i in mlp]),
        _norm(f"{path}.input_layernorm"),
        _norm(f"{path}.post_attention_layernorm"),
    ]


RUN = _module("model.layers.0", "LlamaDecoderLayer", _layer("model.layers.0"), "0-29", LAYERS)
TREE = _module(
    "",
    "LlamaForCausalLM",
    [
        _module(
            "model",
            "LlamaModel",
            [
                _module("model.embed_tokens", "Embedding", [_leaf("model.embed_tokens.weight", 49152, HIDDEN)]),
                _module("model.layers", "ModuleList", [RUN]),
                _norm("model.norm"),
            ],
        ),
        _module(
            "lm_head",
            "Linear",
            [
                _leaf("lm_head.weight", 49152, HIDDEN)
                | {"parameters": 0, "bytes": 0, "tied_to": "model.embed_tokens.weight"}
            ],
        ),
    ],
)


def _block(kind: str, label: str, path: str = "", line: str = "", width: int | None = HIDDEN) -> dict[str, Any]:
    return {"kind": kind, "label": label, "path": path, "line": line, "width": width, "parameters": 0}


def _stage(name: str, path: str, repeat: int, place: str, *blocks: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name, "path": path, "repeat": repeat, "parallel": place == "parallel", "norm_place": place,
        "blocks": list(blocks),
    }  # fmt: skip


_AT = "model.layers.0-29"
DIAGRAM = [
    _stage("input", "", 1, "none", _block("embedding", "embedding", "model.embed_tokens", "49,152 × 576")),
    _stage(
        "0-29",
        _AT,
        LAYERS,
        "pre",
        _block("norm", "RMSNorm", f"{_AT}.input_layernorm"),
        _block("attention", "attention", f"{_AT}.self_attn", "9 q × 64, 3 kv"),
        _block("add", "+", width=None),
        _block("norm", "RMSNorm", f"{_AT}.post_attention_layernorm"),
        _block("mlp", "feed-forward", f"{_AT}.mlp", "576 → 1,536 → 576"),
        _block("add", "+", width=None),
    ),
    _stage(
        "output",
        "",
        1,
        "none",
        _block("norm", "RMSNorm", "model.norm"),
        _block("head", "LM head", "lm_head", "576 → 49,152, tied to the embedding", 49152),
    ),
]


def _fact(key: str, label: str, value: str, chip: str, line: str) -> dict[str, Any]:
    text = f"{line} The longer text about {label.lower()} says how it works, what it costs and what else there is."
    return {"key": key, "label": label, "value": value, "chip": chip, "line": line, "text": text, "sources": ["paper"]}


EXPLAINED = [
    _fact("layers", "Layers", "30 layers × 576", "30 layers × 576", "The residual stream is 576 wide."),
    _fact("attention", "Attention", "GQA, 9 query and 3 key/value heads", "GQA 9:3", "Three query heads share a key."),
    _fact("position", "Position", "RoPE θ 100,000", "RoPE 100k", "Queries and keys are rotated by their position."),
    _fact("norm", "Norm", "RMSNorm, before each part", "RMSNorm", "Divides by the root mean square."),
    _fact("activation", "Activation", "SwiGLU", "SwiGLU", "One projection gates the other."),
    _fact("tying", "Embeddings", "tied", "tied", "Input and output share one table."),
    _fact("vocab", "Vocabulary", "49,152", "49.2 k vocab", "Tokens the model knows."),
    _fact("context", "Context", "8,192 tokens", "8,192 context", "As far as it was trained."),
    _fact("cache", "KV cache", "22.5 KiB a token", "", "Keys and values of all layers."),
]

CONFIG: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "intermediate_size": 1536, "vocab_size": 49152, "hidden_act": "silu",
}  # fmt: skip

INSPECTION: dict[str, Any] = {
    "model": "smollm2-135m-instruct",
    "architecture": "LlamaForCausalLM",
    "parameters": {"total": 134515008, "active": 134515008},
    "facts": {
        "num_hidden_layers": 30, "hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3,
        "attention_kind": "GQA", "sliding_window": None, "position": "RoPE 100k", "norm": "RMSNorm",
        "activation": "SwiGLU", "tied_embeddings": True, "vocab_size": 49152, "context_length": 8192, "experts": None,
    },
    "explained": EXPLAINED,
    "diagram": DIAGRAM,
    "config": CONFIG,
    "tree": TREE,
}  # fmt: skip


def live_tree(node: dict[str, Any] = TREE) -> dict[str, Any]:
    """The tree of the loaded model: linear layers in nf4, all on one device."""
    quantized = node["class"] == "Linear" and node["path"] != "lm_head"
    half = node["name"] == "weight" and ".layers." in node["path"] and "norm" not in node["path"]
    children = [live_tree(child) for child in node["children"]]
    count_bytes = node["count"] * sum(child["bytes"] for child in children) if children else node["bytes"]
    return node | {
        "class": "Linear4bit" if quantized else node["class"],
        "dtype": "uint8" if half else node["dtype"],
        "bytes": count_bytes // 4 if half else count_bytes,
        "device": "cuda:0",
        "quantization": "nf4" if quantized or half else "",
        "buffer": False,
        "children": children,
    }


LIVE: dict[str, Any] = {"parameters": 134515008, "bytes": 109_700_000, "tree": live_tree()}


def inspect_reply(request: protocol.InspectModel) -> list[protocol.Message]:
    """A skeleton in two steps."""
    return [
        protocol.JobProgressed("skeleton", 1, 2, "steps"),
        protocol.ModelInspected(INSPECTION | {"model": request.model}),
    ]


def scripts(model: protocol.ModelStatus) -> dict[type[protocol.Request], Any]:
    """The answers to every request of the architecture bench, while this model is loaded."""
    return {
        protocol.InspectModel: inspect_reply,
        protocol.InspectLoaded: lambda request: [protocol.LoadedInspected(model, LIVE)],
    }
