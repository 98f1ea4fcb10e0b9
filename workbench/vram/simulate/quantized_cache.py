"""Quantized KV caches, as transformers keeps them. Needs torch and transformers.

In fp8 it is transformers' own code. That of quanto and HQQ needs values and packages: stand-ins of the same class hold
tensors of the same sizes (transformers 5.23 ``cache_utils.py``, ``QuantizedLayer``), without what the quantizing itself
takes for a moment.
"""

from __future__ import annotations

from typing import Any

from workbench.vram.kv_cache import GROUP, RESIDUAL_TOKENS
from workbench.vram.plan import Plan


def make(model: Any, plan: Plan) -> Any:
    """An empty cache of the plan's kv_dtype."""
    from transformers.cache_utils import Cache, Fp8QuantizedLayer

    count = model.config.get_text_config(decoder=True).num_hidden_layers
    if plan.kv_dtype == "fp8":
        return Cache(layers=[Fp8QuantizedLayer() for _ in range(count)])
    kind, bits = _grouped_layer(), int(plan.kv_dtype[3:])
    return Cache(layers=[kind(nbits=bits, q_group_size=GROUP, residual_length=RESIDUAL_TOKENS) for _ in range(count)])


def _grouped_layer() -> Any:
    import torch
    from transformers.cache_utils import QuantizedLayer

    class GroupedLayer(QuantizedLayer):  # type: ignore[misc]  # transformers is not typed
        """Packed values with a scale and a zero point for each group, in the model's dtype."""

        def _quantize(self, tensor: Any, axis: int) -> Any:
            return self.packed(tuple(tensor.shape), tensor.dtype, tensor.device)

        def _dequantize(self, held: Any) -> Any:
            packed, scale, _zero, shape = held
            return torch.empty(shape, dtype=scale.dtype, device=packed.device)

        def packed(self, shape: tuple[int, ...], dtype: Any, device: Any) -> Any:
            elements = 1
            for size in shape:
                elements *= size
            groups = -(-elements // GROUP)
            values = torch.empty(elements * self.nbits // 8, dtype=torch.uint8, device=device)
            scale, zero = (torch.empty(groups, dtype=dtype, device=device) for _ in range(2))
            return values, scale, zero, shape

    return GroupedLayer


def grow(layer: Any, tokens: int, tracker: Any) -> bool:
    """Let a quantized layer that has seen one new token see `tokens` more; False if it is none."""
    import torch

    if not hasattr(layer, "_quantized_keys"):
        return False
    layer.cumulative_length += tokens
    for name, kept in (("_quantized_keys", "keys"), ("_quantized_values", "values")):
        held = getattr(layer, name)
        if len(held) == 2:
            old, scale = held
            longer = (*old.shape[:2], old.shape[2] + tokens, old.shape[3])
            made: Any = (torch.empty(longer, dtype=old.dtype, device=old.device), scale)
        else:
            # The first new token stands in full precision; from then on whole stretches are packed.
            loose = (1 + tokens) % RESIDUAL_TOKENS
            shape = held[3]
            packed = (*shape[:2], shape[2] + 1 + tokens - loose, shape[3])
            old = getattr(layer, kept)
            setattr(layer, kept, torch.empty((*shape[:2], loose, shape[3]), dtype=old.dtype, device=old.device))
            made = layer.packed(packed, held[1].dtype, held[0].device)
            tracker.label(getattr(layer, kept), "kv_cache")
        del old, held
        setattr(layer, name, made)
        for tensor in made:
            if isinstance(tensor, torch.Tensor):
                tracker.label(tensor, "kv_cache")
    return True
