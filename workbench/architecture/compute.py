"""What running and training a model costs in arithmetic and in memory traffic. Stdlib only.

Rules: a forward pass is two operations (multiply, add) for each weight of a matrix at work on the token, and
4·n·d for each attention layer whose queries are d wide and see n tokens; training is three forward passes, 6·N·D in
all (Kaplan et al. 2020, arXiv:2001.08361, section 2.1). Decoding one sequence reads every active weight and the whole
KV cache for each token, so memory bandwidth bounds it (Pope et al. 2022, arXiv:2211.05102). About 20 training tokens
for each parameter balance size and data at a given budget (Hoffmann et al. 2022, arXiv:2203.15556; refitted by
Besiroglu et al. 2024, arXiv:2404.10102). None of these is a measurement: all are rounded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

from workbench.architecture import config as reading
from workbench.architecture.config import experts_per_token, text_config
from workbench.architecture.count import Classifier, ParameterCounts
from workbench.architecture.kv_widths import ATTENDING_KINDS, cache_layers, key_value_widths
from workbench.architecture.skeleton import DTYPE_BYTES, Skeleton
from workbench.models.gpus import Gpu, catalogue, parse_gpu

COMMON_GPUS = ("T4", "RTX 3090", "RTX 4090", "RTX 5090", "L40S", "A100 SXM 80GB", "H100 SXM 80GB", "H200", "B200")
MAX_CONTEXT = 10**9
_OTHER_SENSES = re.compile(r"(^|[._])(vision|audio|visual|multi_modal_projector|image_newline)")
_ENCODER = re.compile(r"(^|\.)encoder\.")
TOKENS_PER_PARAMETER = (15, 20, 25)
"""Low, usual and high; the spread of published fits is wider than that of any one of them."""


@dataclass(frozen=True)
class GpuBound:
    """The most that one GPU's data sheet allows, with nothing else in the way."""

    gpu: str
    tokens_per_second: Optional[int]
    """Decoding one sequence, bound by memory bandwidth; two digits."""
    prefill_tokens_per_second: Optional[int]
    """Reading a prompt, bound by dense 16-bit arithmetic; two digits."""
    balance: Optional[int]
    """Operations for each byte read at which arithmetic and memory take equally long."""
    fits: bool
    """Whether weights and cache fit into its memory at all."""


@dataclass(frozen=True)
class ComputeFigures:
    """Rounded to three digits, which is more than the rules are worth."""

    context: int
    prefill_flops_per_token: int
    """Averaged over a prompt of `context` tokens."""
    decode_flops_per_token: Optional[int]
    """With `context` tokens in the cache; None for an encoder."""
    attention_share: float
    """Part of a prompt's operations that grows with its length."""
    weights_bytes_per_token: int
    """Weights at work on one token, in the load dtype."""
    kv_bytes_per_token: int
    """Growth of the cache for each token below every sliding window."""
    kv_bytes: int
    """Of one sequence of `context` tokens."""
    kv_bytes_without_sharing: int
    """The same if every query head had a key and a value of its own and no layer slid."""
    prefill_intensity: float
    """Operations for each byte of weights, over a prompt of `context` tokens."""
    decode_intensity: Optional[float]
    """Operations for each byte of weights and cache, decoding one sequence."""
    bounds: tuple[GpuBound, ...]
    training_tokens: tuple[int, int, int]
    """Low, usual and high number of tokens that suit this size; two digits. For a mixture of experts, of which the
    rule says nothing, they reach from its active to all its parameters."""
    training_flops: int
    """Of the usual number; two digits."""


def compute_figures(skeleton: Skeleton, counts: ParameterCounts, context: int = 4096, gpu: str = "") -> ComputeFigures:
    """The figures of one sequence of `context` tokens, on `gpu` or on some well-known ones.

    Raises:
        WorkbenchError: ``unknown-gpu``, ``ambiguous-gpu`` or ``bad-size`` for a `gpu` that means nothing.
    """
    context = max(1, min(int(context), MAX_CONTEXT))
    reading_weights, writing_weights = _working_parameters(skeleton)
    item = DTYPE_BYTES[skeleton.dtype]
    widths = _query_widths(skeleton)
    decodes = bool(cache_layers(skeleton))
    visible = [(width, min(context, window or context)) for width, window in widths]
    prefill_attention = sum(4 * width * _mean_visible(context, seen, decodes) for width, seen in visible)
    decode_attention = sum(4 * width * seen for width, seen in visible)
    kv_bytes = sum(
        item * width * min(context, layer.window or context)
        for layer, width in zip(cache_layers(skeleton), key_value_widths(skeleton))
    )
    weights = writing_weights * item
    prefill, decode = 2 * reading_weights + prefill_attention, 2 * writing_weights + decode_attention
    # Everything that takes part is read once for the whole prompt: also experts that one token does not use.
    read_at_prefill = counts.total * item
    low, usual, high = TOKENS_PER_PARAMETER
    dense = counts.active == counts.total
    tokens = (counts.active * low, counts.active * usual, counts.total * (high if dense else usual))
    return ComputeFigures(
        context=context,
        prefill_flops_per_token=_rounded(prefill, 3),
        decode_flops_per_token=_rounded(decode, 3) if decodes else None,
        attention_share=round(prefill_attention / prefill, 3) if prefill else 0.0,
        weights_bytes_per_token=weights,
        kv_bytes_per_token=sum(key_value_widths(skeleton)) * item,
        kv_bytes=kv_bytes,
        kv_bytes_without_sharing=item * context * sum(2 * width for width, _ in widths) if decodes else 0,
        prefill_intensity=_digits(prefill * context / read_at_prefill, 2) if read_at_prefill else 0.0,
        decode_intensity=_digits(decode / (weights + kv_bytes), 2) if decodes and weights else None,
        bounds=tuple(
            _bound(one, decodes, weights + kv_bytes, prefill, counts.total * item + kv_bytes) for one in _gpus(gpu)
        ),
        training_tokens=(_rounded(tokens[0], 2), _rounded(tokens[1], 2), _rounded(tokens[2], 2)),
        training_flops=_rounded(6 * counts.active * tokens[1], 2),
    )


def _working_parameters(skeleton: Skeleton) -> tuple[int, int]:
    """Parameters that a token of the prompt, and one that is generated, is multiplied with.

    The input embedding is looked up, which is no arithmetic; a tied head is multiplied with. Images and sound have
    towers of their own; in an encoder-decoder the prompt goes through the encoder and the answer through the decoder.
    """
    classify = Classifier(skeleton)
    chosen = experts_per_token(text_config(skeleton.config))
    head = {entry.tied_to or entry.name for entry in skeleton.parameters if entry.module == skeleton.output_embeddings}
    both = skeleton.config.get("is_encoder_decoder") is True
    prompt = answer = 0
    for entry in skeleton.unique_parameters:
        is_head = entry.name in head
        if (entry.name in classify.input_embedding and not is_head) or _OTHER_SENSES.search(entry.name):
            continue
        numel = entry.numel
        if chosen and classify.component(entry) == "experts":
            numel = numel * chosen // classify.experts_of(entry)
        in_encoder = both and _ENCODER.search(entry.name) is not None
        prompt += numel if in_encoder or not both else 0
        answer += numel if not in_encoder else 0
    return prompt, answer


def _query_widths(skeleton: Skeleton) -> list[tuple[int, Optional[int]]]:
    """Width of all queries and the window of each layer that attends."""
    config = reading.text_config(skeleton.config)
    width = (reading.num_attention_heads(config) or 0) * (reading.head_dim(config) or 0)
    layers = cache_layers(skeleton)
    if layers:
        return [(width, layer.window) for layer in layers if layer.kind in ATTENDING_KINDS]
    attends = any("Attention" in module.class_name for module in skeleton.modules)
    return [(width, None)] * (reading.num_hidden_layers(config) or 0) if attends else []


def _mean_visible(context: int, seen: int, causal: bool) -> float:
    """Tokens that a token of a prompt sees on average, in a window of `seen`."""
    if not causal:
        return context
    growing = min(seen, context)
    return (growing * (growing + 1) / 2 + (context - growing) * growing) / context


def _gpus(name: str) -> Iterable[Gpu]:
    if name:
        return [parse_gpu(name)]
    known = {gpu.name: gpu for gpu in catalogue()}
    return [known[gpu] for gpu in COMMON_GPUS if gpu in known]


def _bound(gpu: Gpu, decodes: bool, read_bytes: int, flops: float, held_bytes: int) -> GpuBound:
    bandwidth, tflops = gpu.bandwidth_bytes_per_second, gpu.dense_tflops
    return GpuBound(
        gpu=gpu.name,
        tokens_per_second=_rounded(bandwidth / read_bytes, 2) if bandwidth and decodes and read_bytes else None,
        prefill_tokens_per_second=_rounded(tflops * 1e12 / flops, 2) if tflops and flops else None,
        balance=_rounded(tflops * 1e12 / bandwidth, 2) if tflops and bandwidth else None,
        fits=held_bytes <= gpu.capacity_bytes,
    )


def _rounded(value: float, digits: int) -> int:
    return int(_digits(value, digits))


def _digits(value: float, digits: int) -> float:
    if not value:
        return 0.0
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))
