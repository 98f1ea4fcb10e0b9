"""What the scripted session says about a model's architecture: SmolLM2-135M-Instruct, and figures like real ones."""

from __future__ import annotations

import base64
import math
import struct
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
    "parameters": {"total": 134515008, "active": 134515008, "by_component": {}},
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


# --- A run through the loaded model ------------------------------------------------------------------------

WORDS = ("The", " capital", " of", " France", " is")
ANSWERS = (" Paris", " the", " London", " Le", " a")


def _figures(*shape: int, absmax: float = 12.0, nonfinite: int = 0) -> dict[str, Any]:
    return {
        "shape": list(shape), "dtype": "bfloat16", "mean": -0.0215, "std": 1.98, "absmax": absmax,
        "nonfinite": nonfinite,
    }  # fmt: skip


def _part(name: str, class_name: str, kind: str, seconds: float, share: float) -> dict[str, Any]:
    return {
        "name": name, "class_name": class_name, "kind": kind, "seconds": seconds, "time_share": 0.5,
        "contribution_norm": 9.5, "contribution_share": share,
    }  # fmt: skip


def _layer_trace(index: int) -> dict[str, Any]:
    at = f"model.layers.{index}"
    mixer, mlp = 0.0004 + 0.00001 * index, 0.0006
    return {
        "index": index, "name": at, "class_name": "LlamaDecoderLayer", "stack": "decoder",
        "seconds": mixer + mlp + 0.0001, "time_share": 1 / 33, "residual_norm": 45.0 + 7 * index, "first_norm": 676.0,
        "output": _figures(5, HIDDEN, absmax=30.0 + 20 * index, nonfinite=3 if index == 29 else 0),
        "outlier_channels": 1 if index > 11 else 0, "other_seconds": 0.0001, "others": [],
        "mixer": _part(f"{at}.self_attn", "LlamaAttention", "attention", mixer, 0.12),
        "mlp": _part(f"{at}.mlp", "LlamaMLP", "mlp", mlp, 0.23),
    }  # fmt: skip


def _module_trace(name: str, class_name: str, own: float, depth: int) -> dict[str, Any]:
    return {
        "name": name, "class_name": class_name, "layer": None, "part": "other", "depth": depth, "calls": 1,
        "seconds": own * 2, "own_seconds": own, "output": _figures(5, HIDDEN),
    }  # fmt: skip


def _lens() -> dict[str, Any]:
    rows, positions = LAYERS + 1, len(WORDS)
    shares = [[[round(0.01 + 0.75 * row / rows * (position + 1) / positions, 4), 0.06, 0.02, 0.01, 0.005]
               for position in range(positions)] for row in range(rows)]  # fmt: skip
    return {
        "layers": list(range(-1, LAYERS)), "names": ["embedding", *(f"model.layers.{i}" for i in range(LAYERS))],
        "positions": list(range(positions)), "ids": [[[0, 1, 2, 3, 4]] * positions] * rows, "probabilities": shares,
        "entropy": [[2.21] * positions] * rows, "final_rank": [[rows - 1 - row] * positions for row in range(rows)],
        "texts": {str(i): text for i, text in enumerate(ANSWERS)}, "tied": True, "steps": ["model.norm", "lm_head"],
    }  # fmt: skip


def _channel(channel: int, layers: int, absmax: float, systematic: bool) -> dict[str, Any]:
    return {
        "channel": channel, "layers": layers, "layer_share": layers / LAYERS, "position_share": 0.6,
        "absmax": absmax, "systematic": systematic,
    }  # fmt: skip


TRACE: dict[str, Any] = {
    "prompt": "".join(WORDS), "tokens": [{"id": i, "text": text} for i, text in enumerate(WORDS)], "device": "cuda:0",
    "clock": "CUDA events", "forward_seconds": 0.0362, "trace_seconds": 0.4,
    "layers": [_layer_trace(i) for i in range(LAYERS)],
    "modules": [
        _module_trace("", "LlamaForCausalLM", 0.0, 0),
        _module_trace("model.embed_tokens", "Embedding", 0.0001, 1),
        *(_module_trace(f"model.layers.{i}.self_attn", "LlamaAttention", 0.0004, 3) for i in range(LAYERS)),
        *(_module_trace(f"model.layers.{i}.mlp", "LlamaMLP", 0.0006, 3) for i in range(LAYERS)),
    ],
    "mixer_time_share": 0.37, "mlp_time_share": 0.43, "head_time_share": 0.12, "other_time_share": 0.08,
    "lens": _lens(), "routing": [],
    "outliers": {
        "threshold": 6.0, "layer_share": 0.25, "position_share": 0.06, "width": HIDDEN, "systematic": 1,
        "inputs": [_channel(247, 11, 8.38, True), _channel(17, 3, 8.25, False)],
        "stream": [_channel(507, 30, 22400.0, False)],
    },
    "why": {"routing": "LlamaForCausalLM has no mixture of experts."},
    "notes": ["Time is that of the quickest of 3 passes."],
}  # fmt: skip

ROUTING = [
    {
        "layer": layer, "name": f"model.layers.{layer}.mlp.gate", "experts": 8, "per_token": 2, "tokens": 5,
        "counts": [0, 1, 2, 4, 1, 2, 0, 0], "imbalance": 1.02, "dead_share": 0.375, "confidence": 0.61,
        "entropy_share": 0.8,
    }
    for layer in range(4)
]  # fmt: skip


def _weights(head: int) -> str:
    """Head 0 looks at the first token, the others more and more at themselves."""
    count, cells = len(WORDS), []
    for query in range(count):
        row = [0.0] * count
        row[query] += min(1.0, head / 8)
        row[0] += 1 - min(1.0, head / 8)
        cells += [round(65535 * weight) for weight in row]
    return base64.b64encode(struct.pack(f"<{len(cells)}H", *cells)).decode()


def attention_reply(request: protocol.ReadAttention) -> list[protocol.Message]:
    """Nine heads of five tokens."""
    figures = [
        {
            "head": head, "entropy_share": 0.1 * head, "first": 1 - head / 8, "previous": 0.1, "itself": head / 8,
            "distance": 2.4,
        }
        for head in range(9)
    ]  # fmt: skip
    maps = {
        "layer": request.layer, "name": f"model.layers.{request.layer}.self_attn", "tokens": TRACE["tokens"],
        "queries": 5, "keys": 5, "num_attention_heads": 9, "num_key_value_heads": 3, "sliding_window": None,
        "figures": figures, "heads": [{"head": head, "data": _weights(head)} for head in range(9)], "note": "",
    }  # fmt: skip
    return [protocol.AttentionRead(_MODEL, maps)]


def trace_reply(request: protocol.TraceModel) -> list[protocol.Message]:
    """Progress, then the trace."""
    return [protocol.JobProgressed("figures", 12, 30, "layers"), protocol.ModelTraced(_MODEL, TRACE)]


_MODEL = protocol.ModelStatus(
    "smollm2-135m-instruct", "", "LlamaForCausalLM", "nf4", False, "bfloat16", "cuda:0", 110 * 2**20
)


# --- Embeddings ----------------------------------------------------------------------------------------------


def _table(table: str) -> dict[str, Any]:
    return {
        "table": table, "name": "model.embed_tokens", "rows": 49152, "width": HIDDEN, "dtype": "bfloat16",
        "tied": True, "note": "",
    }  # fmt: skip


def _word(text: str, number: int = 7042) -> dict[str, Any]:
    return {"text": text, "ids": [number], "tokens": [text], "norm": 2.2}


def nearest_reply(request: protocol.NearestTokens) -> list[protocol.Message]:
    """Three cities, whatever was asked."""
    cities = [(38634, "Paris", 0.8129), (4528, " London", 0.6106), (4649, " France", 0.5947)]
    found = [{"id": number, "text": text, "score": score, "norm": 2.1} for number, text, score in cities]
    return [
        protocol.NearestTokensFound(
            _MODEL,
            {
                "facts": _table(request.table), "query": _word(request.text or f"id {request.id}"),
                "measure": request.measure, "neighbours": found,
            },
        )
    ]  # fmt: skip


def compare_reply(request: protocol.CompareTokens) -> list[protocol.Message]:
    """The further apart in the list, the less alike."""
    size = range(len(request.texts))
    cosine = [[1.0 - 0.1 * abs(row - column) for column in size] for row in size]
    words = [_word(text, i) for i, text in enumerate(request.texts)]
    result = {"facts": _table(request.table), "words": words, "cosine": cosine, "background": 0.12}
    return [protocol.TokensCompared(_MODEL, result)]


def norms_reply(request: protocol.EmbeddingNorms) -> list[protocol.Message]:
    """A bell, and two tokens at either end."""
    return [
        protocol.EmbeddingNormsRead(
            _MODEL,
            {
                "facts": _table(request.table), "mean": 3.2, "std": 0.58, "least": 1.79, "median": 3.15,
                "largest": 7.49, "histogram": [1, 10, 60, 100, 60, 10, 1], "zeros": 2, "beyond": 0,
                "smallest": [{"id": 2322, "text": " John", "norm": 1.793, "deviations": -2.4}],
                "greatest": [{"id": 3427, "text": " strugg", "norm": 7.494, "deviations": 7.4}],
            },
        )
    ]  # fmt: skip


def map_reply(request: protocol.MapWords) -> list[protocol.Message]:
    """Words on a spiral; the last one's nearest is another on the map."""
    count = len(request.words)
    points = [
        {
            "word": _word(word, i), "x": 0.1 * i * math.cos(i), "y": 0.1 * i * math.sin(i),
            "nearest": (i + 1) % count, "nearest_on_map": 0 if i == count - 2 else (i + 1) % count,
        }
        for i, word in enumerate(request.words)
    ]  # fmt: skip
    result = {"facts": _table(request.table), "points": points, "explained": [0.25, 0.19], "hidden": 0.56}
    return [protocol.WordsMapped(_MODEL, result | {"misplaced": 1})]


# --- Designs -------------------------------------------------------------------------------------------------


def _field(key: str, label: str, group: str, kind: str, value: Any, step: float | None = 1) -> dict[str, Any]:
    return {
        "key": key, "label": label, "group": group, "kind": kind, "value": value, "original": value, "least": 1,
        "most": None, "step": step, "choices": [], "line": f"What {label} means.",
    }  # fmt: skip


FIELDS = [
    _field("num_hidden_layers", "layers", "size", "integer", 30),
    _field("hidden_size", "hidden size", "size", "integer", 576, 18),
    _field("hidden_act", "activation", "size", "choice", "silu", None) | {"choices": ["gelu", "silu", "relu"]},
    _field("num_attention_heads", "query heads", "attention", "integer", 9),
    _field("num_key_value_heads", "key/value heads", "attention", "integer", 3),
    _field("tie_word_embeddings", "tied embeddings", "vocabulary", "boolean", True, None),
    _field("rms_norm_eps", "norm epsilon", "other", "number", 1e-5, None) | {"least": 0},
]


def check_reply(request: protocol.CheckDesign) -> list[protocol.Message]:
    """Refuses key/value heads that do not divide the nine query heads."""
    fields = [field | {"value": request.changes.get(field["key"], field["value"])} for field in FIELDS]
    heads = request.changes.get("num_key_value_heads", 3)
    problems = []
    if 9 % heads:
        reason = f"num_key_value_heads is {heads}; it must be a divisor of the 9 attention heads."
        problems = [{"key": "num_key_value_heads", "value": heads, "reason": reason, "nearest": [3, 1]}]
    return [protocol.DesignChecked(problems, fields)]


def inspect_reply(request: protocol.InspectModel) -> list[protocol.Message]:
    """A skeleton in two steps; each layer of a design counts, whatever else is changed."""
    layers = request.changes.get("num_hidden_layers", LAYERS)
    total = 28312128 + layers * RUN["parameters"] // LAYERS
    parts = {"embedding": 28311552, "attention": layers * 884736, "mlp": layers * 2654208, "norm": 576 + layers * 1152}
    counts = {"total": total, "active": total, "by_component": parts}
    changed = {
        "model": request.model, "parameters": counts, "tree": TREE | {"bytes": 2 * total},
        "config": CONFIG | request.changes, "changed": sorted(request.changes),
        "compute": {"kv_bytes_per_token": 768 * layers, "kv_bytes": 768 * layers * 4096, "training_tokens": [2, 3, 4]},
    }  # fmt: skip
    return [protocol.JobProgressed("skeleton", 1, 2, "steps"), protocol.ModelInspected(INSPECTION | changed)]


def compared_reply(request: protocol.CompareModels) -> list[protocol.Message]:
    """Two that differ in their layers."""

    def pair(key: str, label: str, first: Any, second: Any) -> dict[str, Any]:
        return {"key": key, "label": label, "first": first, "second": second, "same": first == second}

    result = {
        "first": request.first, "second": request.second, "first_architecture": "LlamaForCausalLM",
        "second_architecture": "LlamaForCausalLM", "same": False,
        "counts": [pair("total", "parameters", 134515008, 8030261248)],
        "facts": [pair("kind", "kind", "decoder", "decoder")],
        "config": [pair("num_hidden_layers", "layers", 30, request.second_changes.get("num_hidden_layers", 32))],
        "shapes": [pair("model.norm.weight", "model.norm.weight", [576], [4096])],
        "only_first": [], "only_second": ["model.layers.*.self_attn.q_norm"],
    }  # fmt: skip
    return [protocol.ModelsCompared(result)]


FAMILIES = [
    {"name": "family:llama", "label": "Llama", "line": "The plain decoder."},
    {"name": "family:mamba", "label": "Mamba", "line": "A state space."},
]


PRESETS = [
    {"name": "all-linear", "line": "Every linear layer.", "targets": ["all-linear"], "target_parameters": []},
    {"name": "attention", "line": "All of attention.", "targets": ["q_proj", "v_proj"], "target_parameters": []},
]


def adapter_reply(request: protocol.CountAdapter) -> list[protocol.Message]:
    """Query and value projections of the layers asked for."""
    plan = request.lora
    if plan.get("regex") == "nothing":
        return [protocol.Failed("bad-lora", "Nothing matches 'nothing'.", "Name modules that are there.")]
    layers = plan.get("layers") or list(range(LAYERS))
    rank = plan["r"]
    each = [("q_proj", 576), ("v_proj", 192)]
    targets = [
        {
            "name": name, "component": "attention", "modules": len(layers), "in_features": HIDDEN,
            "out_features": out, "rank": rank, "experts": 1, "parameters": len(layers) * rank * (HIDDEN + out),
        }
        for name, out in each
    ]  # fmt: skip
    trainable = sum(target["parameters"] for target in targets)
    result = {
        "trainable": trainable, "base": 134515008, "share": trainable / (trainable + 134515008),
        "adapter_bytes": 4 * trainable, "scaling": plan["alpha"] / rank, "by_component": {"attention": trainable},
        "targets": targets, "saved": {}, "biases": 0, "notes": ["A note."],
        "matched": [f"model.layers.{layer}.self_attn.{name}" for layer in layers for name, _ in each],
    }  # fmt: skip
    return [protocol.AdapterCounted(result, PRESETS)]


def scripts(model: protocol.ModelStatus) -> dict[type[protocol.Request], Any]:
    """The answers to every request of the architecture bench, while this model is loaded."""
    return {
        protocol.InspectModel: inspect_reply,
        protocol.CheckDesign: check_reply,
        protocol.ListFamilies: lambda request: [protocol.FamiliesListed(FAMILIES)],
        protocol.SaveDesign: lambda request: [protocol.DesignSaved(f"{request.path}/config.json")],
        protocol.CompareModels: compared_reply,
        protocol.CountAdapter: adapter_reply,
        protocol.InspectLoaded: lambda request: [protocol.LoadedInspected(model, LIVE)],
        protocol.TraceModel: trace_reply,
        protocol.ReadAttention: attention_reply,
        protocol.NearestTokens: nearest_reply,
        protocol.CompareTokens: compare_reply,
        protocol.EmbeddingNorms: norms_reply,
        protocol.MapWords: map_reply,
    }
