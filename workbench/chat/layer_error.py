"""How much quantizing changes each layer's weights. Needs torch and bitsandbytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workbench.job import SILENT, Job
from workbench.packages import need


@dataclass(frozen=True)
class LayerError:
    """One weight before and after quantizing.

    Attributes:
        name: of the module.
        relative_error: Frobenius norm of the difference over that of the weight.
        worst_error: the largest absolute difference of one weight.
    """

    name: str
    relative_error: float
    worst_error: float


def layer_errors(
    model: Any, names: frozenset[str], quant: str, double_quant: bool, job: Job = SILENT
) -> list[LayerError]:
    """Quantize the weights of an unquantized model one by one, as loading would, and compare.

    Args:
        model: loaded without quantization, in the dtype in which the variant's weights are quantized.
        names: the modules that the variant quantizes.
        quant: ``nf4``, ``fp4`` or ``int8``.
        double_quant: of 4-bit constants.
        job: progress in layers; cancelling.
    """
    functional = need("bitsandbytes.functional", "Quantizing")
    found = [(name, module) for name, module in model.named_modules() if name in names]
    errors = []
    for done, (name, module) in enumerate(found):
        job.check()
        job.progress("layers", done, len(found), "layers", name)
        weight = module.weight.data
        if type(module).__name__ == "Conv1D":  # transformers transposes it before quantizing
            weight = weight.t().contiguous()
        back = _there_and_back(functional, weight, quant, double_quant)
        difference = back.float() - weight.float()
        scale = float(weight.float().norm()) or 1.0
        errors.append(LayerError(name, float(difference.norm()) / scale, float(difference.abs().max())))
    return errors


def quantized_modules(model: Any) -> frozenset[str]:
    """Names of the modules that bitsandbytes holds in 4 or 8 bits."""
    return frozenset(
        name for name, module in model.named_modules() if type(module).__name__ in ("Linear4bit", "Linear8bitLt")
    )


def _there_and_back(functional: Any, weight: Any, quant: str, double_quant: bool) -> Any:
    if quant == "int8":
        # Rows scaled by their largest value to -127 … 127 (bitsandbytes.functional.int8_vectorwise_quant).
        rows, scales, _outliers = functional.int8_vectorwise_quant(weight.half())
        return rows.float() * (scales[:, None].float() / 127.0)
    packed, state = functional.quantize_4bit(weight, quant_type=quant, compress_statistics=double_quant)
    return functional.dequantize_4bit(packed, state)
