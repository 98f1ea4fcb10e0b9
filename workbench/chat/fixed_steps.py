"""One-token steps over a KV cache of fixed size, which CUDA replays as one graph. Needs torch and transformers.

A pass of one token launches some hundred kernels from Python; with a small model or a fast card that takes longer than
the kernels do. A CUDA graph launches them all at once. It wants every tensor to stay in its place, so while an answer
is written a copy of the growing cache in one of fixed size takes its part, and what was added is copied back at the
end. ``torch.compile`` is left alone: it compiles for minutes and rounds otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

GROWING = "growing"
"""Pass by pass, over a cache that grows."""
FIXED = "fixed"
"""Pass by pass, over a cache of fixed size: the graph's arithmetic without the graph, for a CPU to be held against."""
GRAPH = "graph"
"""Over a cache of fixed size, replayed as a CUDA graph."""

ROOM = 512
"""Tokens for which a fixed cache has room at most; attention reads all of it, filled or not."""
WARM_UP = 2


@dataclass(frozen=True)
class Decoding:
    """The way that a loaded model decodes.

    Attributes:
        way: the one taken.
        worth_after: new tokens from which on it is faster than `GROWING`, its preparation included.
        told: in words, with the figures it was chosen by; empty where nothing was measured.
    """

    way: str = GROWING
    worth_after: int = 0
    told: str = ""


def refusal(loaded: Any, cache: Any) -> str:
    """Why a cache of fixed size cannot stand in for the growing `cache` of a model, or an empty string.

    Args:
        loaded: a `workbench.models.load.LoadedModel`.
        cache: a ``DynamicCache`` with at least one token.
    """
    import torch
    from transformers import cache_utils

    growing, fixed = (getattr(cache_utils, name, None) for name in ("DynamicLayer", "StaticLayer"))
    layers = getattr(cache, "layers", ())
    # Before transformers counted a fixed cache's tokens in a tensor, every pass had to be told its position.
    if fixed is None or not isinstance(getattr(fixed(1), "cumulative_length", None), torch.Tensor):
        return "this transformers is too old for it"
    if not layers or any(type(layer) is not growing for layer in layers):
        return "the model keeps windows or states instead of a plain KV cache"
    if len({layer.keys.device for layer in layers}) > 1:
        return "the model is spread over several devices"
    if loaded.facts.quant == "int8":
        return "int8 looks for outliers in each pass"
    return ""


class FixedSteps:
    """The passes of one answer after its first token.

    Args:
        model: a transformers model for whose cache `refusal` has nothing to say.
        cache: its growing cache; `finish` adds to it what was decoded.
        room: passes there is room for.
        graph: whether to capture a CUDA graph and replay it.
    """

    def __init__(self, model: Any, cache: Any, room: int, graph: bool) -> None:
        import torch
        import transformers

        self._model, self._growing = model, cache
        self._begun = self._length = int(cache.get_seq_length())
        self._capacity = self._begun + max(room, WARM_UP)
        self._fixed = transformers.StaticCache(config=model.config, max_cache_len=self._capacity)
        for fixed, layer in zip(self._fixed.layers, cache.layers):
            fixed.lazy_initialization(layer.keys, layer.values)
            fixed.keys[:, :, : self._begun] = layer.keys
            fixed.values[:, :, : self._begun] = layer.values
        self._rewind()
        self._ids = torch.zeros((1, 1), dtype=torch.long, device=cache.layers[0].keys.device)
        self._next: Callable[[], Any] = self._captured() if graph else self._pass

    @property
    def full(self) -> bool:
        """Whether there is no room for another pass."""
        return self._length == self._capacity

    def step(self, token_id: int) -> Any:
        """Logits after one more token, shape [1, vocabulary]; the next step overwrites them."""
        self._ids.fill_(token_id)
        self._length += 1
        return self._next()

    def finish(self) -> None:
        """Add what was decoded to the growing cache; there are no further steps."""
        self._next = self._pass  # the graph's own memory goes first
        added = slice(self._begun, self._length)
        for index, fixed in enumerate(self._fixed.layers):
            if self._length > self._begun:
                self._growing.update(fixed.keys[:, :, added], fixed.values[:, :, added], index)
            fixed.keys = fixed.values = None

    def _pass(self) -> Any:
        return self._model(input_ids=self._ids, past_key_values=self._fixed, use_cache=True, return_dict=True).logits[0]

    def _rewind(self) -> None:
        for fixed in self._fixed.layers:
            fixed.cumulative_length.fill_(self._begun)

    def _captured(self) -> Callable[[], Any]:
        """A replay of the pass (torch.cuda.CUDAGraph: warm-up passes on a side stream, then the capture)."""
        import torch

        with torch.cuda.device(self._ids.device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    self._pass()
            torch.cuda.current_stream().wait_stream(side)
            self._rewind()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # only this thread runs the model
                logits = self._pass()

        def replay() -> Any:
            graph.replay()
            return logits

        return replay
