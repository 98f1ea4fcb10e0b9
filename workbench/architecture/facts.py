"""What a practitioner asks of an architecture, each with a line that explains it for this model. Stdlib only.

The longer texts are in ``facts.toml``.
"""

from __future__ import annotations

import functools
import importlib.resources
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

from workbench import toml
from workbench.architecture import config as reading
from workbench.architecture.compute import ComputeFigures
from workbench.architecture.count import COMPONENTS, ParameterCounts
from workbench.architecture.describe import ArchitectureFacts, rotary_share
from workbench.architecture.diagram import PARALLEL, POST, POST_INSIDE, PRE, SANDWICH, Stage
from workbench.architecture.files import ModelFiles
from workbench.architecture.kv_widths import ATTENDING_KINDS, cache_layers
from workbench.architecture.skeleton import DTYPE_BYTES, Skeleton
from workbench.text import format_bytes, format_count

_PLACES = {
    PRE: ("before", "before attention and before the feed-forward layer; the residual stream itself is never normed"),
    POST: ("after", "after each addition, so that the residual stream itself is normed (post-norm)"),
    POST_INSIDE: ("on outputs", "on the output of each part, before it is added"),
    SANDWICH: ("before and after", "before and after each part, so that what is added is normed too (sandwich)"),
    PARALLEL: ("parallel", "once for attention and feed-forward, which run side by side and are added together"),
}
_STATE_NAMES = {
    "linear_attention": "linear attention",
    "mamba": "Mamba",
    "mamba2": "Mamba 2",
    "conv": "short convolution",
    "recurrent": "recurrent",
    "hybrid": "attention and state space side by side",
}
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Fact:
    """One fact."""

    key: str
    label: str
    value: Any
    """As JSON: a number, a name, or an object of them."""
    chip: str
    """A few words for a narrow place."""
    line: str
    """What it means for this model, in one line."""
    text: str
    """What it means at all, some paragraphs."""
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Subject:
    """Everything the facts are read off."""

    skeleton: Skeleton
    counts: ParameterCounts
    facts: ArchitectureFacts
    figures: ComputeFigures
    stages: tuple[Stage, ...]
    files: Optional[ModelFiles] = None

    @property
    def config(self) -> dict[str, Any]:
        """The language model's part of the config."""
        return reading.text_config(self.skeleton.config)


def explain(subject: Subject) -> list[Fact]:
    """The facts that this model has, the most asked for first."""
    texts = _texts()
    found = []
    for key, describe in _FACTS.items():
        for value, chip, line in describe(subject):
            text = texts[key]
            found.append(Fact(key, text["label"], value, chip, line, text["text"].strip(), tuple(text["sources"])))
    return found


@functools.lru_cache(maxsize=1)
def _texts() -> dict[str, dict[str, Any]]:
    source = importlib.resources.files("workbench.architecture").joinpath("facts.toml")
    return toml.loads(source.read_text(encoding="utf-8"), "facts.toml")


_Found = Iterator[tuple[Any, str, str]]


def _parameters(subject: Subject) -> _Found:
    counts = subject.counts
    shares = [
        f"{name.replace('_', ' ')} {counts.by_component[name] / counts.total:.0%}"
        for name in COMPONENTS
        if counts.total and counts.by_component[name] / counts.total >= 0.005
    ]
    active = ""
    if counts.active != counts.total:
        active = f"{counts.active:,} of them ({counts.active / counts.total:.0%}) work on one token; "
    chip = format_count(counts.total) + (
        f", {format_count(counts.active)} active" if counts.active != counts.total else ""
    )
    yield counts.total, chip, f"{counts.total:,} parameters; {active}{', '.join(shares)}."


def _kind(subject: Subject) -> _Found:
    kind = subject.facts.kind
    lines = {
        "decoder": "Writes one token after the other, each from those before it.",
        "encoder": "Reads a whole text at once and gives each token a vector; it does not write.",
        "encoder-decoder": "Reads the prompt with an encoder, writes with a decoder that looks at the result.",
    }
    yield kind, kind, lines.get(kind, "")


def _layers(subject: Subject) -> _Found:
    layers, width = subject.facts.num_hidden_layers, subject.facts.hidden_size
    if not layers or not width:
        return
    ratio = width / layers
    shape = "deep and narrow" if ratio < 40 else "wide and shallow" if ratio > 170 else "of usual proportions"
    per_layer = max((layer.parameters for layer in subject.counts.per_layer), default=0)
    line = f"A vector of {width:,} numbers runs through {layers} layers: {shape} (width ÷ depth {ratio:.0f})."
    if per_layer:
        line += f" The largest layer has {format_count(per_layer)} parameters."
    yield {"num_hidden_layers": layers, "hidden_size": width}, f"{layers} × {width:,}", line


def _attention(subject: Subject) -> _Found:
    facts, figures = subject.facts, subject.figures
    heads, kv, size = facts.num_attention_heads, facts.num_key_value_heads, facts.head_dim
    if facts.attention_kind == "none" or not heads:
        return
    kind = facts.attention_kind
    value = {"kind": kind, "num_attention_heads": heads, "num_key_value_heads": kv, "head_dim": size}
    if kind == "MLA":
        kept = (subject.config.get("kv_lora_rank") or 0) + (subject.config.get("qk_rope_head_dim") or 0)
        saved = _ratio(figures.kv_bytes_without_sharing, figures.kv_bytes)
        line = f"{heads} heads, whose keys and values are kept as one vector of {kept} numbers for each token and layer"
        yield value, f"MLA {heads} heads", f"{line}: {saved} smaller than with heads of their own."
    elif kind == "MHA" or not kv:
        size_text = f" of {size}" if size else ""
        yield value, f"MHA {heads}", f"Each of {heads} query heads{size_text} has a key and a value of its own."
    else:
        line = f"{heads} query heads share {kv} key/value head{'s' if kv > 1 else ''} of {size}"
        saving = f"the KV cache is {_times(heads / kv)} smaller than with one for each query head"
        yield value, f"{kind} {heads}:{kv}", f"{line}: {saving}."


def _kv_cache(subject: Subject) -> _Found:
    figures, context = subject.figures, subject.facts.context_length
    if not figures.kv_bytes_per_token:
        return
    each = format_bytes(figures.kv_bytes_per_token)
    line = f"{each} for each token in {subject.facts.dtype}; {format_bytes(figures.kv_bytes)} at {figures.context:,}"
    if context and context > figures.context and not subject.facts.sliding_window:
        line += f", {format_bytes(figures.kv_bytes_per_token * context)} at the full {context:,}"
    if subject.facts.sliding_window:
        line += ", where sliding layers have stopped growing" if figures.context > subject.facts.sliding_window else ""
    yield figures.kv_bytes_per_token, f"{each}/token", line + "."


def _window(subject: Subject) -> _Found:
    window = subject.facts.sliding_window
    kinds = [layer.kind for layer in cache_layers(subject.skeleton)]
    if not kinds:
        kinds = reading.layer_types(subject.config) or []
    sliding = sum(kind in ("sliding_attention", "chunked_attention") for kind in kinds)
    if not window or not sliding:
        return
    full = [number for number, kind in enumerate(kinds) if kind == "full_attention"]
    value = {"window": window, "sliding_layers": sliding, "layers": len(kinds), "full_layers": full}
    what = "chunked" if "chunked_attention" in kinds else "sliding"
    if sliding == len(kinds):
        yield value, f"{what} {window:,}", f"All {sliding} layers see the last {window:,} tokens only."
        return
    rest = f"{len(full)} see everything" if full else "the others keep a state"
    which = f" (layers {_numbers(full)})" if full else ""
    line = f"{sliding} of {len(kinds)} layers see the last {window:,} tokens, {rest}{which}."
    yield value, f"{sliding} of {len(kinds)} {what} {window:,}", line


def _recurrence(subject: Subject) -> _Found:
    kinds = Counter(layer.kind for layer in cache_layers(subject.skeleton))
    states = {kind: count for kind, count in kinds.items() if kind not in ATTENDING_KINDS or kind == "hybrid"}
    states.pop("dummy", None)
    if not states:
        return
    total = sum(kinds.values())
    named = ", ".join(f"{count} {_state_name(subject, kind)}" for kind, count in states.items())
    count = sum(states.values())
    if count == total:
        line = f"All {total} layers keep a state of fixed size ({named}): memory does not grow with the text."
    else:
        line = f"{count} of {total} layers keep a state of fixed size ({named}); only the others have a growing cache."
    yield dict(states), named if count < total else _state_name(subject, next(iter(states))), line


def _state_name(subject: Subject, kind: str) -> str:
    if kind == "linear_attention" and "mamba" in subject.skeleton.model_type:
        return "state space"
    return _STATE_NAMES.get(kind, kind.replace("_", " "))


def _experts(subject: Subject) -> _Found:
    facts, counts = subject.facts, subject.counts
    if not facts.experts:
        return
    chosen = facts.experts_per_token
    share = counts.by_component["experts"] / counts.total if counts.total else 0
    with_experts = sum(stage.repeat for stage in subject.stages for block in stage.blocks if block.kind == "experts")
    value = {
        "experts": facts.experts,
        "experts_per_token": chosen,
        "shared_experts": facts.shared_experts,
        "layers_with_experts": with_experts or None,
        "active": counts.active,
    }
    where = f" in {with_experts} of {facts.num_hidden_layers} layers" if with_experts else ""
    shared = f" and {facts.shared_experts} that always works" if facts.shared_experts == 1 else ""
    if (facts.shared_experts or 0) > 1:
        shared = f" and {facts.shared_experts} that always work"
    line = f"{chosen or '?'} of {facts.experts} experts{shared} for each token{where}: {counts.active:,} parameters at "
    line += f"work, all {format_count(counts.total)} in memory (experts are {share:.0%})."
    yield value, f"{chosen or '?'} of {facts.experts} experts", line


def _feed_forward(subject: Subject) -> _Found:
    facts, config = subject.facts, subject.config
    inner, width = facts.intermediate_size, facts.hidden_size
    kinds = {block.kind for stage in subject.stages for block in stage.blocks}
    if facts.activation == "unknown" or not inner or not width or not kinds & {"mlp", "experts"}:
        return
    where = ""
    if facts.experts:
        inner = reading.first_int(config, ("moe_intermediate_size",)) or inner
        where = " in each expert"
    gated = "GLU" in facts.activation or "gated" in facts.activation
    form = "three matrices, one of them a gate" if gated else "two matrices"
    line = (
        f"{facts.activation}, {form}{where}: {width:,} → {inner:,} → {width:,}, {_times(inner / width)} as wide inside."
    )
    yield {"activation": facts.activation, "intermediate_size": inner, "gated": gated}, facts.activation, line


def _norm(subject: Subject) -> _Found:
    if subject.facts.norm == "none":
        return
    layers = [stage for stage in subject.stages if stage.path and stage.norm_place in _PLACES]
    # The language model's layers are the last stack.
    place = max(layers, key=lambda stage: stage.repeat).norm_place if layers else ""
    short, long = _PLACES.get(place, ("", ""))
    if place == PRE and subject.facts.attention_kind == "none":
        long = "before each layer's mixing; the residual stream itself is never normed"
    value = {"kind": subject.facts.norm, "place": place or None}
    yield value, f"{subject.facts.norm} {short}".strip(), f"{subject.facts.norm} {long}.".replace(" .", ".")


def _position(subject: Subject) -> _Found:
    position, config = subject.facts.position, subject.config
    if position == "none":
        if subject.facts.attention_kind != "none":
            yield position, "no positions", "No position encoding: order is known from the causal mask alone."
        return
    line = {
        "ALiBi": "A penalty on attention that grows with distance; no position vectors.",
        "learned": f"A learned vector for each of {_count(subject.facts.context_length)} positions, and none beyond.",
        "sinusoidal": "Fixed sine waves, added to the embedding.",
    }.get(position, "")
    if position.startswith("relative"):
        line = "A learned bias for each distance, in buckets that widen with it."
    if position.startswith("RoPE") or "RoPE" in position:
        line = _rope_line(config, subject.facts.context_length)
    chip = position if len(position) <= 40 else "RoPE, two kinds"
    yield position, chip, line or position


def _rope_line(config: dict[str, Any], context: Optional[int]) -> str:
    parameters = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kinds = {key: value for key, value in parameters.items() if isinstance(value, dict)}
    if kinds:
        parts = [f"{name.replace('_', ' ')} θ {_theta(config, one)}" for name, one in kinds.items()]
        return f"Queries and keys turn with position, at different speeds by kind of layer: {'; '.join(parts)}."
    kind = str(parameters.get("rope_type", parameters.get("type", "default")))
    line = f"Queries and keys turn with position, base θ {_theta(config, parameters)}"
    original = parameters.get("original_max_position_embeddings")
    factor = parameters.get("factor")
    if kind != "default":
        line += f"; stretched by {kind}" + (f" ×{factor:g}" if isinstance(factor, (int, float)) else "")
        if isinstance(original, int) and context:
            line += f" from {original:,} to {context:,} positions"
    section = config.get("attn_config")
    stated = section.get("rope_theta") if isinstance(section, dict) else None
    if isinstance(stated, (int, float)) and stated != parameters.get("rope_theta", stated):
        line += f"; the config states {stated:,.0f} under attn_config, which transformers does not use"
    partial = rotary_share(config, parameters)
    if partial is not None:
        line += f"; only {partial:.0%} of each head turns"
    return line + "."


def _theta(config: dict[str, Any], parameters: dict[str, Any]) -> str:
    theta = parameters.get("rope_theta", config.get("rope_theta"))
    return f"{theta:,.0f}" if isinstance(theta, (int, float)) else "by default"


def _context(subject: Subject) -> _Found:
    length = subject.facts.context_length
    if length:
        pages = length * 0.75 / 500
        size = f"about {pages:,.0f} pages of English" if pages >= 1.5 else "about a page of English"
        yield length, f"{_short(length)} context", f"Made for {length:,} tokens, {size}."


def _vocabulary(subject: Subject) -> _Found:
    size, counts = subject.facts.vocab_size, subject.counts
    if not size:
        return
    share = (counts.by_component["embedding"] + counts.by_component["lm_head"]) / counts.total if counts.total else 0
    odd = "" if size % 64 == 0 else " Not a multiple of 64, which makes the last matrix product slower."
    line = f"{size:,} tokens; embedding and head are {share:.0%} of all parameters.{odd}"
    yield size, f"{format_count(size)} tokens", line


def _tying(subject: Subject) -> _Found:
    facts = subject.facts
    if facts.kind == "encoder" or not subject.skeleton.output_embeddings:
        return
    each = (facts.vocab_size or 0) * (facts.hidden_size or 0)
    if facts.tied_embeddings:
        line = f"Embedding and LM head are one matrix, which saves {format_count(each)} parameters."
        yield True, "tied", line
    else:
        yield False, "untied", f"Embedding and LM head are two matrices of about {format_count(each)} parameters each."


def _stabilisers(subject: Subject) -> _Found:
    config, names = subject.config, {module.name.rpartition(".")[2] for module in subject.skeleton.modules}
    found = {}
    if names & {"q_norm", "q_layernorm", "query_layernorm", "q_ln"}:
        found["qk_norm"] = "a norm on queries and keys"
    for key, name in (("attn_logit_softcapping", "attention scores"), ("final_logit_softcapping", "final logits")):
        if isinstance(config.get(key), (int, float)):
            found[key] = f"{name} capped at ±{config[key]:g}"
    if any(entry.name.endswith(".sinks") for entry in subject.skeleton.parameters):
        found["sinks"] = "learned attention sinks"
    if found:
        chip = "QK-norm" if "qk_norm" in found else "soft-capping" if "sinks" not in found else "attention sinks"
        listed = "; ".join(found.values())
        yield sorted(found), chip, listed[0].upper() + listed[1:] + "."


def _cross_attention(subject: Subject) -> _Found:
    if subject.facts.cross_attention:
        layers = reading.num_hidden_layers(subject.skeleton.config)
        who = f"Each of {layers} decoder layers looks" if layers else "The decoder's layers look"
        line = f"{who} at the encoder's output, computed once for a prompt."
        yield True, "cross-attention", line


def _dtype(subject: Subject) -> _Found:
    dtype = subject.facts.dtype
    follows = sum(entry.numel for entry in subject.skeleton.unique_parameters if entry.follows_load_dtype)
    size = sum(entry.numel * DTYPE_BYTES[entry.dtype] for entry in subject.skeleton.unique_parameters)
    fixed = subject.counts.total - follows
    line = f"Weights take {format_bytes(size)} in {dtype}"
    line += f"; {format_count(fixed)} parameters keep another dtype." if fixed else "."
    yield dtype, dtype, line


def _files(subject: Subject) -> _Found:
    if subject.files is None:
        return
    kinds = Counter(file.kind for file in subject.files.files)
    code = kinds["code"]
    weights = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if kind != "code")
    listed = f"{weights} ({format_bytes(subject.files.size_bytes)})" if weights else "No weights"
    beside = f", {code} file{'s' if code > 1 else ''} of code" if code else ""
    line = f"{listed}{beside}." + "".join(f" {note}" for note in subject.files.notes)
    chip = "pickle" if subject.files.pickle else next((kind for kind in kinds if kind != "code"), "no weights")
    yield dict(kinds), chip, line


def _stored_types(subject: Subject) -> _Found:
    if subject.files is None or not subject.files.types:
        return
    types = subject.files.types
    total = sum(share.bytes for share in types) or 1
    elements = sum(share.elements for share in types) or 1
    parts = [f"{share.type} {share.bytes / total:.0%} in {share.tensors:,} tensors" for share in types[:4]]
    bits = 8 * total / elements
    more = f" and {len(types) - 4} more types" if len(types) > 4 else ""
    line = f"{'; '.join(parts)}{more}: {bits:.2f} bits per weight."
    yield {share.type: share.tensors for share in types}, f"{types[0].type}, {bits:.1f} bits", line


def _flops(subject: Subject) -> _Found:
    figures = subject.figures
    prefill, decode = figures.prefill_flops_per_token, figures.decode_flops_per_token
    line = f"About {_power(prefill)} FLOPs for each token of a prompt of {figures.context:,}"
    if decode:
        line += f", {_power(decode)} to write one after it"
    if figures.attention_share >= 0.005:
        line += f"; {figures.attention_share:.0%} of the prompt's is attention to other tokens, which grows with length"
    value = {"prefill": prefill, "decode": decode, "context": figures.context}
    yield value, f"{_power(prefill)} FLOPs/token", line + "."


def _bandwidth(subject: Subject) -> _Found:
    figures = subject.figures
    bounds = [bound for bound in figures.bounds if bound.tokens_per_second]
    if not bounds or figures.decode_intensity is None:
        return
    fitting = [bound for bound in bounds if bound.fits] or bounds
    shown = fitting if len(bounds) == 1 else fitting[:3]
    each = format_bytes(figures.weights_bytes_per_token + figures.kv_bytes)
    limits = ", ".join(f"{bound.tokens_per_second:,} tokens/s on {bound.gpu}" for bound in shown)
    missing = "" if any(bound.fits for bound in bounds) else " (none of which holds it whole)"
    line = f"Writing reads {each} for each token in {subject.facts.dtype} ({figures.decode_intensity:g} FLOPs for each "
    line += f"byte): at most {limits}"
    value = {bound.gpu: bound.tokens_per_second for bound in bounds}
    yield value, f"≤ {shown[0].tokens_per_second:,} tok/s {shown[0].gpu}", f"{line}{missing}."


def _training(subject: Subject) -> _Found:
    low, usual, high = subject.figures.training_tokens
    flops = subject.figures.training_flops
    if not usual or subject.facts.kind == "encoder":
        return
    chip = f"{_two_digits(usual)} tokens"
    value = {"tokens": [low, usual, high], "flops": flops}
    if subject.counts.active != subject.counts.total:
        line = f"For its active parameters about {_two_digits(usual)} tokens ({_power(flops)} FLOPs), for all of them "
        line += f"{_two_digits(high)}: for mixtures there is no settled rule."
    else:
        line = f"Compute-optimal at about {_two_digits(usual)} tokens ({_two_digits(low)} to {_two_digits(high)}), "
        line += f"{_power(flops)} FLOPs; models made to be used a lot see far more."
    yield value, chip, line


def _ratio(large: int, small: int) -> str:
    return _times(large / small) if small else "much"


def _times(ratio: float) -> str:
    return f"{ratio:.0f}×" if ratio >= 10 or abs(ratio - round(ratio)) < 0.05 else f"{ratio:.1f}×"


def _power(value: float) -> str:
    """``1.6×10¹⁰``."""
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def _two_digits(count: int) -> str:
    """``160 B``, ``2.5 T``: what is known to two digits shows no third."""
    number, _, suffix = format_count(count).partition(" ")
    return f"{float(number):g} {suffix}" if suffix else number


def _short(length: int) -> str:
    if length % 2**20 == 0:
        return f"{length // 2**20}M"
    return f"{length // 1024}k" if length % 1024 == 0 else f"{length:,}"


def _count(value: Optional[int]) -> str:
    return f"{value:,}" if value else "all"


def _numbers(numbers: list[int]) -> str:
    """``5, 11, 17 …``; a regular series by its step."""
    if len(numbers) > 3:
        steps = {after - before for before, after in zip(numbers, numbers[1:])}
        if len(steps) == 1:
            return f"{numbers[0]}, {numbers[1]} … {numbers[-1]}"
        return ", ".join(map(str, numbers[:4])) + (" …" if len(numbers) > 4 else "")
    return ", ".join(map(str, numbers))


_FACTS = {
    "parameters": _parameters,
    "kind": _kind,
    "layers": _layers,
    "attention": _attention,
    "kv_cache": _kv_cache,
    "window": _window,
    "recurrence": _recurrence,
    "experts": _experts,
    "feed_forward": _feed_forward,
    "norm": _norm,
    "position": _position,
    "context": _context,
    "vocabulary": _vocabulary,
    "tying": _tying,
    "stabilisers": _stabilisers,
    "cross_attention": _cross_attention,
    "dtype": _dtype,
    "files": _files,
    "stored_types": _stored_types,
    "flops": _flops,
    "bandwidth": _bandwidth,
    "training": _training,
}
