"""Mean, deviation, largest value and non-finite count of tensors, fetched from the device once. Needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Optional

from workbench.architecture.traced import TensorFigures

# Elements converted to a wider dtype at a time: a copy of the logits of a long prompt would be gigabytes.
_CHUNK = 2**22


class Ledger:
    """Small vectors that stay on the device until `fetch`: each value read alone would stall a GPU."""

    def __init__(self) -> None:
        self._vectors: list[Any] = []
        self._values: list[list[float]] = []

    def put(self, vector: Any) -> int:
        """Keep a one-dimensional tensor; returns the number by which to `read` it."""
        self._vectors.append(vector)
        return len(self._vectors) - 1

    def fetch(self) -> None:
        """Bring everything to the processor in one transfer."""
        import torch

        if not self._vectors:
            return
        sizes = [int(vector.numel()) for vector in self._vectors]
        widest = torch.float32 if self._vectors[0].device.type == "mps" else torch.float64
        joined = torch.cat([vector.reshape(-1).to(widest) for vector in self._vectors]).cpu()
        self._values = [part.tolist() for part in joined.split(sizes)]
        self._vectors = []

    def read(self, number: int) -> list[float]:
        """The values put in under this number."""
        return self._values[number]


@dataclass(frozen=True)
class Measured:
    """A tensor on its way to `TensorFigures`; its values are in the ledger."""

    shape: tuple[int, ...]
    dtype: str
    sizes: tuple[int, ...]
    numbers: tuple[int, ...]


def measure(tensor: Any, ledger: Ledger) -> Measured:
    """Note the figures of a floating tensor whose first dimension is the batch of one."""
    flat = tensor.detach().reshape(-1)
    chunks = flat.split(_CHUNK) if flat.numel() else ()
    # A module that drops the batch (a router, OPT's MLP) has no dimension of one to take away.
    shape = tuple(tensor.shape[1:] if tensor.dim() > 1 and tensor.shape[0] == 1 else tensor.shape)
    return Measured(
        shape=shape,
        dtype=str(tensor.dtype).replace("torch.", ""),
        sizes=tuple(int(chunk.numel()) for chunk in chunks),
        numbers=tuple(ledger.put(_moments(chunk)) for chunk in chunks),
    )


def _moments(values: Any) -> Any:
    """Count of finite values, their mean, variance and largest magnitude."""
    import torch

    if values.device.type == "cpu":
        wide = values.float()
        mean = wide.mean()
        low, high = torch.aminmax(wide)
        # Two passes; torch.var_mean takes twenty times as long.
        centred = wide - mean
        variance = torch.dot(centred, centred) / values.numel()
        if math.isfinite(float(variance)):
            count = torch.tensor(float(values.numel()))
            return torch.stack((count, mean, variance, torch.maximum(-low, high)))
    finite = torch.isfinite(values)
    count = finite.sum()
    wide = torch.where(finite, values, 0).to(torch.float32 if values.device.type == "mps" else torch.float64)
    mean = wide.sum() / count
    variance = torch.where(finite, wide - mean, 0).square().sum() / count
    return torch.stack((count.to(wide.dtype), mean, variance, wide.abs().amax()))


def figures_of(measured: Optional[Measured], ledger: Ledger) -> Optional[TensorFigures]:
    """The figures after `Ledger.fetch`.

    Chunks are merged as in Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances" (1979).
    """
    if measured is None:
        return None
    total, mean, squares, absmax = 0.0, 0.0, 0.0, 0.0
    for number in measured.numbers:
        count, chunk_mean, variance, largest = ledger.read(number)
        if not count:
            continue
        difference = chunk_mean - mean
        squares += variance * count + difference**2 * total * count / (total + count)
        mean += difference * count / (total + count)
        total += count
        absmax = max(absmax, largest)
    nonfinite = sum(measured.sizes) - int(total)
    if not total:
        return TensorFigures(measured.shape, measured.dtype, None, None, None, nonfinite)
    return TensorFigures(measured.shape, measured.dtype, mean, math.sqrt(squares / total), absmax, nonfinite)
