"""What one run through the loaded model showed: plain data, whatever the family. Stdlib only.

Shapes leave the batch out, which is one prompt. A figure that a family does not have is None, and `why` beside it
says so in one line.
"""

from __future__ import annotations

import array
import base64
import sys
from dataclasses import dataclass, field
from typing import Optional

WEIGHT_SCALE = 65_535
"""An attention weight of 1 as `HeadWeights` stores it."""


@dataclass(frozen=True)
class TracedToken:
    """A token of the prompt."""

    id: int
    text: str


@dataclass(frozen=True)
class TensorFigures:
    """A tensor in figures.

    Attributes:
        shape: without the batch, such as ``[tokens, hidden]``.
        dtype: such as ``bfloat16``.
        mean: of the finite values, as `std` and `absmax`; None if there are none.
        std: standard deviation over all values, not of a sample.
        absmax: largest magnitude.
        nonfinite: how many values are NaN or infinite.
    """

    shape: tuple[int, ...]
    dtype: str
    mean: Optional[float]
    std: Optional[float]
    absmax: Optional[float]
    nonfinite: int


@dataclass(frozen=True)
class ModuleTrace:
    """One module of the model in the run.

    Attributes:
        name: dotted, as in the module tree.
        class_name: as it stands in the worker, such as ``Linear4bit``.
        layer: index of the layer it belongs to; None outside the layers.
        part: ``layer``, ``mixer``, ``mlp``, ``norm``, ``router``, ``embedding``, ``head`` or ``other``.
        depth: how many dots its name has.
        calls: how often it ran; 0 for one that this prompt did not reach.
        seconds: of all its calls, what it calls included.
        own_seconds: the same without the modules below it.
        output: its last output; None if that is no tensor.
    """

    name: str
    class_name: str
    layer: Optional[int]
    part: str
    depth: int
    calls: int
    seconds: float
    own_seconds: float
    output: Optional[TensorFigures]


@dataclass(frozen=True)
class PartTrace:
    """The token mixer or the MLP of a layer.

    Attributes:
        name: dotted name of the module.
        class_name: its class.
        kind: ``attention``, ``cross-attention``, ``linear attention``, ``state space``, ``convolution``, ``mlp`` or
            ``experts``.
        seconds: time inside it.
        time_share: of the layer's time, 0 to 1.
        contribution_norm: L2 norm of what it adds to the residual stream, mean over positions; None where the family
            adds something else than its output.
        contribution_share: `contribution_norm` by the norm of the residual stream that enters the layer.
    """

    name: str
    class_name: str
    kind: str
    seconds: float
    time_share: float
    contribution_norm: Optional[float]
    contribution_share: Optional[float]


@dataclass(frozen=True)
class LayerTrace:
    """One layer of the run.

    Attributes:
        index: place in the order of running, from 0; an encoder's layers come before its decoder's.
        name: dotted name of the module.
        class_name: its class.
        stack: ``decoder`` or ``encoder``.
        seconds: time inside it.
        time_share: of the whole forward pass.
        output: the residual stream that leaves it.
        residual_norm: L2 norm of that stream, mean over positions; the first position, where models keep an
            attention sink, is left out when there are others.
        first_norm: the norm at the first position.
        outlier_channels: channels of what enters its linear layers that reach the LLM.int8 threshold at some position.
        mixer: attention or what stands in its place; None if the layer has none.
        mlp: MLP or experts; None if the layer has none.
        other_seconds: norms, additions and the rest.
        others: further parts, such as cross-attention, or a second mixer beside the first.
    """

    index: int
    name: str
    class_name: str
    stack: str
    seconds: float
    time_share: float
    output: TensorFigures
    residual_norm: Optional[float]
    first_norm: Optional[float]
    outlier_channels: int
    mixer: Optional[PartTrace]
    mlp: Optional[PartTrace]
    other_seconds: float
    others: tuple[PartTrace, ...] = ()


@dataclass(frozen=True)
class LogitLens:
    """What the model would say if it stopped after each layer: the final norm and the head on the residual stream.

    Attributes:
        layers: index of the layer of each row; -1 is the embedding, before any layer.
        names: ``embedding``, then the layers' dotted names.
        positions: the positions of the prompt that were read, each predicting the token after it.
        ids: most probable tokens, ``[row][position][rank]``.
        probabilities: theirs, of the same shape.
        entropy: of the whole distribution in bits, ``[row][position]``.
        final_rank: rank, from 0, that the row gives the token the whole model puts first, ``[row][position]``.
        texts: the text of every id above; keys are ids as strings.
        tied: whether the head is the input embedding.
        steps: what lies between stream and probabilities: ``model.norm``, ``lm_head``, ``soft cap 30``.
    """

    layers: tuple[int, ...]
    names: tuple[str, ...]
    positions: tuple[int, ...]
    ids: tuple[tuple[tuple[int, ...], ...], ...]
    probabilities: tuple[tuple[tuple[float, ...], ...], ...]
    entropy: tuple[tuple[float, ...], ...]
    final_rank: tuple[tuple[int, ...], ...]
    texts: dict[str, str]
    tied: bool
    steps: tuple[str, ...]


@dataclass(frozen=True)
class RoutingTrace:
    """The routing of one mixture-of-experts layer.

    Attributes:
        layer: index of the layer.
        name: dotted name of the router.
        experts: how many it chooses from.
        per_token: how many it chooses for a token.
        tokens: how many tokens it routed.
        counts: tokens by expert; they sum to ``tokens * per_token``.
        imbalance: coefficient of variation of `counts`: 0 is perfect balance.
        dead_share: share of experts that got no token; with few tokens that is no fault.
        confidence: mean weight of the first choice among those chosen, 0 to 1; where one is chosen, its probability.
        entropy_share: mean entropy of the router's distribution by that of an undecided one, 0 to 1.
    """

    layer: int
    name: str
    experts: int
    per_token: int
    tokens: int
    counts: tuple[int, ...]
    imbalance: float
    dead_share: float
    confidence: float
    entropy_share: float


@dataclass(frozen=True)
class OutlierChannel:
    """A channel with large values.

    Attributes:
        channel: index in the hidden size.
        layers: number of layers in which it reaches the threshold at some position.
        layer_share: the same by the number of layers.
        position_share: share of positions at which it reaches the threshold in some layer.
        absmax: its largest magnitude.
        systematic: whether both shares meet the criterion.
    """

    channel: int
    layers: int
    layer_share: float
    position_share: float
    absmax: float
    systematic: bool


@dataclass(frozen=True)
class Outliers:
    """Channels that make int8 hard.

    Attributes:
        threshold: magnitude from which a value counts, 6.0 in LLM.int8 (Dettmers et al. 2022, section 4.1).
        layer_share: least share of layers of a systematic outlier, 0.25 there.
        position_share: least share of positions, 0.06 there.
        width: channels there are: the hidden size.
        inputs: channels of what enters the linear layers of mixer and MLP, which is what int8 has to hold; the worst
            first, at most 32.
        systematic: how many channels of the inputs meet the criterion, also beyond those listed.
        stream: channels of the residual stream by their largest value, at most 32; no criterion applies to them.
    """

    threshold: float
    layer_share: float
    position_share: float
    width: int
    inputs: tuple[OutlierChannel, ...]
    systematic: int
    stream: tuple[OutlierChannel, ...]


@dataclass(frozen=True)
class ModelTrace:
    """A prompt's way through the model.

    Attributes:
        prompt: the text that was tokenized, after the chat template if that was asked for.
        tokens: the prompt as the model saw it.
        device: where it ran.
        clock: ``CUDA events`` or ``processor clock``.
        forward_seconds: one forward pass with nothing but time stamps.
        trace_seconds: all passes and figures of this trace.
        layers: in the order of running.
        modules: every module that ran or could have, in the order of the module tree; without those of experts' copies.
        mixer_time_share: of `forward_seconds`, all layers together; likewise the next three.
        mlp_time_share: MLP and experts.
        head_time_share: final norm and head.
        other_time_share: the rest.
        lens: None if it was not asked for or does not exist.
        routing: empty without mixture-of-experts layers.
        outliers: None if nothing could be measured.
        why: for each of ``lens``, ``routing``, ``outliers``, ``mixer``, ``mlp``, ``contribution`` that is missing, the
            reason in one line.
        notes: what a reader should know, such as "first position left out of the norms".
    """

    prompt: str
    tokens: tuple[TracedToken, ...]
    device: str
    clock: str
    forward_seconds: float
    trace_seconds: float
    layers: tuple[LayerTrace, ...]
    modules: tuple[ModuleTrace, ...]
    mixer_time_share: float
    mlp_time_share: float
    head_time_share: float
    other_time_share: float
    lens: Optional[LogitLens]
    routing: tuple[RoutingTrace, ...]
    outliers: Optional[Outliers]
    why: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class HeadFigures:
    """One attention head, in means over the queries that see more than one key.

    Attributes:
        head: its index.
        entropy_share: entropy of its weights by that of even ones: 0 looks at one token, 1 at all alike.
        first: weight on the first token (an attention sink when large).
        previous: weight on the token just before.
        itself: weight on the query's own token.
        distance: mean distance in tokens.
    """

    head: int
    entropy_share: float
    first: float
    previous: float
    itself: float
    distance: float


@dataclass(frozen=True)
class HeadWeights:
    """The weights of one head.

    Attributes:
        head: its index.
        data: base64 of ``queries * keys`` little-endian unsigned 16-bit numbers, row by row (a row is a query);
            a weight is the number by 65,535, so exact to 0.000008.
    """

    head: int
    data: str


@dataclass(frozen=True)
class AttentionMaps:
    """Attention weights of one layer.

    Attributes:
        layer: index as in `LayerTrace`.
        name: dotted name of the attention module.
        tokens: the prompt as the model saw it, from which queries look at keys.
        queries: rows of a map.
        keys: columns of a map.
        num_attention_heads: heads of the layer.
        num_key_value_heads: None if not known.
        sliding_window: tokens back that the layer may look; None for all.
        figures: of every head.
        heads: the maps asked for; fewer if the whole would be too long for a message, which `note` then says.
        note: empty if there is nothing to say.
    """

    layer: int
    name: str
    tokens: tuple[TracedToken, ...]
    queries: int
    keys: int
    num_attention_heads: int
    num_key_value_heads: Optional[int]
    sliding_window: Optional[int]
    figures: tuple[HeadFigures, ...]
    heads: tuple[HeadWeights, ...]
    note: str = ""


def unpack_weights(data: str, queries: int, keys: int) -> list[list[float]]:
    """The rows of a map of `HeadWeights`, one for each query."""
    numbers = array.array("H", base64.b64decode(data))
    if sys.byteorder == "big":
        numbers.byteswap()
    return [[number / WEIGHT_SCALE for number in numbers[row * keys : (row + 1) * keys]] for row in range(queries)]
