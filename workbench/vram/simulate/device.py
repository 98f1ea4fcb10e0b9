"""A device without memory that makes CUDA's choices, as a PrivateUse1 backend in Python. Needs torch.

Importing this changes nothing; `open_device` changes the whole process, which is why simulations run in one of
their own.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from workbench.vram.simulate.attention import scaled_dot_product_attention

SIMULATED = "simgpu"
"""Name of the simulated device."""
FALLBACK = "cpu"
"""Label used where torch's private interface has changed; operators then take CPU's branches."""

# Operators that have a kernel of their own on CUDA, but are composed of others on a backend without one.
_UNDECOMPOSED = ("silu_backward", "mish_backward")

_kept_alive: list[Any] = []
_was_tried: list[bool] = []


def open_device() -> str:
    """Register the simulated device for this process, before its first backward pass, and try it.

    Returns:
        `SIMULATED`, or `FALLBACK` if this torch does not offer the interface any more, or not as it did.
    """
    try:
        if not _kept_alive:
            _kept_alive.append(_register())
        if not _was_tried:
            _try_it()
            _was_tried.append(True)
    except Exception:
        # A private interface may change in any way.
        return FALLBACK
    return SIMULATED


def _register() -> Any:
    import torch
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend(rename=SIMULATED, backend_module=_backend(torch))
    library = torch.library.Library("aten", "IMPL")
    for name in _UNDECOMPOSED:
        library.impl(name, _never_called, "PrivateUse1")
    # Works in place and has no kernel for tensors without data.
    library.impl("_fused_sgd_", _nothing, "Meta")
    return library


def _try_it() -> None:
    """A small step that needs all that is replaced or registered: whatever it raises tells that something changed."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.checkpoint import checkpoint

    functional = torch.nn.functional

    def layer(states: Any) -> Any:
        attended = functional.scaled_dot_product_attention(states, states, states, is_causal=True)
        return functional.dropout(functional.silu(attended), 0.1)

    threads = torch.autograd.set_multithreading_enabled(False)
    with FakeTensorMode(allow_non_fake_inputs=True), cuda_choices(SIMULATED, "sdpa", set()), threads:
        weight = torch.nn.Parameter(torch.ones((1, 2, 8, 16), dtype=torch.bfloat16, device=SIMULATED))
        checkpoint(layer, weight, use_reentrant=False).float().sum().backward()
        torch.tensor([1, 2], device=SIMULATED)
        torch.optim.SGD([weight], fused=True).step()
        if weight.grad is None or weight.grad.device.type != SIMULATED:
            raise RuntimeError("the simulated device keeps no gradients")


def _never_called(*arguments: Any) -> Any:
    raise RuntimeError("a kernel of the simulated device was called with data")


def _nothing(*arguments: Any, **named: Any) -> None:
    return None


def _backend(torch: Any) -> Any:
    """What torch asks of ``torch.simgpu``; gradient checkpointing needs the random state, autocast the dtypes."""

    class Device:
        def __init__(self, index: Any) -> None:
            self.index = index

        def __enter__(self) -> None:
            return None

        def __exit__(self, *exception: Any) -> None:
            return None

    class Backend:
        device = Device

        def is_available(self) -> bool:
            return True

        def is_initialized(self) -> bool:
            return True

        def _is_in_bad_fork(self) -> bool:
            return False

        def device_count(self) -> int:
            return 1

        def current_device(self) -> int:
            return 0

        def set_device(self, index: Any) -> None:
            return None

        def synchronize(self, index: Any = None) -> None:
            return None

        def manual_seed(self, seed: int) -> None:
            return None

        def manual_seed_all(self, seed: int) -> None:
            return None

        def get_amp_supported_dtype(self) -> list[Any]:
            return [torch.float16, torch.bfloat16, torch.float32]

        def get_rng_state(self, index: Any = None) -> Any:
            return torch.empty(16, dtype=torch.uint8, device="cpu")

        def set_rng_state(self, state: Any, index: Any = None) -> None:
            return None

    return Backend()


@contextlib.contextmanager
def cuda_choices(label: str, attention: str, kernels: set[str]) -> Iterator[None]:
    """A context in which functions of torch make the choices they make on CUDA.

    They are replaced where they stand: models call them by these names, and a function mode would slow every call.

    Args:
        label: the device to do so for; nothing is changed for `FALLBACK`.
        attention: as in the plan.
        kernels: filled with the attention kernels taken.
    """
    if label == FALLBACK:
        yield
        return
    import torch

    with contextlib.ExitStack() as patches:
        functional = torch.nn.functional
        for owner, name, replacement in (
            (
                functional,
                "scaled_dot_product_attention",
                functools.partial(scaled_dot_product_attention, attention, kernels),
            ),
            (functional, "softmax", _softmax(torch, functional.softmax)),
            (torch, "softmax", _softmax(torch, torch.softmax)),
            (functional, "dropout", _dropout(torch, functional.dropout)),
        ):
            patches.enter_context(replaced(owner, name, replacement))
        patches.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        # A tensor made from values is made on the CPU first, where a mode sees it, and then moved.
        torch._C._set_only_lift_cpu_tensors(True)
        yield


@contextlib.contextmanager
def replaced(owner: Any, name: str, replacement: Any) -> Iterator[None]:
    """A context in which an attribute is another one."""
    original = getattr(owner, name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _softmax(torch: Any, original: Any) -> Any:
    def softmax(input: Any, *arguments: Any, **named: Any) -> Any:
        if named.get("dtype") is torch.float32 and input.dtype is torch.float16:
            # CUDA has one kernel for half to float (aten/src/ATen/native/SoftMax.cpp, softmax).
            dim = arguments[0] if arguments else named["dim"]
            return torch._softmax(input, dim, True)
        return original(input, *arguments, **named)

    return softmax


def _dropout(torch: Any, original: Any) -> Any:
    def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        if training and 0 < p < 1 and not inplace and input.device.type == SIMULATED:
            # On CUDA one kernel that keeps a bool mask (aten/src/ATen/native/Dropout.cpp).
            return torch.native_dropout(input, p, True)[0]
        return original(input, p, training, inplace)

    return dropout


@contextlib.contextmanager
def replaceable_parameters() -> Iterator[None]:
    """Let ``Module.to`` replace parameters without data, which it refuses to swap in place."""
    import torch

    def apply(self: Any, function: Any, recurse: bool = True) -> Any:
        if recurse:
            for child in self.children():
                child._apply(function)
        for name, parameter in self._parameters.items():
            if parameter is not None:
                moved = function(parameter.detach())
                if moved is not parameter and (moved.dtype, moved.device) != (parameter.dtype, parameter.device):
                    self._parameters[name] = torch.nn.Parameter(moved, parameter.requires_grad)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = function(buffer)
        return self

    with replaced(torch.nn.Module, "_apply", apply):
        yield
