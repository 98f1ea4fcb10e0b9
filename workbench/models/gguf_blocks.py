"""Turns ggml's stored blocks into 32-bit floats. Needs numpy, and the gguf package for the rarer types.

The plain types and the blocks of 32 are decoded here, so that an interpreter with torch alone can convert them; layouts
are those of ggml-common.h. K-quants and the others are left to gguf-py.
"""

from __future__ import annotations

from typing import Any

from workbench.models.gguf import GgufTensor
from workbench.packages import need

OWN_TYPES = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")


def require_decoders(tensors: tuple[GgufTensor, ...]) -> None:
    """Raise ``missing-package`` unless what decoding `tensors` takes can be imported."""
    others = sorted({tensor.type for tensor in tensors if tensor.type not in OWN_TYPES})
    for package in ("numpy", "gguf") if others else ("numpy",):
        blocks = f" with {', '.join(others)} blocks" if package == "gguf" else ""
        need(package, f"Converting a GGUF file{blocks}")


def decode_rows(raw: Any, tensor: GgufTensor) -> Any:
    """Float32 values of some rows of `tensor`, flat; `raw` is a flat uint8 array of whole rows."""
    import numpy

    kind = tensor.type
    if kind == "F32":
        return raw.view(numpy.float32)
    if kind == "F16":
        return raw.view(numpy.float16).astype(numpy.float32)
    if kind == "BF16":
        return (raw.view(numpy.uint16).astype(numpy.uint32) << 16).view(numpy.float32)
    if kind in OWN_TYPES:
        return _decode_blocks(raw, kind)
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    row_bytes = (tensor.size_bytes or 0) * tensor.shape[-1] // tensor.elements
    values = dequantize(raw.reshape(-1, row_bytes), GGMLQuantizationType(tensor.type_number))
    return numpy.ascontiguousarray(values, dtype=numpy.float32).reshape(-1)


def _decode_blocks(raw: Any, kind: str) -> Any:
    """Blocks of 32: a scale d, for the ``_1`` types a minimum m, for five bits the high bits, then the low ones.

    Value = d·q + m, or d·(q − half the range) without a minimum.
    """
    import numpy

    bits, with_minimum = int(kind[1]), kind.endswith("_1")
    block_bytes = 2 + 2 * with_minimum + 4 * (bits == 5) + 4 * (8 if bits == 8 else 4)
    blocks = raw.reshape(-1, block_bytes)

    def half_float(at: int) -> Any:
        return numpy.ascontiguousarray(blocks[:, at : at + 2]).view(numpy.float16).astype(numpy.float32)

    scale, at = half_float(0), 2
    minimum = None
    if with_minimum:
        minimum, at = half_float(2), 4
    if bits == 8:
        return (scale * blocks[:, at:].view(numpy.int8).astype(numpy.float32)).reshape(-1)
    high = None
    if bits == 5:
        packed = numpy.ascontiguousarray(blocks[:, at : at + 4]).view(numpy.dtype("<u4"))
        high = ((packed >> numpy.arange(32, dtype=numpy.uint32)) & 1).astype(numpy.uint8) << 4
        at += 4
    low = blocks[:, at:]
    # The low four bits hold the first half of the block, the high four the second.
    values = numpy.concatenate([low & 0x0F, low >> 4], axis=1)
    if high is not None:
        values = values | high
    if minimum is not None:
        return (scale * values.astype(numpy.float32) + minimum).reshape(-1)
    return (scale * (values.astype(numpy.int8) - (1 << bits - 1)).astype(numpy.float32)).reshape(-1)
