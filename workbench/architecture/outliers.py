"""Channels whose values are so large that int8 loses the others beside them. Needs torch: worker only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from workbench.architecture.traced import OutlierChannel, Outliers

THRESHOLD = 6.0
LAYER_SHARE = 0.25
POSITION_SHARE = 0.06
"""Dettmers et al., "LLM.int8()" (2022), section 4.1: magnitude 6.0 in 25 % of layers and 6 % of positions."""

_LISTED = 32


class ChannelWatch:
    """Gathers, channel by channel, how large tensors of shape ``[tokens, width]`` get, layer by layer."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._largest: dict[int, Any] = {}
        self._positions: Any = None

    def take(self, layer: int, values: Any) -> None:
        """Add a tensor of a layer; several of one layer count together."""
        import torch

        values = values.detach().reshape(-1, values.shape[-1])
        if values.shape[-1] != self.width:
            return
        magnitude = values.abs()
        largest = magnitude.amax(0).float().nan_to_num(nan=float("inf"))
        if layer in self._largest:
            largest = torch.maximum(largest, self._largest[layer])
        self._largest[layer] = largest
        reached = magnitude >= THRESHOLD
        if self._positions is None or self._positions.shape != reached.shape:
            self._positions = reached
        else:
            self._positions |= reached

    @property
    def empty(self) -> bool:
        """Whether nothing of the right width came by."""
        return not self._largest

    def counts(self) -> dict[int, int]:
        """Channels at or above the threshold, by layer."""
        return {layer: int((largest >= THRESHOLD).sum()) for layer, largest in self._largest.items()}

    def channels(self) -> list[OutlierChannel]:
        """All channels, most layers first, then by magnitude; none where nothing came by."""
        import torch

        if self.empty:
            return []
        table = torch.stack(list(self._largest.values())).cpu()
        layers = (table >= THRESHOLD).sum(0).tolist()
        shares = self._positions.float().mean(0).tolist()
        largest = table.amax(0).tolist()
        found = [
            OutlierChannel(
                channel=channel,
                layers=count,
                layer_share=count / len(table),
                position_share=share,
                absmax=min(magnitude, 3e38),
                systematic=count / len(table) >= LAYER_SHARE and share >= POSITION_SHARE,
            )
            for channel, (count, share, magnitude) in enumerate(zip(layers, shares, largest))
        ]
        return sorted(found, key=lambda item: (-item.systematic, -item.layers, -item.absmax))


def summarize(inputs: ChannelWatch, stream: ChannelWatch) -> Outliers:
    """The channels of what the linear layers read, and of the residual stream."""
    read = inputs.channels()
    return Outliers(
        threshold=THRESHOLD,
        layer_share=LAYER_SHARE,
        position_share=POSITION_SHARE,
        width=inputs.width,
        inputs=tuple(item for item in read[:_LISTED] if item.layers),
        systematic=sum(item.systematic for item in read),
        stream=tuple(
            replace(item, systematic=False)
            for item in sorted(stream.channels(), key=lambda item: -item.absmax)[:_LISTED]
        ),
    )
