"""Stand-ins for CUDA's attention kernels: the same operators, which save what CUDA's save. Needs torch."""

from __future__ import annotations

from typing import Any, Optional

MAX_FLASH_HEAD_DIM = 256


def scaled_dot_product_attention(
    attention: str,
    kernels: set[str],
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: Optional[float] = None,
    enable_gqa: bool = False,
) -> Any:
    """``torch.nn.functional.scaled_dot_product_attention`` with the kernel that CUDA takes.

    Args:
        attention: ``flash`` and ``efficient`` name the kernel; ``sdpa`` takes the first that can do it, in torch's
            order (``aten/src/ATen/native/transformers/cuda/sdp_utils.cpp``): flash, efficient, math.
        kernels: the one taken is added.
    """
    import torch

    if attention == "flash" and query.dtype == torch.float32:
        # As transformers' flash integration does where k-bit preparation has made the stream float32.
        query, key, value = (tensor.to(torch.bfloat16) for tensor in (query, key, value))
    kernel = _kernel(torch, attention, query, key, value, attn_mask, enable_gqa)
    kernels.add(kernel)
    aten = torch.ops.aten
    if kernel == "flash":
        padding = -query.shape[-1] % 8
        if padding:
            scale = query.shape[-1] ** -0.5 if scale is None else scale
            query, key, value = (torch.nn.functional.pad(tensor, (0, padding)) for tensor in (query, key, value))
        out = aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
        return out[..., : out.shape[-1] - padding] if padding else out
    if kernel == "efficient":
        groups = query.shape[-3] // key.shape[-3]
        if groups > 1:
            key, value = (tensor.repeat_interleave(groups, -3) for tensor in (key, value))
        saves = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
        bias = _bias(torch, attn_mask, query, key)
        return aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, saves, dropout_p, is_causal, scale=scale
        )[0]
    return aten._scaled_dot_product_attention_math(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )[0]


def _kernel(torch: Any, attention: str, query: Any, key: Any, value: Any, mask: Any, enable_gqa: bool) -> str:
    half = query.dtype in (torch.float16, torch.bfloat16)
    same_width = query.shape[-1] == value.shape[-1]
    as_many_keys = query.shape[-3] == key.shape[-3]
    # Of the fused kernels flash alone takes fewer key than query heads, and only where it is told so (torch to 2.13).
    takes_heads = as_many_keys or enable_gqa or attention == "flash"
    wants_flash = attention in ("sdpa", "flash") and takes_heads
    if wants_flash and half and mask is None and same_width and query.shape[-1] <= MAX_FLASH_HEAD_DIM:
        return "flash"
    return "efficient" if attention == "efficient" or as_many_keys else "math"


def _bias(torch: Any, mask: Any, query: Any, key: Any) -> Any:
    """The mask as the kernel takes it: additive, expanded, its rows a multiple of 16 long.

    As ``preprocess_mask`` and ``pad_bias`` in ``aten/src/ATen/native/transformers/attention.cpp``.
    """
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        mask = torch.where(mask, torch.zeros((), dtype=query.dtype, device=query.device), float("-inf"))
    length = mask.shape[-1]
    padding = -length % 16
    if padding:
        mask = torch.nn.functional.pad(mask, (0, padding))[..., :length]
    return mask.expand(*query.shape[:-1], key.shape[-2])
