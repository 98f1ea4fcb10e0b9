"""What a loaded model holds now, by the categories of a plan. Needs torch.

Of a GPU: not yet run on one; written from torch 2.13's documentation, named beside each call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from workbench.models.memory import storages
from workbench.vram.estimate import Estimate
from workbench.vram.plan import Plan
from workbench.vram.shares import Shares


@dataclass(frozen=True)
class Standing(Shares):
    """A model at rest after its last answer, with the KV cache of that.

    On the CPU `activations` are 0, as they cannot be told.
    """

    allocated_bytes: int
    """``torch.cuda.memory_allocated``; on the CPU weights and KV cache."""
    peak_bytes: Optional[int]
    """``torch.cuda.max_memory_allocated`` since the load; None on the CPU."""
    reserved_bytes: int
    """``torch.cuda.memory_reserved``; 0 on the CPU."""
    segments: int
    """Pieces of memory that the allocator has from the driver."""
    largest_free_bytes: int
    """The largest free block within them: what can be handed out without asking the driver."""
    cached_tokens: int
    device_kind: str
    device: str
    notes: tuple[str, ...]


def standing(loaded: Any, cache_bytes: int, cached_tokens: int) -> Standing:
    """What `loaded` holds.

    Args:
        loaded: a `workbench.models.load.LoadedModel`.
        cache_bytes: of the KV cache that is kept with it.
        cached_tokens: in that cache.
    """
    weights = sum(storage.nbytes() for storage in storages(loaded.model))
    device = str(loaded.facts.device)
    if device.startswith("cuda"):
        return _on_gpu(device, weights, cache_bytes, cached_tokens)
    return _standing(
        weights,
        cache_bytes,
        cached_tokens,
        device_kind=device,
        device=device.upper(),
        notes=("On the CPU the tensors are counted, without a GPU's context, workspaces and allocator reserve.",),
    )


def _standing(weights: int, cache_bytes: int, cached_tokens: int, **known: Any) -> Standing:
    held = weights + cache_bytes
    values: dict[str, Any] = {
        **dict.fromkeys(("adapters", "gradients", "optimizer", "activations", "logits", "overhead"), 0),
        **dict.fromkeys(("reserved_bytes", "segments", "largest_free_bytes"), 0),
        "total": held,
        "allocated_bytes": held,
        "peak_bytes": None,
        **known,
    }
    return Standing(weights=weights, kv_cache=cache_bytes, cached_tokens=cached_tokens, **values)


def _on_gpu(device: str, weights: int, cache_bytes: int, cached_tokens: int) -> Standing:
    import torch

    # torch.cuda.memory_stats: "requested_bytes" is what tensors asked for, "allocated_bytes" the blocks they got.
    stats = torch.cuda.memory_stats(device)
    allocated = int(stats.get("allocated_bytes.all.current", 0))
    reserved = int(stats.get("reserved_bytes.all.current", 0))
    segments, largest = _segments(torch, device)
    free, size = torch.cuda.mem_get_info(device)
    used = int(size) - int(free)
    total = max(reserved, used)
    return _standing(
        weights,
        cache_bytes,
        cached_tokens,
        activations=max(0, allocated - weights - cache_bytes),
        overhead=total - max(allocated, weights + cache_bytes),
        total=total,
        allocated_bytes=allocated,
        peak_bytes=int(stats.get("allocated_bytes.all.peak", 0)),
        reserved_bytes=reserved,
        segments=segments,
        largest_free_bytes=largest,
        device_kind="cuda",
        device=str(torch.cuda.get_device_name(device)),
        notes=("The overhead counts what other processes hold on this GPU, too.",),
    )


def _segments(torch: Any, device: str) -> tuple[int, int]:
    """Number of segments and the largest inactive block (torch.cuda.memory_snapshot: segments with their blocks)."""
    index = torch.device(device).index
    wanted = torch.cuda.current_device() if index is None else index
    found = [segment for segment in torch.cuda.memory_snapshot() if segment.get("device", wanted) == wanted]
    blocks = [block for segment in found for block in segment.get("blocks", ()) if block.get("state") == "inactive"]
    return len(found), max((int(block["size"]) for block in blocks), default=0)


def corresponding_plan(facts: Any, cached_tokens: int) -> Plan:
    """The plan of a load: inference with a KV cache of what is in it now.

    Args:
        facts: `workbench.models.load.LoadedFacts`.
        cached_tokens: in the KV cache.
    """
    return Plan(
        quant=facts.quant,
        double_quant=facts.double_quant,
        dtype=facts.dtype,
        sequence_length=max(1, cached_tokens),
        new_tokens=1,
        attention="eager" if facts.attention == "eager" else "sdpa",
    )


def standing_errors(found: Standing, budget: Estimate) -> dict[str, Optional[float]]:
    """How far the estimate lies from what stands, in per cent, for what stands at rest: weights and KV cache."""
    errors: dict[str, Optional[float]] = {}
    for name, measured in (("weights", found.weights), ("kv_cache", found.kv_cache)):
        errors[name] = 100.0 * (budget.static[name] / measured - 1.0) if measured else None
    return errors
