"""What a model holds in memory, giving it back, and what an allocation failure says. Needs torch."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from workbench.text import format_bytes, one_line


def release_memory() -> None:
    """Collect garbage and hand freed memory back to the driver and the operating system."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None:
        with contextlib.suppress(Exception):
            if torch.cuda.is_available() and torch.cuda.is_initialized():
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
                torch.cuda.ipc_collect()
        with contextlib.suppress(Exception):
            if torch.backends.mps.is_available():
                torch.mps.empty_cache()
    if sys.platform.startswith("linux"):
        # glibc keeps freed heap pages until told; other C libraries lack the function.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def storages(model: Any) -> list[Any]:
    """Every storage that the model owns, once each: parameters, buffers and quantization state.

    ``get_memory_footprint`` of transformers leaves the quantization state out; tied weights share a storage.
    """
    found: dict[int, Any] = {}
    for tensor in _tensors(model):
        storage = tensor.untyped_storage()
        found[storage._cdata] = storage
    return list(found.values())


def _tensors(model: Any) -> Iterator[Any]:
    for module in model.modules():
        for _name, tensor in own_tensors(module):
            yield tensor


def own_tensors(module: Any) -> Iterator[tuple[str, Any]]:
    """Parameters and buffers of a module itself, and under a weight's name the state that its quantization needs."""
    import torch

    for name, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is None:
            continue
        yield name, tensor
        holders = [tensor, getattr(tensor, "quant_state", None)]
        holders.append(getattr(holders[1], "state2", None))
        holders.append(getattr(module, "state", None))  # int8: bnb.MatmulLtState
        for holder in holders:
            for key in ("CB", "SCB", "absmax", "code", "offset"):
                value = getattr(holder, key, None)
                if isinstance(value, torch.Tensor):
                    yield name, value


def memory_shortage(error: BaseException) -> Optional[str]:
    """What an exception says about memory: how much was asked for and what was free; None if it is another one.

    CUDA's text is that of ``torch.OutOfMemoryError``, the CPU's that of torch's ``DefaultCPUAllocator`` or of
    mapping a file.
    """
    text = str(error)
    name = type(error).__name__
    cpu = re.search(r"tried to allocate (\d+) bytes", text)
    if "Cannot allocate memory" in text:
        cpu = cpu or re.search(r"unable to mmap (\d+) bytes", text)
    if "OutOfMemoryError" in name or "CUDA out of memory" in text:
        asked = re.search(r"[Tt]ried to allocate ([\d.]+ [KMGT]?i?B)", text)
        free = re.search(r"of which ([\d.]+ [KMGT]?i?B) is free", text)
        total = re.search(r"total capacity of ([\d.]+ [KMGT]?i?B)", text)
        parts = [f"{asked.group(1)} more were needed" if asked else one_line(text, 160)]
        if free:
            parts.append(f"{free.group(1)} were free")
        return ", ".join(parts) + (f" of {total.group(1)}." if total else ".")
    if isinstance(error, MemoryError) or cpu or getattr(error, "errno", None) == errno.ENOMEM:
        asked_text = f"{format_bytes(int(cpu.group(1)))} more were needed" if cpu else "no memory was left"
        return f"{asked_text}; {_free_ram()}"
    return None


def _free_ram() -> str:
    limit = _address_space_limit()
    if limit is not None:
        return f"this process may use {format_bytes(limit)} of address space (ulimit -v)."
    try:
        text = Path("/proc/meminfo").read_text("ascii")
        available = int(re.findall(r"MemAvailable:\s+(\d+) kB", text)[0]) * 1024
    except (OSError, IndexError):
        return "the machine's RAM is used up."
    return f"{format_bytes(available)} of RAM are free."


def _address_space_limit() -> Optional[int]:
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else int(limit)
