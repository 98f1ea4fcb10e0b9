"""What an optimizer keeps for the tensors it trains, to the byte, and what a step of it takes. Stdlib only.

Rules: torch 2.13 ``optim/adamw.py``; bitsandbytes 0.50 ``optim/optimizer.py`` (``Optimizer2State.init_state``);
transformers 5.23 ``optimization.py`` (``Adafactor``) and ``trainer.py`` (32-bit state for embeddings).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.architecture.skeleton import DTYPE_BYTES
from workbench.vram.plan import Plan

STEP_BYTES = 4
"""torch's step counter, one float32 for each tensor."""
MIN_8BIT_ELEMENTS = 4096
"""bitsandbytes keeps the state of smaller tensors in float32."""
MIN_PAGED_ELEMENTS = 100_000
BLOCK_8BIT = 256
"""Elements that share one absmax in an 8-bit state."""
QMAP_BYTES = 2 * 256 * 4
"""The two code tables of bitsandbytes' 8-bit states, once for each optimizer."""


@dataclass(frozen=True)
class Trained:
    """One tensor that gets a gradient."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    in_embedding: bool = False
    """Whether it is the weight of an embedding module, whose state Trainer keeps in 32 bit."""

    @property
    def numel(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def bytes(self) -> int:
        """Bytes of the tensor, and of its gradient."""
        return self.numel * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True)
class OptimizerBytes:
    """The optimizer of a plan."""

    state: int
    """What it keeps between steps on the GPU, pages included."""
    paged: int
    """The part of `state` in managed memory, which CUDA moves out under pressure."""
    step: int
    """Temporaries at the peak of a step, beyond state and gradients."""
    on_cpu: int
    """State kept in CPU memory."""


def optimizer_bytes(trained: Sequence[Trained], plan: Plan) -> OptimizerBytes:
    """What the optimizer of `plan` takes for the tensors `trained`."""
    if plan.optimizer == "sgd":
        # Trainer's SGD has no momentum, and its update works in place.
        return OptimizerBytes(0, 0, 0, 0)
    if plan.optimizer == "adafactor":
        found = OptimizerBytes(sum(map(_adafactor, trained)), 0, _adafactor_step(trained), 0)
    elif plan.optimizer == "adamw":
        found = _adamw(trained, plan.fused)
    else:
        found = _bitsandbytes(trained, plan.optimizer.startswith("paged"))
    if plan.offload == "optimizer":
        return OptimizerBytes(0, 0, 0, found.state + found.on_cpu)
    return found


def _adamw(trained: Sequence[Trained], fused: bool) -> OptimizerBytes:
    moments = 2 * sum(tensor.bytes for tensor in trained)
    steps = STEP_BYTES * len(trained)
    if fused:
        return OptimizerBytes(moments + steps, 0, 0, 0)
    # The counters stay on the CPU, and the denominators of all tensors are alive at once.
    return OptimizerBytes(moments, 0, moments // 2, steps)


def _adafactor(tensor: Trained) -> int:
    """Row and column statistics, or all of them for a vector, in float32; and the root mean square."""
    shape = tensor.shape
    if len(shape) < 2:
        return 4 * tensor.numel + 4
    rows = tensor.numel // shape[-1]
    columns = tensor.numel // shape[-2]
    return 4 * (rows + columns) + 4


def _adafactor_step(trained: Sequence[Trained]) -> int:
    """Tensors go one after the other; the update of the one before is still held.

    Alive at once: the squared gradient before and after adding a constant, and of a 16-bit tensor float32 copies of
    gradient and parameter.
    """
    peak = before = 0
    for tensor in trained:
        copies = 2 if DTYPE_BYTES[tensor.dtype] == 2 else 0
        peak = max(peak, 4 * tensor.numel * (copies + 2) + 4 * before)
        before = tensor.numel
    return peak


def _bitsandbytes(trained: Sequence[Trained], paged: bool) -> OptimizerBytes:
    state = in_pages = 0
    any_8bit = False
    for tensor in trained:
        in_32bit = tensor.in_embedding or tensor.numel < MIN_8BIT_ELEMENTS
        moments = 2 * tensor.numel * (4 if in_32bit else 1)
        state += moments
        if not in_32bit:
            any_8bit = True
            state += 2 * 4 * -(-tensor.numel // BLOCK_8BIT)
        if paged and tensor.numel >= MIN_PAGED_ELEMENTS:
            in_pages += moments
    return OptimizerBytes(state + (QMAP_BYTES if any_8bit else 0), in_pages, 0, 0)
