"""Which experts a mixture-of-experts layer chose. Needs torch: worker only."""

from __future__ import annotations

import math
from typing import Any, Optional

from workbench.architecture.traced import RoutingTrace


class RoutingWatch:
    """Gathers the choices of routers as they pass.

    Args:
        experts: how many there are by the config; 0 if it does not say.
        experts_per_token: likewise, for routers that give logits only.
    """

    def __init__(self, experts: int, experts_per_token: int) -> None:
        self._experts = experts
        self._per_token = experts_per_token
        self._seen: list[tuple[int, str, Any, Any, Any]] = []

    def take(self, layer: int, name: str, output: Any) -> None:
        """Look whether a module's output is a routing, and keep it if so."""
        found = self._read(name, output)
        if found is not None and not any(seen[0] == layer for seen in self._seen):
            self._seen.append((layer, name, *found))

    def _read(self, name: str, output: Any) -> Optional[tuple[Any, Any, Any]]:
        """Logits or probabilities, weights and indices.

        The router of transformers 5 returns the three of them; before, a plain linear layer called ``gate`` or
        ``router`` gave logits, and DeepSeek's gate indices and weights.
        """
        import torch

        tensors = [item for item in output if isinstance(item, torch.Tensor)] if isinstance(output, tuple) else []
        chosen = [item for item in tensors if not item.is_floating_point() and item.dim() == 2]
        if chosen:
            indices = chosen[0]
            weights = next((t for t in tensors if t.is_floating_point() and t.shape == indices.shape), None)
            scores = next(
                (t for t in tensors if t.is_floating_point() and t.dim() == 2 and t.shape != indices.shape), None
            )
            return None if weights is None else (scores, weights, indices)
        if not self._experts or not self._per_token:
            return None
        if name.rpartition(".")[2] not in ("gate", "router", "layer"):
            return None
        scores = tensors[-1] if tensors else output
        if not isinstance(scores, torch.Tensor) or scores.shape[-1] != self._experts or scores.dim() > 3:
            return None
        scores = scores.reshape(-1, self._experts)
        top = scores.float().softmax(-1).topk(self._per_token, dim=-1)
        return scores, top.values, top.indices

    def result(self) -> tuple[RoutingTrace, ...]:
        """All layers, in order."""
        return tuple(self._summary(*seen) for seen in sorted(self._seen, key=lambda seen: seen[0]))

    def _summary(self, layer: int, name: str, scores: Any, weights: Any, indices: Any) -> RoutingTrace:
        import torch

        experts = int(scores.shape[-1]) if scores is not None else self._experts or int(indices.max()) + 1
        counts = torch.bincount(indices.reshape(-1).cpu(), minlength=experts)
        mean = float(counts.float().mean())
        probabilities = None if scores is None else _probabilities(scores)
        per_token = int(indices.shape[-1])
        if per_token > 1:
            first = weights.float().amax(-1) / weights.float().sum(-1).clamp_min(1e-12)
        else:
            first = weights.float()[:, 0] if probabilities is None else probabilities.amax(-1)
        entropy = 1.0
        if probabilities is not None and experts > 1:
            entropy = float(torch.special.entr(probabilities).sum(-1).nan_to_num(0.0).mean()) / math.log(experts)
        return RoutingTrace(
            layer=layer,
            name=name,
            experts=experts,
            per_token=per_token,
            tokens=int(indices.shape[0]),
            counts=tuple(counts.tolist()),
            imbalance=float(counts.float().std(correction=0)) / mean if mean else 0.0,
            dead_share=float((counts == 0).float().mean()),
            confidence=float(first.nan_to_num(0.0).mean()),
            entropy_share=entropy,
        )


def _probabilities(scores: Any) -> Any:
    """Some families hand out the softmax of their logits under the logits' name."""
    values = scores.float()
    sums = values.sum(-1)
    if bool((values >= 0).all()) and bool(((sums - 1).abs() < 1e-2).all()):
        return values
    return values.softmax(-1)
