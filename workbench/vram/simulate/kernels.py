"""What CUDA kernels allocate inside themselves, which no tensor of the program shows. Needs torch to have run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable

CUBLAS_WORKSPACE_BYTES = 8_519_680
"""cuBLAS' workspace for one handle and stream up to Ada; 32 MiB on Hopper (``aten/src/ATen/cuda/CUDABlas.cpp``)."""

CUSTOM_GEMM_ROWS = 64
"""Up to about so many rows bitsandbytes multiplies by 4-bit weights in one kernel; above, it dequantizes them.

The bound lies between 4 and 1,536 by card and shape (``_gemm_4bit_use_custom_cuda`` of bitsandbytes 0.50).
"""


@dataclass(frozen=True)
class Rule:
    """An operator's workspace."""

    size: Callable[..., int]
    """Bytes, as a function of the operator's arguments."""
    comes_first: bool
    """Whether it is allocated before the operator's outputs."""


def workspace_rules() -> dict[str, Rule]:
    """Operator name to what it allocates and frees within itself."""
    return {
        "aten::_softmax_backward_data": Rule(_softmax_backward, False),
        "aten::_scaled_dot_product_flash_attention_backward": Rule(_flash_backward, False),
        "aten::_scaled_dot_product_efficient_attention_backward": Rule(_efficient_backward, False),
        "bitsandbytes::gemm_4bit": Rule(_gemm_4bit, True),
        "bitsandbytes::int8_scaled_mm": Rule(_int8_scaled_mm, True),
    }


def _softmax_backward(grad: Any, *rest: Any, **named: Any) -> int:
    # aten/src/ATen/native/cuda/SoftMax.cu, softmax_backward_cuda_out: tmp = grad * output.
    return _bytes(grad)


def _flash_backward(grad: Any, query: Any, key: Any, *rest: Any, **named: Any) -> int:
    """The float32 accumulator of the query's gradient, and the gradients of keys and values of every query head.

    ``aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp``, ``mha_bwd``: rows are rounded to 128, widths
    to 32; ``softmax_d`` has one float32 for each row.
    """
    batch, heads, length, width = query.shape
    rows = _round_up(length, 128)
    accumulator = batch * rows * heads * _round_up(width, 32) * 4
    row_sums = batch * heads * rows * 4
    expanded = 0
    if key.shape[1] != heads:
        expanded = 2 * batch * heads * key.shape[2] * width * key.element_size()
    return int(accumulator + row_sums + expanded)


def _efficient_backward(grad: Any, query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> int:
    """``delta``: one float32 for each row and head.

    ``aten/src/ATen/native/transformers/cuda/attention_backward.cu``, ``_efficient_attention_backward``.
    """
    batch, heads, length, _width = query.shape
    return int(batch * heads * length * 4)


def _gemm_4bit(left: Any, right: Any, shape: Any, *rest: Any, **named: Any) -> int:
    if left.numel() // left.shape[-1] <= CUSTOM_GEMM_ROWS:
        return 0
    size = math.prod(shape) * left.element_size()
    scales = named.get("absmax_8bit")
    # With nested statistics two float32 lists of the block constants are made first.
    return int(size + (8 * scales.numel() if scales is not None else 0))


def _int8_scaled_mm(left: Any, right: Any, *rest: Any, **named: Any) -> int:
    # The int32 product, before it is scaled.
    return int(left.numel() // left.shape[-1] * right.shape[0] * 4)


def _bytes(tensor: Any) -> int:
    return int(tensor.numel() * tensor.element_size())


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
