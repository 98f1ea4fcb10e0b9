"""What the memory of one device is used for: the part that every rung's answer begins with. Stdlib only."""

from __future__ import annotations

from dataclasses import dataclass

CATEGORIES = ("weights", "adapters", "gradients", "optimizer", "activations", "kv_cache", "logits", "overhead")


@dataclass(frozen=True)
class Shares:
    """Bytes on one device at its largest moment, or at rest, by category."""

    weights: int
    """Parameters, buffers and quantization state."""
    adapters: int
    gradients: int
    optimizer: int
    """States, and what the optimizer makes while it steps."""
    activations: int
    """What the forward pass keeps, and whatever the layers make for a moment."""
    kv_cache: int
    logits: int
    """What the head and the loss hold."""
    overhead: int
    """CUDA context, cuBLAS' workspaces, rounding, and what the allocator keeps without use; 0 on a CPU."""
    total: int
    """Of all categories: what the driver counts for the process on a GPU with room enough."""
